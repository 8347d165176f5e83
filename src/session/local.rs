//! What Weir answers itself about a connection's state (COMMANDS.md 1.1): the
//! client's connection to Redis is virtual, so its user, database and protocol
//! are Weir's to keep.

use super::client::{Answer, Extra, Flags, NONE, Transaction};
use super::dispatch::{Row, silent_or};
use super::failure;
use super::hello::{self, HelloStep};
use super::input::{Request, Step};
use super::login::Credentials;
use super::worker::State;
use crate::backend::server::Mode as Deployment;
use crate::backend::{DefaultUser, Marks, Ticket, User};
use crate::command::{Command, Local};
use crate::config::{AuthMode, ReadFrom};
use crate::metrics::{CloseReason, ErrorCause};
use crate::resp::{self, Version};

impl State {
    /// A command about the connection's state, outside a transaction.
    pub(super) fn local(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        local: Local,
        row: Row,
        command: &Command,
        silent: bool,
    ) -> Step {
        if self.must_wait_for_replies(ticket) {
            return Step::Wait;
        }
        if !command.exists() && local != Local::Client
            || command.exists() && !command.accepts(request.count())
        {
            let session = &self.sessions[ticket.slot as usize];
            let front = &self.fronts[session.route as usize];
            let server = front.node.server_version();
            let text = crate::command::refusal(&front.table, request, server);
            let reply = failure::error_line(text.unwrap_or_default());
            let step = self.answer(ticket, &reply, silent);
            self.count_error(ticket, ErrorCause::Arguments);
            return step;
        }
        self.sessions[ticket.slot as usize].command = row.id;
        match local {
            Local::Hello => self.hello(ticket, request, row, silent),
            Local::Auth => self.auth(ticket, request, row, silent),
            Local::Select => self.select(ticket, request, row, silent),
            Local::Client => self.client_command(ticket, request, row, silent),
            Local::Weir => self.weir_command(ticket, request, row, silent),
            Local::Quit => self.quit(ticket, silent),
            Local::Reset => self.reset(ticket, silent),
            // Behind a node that is no cluster these are errors; it words them.
            Local::ReadOnly | Local::ReadWrite if !self.is_standalone(ticket) => {
                let reads = match local {
                    Local::ReadOnly => ReadFrom::PreferReplica,
                    _ => ReadFrom::Primary,
                };
                self.set_reads(ticket, reads, silent)
            }
            Local::ReadOnly | Local::ReadWrite | Local::Asking => {
                self.forward_on_path(ticket, request, row, silent)
            }
        }
    }

    pub(super) fn count_error(&self, ticket: Ticket, cause: ErrorCause) {
        if let Some(session) = self.sessions.get(ticket.slot as usize) {
            self.fronts[session.route as usize].metrics.error(cause);
        }
    }

    /// `HELLO`: its steps in the order in which the server behind Weir takes them.
    fn hello(&mut self, ticket: Ticket, request: &Request<'_>, row: Row, silent: bool) -> Step {
        let facts = self.node_of(ticket).facts();
        let server = facts.server_version();
        let hello = match hello::parse(request, server) {
            Ok(hello) => hello,
            Err(text) => return self.answer_error(ticket, text, ErrorCause::Arguments, silent),
        };
        for step in hello.steps {
            match step {
                HelloStep::Authenticate { user, password } => {
                    let credentials = Credentials {
                        username: Some(user),
                        password,
                    };
                    match self.check_login(ticket, credentials, &login_part(request)) {
                        None => return Step::Wait,
                        Some(Ok(())) => {}
                        Some(Err(reply)) => {
                            self.count_error(ticket, ErrorCause::Auth);
                            return self.answer(ticket, &reply, silent);
                        }
                    }
                }
                HelloStep::RequireAuthenticated => {
                    let session = &self.sessions[ticket.slot as usize];
                    if session.flags.any(Flags::LOCKED_OUT) {
                        let text = hello::not_authenticated(server);
                        return self.answer_error(ticket, text, ErrorCause::NoAuth, silent);
                    }
                }
                HelloStep::SetName(name) => {
                    self.sessions[ticket.slot as usize].extra().name = name;
                    self.identify(ticket);
                    self.refresh_reads(ticket);
                }
            }
        }
        if let Some(text) = hello.error {
            return self.answer_error(ticket, text, ErrorCause::Arguments, silent);
        }
        let session = &mut self.sessions[ticket.slot as usize];
        if let Some(version) = hello.version
            && version != session.partition.version
        {
            session.partition.version = version;
            session.flags.set(Flags::MOVED);
        }
        let (id, version) = (session.id, session.partition.version);
        let reply = hello::hello_reply(&facts, id, version);
        let step = self.answer_value(ticket, &reply, silent);
        if step == Step::Taken
            && hello.version.is_some()
            && let Some(conn) = self.tell_lease(ticket, row, &login_part(request))
        {
            self.conns[conn as usize].version = version;
        }
        step
    }

    /// `AUTH`.
    fn auth(&mut self, ticket: Ticket, request: &Request<'_>, row: Row, silent: bool) -> Step {
        let args = request.args();
        let credentials = match args.as_slice() {
            [_, password] => Credentials {
                username: None,
                password: password.to_vec(),
            },
            [_, user, password] => Credentials {
                username: Some(user.to_vec()),
                password: password.to_vec(),
            },
            _ => {
                return self.answer_error(
                    ticket,
                    "ERR syntax error",
                    ErrorCause::Arguments,
                    silent,
                );
            }
        };
        match self.check_login(ticket, credentials, request.frame) {
            None => Step::Wait,
            Some(Ok(())) => {
                let step = self.answer(ticket, b"+OK\r\n", silent);
                self.tell_lease(ticket, row, request.frame);
                step
            }
            Some(Err(reply)) => {
                self.count_error(ticket, ErrorCause::Auth);
                self.answer(ticket, &reply, silent)
            }
        }
    }

    /// Checks a login; `None` while Redis is being asked.
    fn check_login(
        &mut self,
        ticket: Ticket,
        credentials: Credentials,
        question: &[u8],
    ) -> Option<Result<(), Vec<u8>>> {
        let session = &mut self.sessions[ticket.slot as usize];
        match session.extra().answer.take() {
            Some(Answer::LoggedIn(user)) => {
                self.logged_in(ticket, user, credentials.username);
                return Some(Ok(()));
            }
            Some(Answer::Reply(reply)) => return Some(Err(reply)),
            other => session.extra().answer = other,
        }
        let session = &self.sessions[ticket.slot as usize];
        let front = &self.fronts[session.route as usize];
        match front.config.auth.mode {
            AuthMode::Redis => {
                self.begin_login(ticket, credentials, question.to_vec());
                None
            }
            AuthMode::Weir => Some(match credentials.among(&front.config.auth.users) {
                true => {
                    let user = front.node.credentials.backend();
                    self.logged_in(ticket, user, credentials.username);
                    Ok(())
                }
                false => Err(failure::error_line(
                    "WRONGPASS invalid username-password pair or user is disabled.",
                )),
            }),
            AuthMode::Open => Some(Err(failure::error_line(
                "ERR AUTH <password> called without any password configured for the default \
                 user. Are you sure your configuration is correct?",
            ))),
        }
    }

    /// Has the session's lease follow a change of the session's state. The answer is
    /// Weir's own business; what the client sends next comes behind it.
    fn tell_lease(&mut self, ticket: Ticket, row: Row, frame: &[u8]) -> Option<u32> {
        let conn = self.session(ticket)?.lease()?;
        self.conns[conn as usize].dirty = true;
        let marks = row.marks().with(Marks::SILENT);
        self.send_on(ticket, conn, frame, row.id, marks);
        Some(conn)
    }

    fn logged_in(&mut self, ticket: Ticket, user: User, name: Option<Vec<u8>>) {
        let session = &mut self.sessions[ticket.slot as usize];
        session.partition.user = user.id();
        session.user = user;
        session.flags.clear(Flags::LOCKED_OUT);
        session.flags.set(Flags::MOVED);
        session.extra().user = name.unwrap_or_default();
        self.identify(ticket);
    }

    /// `SELECT n`: the command itself travels over the new database's connection,
    /// whose opening checks that there is such a database and that the user may.
    fn select(&mut self, ticket: Ticket, request: &Request<'_>, row: Row, silent: bool) -> Step {
        let number = resp::integer(request.arg(1).unwrap_or_default());
        let Some(db) = number.and_then(|number| i32::try_from(number).ok()) else {
            let text = match number {
                None => "ERR value is not an integer or out of range",
                Some(_) => {
                    "ERR value is out of range, value must between -2147483648 and 2147483647"
                }
            };
            return self.answer_error(ticket, text, ErrorCause::Arguments, silent);
        };
        let Ok(db) = u32::try_from(db) else {
            return self.answer_error(
                ticket,
                "ERR DB index is out of range",
                ErrorCause::Arguments,
                silent,
            );
        };
        if db != 0 && self.node_of(ticket).facts().mode == Deployment::Cluster {
            let text = "ERR SELECT is not allowed in cluster mode";
            return self.answer_error(ticket, text, ErrorCause::Arguments, silent);
        }
        let session = &mut self.sessions[ticket.slot as usize];
        if session.lease().is_some() {
            return self.select_lease(ticket, request, row, db, silent);
        }
        let previous = session.partition.db;
        if self
            .node_of(ticket)
            .facts()
            .databases
            .is_some_and(|count| db >= count)
        {
            return self.answer_error(
                ticket,
                "ERR DB index is out of range",
                ErrorCause::Arguments,
                silent,
            );
        }
        let session = &mut self.sessions[ticket.slot as usize];
        session.partition.db = db;
        session.flags.set(Flags::MOVED);
        session.extra().previous_db = Some(previous);
        let marks = silent_or(silent, row.marks().with(Marks::WHOLE).with(Marks::SAFE));
        let step = self.forward(ticket, request.frame, row.id, marks);
        if let Some(session) = self.session(ticket) {
            if session.in_flight == 0 {
                // Refused at once: stay where it was.
                session.partition.db = previous;
                session.flags.set(Flags::MOVED);
            } else {
                session.flags.set(Flags::BARRIER);
            }
        }
        step
    }

    /// `SELECT` while a lease is held: the lease changes its database, and closes
    /// when it is given back.
    pub(super) fn select_on_lease(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
        command: &Command,
        silent: bool,
    ) -> Step {
        self.local(
            ticket,
            request,
            crate::command::Local::Select,
            row,
            command,
            silent,
        )
    }

    fn select_lease(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
        db: u32,
        silent: bool,
    ) -> Step {
        let session = &mut self.sessions[ticket.slot as usize];
        let conn = session.lease().expect("the caller has looked");
        let previous = session.partition.db;
        self.conns[conn as usize].dirty = true;
        let marks = silent_or(silent, row.marks().with(Marks::WHOLE));
        let step = self.send_on(ticket, conn, request.frame, row.id, marks);
        if step == Step::Taken {
            let session = &mut self.sessions[ticket.slot as usize];
            session.partition.db = db;
            session.extra().previous_db = Some(previous);
            session.flags.set(Flags::MOVED.with(Flags::BARRIER));
        }
        step
    }

    /// `QUIT`: nothing behind it is looked at.
    pub(super) fn quit(&mut self, ticket: Ticket, silent: bool) -> Step {
        if self.must_wait_for_replies(ticket) {
            return Step::Wait;
        }
        self.answer(ticket, b"+OK\r\n", silent);
        self.close_after_output(ticket, CloseReason::Quit);
        Step::Taken
    }

    /// `RESET` (`networking.c:resetCommand`): everything but the library's name and
    /// version goes back to what it was when the client connected.
    pub(super) fn reset(&mut self, ticket: Ticket, silent: bool) -> Step {
        if self.must_wait_for_replies(ticket) {
            return Step::Wait;
        }
        let node = self.node_of(ticket);
        let mode = self.auth_mode(ticket);
        let lease = self.sessions[ticket.slot as usize].lease();
        if let Some(conn) = lease {
            self.conns[conn as usize].dirty = true;
            self.give_back_lease(ticket);
        }
        self.drop_receiver(ticket);
        let session = &mut self.sessions[ticket.slot as usize];
        let (route, extra) = (session.route, session.extra.take());
        if let Some(mut extra) = extra {
            self.leave_feed(ticket.slot, route, &mut extra);
            self.sessions[ticket.slot as usize].extra = Some(Box::new(Extra {
                lib_name: extra.lib_name,
                lib_version: extra.lib_version,
                waker: extra.waker,
                census: extra.census,
                tls_identity: extra.tls_identity,
                // What rules say of it, and what it has not read, is not its to forget.
                terms: extra.terms,
                meters: extra.meters,
                stuck_since: extra.stuck_since,
                ..Extra::default()
            }));
        }
        let user = default_user(&node, mode);
        let session = &mut self.sessions[ticket.slot as usize];
        session.partition.user = user.id();
        session.partition.db = 0;
        session.partition.version = Version::Resp2;
        session.partition.no_touch = false;
        session.user = user;
        // CLIENT REPLY OFF is over when the answer is written, SKIP is not.
        let skipped = silent && !session.flags.any(Flags::REPLY_OFF);
        session.flags.clear(Flags::REPLY_OFF.with(Flags::SPECIAL));
        session.flags.set(Flags::MOVED);
        if starts_locked_out(&node, mode) {
            session.flags.set(Flags::LOCKED_OUT);
        }
        self.identify(ticket);
        self.refresh_reads(ticket);
        self.answer(ticket, b"+RESET\r\n", skipped)
    }

    /// Sees whether the session is on the straight path again.
    pub(super) fn refresh_special(&mut self, ticket: Ticket) {
        let Some(session) = self.session(ticket) else {
            return;
        };
        let special = session.extra.as_ref().is_some_and(|extra| {
            extra.lease.is_some()
                || extra.tracking
                || !extra.subscriptions.is_empty()
                || !extra.subscriber.questions.is_empty()
                || !matches!(extra.transaction, Transaction::None)
        });
        if special {
            session.flags.set(Flags::SPECIAL);
        } else {
            session.flags.clear(Flags::SPECIAL);
        }
    }

    fn is_standalone(&self, ticket: Ticket) -> bool {
        let route = self.sessions[ticket.slot as usize].route;
        self.fronts[route as usize].route.deployment.is_standalone()
    }

    /// The node that a connection is to.
    pub(super) fn node_of_conn(&self, conn: u32) -> std::sync::Arc<crate::backend::Node> {
        let lane = self.conns[conn as usize].lane;
        self.lanes[lane as usize].node.clone()
    }

    /// The node that a session's commands go to.
    pub(super) fn node_of(&self, ticket: Ticket) -> std::sync::Arc<crate::backend::Node> {
        let session = &self.sessions[ticket.slot as usize];
        self.fronts[session.route as usize].node.clone()
    }

    fn auth_mode(&self, ticket: Ticket) -> AuthMode {
        let session = &self.sessions[ticket.slot as usize];
        self.fronts[session.route as usize].config.auth.mode
    }

    /// A reply that a session wanted to see before its client does.
    pub(super) fn inspect(&mut self, entry: &crate::backend::Entry, reply: &[u8]) {
        if entry.marks.any(Marks::LOBBY) {
            return self.lobby_replied(entry.to, reply);
        }
        let Some(session) = self.session(entry.to) else {
            return;
        };
        session.in_flight -= 1;
        if session.in_flight == 0 {
            session.conn = NONE;
        }
        let route = session.route;
        let table = self.fronts[route as usize].table.clone();
        let name = table
            .by_id(crate::command::CommandId(entry.command))
            .name
            .clone();
        let mut rewritten = None;
        match &*name {
            "select" => self.select_answered(entry.to, reply),
            "exec" => rewritten = self.exec_answered(entry.to, reply),
            "discard" | "unwatch" => self.discard_answered(entry.to, reply),
            "info" => rewritten = self.rewrite_info(entry.to, reply),
            "config|set" => self.config_set_answered(entry.to, reply),
            "client|getredir" | "client|trackinginfo" => {
                rewritten = self.name_target(entry.to, reply);
            }
            "client|tracking" => self.tracking_answered(entry.to, reply),
            "client|pause" => self.pause_answered(entry.to, reply),
            "client|unpause" => self.unpause_answered(entry.to, reply),
            "publish" | "spublish" => {
                rewritten = self.correct(entry.to, reply);
                let reply = rewritten.as_deref().unwrap_or(reply);
                if !entry.marks.any(Marks::SILENT) && self.wait_for_own_message(entry.to, reply) {
                    return;
                }
            }
            "pubsub" | "pubsub|numsub" | "pubsub|shardnumsub" => {
                rewritten = self.correct(entry.to, reply);
            }
            _ => {}
        }
        if !entry.marks.any(Marks::SILENT) {
            self.fronts[route as usize].metrics.replies.inc();
            self.write(entry.to, rewritten.as_deref().unwrap_or(reply));
        }
        self.make_ready(entry.to);
    }

    fn select_answered(&mut self, ticket: Ticket, reply: &[u8]) {
        let session = &mut self.sessions[ticket.slot as usize];
        let previous = session.extra().previous_db.take();
        if reply.first() == Some(&b'-')
            && let Some(previous) = previous
        {
            session.partition.db = previous;
            session.flags.set(Flags::MOVED);
        }
    }
}

/// A `HELLO` without its `SETNAME`, for the connection that checks logins: that one's
/// name is Weir's to give. Of several `AUTH` the last counts.
fn login_part(request: &Request<'_>) -> Vec<u8> {
    let args = request.args();
    let mut words = args[..args.len().min(2)].to_vec();
    let mut rest = args.get(2..).unwrap_or_default();
    loop {
        rest = match rest {
            [word, user, password, rest @ ..] if word.eq_ignore_ascii_case(b"auth") => {
                words.truncate(2);
                words.extend([*word, *user, *password]);
                rest
            }
            [word, _, rest @ ..] if word.eq_ignore_ascii_case(b"setname") => rest,
            _ => break,
        };
    }
    let mut question = Vec::new();
    resp::encode_command(&words, &mut question);
    question
}

/// The user of a client that has said nothing yet.
pub(super) fn default_user(node: &crate::backend::Node, mode: AuthMode) -> User {
    match mode {
        AuthMode::Redis => node.credentials.nobody(),
        AuthMode::Weir | AuthMode::Open => node.credentials.backend(),
    }
}

/// Whether a client has to log in before anything else.
pub(super) fn starts_locked_out(node: &crate::backend::Node, mode: AuthMode) -> bool {
    match mode {
        AuthMode::Redis => node.default_user() == DefaultUser::Closed,
        AuthMode::Weir => true,
        AuthMode::Open => false,
    }
}
