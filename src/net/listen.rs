//! Opening a listener.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// How a listener is opened.
#[derive(Debug, Clone, Copy)]
pub struct ListenOptions {
    /// Connections that the kernel keeps until they are accepted; it cuts the
    /// number to `net.core.somaxconn`.
    pub backlog: u32,
    /// An IPv6 listener takes IPv6 only. When false, one on `[::]` takes IPv4
    /// too, whose peers then look like `::ffff:192.0.2.1`.
    pub only_v6: bool,
}

impl Default for ListenOptions {
    /// A long queue (a storm of reconnects is thousands), IPv4 and IPv6.
    fn default() -> Self {
        Self {
            backlog: 4096,
            only_v6: false,
        }
    }
}

/// Opens a listener on `addr`: not blocking, closed on exec, and with
/// `SO_REUSEADDR`, so that a restart does not wait for the connections of the
/// process before to leave `TIME_WAIT`.
///
/// # Errors
/// What the kernel says; `AddrInUse` when somebody listens there.
pub fn listen(addr: SocketAddr, options: &ListenOptions) -> io::Result<TcpListener> {
    // `Socket::new` sets close-on-exec.
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(options.only_v6)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(options.backlog.min(i32::MAX as u32) as i32)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
    use std::os::fd::AsRawFd;

    fn flags(listener: &TcpListener, command: libc::c_int) -> libc::c_int {
        // SAFETY: the descriptor is open and these commands take no pointer.
        unsafe { libc::fcntl(listener.as_raw_fd(), command) }
    }

    #[test]
    fn a_listener_neither_blocks_nor_is_inherited() {
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let listener = listen(any, &ListenOptions::default()).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_ne!(flags(&listener, libc::F_GETFD) & libc::FD_CLOEXEC, 0);
    }

    #[test]
    fn an_address_that_is_taken_is_an_error() {
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let first = listen(any, &ListenOptions::default()).unwrap();
        let again = listen(first.local_addr().unwrap(), &ListenOptions::default());
        assert_eq!(again.unwrap_err().kind(), ErrorKind::AddrInUse);
    }

    /// The listener's side closes first, which leaves its address in `TIME_WAIT`.
    /// A loopback address of its own, so that nobody takes the port meanwhile.
    #[test]
    #[cfg(target_os = "linux")]
    fn an_address_can_be_taken_again_at_once_after_a_restart() {
        let any = (Ipv4Addr::new(127, 77, 0, 1), 0).into();
        let first = listen(any, &ListenOptions::default()).unwrap();
        first.set_nonblocking(false).unwrap();
        let addr = first.local_addr().unwrap();
        let mut client = TcpStream::connect(addr).unwrap();
        let (mut accepted, _) = first.accept().unwrap();
        accepted.write_all(b"x").unwrap();
        drop((accepted, first));
        client.read_to_end(&mut Vec::new()).unwrap();
        listen(addr, &ListenOptions::default()).unwrap();
    }

    #[test]
    fn a_listener_for_all_of_ipv6_takes_ipv4_unless_told_not_to() {
        let any: SocketAddr = (Ipv6Addr::UNSPECIFIED, 0).into();
        let Ok(both) = listen(any, &ListenOptions::default()) else {
            eprintln!("skipped: this machine has no IPv6");
            return;
        };
        let port = both.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();

        let only_v6 = ListenOptions {
            only_v6: true,
            ..ListenOptions::default()
        };
        let six = listen(any, &only_v6).unwrap();
        let port = six.local_addr().unwrap().port();
        TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap_err();
    }
}
