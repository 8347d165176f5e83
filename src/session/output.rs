//! From replies to the client's socket, and the end of a session.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

use super::client::{Flags, HALTED, NONE, Session, Until};
use super::failure;
use super::rates::Meters;
use super::registry::Census;
use super::worker::State;
use crate::admission::ClientPermit;
use crate::backend::{Conn, Kind, Marks, Mode, Ticket};
use crate::command::{Class, CommandId};
use crate::metrics::CloseReason;

/// What became of bytes for a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Written {
    /// The socket took them all.
    All,
    /// Some wait in the output buffer, which is now this long.
    Buffered(usize),
    /// The socket failed.
    Failed,
}

impl Session {
    /// Sends bytes to the client: straight to the socket if nothing waits
    /// before them.
    #[inline]
    pub fn send(&mut self, bytes: &[u8]) -> Written {
        if bytes.is_empty() {
            return Written::All;
        }
        let taken = if self.output.is_empty() {
            match self.socket.try_write(bytes) {
                Ok(n) if n == bytes.len() => return Written::All,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(_) => return Written::Failed,
            }
        } else {
            0
        };
        self.output.push(&bytes[taken..]);
        Written::Buffered(self.output.len())
    }
}

impl State {
    /// Sends bytes that Weir made itself, or a reply that it has looked at.
    pub(super) fn write(&mut self, ticket: Ticket, bytes: &[u8]) {
        let Some(session) = self.session(ticket) else {
            return;
        };
        let written = session.send(bytes);
        self.after_write(ticket, written, bytes.len());
    }

    /// Sees to the rest when not all could be written.
    pub(super) fn after_write(&mut self, ticket: Ticket, written: Written, len: usize) {
        let now = self.clock.now();
        let session = &mut self.sessions[ticket.slot as usize];
        let front = &self.fronts[session.route as usize];
        front.metrics.bytes_out.add(len as u64);
        match written {
            Written::All => {}
            Written::Failed => self.fail(ticket, CloseReason::ByClient),
            Written::Buffered(waiting) => {
                let limit = front.config.clients.output_max;
                if waiting as u64 > limit + session.replies.largest() {
                    return self.fail(ticket, CloseReason::OutputLimit);
                }
                if !session.flags.any(Flags::WRITING) {
                    session.flags.set(Flags::WRITING);
                    session.extra().stuck_since = now;
                    self.blocked_writers.push(ticket);
                }
                self.recount_memory(ticket);
            }
        }
    }

    /// The client's socket takes bytes again.
    pub(super) fn poll_write(&mut self, ticket: Ticket, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.clock.now();
        let Some(session) = self.session(ticket) else {
            return Poll::Ready(());
        };
        while !session.output.is_empty() {
            let (slices, used) = session.output.slices();
            match Pin::new(&mut session.socket).poll_write_vectored(cx, &slices[..used]) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(n)) if n > 0 => {
                    session.output.advance(n);
                    session.active_at = now;
                    session.extra().stuck_since = now;
                }
                Poll::Ready(_) => {
                    self.close(ticket.slot, CloseReason::ByClient);
                    return Poll::Ready(());
                }
            }
        }
        session.flags.clear(Flags::WRITING);
        session.extra().stuck_since = 0;
        self.make_ready(ticket);
        self.read_lease_again(ticket);
        Poll::Ready(())
    }

    /// Has the session looked at again in this turn.
    pub(super) fn make_ready(&mut self, ticket: Ticket) {
        let Some(session) = self.session(ticket) else {
            return;
        };
        if !session.flags.any(Flags::READY) {
            session.flags.set(Flags::READY);
            self.ready.push(ticket);
        }
    }

    /// Has the session closed in this turn, for a reason, from where it cannot
    /// be done at once.
    pub(super) fn fail(&mut self, ticket: Ticket, reason: CloseReason) {
        let Some(session) = self.session(ticket) else {
            return;
        };
        session.extra().close_reason.get_or_insert(reason);
        session.flags.set(Flags::CLOSING);
        session.output.clear();
        self.make_ready(ticket);
    }

    /// Goes on with a session after replies have arrived, output has drained or
    /// something it waited for has come about.
    pub(super) fn go_on(&mut self, ticket: Ticket) {
        let Some(session) = self.session(ticket) else {
            return;
        };
        session.flags.clear(Flags::READY);
        if session.in_flight == 0 {
            session.conn = NONE;
            if session.flags.any(Flags::BARRIER) {
                session.flags.clear(Flags::BARRIER);
                session.replies.end_round();
            }
            self.write_held_pushes(ticket);
            let Some(session) = self.session(ticket) else {
                return;
            };
            if session.flags.any(Flags::SPECIAL) {
                self.finish_lease_if_done(ticket);
            }
        }
        self.recount(ticket);
        let Some(session) = self.session(ticket) else {
            return;
        };
        if session.flags.any(Flags::CLOSING) {
            let extra = session.extra.as_deref();
            let takes_leave = extra.is_some_and(|extra| extra.takes_leave);
            if session.output.is_empty() && !takes_leave {
                let reason = extra.and_then(|extra| extra.close_reason);
                self.close(ticket.slot, reason.unwrap_or(CloseReason::ByClient));
            }
            return;
        }
        if session.flags.any(Flags::LEAVING) && self.drain_session(ticket) {
            return;
        }
        let session = &self.sessions[ticket.slot as usize];
        if !session.flags.any(HALTED) && !session.input.is_empty() {
            self.take_buffered(ticket);
        }
        let Some(session) = self.session(ticket) else {
            return;
        };
        if session.flags.any(Flags::READ_PAUSED) && !self.must_hold_back(ticket) {
            self.read_again(ticket);
        }
        if self
            .session(ticket)
            .is_some_and(|session| session.flags.any(Flags::EOF))
        {
            self.wind_down(ticket);
        }
        self.recount_memory(ticket);
    }

    fn must_hold_back(&mut self, ticket: Ticket) -> bool {
        let session = &self.sessions[ticket.slot as usize];
        let config = &self.fronts[session.route as usize].config;
        let unwritten = session
            .lease()
            .and_then(|conn| self.conns.get(conn as usize))
            .map_or(0, |conn| conn.ring.unwritten());
        (session.flags.any(HALTED) && session.input.len() > config.clients.pipeline_buffer as usize)
            || unwritten > self.window()
    }

    /// Reads the client's socket again.
    pub(super) fn read_again(&mut self, ticket: Ticket) {
        let Some(session) = self.session(ticket) else {
            return;
        };
        session.flags.clear(Flags::READ_PAUSED);
        if let Some(waker) = session.extra.as_mut().and_then(|extra| extra.waker.take()) {
            waker.wake();
        }
    }

    /// Closes once the output is written; nothing more is taken from the input.
    pub(super) fn close_after_output(&mut self, ticket: Ticket, reason: CloseReason) {
        let Some(session) = self.session(ticket) else {
            return;
        };
        session.flags.set(Flags::CLOSING);
        session.input = Vec::new();
        session.extra().close_reason.get_or_insert(reason);
        if session.output.is_empty() {
            self.make_ready(ticket);
        }
    }

    /// Ends a session at once, if it is still there: its place may be another's by now.
    pub(super) fn close_session(&mut self, ticket: Ticket, reason: CloseReason) {
        if self.session(ticket).is_some() {
            self.close(ticket.slot, reason);
        }
    }

    /// Ends a session at once. What it has in flight keeps its place in the
    /// reply queues and is thrown away when it arrives.
    pub(super) fn close(&mut self, slot: u32, reason: CloseReason) {
        // Its place is given back by that.
        drop(self.end(slot, reason));
    }

    /// The same; returns its place among the clients, if it had one.
    pub(super) fn end(&mut self, slot: u32, reason: CloseReason) -> Option<ClientPermit> {
        let mut session = self.sessions.try_remove(slot as usize)?;
        if session.permit.is_some() {
            self.fronts[session.route as usize]
                .metrics
                .client_closed(reason);
        } else {
            self.refused_now -= 1;
        }
        session.task.abort();
        if let Some(extra) = &session.extra {
            self.leave_meters(&extra.meters);
        }
        self.memory.client_gone(&session);
        let metrics = &self.fronts[session.route as usize].metrics;
        metrics.buffered_bytes.add(-(session.charged as i64));
        self.proxy.lower_load(self.index);
        if let Some(extra) = &session.extra {
            self.change_census(session.route, extra.census, Census::default());
        }
        if let Some(extra) = session.extra.as_deref_mut() {
            self.leave_feed(slot, session.route, extra);
        }
        if let Some(receiver) = session
            .extra
            .as_mut()
            .and_then(|extra| extra.receiver.take())
        {
            self.close_conn(receiver);
        }
        let asked = session.extra.as_mut().and_then(|it| it.asked_pause.take());
        if let Some(asked) = asked {
            self.take_pause_back(session.route, *asked);
        }
        let wait = session.extra.as_mut().and_then(|it| it.shared_wait.take());
        if let Some(wait) = wait {
            let ticket = session.ticket(slot);
            self.leave_lobby(ticket, session.route, &wait);
        }
        if let Some(lease) = session.extra.as_mut().and_then(|extra| extra.lease.take()) {
            let clean = session.in_flight == 0 && lease.until == Until::Reply;
            self.end_lease(lease.conn, clean);
        }
        if session.flags.any(Flags::PAUSED) {
            self.forget_paused(slot, session.route);
        }
        if session.flags.any(Flags::STASHED) {
            self.drop_stash(session.ticket(slot));
        }
        self.leave_lane(session.lane);
        self.leave_lane(session.reader);
        session.permit
    }
}

/// Where the replies of one connection go: the sessions of its worker.
pub(super) struct SessionSink<'a> {
    pub sessions: &'a mut slab::Slab<Session>,
    pub links: &'a mut slab::Slab<super::links::Link>,
    pub front: &'a super::worker::Front,
    pub now: u64,
    pub ready: &'a mut Vec<Ticket>,
    pub blocked_writers: &'a mut Vec<Ticket>,
    pub dirty_links: &'a mut Vec<u32>,
    pub memory: &'a mut super::memory::Memory,
    /// Replies that need more than the session to be dealt with.
    pub inspect: &'a mut Vec<(crate::backend::Entry, Vec<u8>)>,
    /// Pushes for other clients than the one whose connection they came over.
    pub redirected: &'a mut Vec<(Ticket, Vec<u8>)>,
    /// Replies of one client in which clients are counted, how many they are, and whose.
    pub corrected: (Option<Ticket>, u32, Vec<u8>),
    /// What clients have left of the rates that are about them.
    pub meters: &'a mut Meters,
    /// Replies that say what the node is, and what follows them.
    pub heeded: &'a mut Vec<(crate::backend::Entry, Vec<u8>, Vec<u8>)>,
}

impl SessionSink<'_> {
    fn is_redirected(&self, owner: Ticket, frame: &[u8]) -> bool {
        frame.first() == Some(&b'>')
            && self
                .sessions
                .get(owner.slot as usize)
                .filter(|session| session.id as u32 == owner.generation)
                .and_then(|session| session.extra.as_deref())
                .is_some_and(|extra| extra.receiver.is_some())
            && crate::backend::first_bulk(frame) == Some(b"invalidate")
    }

    /// A confirmation: noted, and passed on in its place among the messages.
    fn confirm(&mut self, to: Ticket, frame: &[u8]) {
        if let Some(session) = self.sessions.get_mut(to.slot as usize)
            && session.id as u32 == to.generation
        {
            session.extra().subscriptions.note(frame);
        }
        self.settle(to, 1, frame);
    }

    /// A reply in which clients are counted, unless more has to be known for it than is
    /// known here: whether it is seen to.
    fn correct(&mut self, entry: &crate::backend::Entry, reply: &[u8]) -> bool {
        let to = entry.to;
        let Some(session) = self.sessions.get_mut(to.slot as usize) else {
            return false;
        };
        let version = session.partition.version;
        let Some(extra) = session.extra.as_deref_mut() else {
            return false;
        };
        let command = self.front.table.by_id(CommandId(entry.command));
        if session.id as u32 != to.generation
            || command.class != Class::Publish
            || extra.subscriptions.on_feed()
        {
            return false;
        }
        let Some(correction) = extra.subscriber.corrections.pop_front() else {
            return false;
        };
        self.front.metrics.replies.inc();
        if self.corrected.0 != Some(to) {
            self.end_corrected();
            self.corrected.0 = Some(to);
        }
        self.corrected.1 += 1;
        if !entry.marks.any(Marks::SILENT) {
            let audience = &self.front.route.audience;
            let corrected = correction.of(reply, audience, version);
            let text = corrected.as_deref().unwrap_or(reply);
            self.corrected.2.extend_from_slice(text);
        }
        true
    }

    /// Writes the corrected replies of a client, all at once.
    pub(super) fn end_corrected(&mut self) {
        let (to, count, bytes) = std::mem::take(&mut self.corrected);
        if let Some(to) = to {
            self.settle_now::<true>(to, count, &bytes);
        }
    }

    #[inline]
    fn settle(&mut self, to: Ticket, count: u32, bytes: &[u8]) {
        if self.corrected.0.is_some() {
            self.end_corrected();
        }
        self.settle_now::<true>(to, count, bytes);
    }

    /// `IS_REPLY`: the bytes are a reply of the node's, which its client pays for.
    #[inline]
    fn settle_now<const IS_REPLY: bool>(&mut self, to: Ticket, count: u32, bytes: &[u8]) {
        let Some(session) = self.sessions.get_mut(to.slot as usize) else {
            return;
        };
        if session.id as u32 != to.generation {
            return;
        }
        session.in_flight -= count;
        session.active_at = self.now;
        if session.flags.any(Flags::CLOSING) {
            // Something before these bytes was lost, or the client was told goodbye.
            return;
        }
        if IS_REPLY && session.flags.any(Flags::METERED) {
            self.meters.spend(session, 0, bytes.len());
        }
        if IS_REPLY {
            session.replies.note(bytes.len(), count);
        }
        let written = session.send(bytes);
        let attention = Flags::BARRIER
            .with(Flags::EOF)
            .with(Flags::CLOSING)
            .with(Flags::SPECIAL);
        let mut ready = session.in_flight == 0 && session.flags.any(attention);
        match written {
            Written::All => {}
            Written::Failed => {
                session
                    .extra()
                    .close_reason
                    .get_or_insert(CloseReason::ByClient);
                session.flags.set(Flags::CLOSING);
                session.output.clear();
                ready = true;
            }
            Written::Buffered(waiting) => {
                // One reply may be as large as it is: only the rest counts.
                let limit = self.front.config.clients.output_max;
                if waiting as u64 > limit + session.replies.largest() {
                    session
                        .extra()
                        .close_reason
                        .get_or_insert(CloseReason::OutputLimit);
                    session.flags.set(Flags::CLOSING);
                    session.output.clear();
                    ready = true;
                } else if !session.flags.any(Flags::WRITING) {
                    session.flags.set(Flags::WRITING);
                    session.extra().stuck_since = self.now;
                    self.blocked_writers.push(to);
                }
                let change = self.memory.recount_client(session);
                self.front.metrics.buffered_bytes.add(change);
            }
        }
        if ready && !session.flags.any(Flags::READY) {
            session.flags.set(Flags::READY);
            self.ready.push(to);
        }
        self.front.metrics.bytes_out.add(bytes.len() as u64);
    }
}

impl crate::backend::Sink for SessionSink<'_> {
    #[inline]
    fn replies(&mut self, to: Ticket, bytes: &[u8], count: u32) {
        self.front.metrics.replies.add(u64::from(count));
        self.settle(to, count, bytes);
    }

    fn took(&mut self, micros: u64, count: u32) {
        self.front
            .metrics
            .backend_time
            .record_n(micros, u64::from(count));
    }

    fn link(&mut self, to: Ticket, bytes: &[u8]) {
        let Some(link) = self.links.get_mut(to.slot as usize) else {
            return;
        };
        if link.generation != to.generation {
            return;
        }
        if link.replies.is_empty() {
            self.dirty_links.push(to.slot);
        }
        link.replies.extend_from_slice(bytes);
    }

    fn part(&mut self, to: Ticket, bytes: &[u8]) {
        self.settle(to, 0, bytes);
    }

    fn whole(&mut self, entry: &crate::backend::Entry, bytes: &[u8]) {
        if entry.marks.any(Marks::SILENT) && !entry.marks.any(Marks::WHOLE) {
            return self.settle(entry.to, 1, &[]);
        }
        if entry.marks.any(Marks::SUBSCRIBE) {
            return self.confirm(entry.to, bytes);
        }
        if self.correct(entry, bytes) {
            return;
        }
        self.inspect.push((*entry, bytes.to_vec()));
    }

    fn heed(&mut self, entry: &crate::backend::Entry, request: Vec<u8>, reply: &[u8]) {
        self.heeded.push((*entry, request, reply.to_vec()));
    }

    fn pushed(&mut self, owner: Ticket, bytes: &[u8]) {
        if self.is_redirected(owner, bytes) {
            return self.redirected.push((owner, bytes.to_vec()));
        }
        self.settle(owner, 0, bytes);
    }

    fn lost(&mut self, entry: &crate::backend::Entry) {
        self.end_corrected();
        if entry.marks.any(Marks::WHOLE)
            && let Some(session) = self.sessions.get_mut(entry.to.slot as usize)
            && session.id as u32 == entry.to.generation
        {
            // Of those that are looked at only one that counts clients is sent behind others.
            session.forget_correction();
        }
        if entry.marks.any(Marks::SILENT) {
            self.settle_now::<false>(entry.to, 1, &[]);
        } else if entry.marks.any(Marks::REFUSED) {
            let refusal = self.meters.refusal(entry);
            self.settle_now::<false>(entry.to, 1, &refusal);
        } else {
            self.settle_now::<false>(entry.to, 1, failure::OUTCOME_UNKNOWN);
        }
    }
}

impl State {
    /// Bytes came from a node.
    pub(super) fn on_replies(&mut self, index: u32, bytes: &[u8]) {
        if let Mode::Feed(_) = self.conns[index as usize].mode {
            return self.on_feed(index, bytes);
        }
        let mut inspect = Vec::new();
        let mut redirected = Vec::new();
        let mut heeded = Vec::new();
        self.look_at_gate(index);
        let slow_before = self.slow_before();
        let conn: &mut Conn = &mut self.conns[index as usize];
        conn.slow.before = slow_before;
        conn.sampler = self.sampler;
        let generation = conn.generation;
        let front = &self.fronts[self.lanes[conn.lane as usize].route as usize];
        front.metrics.backend_bytes_in.add(bytes.len() as u64);
        let mut sink = SessionSink {
            sessions: &mut self.sessions,
            links: &mut self.links,
            front,
            now: self.clock.now(),
            ready: &mut self.ready,
            blocked_writers: &mut self.blocked_writers,
            dirty_links: &mut self.dirty_links,
            memory: &mut self.memory,
            inspect: &mut inspect,
            redirected: &mut redirected,
            corrected: Default::default(),
            meters: &mut self.meters,
            heeded: &mut heeded,
        };
        let outcome = conn.receive(bytes, sink.now, &mut sink);
        sink.end_corrected();
        let (now, gate_index) = (sink.now, conn.admission);
        let answered = std::mem::take(&mut conn.answered);
        let slow = (conn.slow.count > 0).then(|| std::mem::take(&mut conn.slow));
        self.sampler = conn.sampler;
        let sampled = std::mem::take(&mut conn.sampled);
        let mut has_line = false;
        if let (Kind::Shared, Some(front)) = (conn.kind, self.gates.get_mut(gate_index as usize)) {
            let gate = &mut front.gate;
            gate.answered(answered.count, answered.heavy, answered.newest, now);
            has_line = gate.has_line();
        }
        if let Some(slow) = slow {
            self.note_slow(index, slow);
        }
        if !sampled.is_empty() {
            self.note_sampled(index, &sampled);
        }
        let heeded_from = (!heeded.is_empty()).then(|| {
            let conn = &self.conns[index as usize];
            (conn.route, self.lanes[conn.lane as usize].node.id)
        });
        self.recount_conn_memory(index);
        for (entry, reply) in inspect {
            self.inspect(&entry, &reply);
        }
        let ticket = Ticket {
            slot: index,
            generation,
        };
        if let Some((route, node)) = heeded_from {
            self.heed_all(ticket, route, node, heeded);
        }
        for (source, frame) in redirected {
            self.redirect(source, &frame);
        }
        if !self.stashes.is_empty() {
            self.look_at_stashes();
        }
        match outcome {
            // What was heeded may have ended it.
            _ if self.conn(ticket).is_none() => self.pump(gate_index),
            Err(broken) => self.conn_lost(index, &broken),
            Ok(()) => {
                if (self.conns.get(index as usize)).is_some_and(Conn::has_large_head) {
                    self.note_large_reply(index);
                }
                if has_line {
                    self.pump(gate_index);
                }
                self.retire_if_quiet(index);
            }
        }
    }

    fn read_lease_again(&mut self, ticket: Ticket) {
        let lease = self.session(ticket).and_then(|session| session.lease());
        if let Some(conn) = lease.and_then(|conn| self.conns.get_mut(conn as usize))
            && let Some(waker) = conn.reader.take()
        {
            waker.wake();
        }
    }

    /// Whether the client of an exclusive connection holds more unread output than
    /// it should. The connection is not read then, and TCP holds back the node.
    pub(super) fn owner_is_full(&self, conn: &Conn) -> bool {
        let (Mode::Exclusive(owner) | Mode::Raw(owner)) = conn.mode else {
            return self.feed_is_backlogged(conn);
        };
        self.sessions
            .get(owner.slot as usize)
            .is_some_and(|session| session.output.len() > self.window())
    }
}
