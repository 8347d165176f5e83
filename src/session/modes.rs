//! Commands that need a connection of their own: blocking ones, subscriptions,
//! `MONITOR`, tunnels. Each holds a lease, bounded by the budget; what waits for
//! one has a place in line and a deadline.

use std::time::Duration;

use super::client::{Flags, Until};
use super::dispatch::{Row, silent_or};
use super::failure::Failure;
use super::input::{Request, Step};
use super::leases::{LeaseWish, Patience};
use super::worker::State;
use crate::backend::{Entry, Kind, Marks, Mode, Ticket};
use crate::command::{Sub, blocking};
use crate::pubsub::Space;
use crate::resp::{self, Version};

impl State {
    /// One command on a connection that the session holds for it alone.
    pub(super) fn leased(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
        kind: Kind,
        until: Until,
        silent: bool,
    ) -> Step {
        let until = match self.until_reply(ticket) {
            Until::Reply => until,
            longer => longer,
        };
        match self.wish_lease(ticket, kind, until, Patience::InLine) {
            LeaseWish::Held(conn) => {
                if until == Until::Closed {
                    self.conns[conn as usize].dirty = true;
                }
                let marks = silent_or(silent, row.marks().with(Marks::UNTIMED));
                let shortened = self.without_the_wait(ticket, request);
                let frame = shortened.as_deref().unwrap_or(request.frame);
                let step = self.send_on(ticket, conn, frame, row.id, marks);
                if step == Step::Taken {
                    self.set_barrier(ticket);
                    self.recount(ticket);
                }
                step
            }
            LeaseWish::Waits => Step::Wait,
            LeaseWish::Refused(reply) => {
                self.sessions[ticket.slot as usize].extra().own_place = None;
                self.answer(ticket, &reply, silent)
            }
            LeaseWish::NotAtOnce => unreachable!("leased commands wait in line"),
        }
    }

    /// The request with what is left of its timeout, if it has waited here for a
    /// lease: the client's clock began when it asked.
    fn without_the_wait(&mut self, ticket: Ticket, request: &Request<'_>) -> Option<Vec<u8>> {
        let now = self.clock.now();
        let session = &mut self.sessions[ticket.slot as usize];
        let extra = session.extra();
        let (in_line, for_lease) = (
            std::mem::take(&mut extra.line_since),
            std::mem::take(&mut extra.lease_asked_at),
        );
        let asked_at = if in_line > 0 { in_line } else { for_lease };
        let waited = Duration::from_micros(now.saturating_sub(asked_at));
        if asked_at == 0 || waited < Duration::from_millis(1) {
            return None;
        }
        let table = &self.fronts[session.route as usize].table;
        let command = table.find(request.arg(0).unwrap_or_default(), request.arg(1));
        let blocking::TimeoutArg { index, unit } = blocking::timeout_arg(command, request)?;
        let Ok(blocking::Timeout::After(timeout)) = blocking::timeout(command, request) else {
            return None;
        };
        // Never 0, which would be for ever; and to Redis 6.2 one millisecond is 0.
        let left = timeout.saturating_sub(waited).max(Duration::from_millis(2));
        let left = match unit {
            blocking::Unit::Seconds => left.as_secs_f64().to_string(),
            blocking::Unit::Milliseconds => left.as_millis().to_string(),
        };
        let mut args = request.args();
        args[index] = left.as_bytes();
        let mut frame = Vec::new();
        resp::encode_command(&args, &mut frame);
        Some(frame)
    }

    /// Until when a lease is needed for one command: one that is held for longer
    /// anyway stays so.
    pub(super) fn until_reply(&self, ticket: Ticket) -> Until {
        let extra = self.sessions[ticket.slot as usize].extra.as_ref();
        extra
            .and_then(|extra| extra.lease)
            .map_or(Until::Reply, |lease| lease.until)
    }

    /// On the path that the session is on, without a deadline of Weir's.
    pub(super) fn forward_untimed(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
        silent: bool,
    ) -> Step {
        let marks = silent_or(silent, row.marks().with(Marks::UNTIMED));
        match self.sessions[ticket.slot as usize].lease() {
            Some(conn) => self.send_on(ticket, conn, request.frame, row.id, marks),
            None => self.forward(ticket, request.frame, row.id, marks),
        }
    }

    /// `WAIT` and `WAITAOF` ask about the last write of *their* connection. On a
    /// lease that wrote nothing the answer would be a false yes at once, so the
    /// connection is first brought up to the node's present offset: all earlier
    /// replies of this client have arrived, so its writes are before it, and the
    /// answer can only be stricter than on a connection of its own.
    pub(super) fn wait_for_replicas(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
        silent: bool,
    ) -> Step {
        let lease = self.sessions[ticket.slot as usize].extra().lease;
        if lease.is_some_and(|lease| lease.until != Until::Reply) {
            // The client's writes are on it as well.
            let step = self.forward_untimed(ticket, request, row, silent);
            if step == Step::Taken {
                self.set_barrier(ticket);
            }
            return step;
        }
        if self.must_wait_for_replies(ticket) || !self.take_place(ticket, None) {
            return Step::Wait;
        }
        match self.wish_lease(ticket, Kind::Blocking, Until::Reply, Patience::InLine) {
            LeaseWish::Held(conn) => {
                // Up to 7.0 any command takes over the offset; since 7.2 only one
                // that moves it, as a message to a channel of Weir's own does.
                let facts = self.node_of(ticket).facts();
                let mut bump = Vec::new();
                if facts.is_at_least(7, 1) {
                    resp::encode_command(&["pUBLISH", "weir:wait", ""], &mut bump);
                } else {
                    resp::encode_command(&["pING"], &mut bump);
                }
                let silently = Marks::SILENT.with(Marks::UNTIMED);
                self.send_on(ticket, conn, &bump, row.id, silently);
                let marks = silent_or(silent, row.marks().with(Marks::UNTIMED));
                let step = self.send_on(ticket, conn, request.frame, row.id, marks);
                self.set_barrier(ticket);
                step
            }
            LeaseWish::Waits => Step::Wait,
            LeaseWish::Refused(reply) => {
                self.sessions[ticket.slot as usize].extra().own_place = None;
                self.answer(ticket, &reply, silent)
            }
            LeaseWish::NotAtOnce => unreachable!("WAIT waits in line"),
        }
    }

    /// Whether the session may only subscribe, unsubscribe, ping and leave.
    pub(super) fn is_restricted_subscriber(&self, ticket: Ticket) -> bool {
        let session = &self.sessions[ticket.slot as usize];
        session.partition.version == Version::Resp2
            && session.flags.any(Flags::SPECIAL)
            && session
                .extra
                .as_ref()
                .is_some_and(|extra| !extra.subscriptions.is_empty())
    }

    /// `SUBSCRIBE` and its relatives of a client that holds a lease for another reason:
    /// one confirmation for each channel.
    pub(super) fn subscription_on_lease(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        sub: Sub,
        row: Row,
    ) -> Step {
        let extra = self.sessions[ticket.slot as usize].extra();
        let of_kind = extra.subscriptions.of(Space::of(sub)).len();
        let confirmations = match request.count() - 1 {
            0 => of_kind.max(1),
            named => named,
        };
        match self.wish_lease(
            ticket,
            Kind::Subscription,
            self.until_unsubscribed(ticket),
            Patience::InLine,
        ) {
            LeaseWish::Held(conn) => {
                let at = self.clock.now();
                let session = &mut self.sessions[ticket.slot as usize];
                session.conn = conn;
                session.in_flight += confirmations as u32;
                session.command = row.id;
                session.flags.set(Flags::BARRIER);
                self.fronts[session.route as usize].metrics.commands.inc();
                let mut len = request.frame.len() as u32;
                let connection = &mut self.conns[conn as usize];
                connection.dirty = true;
                connection.confirms = true;
                let marks = Marks::SUBSCRIBE.with(Marks::WHOLE).with(Marks::UNTIMED);
                connection.append(
                    request.frame,
                    Entry {
                        to: ticket,
                        at,
                        len,
                        command: row.id,
                        marks,
                    },
                );
                for _ in 1..confirmations {
                    len = 0;
                    let entry = Entry {
                        to: ticket,
                        at,
                        len,
                        command: row.id,
                        marks,
                    };
                    connection.in_flight.push_back(entry);
                }
                self.mark_dirty(conn);
                Step::Taken
            }
            LeaseWish::Waits => Step::Wait,
            LeaseWish::Refused(reply) => self.answer(ticket, &reply, false),
            LeaseWish::NotAtOnce => unreachable!("subscribers wait in line"),
        }
    }

    fn until_unsubscribed(&self, ticket: Ticket) -> Until {
        match self.sessions[ticket.slot as usize]
            .extra
            .as_ref()
            .and_then(|extra| extra.lease)
        {
            Some(lease) if lease.until != Until::Reply => lease.until,
            _ => Until::Unsubscribed,
        }
    }

    /// `MONITOR`: the lease is passed through as it is from here on.
    pub(super) fn monitor(&mut self, ticket: Ticket, request: &Request<'_>) -> Step {
        let session = &mut self.sessions[ticket.slot as usize];
        if session.extra().monitoring {
            // As in Redis, a second MONITOR is not answered.
            return Step::Taken;
        }
        if self.is_fed(ticket) {
            return self.not_of_a_subscriber(ticket, "MONITOR");
        }
        match self.wish_lease(ticket, Kind::Lease, Until::Closed, Patience::InLine) {
            LeaseWish::Held(conn) => {
                self.go_raw(ticket, conn, request.frame);
                self.conns[conn as usize].monitors = true;
                self.sessions[ticket.slot as usize].extra().monitoring = true;
                Step::Taken
            }
            LeaseWish::Waits => Step::Wait,
            LeaseWish::Refused(reply) => self.answer(ticket, &reply, false),
            LeaseWish::NotAtOnce => unreachable!("MONITOR waits in line"),
        }
    }

    /// `SYNC`, `PSYNC` and what else is no dialogue of requests and replies.
    pub(super) fn tunnel(&mut self, ticket: Ticket, request: &Request<'_>) -> Step {
        let node = self.node_of(ticket);
        if !node.settings().backend.tunnels {
            let failure = Failure::NotSupported {
                what: "a raw tunnel",
                setting: "backend.tunnels",
            };
            return self.refuse(ticket, &failure, false);
        }
        if self.is_fed(ticket) {
            return self.not_of_a_subscriber(ticket, "a raw tunnel");
        }
        match self.wish_lease(ticket, Kind::Tunnel, Until::Closed, Patience::InLine) {
            LeaseWish::Held(conn) => {
                self.go_raw(ticket, conn, request.frame);
                self.sessions[ticket.slot as usize].flags.set(Flags::TUNNEL);
                Step::Taken
            }
            LeaseWish::Waits => Step::Wait,
            LeaseWish::Refused(reply) => self.answer(ticket, &reply, false),
            LeaseWish::NotAtOnce => unreachable!("tunnels wait in line"),
        }
    }

    /// What a subscriber's messages would come into the middle of.
    fn not_of_a_subscriber(&mut self, ticket: Ticket, what: &'static str) -> Step {
        self.refuse(ticket, &Failure::Subscribed { what }, false)
    }

    /// Passes the lease's bytes on as they are from here on, this request first.
    pub(super) fn go_raw(&mut self, ticket: Ticket, conn: u32, frame: &[u8]) {
        let connection = &mut self.conns[conn as usize];
        connection.mode = Mode::Raw(ticket);
        connection.dirty = true;
        connection.streaming = true;
        connection.ring.append(frame);
        self.mark_dirty(conn);
        let session = &self.sessions[ticket.slot as usize];
        self.fronts[session.route as usize].metrics.commands.inc();
    }

    /// A monitoring client's other commands: whatever Redis says to them comes in
    /// between the lines.
    pub(super) fn while_monitoring(&mut self, ticket: Ticket, request: &Request<'_>) -> Step {
        if let Some(conn) = self.sessions[ticket.slot as usize].lease() {
            self.conns[conn as usize].ring.append(request.frame);
            self.mark_dirty(conn);
        }
        Step::Taken
    }

    /// After replies: whether what the lease was taken for is over.
    pub(super) fn finish_lease_if_done(&mut self, ticket: Ticket) {
        let now = self.clock.now();
        let Some(session) = self.session(ticket) else {
            return;
        };
        let Some(extra) = &mut session.extra else {
            return;
        };
        let Some(lease) = &mut extra.lease else {
            return self.refresh_special(ticket);
        };
        lease.idle_since = now;
        let done = match lease.until {
            _ if lease.fresh => false,
            Until::Reply => true,
            Until::Unsubscribed => !extra.subscriptions.on_lease() && !extra.tracking,
            Until::Transaction | Until::Closed => false,
        };
        if done {
            self.give_back_lease(ticket);
        }
    }
}
