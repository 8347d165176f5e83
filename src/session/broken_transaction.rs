//! A transaction whose lease was lost, or taken back, before `EXEC` was sent:
//! nothing of it has run and nothing will.

use super::client::Transaction;
use super::dispatch::Row;
use super::failure;
use super::input::{Request, Step};
use super::worker::State;
use crate::backend::Ticket;
use crate::command::{Class, Command};
use crate::resp;

impl State {
    /// After the lease was lost before `EXEC`: nothing has run and nothing will.
    pub(super) fn in_broken(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        (row, class): (Row, Class),
        command: &Command,
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
            Class::Discard if was_open => {
                self.leave_transaction(ticket);
                self.answer(ticket, b"+OK\r\n", silent)
            }
            Class::Unwatch if !was_open => {
                self.leave_transaction(ticket);
                self.answer(ticket, b"+OK\r\n", silent)
            }
            // The next `EXEC` answers null, whatever else is watched.
            Class::Watch if !was_open => self.answer(ticket, b"+OK\r\n", silent),
            _ if was_open => self.answer(ticket, b"+QUEUED\r\n", silent),
            // Between WATCH and MULTI everything goes on as without; EXEC will answer null.
            _ => self.by_class(ticket, request, &[], (row, class), command, silent),
        }
    }
}
