//! Commands of the sample that is traced: what is told of each, and of those that Weir
//! answers itself because they cannot be run.
//!
//! Of replies of nodes the sample is drawn where they come, with that for hot keys; of
//! Weir's own answers here. What is an everyday answer of Weir's own (`CLIENT SETNAME`, `HELLO`) is
//! not traced.

use std::time::{SystemTime, UNIX_EPOCH};

use super::console::shown;
use super::failure::{Busy, Failure};
use super::worker::State;
use crate::backend::{Due, Entry, Marks, OneIn, SampledReply, Sampler, Ticket};
use crate::command::CommandId;
use crate::config::UNIX_PREFIX;
use crate::metrics::{ErrorCause, Outcome, SpanClient, TracedSpan};
use crate::net::Peer;

/// What a worker keeps for tracing.
#[derive(Debug, Default)]
pub(super) struct Traced {
    /// Which command is being looked at, unless it is on the straight path.
    pub(super) command: u16,
    sampler: Sampler,
}

impl Traced {
    /// One in so many from now on.
    pub(super) fn restart(&mut self, one_in: OneIn, seed: u32) {
        self.sampler = Sampler::new(OneIn { keys: 0, ..one_in }, seed);
    }

    fn is_due(&mut self) -> bool {
        matches!(self.sampler.draw(), Due { traces: true, .. })
    }
}

impl State {
    /// One command in so many is to be traced; 0 for none.
    pub(super) fn traces_one_in(&self) -> u32 {
        let traces = &self.settings.traces;
        match traces.endpoint {
            Some(_) => traces.sample,
            None => 0,
        }
    }

    /// The reply of a node to a traced command.
    pub(super) fn trace_reply(&mut self, conn: u32, reply: &SampledReply) {
        let lane = &self.lanes[self.conns[conn as usize].lane as usize];
        let now = self.clock.now();
        let entry = &reply.entry;
        let mut span = self.span(entry.to, lane.route, entry.command, entry.at);
        if span.client.is_none() {
            span.db = lane.key.db;
        }
        span.node = Some(lane.node.address.to_string());
        span.outcome = reply.error.map_or(Outcome::Ok, Outcome::Error);
        span.waited = reply.written_at.map(|at| at.saturating_sub(entry.at));
        span.at_node = reply.written_at.map(|at| now.saturating_sub(at));
        // Of what was passed on as it came no length is kept.
        span.request_bytes = (entry.len > 0).then_some(u64::from(entry.len));
        span.reply_bytes = Some(reply.reply_bytes);
        self.proxy.traces.push(span);
    }

    /// The command that is being looked at is answered with the reason why it is not run.
    #[cold]
    pub(super) fn trace_failure(&mut self, ticket: Ticket, failure: &Failure) {
        let (command, now) = (self.traced.command, self.clock.now());
        self.trace_failed(ticket, failure, command, now);
    }

    /// The same with an error that is worded elsewhere.
    #[cold]
    pub(super) fn trace_error(&mut self, ticket: Ticket, cause: ErrorCause) {
        let (command, now) = (self.traced.command, self.clock.now());
        self.trace_own(ticket, Outcome::Failed(cause.label()), command, now);
    }

    /// A command that arrived at this time is not run, for this reason.
    #[cold]
    pub(super) fn trace_failed(
        &mut self,
        ticket: Ticket,
        failure: &Failure,
        command: u16,
        at: u64,
    ) {
        let outcome = match failure.shed() {
            Some(limit) => Outcome::Shed(limit.label()),
            None => Outcome::Failed(failure.cause().label()),
        };
        self.trace_own(ticket, outcome, command, at);
    }

    /// A command that arrived at this time is refused since there is too much to do.
    #[cold]
    pub(super) fn trace_busy(&mut self, ticket: Ticket, busy: Busy, command: u16, at: u64) {
        let failure = self.failure_of(busy);
        self.trace_failed(ticket, &failure, command, at);
    }

    /// A command gets no reply any more, for this reason.
    #[cold]
    pub(super) fn trace_lost(&mut self, entry: &Entry, cause: ErrorCause) {
        if !entry.marks.any(Marks::LINK.with(Marks::LOBBY)) {
            let outcome = Outcome::Failed(cause.label());
            self.trace_own(entry.to, outcome, entry.command, entry.at);
        }
    }

    /// A command is answered as a cache that misses would.
    #[cold]
    pub(super) fn trace_made_up(&mut self, ticket: Ticket, command: u16, at: u64) {
        self.trace_own(ticket, Outcome::FailedOpen, command, at);
    }

    fn trace_own(&mut self, ticket: Ticket, outcome: Outcome, command: u16, at: u64) {
        if !self.traced.is_due() {
            return;
        }
        let Some(route) = self.session(ticket).map(|session| session.route) else {
            return;
        };
        let span = self.span(ticket, route, command, at);
        self.proxy.traces.push(TracedSpan { outcome, ..span });
    }

    /// What is known of any command whose answer comes now.
    fn span(&self, ticket: Ticket, route: u16, command: u16, at: u64) -> TracedSpan {
        let front = &self.fronts[route as usize];
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let duration = self.clock.now().saturating_sub(at);
        let session = self.sessions.get(ticket.slot as usize);
        let session = session.filter(|session| session.id as u32 == ticket.generation);
        let client = session.map(|session| {
            let who = session.who();
            let (address, port) = match &session.peer {
                Peer::Ip(address) => (address.ip().to_canonical().to_string(), address.port()),
                Peer::Unix(path) => (format!("{UNIX_PREFIX}{}", path.display()), 0),
            };
            SpanClient {
                address,
                port,
                id: session.id,
                user: who.user.map(shown),
                name: shown(who.name),
            }
        });
        TracedSpan {
            start: (since.unwrap_or_default().as_micros() as u64).saturating_sub(duration),
            duration,
            command: front
                .table
                .by_id(CommandId(command))
                .name
                .clone()
                .into_owned(),
            route: front.route.name.clone(),
            db: session.map_or(0, |session| session.partition.db),
            client,
            one_in: self.traces_one_in(),
            ..TracedSpan::default()
        }
    }
}
