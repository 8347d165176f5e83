//! What happens by the clock: deadlines, stalls, idle clients, old connections.

use std::time::Duration;

use super::access::AccessRule;
use super::client::{Flags, Lease, NONE, Transaction, Until};
use super::failure::{self, Busy, Failure};
use super::worker::State;
use crate::admission::Tally;
use crate::admission::{ClientPermit, idle_timeout};
use crate::backend::{Conn, Entry, Io, Marks, Mode, Ticket};
use crate::metrics::{CloseReason, ErrorCause};
use crate::net::{self, Hangup};

/// Sessions are looked at in turns; each is seen once in this many ticks.
const SESSION_TURNS: usize = 8;

/// A tick that is later than this, in microseconds, says something of the worker: ticks
/// are 25 ms apart.
const LATE_TICK: u64 = 150_000;

impl State {
    /// Looks at everything that a clock decides.
    pub(super) fn on_tick(&mut self) {
        self.end_pauses();
        self.end_holds();
        self.refresh_tables();
        self.refresh_settings();
        self.tick += 1;
        let now = self.clock.now();
        self.late_tick = now.saturating_sub(self.ticked_at) > LATE_TICK;
        self.ticked_at = now;
        self.meters.tidy(now);
        for index in self.conn_indices() {
            self.tick_conn(index);
        }
        self.tick_gates();
        self.look_how_full_it_is();
        self.lobbies_follow_the_primary();
        self.tick_sessions();
        self.tick_feeds();
        if self.tick.is_multiple_of(SESSION_TURNS) {
            // Every session has been looked at since the last time.
            self.make_offers();
            self.places_follow_the_budget();
        }
        self.measure_queues();
        self.look_whether_well();
        self.look_what_is_cleared();
        self.share_memory_accounts();
        self.hand_back_replies();
    }

    /// How long clients may idle, and whether some may have to go, by how full it is.
    fn look_how_full_it_is(&mut self) {
        for (route, front) in self.fronts.iter_mut().enumerate() {
            let limits = &self.proxy.limits;
            let clients = &front.config.clients;
            let (taken, max) = limits.used(route as u16);
            let (whole, least) = (clients.idle_timeout, clients.idle_timeout_min);
            front.idle_timeout = idle_timeout(whole, least, taken, max);
            front.wants_offers =
                !clients.gives_way_after.is_zero() && limits.wants_offers(route as u16);
        }
    }

    /// As many places for blocked clients as the node's budget has connections for them
    /// now. Were there more, those with connections of their own could leave none to those
    /// who share. The routes are every worker's, so one of them does it.
    fn places_follow_the_budget(&self) {
        if self.index != 0 {
            return;
        }
        for front in &self.fronts {
            let limits = front.node.ledger.limits();
            let shared = front.config.backend.max_blocking_shared;
            let places = &front.route.places;
            places.set_limits(limits.blocking_max(), shared, limits.queue_max);
        }
    }

    /// Brings the gauges of what is under way and what waits up to date.
    fn measure_queues(&mut self) {
        for (route, front) in self.fronts.iter().enumerate() {
            let (mut in_flight, mut waiting) = (0, 0);
            for (_, conn) in self
                .conns
                .iter()
                .filter(|(_, conn)| conn.route as usize == route)
            {
                match conn.io {
                    Io::Opening => waiting += conn.in_flight.len() as i64,
                    // Counted by the worker that has the socket.
                    Io::Link(_) => {}
                    Io::Socket(_) => in_flight += conn.in_flight.len() as i64,
                }
            }
            waiting += self.measure_gates(route);
            front.metrics.commands_in_flight.set(in_flight);
            front.metrics.commands_waiting.set(waiting);
        }
    }

    /// Takes over command tables that are newer than this worker's.
    pub(super) fn refresh_tables(&mut self) {
        for route in 0..self.fronts.len() {
            self.look_at_memory(route);
            let front = &mut self.fronts[route];
            front.node.tidy_large();
            // Of a node that has told nothing yet there is nothing to take over.
            if front.node.has_told() && !front.node.has_table(&front.table) {
                front.table = front.node.table();
                front.access = AccessRule::all(&front.config, &front.table);
            }
        }
    }

    /// Takes over settings that were changed while Weir runs.
    fn refresh_settings(&mut self) {
        if self.proxy.has_settings(&self.settings) {
            return;
        }
        self.settings = self.proxy.settings();
        let buffer_max = self.settings.process.buffer_memory_max as usize;
        self.memory.set_max(buffer_max);
        self.take_sampling();
        for route in 0..self.fronts.len() {
            self.take_settings(route);
        }
    }

    fn take_settings(&mut self, route: usize) {
        let front = &mut self.fronts[route];
        let old = std::mem::replace(&mut front.config, front.route.settings());
        if front.config.overload != old.overload {
            self.renew_gates();
        }
        let front = &mut self.fronts[route];
        let (reads, guards) = (
            front.config.failover != old.failover,
            front.config.access != old.access,
        );
        if guards {
            front.access = AccessRule::all(&front.config, &front.table);
        }
        if !reads && !guards {
            return;
        }
        let sessions = self.sessions.iter();
        let tickets: Vec<Ticket> = sessions
            .filter(|(_, session)| session.route as usize == route)
            .map(|(slot, session)| session.ticket(slot as u32))
            .collect();
        for ticket in tickets {
            if reads {
                self.refresh_reads(ticket);
            }
            if guards {
                self.guard(ticket);
            }
        }
    }

    fn conn_indices(&self) -> Vec<u32> {
        self.conns.iter().map(|(index, _)| index as u32).collect()
    }

    fn tick_conn(&mut self, index: u32) {
        if !self.conns.contains(index as usize) {
            // It went with a client whose deadline passed on another one.
            return;
        }
        let now = self.clock.now();
        self.report_to_node(index);
        self.expire_requests(index);
        if self.conns.contains(index as usize) && self.look_for_deposed(index) {
            return;
        }
        let Some(conn) = self.conns.get(index as usize) else {
            return;
        };
        if conn.is_quiet() || self.memory.is_tight() {
            self.conns[index as usize].ring.shrink();
            self.recount_conn_memory(index);
        }
        let conn = &self.conns[index as usize];
        let front = &self.fronts[conn.route as usize];
        let config = &front.config.backend;
        if conn.is_quiet() && !conn.retiring && !matches!(conn.io, Io::Opening) {
            let idle = Duration::from_micros(now.saturating_sub(conn.progress_at));
            let age = Duration::from_micros(now.saturating_sub(conn.opened_at));
            let nobody = matches!(conn.mode, Mode::Exclusive(Ticket { slot: NONE, .. }));
            let too_idle = match conn.mode {
                Mode::Shared => idle > config.max_idle,
                _ => nobody && idle > config.max_idle.min(LEASE_KEPT),
            };
            let too_old = !config.max_age.is_zero()
                && age > jittered(config.max_age, conn.generation)
                && (conn.mode == Mode::Shared || nobody);
            if too_idle || too_old {
                self.retire(index);
                return;
            }
        }
        if conn.mode != Mode::Shared || conn.is_quiet() || !matches!(conn.io, Io::Socket(_)) {
            return;
        }
        let age = Duration::from_micros(now.saturating_sub(conn.opened_at));
        if !conn.retiring
            && !config.max_age.is_zero()
            && age > jittered(config.max_age, conn.generation)
        {
            self.retire(index);
            return;
        }
        self.look_for_stall(index);
    }

    /// Answers the callers whose deadline has passed; the reply that may still come
    /// is swallowed when it does, and everybody else on the connection notices
    /// nothing.
    fn expire_requests(&mut self, index: u32) {
        let now = self.clock.now();
        let conn = &self.conns[index as usize];
        let timeouts = &self.fronts[conn.route as usize].config.timeouts;
        let limits = (
            timeouts.request.as_micros() as u64,
            timeouts.slow_request.as_micros() as u64,
        );
        let expired = expired(conn, now, limits);
        if expired.is_empty() {
            return;
        }
        let unsent = matches!(conn.io, Io::Opening);
        let text = if unsent {
            failure::TIMED_OUT_UNSENT
        } else {
            failure::TIMED_OUT
        };
        let cause = if unsent {
            ErrorCause::QueueTimeout
        } else {
            ErrorCause::RequestTimeout
        };
        if !unsent {
            self.lanes[conn.lane as usize].node.count(Tally {
                timeouts: expired.len() as u64,
                ..Tally::default()
            });
        }
        let route = self.conns[index as usize].route;
        let hangs = match self.hangs_on_a_cache(index) {
            None if unsent && self.may_fail_open(route) => Some(Failure::Busy(Busy::Deadline)),
            hangs => hangs,
        };
        let (mut start, mut next) = (0, 0);
        for &place in &expired {
            let entry = self.conns[index as usize].in_flight[place];
            if let Some(failure) = &hangs {
                let conn = &self.conns[index as usize];
                let between = conn.in_flight.range(next..place);
                start += between.map(|entry| entry.len as usize).sum::<usize>();
                let frame = conn.ring.copy(start, entry.len as usize);
                (start, next) = (start + frame.len(), place + 1);
                let is_whole = place > 0 || !conn.head_started();
                // It may have run: only what reads can be answered without knowing.
                let marks = match unsent {
                    true => entry.marks,
                    false => entry.marks.with(Marks::LOST),
                };
                if is_whole && self.settle_made_up(&Entry { marks, ..entry }, &frame, failure) {
                    self.conns[index as usize].in_flight[place].marks =
                        entry.marks.with(Marks::ANSWERED);
                    continue;
                }
            }
            let marks = entry.marks.with(Marks::ANSWERED);
            self.conns[index as usize].in_flight[place].marks = marks;
            if place == 0 && self.conns[index as usize].head_started() {
                self.close_session(entry.to, CloseReason::BackendLost);
                if !self.conns.contains(index as usize) {
                    // It was that client's own.
                    return;
                }
                continue;
            }
            self.count_error(entry.to, cause);
            self.trace_lost(&entry, cause);
            self.settle_entry(&entry, text);
        }
        if unsent {
            self.conns[index as usize].drop_answered();
            self.tell_lost_in_front(index);
        }
    }

    /// Answers those that only wait for their turn to be told that their command was lost or
    /// refused, and whose turn has come without a reply.
    fn tell_lost_in_front(&mut self, index: u32) {
        while let Some(conn) = self.conns.get_mut(index as usize)
            && let Some(entry) = conn.in_flight.front().copied()
            && entry.marks.any(Marks::LOST)
        {
            conn.in_flight.pop_front();
            match entry.marks.any(Marks::REFUSED) {
                true => self.settle_refused(&entry),
                false => self.settle_entry(&entry, failure::OUTCOME_UNKNOWN),
            }
        }
    }

    /// Why the node cannot be used, if it hangs and the route fails open.
    fn hangs_on_a_cache(&self, index: u32) -> Option<Failure> {
        let conn = &self.conns[index as usize];
        (self.may_fail_open(conn.route) && conn.gate.is_closed())
            .then(|| self.lanes[conn.lane as usize].node.unavailable())
            .flatten()
            .map(Failure::Open)
    }

    fn tick_sessions(&mut self) {
        let turn = self.tick % SESSION_TURNS;
        let capacity = self.sessions.capacity();
        let mut slot = turn;
        while slot < capacity {
            if let Some(session) = self.sessions.get(slot) {
                let ticket = session.ticket(slot as u32);
                self.tick_session(ticket);
            }
            slot += SESSION_TURNS;
        }
    }

    fn tick_session(&mut self, ticket: Ticket) {
        let now = self.clock.now();
        if self.look_for_hangup(ticket) || self.tick_subscriber(ticket) {
            return;
        }
        let session = &mut self.sessions[ticket.slot as usize];
        session.shrink_if_quiet(now);
        if session
            .permit
            .as_ref()
            .is_some_and(ClientPermit::is_outdated)
        {
            self.identify(ticket);
        }
        self.recount_memory(ticket);
        let session = &self.sessions[ticket.slot as usize];
        let front = &self.fronts[session.route as usize];
        let since = |at: u64| Duration::from_micros(now.saturating_sub(at));
        let timeouts = &front.config.timeouts;
        if let Some(extra) = &session.extra {
            if extra.close_at != 0 && now >= extra.close_at {
                let reason = extra.close_reason.unwrap_or(CloseReason::Refused);
                return self.close(ticket.slot, reason);
            }
            if extra.stuck_since != 0 && session.flags.any(Flags::WRITING) {
                if !timeouts.write.is_zero() && since(extra.stuck_since) > timeouts.write {
                    return self.close(ticket.slot, CloseReason::WriteTimeout);
                }
                let stuck = since(extra.stuck_since);
                if self.holds_up_large(ticket, stuck) {
                    return self.close(ticket.slot, CloseReason::OutputLimit);
                }
            } else if extra.stuck_since != 0
                && session.in_flight <= u32::from(session.flags.any(Flags::UPLOADING))
                && !session.flags.any(Flags::WAITING)
                && !timeouts.read.is_zero()
                && since(extra.stuck_since.max(session.active_at)) > timeouts.read
            {
                return self.close(ticket.slot, CloseReason::ReadTimeout);
            }
            if let Some(lease) = extra.lease
                && since(lease.idle_since.max(session.active_at)) > front.config.backend.lease_idle
            {
                return self.lease_expired(ticket, lease);
            }
        }
        if !front.idle_timeout.is_zero()
            && since(session.active_at) > front.idle_timeout
            && session.may_be_reaped()
        {
            return self.close(ticket.slot, CloseReason::Idle);
        }
        if self.drain_session(ticket) {
            return;
        }
        self.note_if_idle(ticket);
    }

    /// The end of a client that is not read for now is behind bytes that nobody has
    /// taken. It matters to one that is blocked, for whom nothing must be popped then.
    fn look_for_hangup(&mut self, ticket: Ticket) -> bool {
        let session = &self.sessions[ticket.slot as usize];
        if !session.flags.any(Flags::READ_PAUSED) {
            return false;
        }
        match net::hangup(&session.socket) {
            Some(_) if self.waits_here(ticket) => {
                self.close(ticket.slot, CloseReason::ByClient);
                true
            }
            Some(Hangup::Whole) => {
                self.close(ticket.slot, CloseReason::ByClient);
                true
            }
            Some(Hangup::Half) => {
                self.half_close_lease(ticket);
                false
            }
            None => false,
        }
    }

    /// A client has left its transaction's lease idle for too long: others wait.
    /// Nothing of the block has run.
    fn lease_expired(&mut self, ticket: Ticket, lease: Lease) {
        let session = &mut self.sessions[ticket.slot as usize];
        if lease.until != Until::Transaction || session.in_flight > 0 {
            return;
        }
        let extra = session.extra();
        extra.lease = None;
        if let Transaction::OnLease { open, watching, .. } = std::mem::take(&mut extra.transaction)
        {
            extra.transaction = Transaction::Broken { open, watching };
        }
        self.conns[lease.conn as usize].dirty = true;
        self.end_lease(lease.conn, false);
        self.count_error(ticket, ErrorCause::LeaseLimit);
    }
}

/// A clean lease that nobody needs is kept this long for the next who does.
const LEASE_KEPT: Duration = Duration::from_secs(5);

/// An age limit that differs by up to a tenth between connections, so that those
/// opened together do not all close together.
fn jittered(age: Duration, generation: u32) -> Duration {
    let share = f64::from(generation.wrapping_mul(2_654_435_761) >> 16) / 65_536.0;
    age.mul_f64(0.9 + 0.2 * share)
}

/// Places of the commands whose deadline has passed. A session is answered in
/// order, so a command behind an unexpired one of the same session is not.
fn expired(conn: &Conn, now: u64, (plain, slow): (u64, u64)) -> Vec<usize> {
    let mut places = Vec::new();
    let mut unexpired: Vec<Ticket> = Vec::new();
    for (place, entry) in conn.in_flight.iter().enumerate() {
        if entry.marks.any(Marks::ANSWERED.with(Marks::LINK)) {
            continue;
        }
        if is_expired(entry, now, (plain, slow)) && !unexpired.contains(&entry.to) {
            places.push(place);
            continue;
        }
        if now.saturating_sub(entry.at) < plain.min(slow) {
            // Arrivals are in order: those behind it are in time as well.
            break;
        }
        unexpired.push(entry.to);
    }
    places
}

fn is_expired(entry: &Entry, now: u64, (plain, slow): (u64, u64)) -> bool {
    let limit = match entry.marks {
        marks if marks.any(Marks::UNTIMED.with(Marks::LOST)) => return false,
        marks if marks.any(Marks::SLOW) => slow,
        _ => plain,
    };
    limit > 0 && now.saturating_sub(entry.at) > limit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Kind;
    use crate::resp::Version;

    fn conn(entries: &[(u32, u64, Marks)]) -> Conn {
        let mut conn = Conn::opening(Kind::Shared, 0, 0, 1, Version::Resp2, 1);
        for &(slot, at, marks) in entries {
            let to = Ticket {
                slot,
                generation: 1,
            };
            conn.append(
                b"x",
                Entry {
                    to,
                    at,
                    len: 1,
                    command: 0,
                    marks,
                },
            );
        }
        conn
    }

    #[test]
    fn the_deadline_of_one_is_not_the_deadline_of_another() {
        let conn = conn(&[
            (1, 0, Marks::NONE),
            (2, 50, Marks::NONE),
            (3, 90, Marks::NONE),
        ]);
        assert_eq!(expired(&conn, 100, (60, 1000)), [0]);
        assert_eq!(expired(&conn, 111, (60, 1000)), [0, 1]);
        assert!(expired(&conn, 60, (60, 1000)).is_empty());
    }

    #[test]
    fn a_long_command_has_its_own_deadline_and_does_not_hide_others() {
        let conn = conn(&[
            (1, 0, Marks::SLOW),
            (2, 0, Marks::NONE),
            (3, 0, Marks::UNTIMED),
        ]);
        assert_eq!(expired(&conn, 100, (60, 1000)), [1]);
        assert_eq!(expired(&conn, 2000, (60, 1000)), [0, 1]);
    }

    #[test]
    fn a_session_is_answered_in_order() {
        let conn = conn(&[
            (1, 0, Marks::SLOW),
            (1, 0, Marks::NONE),
            (2, 0, Marks::NONE),
        ]);
        assert_eq!(expired(&conn, 100, (60, 1000)), [2]);
    }

    #[test]
    fn who_was_answered_is_not_answered_again() {
        let conn = conn(&[(1, 0, Marks::ANSWERED), (2, 0, Marks::NONE)]);
        assert_eq!(expired(&conn, 100, (60, 1000)), [1]);
    }

    #[test]
    fn the_age_of_connections_differs_by_a_tenth_at_most() {
        let age = Duration::from_secs(100);
        for generation in 0..1000 {
            let jittered = jittered(age, generation);
            assert!(
                (90.0..=110.0).contains(&jittered.as_secs_f64()),
                "{jittered:?}"
            );
        }
    }
}
