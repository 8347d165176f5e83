//! What a client reads when Weir itself has to say no: each cause, its wording,
//! and whether the command ran. Libraries react to the first word, so it is one
//! whose meaning in Redis is true here too; the rest names the limit, so that
//! whoever reads the log knows what to turn.

use crate::admission::Metered;
use crate::backend::{Marks, OpenError};
use crate::metrics::{ErrorCause, ShedLimit};
use crate::resp::ProtocolError;

/// The command had been sent when its connection was lost.
pub const OUTCOME_UNKNOWN: &[u8] =
    b"-ERR weir: upstream connection lost, command outcome unknown\r\n";

/// The command had been sent when its deadline passed.
pub const TIMED_OUT: &[u8] = b"-ERR weir: upstream timeout, command outcome unknown\r\n";

/// The deadline passed while the command was still here.
pub const TIMED_OUT_UNSENT: &[u8] =
    b"-BUSY weir: timeout before the command was sent (timeouts.request), command not executed\r\n";

/// `EXEC` of a block in which a client subscribes that is subscribed already.
pub const EXEC_SUBSCRIBED: &[u8] = b"-EXECABORT Transaction discarded because of: weir: \
    a subscriber can not subscribe in a transaction\r\n";

/// A subscriber has logged in as somebody else and subscribes.
pub const OTHER_USER: &[u8] =
    b"-ERR weir: this client is subscribed as another user, command not executed\r\n";

/// What Redis says when it has no room for a client; libraries know the text.
pub const MAX_CLIENTS: &[u8] = b"-ERR max number of clients reached\r\n";

/// The client has to log in first.
pub const NO_AUTH: &[u8] = b"NOAUTH Authentication required.";

/// `EXEC` of a block in which a command was refused.
pub const EXEC_ABORT: &[u8] = b"-EXECABORT Transaction discarded because of previous errors.\r\n";

/// `EXEC` of a block whose lease is gone; nothing of it ran.
pub const EXEC_LEASE_LOST: &[u8] =
    b"-EXECABORT Transaction discarded because of: lease expired\r\n";

/// Why Weir does not run a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// No connection could be opened.
    Open(OpenError),
    /// There is no primary.
    NoPrimary,
    /// Only a replica may serve it, and none can.
    NoReplica,
    /// Too many wait for a connection already.
    QueueFull {
        /// The setting.
        limit: &'static str,
    },
    /// Too many wait for a primary already, or what they sent takes too much memory.
    HoldFull {
        /// The setting.
        limit: &'static str,
    },
    /// No connection became free in time.
    WaitedTooLong {
        /// The setting.
        limit: &'static str,
    },
    /// Requests held in memory have reached their bound.
    Memory,
    /// The node's memory is nearly used up.
    NodeMemory {
        /// The setting.
        setting: String,
    },
    /// Those that the client is counted with ask for more than a rule allows.
    Rate {
        /// Of what.
        of: Metered,
        /// The rule.
        rule: Box<str>,
    },
    /// Too many wait for the end of an operator's pause.
    Paused {
        /// The setting.
        limit: &'static str,
    },
    /// As many large replies are under way as may be.
    LargeReplies,
    /// The route's access rules refuse it to this client.
    Access {
        /// The command, as Redis writes it.
        command: String,
        /// The setting.
        setting: String,
    },
    /// There is too much to do.
    Busy(Busy),
    /// A client would have more subscriptions than one may have.
    Subscriptions {
        /// How many it may have.
        max: usize,
    },
    /// A subscriber's messages would come into the middle of this.
    Subscribed {
        /// What the client asked for.
        what: &'static str,
    },
    /// Weir answers it itself, and so not in a transaction, which Redis runs.
    NotInTransaction {
        /// The command, as Redis writes it.
        command: String,
    },
    /// Switched off, or without a meaning behind a proxy.
    NotSupported {
        /// What the client asked for.
        what: &'static str,
        /// What would allow it.
        setting: &'static str,
    },
}

/// Why a command is refused although the node is well: there is too much to do. Its number
/// is what an entry keeps of it until its turn to be answered has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Busy {
    /// It would have waited for too long.
    QueueTime,
    /// Too many wait already.
    QueueLength,
    /// An earlier command of its client, sent together with it, was refused.
    Behind,
    /// Its deadline has passed while it waited.
    Deadline,
    /// No connection could be had for it when its turn had come.
    NoConnection,
    /// A rate by rule leaves nothing for it; see [`Failure::Rate`]. Which one, by its number
    /// among those of its worker that have refused something.
    Rate(u16),
}

/// In place of a reason's number: an answer was made up, and is kept for this turn.
pub const MISS: u16 = RATES - 1;

/// From here on numbers stand for rates.
const RATES: u16 = 256;

/// Declares the two texts of each reason: of a command, and of `EXEC`.
macro_rules! busy_texts {
    ($($busy:ident => $text:literal;)+) => {
        impl Busy {
            const ALL: &'static [Busy] = &[$(Busy::$busy,)+];

            /// The text without its line's ends.
            pub const fn text(self) -> &'static str {
                match self { $(Busy::$busy => $text,)+ Busy::Rate(_) => RATE }
            }

            /// The reply to a command, or to the `EXEC` of a block that was kept here.
            pub fn reply(self, marks: Marks) -> &'static [u8] {
                let exec = marks.any(Marks::EXEC);
                match self { $(
                    Busy::$busy if exec => concat!(
                        "-EXECABORT Transaction discarded because of: ", $text, "\r\n"
                    ).as_bytes(),
                    Busy::$busy => concat!("-", $text, "\r\n").as_bytes(),
                )+ Busy::Rate(_) => RATE.as_bytes() }
            }
        }
    };
}

busy_texts! {
    QueueTime =>
        "BUSY weir: the backend has more to do than it can (overload.target), command not executed";
    QueueLength =>
        "BUSY weir: too many commands wait for the backend (overload.queue_max), command not executed";
    Behind =>
        "BUSY weir: a command before it in the same pipeline was refused, command not executed";
    Deadline =>
        "BUSY weir: timeout before the command was sent (timeouts.request), command not executed";
    NoConnection =>
        "MASTERDOWN weir: no connection to the backend, command not executed";
}

/// What a rate's refusal says where the rate is not known.
const RATE: &str = "-BUSY weir: a rate is reached (limits), command not executed\r\n";

impl Busy {
    /// Its number.
    pub fn number(self) -> u16 {
        match self {
            Busy::Rate(number) => RATES.saturating_add(number),
            busy => {
                let number = Busy::ALL.iter().position(|known| *known == busy);
                number.unwrap_or_default() as u16
            }
        }
    }

    /// Whether it says that the node has too much to do.
    pub fn is_overload(self) -> bool {
        matches!(self, Busy::QueueTime | Busy::QueueLength)
    }

    /// The reason with this number.
    pub fn of(number: u16) -> Busy {
        if let Some(rate) = number.checked_sub(RATES) {
            return Busy::Rate(rate);
        }
        let busy = Busy::ALL.get(usize::from(number));
        *busy.unwrap_or(&Busy::QueueTime)
    }
}

impl Failure {
    /// The reply.
    pub fn reply(&self) -> Vec<u8> {
        let text = match self {
            Failure::Open(OpenError::Refused(text)) => {
                // The server's own words about these credentials or this database.
                text.clone()
            }
            Failure::Open(OpenError::Unreachable(why)) => {
                format!(
                    "MASTERDOWN weir: no connection to the backend ({why}), command not executed"
                )
            }
            Failure::Open(OpenError::Full) => {
                "BUSY weir: the backend has no room for a connection (its maxclients), \
                 command not executed"
                    .into()
            }
            Failure::NoPrimary => "MASTERDOWN weir: no primary, command not executed".into(),
            Failure::NoReplica => {
                "MASTERDOWN weir: no replica that may serve reads, command not executed".into()
            }
            Failure::QueueFull { limit } => {
                format!("BUSY weir: too many wait for a connection ({limit}), command not executed")
            }
            Failure::HoldFull { limit } => {
                format!("BUSY weir: too many wait for a primary ({limit}), command not executed")
            }
            Failure::WaitedTooLong { limit } => {
                format!("BUSY weir: no connection became free ({limit}), command not executed")
            }
            Failure::Memory => {
                "BUSY weir: requests fill the memory set aside (process.buffer_memory_max), \
                 command not executed"
                    .into()
            }
            Failure::Paused { limit } => {
                format!(
                    "BUSY weir: too many wait for the end of a pause ({limit}), command not executed"
                )
            }
            Failure::NodeMemory { setting } => {
                format!(
                    "BUSY weir: the memory of Redis is nearly used up ({setting}), \
                     command not executed"
                )
            }
            Failure::Rate { of, rule } => {
                let what = match of {
                    Metered::Commands => "commands",
                    Metered::Bytes => "bytes",
                };
                let key = of.key();
                format!(
                    "BUSY weir: more {what} a second than a rule allows (limits.{rule}.{key}), \
                     command not executed"
                )
            }
            Failure::LargeReplies => "BUSY weir: as many large replies are under way as may be \
                 (backend.large_replies_max), command not executed"
                .into(),
            Failure::Access { command, setting } => {
                format!(
                    "NOPERM weir: '{command}' is refused here ({setting}), command not executed"
                )
            }
            Failure::Busy(busy) => busy.text().into(),
            Failure::Subscriptions { max } => {
                format!(
                    "ERR weir: more than {max} subscriptions of one client \
                     (clients.subscriptions_max), command not executed"
                )
            }
            Failure::Subscribed { what } => {
                format!("ERR weir: a subscriber can not have {what}, command not executed")
            }
            Failure::NotInTransaction { command } => {
                let command = command.replace('|', " ").to_ascii_uppercase();
                format!(
                    "ERR weir: {command} is not available in a transaction, command not executed"
                )
            }
            Failure::NotSupported { what, setting } => {
                format!("ERR weir: {what} is not available here ({setting}), command not executed")
            }
        };
        error_line(&text)
    }

    /// The reply to the `EXEC` of a block that was kept here and could not be sent.
    pub fn exec_abort(&self) -> Vec<u8> {
        let reply = self.reply();
        exec_refused(&reply[1..reply.len() - 2])
    }

    /// What it is counted as.
    pub fn cause(&self) -> ErrorCause {
        match self {
            Failure::Open(OpenError::Refused(_) | OpenError::Full) => ErrorCause::BackendRefused,
            Failure::Open(OpenError::Unreachable(_)) => ErrorCause::NoBackend,
            Failure::NoPrimary | Failure::NoReplica => ErrorCause::NoPrimary,
            Failure::QueueFull { .. } => ErrorCause::LeaseQueue,
            Failure::WaitedTooLong { .. } => ErrorCause::LeaseWait,
            Failure::Memory => ErrorCause::Memory,
            Failure::NodeMemory { .. }
            | Failure::Rate { .. }
            | Failure::HoldFull { .. }
            | Failure::LargeReplies
            | Failure::Paused { .. } => ErrorCause::Busy,
            Failure::Access { .. } => ErrorCause::NoPermission,
            Failure::Busy(Busy::Deadline) => ErrorCause::QueueTimeout,
            Failure::Busy(Busy::NoConnection) => ErrorCause::NoBackend,
            Failure::Busy(_) => ErrorCause::Busy,
            Failure::Subscriptions { .. }
            | Failure::Subscribed { .. }
            | Failure::NotInTransaction { .. }
            | Failure::NotSupported { .. } => ErrorCause::NotSupported,
        }
    }

    /// The limit that refused it, if one did.
    pub fn shed(&self) -> Option<ShedLimit> {
        match self {
            Failure::QueueFull { .. } => Some(ShedLimit::LeaseQueue),
            Failure::WaitedTooLong { .. } => Some(ShedLimit::LeaseWait),
            Failure::HoldFull { limit } if limit.ends_with("hold_memory") => {
                Some(ShedLimit::HoldMemory)
            }
            Failure::HoldFull { .. } => Some(ShedLimit::HoldClients),
            Failure::Memory => Some(ShedLimit::Memory),
            Failure::NodeMemory { .. } => Some(ShedLimit::NodeMemory),
            Failure::Rate { of, .. } => Some(match of {
                Metered::Commands => ShedLimit::LimitCommandsRate,
                Metered::Bytes => ShedLimit::LimitBytesRate,
            }),
            Failure::Paused { .. } => Some(ShedLimit::Pause),
            Failure::LargeReplies => Some(ShedLimit::LargeReplies),
            Failure::Busy(Busy::QueueLength) => Some(ShedLimit::Queue),
            Failure::Busy(Busy::QueueTime | Busy::Behind) => Some(ShedLimit::QueueTime),
            _ => None,
        }
    }
}

/// An error reply from its text without the `-`; line breaks become spaces, as
/// in Redis, so that an echoed argument cannot forge a reply.
pub fn error_line(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    let mut line = Vec::with_capacity(text.len() + 3);
    line.push(b'-');
    line.extend(text.iter().map(|byte| {
        if matches!(byte, b'\r' | b'\n') {
            b' '
        } else {
            *byte
        }
    }));
    line.extend_from_slice(b"\r\n");
    line
}

/// The reply to an `EXEC` that is refused for this reason (`multi.c:execCommandAbort`).
pub fn exec_refused(text: &[u8]) -> Vec<u8> {
    // Redis leaves the general prefix out.
    let text = text.strip_prefix(b"ERR ").unwrap_or(text);
    let before = b"EXECABORT Transaction discarded because of: ";
    error_line([before.as_slice(), text].concat())
}

/// The reply to what is not the protocol.
pub fn protocol_error(error: &ProtocolError) -> Vec<u8> {
    let mut line = Vec::new();
    error.write_reply(&mut line);
    line
}

/// Redis's error for a wrong number of arguments; subcommands by their full name.
pub fn wrong_arity(name: &str) -> Vec<u8> {
    error_line(format!(
        "ERR wrong number of arguments for '{name}' command"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echoed_argument_cannot_forge_a_reply() {
        assert_eq!(error_line("ERR a\r\n+OK"), b"-ERR a  +OK\r\n");
    }

    #[test]
    fn only_what_has_not_run_says_so() {
        let unreachable = Failure::Open(OpenError::Unreachable("connection refused".into()));
        assert!(unreachable.reply().starts_with(b"-MASTERDOWN weir: "));
        assert!(
            String::from_utf8(unreachable.reply())
                .unwrap()
                .contains("command not executed")
        );
        assert!(
            String::from_utf8(OUTCOME_UNKNOWN.to_vec())
                .unwrap()
                .contains("outcome unknown")
        );
    }

    #[test]
    fn the_operations_page_has_every_error() {
        let page = include_str!("../../docs/OPERATIONS.md");
        let limit = "LIMIT";
        let failures = [
            Failure::Open(OpenError::Unreachable("WHY".into())),
            Failure::Open(OpenError::Full),
            Failure::NoPrimary,
            Failure::NoReplica,
            Failure::QueueFull { limit },
            Failure::WaitedTooLong { limit },
            Failure::HoldFull { limit },
            Failure::Memory,
            Failure::NodeMemory {
                setting: "health.refuse_writes_above_memory".into(),
            },
            Failure::NodeMemory {
                setting: "limits.RULE.refuse_writes_above_memory".into(),
            },
            Failure::Rate {
                of: Metered::Commands,
                rule: "RULE".into(),
            },
            Failure::Rate {
                of: Metered::Bytes,
                rule: "RULE".into(),
            },
            Failure::LargeReplies,
            Failure::Paused { limit },
            Failure::Access {
                command: "COMMAND".into(),
                setting: "access.NAME.SETTING".into(),
            },
            Failure::Busy(Busy::QueueTime),
            Failure::Busy(Busy::QueueLength),
            Failure::Busy(Busy::Behind),
            Failure::Busy(Busy::NoConnection),
            Failure::NotSupported {
                what: "a raw tunnel",
                setting: "backend.tunnels",
            },
            Failure::Subscriptions { max: 65_536 },
            Failure::NotInTransaction {
                command: "client|kill".into(),
            },
            Failure::Subscribed { what: "WHAT" },
            Failure::NotSupported {
                what: "a connection of this kind",
                setting: limit,
            },
        ];
        let words = [
            OUTCOME_UNKNOWN,
            TIMED_OUT,
            TIMED_OUT_UNSENT,
            MAX_CLIENTS,
            EXEC_LEASE_LOST,
            EXEC_SUBSCRIBED,
            OTHER_USER,
        ];
        let replies = failures.iter().map(Failure::reply);
        for reply in replies.chain(words.map(<[u8]>::to_vec)) {
            let text = String::from_utf8(reply).expect("text");
            assert!(page.contains(&format!("`{}`", text.trim_end())), "{text}");
        }
    }
}
