//! From replies to the client's socket, and the end of a session.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

use super::client::{Flags, HALTED, NONE, Session, Until};
use super::registry::Census;
use super::worker::State;
use crate::admission::ClientPermit;
use crate::backend::{Conn, Mode, Ticket};
use crate::metrics::CloseReason;

/// What became of bytes for a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Written {
    /// The socket took them all.
    All,
    /// Some wait in the output buffer, which is now this long.
    Buffered(usize),
    /// The socket failed.
    Failed,
}

impl Session {
    /// Sends bytes to the client: straight to the socket if nothing waits
    /// before them.
    #[inline]
    pub fn send(&mut self, bytes: &[u8]) -> Written {
        if bytes.is_empty() {
            return Written::All;
        }
        let taken = if self.output.is_empty() {
            match self.socket.try_write(bytes) {
                Ok(n) if n == bytes.len() => return Written::All,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(_) => return Written::Failed,
            }
        } else {
            0
        };
        self.output.push(&bytes[taken..]);
        Written::Buffered(self.output.len())
    }
}

impl State {
    /// Sends bytes that Weir made itself, or a reply that it has looked at.
    pub(super) fn write(&mut self, ticket: Ticket, bytes: &[u8]) {
        let Some(session) = self.session(ticket) else {
            return;
        };
        let written = session.send(bytes);
        self.after_write(ticket, written, bytes.len());
    }

    /// Sees to the rest when not all could be written.
    pub(super) fn after_write(&mut self, ticket: Ticket, written: Written, len: usize) {
        let now = self.clock.now();
        let session = &mut self.sessions[ticket.slot as usize];
        let front = &self.fronts[session.route as usize];
        front.metrics.bytes_out.add(len as u64);
        match written {
            Written::All => {}
            Written::Failed => self.fail(ticket, CloseReason::ByClient),
            Written::Buffered(waiting) => {
                let limit = front.config.clients.output_max;
                if waiting as u64 > limit + session.replies.largest() {
                    return self.fail(ticket, CloseReason::OutputLimit);
                }
                if !session.flags.any(Flags::WRITING) {
                    session.flags.set(Flags::WRITING);
                    session.extra().stuck_since = now;
                    self.blocked_writers.push(ticket);
                }
                self.recount_memory(ticket);
            }
        }
    }

    /// The client's socket takes bytes again.
    pub(super) fn poll_write(&mut self, ticket: Ticket, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.clock.now();
        let Some(session) = self.session(ticket) else {
            return Poll::Ready(());
        };
        while !session.output.is_empty() {
            let (slices, used) = session.output.slices();
            match Pin::new(&mut session.socket).poll_write_vectored(cx, &slices[..used]) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(n)) if n > 0 => {
                    session.output.advance(n);
                    session.active_at = now;
                    session.extra().stuck_since = now;
                }
                Poll::Ready(_) => {
                    self.close(ticket.slot, CloseReason::ByClient);
                    return Poll::Ready(());
                }
            }
        }
        session.flags.clear(Flags::WRITING);
        session.extra().stuck_since = 0;
        self.make_ready(ticket);
        self.read_lease_again(ticket);
        Poll::Ready(())
    }

    /// Has the session looked at again in this turn.
    pub(super) fn make_ready(&mut self, ticket: Ticket) {
        let Some(session) = self.session(ticket) else {
            return;
        };
        if !session.flags.any(Flags::READY) {
            session.flags.set(Flags::READY);
            self.ready.push(ticket);
        }
    }

    /// Has the session closed in this turn, for a reason, from where it cannot
    /// be done at once.
    pub(super) fn fail(&mut self, ticket: Ticket, reason: CloseReason) {
        let Some(session) = self.session(ticket) else {
            return;
        };
        session.extra().close_reason.get_or_insert(reason);
        session.flags.set(Flags::CLOSING);
        session.output.clear();
        self.make_ready(ticket);
    }

    /// Goes on with a session after replies have arrived, output has drained or
    /// something it waited for has come about.
    pub(super) fn go_on(&mut self, ticket: Ticket) {
        let Some(session) = self.session(ticket) else {
            return;
        };
        session.flags.clear(Flags::READY);
        if session.in_flight == 0 {
            session.conn = NONE;
            if session.flags.any(Flags::BARRIER) {
                session.flags.clear(Flags::BARRIER);
                session.replies.end_round();
            }
            self.write_held_pushes(ticket);
            let Some(session) = self.session(ticket) else {
                return;
            };
            if session.flags.any(Flags::SPECIAL) {
                self.finish_lease_if_done(ticket);
            }
        }
        self.recount(ticket);
        let Some(session) = self.session(ticket) else {
            return;
        };
        if session.flags.any(Flags::CLOSING) {
            let extra = session.extra.as_deref();
            let takes_leave = extra.is_some_and(|extra| extra.takes_leave);
            if session.output.is_empty() && !takes_leave {
                let reason = extra.and_then(|extra| extra.close_reason);
                self.close(ticket.slot, reason.unwrap_or(CloseReason::ByClient));
            }
            return;
        }
        if session.flags.any(Flags::LEAVING) && self.drain_session(ticket) {
            return;
        }
        let session = &self.sessions[ticket.slot as usize];
        if !session.flags.any(HALTED) && !session.input.is_empty() {
            self.take_buffered(ticket);
        }
        let Some(session) = self.session(ticket) else {
            return;
        };
        if session.flags.any(Flags::READ_PAUSED) && !self.must_hold_back(ticket) {
            self.read_again(ticket);
        }
        if self
            .session(ticket)
            .is_some_and(|session| session.flags.any(Flags::EOF))
        {
            self.wind_down(ticket);
        }
        self.recount_memory(ticket);
    }

    fn must_hold_back(&mut self, ticket: Ticket) -> bool {
        let session = &self.sessions[ticket.slot as usize];
        let config = &self.fronts[session.route as usize].config;
        let unwritten = session
            .lease()
            .and_then(|conn| self.conns.get(conn as usize))
            .map_or(0, |conn| conn.ring.unwritten());
        (session.flags.any(HALTED) && session.input.len() > config.clients.pipeline_buffer as usize)
            || unwritten > self.window()
    }

    /// Reads the client's socket again.
    pub(super) fn read_again(&mut self, ticket: Ticket) {
        let Some(session) = self.session(ticket) else {
            return;
        };
        session.flags.clear(Flags::READ_PAUSED);
        if let Some(waker) = session.extra.as_mut().and_then(|extra| extra.waker.take()) {
            waker.wake();
        }
    }

    /// Closes once the output is written; nothing more is taken from the input.
    pub(super) fn close_after_output(&mut self, ticket: Ticket, reason: CloseReason) {
        let Some(session) = self.session(ticket) else {
            return;
        };
        session.flags.set(Flags::CLOSING);
        session.input = Vec::new();
        session.extra().close_reason.get_or_insert(reason);
        if session.output.is_empty() {
            self.make_ready(ticket);
        }
    }

    /// Ends a session at once, if it is still there: its place may be another's by now.
    pub(super) fn close_session(&mut self, ticket: Ticket, reason: CloseReason) {
        if self.session(ticket).is_some() {
            self.close(ticket.slot, reason);
        }
    }

    /// Ends a session at once. What it has in flight keeps its place in the
    /// reply queues and is thrown away when it arrives.
    pub(super) fn close(&mut self, slot: u32, reason: CloseReason) {
        // Its place is given back by that.
        drop(self.end(slot, reason));
    }

    /// The same; returns its place among the clients, if it had one.
    pub(super) fn end(&mut self, slot: u32, reason: CloseReason) -> Option<ClientPermit> {
        let mut session = self.sessions.try_remove(slot as usize)?;
        if session.permit.is_some() {
            self.fronts[session.route as usize]
                .metrics
                .client_closed(reason);
        } else {
            self.refused_now -= 1;
        }
        session.task.abort();
        if let Some(extra) = &session.extra {
            self.leave_meters(&extra.meters);
        }
        self.memory.client_gone(&session);
        let metrics = &self.fronts[session.route as usize].metrics;
        metrics.buffered_bytes.add(-(session.charged as i64));
        self.proxy.lower_load(self.index);
        if let Some(extra) = &session.extra {
            self.change_census(session.route, extra.census, Census::default());
        }
        if let Some(extra) = session.extra.as_deref_mut() {
            self.leave_feed(slot, session.route, extra);
        }
        if let Some(receiver) = session
            .extra
            .as_mut()
            .and_then(|extra| extra.receiver.take())
        {
            self.close_conn(receiver);
        }
        let asked = session.extra.as_mut().and_then(|it| it.asked_pause.take());
        if let Some(asked) = asked {
            self.take_pause_back(session.route, *asked);
        }
        let wait = session.extra.as_mut().and_then(|it| it.shared_wait.take());
        if let Some(wait) = wait {
            let ticket = session.ticket(slot);
            self.leave_lobby(ticket, session.route, &wait);
        }
        if let Some(lease) = session.extra.as_mut().and_then(|extra| extra.lease.take()) {
            let clean = session.in_flight == 0 && lease.until == Until::Reply;
            self.end_lease(lease.conn, clean);
        }
        self.leave_hold(&session, session.ticket(slot));
        if session.flags.any(Flags::PAUSED) {
            self.forget_paused(slot, session.route);
        }
        if session.flags.any(Flags::STASHED) {
            self.drop_stash(session.ticket(slot));
        }
        self.leave_lane(session.lane);
        self.leave_lane(session.reader);
        session.permit
    }
}

impl State {
    fn read_lease_again(&mut self, ticket: Ticket) {
        let lease = self.session(ticket).and_then(|session| session.lease());
        if let Some(conn) = lease.and_then(|conn| self.conns.get_mut(conn as usize))
            && let Some(waker) = conn.reader.take()
        {
            waker.wake();
        }
    }

    /// Whether the client of an exclusive connection holds more unread output than
    /// it should. The connection is not read then, and TCP holds back the node.
    pub(super) fn owner_is_full(&self, conn: &Conn) -> bool {
        let (Mode::Exclusive(owner) | Mode::Raw(owner)) = conn.mode else {
            return self.feed_is_backlogged(conn);
        };
        self.sessions
            .get(owner.slot as usize)
            .is_some_and(|session| session.output.len() > self.window())
    }
}
