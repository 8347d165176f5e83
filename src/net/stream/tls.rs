//! TLS over a TCP socket.
//!
//! rustls turns bytes into records and back; this reads and writes the socket for it.
//! Two things matter here. What was read is decrypted to the end, since nobody wakes
//! a task for bytes that wait inside this struct: a read is pending only when the
//! socket has no more. And a write takes one record at a time and counts its
//! bytes when the kernel has all of it. Until then the peer can not decrypt
//! them, so that "not counted" still means "never arrived".

use std::cell::RefCell;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::metrics::HandshakeResult;
use rustls::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes that fit into one record (RFC 8446, section 5.1).
const RECORD_LEN_MAX: usize = 16 * 1024;

/// Pieces that one record is made of at most.
const PIECES_MAX: usize = 16;

/// One read takes at most this much from a socket, in bytes.
const READ_MAX: usize = 64 * 1024;

thread_local! {
    /// What was read and is about to be decrypted: one for all connections of a
    /// worker, so that a quiet one owns none.
    static CIPHERTEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A TLS connection, on whichever side.
#[derive(Debug)]
pub struct TlsStream {
    socket: TcpStream,
    tls: Connection,
    /// Read from the socket and not given to rustls yet: only what did not fit.
    unread: Vec<u8>,
    /// How many bytes are in the record that is on its way to the kernel: the first ones
    /// of what is written next.
    on_their_way: usize,
    /// The peer has said that it sends nothing more, or its socket has.
    ended: bool,
}

/// Why a handshake failed.
#[derive(Debug)]
pub enum TlsFailure {
    /// The peer closed the connection, or it was lost.
    Closed(io::Error),
    /// What the peer sent is no TLS, or not the TLS that is asked for, or it says that ours
    /// is not.
    Refused(rustls::Error),
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(error) => write!(f, "connection lost in the TLS handshake: {error}"),
            Self::Refused(error) => write!(f, "TLS handshake failed: {error}"),
        }
    }
}

impl std::error::Error for TlsFailure {}

impl TlsFailure {
    /// What it is counted as.
    pub fn result(&self) -> HandshakeResult {
        use rustls::CertificateError as Bad;
        let Self::Refused(error) = self else {
            return HandshakeResult::Closed;
        };
        match error {
            rustls::Error::NoCertificatesPresented => HandshakeResult::NoCertificate,
            rustls::Error::InvalidCertificate(
                Bad::Expired
                | Bad::ExpiredContext { .. }
                | Bad::NotValidYet
                | Bad::NotValidYetContext { .. },
            ) => HandshakeResult::CertificateExpired,
            // The latter where another authority goes by the same name.
            rustls::Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
                HandshakeResult::CertificateUnknown
            }
            rustls::Error::InvalidCertificate(_) => HandshakeResult::CertificateBad,
            rustls::Error::AlertReceived(_) => HandshakeResult::RefusedByPeer,
            rustls::Error::PeerIncompatible(_) => HandshakeResult::Incompatible,
            _ => HandshakeResult::Protocol,
        }
    }
}

impl TlsStream {
    /// A connection that has still to shake hands.
    pub fn new(socket: TcpStream, tls: Connection) -> TlsStream {
        TlsStream {
            socket,
            tls,
            unread: Vec::new(),
            on_their_way: 0,
            ended: false,
        }
    }

    /// The socket below.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// What was agreed on with the peer.
    pub fn agreed(&self) -> &Connection {
        &self.tls
    }

    /// Shakes hands. Dropping the future gives it up half-way; the connection is of no
    /// use then but for closing it.
    ///
    /// # Errors
    /// [`TlsFailure`]; the peer has been told as far as its socket took it at once.
    pub async fn shake_hands(&mut self) -> Result<(), TlsFailure> {
        std::future::poll_fn(|cx| self.poll_handshake(cx)).await
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TlsFailure>> {
        loop {
            match self.send_records(&mut Some(cx)) {
                Ok(()) if !self.tls.is_handshaking() => return Poll::Ready(Ok(())),
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(TlsFailure::Closed(error))),
            }
            let read = CIPHERTEXT.with_borrow_mut(|scratch| {
                scratch.resize(READ_MAX, 0);
                let mut buffer = ReadBuf::new(scratch);
                ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))
                    .map_err(TlsFailure::Closed)?;
                if buffer.filled().is_empty() {
                    return Poll::Ready(Err(TlsFailure::Closed(ErrorKind::UnexpectedEof.into())));
                }
                Poll::Ready(self.take_handshake(buffer.filled()))
            });
            ready!(read)?;
        }
    }

    /// Gives rustls what it needs to shake hands, and keeps the rest: a client that is
    /// quick sends its first commands with the end of the handshake.
    fn take_handshake(&mut self, mut bytes: &[u8]) -> Result<(), TlsFailure> {
        while !bytes.is_empty() && self.tls.is_handshaking() {
            self.tls.read_tls(&mut bytes).map_err(TlsFailure::Closed)?;
            if let Err(error) = self.tls.process_new_packets() {
                // The alert that says why; whether it arrives is not our concern.
                let _ = self.send_records(&mut None);
                return Err(TlsFailure::Refused(error));
            }
        }
        self.unread.extend_from_slice(bytes);
        Ok(())
    }

    /// Reads what the peer has said. Pending only when there is nothing more in here nor
    /// in the socket. Nothing read is the end: the peer says no more.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        loop {
            self.decrypted(out)?;
            if out.filled().len() > before || self.ended || out.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if !self.unread.is_empty() {
                let unread = std::mem::take(&mut self.unread);
                self.decrypt(&unread, out)?;
                continue;
            }
            let read = CIPHERTEXT.with_borrow_mut(|scratch| {
                scratch.resize(READ_MAX, 0);
                let mut buffer = ReadBuf::new(scratch);
                ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
                if buffer.filled().is_empty() {
                    self.ended = true;
                }
                Poll::Ready(self.decrypt(buffer.filled(), out))
            });
            ready!(read)?;
        }
    }

    /// Reads the socket itself: for whoever waits for its end.
    pub(super) fn poll_read_raw(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, out)
    }

    /// Decrypts as much as there is room for; the rest is kept.
    fn decrypt(&mut self, mut bytes: &[u8], out: &mut ReadBuf<'_>) -> io::Result<()> {
        while !bytes.is_empty() && !self.ended {
            if out.remaining() == 0 {
                self.unread = bytes.to_vec();
                break;
            }
            self.tls.read_tls(&mut bytes)?;
            if let Err(error) = self.tls.process_new_packets() {
                let _ = self.send_records(&mut None);
                return Err(io::Error::new(ErrorKind::InvalidData, error));
            }
            self.decrypted(out)?;
        }
        if self.tls.wants_write() && self.on_their_way == 0 {
            // An answer of TLS's own, to a change of keys. What does not go now goes with
            // the next bytes.
            let _ = self.send_records(&mut None);
        }
        Ok(())
    }

    /// Takes what is decrypted, as far as there is room.
    fn decrypted(&mut self, out: &mut ReadBuf<'_>) -> io::Result<()> {
        while out.remaining() > 0 {
            match self.tls.reader().read(out.initialize_unfilled()) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(n) => out.advance(n),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write(&[IoSlice::new(bytes)], &mut None)
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.write(slices, &mut Some(cx)) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
            outcome => Poll::Ready(outcome),
        }
    }

    /// Writes record by record. How many of the bytes the kernel has; see the top of
    /// this file.
    fn write(
        &mut self,
        slices: &[IoSlice<'_>],
        cx: &mut Option<&mut Context<'_>>,
    ) -> io::Result<usize> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut written = 0;
        loop {
            match self.send_records(cx) {
                Ok(()) => {
                    debug_assert!(
                        written + self.on_their_way <= total,
                        "other bytes than before"
                    );
                    written += std::mem::take(&mut self.on_their_way);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock && written > 0 => {
                    return Ok(written);
                }
                Err(error) => return Err(error),
            }
            if written >= total {
                return Ok(total);
            }
            let (pieces, used) = record(slices, written);
            self.on_their_way = self.tls.writer().write_vectored(&pieces[..used])?;
        }
    }

    /// Hands all finished records to the kernel. Waits with `cx`, or not at all without.
    fn send_records(&mut self, cx: &mut Option<&mut Context<'_>>) -> io::Result<()> {
        while self.tls.wants_write() {
            let socket = &mut self.socket;
            if self.tls.write_tls(&mut Door { socket, cx })? == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tls.send_close_notify();
        match self.send_records(&mut Some(cx)) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
            Ok(()) => Pin::new(&mut self.socket).poll_shutdown(cx),
        }
    }
}

impl Drop for TlsStream {
    /// Says goodbye, as far as the socket takes it at once: a peer that reads the end of
    /// the socket without it has to take it for a fault or an attack.
    fn drop(&mut self) {
        self.tls.send_close_notify();
        let _ = self.send_records(&mut None);
    }
}

/// What the next record is made of: the bytes behind the first `skip`, as many as fit.
fn record<'s>(slices: &'s [IoSlice<'_>], mut skip: usize) -> ([IoSlice<'s>; PIECES_MAX], usize) {
    let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
    let (mut used, mut room) = (0, RECORD_LEN_MAX);
    for slice in slices {
        if skip >= slice.len() {
            skip -= slice.len();
            continue;
        }
        let slice = &slice[skip..];
        skip = 0;
        let piece = &slice[..slice.len().min(room)];
        pieces[used] = IoSlice::new(piece);
        used += 1;
        room -= piece.len();
        if room == 0 || used == PIECES_MAX {
            break;
        }
    }
    (pieces, used)
}

/// The socket as rustls writes to it.
struct Door<'a, 'b, 'c> {
    socket: &'a mut TcpStream,
    cx: &'a mut Option<&'b mut Context<'c>>,
}

impl Write for Door<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(cx) = self.cx.as_deref_mut() else {
            return self.socket.try_write_vectored(slices);
        };
        match Pin::new(&mut *self.socket).poll_write_vectored(cx, slices) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
