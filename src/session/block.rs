//! A transaction that goes over the shared connection in one piece: one that is
//! complete in the read buffer, or one that was kept here because no lease was free.

use super::admit::Entrance;
use super::client::{Flags, Transaction};
use super::dispatch::{Row, silent_or};
use super::failure::{self, Failure};
use super::input::{Request, Step};
use super::leases::{LeaseWish, Patience};
use super::pause;
use super::worker::State;
use crate::backend::{Kind, Marks, Ticket};
use crate::command::{Class, Command, CommandId, Flags as CommandFlags};
use crate::metrics::ErrorCause;
use crate::resp::{self, RequestLimits, Scan};

/// A block of more commands than this is not looked for in the read buffer.
const BLOCK_MAX: usize = 4096;

impl State {
    /// The lengths and rows of the commands up to `EXEC`, if they are all there
    /// and none needs more than the shared connection.
    pub(super) fn complete_block(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        following: &[u8],
        row: Row,
    ) -> Option<Vec<(u32, Row)>> {
        let session = &self.sessions[ticket.slot as usize];
        let front = &self.fronts[session.route as usize];
        let large = front.config.backend.large_request as usize;
        let limits = RequestLimits {
            bulk_max: front.node.bulk_max(),
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
            if self.denial(ticket, command, &frame).is_some() {
                return None;
            }
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

    pub(super) fn forward_block(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        following: &[u8],
        block: &[(u32, Row)],
        silent: bool,
    ) -> Step {
        let config = &self.fronts[self.sessions[ticket.slot as usize].route as usize].config;
        let session = &mut self.sessions[ticket.slot as usize];
        // CLIENT REPLY SKIP is for MULTI alone, OFF for all of them.
        let off = session.flags.any(Flags::REPLY_OFF);
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
        let entrance = self.block_entrance(ticket, conn, block.iter().map(|(_, row)| *row));
        match entrance {
            Entrance::Now(_) | Entrance::Line(_) => {}
            Entrance::Barrier => {
                self.set_barrier(ticket);
                return Step::Wait;
            }
            Entrance::Refused(busy) => {
                let failure = Failure::Busy(busy);
                return self.refuse_block(ticket, &failure, block, silent);
            }
        }
        let marks = block_marks(block.iter().map(|(_, row)| *row));
        let (first, marks) = (silent_or(silent, marks), silent_or(off, marks));
        let mut start = 0;
        for (index, (len, row)) in block.iter().enumerate() {
            if index == 0 {
                self.put_by(entrance, ticket, conn, request.frame, row.id, first);
                continue;
            }
            let end = start + *len as usize;
            let last = index + 1 == block.len();
            let marks = if last { marks.with(Marks::EXEC) } else { marks };
            self.put_by(
                entrance,
                ticket,
                conn,
                &following[start..end],
                row.id,
                marks,
            );
            start = end;
        }
        Step::TakenWith(behind_multi)
    }

    /// Nothing of the block is run; each of its commands is told so, or those
    /// behind `MULTI` would run one by one. `silent` is about `MULTI` alone.
    pub(super) fn refuse_block(
        &mut self,
        ticket: Ticket,
        failure: &Failure,
        block: &[(u32, Row)],
        silent: bool,
    ) -> Step {
        if self.must_wait_for_replies(ticket) {
            return Step::Wait;
        }
        let session = &self.sessions[ticket.slot as usize];
        let off = session.flags.any(Flags::REPLY_OFF);
        if matches!(failure, Failure::Busy(_) | Failure::Rate { .. }) {
            let session = &mut self.sessions[ticket.slot as usize];
            session.flags.set(Flags::REFUSING);
        }
        if matches!(failure, Failure::Busy(busy) if busy.is_overload()) {
            self.prune(ticket);
        }
        for index in 0..block.len() {
            let silent = if index == 0 { silent } else { off };
            self.refuse(ticket, failure, silent);
        }
        Step::TakenWith(block[1..].iter().map(|(len, _)| *len as usize).sum())
    }

    /// Between `MULTI` and `EXEC` without a lease: the block is kept here.
    pub(super) fn queue_up(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        class: Class,
        row: Row,
        command: &Command,
        silent: bool,
    ) -> Step {
        if self.must_wait_for_replies(ticket) {
            // A command that Redis words the error for may be under way.
            return Step::Wait;
        }
        let refusal = match &self.sessions[ticket.slot as usize].extra().transaction {
            Transaction::Queued { refusal, .. }
                if !matches!(class, Class::Exec | Class::Discard | Class::Multi) =>
            {
                refusal.clone()
            }
            _ => None,
        };
        if let Some(reply) = refusal {
            self.abort_queue(ticket, class);
            return self.answer(ticket, &reply, silent);
        }
        match class {
            Class::Exec => self.exec_queue(ticket, request, row, silent),
            Class::Discard => {
                self.leave_transaction(ticket);
                self.answer(ticket, b"+OK\r\n", silent)
            }
            _ if !command.accepts(request.count()) => {
                self.abort_queue(ticket, class);
                let reply = failure::wrong_arity(&command.name);
                self.count_error(ticket, ErrorCause::Arguments);
                self.answer(ticket, &reply, silent)
            }
            _ if row.flags.contains(CommandFlags::NO_MULTI) => {
                // In Valkey these are MULTI and WATCH as well.
                self.abort_queue(ticket, class);
                let server = self.node_of(ticket).server_version();
                let text = if server.is_valkey(9, 0) {
                    &*format!(
                        "ERR Command '{}' not allowed inside a transaction",
                        command.name
                    )
                } else {
                    "ERR Command not allowed inside a transaction"
                };
                self.answer_error(ticket, text, ErrorCause::Transaction, silent)
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
            Class::Plain
            | Class::Publish
            | Class::Control
            | Class::Unwatch
            | Class::Wait
            | Class::Blocking(_)
                if !row.flags.contains(CommandFlags::STATE) =>
            {
                self.keep_in_queue(ticket, request, row, silent)
            }
            _ => self.queue_on_lease(ticket, request, class, row, silent),
        }
    }

    /// A command that cannot be kept here: now the block needs a lease after all, and
    /// waits for it.
    fn queue_on_lease(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        class: Class,
        row: Row,
        silent: bool,
    ) -> Step {
        if let Transaction::Queued { aborted: true, .. } =
            &self.sessions[ticket.slot as usize].extra().transaction
        {
            return self.answer(ticket, b"+QUEUED\r\n", silent);
        }
        let until = self.until_transaction(ticket);
        match self.wish_lease(ticket, Kind::Lease, until, Patience::InLine) {
            LeaseWish::Held(conn) => {
                self.replay_queue(ticket, conn);
                self.on_lease(ticket, request, class, row, silent)
            }
            LeaseWish::Waits => Step::Wait,
            LeaseWish::Refused(reply) => {
                self.abort_queue(ticket, class);
                self.answer(ticket, &reply, silent)
            }
            LeaseWish::NotAtOnce => unreachable!("what cannot be kept waits in line"),
        }
    }

    /// Puts what was kept on the lease; its replies were given already.
    fn replay_queue(&mut self, ticket: Ticket, conn: u32) {
        let extra = self.sessions[ticket.slot as usize].extra();
        let Transaction::Queued {
            block,
            commands,
            writes,
            ..
        } = std::mem::take(&mut extra.transaction)
        else {
            unreachable!("the caller has looked");
        };
        self.put_kept(None, ticket, conn, &block, &commands, Marks::NONE);
        let transaction = Transaction::OnLease {
            open: true,
            watching: false,
            // All but MULTI itself.
            queued: commands.len() as u32 - 1,
            effects: Vec::new(),
            writes,
            unframed: false,
        };
        self.enter_transaction(ticket, transaction);
    }

    /// `entrance` is how the block goes, unless to a lease.
    fn put_kept(
        &mut self,
        entrance: Option<Entrance>,
        ticket: Ticket,
        conn: u32,
        block: &[u8],
        commands: &[(u32, u16)],
        marks: Marks,
    ) {
        let mut start = 0;
        for &(len, id) in commands {
            let end = start + len as usize;
            let marks = marks.with(Marks::SILENT);
            match entrance {
                Some(entrance) => {
                    self.put_by(entrance, ticket, conn, &block[start..end], id, marks);
                }
                None => self.put(ticket, conn, &block[start..end], id, marks),
            }
            start = end;
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
            .config
            .backend
            .large_request as usize;
        let extra = self.sessions[ticket.slot as usize].extra();
        let Transaction::Queued {
            block,
            commands,
            aborted,
            writes,
            ..
        } = &mut extra.transaction
        else {
            unreachable!("the caller has looked");
        };
        if *aborted {
            return self.answer(ticket, b"+QUEUED\r\n", silent);
        }
        if block.len() + request.frame.len() > limit {
            return self.queue_on_lease(ticket, request, row.class, row, silent);
        }
        // What a script that is known by its name does is not known here.
        *writes |= pause::writes(request, row) != Some(false);
        block.extend_from_slice(request.frame);
        commands.push((request.frame.len() as u32, row.id));
        self.answer(ticket, b"+QUEUED\r\n", silent)
    }

    /// A command was refused: if the block is kept here, its `EXEC` will fail. If it was
    /// `EXEC` itself, the block is over.
    pub(super) fn abort_queue(&mut self, ticket: Ticket, class: Class) {
        let session = &mut self.sessions[ticket.slot as usize];
        let Some(extra) = &mut session.extra else {
            return;
        };
        let Transaction::Queued {
            aborted,
            block,
            commands,
            refusal,
            ..
        } = &mut extra.transaction
        else {
            return;
        };
        *aborted = true;
        *refusal = None;
        *block = Vec::new();
        *commands = Vec::new();
        if class == Class::Exec {
            self.leave_transaction(ticket);
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
            ..
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
        let entrance = self.block_entrance(ticket, conn, rows.clone());
        if let Entrance::Refused(busy) = entrance {
            self.count_refusal(ticket, busy);
            return self.answer(ticket, busy.reply(Marks::EXEC), silent);
        }
        let marks = block_marks(rows);
        // Their replies were given already; EXEC's is the one that counts.
        self.put_kept(Some(entrance), ticket, conn, &block, &commands, marks);
        let marks = silent_or(silent, marks.with(Marks::EXEC));
        self.put_by(entrance, ticket, conn, request.frame, row.id, marks);
        Step::Taken
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
