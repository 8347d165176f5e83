//! A request too large for the shared lane streams over a lease: it is neither
//! collected in memory nor does it hold up others.

use super::client::{Flags, Until};
use super::failure;
use super::lanes::{LeaseWish, Patience};
use super::worker::State;
use crate::backend::{Entry, Kind, Marks, Ticket};
use crate::command::Class;
use crate::metrics::{CloseReason, ErrorCause};
use crate::resp::{PartialRequest, RequestLimits};

/// How many bytes may be on their way through Weir for one streaming client, in
/// either direction, before its sender is held back. Enough to keep a fast link
/// busy; small enough that a thousand of them are no burden.
pub(super) const WINDOW: usize = 1024 * 1024;

impl State {
    /// The request at the front is large and incomplete: `name` is its command.
    /// `None` while it has to be collected or waited for.
    pub(super) fn begin_upload(&mut self, ticket: Ticket, name: &[u8]) -> Option<usize> {
        let session = &self.sessions[ticket.slot as usize];
        let front = &self.fronts[session.route as usize];
        let command = front.table.find(name, None);
        let (class, id) = (command.class, command.id.0);
        let streams = matches!(class, Class::Plain | Class::Publish)
            && !session.flags.any(
                Flags::REFUSED
                    .with(Flags::LOCKED_OUT)
                    .with(Flags::REPLY_OFF)
                    .with(Flags::SKIP_NEXT),
            )
            && front.pause.is_none();
        if !streams {
            // Collected in memory, up to the request limit.
            return None;
        }
        match self.wish_lease(ticket, Kind::Lease, Until::Reply, Patience::InLine) {
            LeaseWish::Held(conn) => {
                let at = self.clock.now();
                let marks = Marks::UNTIMED;
                let connection = &mut self.conns[conn as usize];
                connection.streaming = true;
                // Given back only if the request is sent to its end.
                connection.dirty = true;
                connection.in_flight.push_back(Entry {
                    to: ticket,
                    at,
                    len: 0,
                    command: id,
                    marks,
                });
                let session = &mut self.sessions[ticket.slot as usize];
                session.conn = conn;
                session.in_flight += 1;
                session.command = id;
                session.flags.set(Flags::UPLOADING.with(Flags::SPECIAL));
                session.extra().partial = Some(PartialRequest::default());
                session.extra().stuck_since = at;
                self.fronts[session.route as usize].metrics.commands.inc();
                // The bytes at the front are passed on by the caller's next round.
                Some(0)
            }
            LeaseWish::Waits => {
                // Looked at again as soon as the wait is over, not when it is whole.
                self.sessions[ticket.slot as usize].extra().needed = 0;
                None
            }
            LeaseWish::Refused(reply) => {
                // The rest of the request would have to be read and thrown away;
                // closing tells the same and costs nothing.
                self.write(ticket, &reply);
                self.close_after_output(ticket, CloseReason::RequestLimit);
                None
            }
            LeaseWish::NotAtOnce => unreachable!("uploads wait in line"),
        }
    }

    /// Passes bytes of a large request, or of a tunnel, on to the lease.
    pub(super) fn pass_through(&mut self, ticket: Ticket, bytes: &[u8]) {
        let now = self.clock.now();
        let session = &mut self.sessions[ticket.slot as usize];
        let Some(conn) = session.lease() else {
            return self.close(ticket.slot, CloseReason::BackendLost);
        };
        if session.flags.any(Flags::TUNNEL) {
            self.conns[conn as usize].ring.append(bytes);
            self.mark_dirty(conn);
            return self.hold_back_upload(ticket, conn);
        }
        let limits = RequestLimits {
            bulk_max: self.fronts[session.route as usize].route.node.bulk_max(),
            args_max: i32::MAX as u64,
            unauthenticated: false,
        };
        let extra = session.extra();
        extra.stuck_since = now;
        let Some(partial) = &mut extra.partial else {
            return;
        };
        let fed = match partial.feed(bytes, &limits) {
            Ok(fed) => fed,
            Err(error) => {
                let text = failure::protocol_error(&error);
                self.count_error(ticket, ErrorCause::Protocol);
                self.write(ticket, &text);
                return self.close_after_output(ticket, CloseReason::Protocol);
            }
        };
        self.conns[conn as usize]
            .ring
            .append(&bytes[..fed.consumed]);
        self.mark_dirty(conn);
        if !fed.complete {
            return self.hold_back_upload(ticket, conn);
        }
        let session = &mut self.sessions[ticket.slot as usize];
        session.flags.clear(Flags::UPLOADING);
        session.flags.set(Flags::BARRIER);
        session.input.extend_from_slice(&bytes[fed.consumed..]);
        let extra = session.extra();
        extra.partial = None;
        extra.stuck_since = 0;
        extra.needed = 0;
        let connection = &mut self.conns[conn as usize];
        connection.dirty = false;
        if let Some(entry) = connection.in_flight.back_mut() {
            entry.marks = entry.marks.without(Marks::UNTIMED).with(Marks::SLOW);
            entry.at = now;
        }
    }

    /// Reads the client no faster than the node takes its bytes.
    fn hold_back_upload(&mut self, ticket: Ticket, conn: u32) {
        if self.conns[conn as usize].ring.unwritten() > WINDOW
            && let Some(session) = self.session(ticket)
        {
            session.flags.set(Flags::READ_PAUSED);
        }
    }

    /// A connection has written all it had: its client may send more.
    pub(super) fn after_flush(&mut self, index: u32) {
        let Some(conn) = self.conns.get(index as usize) else {
            return;
        };
        if conn.streaming
            && let crate::backend::Mode::Exclusive(owner) | crate::backend::Mode::Raw(owner) =
                conn.mode
            && self
                .session(owner)
                .is_some_and(|session| session.flags.any(Flags::READ_PAUSED))
        {
            self.read_again(owner);
        }
        if matches!(self.conns[index as usize].io, crate::backend::Io::Link(_)) {
            self.hand_over(index);
        }
    }
}
