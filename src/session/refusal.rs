//! A client that there is no room for. It is told with Redis's own words, which
//! libraries know, as the answer to its first real command: libraries crash on an
//! error that they did not ask for, and fall back to RESP2 on an error to `HELLO`.
//! The socket closes a little later, since a fast close makes them reconnect in a
//! tight loop; what was pipelined behind the first command gets the same answer, since
//! they send again what was never answered.

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

/// What a server that knows nothing of maintenance says to clients that ask for
/// notice of it while they connect.
const NO_NOTIFICATIONS: &[u8] =
    b"-ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.\r\n";

/// A client that does not come to a first command is closed after this long, in
/// microseconds.
pub(super) const SILENT_MAX: u64 = 10_000_000;

impl State {
    /// A command of a client over the limit.
    pub(super) fn refuse_client(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
    ) -> Step {
        let is_word = |index: usize, word: &[u8]| {
            request
                .arg(index)
                .is_some_and(|argument| argument.eq_ignore_ascii_case(word))
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
                    return self.answer_value(ticket, &reply, false);
                }
            }
            Class::Local(Local::Select) => return self.answer(ticket, b"+OK\r\n", false),
            _ => {}
        }
        // By name: an older server does not know all of these, and libraries send them
        // all the same.
        if is_word(0, b"client") {
            if is_word(1, b"setname") || is_word(1, b"setinfo") {
                return self.answer(ticket, b"+OK\r\n", false);
            }
            if is_word(1, b"maint_notifications") {
                return self.answer(ticket, NO_NOTIFICATIONS, false);
            }
        }
        self.count_error(ticket, ErrorCause::MaxClients);
        let now = self.clock.now();
        let spread = CLOSE_AFTER.end - CLOSE_AFTER.start;
        let session = &mut self.sessions[ticket.slot as usize];
        // Any spread will do; ids of clients that come together are neighbours.
        let jitter = session.id.wrapping_mul(0x9E37_79B9_7F4A_7C15) % spread;
        self.expire_refused(ticket, now + CLOSE_AFTER.start + jitter);
        self.answer(ticket, failure::MAX_CLIENTS, false)
    }

    /// Has a refused client closed at this moment, or earlier if that was said before.
    pub(super) fn expire_refused(&mut self, ticket: Ticket, at: u64) {
        let close_at = &mut self.sessions[ticket.slot as usize].extra().close_at;
        if *close_at == 0 || at < *close_at {
            *close_at = at;
        }
    }
}
