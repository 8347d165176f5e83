//! `CLIENT`: what Weir answers about its own clients (COMMANDS.md 1.2). The
//! connections that Redis has are not theirs, so ids, names and lists are Weir's.

use std::future::Future;

use tokio::sync::oneshot;

use super::client::{Answer, Flags, Until};
use super::client_command::{
    self, ClientCommand, LibraryInfo, NO_SUCH_CLIENT, PauseMode, ReplyMode, Tracking, UnblockReason,
};
use super::client_filter::{ClientFilter, ClientKind, no_such_user};
use super::client_line::{ClientView, format_line};
use super::dispatch::{Row, silent_or};
use super::failure;
use super::input::{Request, Step};
use super::leases::{LeaseWish, Patience};
use super::pause::{AskedPause, Pause};
use super::permission;
use super::proxy::Message;
use super::redirect::Redirect;
use super::registry::Kill;
use super::worker::State;
use crate::backend::{Kind, Marks, Ticket};
use crate::command::{ServerVersion, integer};
use crate::metrics::{CloseReason, ErrorCause};
use crate::resp::{self, Value, Version};

impl State {
    /// Any `CLIENT` subcommand, behind the replies that are due.
    pub(super) fn client_command(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
        silent: bool,
    ) -> Step {
        let extra = self.sessions[ticket.slot as usize].extra.as_deref_mut();
        if let Some(extra) = extra
            && let Some(Answer::Reply(_)) = extra.answer
            && let Some(Answer::Reply(reply)) = extra.answer.take()
        {
            let closes = extra.closes_when_answered;
            let step = self.answer(ticket, &reply, silent);
            if closes {
                self.close_after_output(ticket, CloseReason::Killed);
            }
            return step;
        }
        let node = self.node_of(ticket);
        let databases = node.facts().databases.unwrap_or(16);
        let server = node.server_version();
        let command = match client_command::parse(request, server, databases) {
            Ok(command) => command,
            Err(text) => {
                return self.answer_error(ticket, &text, ErrorCause::Arguments, silent);
            }
        };
        if let Some(question) = permission::question(&command)
            && !self.is_permitted(ticket, question)
        {
            return Step::Wait;
        }
        match command {
            ClientCommand::Forward | ClientCommand::Caching => {
                self.forward_on_path(ticket, request, row, silent)
            }
            ClientCommand::TrackingInfo | ClientCommand::GetRedir => {
                let mut marks = silent_or(silent, row.marks());
                let session = &self.sessions[ticket.slot as usize];
                match (session.lease(), session.extra.as_deref()) {
                    (Some(conn), Some(extra)) if extra.redirect.is_some() => {
                        marks = marks.with(Marks::WHOLE);
                        self.send_on(ticket, conn, request.frame, row.id, marks)
                    }
                    _ => self.forward_on_path(ticket, request, row, silent),
                }
            }
            ClientCommand::Id => {
                let id = self.sessions[ticket.slot as usize].id;
                self.answer_value(ticket, &Value::integer(id as i64), silent)
            }
            ClientCommand::Info => {
                let reply = self.client_info(ticket, request.frame.len());
                self.answer(ticket, &reply, silent)
            }
            ClientCommand::List(filter) => self.list_clients(ticket, request, row, filter, silent),
            ClientCommand::GetName => {
                let name = &self.sessions[ticket.slot as usize].extra().name;
                let value = match name.is_empty() {
                    true => Value::null(),
                    false => Value::bulk(name.clone()),
                };
                self.answer_value(ticket, &value, silent)
            }
            ClientCommand::Kill(filter) => self.kill_clients(ticket, request, row, filter, silent),
            ClientCommand::KillAddress(address) => self.kill_address(ticket, &address),
            ClientCommand::Reply(mode) => self.reply_mode(ticket, mode, silent),
            ClientCommand::Tracking(tracking) => {
                self.tracking(ticket, request, row, tracking, silent)
            }
            ClientCommand::Pause { milliseconds, mode } => {
                self.pause_clients(ticket, request, row, (milliseconds, mode), silent)
            }
            // What is held goes on when Redis says that it may.
            ClientCommand::Unpause => {
                self.on_control(ticket, request, row, silent_or(silent, Marks::WHOLE))
            }
            ClientCommand::Unblock { id, reason } => self.unblock_client(ticket, id, reason),
            change => {
                self.change_client(ticket, change);
                self.answer(ticket, b"+OK\r\n", silent)
            }
        }
    }

    /// The reply to `CLIENT INFO`; `qbuf` bytes are the request's own.
    pub(super) fn client_info(&self, ticket: Ticket, qbuf: usize) -> Vec<u8> {
        let mut view = self.view(&self.sessions[ticket.slot as usize]);
        view.qbuf += qbuf;
        let server = self.node_of(ticket).server_version();
        lines(&[view], server, self.version_of(ticket))
    }

    /// What only changes what Weir remembers of the client.
    pub(super) fn change_client(&mut self, ticket: Ticket, change: ClientCommand) {
        let session = &mut self.sessions[ticket.slot as usize];
        match change {
            ClientCommand::SetName(name) => {
                session.extra().name = name;
                self.identify(ticket);
                self.refresh_reads(ticket);
            }
            ClientCommand::SetInfo(LibraryInfo::Name, name) => session.extra().lib_name = name,
            ClientCommand::SetInfo(LibraryInfo::Version, text) => {
                session.extra().lib_version = text;
            }
            ClientCommand::NoEvict(on) => session.extra().no_evict = on,
            ClientCommand::NoTouch(on) => {
                session.partition.no_touch = on;
                session.flags.set(Flags::MOVED);
            }
            // `CAPA` announces what the library understands; nothing follows from it
            // here, since Weir sends no redirects.
            _ => {}
        }
    }

    fn on_control(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
        marks: Marks,
    ) -> Step {
        match self.control_conn(ticket) {
            Ok(conn) => {
                let marks = row.marks().with(marks);
                let step = self.send_on(ticket, conn, request.frame, row.id, marks);
                self.set_barrier(ticket);
                step
            }
            Err(failure) => self.refuse(ticket, &failure, marks.any(Marks::SILENT)),
        }
    }

    fn list_clients(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
        filter: ClientFilter,
        silent: bool,
    ) -> Step {
        if matches!(
            filter.kind(),
            Some(ClientKind::Primary | ClientKind::Replica)
        ) {
            // No replica connects through Weir: the node knows its own.
            return self.on_control(ticket, request, row, silent_or(silent, Marks::NONE));
        }
        let session = &self.sessions[ticket.slot as usize];
        let (route, id) = (session.route, session.id);
        let server = self.node_of(ticket).server_version();
        let version = self.version_of(ticket);
        let mut own = self.views(route);
        // As at Redis, the request that asks is still in its client's buffer.
        if let Some(asking) = own.iter_mut().find(|client| client.id == id) {
            asking.qbuf += request.frame.len();
        }
        let others = self.ask_others(|answer| Message::ListClients { route, answer });
        self.answer_later(ticket, async move {
            for other in others {
                own.extend(other.await.unwrap_or_default());
            }
            own.retain(|client| filter.matches(client, id));
            own.sort_by_key(|client| client.id);
            lines(&own, server, version)
        })
    }

    fn kill_clients(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
        filter: ClientFilter,
        silent: bool,
    ) -> Step {
        if matches!(
            filter.kind(),
            Some(ClientKind::Primary | ClientKind::Replica)
        ) {
            return self.on_control(ticket, request, row, silent_or(silent, Marks::NONE));
        }
        let key = self.sessions[ticket.slot as usize].partition.clone();
        let node = self.node_of(ticket);
        let user = filter.user().map(<[u8]>::to_vec);
        let (mut killed, others) = self.kill_everywhere(ticket, filter);
        self.answer_later(ticket, async move {
            for other in others {
                killed += other.await.unwrap_or_default();
            }
            if killed == 0
                && let Some(user) = user
                && !node.has_user(&key, &user).await
            {
                return failure::error_line(no_such_user(&user));
            }
            format!(":{killed}\r\n").into_bytes()
        })
    }

    fn kill_address(&mut self, ticket: Ticket, address: &[u8]) -> Step {
        let filter = ClientFilter::for_address(address);
        let (mut killed, others) = self.kill_everywhere(ticket, filter);
        self.answer_later(ticket, async move {
            for other in others {
                killed += other.await.unwrap_or_default();
            }
            match killed {
                0 => failure::error_line(NO_SUCH_CLIENT),
                _ => b"+OK\r\n".to_vec(),
            }
        })
    }

    /// Closes the clients that match, on every worker: how many there were on this one,
    /// and where the others will say the same.
    fn kill_everywhere(
        &mut self,
        ticket: Ticket,
        filter: ClientFilter,
    ) -> (usize, Vec<oneshot::Receiver<usize>>) {
        let session = &self.sessions[ticket.slot as usize];
        let (route, caller) = (session.route, session.id);
        let kills_itself = filter.matches(&self.view(session), caller);
        let kill = Kill { filter, caller };
        let killed = self.kill(route, &kill) + usize::from(kills_itself);
        let others = self.ask_others(|answer| Message::KillClients {
            route,
            kill: kill.clone(),
            answer,
        });
        if kills_itself {
            self.close_when_answered(ticket);
        }
        (killed, others)
    }

    /// The client that asked is among those it has killed: it gets its answer.
    fn close_when_answered(&mut self, ticket: Ticket) {
        let extra = self.sessions[ticket.slot as usize].extra();
        extra.close_reason = Some(CloseReason::Killed);
        extra.closes_when_answered = true;
    }

    /// `CLIENT REPLY`, in the order of requests.
    fn reply_mode(&mut self, ticket: Ticket, mode: ReplyMode, silent: bool) -> Step {
        let session = &mut self.sessions[ticket.slot as usize];
        match mode {
            ReplyMode::On => {
                session.flags.clear(Flags::REPLY_OFF);
                return self.answer(ticket, b"+OK\r\n", false);
            }
            ReplyMode::Off => session.flags.set(Flags::REPLY_OFF),
            ReplyMode::Skip if !session.flags.any(Flags::REPLY_OFF) => {
                session.flags.set(Flags::SKIP_NEXT);
            }
            ReplyMode::Skip => {}
        }
        self.answer(ticket, b"", silent)
    }

    /// `CLIENT TRACKING`: the node keeps a table by connection, so the client holds
    /// one for as long as tracking is on.
    fn tracking(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
        tracking: Tracking,
        silent: bool,
    ) -> Step {
        if let Some(redirect) = tracking.redirect
            && tracking.on
        {
            return self.track_for_another(ticket, request, row, redirect, silent);
        }
        if !tracking.on && self.sessions[ticket.slot as usize].lease().is_none() {
            return self.forward_on_path(ticket, request, row, silent);
        }
        match self.wish_lease(ticket, Kind::Lease, Until::Closed, Patience::InLine) {
            LeaseWish::Held(conn) => {
                self.conns[conn as usize].dirty = true;
                self.sessions[ticket.slot as usize].extra().asked =
                    request.args().iter().map(|arg| arg.to_vec()).collect();
                let marks = silent_or(silent, row.marks().with(Marks::WHOLE));
                let step = self.send_on(ticket, conn, request.frame, row.id, marks);
                self.set_barrier(ticket);
                step
            }
            LeaseWish::Waits => Step::Wait,
            LeaseWish::Refused(reply) => self.answer(ticket, &reply, silent),
            LeaseWish::NotAtOnce => unreachable!("tracking waits in line"),
        }
    }

    /// The node's answer to `CLIENT TRACKING`.
    pub(super) fn tracking_answered(&mut self, ticket: Ticket, reply: &[u8]) {
        let extra = self.sessions[ticket.slot as usize].extra();
        let asked = std::mem::take(&mut extra.asked);
        let on = asked
            .get(2)
            .is_some_and(|arg| arg.eq_ignore_ascii_case(b"on"));
        let mut redirect = extra.redirect;
        if reply.first() == Some(&b'+') {
            extra.tracking = on;
            redirect = redirect_of(&asked).filter(|_| on);
        }
        extra.redirect = redirect;
        if redirect.is_none() {
            self.drop_receiver(ticket);
        }
        let extra = self.sessions[ticket.slot as usize].extra();
        if !extra.tracking
            && let Some(lease) = &mut extra.lease
        {
            // Nothing is tracked: the lease goes with this reply, unless the client
            // holds it for something else as well.
            lease.until = match extra.subscriptions.on_lease() {
                true => Until::Unsubscribed,
                false => Until::Reply,
            };
        }
        self.refresh_special(ticket);
    }

    /// Holds commands from now on and not when Redis has said that it does: what were sent
    /// meanwhile would hold up all that is on its connection. If Redis refuses, or that is
    /// not known, everything is as before.
    fn pause_clients(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
        (milliseconds, mode): (i64, PauseMode),
        silent: bool,
    ) -> Step {
        let route = self.sessions[ticket.slot as usize].route;
        let step = self.on_control(ticket, request, row, silent_or(silent, Marks::WHOLE));
        let before = self.fronts[route as usize].pause;
        let asked = Pause::of(self.clock.now(), milliseconds, mode);
        if let Some(session) = self.session(ticket)
            && session.in_flight > 0
        {
            session.extra().asked_pause = Some(Box::new(AskedPause { asked, before }));
            self.tell_pause(route, Some(asked));
        }
        step
    }

    /// The node's answer to `CLIENT PAUSE`.
    pub(super) fn pause_answered(&mut self, ticket: Ticket, reply: &[u8]) {
        let session = &mut self.sessions[ticket.slot as usize];
        let route = session.route;
        let asked = session.extra().asked_pause.take();
        if let Some(refused) = asked.filter(|_| reply.first() != Some(&b'+')) {
            self.take_pause_back(route, *refused);
        }
    }

    /// A pause that Redis has refused, or whose asker has gone and will not hear: if Redis
    /// has it, Redis holds what it is about.
    pub(super) fn take_pause_back(&self, route: u16, refused: AskedPause) {
        for worker in 0..self.proxy.workers() {
            self.proxy
                .send(worker, Message::PauseRefused { route, refused });
        }
    }

    /// The node's answer to `CLIENT UNPAUSE`.
    pub(super) fn unpause_answered(&mut self, ticket: Ticket, reply: &[u8]) {
        if reply.first() == Some(&b'+') {
            self.tell_pause(self.sessions[ticket.slot as usize].route, None);
        }
    }

    fn unblock_client(&mut self, ticket: Ticket, id: i64, reason: UnblockReason) -> Step {
        let id = u64::try_from(id).unwrap_or(0);
        let error = reason == UnblockReason::Error;
        let (answer, own) = oneshot::channel();
        self.unblock(id, error, answer);
        let others = self.ask_others(|answer| Message::Unblock { id, error, answer });
        self.answer_later(ticket, async move {
            let mut found = own.await.unwrap_or(false);
            for other in others {
                found |= other.await.unwrap_or(false);
            }
            format!(":{}\r\n", u8::from(found)).into_bytes()
        })
    }

    /// Asks every other worker the same.
    pub(super) fn ask_others<T>(
        &self,
        message: impl Fn(oneshot::Sender<T>) -> Message,
    ) -> Vec<oneshot::Receiver<T>> {
        (0..self.proxy.workers())
            .filter(|&worker| worker != self.index)
            .map(|worker| {
                let (answer, receiver) = oneshot::channel();
                self.proxy.send(worker, message(answer));
                receiver
            })
            .collect()
    }

    /// The command at the front is answered when this is done; the session waits.
    pub(super) fn answer_later(
        &mut self,
        ticket: Ticket,
        reply: impl Future<Output = Vec<u8>> + 'static,
    ) -> Step {
        self.sessions[ticket.slot as usize]
            .flags
            .set(Flags::WAITING);
        let worker = self.worker();
        tokio::task::spawn_local(async move {
            let reply = reply.await;
            worker.enter(|state| {
                if let Some(session) = state.session(ticket) {
                    session.extra().answer = Some(Answer::Reply(reply));
                    session.flags.clear(Flags::WAITING);
                    state.make_ready(ticket);
                }
            });
        });
        Step::Wait
    }
}

/// The redirection that a `CLIENT TRACKING` has asked for.
fn redirect_of(asked: &[Vec<u8>]) -> Option<Redirect> {
    let place = asked
        .iter()
        .rposition(|word| word.eq_ignore_ascii_case(b"redirect"))?;
    let target = integer(asked.get(place + 1)?)?;
    Some(Redirect {
        target: u64::try_from(target).ok()?,
        broken: false,
    })
}

/// The lines of `CLIENT LIST` as a reply.
fn lines(clients: &[ClientView], server: ServerVersion, version: Version) -> Vec<u8> {
    let text: String = clients
        .iter()
        .map(|client| format_line(client, server))
        .collect();
    let value = match version {
        Version::Resp3 => Value::verbatim_txt(text),
        Version::Resp2 => Value::bulk(text),
    };
    let mut reply = Vec::new();
    resp::encode(&value, version, &mut reply);
    reply
}
