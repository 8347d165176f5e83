//! Publish and subscribe: who is subscribed to what, what has to be said upstream, and
//! whom a message goes to. Nothing here does I/O; `session::feed` and its neighbours do.
//!
//! All clients of one user share one *feed*: a connection to the node that is subscribed
//! to whatever any of them is subscribed to. It belongs to one worker, its *home*.
//! [`Upstream`] is the home's side: what the node has been asked and has confirmed, and
//! which workers a message goes to. [`Local`] is each worker's side: which of its clients
//! a message goes to, [`Pending`] what one of them has asked and is not answered yet, and
//! [`Outgoing`] what each of them gets in one turn. [`Audience`] is
//! what a publisher would be told if every client had a connection of its own.
//!
//! Always true: whatever a client is told about its subscriptions happens at the place in
//! the feed's bytes where the node itself did it. A message from before a `SUBSCRIBE` is
//! never delivered, one from after it always, and one from before an `UNSUBSCRIBE` too.

mod audience;
mod frame;
mod glob;
mod local;
mod outgoing;
mod pending;
#[cfg(test)]
mod properties;
mod upstream;

use std::sync::Arc;

pub use audience::Audience;
pub use frame::{Frame, beginning, read};
pub use glob::matches;
pub use local::Local;
pub use outgoing::{Outgoing, Piece, Source};
pub use pending::Pending;
pub use upstream::{Ask, Asker, Heard, OutOfStep, Upstream};

use crate::command::Sub;
use crate::resp::Version;

/// The name of a channel, or a pattern: one copy for everybody who uses it.
pub type Name = Arc<[u8]>;

/// What a name is subscribed as. The same name in two of them is two subscriptions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Space {
    /// `SUBSCRIBE`.
    Channel,
    /// `PSUBSCRIBE`.
    Pattern,
    /// `SSUBSCRIBE`.
    Shard,
}

impl Space {
    /// All of them, in the order of their numbers.
    pub const ALL: [Space; 3] = [Space::Channel, Space::Pattern, Space::Shard];

    /// What a command is about.
    pub fn of(sub: Sub) -> Space {
        match sub {
            Sub::Subscribe | Sub::Unsubscribe => Space::Channel,
            Sub::PSubscribe | Sub::PUnsubscribe => Space::Pattern,
            Sub::SSubscribe | Sub::SUnsubscribe => Space::Shard,
        }
    }

    /// How a confirmation of a subscription begins.
    pub fn subscribed_word(self) -> &'static str {
        match self {
            Space::Channel => "subscribe",
            Space::Pattern => "psubscribe",
            Space::Shard => "ssubscribe",
        }
    }

    /// How a confirmation of an unsubscription begins.
    pub fn unsubscribed_word(self) -> &'static str {
        match self {
            Space::Channel => "unsubscribe",
            Space::Pattern => "punsubscribe",
            Space::Shard => "sunsubscribe",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// Writes the confirmation of one subscription, or of its end, as the node would to this
/// client: a null for the name if it was subscribed to nothing of the kind.
pub fn confirm(word: &str, name: Option<&[u8]>, count: usize, version: Version, out: &mut Vec<u8>) {
    use std::io::Write;
    let mark = match version {
        Version::Resp2 => '*',
        Version::Resp3 => '>',
    };
    // Writing to memory can not fail.
    let _ = write!(out, "{mark}3\r\n${}\r\n{word}\r\n", word.len());
    match (name, version) {
        (Some(name), _) => {
            let _ = write!(out, "${}\r\n", name.len());
            out.extend_from_slice(name);
            out.extend_from_slice(b"\r\n");
        }
        (None, Version::Resp2) => out.extend_from_slice(b"$-1\r\n"),
        (None, Version::Resp3) => out.extend_from_slice(b"_\r\n"),
    }
    let _ = write!(out, ":{count}\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirmations_read_as_redis_writes_them() {
        let text = |name: Option<&[u8]>, version| {
            let mut out = Vec::new();
            confirm("subscribe", name, 7, version, &mut out);
            String::from_utf8(out).expect("text")
        };
        assert_eq!(
            text(Some(b"ab"), Version::Resp2),
            "*3\r\n$9\r\nsubscribe\r\n$2\r\nab\r\n:7\r\n"
        );
        assert_eq!(
            text(None, Version::Resp3),
            ">3\r\n$9\r\nsubscribe\r\n_\r\n:7\r\n"
        );
    }
}
