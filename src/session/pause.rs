//! `CLIENT PAUSE` and `WEIR PAUSE`: commands are held here until it is over, so that they
//! do not pile up on shared connections which Redis has stopped reading.
//!
//! What is held stays in its client's input: one command of each client, with what came
//! behind it. An operator's pause bounds how many clients wait so, and how much; who comes
//! beyond that is refused at once, with what else it has sent. `CLIENT PAUSE` is Redis's own,
//! which refuses nobody.

use std::time::Duration;

use hashbrown::HashMap;

use super::client::{Flags, Transaction};
use super::client_command::PauseMode;
use super::dispatch::Row;
use super::failure::Failure;
use super::input::{Request, Step};
use super::worker::State;
use crate::backend::Ticket;
use crate::command::{Class, Flags as CommandFlags, Local};
use crate::metrics::{Event, EventKind};

/// A pause in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pause {
    /// When it is over, in microseconds of the process's clock.
    pub until: u64,
    /// Reads are held too.
    pub all: bool,
    /// An operator's: who waits is bounded.
    pub is_bounded: bool,
}

/// A `CLIENT PAUSE` that Redis has not answered: commands are held already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AskedPause {
    /// What was asked for.
    pub asked: Pause,
    /// What was in force before.
    pub before: Option<Pause>,
}

/// The clients of one route whose commands a worker holds.
#[derive(Debug, Default)]
pub struct Paused {
    /// By their slots: bytes of their input.
    held: HashMap<u32, usize>,
    bytes: usize,
}

impl Paused {
    /// How many there are.
    pub fn clients(&self) -> usize {
        self.held.len()
    }

    /// Bytes that they have sent and that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// So much is kept of one now, in place of what was before.
    pub fn hold(&mut self, slot: u32, bytes: usize) {
        let before = self.held.insert(slot, bytes).unwrap_or(0);
        self.bytes = self.bytes - before + bytes;
    }

    /// One waits no more.
    pub fn forget(&mut self, slot: u32) {
        self.bytes -= self.held.remove(&slot).unwrap_or(0);
    }

    /// Nobody does.
    pub fn clear(&mut self) {
        *self = Paused::default();
    }
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
            is_bounded: false,
        }
    }

    /// An operator's, of everything.
    pub fn of_operator(now: Duration, time: Duration) -> Pause {
        Pause {
            until: (now + time).as_micros() as u64,
            all: true,
            is_bounded: true,
        }
    }

    /// Two pauses together: the longer time and the stricter mode win.
    #[must_use]
    pub fn and(self, other: Option<Pause>) -> Pause {
        let Some(other) = other else { return self };
        Pause {
            until: self.until.max(other.until),
            all: self.all || other.all,
            is_bounded: self.is_bounded || other.is_bounded,
        }
    }
}

impl State {
    /// What a pause makes of a command; `None` if it does not touch it.
    pub(super) fn pause(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        following: &[u8],
        row: Row,
        silent: bool,
    ) -> Option<Step> {
        let pause = self.pause_of(ticket)?;
        let session = &mut self.sessions[ticket.slot as usize];
        let held = pause.all
            || match row.class {
                Class::Exec => block_writes(session.extra.as_deref().map(|it| &it.transaction)),
                _ => writes(request, row) == Some(true),
            };
        // Who ends the pause is not held by it.
        let ends_it = row.class == Class::Local(Local::Weir);
        if !held || ends_it || session.flags.any(Flags::TUNNEL) {
            return None;
        }
        if pause.is_bounded
            && let Some(limit) = self.is_full_of_paused(ticket)
        {
            return self.refuse_paused(ticket, request, following, row, limit, silent);
        }
        let session = &mut self.sessions[ticket.slot as usize];
        session.flags.set(Flags::PAUSED.with(Flags::WAITING));
        let route = session.route;
        let bytes = request.frame.len() + following.len();
        self.fronts[route as usize].paused.hold(ticket.slot, bytes);
        self.show_paused(route);
        self.recount(ticket);
        Some(Step::Wait)
    }

    /// The limit because of which no further client may wait for the end of a pause.
    fn is_full_of_paused(&self, ticket: Ticket) -> Option<&'static str> {
        let session = &self.sessions[ticket.slot as usize];
        let front = &self.fronts[session.route as usize];
        let clients = &front.config.clients;
        // Each worker has its part of what there may be.
        let workers = self.proxy.workers();
        if front.paused.clients() >= clients.pause_clients.div_ceil(workers) {
            return Some("clients.pause_clients");
        }
        let bytes = front.paused.bytes() as u64;
        if bytes >= clients.pause_memory.div_ceil(workers as u64) {
            return Some("clients.pause_memory");
        }
        // What its client sent before, in the same go, was refused.
        session
            .flags
            .any(Flags::REFUSING)
            .then_some("clients.pause_clients")
    }

    /// Nothing more is held: the command is refused, a transaction as a whole.
    fn refuse_paused(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        following: &[u8],
        row: Row,
        limit: &'static str,
        silent: bool,
    ) -> Option<Step> {
        let failure = Failure::Paused { limit };
        let session = &self.sessions[ticket.slot as usize];
        let route = session.route;
        let step = match session.extra.as_deref().map(|extra| &extra.transaction) {
            // Redis has part of it already: it waits, and there are no more of these than leases.
            Some(Transaction::OnLease { .. }) => {
                let session = &mut self.sessions[ticket.slot as usize];
                session.flags.set(Flags::PAUSED.with(Flags::WAITING));
                self.recount(ticket);
                return Some(Step::Wait);
            }
            Some(Transaction::Queued { .. }) => match row.class {
                Class::Discard => return None,
                Class::Exec => self.refuse_exec(ticket, &failure, silent),
                class => self.deny(ticket, row.id, class, &failure, silent),
            },
            // It ends here, without Redis.
            Some(Transaction::Broken { .. })
                if matches!(row.class, Class::Exec | Class::Discard | Class::Unwatch) =>
            {
                return None;
            }
            _ if row.class == Class::Multi => {
                // One that is not there as a whole is begun here, and refused as it goes on.
                let block = self.complete_block(ticket, request, following, row)?;
                self.refuse_block(ticket, &failure, &block, silent)
            }
            _ => self.refuse(ticket, &failure, silent),
        };
        if matches!(step, Step::Taken | Step::TakenWith(_)) {
            if let Some(session) = self.session(ticket) {
                session.flags.set(Flags::REFUSING);
            }
            self.tell_paused_full(route, limit);
        }
        Some(step)
    }

    /// An `EXEC` whose block is kept here.
    fn refuse_exec(&mut self, ticket: Ticket, failure: &Failure, silent: bool) -> Step {
        let step = self.answer(ticket, &failure.exec_abort(), silent);
        if step == Step::Taken {
            self.abort_queue(ticket, Class::Exec);
            let route = self.sessions[ticket.slot as usize].route;
            let metrics = &self.fronts[route as usize].metrics;
            if let Some(limit) = failure.shed() {
                metrics.shed(failure.cause(), limit);
            }
        }
        step
    }

    fn tell_paused_full(&self, route: u16, limit: &'static str) {
        let route = &self.fronts[route as usize].route;
        if route.paused_full.set() {
            tracing::warn!(route = %route.name, "{limit} is reached: commands are refused until the pause ends");
            let event = Event::new(EventKind::LimitReached, limit);
            self.proxy.journal.note(event.on(&route.name));
        }
    }

    fn show_paused(&self, route: u16) {
        let front = &self.fronts[route as usize];
        let metrics = &front.metrics;
        metrics.commands_paused.set(front.paused.clients() as i64);
        metrics.paused_bytes.set(front.paused.bytes() as i64);
    }

    /// More has come from a client that waits. Whether no more of it is to be read.
    pub(super) fn is_paused_full(&mut self, ticket: Ticket) -> bool {
        let Some(session) = self.session(ticket) else {
            return false;
        };
        if !session.flags.any(Flags::PAUSED) {
            return false;
        }
        let (route, bytes) = (session.route, session.input.len());
        self.fronts[route as usize].paused.hold(ticket.slot, bytes);
        self.show_paused(route);
        self.pause_of(ticket).is_some_and(|pause| pause.is_bounded)
            && self.is_full_of_paused(ticket) == Some("clients.pause_memory")
    }

    /// A client that waited has gone.
    pub(super) fn forget_paused(&mut self, slot: u32, route: u16) {
        self.fronts[route as usize].paused.forget(slot);
        self.show_paused(route);
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

    /// Redis does not pause: what was held for that goes on, unless another pause has come
    /// meanwhile.
    pub(super) fn take_back_pause(&mut self, route: u16, refused: AskedPause) {
        let AskedPause { asked, before } = refused;
        let front = &mut self.fronts[route as usize];
        if front.pause == Some(asked.and(before)) {
            front.pause = before;
            // What the other one holds, too, is looked at again and held.
            self.release_paused(route);
            self.lobbies_paused(route);
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
                self.lobbies_paused(route as u16);
            }
        }
    }

    fn release_paused(&mut self, route: u16) {
        self.fronts[route as usize].paused.clear();
        self.show_paused(route);
        let of = &self.fronts[route as usize].route;
        if of.paused_full.clear() {
            tracing::info!(route = %of.name, "the pause has ended: no limit on what it holds is reached any more");
            let event = Event::new(EventKind::LimitCleared, "clients.pause_clients");
            self.proxy.journal.note(event.on(&of.name));
        }
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
            is_bounded: false,
        };
        let everything = Pause {
            until: 50,
            all: true,
            is_bounded: true,
        };
        assert_eq!(
            writes.and(Some(everything)),
            Pause {
                until: 100,
                all: true,
                is_bounded: true,
            }
        );
        assert_eq!(writes.and(None), writes);
    }

    #[test]
    fn what_waits_is_counted_by_client() {
        let mut paused = Paused::default();
        paused.hold(1, 100);
        paused.hold(2, 50);
        paused.hold(1, 300);
        assert_eq!((paused.clients(), paused.bytes()), (2, 350));
        paused.forget(1);
        paused.forget(1);
        paused.forget(7);
        assert_eq!((paused.clients(), paused.bytes()), (1, 50));
        paused.clear();
        assert_eq!((paused.clients(), paused.bytes()), (0, 0));
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
