//! The console on a port of its own, for when the service port is no way in: all client
//! places taken, Redis gone, nobody an operator there. It speaks just enough of the
//! protocol for `redis-cli` and client libraries; data commands are refused.
//!
//! Bounded like everything that listens: so many connections, so long a request, so long
//! between two of them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Console;
use crate::net::{CONSOLE_CONNECTIONS, accept_fault, listen_tcp};
use crate::resp::{self, Value, Version};
use crate::session::Caller;

/// Connections at once: operators and their tools. More are told so and closed.
const CONNECTIONS_MAX: usize = CONSOLE_CONNECTIONS as usize;

/// A connection that sends nothing for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// For an answer to be taken by the socket.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest request, in bytes.
const REQUEST_MAX: usize = 64 * 1024;

const TOO_MANY: &[u8] = b"-ERR max number of clients reached\r\n";

/// A console port that has its address and waits to be run.
pub struct Server {
    listener: TcpListener,
}

impl Server {
    /// Takes the address, without a runtime, so that a mistake is known before anything
    /// is started.
    ///
    /// # Errors
    /// What the kernel says; `AddrInUse` when somebody listens there.
    pub fn bind(address: SocketAddr) -> io::Result<Server> {
        listen_tcp(address).map(Server::over)
    }

    /// Over a listener that does not block.
    pub fn over(listener: TcpListener) -> Server {
        Server { listener }
    }

    /// The address that was taken; tells the port where 0 was asked for.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Takes operators in until `stop` is true or its sender is gone, and serves those who
    /// are in until they leave. Must be called on a local runtime.
    pub async fn run(self, console: Rc<Console>, mut stop: watch::Receiver<bool>) {
        let listener = match tokio::net::TcpListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "the console port cannot be served"),
        };
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((socket, _)) if connections.len() >= CONNECTIONS_MAX => {
                        // A new socket takes so few bytes at once.
                        let _ = socket.try_write(TOO_MANY);
                    }
                    Ok((socket, peer)) => {
                        connections.spawn_local(serve(socket, peer, console.clone()));
                    }
                    Err(error) => if let Some(pause) = accept_fault(&error).pause() {
                        tracing::warn!(%error, "the console port cannot accept");
                        tokio::time::sleep(pause).await;
                    },
                },
                Some(_) = connections.join_next() => {}
                _ = stop.changed() => break,
            }
        }
        // No more are let in.
        drop(listener);
        while connections.join_next().await.is_some() {}
    }
}

/// One connection.
struct Visit {
    console: Rc<Console>,
    caller: Caller,
    version: Version,
    let_in: bool,
}

async fn serve(mut socket: TcpStream, peer: SocketAddr, console: Rc<Console>) {
    let let_in = console.proxy.settings().admin.resp_password.is_none();
    let mut visit = Visit {
        console,
        caller: Caller {
            user: "operator".to_owned(),
            address: peer.to_string(),
            by: "admin".to_owned(),
            client: 0,
        },
        version: Version::Resp2,
        let_in,
    };
    let mut input = Vec::new();
    loop {
        match take(&mut input) {
            Ok(Some(args)) => {
                let quits = args
                    .first()
                    .is_some_and(|it| it.eq_ignore_ascii_case(b"quit"));
                let value = visit.answer(&args).await;
                let mut reply = Vec::new();
                resp::encode(&value, visit.version, &mut reply);
                let written = timeout(WRITE_TIMEOUT, socket.write_all(&reply)).await;
                if quits || !matches!(written, Ok(Ok(()))) {
                    return;
                }
            }
            Ok(None) if input.len() > REQUEST_MAX => return,
            Ok(None) => {
                let read = timeout(IDLE_MAX, socket.read_buf(&mut input)).await;
                if !matches!(read, Ok(Ok(1..))) {
                    return;
                }
            }
            Err(reply) => {
                let _ = timeout(WRITE_TIMEOUT, socket.write_all(&reply)).await;
                return;
            }
        }
    }
}

/// Takes one whole request out of the input, as its arguments; empty lines are nothing.
/// What is not the protocol gives the error to close with.
fn take(input: &mut Vec<u8>) -> Result<Option<Vec<Vec<u8>>>, Vec<u8>> {
    let limits = resp::RequestLimits {
        bulk_max: REQUEST_MAX as u64,
        args_max: 1024,
        unauthenticated: false,
    };
    let mut spans = Vec::new();
    loop {
        let scanned = resp::scan_request(input, &limits, &mut spans).map_err(|error| {
            let mut line = Vec::new();
            error.write_reply(&mut line);
            line
        })?;
        let (len, args) = match scanned {
            resp::Scan::Incomplete { .. } => return Ok(None),
            resp::Scan::Empty { len } => (len, Vec::new()),
            resp::Scan::Request { len, .. } => {
                let args = spans.iter().map(|span| span.of(input).to_vec()).collect();
                (len, args)
            }
            resp::Scan::Inline { len } => {
                let words = resp::inline::split(&input[..len]);
                let words = words.map_err(|_| {
                    b"-ERR Protocol error: unbalanced quotes in request\r\n".to_vec()
                })?;
                (len, words.iter().map(|word| word.to_vec()).collect())
            }
        };
        input.drain(..len);
        if !args.is_empty() {
            return Ok(Some(args));
        }
    }
}

impl Visit {
    async fn answer(&mut self, args: &[Vec<u8>]) -> Value {
        let name = args[0].to_ascii_lowercase();
        match &name[..] {
            b"hello" => return self.hello(args),
            b"auth" => return self.auth(&args[1..]),
            b"quit" => return Value::simple("OK"),
            _ if !self.let_in => return Value::error("NOAUTH Authentication required."),
            _ => {}
        }
        match &name[..] {
            b"weir" => self.console.answer(&self.caller, args).await,
            b"ping" => match args.get(1) {
                Some(text) => Value::bulk(text.clone()),
                None => Value::simple("PONG"),
            },
            b"select" => Value::simple("OK"),
            // What libraries and redis-cli say unasked.
            b"client" => Value::simple("OK"),
            b"command" => Value::array(Vec::new()),
            // By which some of them see whether a server is ready.
            b"info" => Value::bulk(concat!(
                "# Server\r\nweir_version:",
                env!("CARGO_PKG_VERSION"),
                "\r\nredis_mode:standalone\r\nloading:0\r\n"
            )),
            _ => {
                Value::error("ERR this is Weir's console: it has WEIR, PING, HELLO, AUTH and QUIT")
            }
        }
    }

    fn hello(&mut self, args: &[Vec<u8>]) -> Value {
        let version = match args.get(1).map(Vec::as_slice) {
            None => self.version,
            Some(b"2") => Version::Resp2,
            Some(b"3") => Version::Resp3,
            Some(_) => return Value::error("NOPROTO unsupported protocol version"),
        };
        let mut options = args.iter().skip(2);
        while let Some(option) = options.next() {
            if option.eq_ignore_ascii_case(b"auth") {
                let Some((user, password)) = options.next().zip(options.next()) else {
                    return Value::error("ERR Syntax error in HELLO option 'auth'");
                };
                let answer = self.auth(&[user.clone(), password.clone()]);
                if answer.is_error() {
                    return answer;
                }
            } else if option.eq_ignore_ascii_case(b"setname") {
                options.next();
            }
        }
        if !self.let_in {
            return Value::error(
                "NOAUTH HELLO must be called with the client already authenticated, otherwise \
                 the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the \
                 client and select the RESP protocol version at the same time",
            );
        }
        self.version = version;
        super::show::map(vec![
            ("server", Value::bulk("weir")),
            ("version", Value::bulk(env!("CARGO_PKG_VERSION"))),
            (
                "proto",
                Value::integer(if version == Version::Resp3 { 3 } else { 2 }),
            ),
            ("mode", Value::bulk("standalone")),
            ("role", Value::bulk("master")),
            ("modules", Value::array(Vec::new())),
        ])
    }

    fn auth(&mut self, args: &[Vec<u8>]) -> Value {
        let (user, password) = match args {
            [password] => (None, password),
            [user, password] => (Some(user), password),
            _ => return Value::error("ERR wrong number of arguments for 'auth' command"),
        };
        let settings = self.console.proxy.settings();
        let Some(secret) = &settings.admin.resp_password else {
            return Value::error("ERR this console asks for no password (admin.resp_password)");
        };
        if !secret.matches(password) {
            tracing::warn!(target: "audit", from = %self.caller.address, "wrong password on the console port");
            return Value::error("WRONGPASS invalid username-password pair or user is disabled.");
        }
        self.let_in = true;
        // There is one password: a name says only who uses it.
        if let Some(user) = user {
            self.caller.user = user.escape_ascii().to_string().chars().take(64).collect();
        }
        Value::simple("OK")
    }
}
