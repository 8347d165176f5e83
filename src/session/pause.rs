//! `CLIENT PAUSE`: commands are held here until it is over, so that they do not
//! pile up on shared connections which Redis has stopped reading.

use super::client::{Flags, Transaction};
use super::client_command::PauseMode;
use super::dispatch::Row;
use super::input::Request;
use super::worker::State;
use crate::backend::Ticket;
use crate::command::{Class, Flags as CommandFlags, Local};

/// A pause in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pause {
    /// When it is over, in microseconds of the process's clock.
    pub until: u64,
    /// Reads are held too.
    pub all: bool,
}

impl Pause {
    /// A pause that begins now, as the clock of the process tells it.
    pub fn of(now: u64, milliseconds: i64, mode: PauseMode) -> Pause {
        let micros = u64::try_from(milliseconds)
            .unwrap_or(0)
            .saturating_mul(1000);
        Pause {
            until: now.saturating_add(micros),
            all: mode == PauseMode::All,
        }
    }

    /// Two pauses together: the longer time and the stricter mode win.
    #[must_use]
    pub fn and(self, other: Option<Pause>) -> Pause {
        let Some(other) = other else { return self };
        Pause {
            until: self.until.max(other.until),
            all: self.all || other.all,
        }
    }
}

impl State {
    /// Whether the command is held; if so the session waits.
    pub(super) fn must_pause(&mut self, ticket: Ticket, request: &Request<'_>, row: Row) -> bool {
        let Some(pause) = self.pause_of(ticket) else {
            return false;
        };
        let session = &mut self.sessions[ticket.slot as usize];
        let held = pause.all
            || match row.class {
                Class::Exec => block_writes(session.extra.as_deref().map(|it| &it.transaction)),
                _ => writes(request, row) == Some(true),
            };
        // Who ends the pause is not held by it.
        let ends_it = row.class == Class::Local(Local::Weir);
        if !held || ends_it || session.flags.any(Flags::TUNNEL) {
            return false;
        }
        session.flags.set(Flags::PAUSED.with(Flags::WAITING));
        self.recount(ticket);
        true
    }

    /// The pause that the session's commands are subject to.
    fn pause_of(&self, ticket: Ticket) -> Option<Pause> {
        let session = &self.sessions[ticket.slot as usize];
        self.fronts[session.route as usize]
            .pause
            .filter(|pause| pause.until > self.clock.now())
    }

    /// Whether only Redis can tell if a pause holds the command: it must not take a
    /// connection with it that others use.
    pub(super) fn may_be_paused_by_redis(
        &self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
    ) -> bool {
        self.pause_of(ticket).is_some() && writes(request, row).is_none()
    }

    /// A pause begins, changes or ends.
    pub(super) fn set_pause(&mut self, route: u16, pause: Option<Pause>) {
        let front = &mut self.fronts[route as usize];
        front.pause = pause.map(|pause| pause.and(front.pause));
        if pause.is_none() {
            self.release_paused(route);
        }
        self.lobbies_paused(route);
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
                self.lobbies_paused(route as u16);
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

/// Whether a command is one that `CLIENT PAUSE … WRITE` holds; `None` for a script or
/// function that Weir knows by its name only, whose flags are Redis's to know
/// (`eval.c:evalGetCommandFlags`, `functions.c:fcallGetCommandFlags`).
pub(super) fn writes(request: &Request<'_>, row: Row) -> Option<bool> {
    let held = CommandFlags::WRITE.union(CommandFlags::MAY_REPLICATE);
    if !row.flags.intersects(held) {
        return Some(false);
    }
    let name = request.arg(0).unwrap_or_default();
    if name.eq_ignore_ascii_case(b"eval") {
        return Some(!declares_no_writes(request.arg(1).unwrap_or_default()));
    }
    let by_name = name.eq_ignore_ascii_case(b"evalsha") || name.eq_ignore_ascii_case(b"fcall");
    (!by_name).then_some(true)
}

fn block_writes(transaction: Option<&Transaction>) -> bool {
    match transaction {
        Some(Transaction::OnLease { writes, .. } | Transaction::Queued { writes, .. }) => *writes,
        _ => false,
    }
}

/// Whether a script's first line says `#!lua flags=no-writes`.
fn declares_no_writes(script: &[u8]) -> bool {
    let line = script.split(|byte| *byte == b'\n').next();
    let Some(line) = line.and_then(|line| line.strip_prefix(b"#!")) else {
        return false;
    };
    line.split(u8::is_ascii_whitespace)
        .filter_map(|word| word.strip_prefix(b"flags="))
        .any(|flags| {
            flags
                .split(|byte| *byte == b',')
                .any(|flag| flag == b"no-writes")
        })
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

    #[test]
    fn a_script_that_only_reads_says_so_in_its_first_line() {
        for (script, reads) in [
            ("#!lua flags=no-writes\nreturn 1", true),
            ("#!lua name=x flags=allow-oom,no-writes\r\nreturn 1", true),
            ("#!lua\nreturn 'flags=no-writes'", false),
            ("return 1 -- #!lua flags=no-writes", false),
            ("", false),
        ] {
            assert_eq!(declares_no_writes(script.as_bytes()), reads, "{script}");
        }
    }
}
