//! `MULTI` to `EXEC` (COMMANDS.md 1.3). A block that is complete in the read
//! buffer goes over the shared connection in one piece; one that comes command
//! by command takes a lease if one is free at once, else it is kept here and
//! goes in one piece at `EXEC`. After `WATCH`, a lease.

use super::client::{Flags, Transaction, Until};
use super::dispatch::Row;
use super::failure::{self, Failure};
use super::input::{Request, Step};
use super::lanes::{LeaseWish, Patience};
use super::worker::State;
use crate::backend::{Kind, Marks, Ticket};
use crate::command::{Class, Command, CommandId, Flags as CommandFlags, Local};
use crate::metrics::ErrorCause;
use crate::resp::{self, RequestLimits, Scan};

/// A block of more commands than this is not looked for in the read buffer.
const BLOCK_MAX: usize = 4096;

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
        let session = &self.sessions[ticket.slot as usize];
        if session.lease().is_none()
            && let Some(block) = self.complete_block(ticket, request, following, row)
        {
            return self.forward_block(ticket, request, following, &block, silent);
        }
        match self.wish_lease(
            ticket,
            Kind::Lease,
            self.until_transaction(ticket),
            Patience::AtOnce,
        ) {
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
                            selects: Vec::new(),
                            unframed: false,
                        },
                    );
                }
                step
            }
            LeaseWish::Waits => Step::Wait,
            LeaseWish::Refused(_) | LeaseWish::NotAtOnce => {
                let step = self.answer(ticket, b"+OK\r\n", silent);
                if step == Step::Taken {
                    let commands = vec![(request.frame.len() as u32, row.id)];
                    self.enter_transaction(
                        ticket,
                        Transaction::Queued {
                            block: request.frame.to_vec(),
                            commands,
                            aborted: false,
                        },
                    );
                }
                step
            }
        }
    }

    /// A lease that is held for longer anyway stays so.
    fn until_transaction(&self, ticket: Ticket) -> Until {
        let session = &self.sessions[ticket.slot as usize];
        match session.extra.as_ref().and_then(|extra| extra.lease) {
            Some(lease) if lease.until != Until::Reply => lease.until,
            _ => Until::Transaction,
        }
    }

    fn enter_transaction(&mut self, ticket: Ticket, transaction: Transaction) {
        let session = &mut self.sessions[ticket.slot as usize];
        session.flags.set(Flags::SPECIAL);
        session.extra().transaction = transaction;
    }

    /// The lengths and rows of the commands up to `EXEC`, if they are all there
    /// and none needs more than the shared connection.
    fn complete_block(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        following: &[u8],
        row: Row,
    ) -> Option<Vec<(u32, Row)>> {
        let session = &self.sessions[ticket.slot as usize];
        let front = &self.fronts[session.route as usize];
        let large = front.route.node.config.large_request as usize;
        let limits = RequestLimits {
            bulk_max: front.route.node.bulk_max(),
            args_max: i32::MAX as u64,
            unauthenticated: false,
        };
        let mut block = vec![(request.frame.len() as u32, row)];
        let mut spans = Vec::new();
        let mut used = 0;
        while block.len() < BLOCK_MAX && used < large {
            let rest = &following[used..];
            let Ok(Scan::Request {
                len,
                canonical: true,
            }) = resp::scan_request(rest, &limits, &mut spans)
            else {
                return None;
            };
            let frame = Request {
                frame: &rest[..len],
                spans: &spans,
                canonical: true,
            };
            let command = front.table.find(frame.arg(0)?, frame.arg(1));
            let row = Row {
                id: command.id.0,
                class: command.class,
                flags: command.flags,
            };
            block.push((len as u32, row));
            used += len;
            match command.class {
                Class::Plain | Class::Publish if !row.flags.contains(CommandFlags::STATE) => {}
                Class::Exec if command.accepts(frame.count()) => return Some(block),
                // Not DISCARD: a user who may not use it would leave the shared
                // connection in the transaction, which a refused EXEC ends.
                _ => return None,
            }
        }
        None
    }

    fn forward_block(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        following: &[u8],
        block: &[(u32, Row)],
        silent: bool,
    ) -> Step {
        let config = &self.fronts[self.sessions[ticket.slot as usize].route as usize]
            .route
            .config;
        let session = &mut self.sessions[ticket.slot as usize];
        if session.in_flight > 0
            && session.in_flight as usize + block.len() > config.clients.in_flight_max as usize
        {
            session.flags.set(Flags::BARRIER);
            return Step::Wait;
        }
        let behind_multi = block[1..].iter().map(|(len, _)| *len as usize).sum();
        // One connection for the whole block, or none: half of it would leave Redis
        // queueing what other clients send.
        let conn = match self.shared_conn(ticket) {
            Ok(Some(conn)) => conn,
            Ok(None) => return Step::Wait,
            Err(failure) => return self.refuse_block(ticket, &failure, block, silent),
        };
        let marks = silent_or(silent, block_marks(block.iter().map(|(_, row)| *row)));
        let mut start = 0;
        for (index, (len, row)) in block.iter().enumerate() {
            if index == 0 {
                self.put(ticket, conn, request.frame, row.id, marks);
                continue;
            }
            let end = start + *len as usize;
            let last = index + 1 == block.len();
            let marks = if last { marks.with(Marks::EXEC) } else { marks };
            self.put(ticket, conn, &following[start..end], row.id, marks);
            start = end;
        }
        Step::TakenWith(behind_multi)
    }

    /// Nothing of the block is run; each of its commands is told so, or those
    /// behind `MULTI` would run one by one.
    fn refuse_block(
        &mut self,
        ticket: Ticket,
        failure: &Failure,
        block: &[(u32, Row)],
        silent: bool,
    ) -> Step {
        if self.must_wait_for_replies(ticket) {
            return Step::Wait;
        }
        for _ in block {
            self.refuse(ticket, failure, silent);
        }
        Step::TakenWith(block[1..].iter().map(|(len, _)| *len as usize).sum())
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
        match &self.sessions[ticket.slot as usize]
            .extra
            .as_ref()
            .expect("in a block")
            .transaction
        {
            Transaction::None => unreachable!("only called in a transaction"),
            Transaction::OnLease { open: false, .. } => {
                self.while_watching(ticket, request, class, row, command, silent)
            }
            Transaction::OnLease { .. } => self.on_lease(ticket, request, class, row, silent),
            Transaction::Queued { .. } => {
                self.queue_up(ticket, request, class, row, command, silent)
            }
            Transaction::Broken { .. } => self.in_broken(ticket, class, command, request, silent),
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
            Class::Watch | Class::Plain | Class::Publish => {
                self.forward_on_path(ticket, request, row, silent)
            }
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
    fn on_lease(
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
        let session = &mut self.sessions[ticket.slot as usize];
        let Some(conn) = session.lease() else { return };
        if row.flags.contains(CommandFlags::STATE) {
            self.conns[conn as usize].dirty = true;
        }
        let extra = self.sessions[ticket.slot as usize].extra();
        if let Transaction::OnLease {
            queued,
            selects,
            unframed,
            ..
        } = &mut extra.transaction
        {
            if matches!(class, Class::Multi | Class::Watch) {
                // Answered with an error at once, and the block goes on.
                return;
            }
            *unframed |= breaks_framing(class, request);
            if class == Class::Local(Local::Select)
                && let Some(db) = request
                    .arg(1)
                    .and_then(|arg| std::str::from_utf8(arg).ok())
                    .and_then(|text| text.parse().ok())
            {
                selects.push((*queued, db));
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
        let has_selects = matches!(
            &self.sessions[ticket.slot as usize].extra().transaction,
            Transaction::OnLease { selects, .. } if !selects.is_empty()
        );
        let mut marks = silent_or(silent, row.marks().with(Marks::EXEC));
        if has_selects {
            marks = marks.with(Marks::WHOLE);
        }
        let step = self.send_on(ticket, conn, request.frame, row.id, marks);
        if step == Step::Taken {
            self.set_barrier(ticket);
            let extra = self.sessions[ticket.slot as usize].extra();
            if !has_selects {
                extra.transaction = Transaction::None;
            }
            if let Some(lease) = &mut extra.lease
                && lease.until == Until::Transaction
            {
                lease.until = Until::Reply;
            }
        }
        step
    }

    /// `EXEC` of a block whose reply does not say where it ends: from here on client
    /// and server talk to each other, until either of them closes.
    fn exec_unframed(&mut self, ticket: Ticket, conn: u32, request: &Request<'_>) -> Step {
        if self.must_wait_for_replies(ticket) {
            return Step::Wait;
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
                            selects: Vec::new(),
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

    /// Between `MULTI` and `EXEC` without a lease: the block is kept here.
    fn queue_up(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        class: Class,
        row: Row,
        command: &Command,
        silent: bool,
    ) -> Step {
        match class {
            Class::Exec => self.exec_queue(ticket, request, row, silent),
            Class::Discard => {
                self.leave_transaction(ticket);
                self.answer(ticket, b"+OK\r\n", silent)
            }
            Class::Multi => self.answer_error(
                ticket,
                "ERR MULTI calls can not be nested",
                ErrorCause::Transaction,
                silent,
            ),
            Class::Watch => self.answer_error(
                ticket,
                "ERR WATCH inside MULTI is not allowed",
                ErrorCause::Transaction,
                silent,
            ),
            Class::Plain | Class::Publish | Class::Unwatch | Class::Wait | Class::Blocking(_)
                if !row
                    .flags
                    .intersects(CommandFlags::NO_MULTI | CommandFlags::STATE) =>
            {
                self.keep_in_queue(ticket, request, row, silent)
            }
            _ => {
                self.abort_queue(ticket);
                if !command.accepts(request.count()) {
                    let reply = failure::wrong_arity(&command.name);
                    self.count_error(ticket, ErrorCause::Arguments);
                    return self.answer(ticket, &reply, silent);
                }
                let text = if row.flags.contains(CommandFlags::NO_MULTI) {
                    "ERR Command not allowed inside a transaction"
                } else {
                    "BUSY weir: this command inside MULTI needs a lease and none is free \
                     (max_leases), command not executed"
                };
                self.answer_error(ticket, text, ErrorCause::Transaction, silent)
            }
        }
    }

    fn keep_in_queue(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
        silent: bool,
    ) -> Step {
        let session = &self.sessions[ticket.slot as usize];
        let limit = self.fronts[session.route as usize]
            .route
            .node
            .config
            .large_request as usize;
        let extra = self.sessions[ticket.slot as usize].extra();
        let Transaction::Queued {
            block,
            commands,
            aborted,
        } = &mut extra.transaction
        else {
            unreachable!("the caller has looked");
        };
        if *aborted {
            return self.answer(ticket, b"+QUEUED\r\n", silent);
        }
        if block.len() + request.frame.len() > limit {
            self.abort_queue(ticket);
            return self.answer_error(
                ticket,
                "BUSY weir: the block is too large to be kept without a lease \
                 (max_leases, large_request), command not executed",
                ErrorCause::Transaction,
                silent,
            );
        }
        block.extend_from_slice(request.frame);
        commands.push((request.frame.len() as u32, row.id));
        self.answer(ticket, b"+QUEUED\r\n", silent)
    }

    /// A command was refused: if the block is kept here, its `EXEC` will fail.
    pub(super) fn abort_queue(&mut self, ticket: Ticket) {
        let session = &mut self.sessions[ticket.slot as usize];
        if let Some(extra) = &mut session.extra
            && let Transaction::Queued {
                aborted,
                block,
                commands,
            } = &mut extra.transaction
        {
            *aborted = true;
            *block = Vec::new();
            *commands = Vec::new();
        }
    }

    fn exec_queue(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
        silent: bool,
    ) -> Step {
        if self.must_wait_for_replies(ticket) {
            return Step::Wait;
        }
        let extra = self.sessions[ticket.slot as usize].extra();
        let Transaction::Queued {
            block,
            commands,
            aborted,
        } = std::mem::take(&mut extra.transaction)
        else {
            unreachable!("the caller has looked");
        };
        self.refresh_special(ticket);
        if aborted {
            return self.answer(ticket, failure::EXEC_ABORT, silent);
        }
        let conn = match self.shared_conn(ticket) {
            Ok(Some(conn)) => conn,
            Ok(None) => unreachable!("every earlier reply has arrived"),
            Err(failure) => {
                self.count_error(ticket, failure.cause());
                return self.answer(ticket, &failure.exec_abort(), silent);
            }
        };
        let table = self.fronts[self.sessions[ticket.slot as usize].route as usize]
            .table
            .clone();
        let rows = commands.iter().map(|&(_, id)| {
            let command = table.by_id(CommandId(id));
            Row {
                id,
                class: command.class,
                flags: command.flags,
            }
        });
        let marks = block_marks(rows);
        let mut start = 0;
        for &(len, id) in &commands {
            let end = start + len as usize;
            // Their replies were given already; EXEC's is the one that counts.
            let marks = marks.with(Marks::SILENT);
            self.put(ticket, conn, &block[start..end], id, marks);
            start = end;
        }
        let marks = silent_or(silent, marks.with(Marks::EXEC));
        self.put(ticket, conn, request.frame, row.id, marks);
        Step::Taken
    }

    fn leave_transaction(&mut self, ticket: Ticket) {
        self.sessions[ticket.slot as usize].extra().transaction = Transaction::None;
        self.refresh_special(ticket);
    }

    /// After the lease was lost before `EXEC`: nothing has run and nothing will.
    fn in_broken(
        &mut self,
        ticket: Ticket,
        class: Class,
        command: &Command,
        request: &Request<'_>,
        silent: bool,
    ) -> Step {
        if self.must_wait_for_replies(ticket) {
            return Step::Wait;
        }
        let extra = self.sessions[ticket.slot as usize].extra();
        let Transaction::Broken { open, watching } = &mut extra.transaction else {
            unreachable!("the caller has looked");
        };
        let (was_open, watching) = (*open, *watching);
        match class {
            Class::Multi if !was_open => {
                *open = true;
                self.answer(ticket, b"+OK\r\n", silent)
            }
            Class::Exec if was_open => {
                self.leave_transaction(ticket);
                if watching {
                    let null = if self.version_of(ticket) == resp::Version::Resp3 {
                        b"_\r\n".as_slice()
                    } else {
                        b"*-1\r\n"
                    };
                    return self.answer(ticket, null, silent);
                }
                self.answer(ticket, failure::EXEC_LEASE_LOST, silent)
            }
            Class::Discard | Class::Unwatch => {
                self.leave_transaction(ticket);
                self.answer(ticket, b"+OK\r\n", silent)
            }
            _ if was_open => self.answer(ticket, b"+QUEUED\r\n", silent),
            Class::Local(local) => {
                let row = Row {
                    id: command.id.0,
                    class,
                    flags: command.flags,
                };
                self.local(ticket, request, local, row, command, silent)
            }
            _ => {
                // Between WATCH and MULTI reads go on; EXEC will answer null.
                let row = Row {
                    id: command.id.0,
                    class,
                    flags: command.flags,
                };
                self.forward(
                    ticket,
                    request.frame,
                    row.id,
                    silent_or(silent, row.marks()),
                )
            }
        }
    }
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

/// How the replies to a block's commands are treated. All have the same deadline: a
/// block of which only a part has expired could not be taken back.
fn block_marks(rows: impl IntoIterator<Item = Row>) -> Marks {
    let slow = rows
        .into_iter()
        .any(|row| row.flags.contains(CommandFlags::SLOW));
    if slow {
        Marks::IN_BLOCK.with(Marks::SLOW)
    } else {
        Marks::IN_BLOCK
    }
}

/// `marks`, and [`Marks::SILENT`] if the client is not to see the reply.
pub(super) fn silent_or(silent: bool, marks: Marks) -> Marks {
    if silent {
        marks.with(Marks::SILENT)
    } else {
        marks
    }
}
