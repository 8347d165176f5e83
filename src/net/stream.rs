//! A connection, whatever carries it: TCP, a Unix socket, or TLS over TCP.
//!
//! All are read with [`Stream::poll_read`] until it is pending, and written with
//! [`Stream::try_write`], which says how much the kernel has taken. For TLS that is
//! exact too: bytes count as written when the record that they are in is wholly with
//! the kernel. What was not counted has to be written again, the same bytes first.

mod tls;

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

pub use tls::{TlsFailure, TlsStream};

/// A connection that is registered with the event loop of one worker.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<TlsStream>),
}

impl Stream {
    /// Writes as much as can be written at once.
    ///
    /// # Errors
    /// `WouldBlock` when that is nothing; what the socket says.
    #[inline]
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(socket) => socket.try_write(bytes),
            Stream::Unix(socket) => socket.try_write(bytes),
            Stream::Tls(stream) => stream.try_write(bytes),
        }
    }

    /// Whether TLS is spoken on it.
    pub fn is_tls(&self) -> bool {
        matches!(self, Stream::Tls(_))
    }

    /// This end's address, as `CLIENT LIST` of Redis shows it; empty if it has none.
    pub fn local_name(&self) -> String {
        let of_tcp = |socket: &TcpStream| socket.local_addr().map(|addr| addr.to_string());
        let name = match self {
            Stream::Tcp(socket) => of_tcp(socket),
            Stream::Tls(stream) => of_tcp(stream.socket()),
            Stream::Unix(socket) => socket.local_addr().map(|addr| {
                let path = addr.as_pathname().map(|path| path.display().to_string());
                path.map_or(String::new(), |path| path + ":0")
            }),
        };
        name.unwrap_or_default()
    }

    /// Looks at what has arrived without taking it, and waits for something if there is
    /// nothing; 0 is the end. Not for TLS, where what arrives is nothing to look at.
    ///
    /// # Errors
    /// What the socket says; `Unsupported` for TLS.
    pub async fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(socket) => socket.peek(bytes).await,
            Stream::Unix(socket) => {
                let fd = socket.as_raw_fd();
                socket
                    .async_io(Interest::READABLE, || peek(fd, bytes))
                    .await
            }
            Stream::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Throws away what arrives until the peer's kernel has closed its end, or says that
    /// there is none. That is later than the end of what was said on it: with TLS a
    /// peer says goodbye before it closes.
    pub async fn until_gone(&mut self) {
        let mut rest = [0; 4096];
        let gone = |stream: &mut Stream, cx: &mut Context<'_>| {
            loop {
                let mut buffer = ReadBuf::new(&mut rest);
                let read = match stream {
                    Stream::Tcp(socket) => Pin::new(socket).poll_read(cx, &mut buffer),
                    Stream::Unix(socket) => Pin::new(socket).poll_read(cx, &mut buffer),
                    Stream::Tls(stream) => stream.poll_read_raw(cx, &mut buffer),
                };
                let read = ready!(read);
                if read.is_err() || buffer.filled().is_empty() {
                    return Poll::Ready(());
                }
            }
        };
        let mut gone = gone;
        std::future::poll_fn(|cx| gone(self, cx)).await;
    }
}

fn peek(fd: RawFd, bytes: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes no more than the length that it is given into the slice.
    let n = unsafe { libc::recv(fd, bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_PEEK) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Stream::Tcp(socket) => socket.as_raw_fd(),
            Stream::Unix(socket) => socket.as_raw_fd(),
            Stream::Tls(stream) => stream.socket().as_raw_fd(),
        }
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(socket) => Pin::new(socket).poll_read(cx, buffer),
            Stream::Unix(socket) => Pin::new(socket).poll_read(cx, buffer),
            Stream::Tls(stream) => stream.poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Stream::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
            Stream::Tls(stream) => stream.poll_write(cx, &[IoSlice::new(bytes)]),
        }
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Stream::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Stream::Tls(stream) => stream.poll_write(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing counts as written that the kernel does not have.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Stream::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
            Stream::Tls(stream) => stream.poll_shutdown(cx),
        }
    }
}
