//! A request too large for the shared lane streams over a lease: it is neither
//! collected in memory nor does it hold up others.

use super::client::{Flags, Transaction};
use super::dispatch::silent_or;
use super::failure;
use super::leases::{LeaseWish, Patience};
use super::worker::State;
use crate::backend::{Entry, Kind, Marks, Ticket};
use crate::command::Class;
use crate::metrics::{CloseReason, ErrorCause};
use crate::resp::{PartialRequest, RequestLimits};

/// How many bytes may be on their way through Weir for one streaming client, in
/// either direction, before its sender is held back. Enough to keep a fast link
/// busy; small enough that a thousand of them are no burden.
const WINDOW: usize = 1024 * 1024;

/// The same when memory is tight.
const WINDOW_WHEN_TIGHT: usize = 64 * 1024;

impl State {
    /// The request at the front is large and incomplete: `name` is its command.
    /// If it is a `PUBLISH`, `channel` is where to, as far as that is known.
    /// `None` while it has to be collected or waited for.
    pub(super) fn begin_upload(
        &mut self,
        ticket: Ticket,
        name: &[u8],
        channel: Option<&[u8]>,
    ) -> Option<usize> {
        let session = &self.sessions[ticket.slot as usize];
        let front = &self.fronts[session.route as usize];
        let command = front.table.find(name, None);
        let (class, id) = (command.class, command.id.0);
        let in_memory = !matches!(class, Class::Plain | Class::Publish)
            || session.flags.any(Flags::REFUSED.with(Flags::LOCKED_OUT))
            || front.pause.is_some()
            || self.is_monitoring(ticket)
            || !self.is_always_allowed(ticket, command)
            // Refused, if at all, when it is whole, so that the connection can stay.
            || self.over_rate(ticket).is_some()
            || self.is_queueing(ticket);
        if in_memory {
            // Collected, up to the request limit.
            return None;
        }
        let until = self.until_reply(ticket);
        match self.wish_lease(ticket, Kind::Lease, until, Patience::InLine) {
            LeaseWish::Held(conn) => {
                self.start_stream(ticket, conn, id);
                if class == Class::Publish
                    && let Some(channel) = channel
                {
                    self.correct_upload(ticket, conn, name, channel);
                }
                // The bytes at the front are passed on by the caller's next round.
                Some(0)
            }
            LeaseWish::Waits => {
                // Looked at again as soon as the wait is over, not when it is whole.
                self.sessions[ticket.slot as usize].extra().partial = None;
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

    /// Whether the session's block is kept here until `EXEC`, or goes nowhere.
    fn is_queueing(&self, ticket: Ticket) -> bool {
        self.sessions[ticket.slot as usize]
            .extra
            .as_ref()
            .is_some_and(|extra| {
                matches!(
                    extra.transaction,
                    Transaction::Queued { .. } | Transaction::Broken { open: true, .. }
                )
            })
    }

    fn start_stream(&mut self, ticket: Ticket, conn: u32, command: u16) {
        let at = self.clock.now();
        let session = &mut self.sessions[ticket.slot as usize];
        let silent = Flags::REPLY_OFF.with(Flags::SKIP_NEXT);
        let marks = silent_or(session.flags.any(silent), Marks::UNTIMED);
        session.flags.clear(Flags::SKIP_NEXT);
        session.flags.set(Flags::UPLOADING.with(Flags::SPECIAL));
        session.conn = conn;
        session.in_flight += 1;
        session.command = command;
        let extra = session.extra();
        extra.partial = Some(PartialRequest::default());
        extra.stuck_since = at;
        if let Transaction::OnLease {
            open: true, queued, ..
        } = &mut extra.transaction
        {
            *queued += 1;
        }
        self.fronts[session.route as usize].metrics.commands.inc();
        self.pay_command(ticket);
        let connection = &mut self.conns[conn as usize];
        connection.streaming = true;
        connection.mid_request = true;
        connection.in_flight.push_back(Entry {
            to: ticket,
            at,
            len: 0,
            command,
            marks,
        });
    }

    /// Passes bytes of a large request, or of a tunnel, on to the lease.
    pub(super) fn pass_through(&mut self, ticket: Ticket, bytes: &[u8]) {
        let now = self.clock.now();
        let session = &mut self.sessions[ticket.slot as usize];
        let Some(conn) = session.lease() else {
            return self.close(ticket.slot, CloseReason::BackendLost);
        };
        if session.flags.any(Flags::TUNNEL) {
            self.pay_bytes(ticket, bytes.len());
            self.conns[conn as usize].stream(bytes);
            self.mark_dirty(conn);
            return self.hold_back_upload(ticket, conn);
        }
        let limits = RequestLimits {
            bulk_max: self.fronts[session.route as usize].node.bulk_max(),
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
        self.pay_bytes(ticket, fed.consumed);
        self.conns[conn as usize].stream(&bytes[..fed.consumed]);
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
        self.conns[conn as usize].end_stream(now);
    }

    /// How many bytes of one streaming client may be here.
    pub(super) fn window(&self) -> usize {
        if self.memory.is_tight() {
            WINDOW_WHEN_TIGHT
        } else {
            WINDOW
        }
    }

    /// Reads the client no faster than the node takes its bytes.
    fn hold_back_upload(&mut self, ticket: Ticket, conn: u32) {
        if self.conns[conn as usize].ring.unwritten() > self.window()
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
