//! Answers of a cache that misses to commands that had waited in line: each in its turn
//! among its client's replies.

use std::collections::VecDeque;

use super::client::{Flags, Session};
use super::fail_open::MadeUp;
use super::failure::{Failure, MISS};
use super::worker::State;
use crate::backend::{Entry, Marks};

impl State {
    /// Answers a command that has left its line, and is counted in its session no more as one
    /// that waits there, with a miss, if there is such an answer. If others are before it, its
    /// answer is kept, and the entry of this place is to be put behind them.
    pub(super) fn miss_in_line(
        &mut self,
        entry: &Entry,
        frame: &[u8],
        failure: &Failure,
        is_next: bool,
    ) -> InLine {
        if is_next {
            return match self.settle_made_up(entry, frame, failure) {
                true => InLine::Answered,
                false => InLine::Refused,
            };
        }
        let made_up = self.made_up(entry.to, frame, entry.command, failure, entry.marks);
        // What nobody reads needs no keeping.
        let (Some((reply, kind)), false) = (made_up, entry.marks.any(Marks::SILENT)) else {
            return InLine::Refused;
        };
        self.trace_made_up(entry.to, entry.command, entry.at);
        self.count_made_up(entry.to, kind, failure);
        if let Some(session) = self.session(entry.to) {
            session.extra().misses.push(reply);
        }
        InLine::Kept
    }

    /// Whether a command that waits in line for a primary is answered instead, having
    /// nothing of its client's before it.
    pub(super) fn misses_from_line(&mut self, entry: &Entry, frame: &[u8]) -> bool {
        let Some(session) = self.session(entry.to) else {
            return false;
        };
        let is_next = session.in_flight == session.queued && !session.flags.any(Flags::STASHED);
        let failure = Failure::NoPrimary;
        let (to, command, marks) = (entry.to, entry.command, entry.marks);
        if !is_next
            || marks.any(Marks::REFUSED)
            || !matches!(
                self.made_up(to, frame, command, &failure, marks),
                Some((_, MadeUp::Read))
            )
        {
            return false;
        }
        self.sessions[to.slot as usize].queued -= 1;
        self.settle_made_up(entry, frame, &failure)
    }

    /// Whether to keep the requests of those that leave a line.
    pub(super) fn may_miss_in_lane(&self, lane: u32) -> bool {
        self.may_fail_open(self.lanes[lane as usize].route)
    }
}

impl Session {
    /// The answer that was kept for this place among its replies, if one was.
    pub(super) fn take_miss(&mut self, entry: &Entry) -> Option<Vec<u8>> {
        if entry.command != MISS || entry.marks.any(Marks::SILENT) {
            return None;
        }
        self.extra.as_mut()?.misses.pop()
    }
}

/// Answers that wait for their turn. There are no more than commands of one client may be
/// in flight, and none is longer than its request.
#[derive(Debug, Default)]
pub struct Misses {
    replies: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Misses {
    fn push(&mut self, reply: Vec<u8>) {
        self.bytes += reply.len();
        self.replies.push_back(reply);
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        let reply = self.replies.pop_front()?;
        self.bytes -= reply.len();
        Some(reply)
    }

    /// How long they are together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What becomes of a command that has left its line without having been sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum InLine {
    /// It was answered.
    Answered,
    /// Its answer is kept for its turn; the code for its place is [`MISS`].
    Kept,
    /// It has no answer but the reason.
    Refused,
}
