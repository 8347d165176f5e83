//! A transaction whose lease was lost, or taken back, before `EXEC` was sent:
//! nothing of it has run and nothing will.

use super::client::Transaction;
use super::dispatch::{Row, silent_or};
use super::failure;
use super::input::{Request, Step};
use super::worker::State;
use crate::backend::Ticket;
use crate::command::{Class, Command};
use crate::resp::{self};

impl State {
    /// After the lease was lost before `EXEC`: nothing has run and nothing will.
    pub(super) fn in_broken(
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
