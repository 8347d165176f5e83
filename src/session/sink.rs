//! Where the replies of one connection go: to the sessions of its worker, or over a link.

use std::borrow::Cow;

use super::client::{Flags, Session};
use super::failure;
use super::output::Written;
use super::rates::Meters;
use super::worker::State;
use crate::backend::{Conn, Kind, Marks, Mode, Ticket};
use crate::command::{Class, CommandId};
use crate::metrics::CloseReason;

/// What one connection's replies touch of its worker.
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
            let session = self.sessions.get_mut(entry.to.slot as usize);
            let session = session.filter(|it| it.id as u32 == entry.to.generation);
            let miss = session.and_then(|session| session.take_miss(entry));
            let reply = miss.map_or_else(|| self.meters.refusal(entry), Cow::from);
            self.settle_now::<false>(entry.to, 1, &reply);
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
}
