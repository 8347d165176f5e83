//! `CLIENT PAUSE`: commands are held here until it is over, so that they do not
//! pile up on shared connections which Redis has stopped reading.

use super::client::Flags;
use super::dispatch::Row;
use super::worker::State;
use crate::backend::Ticket;
use crate::command::Flags as CommandFlags;

/// A pause in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pause {
    /// When it is over, in microseconds of the process's clock.
    pub until: u64,
    /// Reads are held too.
    pub all: bool,
}

impl Pause {
    /// Two pauses together: the longer time and the stricter mode win.
    #[must_use]
    pub fn and(self, other: Option<Pause>) -> Pause {
        let Some(other) = other else { return self };
        Pause {
            until: self.until.max(other.until),
            all: self.all || other.all,
        }
    }

    fn holds(self, row: Row) -> bool {
        self.all
            || row
                .flags
                .intersects(CommandFlags::WRITE.union(CommandFlags::MAY_REPLICATE))
    }
}

impl State {
    /// Whether the command is held; if so the session waits.
    pub(super) fn must_pause(&mut self, ticket: Ticket, row: Row) -> bool {
        let now = self.clock.now();
        let session = &mut self.sessions[ticket.slot as usize];
        let front = &self.fronts[session.route as usize];
        let Some(pause) = front.pause else {
            return false;
        };
        if pause.until <= now || !pause.holds(row) || session.flags.any(Flags::TUNNEL) {
            return false;
        }
        session.flags.set(Flags::PAUSED.with(Flags::WAITING));
        self.recount(ticket);
        true
    }

    /// A pause begins, changes or ends.
    pub(super) fn set_pause(&mut self, route: u16, pause: Option<Pause>) {
        let front = &mut self.fronts[route as usize];
        front.pause = pause.map(|pause| pause.and(front.pause));
        if pause.is_none() {
            self.release_paused(route);
        }
    }

    /// Ends pauses whose time is over.
    pub(super) fn end_pauses(&mut self) {
        let now = self.clock.now();
        for route in 0..self.fronts.len() {
            if self.fronts[route]
                .pause
                .is_some_and(|pause| pause.until <= now)
            {
                self.fronts[route].pause = None;
                self.release_paused(route as u16);
            }
        }
    }

    fn release_paused(&mut self, route: u16) {
        let held: Vec<Ticket> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.route == route && session.flags.any(Flags::PAUSED))
            .map(|(slot, session)| session.ticket(slot as u32))
            .collect();
        for ticket in held {
            if let Some(session) = self.session(ticket) {
                session.flags.clear(Flags::PAUSED.with(Flags::WAITING));
                self.make_ready(ticket);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_time_and_the_stricter_mode_win() {
        let writes = Pause {
            until: 100,
            all: false,
        };
        let everything = Pause {
            until: 50,
            all: true,
        };
        assert_eq!(
            writes.and(Some(everything)),
            Pause {
                until: 100,
                all: true
            }
        );
        assert_eq!(writes.and(None), writes);
    }
}
