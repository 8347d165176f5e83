//! Sockets of the generator: connected one after the other, then never blocking.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mio::net::TcpStream;
use socket2::{Domain, Socket, Type};

/// The address that client number `client` connects from. One address has about 28,000 ports
/// towards one listener, and a port rests for a minute after use; the loopback network has
/// addresses to spare.
pub fn source(client: usize) -> IpAddr {
    let spread = client % 250;
    Ipv4Addr::new(127, 0, 1, 1 + spread as u8).into()
}

/// Connects, waiting until the listener's queue has taken the connection.
pub fn connect(source: Option<IpAddr>, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = new_socket(source, target)?;
    socket.connect(&target.into())?;
    socket.set_nonblocking(true)?;
    Ok(TcpStream::from_std(socket.into()))
}

/// Begins to connect; the first writable event says that it is done.
pub fn begin_connect(source: Option<IpAddr>, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = new_socket(source, target)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

fn new_socket(source: Option<IpAddr>, target: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(socket)
}
