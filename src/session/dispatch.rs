//! One command: which way does it go. The straight path of plain commands
//! first, everything uncommon below it.

use super::client::{
    Extra, Flags, OFF_ANY_STRAIGHT_PATH, OFF_THE_METERED_PATH, OFF_THE_STRAIGHT_PATH, Transaction,
    Until,
};
use super::failure::{self, Failure};
use super::input::{Request, Step};
use super::worker::State;
use crate::admission::Work;
use crate::backend::{DefaultUser, Entry, Io, Kind, Marks, Ticket};
use crate::command::{self, Class, Command, Flags as CommandFlags, Local};
use crate::config::AuthMode;
use crate::metrics::ErrorCause;
use crate::resp::{self, Value, Version};

/// What the table says of a request, copied out of it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its number in the table.
    pub id: u16,
    /// How it travels.
    pub class: Class,
    /// Its properties.
    pub flags: CommandFlags,
}

impl Row {
    #[inline]
    fn of(command: &Command) -> Row {
        Row {
            id: command.id.0,
            class: command.class,
            flags: command.flags,
        }
    }

    /// How the reply queue is to treat it on a shared connection.
    #[inline]
    pub fn marks(self) -> Marks {
        let mut marks = Marks::NONE;
        if self.flags.contains(CommandFlags::RETRY_SAFE) {
            marks = marks.with(Marks::SAFE);
        }
        if self.flags.contains(CommandFlags::SLOW) {
            marks = marks.with(Marks::SLOW);
        }
        marks
    }
}

impl command::Args for Request<'_> {
    fn count(&self) -> usize {
        self.spans.len()
    }

    fn arg(&self, index: usize) -> Option<&[u8]> {
        Request::arg(self, index)
    }
}

impl State {
    /// Takes one whole command; `following` are the bytes behind it.
    #[inline]
    pub(super) fn handle(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        following: &[u8],
    ) -> Step {
        if !request.canonical {
            return self.handle_reencoded(ticket, request, following);
        }
        let session = &self.sessions[ticket.slot as usize];
        let front = &self.fronts[session.route as usize];
        let name = request.arg(0).unwrap_or_default();
        let row = Row::of(front.table.find(name, request.arg(1)));
        if row.class == Class::Plain
            && !session.flags.any(OFF_THE_STRAIGHT_PATH)
            && front.pause.is_none()
            && !front.refuses_growth
            && !front.node.large.may_know(request.frame.len())
        {
            return self.forward(ticket, request.frame, row.id, row.marks());
        }
        if row.class == Class::Plain
            && session.flags.any(Flags::METERED)
            && !session.flags.any(OFF_THE_METERED_PATH)
            && front.pause.is_none()
            && !front.refuses_growth
            && !front.node.large.may_know(request.frame.len())
        {
            return self.forward_metered(ticket, request, row);
        }
        if row.class == Class::Plain
            && session.flags.any(Flags::BALANCED)
            && !session.flags.any(OFF_ANY_STRAIGHT_PATH)
            && front.pause.is_none()
            && !front.refuses_growth
        {
            return self.forward_balanced(ticket, request, row, row.marks());
        }
        if row.class == Class::Publish
            && !session.flags.any(OFF_THE_STRAIGHT_PATH)
            && front.pause.is_none()
        {
            return self.publish(ticket, request, row, false);
        }
        self.handle_uncommon(ticket, request, following, row)
    }

    /// A request in another spelling than clients use is forwarded in theirs:
    /// what Redis reads can then not differ from what Weir has read.
    fn handle_reencoded(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        following: &[u8],
    ) -> Step {
        let mut frame = Vec::with_capacity(request.frame.len() + 16);
        resp::encode_command(&request.args(), &mut frame);
        let mut spans = Vec::new();
        let limits = resp::RequestLimits {
            bulk_max: i64::MAX as u64,
            args_max: i32::MAX as u64,
            unauthenticated: false,
        };
        resp::scan_request(&frame, &limits, &mut spans).expect("Weir's own encoding is a request");
        let request = Request {
            frame: &frame,
            spans: &spans,
            canonical: true,
        };
        self.handle(ticket, &request, following)
    }

    fn handle_uncommon(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        following: &[u8],
        row: Row,
    ) -> Step {
        self.traced.command = row.id;
        let session = &mut self.sessions[ticket.slot as usize];
        let skip = session.flags.any(Flags::SKIP_NEXT);
        let silent = skip || session.flags.any(Flags::REPLY_OFF);
        session.flags.clear(Flags::SKIP_NEXT);
        let step = self.route_uncommon(ticket, request, following, row, silent);
        if step == Step::Taken {
            self.order_own_messages(ticket, row);
        }
        self.settle_payment(ticket, step);
        if step == Step::Wait
            && skip
            && let Some(session) = self.session(ticket)
        {
            session.flags.set(Flags::SKIP_NEXT);
        }
        step
    }

    /// The order of checks is Redis's own (`server.c:processCommand`).
    fn route_uncommon(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        following: &[u8],
        row: Row,
        silent: bool,
    ) -> Step {
        let session = &self.sessions[ticket.slot as usize];
        let front = &self.fronts[session.route as usize];
        let flags = session.flags;
        if row.class == Class::Refused {
            self.close(ticket.slot, crate::metrics::CloseReason::Protocol);
            return Step::Gone;
        }
        if flags.any(Flags::REFUSED) && !self.may_say_who(ticket, request, row.class) {
            return self.refuse_client(ticket, request, row);
        }
        let table = front.table.clone();
        let command = table.find(request.arg(0).unwrap_or_default(), request.arg(1));
        let class = match row.class {
            Class::Blocking(_) | Class::Control | Class::Tunnel => {
                command::class_of(command, request)
            }
            class => class,
        };
        let accepted = command.exists() && command.accepts(request.count());
        let names = if accepted { request.count() - 1 } else { 0 };
        if self.must_wait_for_feed(ticket, class, names) {
            return Step::Wait;
        }
        // As in Redis, it is the default user of this moment that counts
        // (`networking.c:authRequired`).
        let locked_out = flags.any(Flags::LOCKED_OUT) && !self.is_let_in(ticket);
        if locked_out && !row.flags.contains(CommandFlags::NO_AUTH) {
            return self.answer_locked_out(ticket, request, command, silent);
        }
        if self.is_restricted_subscriber(ticket) && !row.flags.contains(CommandFlags::IN_SUBSCRIBER)
        {
            // Before Redis 7.0 subcommands were the command's own business.
            let command = match self.node_of(ticket).server_version().like_redis(7, 0) {
                true => command,
                false => table.find(request.arg(0).unwrap_or_default(), None),
            };
            if command.exists() && command.accepts(request.count()) {
                let text = self.restricted_subscriber_text(ticket, command);
                return self.answer_error(ticket, &text, ErrorCause::State, silent);
            }
        }
        if !accepted && !matches!(class, Class::Local(_)) {
            // Redis words the error, on whatever path the session is; in a
            // transaction it spoils the block.
            self.abort_queue(ticket, class);
            return self.forward_on_path(ticket, request, row, silent);
        }
        if flags.any(Flags::GUARDED)
            && let Some(failure) = self.denial(ticket, command, request)
        {
            return self.deny(ticket, row.id, class, &failure, silent);
        }
        if self.must_refuse_growth(ticket, row) {
            let failure = self.no_growth(ticket);
            if self.in_transaction(ticket) {
                return self.deny(ticket, row.id, class, &failure, silent);
            }
            let marks = silent_or(silent, Marks::NONE);
            return self.refuse_or_miss(ticket, request.frame, row.id, &failure, marks);
        }
        if let Some(step) = self.pause(ticket, request, following, row, silent) {
            return step;
        }
        if flags.any(Flags::METERED)
            && let Some(step) = self.meter(ticket, request, following, (row, class), silent)
        {
            return step;
        }
        if flags.any(Flags::REFUSING)
            && !self.in_transaction(ticket)
            && let Some(step) = self.refuse_with_others(ticket, request, following, row, silent)
        {
            return step;
        }
        match class {
            Class::Local(Local::Quit) => self.quit(ticket, silent),
            Class::Local(Local::Reset) if accepted => self.reset(ticket, silent),
            _ if self.is_monitoring(ticket) => self.while_monitoring(ticket, request),
            _ if self.in_transaction(ticket) => {
                self.in_block(ticket, request, class, row, command, silent)
            }
            _ => self.by_class(ticket, request, following, (row, class), command, silent),
        }
    }

    /// A command that no transaction is about.
    pub(super) fn by_class(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        following: &[u8],
        (row, class): (Row, Class),
        command: &Command,
        silent: bool,
    ) -> Step {
        match class {
            Class::Local(local) => self.local(ticket, request, local, row, command, silent),
            Class::Plain if self.may_be_paused_by_redis(ticket, request, row) => {
                self.blocking(ticket, request, row, silent)
            }
            Class::Plain if self.is_fed(ticket) && &*command.name == "ping" => {
                self.ping_of_subscriber(ticket, request, row, silent)
            }
            Class::Plain => match self.expects_large(ticket, request) {
                Some(bytes) => self.large(ticket, request, row, bytes, silent),
                None => self.forward_on_path(ticket, request, row, silent),
            },
            Class::Publish => self.publish(ticket, request, row, silent),
            Class::Control => self.control(ticket, request, row, command, silent),
            Class::Multi => self.multi(ticket, request, following, row, silent),
            Class::Watch => self.watch(ticket, request, row, silent),
            Class::Exec | Class::Discard | Class::Unwatch => {
                self.forward_on_path(ticket, request, row, silent)
            }
            Class::Blocking(_) => self.blocking(ticket, request, row, silent),
            Class::Wait => self.wait_for_replicas(ticket, request, row, silent),
            Class::Subscription(sub) => self.subscription(ticket, request, sub, row, silent),
            Class::Monitor => self.monitor(ticket, request),
            Class::Tunnel => self.tunnel(ticket, request),
            Class::Alone => self.leased(ticket, request, row, Kind::Lease, Until::Reply, silent),
            Class::Pinned => self.leased(ticket, request, row, Kind::Lease, Until::Closed, silent),
            Class::Refused => Step::Gone,
        }
    }

    /// Whether a command may need memory of a node that has little left. A block that
    /// Redis is queueing already is its own business.
    fn must_refuse_growth(&self, ticket: Ticket, row: Row) -> bool {
        let session = &self.sessions[ticket.slot as usize];
        row.flags.contains(CommandFlags::DENYOOM)
            && self.refuses_growth_of(ticket)
            && !session
                .extra
                .as_deref()
                .is_some_and(|extra| matches!(extra.transaction, Transaction::OnLease { .. }))
    }

    /// What Redis says to a subscriber in RESP2 who asks for something else.
    fn restricted_subscriber_text(&self, ticket: Ticket, command: &Command) -> String {
        // Before Redis 7.0 there are no shard channels.
        let kinds = match self.node_of(ticket).server_version().like_redis(7, 0) {
            true => "P|S",
            false => "P",
        };
        let name = &command.name;
        format!(
            "ERR Can't execute '{name}': only ({kinds})SUBSCRIBE / ({kinds})UNSUBSCRIBE / PING / \
             QUIT / RESET are allowed in this context"
        )
    }

    /// A plain command, to the lane's shared connection.
    #[inline]
    pub(super) fn forward(&mut self, ticket: Ticket, frame: &[u8], id: u16, marks: Marks) -> Step {
        match self.shared_conn(ticket) {
            Ok(Some(conn)) if self.rather_misses(ticket, conn, frame, id, marks) => {
                self.refuse_or_miss(ticket, frame, id, &Failure::NoPrimary, marks)
            }
            Ok(Some(conn)) => self.enter(ticket, conn, frame, id, marks),
            Ok(None) => Step::Wait,
            Err(failure) => self.refuse_or_miss(ticket, frame, id, &failure, marks),
        }
    }

    /// A plain command, to this connection if its node's gate lets it through at once.
    #[inline]
    pub(super) fn enter(
        &mut self,
        ticket: Ticket,
        conn: u32,
        frame: &[u8],
        id: u16,
        marks: Marks,
    ) -> Step {
        let gate = self.conns[conn as usize].admission;
        let gate = &mut self.gates[gate as usize];
        if gate.is_quick(id) && gate.gate.takes(Work::Quick) {
            self.put(ticket, conn, frame, id, marks);
            return Step::Taken;
        }
        self.forward_gated(ticket, conn, frame, id, marks)
    }

    /// The shared connection that takes the session's next plain command, or block of
    /// commands; `None` if the session has to wait for earlier replies first.
    #[inline]
    pub(super) fn shared_conn(&mut self, ticket: Ticket) -> Result<Option<u32>, Failure> {
        let session = &self.sessions[ticket.slot as usize];
        let conn = if session.in_flight > session.queued {
            // Commands of one client stay on one connection while any of them is
            // outstanding: it reads its own writes.
            let conn = session.conn;
            let current = &self.conns[conn as usize];
            let stale = matches!(&current.io, Io::Link(link) if !link.is_live());
            // What is under way may be a read at a replica, also of a session whose reads
            // go to the primary by now.
            let elsewhere = current.lane != session.lane;
            if current.retiring || stale || elsewhere || current.kind != Kind::Shared {
                self.set_barrier(ticket);
                return Ok(None);
            }
            self.check_gate(conn)?;
            conn
        } else if session.in_flight > 0 && session.line != session.lane {
            // They wait for another node. Lines of two nodes are not ordered with each other.
            self.set_barrier(ticket);
            return Ok(None);
        } else {
            self.lane_conn(ticket)?
        };
        if self.memory.is_full_of_requests() {
            if self.must_wait_for_replies(ticket) {
                return Ok(None);
            }
            return Err(Failure::Memory);
        }
        Ok(Some(conn))
    }

    /// Puts a command on the connection that [`State::shared_conn`] named in this
    /// very turn.
    #[inline]
    pub(super) fn put(&mut self, ticket: Ticket, conn: u32, frame: &[u8], id: u16, marks: Marks) {
        let at = self.clock.now();
        let connection = &mut self.conns[conn as usize];
        connection.append(
            frame,
            Entry {
                to: ticket,
                at,
                len: frame.len() as u32,
                command: id,
                marks,
            },
        );
        self.memory
            .add_request(&mut connection.charged, frame.len());
        let session = &mut self.sessions[ticket.slot as usize];
        session.conn = conn;
        session.took(frame.len());
        session.command = id;
        self.fronts[session.route as usize].metrics.commands.inc();
        self.mark_dirty(conn);
    }

    /// To the session's lease if it has one, else to the shared connection.
    pub(super) fn forward_on_path(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
        silent: bool,
    ) -> Step {
        let mut marks = row.marks();
        if silent {
            marks = marks.with(Marks::SILENT);
        }
        match self.sessions[ticket.slot as usize].lease() {
            Some(conn) => self.send_on(ticket, conn, request.frame, row.id, marks),
            None if self.sessions[ticket.slot as usize]
                .flags
                .any(Flags::BALANCED) =>
            {
                self.forward_balanced(ticket, request, row, marks)
            }
            None => self.forward(ticket, request.frame, row.id, marks),
        }
    }

    /// On a connection other than the shared one. Changing paths waits until the
    /// earlier replies have arrived.
    pub(super) fn send_on(
        &mut self,
        ticket: Ticket,
        conn: u32,
        frame: &[u8],
        id: u16,
        marks: Marks,
    ) -> Step {
        let session = &mut self.sessions[ticket.slot as usize];
        if session.in_flight > 0 && session.conn != conn {
            session.flags.set(Flags::BARRIER);
            return Step::Wait;
        }
        // What asked for the lease may take it without another wish, such as a large
        // request that has become whole while it waited.
        if let Some(lease) = session
            .extra
            .as_mut()
            .and_then(|extra| extra.lease.as_mut())
            && lease.conn == conn
        {
            lease.fresh = false;
        }
        self.put(ticket, conn, frame, id, marks);
        Step::Taken
    }

    /// Has the next command wait until all replies have arrived.
    pub(super) fn set_barrier(&mut self, ticket: Ticket) {
        if let Some(session) = self.session(ticket) {
            session.flags.set(Flags::BARRIER);
        }
    }

    /// Whether a local answer has to wait for earlier replies; if so the
    /// session waits.
    pub(super) fn must_wait_for_replies(&mut self, ticket: Ticket) -> bool {
        let session = &mut self.sessions[ticket.slot as usize];
        if session.in_flight > 0 {
            session.flags.set(Flags::BARRIER);
            return true;
        }
        let extra = session.extra.as_deref();
        let asks = extra.is_some_and(|extra| !extra.subscriber.questions.is_empty());
        if asks {
            session.flags.set(Flags::WAITING);
        }
        asks
    }

    /// Answers a command with Weir's own bytes, behind the replies that are due.
    pub(super) fn answer(&mut self, ticket: Ticket, reply: &[u8], silent: bool) -> Step {
        if self.must_wait_for_replies(ticket) {
            return Step::Wait;
        }
        let session = &self.sessions[ticket.slot as usize];
        let metrics = &self.fronts[session.route as usize].metrics;
        metrics.commands.inc();
        metrics.local_replies.inc();
        if !silent {
            self.write(ticket, reply);
        }
        Step::Taken
    }

    /// Answers a command with a value, in the session's protocol.
    pub(super) fn answer_value(&mut self, ticket: Ticket, value: &Value, silent: bool) -> Step {
        let mut reply = Vec::new();
        resp::encode(value, self.version_of(ticket), &mut reply);
        self.answer(ticket, &reply, silent)
    }

    /// Answers a command with an error of Weir's own or one that Redis would word
    /// the same.
    pub(super) fn answer_error(
        &mut self,
        ticket: Ticket,
        text: impl AsRef<[u8]>,
        cause: ErrorCause,
        silent: bool,
    ) -> Step {
        let step = self.answer(ticket, &failure::error_line(text), silent);
        if step == Step::Taken {
            self.trace_error(ticket, cause);
            let route = self.sessions[ticket.slot as usize].route;
            self.fronts[route as usize].metrics.error(cause);
        }
        step
    }

    /// Answers a command that is not run with the reason.
    pub(super) fn refuse(&mut self, ticket: Ticket, failure: &Failure, silent: bool) -> Step {
        let step = self.answer(ticket, &failure.reply(), silent);
        if step == Step::Taken {
            self.trace_failure(ticket, failure);
            let route = self.sessions[ticket.slot as usize].route;
            self.count_failure(route, failure);
            if failure.shed().is_some() {
                self.count_refused_of(ticket, 1);
            }
        }
        step
    }

    /// The protocol version that the session speaks.
    pub(super) fn version_of(&self, ticket: Ticket) -> Version {
        self.sessions[ticket.slot as usize].partition.version
    }

    pub(super) fn is_monitoring(&self, ticket: Ticket) -> bool {
        let session = &self.sessions[ticket.slot as usize];
        session.flags.any(Flags::SPECIAL)
            && session
                .extra
                .as_deref()
                .is_some_and(|extra: &Extra| extra.monitoring)
    }

    pub(super) fn in_transaction(&self, ticket: Ticket) -> bool {
        let session = &self.sessions[ticket.slot as usize];
        session.flags.any(Flags::SPECIAL)
            && session
                .extra
                .as_deref()
                .is_some_and(|extra: &Extra| !matches!(extra.transaction, Transaction::None))
    }

    /// Whether a client that had to log in may do without by now.
    fn is_let_in(&mut self, ticket: Ticket) -> bool {
        let session = &mut self.sessions[ticket.slot as usize];
        let front = &self.fronts[session.route as usize];
        let open = front.config.auth.mode == AuthMode::Redis
            && front.node.default_user() == DefaultUser::Open;
        if open {
            session.flags.clear(Flags::LOCKED_OUT);
        }
        open
    }

    /// Redis's checks for a client that has not logged in: that the command
    /// exists and its arity win over the login.
    fn answer_locked_out(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        command: &Command,
        silent: bool,
    ) -> Step {
        let session = &self.sessions[ticket.slot as usize];
        let front = &self.fronts[session.route as usize];
        let server = front.node.server_version();
        let container = front.table.find(request.arg(0).unwrap_or_default(), None);
        // Before Redis 7 subcommands are looked at only when the command runs.
        let command = match server.like_redis(7, 0) || !container.exists() {
            true => command,
            false => container,
        };
        // Valkey asks for the login before anything else.
        let is_first = server.is_valkey(9, 0);
        let (text, cause) = if is_first || command.exists() && command.accepts(request.count()) {
            front.node.doubt_default_user();
            (failure::NO_AUTH.to_vec(), ErrorCause::NoAuth)
        } else {
            let refusal = command::refusal(&front.table, request, server).unwrap_or_default();
            (refusal, ErrorCause::UnknownCommand)
        };
        let text = match command.class {
            Class::Exec => failure::exec_refused(&text),
            _ => failure::error_line(text),
        };
        let step = self.answer(ticket, &text, silent);
        if step == Step::Taken {
            self.trace_error(ticket, cause);
            let route = self.sessions[ticket.slot as usize].route;
            self.fronts[route as usize].metrics.error(cause);
        }
        step
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
