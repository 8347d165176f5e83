//! Opening a connection to a node.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use super::Stream;
use super::tune::set_keepalive;
use crate::config::UNIX_PREFIX;

/// At most so many addresses of one name are tried: each gets its share of the
/// time, and a share should be enough to connect.
const ADDRESSES_MAX: usize = 8;

/// How a node is dialled.
#[derive(Debug, Clone, Copy)]
pub struct DialOptions {
    /// For all of it: resolving the name and trying its addresses.
    pub timeout: Duration,
    /// As [`super::TuneOptions::keepalive`]; zero: never.
    pub keepalive: Duration,
    /// How long what was sent may stay without the peer's kernel confirming it
    /// before the connection is given up (`TCP_USER_TIMEOUT`); keepalive says
    /// nothing while data is on its way. A Redis that is busy still confirms.
    /// Zero: the kernel's default, about a quarter of an hour. Linux only.
    pub user_timeout: Duration,
}

/// Why no connection came about. Whichever it is, nothing was sent, so trying
/// again later is safe.
#[derive(Debug)]
pub enum DialError {
    /// The name could not be resolved.
    Resolve {
        /// What was dialled.
        addr: String,
        /// What the resolver said.
        error: io::Error,
    },
    /// The name has no address.
    NoAddress {
        /// What was dialled.
        addr: String,
    },
    /// Time was up.
    Timeout {
        /// What was dialled.
        addr: String,
        /// The time that was given.
        after: Duration,
    },
    /// The last address that was tried could not be connected to.
    Connect {
        /// What was dialled.
        addr: String,
        /// What it was resolved to.
        tried: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
    /// The Unix socket could not be connected to.
    Unix {
        /// What was dialled.
        addr: String,
        /// What the kernel said.
        error: io::Error,
    },
}

impl DialError {
    /// The reason's stable label for metrics: one of four, plus `refused`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Resolve { .. } => "resolve",
            Self::NoAddress { .. } => "no_address",
            Self::Timeout { .. } => "timeout",
            Self::Connect { error, .. } if error.kind() == io::ErrorKind::ConnectionRefused => {
                "refused"
            }
            Self::Unix { error, .. } if error.kind() == io::ErrorKind::ConnectionRefused => {
                "refused"
            }
            Self::Connect { .. } | Self::Unix { .. } => "connect",
        }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve { addr, error } => write!(f, "cannot resolve {addr}: {error}"),
            Self::NoAddress { addr } => write!(f, "{addr} has no address"),
            Self::Timeout { addr, after } => {
                write!(f, "no connection to {addr} within {after:?}")
            }
            Self::Connect { addr, tried, error } if *addr == tried.to_string() => {
                write!(f, "cannot connect to {addr}: {error}")
            }
            Self::Unix { addr, error } => write!(f, "cannot connect to {addr}: {error}"),
            Self::Connect { addr, tried, error } => {
                write!(f, "cannot connect to {addr} ({tried}): {error}")
            }
        }
    }
}

impl std::error::Error for DialError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Resolve { error, .. }
            | Self::Connect { error, .. }
            | Self::Unix { error, .. } => Some(error),
            Self::NoAddress { .. } | Self::Timeout { .. } => None,
        }
    }
}

/// Connects to `addr`: `host:port`, `[v6]:port`, or `unix:` and the path of a socket, which
/// has none of the options and is there at once or not at all. A name is resolved now,
/// since behind a name may be another machine than an hour ago, and its
/// addresses are tried one after another: never two at once, because each
/// would be a connection that the budget has not granted.
///
/// An address that does not answer uses up only its share of the time left, so
/// that a dead first address does not hide a live second one.
///
/// Dropping the future closes what was opened. A name that is being resolved
/// goes on in its thread and is forgotten.
///
/// # Errors
/// See [`DialError`].
pub async fn dial(addr: &str, options: &DialOptions) -> Result<Stream, DialError> {
    let Some(path) = addr.strip_prefix(UNIX_PREFIX) else {
        return dial_tcp(addr, options).await.map(Stream::Tcp);
    };
    let connected = UnixStream::connect(path).await.map(Stream::Unix);
    connected.map_err(|error| DialError::Unix {
        addr: addr.into(),
        error,
    })
}

async fn dial_tcp(addr: &str, options: &DialOptions) -> Result<TcpStream, DialError> {
    let deadline = Instant::now() + options.timeout;
    let addresses = resolve(addr, options, deadline).await?;
    let mut failure = DialError::NoAddress { addr: addr.into() };
    for (index, tried) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / (addresses.len() - index) as u32;
        match timeout_at(Instant::now() + share, connect(*tried, options)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => {
                failure = DialError::Connect {
                    addr: addr.into(),
                    tried: *tried,
                    error,
                };
            }
            Err(_) => {
                failure = DialError::Timeout {
                    addr: addr.into(),
                    after: options.timeout,
                }
            }
        }
    }
    Err(failure)
}

async fn resolve(
    addr: &str,
    options: &DialOptions,
    deadline: Instant,
) -> Result<Vec<SocketAddr>, DialError> {
    match timeout_at(deadline, lookup_host(addr)).await {
        Ok(Ok(addresses)) => Ok(addresses.take(ADDRESSES_MAX).collect()),
        Ok(Err(error)) => Err(DialError::Resolve {
            addr: addr.into(),
            error,
        }),
        Err(_) => Err(DialError::Timeout {
            addr: addr.into(),
            after: options.timeout,
        }),
    }
}

async fn connect(addr: SocketAddr, options: &DialOptions) -> io::Result<TcpStream> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_nodelay(true)?;
    let raw = SockRef::from(&socket);
    set_keepalive(&raw, options.keepalive)?;
    #[cfg(target_os = "linux")]
    if !options.user_timeout.is_zero() {
        raw.set_tcp_user_timeout(Some(options.user_timeout))?;
    }
    let stream = socket.connect(addr).await?;
    refuse_self(&stream)?;
    Ok(stream)
}

/// A local port on which nobody listens can be connected to by itself: when the
/// kernel happens to choose it as the source port, TCP's simultaneous open
/// succeeds. A Redis that is down on a port of the ephemeral range would so
/// become an echo of Weir's own commands, and its port would be taken when it
/// comes back.
fn refuse_self(stream: &TcpStream) -> io::Result<()> {
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};
    use std::net::Ipv4Addr;
    use tokio::net::TcpListener;

    const OPTIONS: DialOptions = DialOptions {
        timeout: Duration::from_secs(10),
        keepalive: Duration::from_secs(60),
        user_timeout: Duration::from_secs(20),
    };

    /// A port that is bound but not listened on: nobody else can take it, and
    /// whoever connects is refused.
    fn refusing() -> (Socket, SocketAddr) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket
            .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
            .unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, addr)
    }

    #[tokio::test]
    async fn a_node_is_reached_with_all_options_set() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let stream = dial_tcp(&addr, &OPTIONS).await.unwrap();
        assert!(stream.nodelay().unwrap());
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), OPTIONS.keepalive);
        #[cfg(target_os = "linux")]
        assert_eq!(
            socket.tcp_user_timeout().unwrap(),
            Some(OPTIONS.user_timeout)
        );
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, stream.local_addr().unwrap());
    }

    /// `localhost` is `::1` and `127.0.0.1` on most machines; only the latter listens.
    #[tokio::test]
    async fn a_name_is_resolved_and_its_addresses_are_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = dial_tcp(&format!("localhost:{port}"), &OPTIONS)
            .await
            .unwrap();
        assert_eq!(stream.peer_addr().unwrap().port(), port);
    }

    #[tokio::test]
    async fn a_node_that_is_down_is_known_at_once() {
        let (_taken, addr) = refusing();
        let error = dial(&addr.to_string(), &OPTIONS).await.unwrap_err();
        assert_eq!(error.label(), "refused");
        assert!(
            error
                .to_string()
                .starts_with(&format!("cannot connect to {addr}: ")),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_unix_socket_is_there_or_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("redis.sock");
        let addr = format!("unix:{}", path.display());
        let error = dial(&addr, &OPTIONS).await.unwrap_err();
        assert_eq!(error.label(), "connect");
        let _listener = tokio::net::UnixListener::bind(&path).unwrap();
        assert!(matches!(dial(&addr, &OPTIONS).await, Ok(Stream::Unix(_))));
    }

    #[tokio::test]
    async fn what_is_no_address_cannot_be_resolved() {
        for addr in ["", "127.0.0.1", "127.0.0.1:port", "127.0.0.1:70000"] {
            let error = dial(addr, &OPTIONS).await.unwrap_err();
            assert!(
                matches!(error, DialError::Resolve { .. }),
                "{addr:?}: {error}"
            );
        }
    }

    /// A listener whose queue is full answers nobody: the kernel drops the
    /// first packet of all who come later.
    #[tokio::test]
    async fn a_node_that_does_not_answer_is_given_up_at_the_timeout() {
        let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        full.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
            .unwrap();
        full.listen(0).unwrap();
        let addr = full.local_addr().unwrap().as_socket().unwrap();
        let options = DialOptions {
            timeout: Duration::from_millis(200),
            ..OPTIONS
        };
        let mut queued = Vec::new();
        let error = loop {
            match dial(&addr.to_string(), &options).await {
                Ok(stream) => queued.push(stream),
                Err(error) => break error,
            }
            assert!(queued.len() < 16, "the queue never fills");
        };
        assert!(matches!(error, DialError::Timeout { .. }), "{error}");
        assert_eq!(
            error.to_string(),
            format!("no connection to {addr} within 200ms")
        );
    }

    #[tokio::test]
    async fn a_connection_to_itself_is_refused() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let addr = socket.local_addr().unwrap();
        let stream = socket.connect(addr).await.unwrap();
        assert_eq!(
            refuse_self(&stream).unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
    }
}
