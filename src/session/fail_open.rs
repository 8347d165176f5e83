//! A route that is only a cache: while Redis cannot be used, reads are answered as if
//! nothing were there, and plain writes as configured. Which commands have such an answer
//! is the command table's knowledge (`command::miss`, `command::done`).

use super::failure::Failure;
use super::input::Step;
use super::reached::CLEARED_AFTER;
use super::worker::State;
use crate::backend::{Conn, Entry, Marks, OpenError, Ticket};
use crate::command::{self, CommandId};
use crate::config::FailOpenWrites;
use crate::metrics::{Event, EventKind};
use crate::resp;

impl Failure {
    /// Whether it is Redis, or the way to it, that could not do the work: not so what the
    /// client's credentials, its own limits or the settings forbid.
    pub(super) fn is_of_the_node(&self) -> bool {
        matches!(
            self,
            Failure::Open(OpenError::Unreachable(_) | OpenError::Full)
                | Failure::NoPrimary
                | Failure::NoReplica
                | Failure::QueueFull { .. }
                | Failure::WaitedTooLong { .. }
                | Failure::HoldFull { .. }
                | Failure::Memory
                | Failure::NodeMemory { .. }
                | Failure::Busy(_)
        )
    }
}

impl State {
    /// Answers a command that is not run: with what a cache that misses would say if the
    /// route fails open and there is such an answer, else with the reason.
    pub(super) fn refuse_or_miss(
        &mut self,
        ticket: Ticket,
        frame: &[u8],
        id: u16,
        failure: &Failure,
        marks: Marks,
    ) -> Step {
        self.traced.command = id;
        match self.miss(ticket, frame, id, failure, marks) {
            Some(step) => step,
            None => self.refuse(ticket, failure, marks.any(Marks::SILENT)),
        }
    }

    /// Answers a command that is not run with what a cache that misses would say, if there
    /// is such an answer. It waits in the client's input until what is before it is answered.
    pub(super) fn miss(
        &mut self,
        ticket: Ticket,
        frame: &[u8],
        id: u16,
        failure: &Failure,
        marks: Marks,
    ) -> Option<Step> {
        let (reply, kind) = self.made_up(ticket, frame, id, failure, marks)?;
        let step = self.answer(ticket, &reply, marks.any(Marks::SILENT));
        if step == Step::Taken {
            self.trace_made_up(ticket, id, self.clock.now());
            self.count_made_up(ticket, kind, failure);
        }
        Some(step)
    }

    /// Whether a command that has just been given this connection is answered at once
    /// instead: the connection is parked, and a cache has no use for an answer that comes
    /// when there is a primary again. What is written waits for one.
    #[inline]
    pub(super) fn rather_misses(
        &mut self,
        ticket: Ticket,
        conn: u32,
        frame: &[u8],
        id: u16,
        marks: Marks,
    ) -> bool {
        // A connection is given to no command while it retires, unless it is parked.
        self.conns[conn as usize].retiring && self.misses_at(ticket, conn, frame, id, marks)
    }

    #[cold]
    fn misses_at(
        &mut self,
        ticket: Ticket,
        conn: u32,
        frame: &[u8],
        id: u16,
        marks: Marks,
    ) -> bool {
        let Conn { lane, route, .. } = self.conns[conn as usize];
        let is_read = |(_, kind)| kind == MadeUp::Read;
        let misses = self.lanes[lane as usize].parked == conn
            && self
                .made_up(ticket, frame, id, &Failure::NoPrimary, marks)
                .is_some_and(is_read);
        if misses {
            self.does_not_wait(route);
        }
        misses
    }

    /// The same for one that was lost with its connection, and whose session has nothing
    /// outstanding before it: it is answered, if so.
    pub(super) fn settle_at_once(
        &mut self,
        entry: &Entry,
        conn: u32,
        lost: &Conn,
        start: usize,
    ) -> bool {
        if !self.conns[conn as usize].retiring {
            return false;
        }
        let frame = lost.ring.copy(start, entry.len as usize);
        self.misses_at(entry.to, conn, &frame, entry.command, entry.marks)
            && self.settle_made_up(entry, &frame, &Failure::NoPrimary)
    }

    /// Answers one outstanding command with what a cache that misses would say, if there
    /// is such an answer.
    pub(super) fn settle_made_up(
        &mut self,
        entry: &Entry,
        frame: &[u8],
        failure: &Failure,
    ) -> bool {
        let made_up = self.made_up(entry.to, frame, entry.command, failure, entry.marks);
        let Some((reply, kind)) = made_up else {
            return false;
        };
        self.trace_made_up(entry.to, entry.command, entry.at);
        self.count_made_up(entry.to, kind, failure);
        self.settle_entry(entry, &reply);
        true
    }

    /// What a command that cannot be run is answered on a route that fails open.
    pub(super) fn made_up(
        &mut self,
        ticket: Ticket,
        frame: &[u8],
        id: u16,
        failure: &Failure,
        marks: Marks,
    ) -> Option<(Vec<u8>, MadeUp)> {
        // In a block, or behind a write of unknown outcome, only the truth will do.
        let bound = Marks::IN_BLOCK
            .with(Marks::EXEC)
            .with(Marks::LINK)
            .with(Marks::ANSWERED);
        let session = self.session(ticket)?;
        let (route, version) = (session.route, session.partition.version);
        let front = &self.fronts[route as usize];
        let health = &front.config.health;
        if !self.fails_open(ticket) || marks.any(bound) || !failure.is_of_the_node() {
            return None;
        }
        let limits = resp::RequestLimits {
            bulk_max: i64::MAX as u64,
            args_max: i32::MAX as u64,
            unauthenticated: false,
        };
        let mut spans = Vec::new();
        resp::scan_request(frame, &limits, &mut spans).ok()?;
        let args: Vec<&[u8]> = spans.iter().map(|span| span.of(frame)).collect();
        let command = front.table.by_id(CommandId(id));
        if !command.exists() || !command.accepts(args.len()) {
            return None;
        }
        if let Some(reply) = command::miss(command, &args, version) {
            return Some((reply, MadeUp::Read));
        }
        // What may have run is not known not to have.
        let may_have_run = marks.any(Marks::RETRIED.with(Marks::LOST));
        if health.fail_open_writes == FailOpenWrites::Ok && !may_have_run {
            return command::done(command, &args).map(|reply| (reply, MadeUp::Write));
        }
        None
    }

    /// Counts an answer that was made up; the first of many is told.
    pub(super) fn count_made_up(&mut self, ticket: Ticket, kind: MadeUp, failure: &Failure) {
        let now = self.clock.now();
        let Some(route) = self.session(ticket).map(|session| session.route) else {
            return;
        };
        let front = &self.fronts[route as usize];
        match kind {
            MadeUp::Read => front.metrics.misses_made_up.inc(),
            MadeUp::Write => front.metrics.writes_made_up.inc(),
        }
        self.tell_reached(route, failure);
        if front.route.fails_open.begin(now) {
            let reply = failure.reply();
            let why = String::from_utf8_lossy(reply.trim_ascii_end()).into_owned();
            tracing::warn!(
                route = %front.route.name, why,
                "answering as a cache that misses (health.fail_open)"
            );
            let event = Event::new(EventKind::FailsOpen, "health.fail_open");
            let event = event.on(&front.route.name).with("why", why);
            self.proxy.journal.note(event);
        }
    }

    /// Says so when a route answers with Redis again.
    pub(super) fn look_whether_well(&self) {
        let now = self.clock.now();
        for front in &self.fronts {
            if !front.route.fails_open.end(now, CLEARED_AFTER) {
                continue;
            }
            tracing::info!(route = %front.route.name, "answering with Redis again");
            let event = Event::new(EventKind::FailsOpenNoMore, "health.fail_open");
            self.proxy.journal.note(event.on(&front.route.name));
        }
    }
}

/// Which kind of command was answered without Redis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MadeUp {
    Read,
    Write,
}
