//! Why a handshake fails, by what the server answered.

use std::fmt;

use super::ANSWER_LEN_MAX;

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
    /// The user may not do this: the server's words, without the `-`.
    NoPerm(Step, String),
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
    /// The bytes were not RESP, or not an answer to this.
    NotRedis(Step),
    /// An answer longer than [`ANSWER_LEN_MAX`].
    TooLong(Step),
    /// More came than was asked for.
    Unasked,
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
    /// `CLIENT ID`.
    Id,
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
            Step::Id => "CLIENT ID",
            Step::SetName => "CLIENT SETNAME",
            Step::Select => "SELECT",
            Step::NoTouch => "CLIENT NO-TOUCH",
        }
    }
}

impl HandshakeError {
    /// What an error reply to a step means; `is_first` for the first answer of all.
    pub(super) fn of_reply(step: Step, text: &[u8], is_first: bool) -> HandshakeError {
        let code = text.split(|&byte| byte == b' ').next().unwrap_or_default();
        match code {
            // Unasked for, and so only ever the first thing that comes.
            b"ERR" if is_first && text.starts_with(b"ERR max number of clients") => {
                HandshakeError::MaxClients
            }
            b"DENIED" => HandshakeError::Denied,
            b"WRONGPASS" => HandshakeError::WrongPass,
            // Redis before version 6.
            b"ERR" if step == Step::Auth && text.starts_with(b"ERR invalid password") => {
                HandshakeError::WrongPass
            }
            b"NOAUTH" => HandshakeError::NoAuth,
            b"NOPERM" => HandshakeError::NoPerm(step, shortened(text)),
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

    /// Its name in metrics and logs.
    pub const fn name(&self) -> &'static str {
        match self {
            HandshakeError::MaxClients => "max_clients",
            HandshakeError::Denied => "denied",
            HandshakeError::WrongPass => "wrong_password",
            HandshakeError::NoAuth => "no_auth",
            HandshakeError::NoPerm(..) => "no_permission",
            HandshakeError::Loading => "loading",
            HandshakeError::Busy => "busy",
            HandshakeError::NoSuchDb => "no_such_db",
            HandshakeError::NoProto => "no_proto",
            HandshakeError::Other(..) => "other",
            HandshakeError::NotRedis(_) => "not_redis",
            HandshakeError::TooLong(_) => "too_long",
            HandshakeError::Unasked => "unasked",
        }
    }

    /// Whether it concerns this connection's user, database or version alone: other
    /// connections to the same node may well work.
    pub const fn is_about_the_partition(&self) -> bool {
        matches!(
            self,
            HandshakeError::WrongPass
                | HandshakeError::NoAuth
                | HandshakeError::NoPerm(..)
                | HandshakeError::NoSuchDb
                | HandshakeError::NoProto
        )
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeError::NoPerm(step, _) => write!(f, "no permission for {}", step.command()),
            HandshakeError::Other(step, text) => write!(f, "{}: {text}", step.command()),
            HandshakeError::NotRedis(step) => {
                write!(
                    f,
                    "the answer to {} is not one that Redis gives",
                    step.command()
                )
            }
            HandshakeError::TooLong(step) => {
                write!(
                    f,
                    "the answer to {} is longer than {ANSWER_LEN_MAX} bytes",
                    step.command()
                )
            }
            HandshakeError::MaxClients => f.write_str("max number of clients reached"),
            HandshakeError::Denied => f.write_str("denied by protected mode"),
            HandshakeError::WrongPass => f.write_str("wrong user name or password"),
            HandshakeError::NoAuth => f.write_str("a password is needed"),
            HandshakeError::Loading => f.write_str("loading its data"),
            HandshakeError::Busy => f.write_str("busy with a script"),
            HandshakeError::NoSuchDb => f.write_str("no such database"),
            HandshakeError::NoProto => f.write_str("does not speak this version of the protocol"),
            HandshakeError::Unasked => f.write_str("more answers than questions"),
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

/// An error text is repeated in logs; a longer one than this says nothing more.
fn shortened(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(512)]).into_owned()
}
