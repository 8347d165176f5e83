//! Replies of many megabytes. Redis builds each whole before it sends the first byte, and on a
//! connection that many share everybody waits behind it. So a request whose reply was large
//! before goes over a lease, a few at a time: the client takes the reply at its own pace, what
//! it has not taken yet stays in Redis, and Weir holds no more than a window of it.

use std::time::Duration;

use tokio::sync::oneshot;

use super::client::{Answer, Flags, Until};
use super::dispatch::{Row, silent_or};
use super::failure::Failure;
use super::input::{Request, Step};
use super::leases::{LeaseWish, Patience};
use super::worker::State;
use crate::admission::{LargeLimits, request_name};
use crate::backend::{Io, Kind, LargePermit, LargeWish, Marks, Mode, Ticket};
use crate::command::{Class, CommandId};

/// So many large replies are under way at once, at most: more would not be faster.
const COUNT_MAX: usize = 8;

/// A client that takes nothing of its large reply for so long is closed if others wait for
/// theirs. Whoever reads at all reads more often.
const STUCK_MAX: Duration = Duration::from_secs(1);

/// A large reply holds up whoever comes behind it on a shared connection: from here on it
/// takes so long that another connection is cheap, in bytes.
const PASS_BY_FROM: u64 = 8 * 1024 * 1024;

/// Longer requests are not remembered by their large replies, in bytes.
const REQUEST_MAX: u32 = 64 * 1024;

impl State {
    /// How large the reply to a plain command will be, if it is to be seen to here.
    pub(super) fn expects_large(&self, ticket: Ticket, request: &Request<'_>) -> Option<u64> {
        let session = &self.sessions[ticket.slot as usize];
        let extra = session.extra.as_deref();
        if let Some(permit) = extra.and_then(|extra| extra.large.as_ref()) {
            return Some(permit.bytes());
        }
        let node = &self.fronts[session.route as usize].node;
        if !node.large.may_know(request.frame.len()) || session.lease().is_some() {
            return None;
        }
        let bytes = node.large.expect(request_name(request.frame))?;
        (self.large_limits(ticket).count > 0).then_some(bytes)
    }

    fn large_limits(&self, ticket: Ticket) -> LargeLimits {
        let session = &self.sessions[ticket.slot as usize];
        let backend = &self.fronts[session.route as usize].config.backend;
        // The others who need a lease keep half of them, and plain commands most of the
        // budget. Where that leaves nothing, large replies are shared like all others.
        let count = (backend.max_leases / 2).min(backend.max_connections / 4);
        LargeLimits {
            bytes: backend.large_replies_max,
            count: count.min(COUNT_MAX),
            queue: backend.lease_queue,
        }
    }

    /// A command whose reply will be large.
    pub(super) fn large(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
        bytes: u64,
        silent: bool,
    ) -> Step {
        if self.must_wait_for_replies(ticket) {
            return Step::Wait;
        }
        let extra = self.sessions[ticket.slot as usize].extra();
        match extra.answer.take() {
            Some(Answer::NoLease(reply)) => {
                extra.large = None;
                return self.answer(ticket, &reply, silent);
            }
            other => extra.answer = other,
        }
        if extra.large.is_none() && extra.lease.is_none() {
            let node = self.node_of(ticket);
            match node.large.ask(bytes, self.large_limits(ticket)) {
                LargeWish::Granted(permit) => {
                    self.sessions[ticket.slot as usize].extra().large = Some(permit);
                }
                LargeWish::Waits(granted) => {
                    self.wait_for_large(ticket, granted);
                    return Step::Wait;
                }
                LargeWish::QueueFull => {
                    node.large_held_back();
                    return self.refuse(ticket, &Failure::LargeReplies, silent);
                }
            }
        }
        match self.wish_lease(ticket, Kind::Lease, Until::Reply, Patience::InLine) {
            LeaseWish::Held(conn) => {
                let marks = silent_or(silent, row.marks());
                let step = self.send_on(ticket, conn, request.frame, row.id, marks);
                if step == Step::Taken {
                    let permit = self.sessions[ticket.slot as usize].extra().large.take();
                    self.conns[conn as usize].large = permit;
                    self.set_barrier(ticket);
                    self.recount(ticket);
                }
                step
            }
            LeaseWish::Waits => Step::Wait,
            LeaseWish::Refused(reply) => {
                self.sessions[ticket.slot as usize].extra().large = None;
                self.answer(ticket, &reply, silent)
            }
            LeaseWish::NotAtOnce => unreachable!("large replies wait in line"),
        }
    }

    fn wait_for_large(&mut self, ticket: Ticket, granted: oneshot::Receiver<LargePermit>) {
        let session = &mut self.sessions[ticket.slot as usize];
        session.flags.set(Flags::WAITING);
        let (keeps_place, gone) = oneshot::channel::<()>();
        session.extra().keeps_place = Some(keeps_place);
        let route = session.route;
        let front = &self.fronts[route as usize];
        front.node.large_held_back();
        let patience = front.config.timeouts.request;
        let worker = self.worker();
        tokio::task::spawn_local(async move {
            let granted = tokio::select! {
                biased;
                granted = tokio::time::timeout(patience, granted) => granted,
                // A client that has been closed leaves the line.
                _ = gone => return,
            };
            worker.enter(|state| {
                let Some(session) = state.session(ticket) else {
                    return;
                };
                session.flags.clear(Flags::WAITING);
                let extra = session.extra();
                extra.keeps_place = None;
                match granted {
                    Ok(Ok(permit)) => extra.large = Some(permit),
                    _ => {
                        let failure = Failure::LargeReplies;
                        extra.answer = Some(Answer::NoLease(failure.reply()));
                        state.count_failure(route, &failure);
                        state.count_refused_of(ticket, 1);
                    }
                }
                state.make_ready(ticket);
            });
        });
    }

    /// Bytes of a reply came: if it is large, that is remembered, and whoever asks from now
    /// on takes another connection.
    #[cold]
    pub(super) fn note_large_reply(&mut self, index: u32) {
        let Some(conn) = self.conns.get_mut(index as usize) else {
            return;
        };
        let bytes = conn.note_head();
        let Some(head) = conn.in_flight.front().copied() else {
            return;
        };
        if conn.large.is_some()
            && let Some(head) = conn.in_flight.front_mut()
        {
            // It comes as fast as its client takes it.
            head.marks = head.marks.with(Marks::SLOW);
        }
        let front = &self.fronts[conn.route as usize];
        let is_plain = front.table.by_id(CommandId(head.command)).class == Class::Plain;
        // The reply to EXEC, or to an upload, says nothing of its few bytes.
        let not_its_own = Marks::IN_BLOCK.with(Marks::EXEC).with(Marks::LOST);
        if is_plain
            && !head.marks.any(not_its_own)
            && (1..=REQUEST_MAX).contains(&head.len)
            && conn.ring.len() >= head.len as usize
        {
            let request = conn.ring.copy(0, head.len as usize);
            self.lanes[conn.lane as usize]
                .node
                .learn_large(&request, bytes);
        }
        if bytes >= PASS_BY_FROM {
            self.pass_by_large_reply(index);
        }
    }

    /// A shared connection is busy with a large reply for a while: new commands take
    /// another one, as long as there are enough. What is behind it waits.
    fn pass_by_large_reply(&mut self, index: u32) {
        let conn = &self.conns[index as usize];
        if conn.retiring
            || conn.kind != Kind::Shared
            || conn.mode != Mode::Shared
            || !matches!(conn.io, Io::Socket(_))
        {
            return;
        }
        let snapshot = self.lanes[conn.lane as usize].node.ledger.snapshot();
        let (limits, shared) = (&snapshot.limits, snapshot.of(Kind::Shared));
        let is_roomy = snapshot.total() * 2 < limits.max_connections
            && shared * 2 < limits.max_shared
            && snapshot.waiting.iter().all(|waiting| *waiting == 0);
        if is_roomy {
            tracing::debug!("a large reply is under way; passing it by");
            self.retire(index);
        }
    }

    /// Whether a client that has taken nothing for so long holds up others: it takes nothing
    /// of its large reply, and they wait for theirs.
    pub(super) fn holds_up_large(&self, ticket: Ticket, stuck: Duration) -> bool {
        if stuck < STUCK_MAX {
            return false;
        }
        let session = &self.sessions[ticket.slot as usize];
        let lease = session
            .lease()
            .and_then(|conn| self.conns.get(conn as usize));
        let node = &self.fronts[session.route as usize].node;
        lease.is_some_and(|conn| conn.large.is_some()) && node.large.has_waiters()
    }
}
