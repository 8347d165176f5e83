//! Where replies go, and why a connection cannot go on.

use std::io;

use crate::backend::entry::{Entry, Ticket};

/// Where replies go. One call per run of replies to the same caller.
pub trait Sink {
    /// `count` whole replies for a session, contiguous in `bytes`.
    fn replies(&mut self, to: Ticket, bytes: &[u8], count: u32);
    /// Bytes for another worker that has lent its commands to this connection.
    fn link(&mut self, to: Ticket, bytes: &[u8]);
    /// `count` replies came `micros` microseconds after their requests were written.
    fn took(&mut self, micros: u64, count: u32);
    /// A part of a large reply; `replies` with the rest ends it.
    fn part(&mut self, to: Ticket, bytes: &[u8]);
    /// A reply that the session wants to look at ([`WHOLE`](crate::backend::Marks::WHOLE)) or that its
    /// client is not to see ([`SILENT`](crate::backend::Marks::SILENT)).
    fn whole(&mut self, entry: &Entry, bytes: &[u8]);
    /// A reply that says what the node is, or one to the same session behind it. The
    /// request is there to be sent to another.
    fn heed(&mut self, entry: &Entry, request: Vec<u8>, reply: &[u8]);
    /// Something the node said without being asked, on an exclusive connection.
    fn pushed(&mut self, owner: Ticket, bytes: &[u8]);
    /// A command whose connection was lost earlier and whose turn has come.
    fn lost(&mut self, entry: &Entry);
}

/// Why a connection cannot go on.
#[derive(Debug)]
pub enum Broken {
    /// The node closed it.
    Closed,
    /// The socket failed.
    Io(io::Error),
    /// The node sent what is not a reply.
    Malformed(crate::resp::ReplyError),
    /// The node sent a reply that nobody had asked for.
    Unasked,
    /// It made no progress while the node answered elsewhere.
    Stalled,
    /// Another node is what this one was.
    Moved,
    /// A reply that had to be looked at as a whole was larger than allowed.
    TooLarge,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Broken::Closed => f.write_str("closed by the node"),
            Broken::Io(error) => write!(f, "{error}"),
            Broken::Malformed(error) => write!(f, "malformed reply: {error}"),
            Broken::Unasked => f.write_str("a reply that nobody asked for"),
            Broken::Stalled => f.write_str("stalled while the node answers elsewhere"),
            Broken::Moved => f.write_str("commands go to another node now"),
            Broken::TooLarge => f.write_str("a reply too large to look at"),
        }
    }
}
