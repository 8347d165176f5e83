//! Whether a peer has gone, seen without reading what it had sent before.

use std::os::fd::AsRawFd;

/// How much of a connection the peer has closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hangup {
    /// It sends nothing more; it may still read.
    Half,
    /// It does neither.
    Whole,
}

/// What the peer has closed of a socket; `None` if nothing. One system call. For sockets
/// that are not read for a while: whoever reads finds the end by itself.
pub fn hangup(socket: &impl AsRawFd) -> Option<Hangup> {
    let mut asked = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLRDHUP,
        revents: 0,
    };
    // SAFETY: the pointer is to one valid `pollfd`, and the count says one; the
    // descriptor is open as long as the borrowed socket.
    let ready = unsafe { libc::poll(&raw mut asked, 1, 0) };
    if ready <= 0 {
        return None;
    }
    if asked.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0 {
        Some(Hangup::Whole)
    } else {
        Some(Hangup::Half)
    }
}

/// Whether there is something to read from a socket, its end included. One system call.
pub fn is_readable(socket: &impl AsRawFd) -> bool {
    let mut asked = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: as above.
    unsafe { libc::poll(&raw mut asked, 1, 0) > 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{Shutdown, TcpListener, TcpStream};

    /// What the kernel says of the other end, which may take a moment to arrive.
    fn eventually(socket: &TcpStream) -> Hangup {
        loop {
            if let Some(hangup) = hangup(socket) {
                return hangup;
            }
            std::thread::yield_now();
        }
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn an_end_is_seen_behind_bytes_that_nobody_has_read() {
        let (mut client, server) = pair();
        client.write_all(b"unread").unwrap();
        assert_eq!(hangup(&server), None);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(eventually(&server), Hangup::Half);
    }

    #[test]
    fn a_reset_is_the_end_of_both_halves() {
        let (client, server) = pair();
        socket2::SockRef::from(&client)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
        drop(client);
        assert_eq!(eventually(&server), Hangup::Whole);
    }
}
