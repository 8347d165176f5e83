//! Handing an open socket to another process over a Unix socket (`SCM_RIGHTS`, unix(7)).
//!
//! Each goes with a few bytes of data, and at most one with each: the kernel keeps them
//! together, and does not merge what is read across such a place.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use socket2::{MaybeUninitSlice, MsgHdr, MsgHdrMut, SockRef};
use std::os::unix::net::UnixStream;

/// The head of a control message: its length, its level, its type.
const HEAD: usize = size_of::<libc::cmsghdr>();

/// A control message with one descriptor, with what aligns the next.
const ROOM: usize = (HEAD + size_of::<RawFd>()).next_multiple_of(align_of::<libc::cmsghdr>());

/// Sends all of `bytes`, which must not be none, and with the first of them the socket.
///
/// # Errors
/// What the kernel says.
pub fn send_with(link: &UnixStream, bytes: &[u8], socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut control = Vec::with_capacity(ROOM);
    // As cmsg(3) lays it out; the kernel takes the length as `size_t`.
    control.extend((HEAD + size_of::<RawFd>()).to_ne_bytes());
    control.extend(libc::SOL_SOCKET.to_ne_bytes());
    control.extend(libc::SCM_RIGHTS.to_ne_bytes());
    control.extend(socket.as_raw_fd().to_ne_bytes());
    control.resize(ROOM, 0);
    let data = [IoSlice::new(bytes)];
    let message = MsgHdr::new().with_buffers(&data).with_control(&control);
    let sent = SockRef::from(link).sendmsg(&message, libc::MSG_NOSIGNAL)?;
    io::Write::write_all(&mut &*link, &bytes[sent..])
}

/// Reads some bytes, none at the end, and the socket that came with them.
///
/// # Errors
/// What the kernel says.
pub fn receive_with(link: &UnixStream, into: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut bytes = vec![MaybeUninit::uninit(); into.len()];
    let mut control = [MaybeUninit::<u8>::uninit(); ROOM];
    let mut data = [MaybeUninitSlice::new(&mut bytes)];
    let mut message = MsgHdrMut::new()
        .with_buffers(&mut data)
        .with_control(&mut control);
    let read = SockRef::from(link).recvmsg(&mut message, libc::MSG_CMSG_CLOEXEC)?;
    let filled = message.control_len();
    // SAFETY: the kernel has written so many bytes of each.
    let (bytes, control) = unsafe {
        (
            std::slice::from_raw_parts(bytes.as_ptr().cast::<u8>(), read),
            std::slice::from_raw_parts(control.as_ptr().cast::<u8>(), filled.min(ROOM)),
        )
    };
    into[..read].copy_from_slice(bytes);
    let head = |at: usize| {
        control
            .get(at..at + 4)?
            .try_into()
            .ok()
            .map(i32::from_ne_bytes)
    };
    let is_rights =
        head(HEAD - 8) == Some(libc::SOL_SOCKET) && head(HEAD - 4) == Some(libc::SCM_RIGHTS);
    let socket = head(HEAD).filter(|_| is_rights);
    // SAFETY: the kernel has just made the descriptor for this process, and told nobody else.
    let socket = socket.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    Ok((read, socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    #[test]
    fn sockets_arrive_in_order_with_their_bytes() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut first, passed_first) = UnixStream::pair().unwrap();
        let (mut second, passed_second) = UnixStream::pair().unwrap();
        send_with(&ours, b"one\n", passed_first.as_fd()).unwrap();
        send_with(&ours, b"two\n", passed_second.as_fd()).unwrap();
        (&ours).write_all(b"end\n").unwrap();
        drop((ours, passed_first, passed_second));
        let (mut text, mut sockets) = (Vec::new(), Vec::new());
        loop {
            let mut bytes = [0; 64];
            let (read, socket) = receive_with(&theirs, &mut bytes).unwrap();
            sockets.extend(socket);
            text.extend_from_slice(&bytes[..read]);
            if read == 0 {
                break;
            }
        }
        assert_eq!(text, b"one\ntwo\nend\n");
        let mut sockets = sockets.into_iter().map(UnixStream::from);
        for own in [&mut first, &mut second] {
            let mut passed = sockets.next().unwrap();
            passed.write_all(b"!").unwrap();
            let mut byte = [0];
            own.read_exact(&mut byte).unwrap();
        }
        assert!(sockets.next().is_none());
    }
}
