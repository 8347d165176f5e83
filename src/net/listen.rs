//! Opening a listener.

mod socket_file;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::{ListenAddress, Owner};
use socket_file::SocketFile;

/// How a listener is opened.
#[derive(Debug, Clone)]
pub struct ListenOptions {
    /// Connections that the kernel keeps until they are accepted; it cuts the
    /// number to `net.core.somaxconn`.
    pub backlog: u32,
    /// An IPv6 listener takes IPv6 only. When false, one on `[::]` takes IPv4
    /// too, whose peers then look like `::ffff:192.0.2.1`.
    pub only_v6: bool,
    /// Who may open a Unix socket, as chmod takes it; `None`: owner and group.
    pub unix_mode: Option<u32>,
    /// Whom the file of a Unix socket belongs to; `None`: the user of this process.
    pub unix_owner: Option<Owner>,
}

impl Default for ListenOptions {
    /// A long queue (a storm of reconnects is thousands), IPv4 and IPv6.
    fn default() -> Self {
        Self {
            backlog: 4096,
            only_v6: false,
            unix_mode: None,
            unix_owner: None,
        }
    }
}

/// A socket that clients connect to. The file of a Unix socket goes with it.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    file: Option<SocketFile>,
}

impl Listener {
    /// Where it listens, if that is no Unix socket. Tells which port the system chose.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        Ok(self.socket.local_addr()?.as_socket())
    }

    /// The path of its file, if it is a Unix socket.
    pub fn path(&self) -> Option<&Arc<Path>> {
        self.file.as_ref().map(SocketFile::path)
    }

    /// Leaves the file of a Unix socket where it is when this is dropped: for a process
    /// that has handed the socket itself to its successor.
    pub fn leave_file(&mut self) {
        if let Some(file) = &mut self.file {
            file.leave();
        }
    }

    /// Changes how many connections the kernel keeps until they are accepted.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_backlog(&self, backlog: u32) -> io::Result<()> {
        self.socket.listen(backlog.min(i32::MAX as u32) as i32)
    }

    /// Takes the file of a Unix socket over, so that it goes with this: for a process that
    /// was handed the socket and now is the one that serves it.
    pub fn own_file(&mut self) {
        if let Some(file) = &mut self.file {
            file.own();
        }
    }

    /// A listener that was opened elsewhere: by the process before, or by systemd. It is
    /// made not to block and not to be inherited; what else it is told it keeps.
    ///
    /// # Errors
    /// What the kernel says; `InvalidInput` when it does not listen at `address`.
    pub fn adopt(socket: std::os::fd::OwnedFd, address: &ListenAddress) -> io::Result<Listener> {
        let socket = Socket::from(socket);
        socket.set_cloexec(true)?;
        socket.set_nonblocking(true)?;
        let own = socket.local_addr()?;
        let file = match address {
            ListenAddress::Tcp(address)
                if own.as_socket().is_some_and(|own| {
                    own == *address || (address.port() == 0 && own.ip() == address.ip())
                }) =>
            {
                None
            }
            ListenAddress::Unix(path) if own.as_pathname() == Some(path) => {
                Some(SocketFile::adopt(path)?)
            }
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        Ok(Listener { socket, file })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Opens a listener at `address`: not blocking and closed on exec.
///
/// # Errors
/// What the kernel says; `AddrInUse` when somebody listens there.
pub fn listen(address: &ListenAddress, options: &ListenOptions) -> io::Result<Listener> {
    let backlog = options.backlog.min(i32::MAX as u32) as i32;
    match address {
        ListenAddress::Tcp(address) => {
            let socket = tcp(*address, options.only_v6, backlog)?;
            Ok(Listener { socket, file: None })
        }
        ListenAddress::Unix(path) => unix(path, options, backlog),
    }
}

/// The same for what is no front of a route, with the default options.
///
/// # Errors
/// As [`listen`].
pub fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let ListenOptions {
        backlog, only_v6, ..
    } = ListenOptions::default();
    tcp(address, only_v6, backlog as i32).map(TcpListener::from)
}

/// With `SO_REUSEADDR`, so that a restart does not wait for the connections of the
/// process before to leave `TIME_WAIT`.
fn tcp(address: SocketAddr, only_v6: bool, backlog: i32) -> io::Result<Socket> {
    // `Socket::new` sets close-on-exec.
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket)
}

/// The file gets its owner and permissions before the socket listens: until then nobody
/// can connect, whoever may open it.
fn unix(path: &Path, options: &ListenOptions, backlog: i32) -> io::Result<Listener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let file = SocketFile::bind(&socket, path)?;
    file.set_permissions(options.unix_mode, options.unix_owner.as_ref())?;
    socket.listen(backlog)?;
    Ok(Listener {
        socket,
        file: Some(file),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};

    fn flags(listener: &Listener, command: libc::c_int) -> libc::c_int {
        // SAFETY: the descriptor is open and these commands take no pointer.
        unsafe { libc::fcntl(listener.as_raw_fd(), command) }
    }

    fn tcp(ip: impl Into<std::net::IpAddr>) -> ListenAddress {
        ListenAddress::Tcp((ip.into(), 0).into())
    }

    fn address_of(listener: &Listener) -> SocketAddr {
        listener.local_addr().unwrap().unwrap()
    }

    #[test]
    fn a_listener_neither_blocks_nor_is_inherited() {
        let listener = listen(&tcp(Ipv4Addr::LOCALHOST), &ListenOptions::default()).unwrap();
        assert_eq!(
            listener.socket.accept().unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
        assert_ne!(flags(&listener, libc::F_GETFD) & libc::FD_CLOEXEC, 0);
    }

    #[test]
    fn an_address_that_is_taken_is_an_error() {
        let first = listen(&tcp(Ipv4Addr::LOCALHOST), &ListenOptions::default()).unwrap();
        let taken = ListenAddress::Tcp(address_of(&first));
        let again = listen(&taken, &ListenOptions::default());
        assert_eq!(again.unwrap_err().kind(), ErrorKind::AddrInUse);
    }

    /// The listener's side closes first, which leaves its address in `TIME_WAIT`.
    /// A loopback address of its own, so that nobody takes the port meanwhile.
    #[test]
    #[cfg(target_os = "linux")]
    fn an_address_can_be_taken_again_at_once_after_a_restart() {
        let any = tcp(Ipv4Addr::new(127, 77, 0, 1));
        let first = listen(&any, &ListenOptions::default()).unwrap();
        first.socket.set_nonblocking(false).unwrap();
        let addr = address_of(&first);
        let mut client = TcpStream::connect(addr).unwrap();
        let (mut accepted, _) = first.socket.accept().unwrap();
        accepted.write_all(b"x").unwrap();
        drop((accepted, first));
        client.read_to_end(&mut Vec::new()).unwrap();
        listen(&ListenAddress::Tcp(addr), &ListenOptions::default()).unwrap();
    }

    #[test]
    fn a_listener_for_all_of_ipv6_takes_ipv4_unless_told_not_to() {
        let any = tcp(Ipv6Addr::UNSPECIFIED);
        let Ok(both) = listen(&any, &ListenOptions::default()) else {
            eprintln!("skipped: this machine has no IPv6");
            return;
        };
        let port = address_of(&both).port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();

        let only_v6 = ListenOptions {
            only_v6: true,
            ..ListenOptions::default()
        };
        let six = listen(&any, &only_v6).unwrap();
        let port = address_of(&six).port();
        TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap_err();
    }

    #[test]
    fn a_listener_can_be_handed_over_and_adopted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weir.sock");
        let address = ListenAddress::Unix(path.clone());
        let mut first = listen(&address, &ListenOptions::default()).unwrap();
        let copy = first.as_fd().try_clone_to_owned().unwrap();
        first.leave_file();
        drop(first);
        assert!(path.exists(), "it is the successor's");
        let second = Listener::adopt(copy, &address).unwrap();
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        let elsewhere = tcp(Ipv4Addr::LOCALHOST);
        let copy = second.as_fd().try_clone_to_owned().unwrap();
        let error = Listener::adopt(copy, &elsewhere).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        drop(second);
        assert!(!path.exists());
    }
}
