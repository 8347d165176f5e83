//! How much memory requests on their way in and replies that clients have not
//! read take, and what happens when it is too much.
//!
//! Each worker keeps its own account, touched only where bytes are kept and not
//! where they pass: what a client sends whole and takes at once is never
//! counted. The accounts are added up once a tick.

use std::time::Duration;

use super::client::{Session, Transaction};
use super::worker::State;
use crate::backend::{Held, Ticket};
use crate::metrics::CloseReason;

/// Unread bytes that a client may have, when memory is tight, before no more of its
/// commands are taken.
const OUTPUT_WHEN_TIGHT: usize = 64 * 1024;

/// A client that holds less is not closed to make room: it would make none.
const HEAVY: usize = 64 * 1024;

/// The accounts are added up at once when one has changed by so much, in bytes.
const SHARE_AFTER: usize = 1024 * 1024;

/// The log says at most so often that clients were closed for want of memory.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// One worker's account.
#[derive(Debug)]
pub struct Memory {
    /// What all workers together may hold, in bytes.
    max: usize,
    /// From here on it is tight, in bytes.
    tight_at: usize,
    /// What the replies of one client may take, in bytes.
    pub client_max: u64,
    /// What this worker's requests may take that are sent or about to be sent.
    requests_max: usize,
    workers: usize,
    /// In the buffers of this worker's clients.
    clients: usize,
    /// In its connections to nodes.
    conns: Held,
    /// What the other workers hold, as of the last time that accounts were shared.
    others: usize,
    /// What this one held then.
    shared: usize,
    logged_at: u64,
    /// The tick in which there was nobody left to close.
    gave_up_at: usize,
    /// What this worker held then. What has come since may be worth another look.
    gave_up_with: usize,
}

impl Memory {
    /// An account of one of `workers`, which may hold `max` bytes together.
    pub fn new(max: usize, workers: usize) -> Memory {
        let mut memory = Memory {
            max: 0,
            tight_at: 0,
            client_max: 0,
            requests_max: 0,
            workers,
            clients: 0,
            conns: Held::default(),
            others: 0,
            shared: 0,
            logged_at: 0,
            gave_up_at: 0,
            gave_up_with: 0,
        };
        memory.set_max(max);
        memory
    }

    /// All workers together may hold `max` bytes from now on.
    pub fn set_max(&mut self, max: usize) {
        self.max = max;
        self.tight_at = max / 4 * 3;
        self.client_max = max as u64 / 8;
        // The buffers they are in may be twice as large, and half is for clients. A few
        // large pipelines have to fit, whatever the number of workers.
        self.requests_max = (max / 4 / self.workers).max(4 * 1024 * 1024);
    }

    /// What this worker holds.
    pub fn held(&self) -> usize {
        self.clients + self.conns.memory
    }

    /// Whether no more requests fit that would wait for their replies.
    #[inline]
    pub fn is_full_of_requests(&self) -> bool {
        self.conns.requests > self.requests_max
    }

    /// Whether clients are to be slowed: three quarters are used.
    #[inline]
    pub fn is_tight(&self) -> bool {
        self.total() > self.tight_at
    }

    /// How many bytes too many there are, if this worker is one of those that hold
    /// the most. Those may have no processor just now: the others do not wait for them for
    /// long. A little more than needed, so that not every further byte costs a client.
    #[inline]
    fn excess(&self) -> Option<usize> {
        let total = self.total();
        let step = self.max / 16;
        let is_mine = self.held() >= total / self.workers || total > self.max + step;
        (total > self.max && is_mine).then(|| total - 15 * step)
    }

    #[inline]
    fn total(&self) -> usize {
        self.held() + self.others
    }

    /// A connection holds `now`; it held `*before`.
    #[inline]
    pub fn recount_conn(&mut self, before: &mut Held, now: Held) {
        self.conns.requests = self.conns.requests + now.requests - before.requests;
        self.conns.memory = self.conns.memory + now.memory - before.memory;
        *before = now;
    }

    /// A request of `bytes` was put on a connection; what that takes of memory is
    /// counted when the connection is flushed.
    #[inline]
    pub fn add_request(&mut self, charged: &mut Held, bytes: usize) {
        charged.requests += bytes;
        self.conns.requests += bytes;
    }

    /// A client holds what it holds now; returns by how much that is more, or less.
    pub fn recount_client(&mut self, session: &mut Session) -> i64 {
        let held = session.held();
        let change = held as i64 - session.charged as i64;
        self.clients = self.clients + held - session.charged;
        session.charged = held;
        change
    }

    /// A client is no more.
    pub fn client_gone(&mut self, session: &Session) {
        self.clients -= session.charged;
    }
}

impl Session {
    /// Bytes of memory that the client's buffers take.
    pub fn held(&self) -> usize {
        let buffers = self.input.capacity() + self.output.memory();
        let Some(extra) = &self.extra else {
            return buffers;
        };
        let block = match &extra.transaction {
            Transaction::Queued { block, .. } => block.capacity(),
            _ => 0,
        };
        let others = extra.collected.memory() + extra.held_pushes.capacity();
        buffers + block + others + extra.misses.bytes() + extra.subscriptions.bytes()
    }
}

impl State {
    /// Brings the account of a client up to date.
    #[inline]
    pub(super) fn recount_memory(&mut self, ticket: Ticket) {
        let Some(session) = self.sessions.get_mut(ticket.slot as usize) else {
            return;
        };
        let change = self.memory.recount_client(session);
        if change != 0 {
            let metrics = &self.fronts[session.route as usize].metrics;
            metrics.buffered_bytes.add(change);
        }
    }

    /// Brings the account of a connection up to date.
    #[inline]
    pub(super) fn recount_conn_memory(&mut self, index: u32) {
        if let Some(conn) = self.conns.get_mut(index as usize) {
            let held = conn.held();
            self.memory.recount_conn(&mut conn.charged, held);
        }
    }

    /// Tells the other workers how much this one holds, and hears it of them.
    pub(super) fn share_memory_accounts(&mut self) {
        self.memory.shared = self.memory.held();
        self.memory.others = self.proxy.share_held(self.index, self.memory.shared);
    }

    /// Whether the client has so many unread replies that no more of its commands are
    /// taken. It may read, and goes on when it has.
    pub(super) fn reads_too_slowly(&self, ticket: Ticket) -> bool {
        let session = &self.sessions[ticket.slot as usize];
        let unread = session.output.len();
        let clients = &self.fronts[session.route as usize].config.clients;
        unread as u64 > self.memory.client_max.min(clients.output_max / 4)
            || unread > OUTPUT_WHEN_TIGHT && self.memory.is_tight()
    }

    /// Closes the clients that hold the most when all together hold too much: one of
    /// them is why, and the kernel would end Weir for everybody. At the end of a step,
    /// when nobody is in the middle of something with a session.
    #[inline]
    pub(super) fn make_room(&mut self) {
        if self.memory.held().abs_diff(self.memory.shared) > SHARE_AFTER {
            // Between two ticks a flood can bring more than there may be.
            self.share_memory_accounts();
        }
        let memory = &self.memory;
        let gave_up =
            memory.gave_up_at == self.tick && memory.held() <= memory.gave_up_with + SHARE_AFTER;
        if memory.excess().is_some() && !gave_up {
            self.close_heaviest();
        }
    }

    #[cold]
    fn close_heaviest(&mut self) {
        // The other workers may have made room since the last tick.
        self.share_memory_accounts();
        let mut heavy: Vec<(usize, Ticket)> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.charged >= HEAVY)
            .map(|(slot, session)| (session.charged, session.ticket(slot as u32)))
            .collect();
        heavy.sort_unstable_by_key(|(held, _)| std::cmp::Reverse(*held));
        let Some(excess) = self.memory.excess() else {
            return;
        };
        let before = self.memory.clients;
        for &(_, ticket) in &heavy {
            // What is kept for the next burst goes first.
            self.sessions[ticket.slot as usize].shrink();
            self.recount_memory(ticket);
        }
        for &(_, ticket) in &heavy {
            if before.saturating_sub(self.memory.clients) >= excess {
                break;
            }
            self.log_heaviest(ticket);
            self.close(ticket.slot, CloseReason::MemoryLimit);
        }
        self.share_memory_accounts();
        if self.memory.excess().is_some() {
            // Many hold a little: looking through them all again would free nothing.
            self.memory.gave_up_at = self.tick;
            self.memory.gave_up_with = self.memory.held();
        }
    }

    fn log_heaviest(&mut self, ticket: Ticket) {
        self.begin_memory_full();
        let now = self.clock.now();
        let since = Duration::from_micros(now.saturating_sub(self.memory.logged_at));
        if self.memory.logged_at != 0 && since < LOG_EVERY {
            return;
        }
        self.memory.logged_at = now;
        let session = &self.sessions[ticket.slot as usize];
        let listener = &self.fronts[session.route as usize].route.doors[session.listener as usize];
        tracing::warn!(
            peer = %session.peer, listener = %listener.label, held = session.charged, input = session.input.len(), output = session.output.len(),
            limit = self.memory.max,
            "memory for clients is used up (process.buffer_memory_max): closing those that hold most"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    fn memory(clients: usize, others: usize) -> Memory {
        Memory {
            clients: clients * MIB,
            others: others * MIB,
            ..Memory::new(64 * MIB, 2)
        }
    }

    #[test]
    fn three_quarters_are_tight_and_more_than_all_is_too_much() {
        assert!(!memory(30, 18).is_tight());
        assert!(memory(30, 19).is_tight());
        assert_eq!(memory(34, 30).excess(), None);
        assert_eq!(memory(34, 31).excess(), Some(5 * MIB));
    }

    #[test]
    fn the_worker_that_holds_the_most_makes_room() {
        assert_eq!(memory(10, 57).excess(), None);
        assert!(memory(57, 10).excess().is_some());
        assert!(memory(40, 40).excess().is_some());
    }

    #[test]
    fn the_others_do_not_wait_for_it_for_long() {
        assert_eq!(memory(10, 58).excess(), None);
        assert!(memory(10, 59).excess().is_some());
    }

    #[test]
    fn requests_take_a_quarter_and_at_least_a_little() {
        let mut memory = Memory::new(128 * MIB, 2);
        let mut charged = Held::default();
        let of = |requests: usize| Held {
            requests,
            memory: 2 * requests,
        };
        memory.recount_conn(&mut charged, of(16 * MIB));
        assert!(!memory.is_full_of_requests());
        memory.recount_conn(&mut charged, of(16 * MIB + 1));
        assert!(memory.is_full_of_requests());
        assert_eq!(memory.held(), 32 * MIB + 2);
        memory.recount_conn(&mut charged, Held::default());
        assert_eq!(memory.held(), 0);
        assert_eq!(Memory::new(16 * MIB, 64).requests_max, 4 * MIB);
    }
}
