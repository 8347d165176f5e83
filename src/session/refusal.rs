//! A client that there is no room for. It is told with Redis's own words, which
//! libraries know, as the answer to its first real command: libraries crash on an
//! error that they did not ask for, and fall back to RESP2 on an error to `HELLO`.
//! The socket closes a little later, since a fast close makes them reconnect in a
//! tight loop.

use super::client::Flags;
use super::dispatch::Row;
use super::failure;
use super::hello;
use super::input::{Request, Step};
use super::worker::State;
use crate::backend::Ticket;
use crate::command::{Class, Local};
use crate::metrics::ErrorCause;

/// The socket closes between these two after the refusal, in microseconds.
const CLOSE_AFTER: std::ops::Range<u64> = 100_000..1_000_000;

/// A client that says nothing at all is closed after this long, in microseconds.
pub(super) const SILENT_MAX: u64 = 10_000_000;

impl State {
    /// A command of a client over the limit.
    pub(super) fn refuse_client(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
    ) -> Step {
        let now = self.clock.now();
        let is_sub = |word: &[u8]| {
            request
                .arg(1)
                .is_some_and(|sub| sub.eq_ignore_ascii_case(word))
        };
        match row.class {
            Class::Local(Local::Quit) => return self.quit(ticket, false),
            Class::Local(Local::Hello) => {
                let facts = self.node_of(ticket).facts();
                if let Ok(hello) = hello::parse(request, facts.server_version())
                    && !hello.authenticates()
                {
                    let session = &mut self.sessions[ticket.slot as usize];
                    if let Some(version) = hello.version {
                        session.partition.version = version;
                    }
                    let (id, version) = (session.id, session.partition.version);
                    let reply = hello::hello_reply(&facts, id, version);
                    self.expire_refused(ticket, now + SILENT_MAX);
                    return self.answer_value(ticket, &reply, false);
                }
            }
            Class::Local(Local::Select) => {
                self.expire_refused(ticket, now + SILENT_MAX);
                return self.answer(ticket, b"+OK\r\n", false);
            }
            Class::Local(Local::Client) if is_sub(b"setname") || is_sub(b"setinfo") => {
                self.expire_refused(ticket, now + SILENT_MAX);
                return self.answer(ticket, b"+OK\r\n", false);
            }
            _ => {}
        }
        self.answer(ticket, failure::MAX_CLIENTS, false);
        self.count_error(ticket, ErrorCause::MaxClients);
        let spread = CLOSE_AFTER.end - CLOSE_AFTER.start;
        let session = &mut self.sessions[ticket.slot as usize];
        // Any spread will do; ids of clients that come together are neighbours.
        let jitter = session.id.wrapping_mul(0x9E37_79B9_7F4A_7C15) % spread;
        session.flags.set(Flags::WAITING);
        session.input = Vec::new();
        self.expire_refused(ticket, now + CLOSE_AFTER.start + jitter);
        Step::Taken
    }

    /// Has a refused client closed at this moment.
    pub(super) fn expire_refused(&mut self, ticket: Ticket, at: u64) {
        self.sessions[ticket.slot as usize].extra().close_at = at;
    }
}
