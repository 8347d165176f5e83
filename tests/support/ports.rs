//! Free ports without a race between tests that run in parallel.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// A TCP port of 127.0.0.1 that nobody else gets while this value lives.
///
/// The port is held by a socket that is bound, with `SO_REUSEADDR`, and never
/// listens. Linux lets a server that also sets `SO_REUSEADDR` (Redis and Weir do)
/// bind and listen on the port, but hands it neither to another bind of port 0
/// nor to an outgoing connection. So a killed server finds its port again, and a
/// connection made in between is refused instead of reaching a stranger.
#[derive(Debug)]
pub struct ReservedPort {
    address: SocketAddr,
    _holder: Socket,
}

impl ReservedPort {
    /// Reserves a free port of 127.0.0.1.
    pub fn new() -> Self {
        let holder = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        holder.set_reuse_address(true).expect("SO_REUSEADDR");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        holder.bind(&any.into()).expect("a free port");
        let address = holder.local_addr().expect("a bound socket has an address");
        let address = address.as_socket().expect("an IPv4 address");
        Self {
            address,
            _holder: holder,
        }
    }

    /// The reserved address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The reserved port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }
}
