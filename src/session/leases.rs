//! Connections that one session holds alone: waiting for one, holding it, giving
//! it back.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::client::{Answer, Flags, Lease, NONE, Until};
use super::failure::Failure;
use super::lanes::refusal;
use super::worker::State;
use crate::backend::{
    Io, Kind, Mode, Node, OpenError, Opened, Partition, Refused, Slot, Ticket, close_politely,
};

/// How somebody who needs a lease waits for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// Not at all: there is another way.
    AtOnce,
    /// In line, up to its length and the deadline.
    InLine,
}

/// What became of the wish for a lease.
#[derive(Debug)]
pub enum LeaseWish {
    /// The session holds this connection.
    Held(u32),
    /// It is being seen to; the session waits.
    Waits,
    /// There is none; the reply that says why.
    Refused(Vec<u8>),
    /// None was free at once.
    NotAtOnce,
}
impl State {
    /// A connection that the session holds alone. Waits for earlier replies first.
    pub(super) fn wish_lease(
        &mut self,
        ticket: Ticket,
        kind: Kind,
        until: Until,
        patience: Patience,
    ) -> LeaseWish {
        if self.must_wait_for_replies(ticket) {
            return LeaseWish::Waits;
        }
        let session = &mut self.sessions[ticket.slot as usize];
        let extra = session.extra();
        match extra.answer.take() {
            Some(Answer::NoLease(reply)) => return LeaseWish::Refused(reply),
            other => extra.answer = other,
        }
        if let Some(lease) = &mut extra.lease {
            lease.until = until;
            lease.fresh = false;
            if kind != Kind::Blocking {
                extra.lease_asked_at = 0;
            }
            return LeaseWish::Held(lease.conn);
        }
        let lane = self.lane_of(ticket);
        let node = self.lanes[lane as usize].node.clone();
        if let Some(wish) = self.wait_for_node(ticket, lane, patience) {
            return wish;
        }
        if matches!(kind, Kind::Lease | Kind::Blocking)
            && let Some(conn) = self.idle_lease(lane, kind)
        {
            self.sessions[ticket.slot as usize].extra().lease_asked_at = 0;
            self.hold(ticket, conn, until, false);
            return LeaseWish::Held(conn);
        }
        if let Some(slot) = node.ledger.try_take(kind) {
            self.dial_lease(ticket, lane, kind, until, async { Ok(slot) });
            return LeaseWish::Waits;
        }
        if patience == Patience::AtOnce {
            return LeaseWish::NotAtOnce;
        }
        let deadline = Instant::now() + node.settings().backend.lease_wait;
        let ledger = node.ledger.clone();
        let slot = async move { ledger.take(kind, deadline).await };
        self.dial_lease(ticket, lane, kind, until, slot);
        LeaseWish::Waits
    }

    fn idle_lease(&mut self, lane: u32, kind: Kind) -> Option<u32> {
        let idle = &mut self.lanes[lane as usize].idle_leases;
        let place = idle
            .iter()
            .rposition(|&conn| self.conns[conn as usize].kind == kind)?;
        Some(idle.swap_remove(place))
    }

    fn hold(&mut self, ticket: Ticket, conn: u32, until: Until, fresh: bool) {
        let now = self.clock.now();
        let connection = &mut self.conns[conn as usize];
        connection.mode = Mode::Exclusive(ticket);
        if let Some(slot) = &connection.slot {
            slot.set_busy();
        }
        let session = &mut self.sessions[ticket.slot as usize];
        session.flags.set(Flags::SPECIAL);
        session.extra().lease = Some(Lease {
            conn,
            until,
            fresh,
            idle_since: now,
        });
        let metrics = &self.fronts[session.route as usize].metrics;
        metrics.leases_granted.inc();
        metrics.leases_held.inc();
    }

    fn dial_lease(
        &mut self,
        ticket: Ticket,
        lane: u32,
        kind: Kind,
        until: Until,
        slot: impl Future<Output = Result<Slot, Refused>> + 'static,
    ) {
        let (asked_at, command) = (self.clock.now(), self.traced.command);
        let session = &mut self.sessions[ticket.slot as usize];
        session.flags.set(Flags::WAITING);
        session.extra().lease_asked_at = asked_at;
        let (keeps_place, gone) = oneshot::channel::<()>();
        session.extra().keeps_place = Some(keeps_place);
        let route = session.route;
        let node = self.lanes[lane as usize].node.clone();
        self.fronts[route as usize].metrics.leases_waiting.inc();
        let key = self.lanes[lane as usize].key.clone();
        let worker = self.worker();
        tokio::task::spawn_local(async move {
            let slot = tokio::select! {
                biased;
                slot = slot => Some(slot),
                // A client that has been closed leaves the line.
                _ = gone => None,
            };
            let outcome = match slot {
                Some(Ok(slot)) => Some(node.open(&key, slot).await.map_err(Failure::Open)),
                Some(Err(refused)) => Some(Err(refusal(&refused))),
                None => None,
            };
            worker.enter(|state| {
                let front = &state.fronts[route as usize];
                front.metrics.leases_waiting.dec();
                let Some(outcome) = outcome else { return };
                front
                    .metrics
                    .lease_wait
                    .record(state.clock.now() - asked_at);
                let deployment = &state.fronts[route as usize].route.deployment;
                let is_standalone = deployment.is_standalone();
                if let Err(failure) = &outcome
                    // Else it is looked at again.
                    && (is_standalone || !matches!(failure, Failure::Open(OpenError::Unreachable(_))))
                {
                    state.trace_failed(ticket, failure, command, asked_at);
                }
                state.lease_opened(ticket, (route, &node, key), kind, until, outcome);
            });
        });
    }

    fn lease_opened(
        &mut self,
        ticket: Ticket,
        lane: (u16, &Arc<Node>, Partition),
        kind: Kind,
        until: Until,
        outcome: Result<Opened, Failure>,
    ) {
        let wanted = self.session(ticket).is_some();
        match outcome {
            Ok(opened) if wanted => {
                let lane = self.find_lane(lane.0, lane.1, lane.2);
                let conn = self.add_conn(kind, lane);
                self.opened(conn, Ok(opened));
                self.hold(ticket, conn.slot, until, true);
            }
            Ok(opened) => close_politely(opened.socket, Some(opened.slot)),
            Err(Failure::Open(OpenError::Unreachable(_)))
                if !self.fronts[lane.0 as usize]
                    .route
                    .deployment
                    .is_standalone() =>
            {
                // The command is still in the input: it is looked at again, and waits if
                // there is no other node yet.
                self.fronts[lane.0 as usize]
                    .route
                    .deployment
                    .doubt(lane.1.id);
            }
            Err(failure) => {
                self.count_failure(lane.0, &failure);
                if failure.shed().is_some() {
                    self.count_refused_of(ticket, 1);
                }
                if let Some(session) = self.session(ticket) {
                    session.extra().answer = Some(Answer::NoLease(failure.reply()));
                }
            }
        }
        if let Some(session) = self.session(ticket) {
            session.extra().keeps_place = None;
            session.flags.clear(Flags::WAITING);
            self.make_ready(ticket);
        }
    }

    /// The session gives its lease back. A clean one serves the next who needs
    /// it; one whose state may have changed is closed.
    pub(super) fn give_back_lease(&mut self, ticket: Ticket) {
        let Some(session) = self.session(ticket) else {
            return;
        };
        let Some(lease) = session.extra.as_mut().and_then(|extra| extra.lease.take()) else {
            return;
        };
        if let Some(session) = self.session(ticket) {
            session.extra().own_place = None;
        }
        self.refresh_special(ticket);
        self.end_lease(lease.conn, true);
    }

    /// A lease is held no more.
    pub(super) fn end_lease(&mut self, conn: u32, clean: bool) {
        let Some(connection) = self.conns.get_mut(conn as usize) else {
            return;
        };
        let lane = connection.lane;
        let reusable = clean
            && connection.is_quiet()
            && !connection.dirty
            && !connection.mid_request
            && !connection.retiring
            && matches!(connection.kind, Kind::Lease | Kind::Blocking)
            && matches!(connection.io, Io::Socket(_));
        let route = self.lanes[lane as usize].route;
        self.fronts[route as usize].metrics.leases_held.dec();
        if reusable {
            connection.mode = Mode::Exclusive(Ticket {
                slot: NONE,
                generation: 0,
            });
            connection.progress_at = self.clock.now();
            connection.streaming = false;
            connection.large = None;
            // The client may not have taken the last reply yet, and the connection was not
            // read meanwhile. Whoever has it next does not wait for that.
            if let Some(reader) = connection.reader.take() {
                reader.wake();
            }
            if let Some(slot) = &connection.slot {
                slot.set_free(Instant::now());
            }
            self.lanes[lane as usize].idle_leases.push(conn);
        } else {
            self.close_conn(conn);
        }
    }
}
