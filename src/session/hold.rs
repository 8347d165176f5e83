//! Waiting for a primary: commands that cannot be sent now are kept here for a while
//! instead of being refused.
//!
//! What is kept stands on a *parked* connection, one that has no socket and takes no
//! second command of a client: so there are as many commands as clients, and what a
//! client sends behind is held in its own input. When the wait is over all of it goes
//! where it should, in order, as from a connection that was lost before anything was
//! written. A client that needs a connection of its own waits with its command in its
//! input.

use super::client::{Answer, Flags, Session};
use super::failure::Failure;
use super::leases::{LeaseWish, Patience};
use super::worker::{Front, State};
use crate::backend::{Entry, Gate, Kind, Marks, Ticket};
use crate::metrics::ErrorCause;

/// Whether what goes to a lane's node has to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// No.
    No,
    /// For a while.
    Parked,
    /// It has waited long enough: there is no primary.
    Over,
}

impl State {
    /// Whether what goes to this lane's node has to wait.
    pub(super) fn wait_of(&self, lane: u32) -> Wait {
        let lane = &self.lanes[lane as usize];
        let front = &self.fronts[lane.route as usize];
        let now = self.clock.now();
        let deployment = &front.route.deployment;
        if deployment.is_standalone() || lane.node.id != front.node.id {
            return Wait::No;
        }
        match deployment.hold_until() {
            // Another is the primary already, and this worker is about to hear of it.
            None if deployment.primary().id != front.node.id => Wait::Parked,
            None => Wait::No,
            Some(until) if now < until => Wait::Parked,
            Some(_) => Wait::Over,
        }
    }

    /// The connection for a command whose node cannot be used: a parked one if it may
    /// wait for another to take the node's place.
    ///
    /// # Errors
    /// `failure` if not.
    pub(super) fn or_park(&mut self, lane: u32, failure: Failure) -> Result<u32, Failure> {
        let Owner { route, node } = self.whose(lane);
        let front = &self.fronts[route as usize];
        if front.route.deployment.is_standalone() || front.node.id != node {
            return Err(failure);
        }
        front.route.deployment.doubt(node);
        match self.wait_of(lane) {
            Wait::Over => Err(Failure::NoPrimary),
            // Another is the primary already and this worker is about to hear of it, or
            // the node answers again: what is parked is let go with the next tick.
            Wait::Parked | Wait::No => self.park(lane),
        }
    }

    fn whose(&self, lane: u32) -> Owner {
        let lane = &self.lanes[lane as usize];
        Owner {
            route: lane.route,
            node: lane.node.id,
        }
    }

    /// The lane's parked connection.
    ///
    /// # Errors
    /// Too many wait already.
    pub(super) fn park(&mut self, lane: u32) -> Result<u32, Failure> {
        let route = self.lanes[lane as usize].route;
        self.count_held(route)?;
        let parked = self.lanes[lane as usize].parked;
        if self.conns.contains(parked as usize) {
            return Ok(parked);
        }
        let ticket = self.add_conn(Kind::Shared, lane);
        let conn = &mut self.conns[ticket.slot as usize];
        // Takes one command of each client and nothing behind it.
        conn.retiring = true;
        conn.gate = Gate::default();
        self.lanes[lane as usize].parked = ticket.slot;
        Ok(ticket.slot)
    }

    /// One more waits, unless that would be too many.
    fn count_held(&mut self, route: u16) -> Result<(), Failure> {
        let workers = self.proxy.workers();
        let bytes = self.held_bytes(route);
        let front = &mut self.fronts[route as usize];
        let failover = &front.config.failover;
        // Each worker has its part of what there may be.
        if front.holds >= failover.hold_clients.div_ceil(workers) {
            let limit = "failover.hold_clients";
            return Err(Failure::HoldFull { limit });
        }
        if bytes >= failover.hold_memory.div_ceil(workers as u64) {
            let limit = "failover.hold_memory";
            return Err(Failure::HoldFull { limit });
        }
        front.is_holding = true;
        front.held += 1;
        front.holds += 1;
        front.metrics.commands_held.set(front.holds as i64);
        Ok(())
    }

    /// A command that has just been given a parked connection does not take it.
    pub(super) fn does_not_wait(&mut self, route: u16) {
        let front = &mut self.fronts[route as usize];
        front.held = front.held.saturating_sub(1);
        front.holds = front.holds.saturating_sub(1);
        front.metrics.commands_held.set(front.holds as i64);
    }

    /// What the commands on the route's parked connections take of memory, those of clients
    /// that have left among them: these go when the wait is over.
    fn held_bytes(&self, route: u16) -> u64 {
        let lanes = self.lanes.iter().filter(|(_, lane)| lane.route == route);
        let parked = lanes.filter_map(|(_, lane)| self.conns.get(lane.parked as usize));
        let bytes = parked.map(|conn| conn.ring.len() + conn.in_flight.len() * size_of::<Entry>());
        bytes.sum::<usize>() as u64
    }

    /// Whether the session's commands stand on a parked connection.
    pub(super) fn is_parked(&self, ticket: Ticket) -> bool {
        let session = self.sessions.get(ticket.slot as usize);
        session.is_some_and(|it| it.in_flight > it.queued && self.parks(it.conn))
    }

    fn parks(&self, conn: u32) -> bool {
        let lane = self.conns.get(conn as usize).map(|conn| conn.lane);
        lane.is_some_and(|lane| self.lanes[lane as usize].parked == conn)
    }

    /// A session has ended: if it waited, others may.
    pub(super) fn leave_hold(&mut self, session: &Session, ticket: Ticket) {
        if !self.fronts[session.route as usize].is_holding {
            return;
        }
        let parks = self.parks(session.conn);
        let front = &mut self.fronts[session.route as usize];
        let place = match session.flags.any(Flags::HELD) {
            true => front.waiting.iter().position(|waits| *waits == ticket),
            false => None,
        };
        let left = match place {
            Some(place) => {
                front.waiting.remove(place);
                1
            }
            None if parks => session.in_flight.saturating_sub(session.queued) as usize,
            None => 0,
        };
        front.holds = front.holds.saturating_sub(left);
        front.metrics.commands_held.set(front.holds as i64);
    }

    /// Counts what waits anew: commands whose deadline has passed have gone meanwhile.
    fn recount_held(&mut self, route: u16) {
        let mut held = self.fronts[route as usize].waiting.len();
        for ticket in self.parked(route) {
            let entries = self.conns[ticket.slot as usize].in_flight.iter();
            let waits = |entry: &&Entry| {
                let session = self.sessions.get(entry.to.slot as usize);
                let is_there = session.is_some_and(|it| it.id as u32 == entry.to.generation);
                !entry.marks.any(Marks::ANSWERED) && (is_there || entry.marks.any(Marks::LINK))
            };
            held += entries.filter(waits).count();
        }
        let bytes = self.held_bytes(route);
        let front = &mut self.fronts[route as usize];
        front.holds = held;
        front.metrics.commands_held.set(held as i64);
        front.metrics.held_bytes.set(bytes as i64);
    }

    /// A session that needs a connection of its own waits with its command in its input.
    ///
    /// # Errors
    /// Too many wait already.
    pub(super) fn wait_in_input(&mut self, ticket: Ticket) -> Result<(), Failure> {
        let route = self.sessions[ticket.slot as usize].route;
        self.count_held(route)?;
        let session = &mut self.sessions[ticket.slot as usize];
        session.flags.set(Flags::HELD.with(Flags::WAITING));
        self.fronts[route as usize].waiting.push(ticket);
        Ok(())
    }

    /// Whether there may be another node to wait for.
    pub(super) fn may_wait_for_node(&self, ticket: Ticket) -> bool {
        let route = self.sessions[ticket.slot as usize].route;
        let front = &self.fronts[route as usize];
        !front.route.deployment.is_standalone()
    }

    /// What becomes of a session that needs a connection of its own to the lane's node:
    /// `None` if it may have one now.
    pub(super) fn wait_for_node(
        &mut self,
        ticket: Ticket,
        lane: u32,
        patience: Patience,
    ) -> Option<LeaseWish> {
        let mut wait = self.wait_of(lane);
        let node = &self.lanes[lane as usize].node;
        if wait == Wait::No
            && let Some(error) = node.unavailable()
        {
            let (id, route) = (node.id, self.lanes[lane as usize].route);
            self.fronts[route as usize].route.deployment.doubt(id);
            let is_standalone = self.fronts[route as usize].route.deployment.is_standalone();
            wait = match self.wait_of(lane) {
                Wait::No if is_standalone => {
                    return Some(self.refuse_lease(ticket, &Failure::Open(error)));
                }
                // As above: there is another, or it is there again.
                Wait::No => Wait::Parked,
                wait => wait,
            };
        }
        match wait {
            Wait::No => None,
            Wait::Parked if patience == Patience::AtOnce => Some(LeaseWish::NotAtOnce),
            Wait::Parked => Some(match self.wait_in_input(ticket) {
                Ok(()) => LeaseWish::Waits,
                Err(failure) => self.refuse_lease(ticket, &failure),
            }),
            Wait::Over => Some(self.refuse_lease(ticket, &Failure::NoPrimary)),
        }
    }

    fn refuse_lease(&mut self, ticket: Ticket, failure: &Failure) -> LeaseWish {
        self.trace_failure(ticket, failure);
        let route = self.sessions[ticket.slot as usize].route;
        self.count_failure(route, failure);
        if failure.shed().is_some() {
            self.count_refused_of(ticket, 1);
        }
        LeaseWish::Refused(failure.reply())
    }

    /// Ends waits that have lasted long enough.
    pub(super) fn end_holds(&mut self) {
        let now = self.clock.now();
        for route in 0..self.fronts.len() {
            let front = &mut self.fronts[route];
            if !front.is_holding {
                continue;
            }
            front.tell_held();
            let deployment = &front.route.deployment;
            match deployment.hold_until() {
                Some(until) if now < until => self.recount_held(route as u16),
                Some(_) => self.fail_held(route as u16),
                // Released to the old one, what waits would be refused.
                None if deployment.primary().id != front.node.id => {
                    self.take_topology(route as u16);
                }
                None => self.release_held(route as u16),
            }
        }
    }

    /// All that waits goes on.
    pub(super) fn release_held(&mut self, route: u16) {
        for ticket in self.end_wait(route) {
            if let Some(session) = self.session(ticket) {
                session.flags.clear(Flags::HELD.with(Flags::WAITING));
                self.make_ready(ticket);
            }
        }
        for parked in self.parked(route) {
            let conn = self.take_conn(parked.slot);
            self.shared_lost(&conn);
        }
    }

    /// There will be no primary in time.
    fn fail_held(&mut self, route: u16) {
        let failure = Failure::NoPrimary;
        for ticket in self.end_wait(route) {
            if let Some(session) = self.session(ticket) {
                session.flags.clear(Flags::HELD.with(Flags::WAITING));
                session.extra().answer = Some(Answer::NoLease(failure.reply()));
                self.count_error(ticket, ErrorCause::NoPrimary);
                self.make_ready(ticket);
            }
        }
        for parked in self.parked(route) {
            self.opening_failed(parked, &failure);
        }
    }

    fn end_wait(&mut self, route: u16) -> Vec<Ticket> {
        let front = &mut self.fronts[route as usize];
        front.is_holding = false;
        front.tell_held();
        front.holds = 0;
        front.metrics.commands_held.set(0);
        front.metrics.held_bytes.set(0);
        std::mem::take(&mut front.waiting)
    }

    /// The parked connections of a route.
    fn parked(&self, route: u16) -> Vec<Ticket> {
        let lanes = self.lanes.iter().filter(|(_, lane)| lane.route == route);
        lanes
            .filter_map(|(_, lane)| {
                let conn = self.conns.get(lane.parked as usize)?;
                Some(Ticket {
                    slot: lane.parked,
                    generation: conn.generation,
                })
            })
            .collect()
    }
}

impl Front {
    /// Adds up what waits, now that it is sure to.
    fn tell_held(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.route.deployment.count_held(held);
    }
}

/// To whom a lane belongs.
struct Owner {
    route: u16,
    node: u32,
}
