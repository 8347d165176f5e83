//! What Weir says first on a new connection, and what it makes of the answers.
//!
//! Everything is sent in one write; the connection is ready when every answer has
//! come. At least one command is always sent, because the first bytes that come can
//! be an error that nobody asked for (`-ERR max number of clients reached`): it
//! must not be taken for a client's reply.

use std::fmt;

use super::credential::Credential;
use crate::resp::{self, DecodeError, Value, Version, encode_command};

/// How long the answers may be in all, in bytes. `HELLO` lists the loaded modules
/// with their paths, some hundred bytes each; the others are a line.
pub const ANSWERS_LEN_MAX: usize = 256 * 1024;

/// How a new connection is to be.
#[derive(Debug, Clone)]
pub struct HandshakeSpec<'a> {
    /// As whom; `None` stays what a fresh connection is.
    pub credential: Option<&'a Credential>,
    /// The protocol that replies are written in.
    pub version: Version,
    /// The database.
    pub db: u32,
    /// Whether reads leave LRU and LFU data alone (`CLIENT NO-TOUCH`, Redis 7.2).
    pub no_touch: bool,
    /// How operators see it in `CLIENT LIST`: `weir:<route>:<kind>`. Whatever Redis
    /// does not take in a name is replaced by `_`.
    pub name: &'a str,
}

/// A handshake: first [`Handshake::request`] is sent, then every byte that comes is
/// given to [`Handshake::feed`]. Does no IO itself.
#[derive(Debug)]
pub struct Handshake {
    request: Vec<u8>,
    /// What is still to be answered, in order.
    steps: std::vec::IntoIter<Step>,
    awaited: Option<Step>,
    answers: Vec<u8>,
    greeting: Greeting,
    is_first_answer: bool,
}

/// Where a handshake stands after some bytes.
#[derive(Debug, PartialEq)]
pub enum Progress {
    /// More bytes are needed.
    More,
    /// The connection can be used.
    Ready(Greeting),
    /// It can not; close it.
    Failed(HandshakeError),
}

/// What the server said of itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Greeting {
    /// The answer to `HELLO`, a map; `None` in RESP2, which asks for none.
    pub hello: Option<Value>,
    /// Whether the name was set. Managed servers refuse `CLIENT`, users may not be
    /// allowed to: the connection works all the same.
    pub is_named: bool,
}

impl Greeting {
    /// The connection's id at the server, for `CLIENT UNBLOCK`, if `HELLO` told it.
    pub fn connection_id(&self) -> Option<i64> {
        self.hello.as_ref()?.get("id")?.as_i64()
    }
}

/// Why a connection can not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandshakeError {
    /// The server has as many clients as it takes.
    MaxClients,
    /// Protected mode: the server takes no connection from this address.
    Denied,
    /// Wrong user name or password, or the user is off.
    WrongPass,
    /// The server wants a password and there is none.
    NoAuth,
    /// The user may not do this.
    NoPerm(Step),
    /// The server loads its data and answers nothing else.
    Loading,
    /// The server runs a script that it can not interrupt.
    Busy,
    /// There is no such database.
    NoSuchDb,
    /// The server is older than `HELLO` (Redis 6) or does not speak this version.
    NoProto,
    /// Another error, as it came, without the `-`; at most 512 bytes of it.
    Other(Step, String),
    /// The bytes were not RESP, or not an answer to what was asked.
    NotRedis(Step),
    /// More than [`ANSWERS_LEN_MAX`] came.
    TooLong,
}

/// One command of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `HELLO 3`, with `AUTH` where there is a credential.
    Hello,
    /// `AUTH`, in RESP2.
    Auth,
    /// `CLIENT SETNAME`.
    SetName,
    /// `SELECT`.
    Select,
    /// `CLIENT NO-TOUCH ON`.
    NoTouch,
}

impl Step {
    /// What was sent, without its arguments.
    pub const fn command(self) -> &'static str {
        match self {
            Step::Hello => "HELLO",
            Step::Auth => "AUTH",
            Step::SetName => "CLIENT SETNAME",
            Step::Select => "SELECT",
            Step::NoTouch => "CLIENT NO-TOUCH",
        }
    }
}

impl Handshake {
    /// The handshake that makes a connection what `spec` says.
    pub fn new(spec: &HandshakeSpec<'_>) -> Handshake {
        let mut request = Vec::with_capacity(128);
        let mut steps = Vec::new();
        let mut say = |step: Step, args: &[&[u8]]| {
            encode_command(args, &mut request);
            steps.push(step);
        };
        let username = spec.credential.map(|c| c.username().unwrap_or(b"default"));
        let password = spec.credential.map(|c| c.password().expose());
        match (spec.version, username, password) {
            (Version::Resp3, Some(username), Some(password)) => {
                say(Step::Hello, &[b"HELLO", b"3", b"AUTH", username, password]);
            }
            (Version::Resp3, ..) => say(Step::Hello, &[b"HELLO", b"3"]),
            // Servers before Redis 6 know no names.
            (Version::Resp2, Some(b"default"), Some(password)) => {
                say(Step::Auth, &[b"AUTH", password]);
            }
            (Version::Resp2, Some(username), Some(password)) => {
                say(Step::Auth, &[b"AUTH", username, password]);
            }
            (Version::Resp2, ..) => {}
        }
        say(
            Step::SetName,
            &[b"CLIENT", b"SETNAME", &printable(spec.name)],
        );
        if spec.db != 0 {
            say(Step::Select, &[b"SELECT", spec.db.to_string().as_bytes()]);
        }
        if spec.no_touch {
            say(Step::NoTouch, &[b"CLIENT", b"NO-TOUCH", b"ON"]);
        }
        let mut steps = steps.into_iter();
        Handshake {
            request,
            awaited: steps.next(),
            steps,
            answers: Vec::new(),
            greeting: Greeting::default(),
            is_first_answer: true,
        }
    }

    /// What is to be sent, in one piece.
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// What the server was asked and has not answered yet, to say so when it closes
    /// or takes too long. `None` when the handshake is over.
    pub fn awaited(&self) -> Option<Step> {
        self.awaited
    }

    /// Takes bytes as they come, in any pieces. To be called until it does not say
    /// [`Progress::More`], and not again.
    pub fn feed(&mut self, bytes: &[u8]) -> Progress {
        self.answers.extend_from_slice(bytes);
        while let Some(step) = self.awaited {
            let (value, len) = match resp::decode(&self.answers) {
                Ok(Some(decoded)) => decoded,
                Ok(None) if self.answers.len() > ANSWERS_LEN_MAX => {
                    return Progress::Failed(HandshakeError::TooLong);
                }
                Ok(None) => return Progress::More,
                Err(DecodeError::Framing(_) | DecodeError::Content(_)) => {
                    return Progress::Failed(HandshakeError::NotRedis(step));
                }
            };
            self.answers.drain(..len);
            if let Err(error) = self.answered(step, value) {
                return Progress::Failed(error);
            }
            self.is_first_answer = false;
            self.awaited = self.steps.next();
        }
        if !self.answers.is_empty() {
            // More answers than commands: whatever this is, the next reply would be
            // taken for somebody else's.
            return Progress::Failed(HandshakeError::NotRedis(Step::SetName));
        }
        Progress::Ready(std::mem::take(&mut self.greeting))
    }

    fn answered(&mut self, step: Step, value: Value) -> Result<(), HandshakeError> {
        if let Value::Error(text) = &value {
            let error = self.error(step, text);
            // The name is a courtesy to operators. Errors that concern the connection
            // as a whole are errors here, too: this may be the only command.
            let is_about_the_name = matches!(
                error,
                HandshakeError::Other(..) | HandshakeError::NoPerm(_) | HandshakeError::Busy
            );
            return if step == Step::SetName && is_about_the_name {
                Ok(())
            } else {
                Err(error)
            };
        }
        match step {
            Step::Hello if value.pairs().is_some() => self.greeting.hello = Some(value),
            Step::Hello => return Err(HandshakeError::NotRedis(step)),
            Step::SetName => self.greeting.is_named = true,
            Step::Auth | Step::Select | Step::NoTouch if value == Value::simple("OK") => {}
            Step::Auth | Step::Select | Step::NoTouch => {
                return Err(HandshakeError::NotRedis(step));
            }
        }
        Ok(())
    }

    fn error(&self, step: Step, text: &[u8]) -> HandshakeError {
        let code = text.split(|&byte| byte == b' ').next().unwrap_or_default();
        match code {
            // Unasked for, and so only ever the first thing that comes.
            b"ERR" if self.is_first_answer && text.starts_with(b"ERR max number of clients") => {
                HandshakeError::MaxClients
            }
            b"DENIED" => HandshakeError::Denied,
            b"WRONGPASS" => HandshakeError::WrongPass,
            // Redis before version 6.
            b"ERR" if step == Step::Auth && text.starts_with(b"ERR invalid password") => {
                HandshakeError::WrongPass
            }
            b"NOAUTH" => HandshakeError::NoAuth,
            b"NOPERM" => HandshakeError::NoPerm(step),
            b"LOADING" => HandshakeError::Loading,
            b"BUSY" => HandshakeError::Busy,
            b"NOPROTO" => HandshakeError::NoProto,
            b"ERR" if step == Step::Hello && text.starts_with(b"ERR unknown command") => {
                HandshakeError::NoProto
            }
            b"ERR" if step == Step::Select && is_no_such_db(text) => HandshakeError::NoSuchDb,
            _ => HandshakeError::Other(step, shortened(text)),
        }
    }
}

impl HandshakeError {
    /// Its name in metrics and logs.
    pub const fn name(&self) -> &'static str {
        match self {
            HandshakeError::MaxClients => "max_clients",
            HandshakeError::Denied => "denied",
            HandshakeError::WrongPass => "wrong_password",
            HandshakeError::NoAuth => "no_auth",
            HandshakeError::NoPerm(_) => "no_permission",
            HandshakeError::Loading => "loading",
            HandshakeError::Busy => "busy",
            HandshakeError::NoSuchDb => "no_such_db",
            HandshakeError::NoProto => "no_proto",
            HandshakeError::Other(..) => "other",
            HandshakeError::NotRedis(_) => "not_redis",
            HandshakeError::TooLong => "too_long",
        }
    }

    /// Whether it concerns this connection's user, database or version alone: other
    /// connections to the same node may well work.
    pub const fn is_about_the_partition(&self) -> bool {
        matches!(
            self,
            HandshakeError::WrongPass
                | HandshakeError::NoAuth
                | HandshakeError::NoPerm(_)
                | HandshakeError::NoSuchDb
                | HandshakeError::NoProto
        )
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeError::NoPerm(step) => write!(f, "no permission for {}", step.command()),
            HandshakeError::Other(step, text) => write!(f, "{}: {text}", step.command()),
            HandshakeError::NotRedis(step) => {
                write!(
                    f,
                    "the answer to {} is not one that Redis gives",
                    step.command()
                )
            }
            other => f.write_str(&other.name().replace('_', " ")),
        }
    }
}

impl std::error::Error for HandshakeError {}

/// `DB index is out of range`; `SELECT is not allowed in cluster mode`; before Redis
/// 6, and for numbers beyond its own range, `invalid DB index`.
fn is_no_such_db(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    text.contains("DB index") || text.contains("not allowed in cluster mode")
}

/// Redis takes `!` to `~` in a name and nothing else (networking.c, `validateClientAttr`).
fn printable(name: &str) -> Vec<u8> {
    name.bytes()
        .map(|byte| if byte.is_ascii_graphic() { byte } else { b'_' })
        .collect()
}

/// An error text is repeated in logs; a longer one than this says nothing more.
fn shortened(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(512)]).into_owned()
}
