//! Between the acceptor and the session: the PROXY header and the TLS handshake of a
//! client, where its listener asks for them. Both have one deadline, a bounded size, and
//! a bounded number of clients at it.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout_at};

use super::door::{Door, Place};
use super::worker::{State, Worker};
use crate::metrics::{HandshakeResult, HeaderResult};
use crate::net::proxy_protocol::{self, HEADER_LEN_MAX, Header};
use crate::net::tls::{self, TlsIdentity};
use crate::net::{Accepted, Peer, Stream, TlsFailure};

/// A client that was just accepted.
#[derive(Debug)]
pub struct Newcomer {
    /// Its socket, not registered with any event loop yet.
    pub socket: Accepted,
    /// Who is at its other end.
    pub peer: Peer,
    /// Index of the route.
    pub route: u16,
    /// Index of the route's door.
    pub listener: u16,
    /// Its place among those who have still to show something; `None` if it has not.
    pub place: Option<Place>,
}

/// A client that has come in.
pub(super) struct Arrival {
    pub socket: Socket,
    pub peer: Peer,
    pub route: u16,
    pub listener: u16,
    pub tls_identity: Option<Arc<TlsIdentity>>,
}

/// A client's socket, registered with the worker's event loop or not yet.
pub(super) enum Socket {
    Fresh(Accepted),
    Registered(Stream),
}

impl Socket {
    /// # Errors
    /// The client has gone already.
    pub fn register(self) -> io::Result<Stream> {
        match self {
            Socket::Fresh(socket) => socket.register(),
            Socket::Registered(stream) => Ok(stream),
        }
    }

    /// Sends what a new socket takes at once, and closes it.
    pub fn send_once(self, bytes: &[u8]) {
        let _ = match self {
            Socket::Fresh(mut socket) => socket.write(bytes),
            Socket::Registered(mut stream) => stream.try_write(bytes),
        };
    }
}

impl State {
    /// Takes a client in, at once or when it has shown what its listener asks for.
    pub(super) fn admit(&mut self, newcomer: Newcomer) {
        let Newcomer {
            socket,
            peer,
            route,
            listener,
            place,
        } = newcomer;
        let Some(place) = place else {
            return self.welcome(Arrival {
                socket: Socket::Fresh(socket),
                peer,
                route,
                listener,
                tls_identity: None,
            });
        };
        let door = self.fronts[route as usize].route.doors[listener as usize].clone();
        let worker = self.worker();
        tokio::task::spawn_local(async move {
            let who = peer.clone();
            let shown = show(&door, socket, peer).await;
            drop(place);
            match shown {
                Ok((stream, peer, tls_identity)) => worker.enter(|state| {
                    state.welcome(Arrival {
                        socket: Socket::Registered(stream),
                        peer,
                        route,
                        listener,
                        tls_identity,
                    });
                }),
                Err(refusal) => turn_away(&worker, &door, &who, &refusal),
            }
        });
    }

    fn lower_own_load(&self) {
        self.proxy.lower_load(self.index);
    }
}

/// Why a newcomer was turned away.
enum Refusal {
    Header(HeaderResult),
    Tls(TlsFailure),
    TlsTimeout,
    Socket(io::Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Header(HeaderResult::Untrusted) => {
                f.write_str("it is none of proxy_protocol_from")
            }
            Refusal::Header(HeaderResult::Timeout) => f.write_str("no PROXY header in time"),
            Refusal::Header(HeaderResult::Closed) => {
                f.write_str("it closed before its PROXY header was whole")
            }
            Refusal::Header(_) => f.write_str("what it sent is no PROXY header"),
            Refusal::Tls(failure) => failure.fmt(f),
            Refusal::TlsTimeout => f.write_str("TLS handshake not done in time"),
            Refusal::Socket(error) => error.fmt(f),
        }
    }
}

fn turn_away(worker: &Rc<Worker>, door: &Door, peer: &Peer, refusal: &Refusal) {
    worker.enter(|state| state.lower_own_load());
    // Who goes away by itself, such as a port scanner or a health check, is no news.
    let is_news = !matches!(
        refusal,
        Refusal::Socket(_)
            | Refusal::Header(HeaderResult::Closed)
            | Refusal::Tls(TlsFailure::Closed(_))
    );
    if !is_news {
        tracing::debug!(listener = %door.label, %peer, "connection turned away: {refusal}");
    } else if let Some(left_out) = door.may_complain() {
        tracing::warn!(listener = %door.label, %peer, left_out, "connection turned away: {refusal}");
    }
}

/// Header and handshake, with one deadline.
async fn show(
    door: &Door,
    socket: Accepted,
    mut peer: Peer,
) -> Result<(Stream, Peer, Option<Arc<TlsIdentity>>), Refusal> {
    let deadline = Instant::now() + door.config.handshake_timeout;
    let mut stream = socket.register().map_err(Refusal::Socket)?;
    if !door.config.proxy_protocol_from.is_empty() {
        let header = match may_name_clients(door, &peer) {
            true => timeout_at(deadline, read_header(&mut stream)).await,
            false => Ok(Err(HeaderResult::Untrusted)),
        };
        let result = match header {
            Ok(Ok(Some(client))) => {
                peer = Peer::Ip(client);
                HeaderResult::Ok
            }
            Ok(Ok(None)) => HeaderResult::Local,
            Ok(Err(result)) => result,
            Err(_) => HeaderResult::Timeout,
        };
        door.headers.count(result);
        if !matches!(result, HeaderResult::Ok | HeaderResult::Local) {
            return Err(Refusal::Header(result));
        }
    }
    let Some(certificates) = &door.tls else {
        return Ok((stream, peer, None));
    };
    let Stream::Tcp(socket) = stream else {
        return Err(Refusal::Socket(ErrorKind::Unsupported.into()));
    };
    let fail = |failure: TlsFailure| {
        door.handshakes.count(failure.result());
        Refusal::Tls(failure)
    };
    let mut stream = tls::wrap_for_client(certificates, socket)
        .map_err(|error| fail(TlsFailure::Refused(error)))?;
    match timeout_at(deadline, stream.shake_hands()).await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => return Err(fail(failure)),
        Err(_) => {
            door.handshakes.count(HandshakeResult::Timeout);
            return Err(Refusal::TlsTimeout);
        }
    }
    door.handshakes.count(HandshakeResult::Ok);
    let identity = stream
        .agreed()
        .peer_certificates()
        .and_then(|chain| chain.first());
    let identity = identity.and_then(TlsIdentity::of).map(Arc::new);
    Ok((Stream::Tls(Box::new(stream)), peer, identity))
}

fn may_name_clients(door: &Door, peer: &Peer) -> bool {
    let trusted = &door.config.proxy_protocol_from;
    trusted.iter().any(|network| network.contains(peer.ip()))
}

/// Reads the header and not one byte of what the client sends behind it, which may be the
/// beginning of a TLS handshake: looks at what has arrived before taking it.
async fn read_header(stream: &mut Stream) -> Result<Option<SocketAddr>, HeaderResult> {
    let mut bytes = [0; HEADER_LEN_MAX];
    let mut taken = 0;
    loop {
        let seen = stream.peek(&mut bytes[taken..]).await;
        let seen = seen.map_err(|_| HeaderResult::Closed)?;
        if seen == 0 {
            return Err(HeaderResult::Closed);
        }
        let (len, outcome) = match proxy_protocol::decode(&bytes[..taken + seen]) {
            Header::Malformed => return Err(HeaderResult::Malformed),
            // It is taken, so that the next look waits for more and not for the same.
            Header::More => (taken + seen, None),
            Header::Whole { len, client } => (len, Some(client)),
        };
        let known = stream.read_exact(&mut bytes[taken..len]).await;
        known.map_err(|_| HeaderResult::Closed)?;
        taken = len;
        if let Some(client) = outcome {
            return Ok(client);
        }
    }
}
