//! The end of a process: no new clients, and those that are there are closed one after
//! the other, each between two of its requests, so that no reply is cut and those who
//! connect elsewhere do not do it all at once.

use std::time::Duration;

use super::client::{Session, Transaction};
use super::worker::State;
use crate::backend::Ticket;
use crate::metrics::CloseReason;

/// So much time for each client, as long as there is enough: five hundred reconnects a
/// second are no storm.
const FOR_EACH: Duration = Duration::from_millis(2);

/// A drain under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// When it began, in microseconds of the process's clock.
    began: u64,
    /// Until when the turn of every client has come, in microseconds.
    over: u64,
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
        }
    }

    /// Whether it is the turn of the client with this id.
    fn is_turn_of(self, id: u64, now: u64) -> bool {
        // Ids of clients that came together are neighbours; their turns are not.
        let share = id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        now >= self.began + ((self.over * share) >> 32)
    }
}

impl State {
    /// Closes the client if it is its turn and nothing of it is under way.
    pub(super) fn drain_session(&mut self, ticket: Ticket) -> bool {
        let Some(drain) = self.draining else {
            return false;
        };
        let session = &self.sessions[ticket.slot as usize];
        let closes =
            drain.is_turn_of(session.id, self.clock.now()) && session.is_between_requests();
        if closes {
            self.close(ticket.slot, CloseReason::Shutdown);
        }
        closes
    }
}

impl Session {
    /// Nothing that it has asked is unanswered. Whoever only listens (subscriptions,
    /// tracking, `MONITOR`) has asked nothing; a transaction is in the middle of something.
    fn is_between_requests(&self) -> bool {
        let listens = || {
            let extra = self.extra.as_deref();
            self.in_flight == 0
                && self.output.is_empty()
                && extra.is_some_and(|extra| {
                    matches!(extra.transaction, Transaction::None)
                        && (!extra.subscriptions.is_empty() || extra.tracking || extra.monitoring)
                })
        };
        self.input.is_empty()
            && (self.may_be_reaped() || listens())
            // What has arrived and was not read yet would be lost.
            && !crate::net::is_readable(&self.socket)
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
                .filter(|id| drain.is_turn_of(*id, at(millis)))
                .count()
        };
        assert!(due(0) < 10);
        assert!((450..550).contains(&due(1000)), "{}", due(1000));
        assert_eq!(due(2000), 1000);
        // Of ten thousand each has less.
        let drain = Drain::new(Duration::ZERO, 1_000_000, Duration::from_secs(10));
        let due = (0..1000)
            .filter(|id| drain.is_turn_of(*id, 4_000_000))
            .count();
        assert!((450..550).contains(&due), "{due}");
        assert!((0..1000).all(|id| drain.is_turn_of(id, 8_000_000)));
    }

    #[test]
    fn without_time_all_turns_are_now() {
        let drain = Drain::new(Duration::from_secs(1), 1000, Duration::ZERO);
        assert!((0..1000).all(|id| drain.is_turn_of(id, 1_000_000)));
    }
}
