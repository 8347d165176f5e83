//! Replies that came late: what is needed of them for the slow log, taken from the request
//! while it is still kept. A command that was quick pays one comparison.

use super::Conn;
use crate::backend::entry::{Entry, Marks};

/// Of a request so much is kept: enough for the first key behind most scripts.
const REQUEST_MAX: usize = 8 * 1024;

/// Of one read so many replies are kept. When every command is slow, the first tell enough.
const KEPT_MAX: usize = 16;

/// Commands whose time says nothing: they wait for something, or are Weir's own, or another
/// worker's, which sees to them itself.
const UNJUDGED: Marks = Marks::LINK
    .with(Marks::LOBBY)
    .with(Marks::UNTIMED)
    .with(Marks::SUBSCRIBE)
    .with(Marks::LOST);

/// A reply that came late.
#[derive(Debug)]
pub struct SlowReply {
    /// Whose, which command, and when it had arrived.
    pub entry: Entry,
    /// The beginning of the request.
    pub request: Vec<u8>,
    /// Bytes of the reply.
    pub reply_bytes: u64,
    /// When the request was written to the node, if it was by this worker.
    pub written_at: Option<u64>,
}

/// The replies of one read that came late.
#[derive(Debug, Default)]
pub struct SlowReplies {
    /// Commands that had arrived before this are late, in microseconds of the worker's
    /// clock; 0 if none is. To be set before [`Conn::receive`].
    pub before: u64,
    /// How many there were.
    pub count: u32,
    /// The first of them.
    pub kept: Vec<SlowReply>,
}

impl Conn {
    /// `nth` is the reply's number in this read, from 0; `start` is where its request begins
    /// in the ring.
    #[cold]
    pub(super) fn note_slow(
        &mut self,
        entry: &Entry,
        nth: usize,
        start: usize,
        reply_bytes: usize,
    ) {
        if entry.marks.any(UNJUDGED) {
            return;
        }
        self.slow.count += 1;
        if self.slow.kept.len() == KEPT_MAX {
            return;
        }
        let kept = self.ring.len().saturating_sub(start);
        let len = (entry.len as usize).min(REQUEST_MAX).min(kept);
        let reply = SlowReply {
            entry: *entry,
            request: self.ring.copy(start.min(self.ring.len()), len),
            reply_bytes: (self.streamed + self.carry.len() + reply_bytes) as u64,
            written_at: self.written_of(nth),
        };
        self.slow.kept.push(reply);
    }

    /// When the command was written whose reply is the `nth` of this read.
    pub(super) fn written_of(&self, mut nth: usize) -> Option<u64> {
        for batch in &self.batches {
            match nth.checked_sub(batch.count as usize) {
                Some(rest) => nth = rest,
                None => return Some(batch.at),
            }
        }
        None
    }
}
