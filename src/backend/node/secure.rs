//! TLS to the node.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::{Node, OpenError, close_politely};
use crate::backend::budget::Slot;
use crate::config::BackendTls;
use crate::metrics::{HandshakeResult, Tally};
use crate::net::tls::{self, ClientCertificates};
use crate::net::{Stream, TlsFailure};

/// What TLS to a node is spoken with.
#[derive(Debug)]
pub struct NodeTls {
    /// The settings.
    pub config: BackendTls,
    /// Certificates and authorities.
    pub certificates: Arc<ClientCertificates>,
    /// How handshakes ended.
    pub handshakes: Tally<HandshakeResult>,
}

impl NodeTls {
    /// What a route's nodes are spoken TLS to with.
    pub fn new(route: &str, config: &BackendTls) -> NodeTls {
        let place = format!("route.{route}.backend.tls");
        NodeTls {
            config: config.clone(),
            certificates: Arc::new(tls::to_nodes(config, place)),
            handshakes: Tally::default(),
        }
    }
}

impl Node {
    /// Connects, with TLS where it is spoken, and says nothing: for single questions. The
    /// slot comes back with the connection; if there is none, it returns to the
    /// ledger when the node has let go of it.
    ///
    /// # Errors
    /// [`OpenError`]; further attempts are held off for a while.
    pub async fn connect(&self, slot: Slot) -> Result<(Stream, Slot), OpenError> {
        let deadline = Instant::now() + self.settings().timeouts.connect;
        self.turn_to_dial().await;
        match self.secure(self.dial().await?, deadline).await {
            Ok(socket) => Ok((socket, slot)),
            Err((error, socket)) => {
                close_politely(socket, Some(slot));
                self.failed(&error);
                Err(error)
            }
        }
    }

    /// Shakes hands over a fresh connection where TLS is spoken.
    ///
    /// # Errors
    /// Why not, with the connection: until the node has closed its end it counts.
    pub(super) async fn secure(
        &self,
        socket: Stream,
        deadline: Instant,
    ) -> Result<Stream, (OpenError, Stream)> {
        let mut stream = self.wrap(socket)?;
        match timeout_at(deadline, self.agree(&mut stream)).await {
            Ok(Ok(())) => Ok(stream),
            Ok(Err(error)) => Err((error, stream)),
            Err(_) => {
                if let Some(node_tls) = &self.tls {
                    node_tls.handshakes.count(HandshakeResult::Timeout);
                }
                let why = "no answer to the TLS handshake; is this its TLS port?";
                Err((self.unreachable(why), stream))
            }
        }
    }

    /// The connection as it has to be spoken on; for TLS it has still to be agreed on.
    ///
    /// # Errors
    /// Why there can be no TLS, with the connection.
    pub(super) fn wrap(&self, socket: Stream) -> Result<Stream, (OpenError, Stream)> {
        let (node_tls, socket) = match (&self.tls, socket) {
            (Some(node_tls), Stream::Tcp(socket)) => (node_tls, socket),
            (_, plain) => return Ok(plain),
        };
        let name = match tls::server_name(&node_tls.config, &self.address) {
            Ok(name) => name,
            Err(why) => return Err((self.unreachable(&why), Stream::Tcp(socket))),
        };
        match tls::wrap_for_node(&node_tls.certificates, socket, name) {
            Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
            Err((why, socket)) => Err((self.unreachable(&why.to_string()), Stream::Tcp(socket))),
        }
    }

    /// Shakes hands, for as long as it takes, on a connection that was wrapped.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn agree(&self, stream: &mut Stream) -> Result<(), OpenError> {
        let (Some(node_tls), Stream::Tls(stream)) = (&self.tls, stream) else {
            return Ok(());
        };
        let outcome = stream.shake_hands().await;
        let result = outcome
            .as_ref()
            .err()
            .map_or(HandshakeResult::Ok, TlsFailure::result);
        node_tls.handshakes.count(result);
        outcome.map_err(|failure| self.unreachable(&explain(&failure)))
    }
}

/// The failure, with what to do about the ones that everybody meets.
fn explain(failure: &TlsFailure) -> String {
    let hint = match failure.result() {
        HandshakeResult::CertificateUnknown => {
            "; name the authority that signed its certificate in ca"
        }
        HandshakeResult::CertificateBad => {
            "; its certificate needs the name as a subjectAltName, or set server_name"
        }
        HandshakeResult::Protocol => "; is this its TLS port?",
        _ => "",
    };
    format!("{failure}{hint}")
}
