//! The end of a process: no new clients, and those that are there are closed one after
//! the other, each between two of its requests, so that no reply is cut and those who
//! connect elsewhere do not do it all at once.
//!
//! A client that is always busy has no such moment unless it is made: when its turn has come,
//! no further request is taken until all that were are answered. Whoever waits for its
//! replies has asked nothing new by then, and is closed. One that never waits is tried a few
//! times, and then told that this was all: what it has sent since is not run.

use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::io::AsyncWrite;

use super::client::{Flags, Session, Transaction};
use super::worker::State;
use crate::backend::Ticket;
use crate::metrics::CloseReason;

/// So much time for each client, as long as there is enough: five hundred reconnects a
/// second are no storm.
const FOR_EACH: Duration = Duration::from_millis(2);

/// So long may a client whose turn has come go on until it pauses by itself, at most.
const PATIENCE: Duration = Duration::from_secs(1);

/// So long is read, and thrown away, what a client sends that was told that this was all. A
/// socket that is closed with unread bytes takes back the replies that are still under way
/// (RFC 1122, 4.2.2.13).
const LINGER: Duration = Duration::from_secs(1);

/// A drain under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// When it began, in microseconds of the process's clock.
    began: u64,
    /// In how many microseconds the turn of every client has come.
    over: u64,
    /// How many microseconds a client has from its turn to pause by itself.
    patience: u64,
    /// How many microseconds it is read on when it was told that this was all.
    linger: u64,
}

impl Drain {
    /// Begins now, with so many clients and so much time. The last fifth of the time is for
    /// those who are in the middle of something when their turn comes.
    pub fn new(now: Duration, clients: usize, time: Duration) -> Drain {
        let clients = u32::try_from(clients).unwrap_or(u32::MAX);
        let over = FOR_EACH.saturating_mul(clients).min(time / 5 * 4);
        Drain {
            began: now.as_micros() as u64,
            over: over.as_micros() as u64,
            patience: PATIENCE.min(time / 20).as_micros() as u64,
            linger: LINGER.min(time / 20).as_micros() as u64,
        }
    }

    /// When it is the turn of the client with this id.
    fn turn_of(self, id: u64) -> u64 {
        // Ids of clients that came together are neighbours; their turns are not.
        let share = id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        self.began + ((self.over * share) >> 32)
    }
}

impl State {
    /// Closes the client if it is its turn and nothing of it is under way. Returns whether
    /// there is nothing more to do for it.
    pub(super) fn drain_session(&mut self, ticket: Ticket) -> bool {
        let Some(drain) = self.draining else {
            return false;
        };
        let now = self.clock.now();
        let session = &mut self.sessions[ticket.slot as usize];
        let turn = drain.turn_of(session.id);
        // Who goes on in this turn does so first.
        let goes_on = session.flags.any(Flags::CLOSING.with(Flags::READY));
        if now < turn || goes_on {
            return false;
        }
        let asks_one_by_one = session.asks_one_by_one();
        if session.in_flight > 0 {
            if asks_one_by_one {
                session.flags.set(Flags::BARRIER.with(Flags::LEAVING));
            }
            return false;
        }
        let has_paused = session.flags.any(Flags::LEAVING);
        session.flags.clear(Flags::LEAVING);
        if !asks_one_by_one {
            return false;
        }
        if !session.output.is_empty() {
            if has_paused {
                // It goes on when it has read them.
                session.flags.set(Flags::BARRIER.with(Flags::LEAVING));
            }
            return has_paused;
        }
        // What has arrived and was not read yet would be lost.
        if session.input.is_empty() && !crate::net::is_readable(&session.socket) {
            self.close(ticket.slot, CloseReason::Shutdown);
            return true;
        }
        // The rest of a request that has begun may take its time.
        let is_partial = session
            .extra
            .as_deref()
            .is_some_and(|it| it.partial.is_some());
        // What waited at the front of the input for something else than replies is served.
        let is_next = !session.input.is_empty() && !has_paused;
        // Of one that has said all there is nothing to read on.
        let has_ended = session.flags.any(Flags::EOF);
        if is_partial || is_next || has_ended || now < turn + drain.patience {
            return false;
        }
        self.take_leave(ticket, now + drain.linger);
        true
    }

    /// Nothing more is taken of the client. It hears so behind the replies that it has got,
    /// and closes.
    fn take_leave(&mut self, ticket: Ticket, close_at: u64) {
        let session = &mut self.sessions[ticket.slot as usize];
        session.flags.set(Flags::CLOSING);
        session.input = Vec::new();
        let extra = session.extra();
        extra.close_reason = Some(CloseReason::Shutdown);
        extra.close_at = close_at;
        extra.takes_leave = true;
        let mut context = Context::from_waker(Waker::noop());
        // If the socket does not take even a goodbye, the end of the time has to do.
        let _ = Pin::new(&mut session.socket).poll_shutdown(&mut context);
        self.read_again(ticket);
        self.recount_memory(ticket);
    }
}

impl Session {
    /// It is in the middle of nothing, save requests that are answered one by one. Whoever
    /// only listens (subscriptions, tracking, `MONITOR`) has asked nothing; a transaction is
    /// in the middle of something.
    fn asks_one_by_one(&self) -> bool {
        const IN_THE_MIDDLE: Flags = Flags::WAITING.with(Flags::TUNNEL).with(Flags::UPLOADING);
        let listens = || {
            self.extra.as_deref().is_some_and(|extra| {
                matches!(extra.transaction, Transaction::None)
                    && (!extra.subscriptions.is_empty() || extra.tracking || extra.monitoring)
            })
        };
        !self.flags.any(IN_THE_MIDDLE) && (!self.flags.any(Flags::SPECIAL) || listens())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_spread_over_the_time_there_is() {
        let drain = Drain::new(Duration::from_secs(5), 1000, Duration::from_secs(10));
        let at = |millis: u64| 5_000_000 + millis * 1000;
        let due = |millis| {
            (0..1000)
                .filter(|id| drain.turn_of(*id) <= at(millis))
                .count()
        };
        assert!(due(0) < 10);
        assert!((450..550).contains(&due(1000)), "{}", due(1000));
        assert_eq!(due(2000), 1000);
        // Of ten thousand each has less.
        let drain = Drain::new(Duration::ZERO, 1_000_000, Duration::from_secs(10));
        let due = (0..1000)
            .filter(|id| drain.turn_of(*id) <= 4_000_000)
            .count();
        assert!((450..550).contains(&due), "{due}");
        assert!((0..1000).all(|id| drain.turn_of(id) <= 8_000_000));
    }

    #[test]
    fn without_time_all_turns_are_now() {
        let drain = Drain::new(Duration::from_secs(1), 1000, Duration::ZERO);
        assert!((0..1000).all(|id| drain.turn_of(id) <= 1_000_000));
    }
}
