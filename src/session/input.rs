//! From bytes of a client to commands: framing, backpressure, the end of input.

use super::client::{Flags, HALTED};
use super::failure;
use super::worker::State;
use crate::backend::{Kind, Mode, Ticket};
use crate::command::{Class, CommandId};
use crate::metrics::{CloseReason, ErrorCause};
use crate::resp::{self, PartialRequest, RequestLimits, Scan, Span};

/// A whole command in the input.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Its bytes, as they came in.
    pub frame: &'a [u8],
    /// Where its arguments are in the frame.
    pub spans: &'a [Span],
    /// The bytes may be forwarded as they are.
    pub canonical: bool,
}

impl<'a> Request<'a> {
    /// The argument at `index`; 0 is the command's name.
    #[inline]
    pub fn arg(&self, index: usize) -> Option<&'a [u8]> {
        let span = self.spans.get(index)?;
        Some(&self.frame[span.start as usize..span.end as usize])
    }

    /// All arguments, the name first.
    pub fn args(&self) -> Vec<&'a [u8]> {
        self.spans
            .iter()
            .map(|span| &self.frame[span.start as usize..span.end as usize])
            .collect()
    }

    /// How many arguments there are, the name included.
    #[inline]
    pub fn count(&self) -> usize {
        self.spans.len()
    }
}

/// What became of the command at the front of the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// It was taken.
    Taken,
    /// It was taken with this many bytes that follow it.
    TakenWith(usize),
    /// It stays at the front until the session goes on.
    Wait,
    /// The session is no more.
    Gone,
}

impl State {
    /// A client sent `bytes`.
    pub(super) fn on_input(&mut self, ticket: Ticket, bytes: &[u8]) {
        let now = self.clock.now();
        let session = &mut self.sessions[ticket.slot as usize];
        session.active_at = now;
        let flags = session.flags;
        let metrics = &self.fronts[session.route as usize].metrics;
        metrics.bytes_in.add(bytes.len() as u64);
        if flags.any(Flags::CLOSING) {
            return;
        }
        if flags.any(Flags::TUNNEL.with(Flags::UPLOADING)) && session.input.is_empty() {
            self.pass_through(ticket, bytes);
        } else if session.input.is_empty() && !flags.any(HALTED) {
            let used = self.take_commands(ticket, bytes);
            if let Some(session) = self.session(ticket) {
                session.input.extend_from_slice(&bytes[used..]);
            }
        } else if flags.any(HALTED) || self.is_worth_a_look(ticket, bytes) {
            let session = &mut self.sessions[ticket.slot as usize];
            session.forget_partial();
            session.input.extend_from_slice(bytes);
            if !flags.any(HALTED) {
                self.take_buffered(ticket);
            }
        } else {
            let session = &mut self.sessions[ticket.slot as usize];
            match &mut session.extra {
                Some(extra) if extra.collecting => extra.collected.push(bytes),
                _ => session.input.extend_from_slice(bytes),
            }
        }
        self.hold_back(ticket);
        if let Some(session) = self.session(ticket)
            && (session.input.capacity() > 0 || session.charged > 0)
        {
            self.recount_memory(ticket);
        }
    }

    /// Takes commands from what is buffered.
    pub(super) fn take_buffered(&mut self, ticket: Ticket) {
        let Some(session) = self.session(ticket) else {
            return;
        };
        if session
            .extra
            .as_ref()
            .is_some_and(|extra| extra.partial.is_some())
        {
            // The request at the front is known to be incomplete, and part of it may be
            // elsewhere.
            return;
        }
        let mut input = std::mem::take(&mut session.input);
        let used = self.take_commands(ticket, &input);
        let Some(session) = self.session(ticket) else {
            return;
        };
        if used == input.len() {
            // A buffer that served one burst is not kept by a quiet client.
            return;
        }
        input.drain(..used);
        session.input = input;
    }

    /// Whether `bytes` finish the request at the front, or change what is to be done
    /// with it.
    fn is_worth_a_look(&mut self, ticket: Ticket, bytes: &[u8]) -> bool {
        let (limits, request_max) = (self.limits_of(ticket), self.request_max(ticket));
        let session = &mut self.sessions[ticket.slot as usize];
        let config = &self.fronts[session.route as usize].config;
        let Some(extra) = &mut session.extra else {
            return true;
        };
        let Some(partial) = &mut extra.partial else {
            return true;
        };
        let len = session.input.len() + extra.collected.len() + bytes.len();
        match partial.feed(bytes, &limits) {
            Ok(fed) if !fed.complete => {
                let large = fed.needed > config.backend.large_request && !extra.collecting;
                large || len as u64 > request_max
            }
            _ => true,
        }
    }

    fn limits_of(&self, ticket: Ticket) -> RequestLimits {
        let session = &self.sessions[ticket.slot as usize];
        RequestLimits {
            bulk_max: self.fronts[session.route as usize].node.bulk_max(),
            args_max: i32::MAX as u64,
            unauthenticated: session.flags.any(Flags::LOCKED_OUT),
        }
    }

    /// The most bytes of one request that are collected.
    fn request_max(&self, ticket: Ticket) -> u64 {
        let session = &self.sessions[ticket.slot as usize];
        let clients = &self.fronts[session.route as usize].config.clients;
        if session.flags.any(Flags::LOCKED_OUT) {
            clients.unauthenticated_request_max
        } else {
            clients.request_max
        }
    }

    /// Stops reading a client whose unparsed bytes pile up, until it goes on.
    fn hold_back(&mut self, ticket: Ticket) {
        let Some(session) = self.session(ticket) else {
            return;
        };
        if !session.flags.any(HALTED) {
            return;
        }
        let route = session.route as usize;
        let is_full = self.is_paused_full(ticket) || self.memory.is_tight();
        let keep = match is_full {
            true => 0,
            false => self.fronts[route].config.clients.pipeline_buffer as usize,
        };
        let session = &mut self.sessions[ticket.slot as usize];
        if session.input.len() > keep {
            session.flags.set(Flags::READ_PAUSED);
        }
    }

    /// Takes commands from the front of `bytes` until they end, one is
    /// incomplete, or the session has to wait. Returns how many bytes were taken.
    fn take_commands(&mut self, ticket: Ticket, bytes: &[u8]) -> usize {
        let mut spans = std::mem::take(&mut self.spans);
        let mut used = 0;
        // Of what was refused as a whole the last command was cut off: what comes behind that
        // is new. A client that never pauses would be refused for ever.
        let mut was_cut = self.session(ticket).is_some_and(|session| {
            let refuses = session.flags.any(Flags::REFUSING);
            let extra = session.extra.as_deref_mut().filter(|_| refuses);
            extra.is_some_and(|extra| std::mem::take(&mut extra.cut_is_refused))
        });
        while used < bytes.len() {
            let Some(session) = self.session(ticket) else {
                break;
            };
            if session
                .flags
                .any(HALTED.with(Flags::TUNNEL).with(Flags::UPLOADING))
            {
                if session.flags.any(Flags::TUNNEL.with(Flags::UPLOADING))
                    && !session.flags.any(HALTED)
                {
                    self.pass_through(ticket, &bytes[used..]);
                    used = bytes.len();
                }
                break;
            }
            match self.take_one(ticket, &bytes[used..], &mut spans) {
                Some(n) => used += n,
                None => break,
            }
            if std::mem::take(&mut was_cut)
                && let Some(session) = self.session(ticket)
            {
                session.flags.clear(Flags::REFUSING);
            }
        }
        self.spans = spans;
        if let Some(session) = self.session(ticket)
            && session.flags.any(Flags::REFUSING)
        {
            if used >= bytes.len() {
                session.flags.clear(Flags::REFUSING);
            } else if let Some(extra) = &mut session.extra {
                extra.cut_is_refused = extra.partial.is_some();
            }
        }
        used.min(bytes.len())
    }

    /// Takes one command; `None` when the session cannot go on.
    #[inline]
    fn take_one(&mut self, ticket: Ticket, rest: &[u8], spans: &mut Vec<Span>) -> Option<usize> {
        let session = &mut self.sessions[ticket.slot as usize];
        let front = &self.fronts[session.route as usize];
        let clients = &front.config.clients;
        let in_flight = session.in_flight;
        if in_flight >= clients.in_flight_max
            || in_flight > 0 && session.under_way >= clients.in_flight_bytes_max
            || session.replies.hold(
                in_flight,
                self.memory.client_max.min(clients.output_max / 4),
            )
            || !session.output.is_empty() && self.reads_too_slowly(ticket)
        {
            self.set_barrier(ticket);
            return None;
        }
        let session = &mut self.sessions[ticket.slot as usize];
        let limits = RequestLimits {
            bulk_max: front.node.bulk_max(),
            args_max: i32::MAX as u64,
            unauthenticated: session.flags.any(Flags::LOCKED_OUT),
        };
        match resp::scan_request(rest, &limits, spans) {
            Ok(Scan::Request { len, canonical }) => {
                if let Some(extra) = &mut session.extra {
                    extra.partial = None;
                    extra.collecting = false;
                    extra.stuck_since = 0;
                }
                if !canonical && self.wants_line_ends(ticket) {
                    return self.protocol_error(ticket, &resp::ProtocolError::InvalidLineEnd);
                }
                let request = Request {
                    frame: &rest[..len],
                    spans,
                    canonical,
                };
                self.step(ticket, &request, &rest[len..], len)
            }
            Ok(Scan::Incomplete { needed }) => self.on_incomplete(ticket, rest, needed, spans),
            Ok(Scan::Empty { len }) => {
                session.flags.clear(Flags::SKIP_NEXT);
                Some(len)
            }
            Ok(Scan::Inline { len }) => match resp::inline::split(&rest[..len]) {
                Ok(words) if words.is_empty() => Some(len),
                Ok(words) => {
                    let mut frame = Vec::with_capacity(len + 16 * words.len());
                    resp::encode_command(&words, &mut frame);
                    let mut spans = Vec::new();
                    let unlimited = RequestLimits {
                        bulk_max: u64::MAX >> 1,
                        unauthenticated: false,
                        ..limits
                    };
                    resp::scan_request(&frame, &unlimited, &mut spans)
                        .expect("Weir's own encoding is a request");
                    let request = Request {
                        frame: &frame,
                        spans: &spans,
                        canonical: true,
                    };
                    self.step(ticket, &request, &rest[len..], len)
                }
                Err(error) => self.protocol_error(ticket, &error),
            },
            Err(error) => self.protocol_error(ticket, &error),
        }
    }

    /// Whether the server looks at the two bytes behind an argument. Redis skips them.
    fn wants_line_ends(&self, ticket: Ticket) -> bool {
        self.node_of(ticket).server_version().is_valkey(9, 0)
    }

    fn step(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        following: &[u8],
        len: usize,
    ) -> Option<usize> {
        match self.handle(ticket, request, following) {
            Step::Taken => Some(len),
            Step::TakenWith(more) => Some(len + more),
            Step::Wait | Step::Gone => None,
        }
    }

    /// More bytes are needed: notes since when, and lets a large request stream
    /// through a lease instead of being collected.
    fn on_incomplete(
        &mut self,
        ticket: Ticket,
        rest: &[u8],
        needed: u64,
        spans: &[Span],
    ) -> Option<usize> {
        let now = self.clock.now();
        let session = &self.sessions[ticket.slot as usize];
        let config = &self.fronts[session.route as usize].config;
        let large = needed.max(rest.len() as u64) > config.backend.large_request;
        if rest.len() as u64 > self.request_max(ticket) {
            self.close(ticket.slot, CloseReason::RequestLimit);
            return None;
        }
        let limits = self.limits_of(ticket);
        let extra = self.sessions[ticket.slot as usize].extra();
        if extra.stuck_since == 0 {
            extra.stuck_since = now;
        }
        extra.collecting = large && !spans.is_empty();
        let mut partial = PartialRequest::default();
        // It was found to be incomplete and without a mistake just now.
        let _ = partial.feed(rest, &limits);
        extra.partial = Some(partial);
        if large && let Some(name) = spans.first() {
            let name = &rest[name.start as usize..name.end as usize];
            let channel = spans.get(1);
            let channel = channel.map(|it| &rest[it.start as usize..it.end as usize]);
            return self.begin_upload(ticket, name, channel);
        }
        None
    }

    /// Redis answers what is not its protocol with an error, behind the replies
    /// that are due, and closes.
    fn protocol_error(&mut self, ticket: Ticket, error: &resp::ProtocolError) -> Option<usize> {
        let session = &mut self.sessions[ticket.slot as usize];
        if session.in_flight > 0 {
            session.flags.set(Flags::BARRIER);
            return None;
        }
        let metrics = &self.fronts[session.route as usize].metrics;
        metrics.error(ErrorCause::Protocol);
        if !session.flags.any(Flags::REPLY_OFF) {
            let text = failure::protocol_error(error);
            self.write(ticket, &text);
        }
        self.close_after_output(ticket, CloseReason::Protocol);
        None
    }

    /// The client will send nothing more.
    pub(super) fn on_end_of_input(&mut self, ticket: Ticket) {
        if let Some(session) = self.session(ticket) {
            session.flags.set(Flags::EOF);
            self.wind_down(ticket);
        }
    }

    /// A client that has said all is answered and closed. What waits for something
    /// that has not happened is forgotten, as in Redis.
    pub(super) fn wind_down(&mut self, ticket: Ticket) {
        let waits_here = self.waits_here(ticket) || self.is_parked(ticket);
        let Some(session) = self.session(ticket) else {
            return;
        };
        let flags = session.flags;
        let extra = session.extra.as_deref();
        if extra.is_some_and(|extra| extra.takes_leave) {
            return self.close(ticket.slot, CloseReason::Shutdown);
        }
        if extra.is_some_and(|extra| !extra.subscriber.questions.is_empty()) {
            // It hears the answers.
            return;
        }
        let forgets = Flags::UPLOADING.with(Flags::PAUSED).with(Flags::HELD);
        if flags.any(forgets) || waits_here {
            return self.close(ticket.slot, CloseReason::ByClient);
        }
        if session.in_flight == 0
            && !flags.any(HALTED.with(Flags::TUNNEL))
            && !self.is_monitoring(ticket)
        {
            return self.close_after_output(ticket, CloseReason::ByClient);
        }
        self.half_close_lease(ticket);
    }

    /// Redis answers a client that has half-closed if it can do so at once, and
    /// forgets it if not; it has to see the same here to decide the same.
    pub(super) fn half_close_lease(&mut self, ticket: Ticket) {
        let session = &self.sessions[ticket.slot as usize];
        let Some(lease) = session.lease() else {
            return;
        };
        let table = &self.fronts[session.route as usize].table;
        let class = table.by_id(CommandId(session.command)).class;
        let blocks = matches!(class, Class::Blocking(_) | Class::Wait);
        let conn = &mut self.conns[lease as usize];
        let waits = (blocks || conn.kind == Kind::Blocking) && !conn.in_flight.is_empty();
        if !conn.half_closing && (waits || matches!(conn.mode, Mode::Raw(_))) {
            conn.half_closing = true;
            conn.dirty = true;
            self.mark_dirty(lease);
        }
    }
}
