//! Who is at the other end.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

/// A client's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// An IP address and a port: of its socket, or as a PROXY header names it.
    Ip(SocketAddr),
    /// It came over the Unix socket with this path; clients have none of their own.
    Unix(Arc<Path>),
}

impl Peer {
    /// The address by which it is counted and let in. Who comes over a Unix socket is
    /// on this machine, and counts as 127.0.0.1.
    pub fn ip(&self) -> IpAddr {
        match self {
            Peer::Ip(address) => address.ip(),
            Peer::Unix(_) => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// Whether it is on this machine: 127.0.0.0/8, `::1`, the former as an IPv6 listener
    /// sees it (`::ffff:127.0.0.1`), or a Unix socket.
    pub fn is_local(&self) -> bool {
        self.ip().to_canonical().is_loopback()
    }
}

/// As `CLIENT LIST` of Redis shows it.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Ip(address) => address.fmt(f),
            Peer::Unix(path) => write!(f, "{}:0", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_over_a_unix_socket_is_local_and_shown_as_redis_does() {
        let peer = Peer::Unix(Path::new("/run/weir.sock").into());
        assert_eq!(peer.to_string(), "/run/weir.sock:0");
        assert!(peer.is_local());
    }

    #[test]
    fn loopback_is_told_from_the_network() {
        for (address, is_local) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("10.0.0.1:1", false),
            ("[2001:db8::1]:1", false),
        ] {
            assert_eq!(
                Peer::Ip(address.parse().unwrap()).is_local(),
                is_local,
                "{address}"
            );
        }
    }

    #[test]
    fn it_takes_no_more_than_an_address() {
        assert_eq!(size_of::<Peer>(), size_of::<SocketAddr>());
    }
}
