//! A byte-exact client: what is sent and what is expected are bytes, nothing else.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::{DEADLINE, reply_length};

/// Encodes a command as an array of bulk strings.
pub fn encode<A: AsRef<[u8]>>(arguments: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        let argument = argument.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// A blocking socket whose every expectation has a deadline.
#[derive(Debug)]
pub struct RawClient {
    stream: TcpStream,
    /// Read from the socket and not yet expected by the test.
    unread: Vec<u8>,
}

impl RawClient {
    /// Connects; panics if nobody accepts.
    pub fn connect(to: SocketAddr) -> Self {
        Self::try_connect(None, to)
            .unwrap_or_else(|error| panic!("cannot connect to {to}: {error}"))
    }

    /// Connects from one of the loopback addresses; panics if nobody accepts.
    pub fn connect_from(source: IpAddr, to: SocketAddr) -> Self {
        Self::try_connect(Some(source), to)
            .unwrap_or_else(|error| panic!("cannot connect to {to} from {source}: {error}"))
    }

    /// Connects, or says why not.
    pub fn try_connect(source: Option<IpAddr>, to: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        socket.connect_timeout(&to.into(), DEADLINE)?;
        socket.set_tcp_nodelay(true)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self {
            stream,
            unread: Vec::new(),
        })
    }

    /// The address this client connects from, as the server sees it.
    pub fn local_address(&self) -> SocketAddr {
        self.stream
            .local_addr()
            .expect("a connected socket has an address")
    }

    /// The socket itself, for options that no method here sets.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The same connection a second time, so that one thread can send while another reads.
    pub fn second_handle(&self) -> Self {
        Self {
            stream: self.stream.try_clone().expect("a descriptor"),
            unread: Vec::new(),
        }
    }

    /// Closes both halves, for every handle.
    pub fn shut_down(&self) {
        // Fails only when the peer was faster.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Sends these bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the peer takes the bytes");
    }

    /// Sends these bytes, or says why not (a peer that closed gives `BrokenPipe` or a reset).
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends a command and returns the raw bytes of its reply.
    pub fn command<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Vec<u8> {
        self.try_command(arguments).expect("a reply")
    }

    /// Sends a command and returns the raw bytes of its reply, or the socket's error.
    pub fn try_command<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> io::Result<Vec<u8>> {
        self.try_send(encode(arguments))?;
        self.try_read_reply()
    }

    /// Sends a command and expects exactly this reply.
    pub fn expect_command<A: AsRef<[u8]>>(&mut self, arguments: &[A], reply: impl AsRef<[u8]>) {
        self.send(encode(arguments));
        self.expect(reply);
    }

    /// Reads as many bytes as `expected` has and panics unless they are the same.
    pub fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let mut is_prefix = expected.starts_with(&self.unread);
        while self.unread.len() < expected.len() {
            let known = self.unread.len();
            match if is_prefix { self.read_more() } else { Ok(0) } {
                Ok(read) if read > 0 => {
                    is_prefix = expected[known..].starts_with(&self.unread[known..])
                }
                outcome => panic!(
                    "expected {}\n     got {} ({})",
                    shown(expected),
                    shown(&self.unread),
                    match outcome {
                        Err(error) => error.to_string(),
                        Ok(_) if is_prefix => "then the connection was closed".to_owned(),
                        Ok(_) => "so far".to_owned(),
                    }
                ),
            }
        }
        let rest = self.unread.split_off(expected.len());
        let got = std::mem::replace(&mut self.unread, rest);
        assert!(
            got == expected,
            "expected {}\n     got {}",
            shown(expected),
            shown(&got)
        );
    }

    /// Reads whatever there is, waiting for at least one byte; nothing means that the peer closed.
    pub fn read_some(&mut self) -> io::Result<Vec<u8>> {
        if self.unread.is_empty() {
            self.read_more()?;
        }
        Ok(std::mem::take(&mut self.unread))
    }

    /// Reads one whole reply (RESP2 or RESP3, a push counts as one) and returns its bytes.
    pub fn read_reply(&mut self) -> Vec<u8> {
        self.try_read_reply().unwrap_or_else(|error| {
            let got = self.unread.escape_ascii();
            panic!("no whole reply ({error}), only \"{got}\"")
        })
    }

    /// Reads one whole reply, or says why there is none.
    pub fn try_read_reply(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(length) = reply_length(&self.unread) {
                let rest = self.unread.split_off(length);
                return Ok(std::mem::replace(&mut self.unread, rest));
            }
            if self.read_more()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads a bulk or verbatim reply and returns the text in it; panics on any other type.
    pub fn read_text(&mut self) -> String {
        let reply = self.read_reply();
        assert!(
            matches!(reply[0], b'$' | b'='),
            "not a text: \"{}\"",
            reply.escape_ascii()
        );
        let start = reply
            .iter()
            .position(|&byte| byte == b'\n')
            .expect("a whole reply")
            + 1;
        String::from_utf8_lossy(reply.get(start..reply.len() - 2).unwrap_or_default()).into_owned()
    }

    /// Expects that the peer closes the connection without another byte.
    pub fn expect_closed(&mut self) {
        match self.read_more() {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the connection is not closed: {error}"),
            Ok(_) => {}
        }
        assert!(
            self.unread.is_empty(),
            "instead of a close came \"{}\"",
            self.unread.escape_ascii()
        );
    }

    /// Expects that no byte waits to be read now. Says nothing about later: order it after a
    /// reply that must come later than what is not to be seen.
    pub fn expect_nothing_pending(&mut self) {
        self.stream.set_nonblocking(true).expect("a socket option");
        let outcome = self.read_more();
        self.stream.set_nonblocking(false).expect("a socket option");
        let quiet = matches!(&outcome, Err(error) if error.kind() == ErrorKind::WouldBlock);
        assert!(
            quiet && self.unread.is_empty(),
            "expected nothing, got {outcome:?} \"{}\"",
            self.unread.escape_ascii()
        );
    }

    /// Closes the sending half; replies still arrive.
    pub fn half_close(&mut self) {
        self.stream
            .shutdown(Shutdown::Write)
            .expect("an open socket");
    }

    /// Closes with a reset instead of an orderly end.
    pub fn reset(self) {
        let socket = Socket::from(self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    }

    /// Reads what is there, waiting for at least one byte; 0 means the peer closed.
    fn read_more(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 64 * 1024];
        let read = self.stream.read(&mut chunk)?;
        self.unread.extend_from_slice(&chunk[..read]);
        Ok(read)
    }
}

/// Bytes as a failed test shows them: of many only the first and the last.
fn shown(bytes: &[u8]) -> String {
    const END: usize = 500;
    if bytes.len() <= 2 * END {
        return format!("\"{}\"", bytes.escape_ascii());
    }
    let (first, last) = (&bytes[..END], &bytes[bytes.len() - END..]);
    format!(
        "\"{}\" … \"{}\" ({} bytes)",
        first.escape_ascii(),
        last.escape_ascii(),
        bytes.len()
    )
}
