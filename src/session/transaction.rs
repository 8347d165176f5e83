//! `MULTI` to `EXEC` (COMMANDS.md 1.3). A block that is complete in the read
//! buffer goes over the shared connection in one piece; one that comes command
//! by command takes a lease if one is free at once, else it is kept here and
//! goes in one piece at `EXEC`. After `WATCH`, a lease.

use super::client::{Flags, Transaction, Until};
use super::dispatch::{Row, silent_or};
use super::failure;
use super::failure::Failure;
use super::input::{Request, Step};
use super::leases::{LeaseWish, Patience};
use super::pause;
use super::worker::State;
use crate::backend::{Kind, Marks, Ticket};
use crate::command::{Class, Command, Flags as CommandFlags, Local};
use crate::metrics::ErrorCause;

impl State {
    /// `MULTI` outside a transaction.
    pub(super) fn multi(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        following: &[u8],
        row: Row,
        silent: bool,
    ) -> Step {
        let route = self.sessions[ticket.slot as usize].route;
        if self.goes_in_one_piece(ticket)
            && let Some(block) = self.complete_block(ticket, request, following, row)
        {
            let grows = |(_, row): &(u32, Row)| row.flags.contains(CommandFlags::DENYOOM);
            if self.refuses_growth_of(ticket) && block.iter().any(grows) {
                let failure = self.no_growth(ticket);
                return self.refuse_block(ticket, &failure, &block, silent);
            }
            return self.forward_block(ticket, request, following, &block, silent);
        }
        let session = &self.sessions[ticket.slot as usize];
        let has_lease = session.lease().is_some();
        let front = &self.fronts[route as usize];
        // Within an operator's pause only what finds no room to wait comes here.
        let is_held = front.pause.is_some_and(|pause| pause.is_bounded);
        let wish = if !has_lease && (is_held || self.refuses_growth_of(ticket)) {
            // What Redis has queued cannot be refused any more.
            LeaseWish::NotAtOnce
        } else {
            let until = self.until_transaction(ticket);
            self.wish_lease(ticket, Kind::Lease, until, Patience::AtOnce)
        };
        match wish {
            LeaseWish::Held(conn) => {
                let marks = silent_or(silent, row.marks());
                let step = self.send_on(ticket, conn, request.frame, row.id, marks);
                if step == Step::Taken {
                    self.enter_transaction(
                        ticket,
                        Transaction::OnLease {
                            open: true,
                            watching: false,
                            queued: 0,
                            effects: Vec::new(),
                            writes: false,
                            unframed: false,
                        },
                    );
                }
                step
            }
            LeaseWish::Waits => Step::Wait,
            no @ (LeaseWish::Refused(_) | LeaseWish::NotAtOnce) => {
                // An error of the node's, such as -BUSY: MULTI itself is answered at
                // any time, what comes next is not.
                let refusal = match no {
                    LeaseWish::Refused(reply) => Some(reply),
                    _ => None,
                };
                let step = self.answer(ticket, b"+OK\r\n", silent);
                if step == Step::Taken {
                    let commands = vec![(request.frame.len() as u32, row.id)];
                    self.enter_transaction(
                        ticket,
                        Transaction::Queued {
                            block: request.frame.to_vec(),
                            commands,
                            aborted: false,
                            refusal,
                            writes: false,
                        },
                    );
                }
                step
            }
        }
    }

    /// Whether a block that is there as a whole goes over the shared connection.
    pub(super) fn goes_in_one_piece(&self, ticket: Ticket) -> bool {
        let session = &self.sessions[ticket.slot as usize];
        // While clients are paused Redis might hold a block, and whatever else is on
        // its connection.
        let is_paused = self.fronts[session.route as usize].pause.is_some();
        session.lease().is_none() && !is_paused
    }

    /// A lease that is held for longer anyway stays so.
    pub(super) fn until_transaction(&self, ticket: Ticket) -> Until {
        let session = &self.sessions[ticket.slot as usize];
        match session.extra.as_ref().and_then(|extra| extra.lease) {
            Some(lease) if lease.until != Until::Reply => lease.until,
            _ => Until::Transaction,
        }
    }

    pub(super) fn enter_transaction(&mut self, ticket: Ticket, transaction: Transaction) {
        let session = &mut self.sessions[ticket.slot as usize];
        session.flags.set(Flags::SPECIAL);
        session.extra().transaction = transaction;
    }

    /// A command after `MULTI` or `WATCH`.
    pub(super) fn in_block(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        class: Class,
        row: Row,
        command: &Command,
        silent: bool,
    ) -> Step {
        let transaction = &self.sessions[ticket.slot as usize]
            .extra
            .as_ref()
            .expect("in a block")
            .transaction;
        let open = matches!(
            transaction,
            Transaction::OnLease { open: true, .. } | Transaction::Queued { .. }
        );
        if open && class == Class::Local(Local::Client) && names_clients(request) {
            let failure = Failure::NotInTransaction {
                command: command.name.to_string(),
            };
            return self.deny(ticket, row.id, class, &failure, silent);
        }
        match transaction {
            Transaction::None => unreachable!("only called in a transaction"),
            Transaction::OnLease { open: false, .. } => {
                self.while_watching(ticket, request, class, row, command, silent)
            }
            Transaction::OnLease { .. } => self.on_lease(ticket, request, class, row, silent),
            Transaction::Queued { .. } => {
                self.queue_up(ticket, request, class, row, command, silent)
            }
            Transaction::Broken { .. } => {
                self.in_broken(ticket, request, (row, class), command, silent)
            }
        }
    }

    /// Between `WATCH` and `MULTI`: everything goes over the lease.
    fn while_watching(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        class: Class,
        row: Row,
        command: &Command,
        silent: bool,
    ) -> Step {
        match class {
            Class::Multi => {
                let step = self.forward_on_path(ticket, request, row, silent);
                if step == Step::Taken {
                    let extra = self.sessions[ticket.slot as usize].extra();
                    if let Transaction::OnLease { open, .. } = &mut extra.transaction {
                        *open = true;
                    }
                }
                step
            }
            Class::Exec | Class::Discard => self.forward_on_path(ticket, request, row, silent),
            Class::Unwatch => self.end_block(ticket, request, class, row, silent),
            Class::Watch | Class::Plain => self.forward_on_path(ticket, request, row, silent),
            Class::Publish => self.publish(ticket, request, row, silent),
            Class::Local(Local::Select) => {
                self.select_on_lease(ticket, request, row, command, silent)
            }
            Class::Local(local) => self.local(ticket, request, local, row, command, silent),
            Class::Subscription(sub) => self.subscription(ticket, request, sub, row, silent),
            _ => {
                // A blocking command and the like stays on the connection whose keys
                // are watched; nobody else uses it.
                let step = self.forward_untimed(ticket, request, row, silent);
                if step == Step::Taken {
                    self.set_barrier(ticket);
                }
                step
            }
        }
    }

    /// Between `MULTI` and `EXEC` on a lease: Redis queues, Redis words errors.
    pub(super) fn on_lease(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        class: Class,
        row: Row,
        silent: bool,
    ) -> Step {
        match class {
            Class::Exec | Class::Discard => self.end_block(ticket, request, class, row, silent),
            _ => {
                let step = self.forward_on_path(ticket, request, row, silent);
                if step == Step::Taken {
                    self.note_queued(ticket, request, class, row);
                }
                step
            }
        }
    }

    fn note_queued(&mut self, ticket: Ticket, request: &Request<'_>, class: Class, row: Row) {
        if matches!(class, Class::Multi | Class::Watch) {
            // Answered with an error at once, and the block goes on.
            return;
        }
        let effect = self.effect_of(ticket, request, class);
        // A script known by its name may write; Redis knows, and holds EXEC on the
        // lease if it has to.
        let write = pause::writes(request, row) == Some(true);
        let session = &mut self.sessions[ticket.slot as usize];
        let Some(conn) = session.lease() else { return };
        if row.flags.contains(CommandFlags::STATE) {
            self.conns[conn as usize].dirty = true;
        }
        let extra = self.sessions[ticket.slot as usize].extra();
        if let Transaction::OnLease {
            queued,
            effects,
            writes,
            unframed,
            ..
        } = &mut extra.transaction
        {
            *unframed |= breaks_framing(class, request);
            *writes |= write;
            if let Some(effect) = effect {
                effects.push((*queued, effect));
            }
            *queued += 1;
        }
    }

    /// `EXEC`, `DISCARD`, `UNWATCH` on the lease: the transaction is over with the
    /// reply, and so is the lease.
    fn end_block(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        class: Class,
        row: Row,
        silent: bool,
    ) -> Step {
        let Some(conn) = self.sessions[ticket.slot as usize].lease() else {
            return self.forward_on_path(ticket, request, row, silent);
        };
        if class == Class::Exec
            && matches!(
                self.sessions[ticket.slot as usize].extra().transaction,
                Transaction::OnLease { unframed: true, .. }
            )
        {
            return self.exec_unframed(ticket, conn, request);
        }
        let has_effects = matches!(
            &self.sessions[ticket.slot as usize].extra().transaction,
            Transaction::OnLease { effects, .. } if !effects.is_empty()
        );
        let mut marks = silent_or(silent, row.marks().with(Marks::EXEC));
        // A user may be allowed MULTI and not DISCARD: then the block stays open.
        let looked_at = has_effects || class != Class::Exec;
        if looked_at {
            marks = marks.with(Marks::WHOLE);
        }
        let step = self.send_on(ticket, conn, request.frame, row.id, marks);
        if step == Step::Taken {
            self.set_barrier(ticket);
            if !looked_at {
                self.block_ended(ticket);
            }
        }
        step
    }

    /// The transaction is over; with the reply, so is the lease.
    pub(super) fn block_ended(&mut self, ticket: Ticket) -> Transaction {
        let extra = self.sessions[ticket.slot as usize].extra();
        if let Some(lease) = &mut extra.lease
            && lease.until == Until::Transaction
        {
            lease.until = match extra.subscriptions.on_lease() {
                true => Until::Unsubscribed,
                false => Until::Reply,
            };
        }
        std::mem::take(&mut extra.transaction)
    }

    /// `DISCARD` or `UNWATCH` on a lease was answered.
    pub(super) fn discard_answered(&mut self, ticket: Ticket, reply: &[u8]) {
        if reply.first() == Some(&b'+') {
            self.block_ended(ticket);
        }
    }

    /// `EXEC` of a block whose reply does not say where it ends: from here on client
    /// and server talk to each other, until either of them closes.
    fn exec_unframed(&mut self, ticket: Ticket, conn: u32, request: &Request<'_>) -> Step {
        if self.must_wait_for_replies(ticket) {
            return Step::Wait;
        }
        if self.is_fed(ticket) {
            // Its messages would come into the middle of what is said from here on.
            self.conns[conn as usize].dirty = true;
            self.sessions[ticket.slot as usize].extra().transaction = Transaction::None;
            self.give_back_lease(ticket);
            self.count_error(ticket, ErrorCause::NotSupported);
            return self.answer(ticket, failure::EXEC_SUBSCRIBED, false);
        }
        self.go_raw(ticket, conn, request.frame);
        let session = &mut self.sessions[ticket.slot as usize];
        session.flags.set(Flags::TUNNEL);
        let extra = session.extra();
        extra.transaction = Transaction::None;
        if let Some(lease) = &mut extra.lease {
            lease.until = Until::Closed;
        }
        Step::Taken
    }

    /// `WATCH`: binds the session to a lease.
    pub(super) fn watch(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
        silent: bool,
    ) -> Step {
        let until = self.until_transaction(ticket);
        match self.wish_lease(ticket, Kind::Lease, until, Patience::InLine) {
            LeaseWish::Held(conn) => {
                let step = self.send_on(
                    ticket,
                    conn,
                    request.frame,
                    row.id,
                    silent_or(silent, row.marks()),
                );
                if step == Step::Taken {
                    self.enter_transaction(
                        ticket,
                        Transaction::OnLease {
                            open: false,
                            watching: true,
                            queued: 0,
                            effects: Vec::new(),
                            writes: false,
                            unframed: false,
                        },
                    );
                }
                step
            }
            LeaseWish::Waits => Step::Wait,
            LeaseWish::Refused(reply) => self.answer(ticket, &reply, silent),
            LeaseWish::NotAtOnce => unreachable!("WATCH waits in line"),
        }
    }

    pub(super) fn leave_transaction(&mut self, ticket: Ticket) {
        self.sessions[ticket.slot as usize].extra().transaction = Transaction::None;
        self.refresh_special(ticket);
    }
}

/// Whether a `CLIENT` request is about clients by their ids or addresses. In a transaction
/// Redis itself would run it, and its clients are Weir's connections.
fn names_clients(request: &Request<'_>) -> bool {
    request.arg(1).is_some_and(|sub| {
        [&b"list"[..], b"kill", b"unblock"]
            .iter()
            .any(|word| sub.eq_ignore_ascii_case(word))
    })
}

/// Whether a queued command makes the reply to `EXEC` one whose end cannot be told
/// from its bytes: confirmations come one per channel, `CLIENT REPLY` leaves out
/// elements that were counted, `HELLO` changes the protocol in the middle.
fn breaks_framing(class: Class, request: &Request<'_>) -> bool {
    match class {
        Class::Subscription(_) | Class::Local(Local::Hello | Local::Auth) => true,
        Class::Local(Local::Client) => request.arg(1).is_some_and(|sub| {
            sub.eq_ignore_ascii_case(b"reply") || sub.eq_ignore_ascii_case(b"tracking")
        }),
        _ => false,
    }
}
