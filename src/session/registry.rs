//! Who is connected: what `CLIENT LIST` shows and `CLIENT KILL` closes. Every
//! worker answers for its own sessions.

use std::time::Duration;

use tokio::sync::oneshot;

use super::client::{Flags, Session, Transaction};
use super::client_line::{ClientView, KillFilter};
use super::worker::State;
use crate::backend::{Conn, Kind, Marks, Ticket};
use crate::command::{Class, CommandId};
use crate::metrics::CloseReason;
use crate::resp::Version;

/// Which clients to close.
#[derive(Clone, Debug)]
pub struct Kill {
    /// Those that match all of it.
    pub filter: KillFilter,
    /// The client that asked.
    pub caller: u64,
}

impl State {
    /// What `CLIENT LIST` shows of this worker's clients on a route.
    pub(super) fn views(&self, route: u16) -> Vec<ClientView> {
        self.sessions
            .iter()
            .filter(|(_, session)| session.route == route && !session.flags.any(Flags::REFUSED))
            .map(|(_, session)| self.view(session))
            .collect()
    }

    /// What `CLIENT LIST` shows of one client.
    pub(super) fn view(&self, session: &Session) -> ClientView {
        let now = self.clock.now();
        let seconds = |since: u64| Duration::from_micros(now.saturating_sub(since)).as_secs();
        let front = &self.fronts[session.route as usize];
        let extra = session.extra.as_deref();
        let subscriptions = extra.map(|extra| &extra.subscriptions);
        let (multi, watch) = match extra.map(|extra| &extra.transaction) {
            Some(Transaction::OnLease {
                open,
                queued,
                watching,
                ..
            }) => (
                if *open { i64::from(*queued) } else { -1 },
                u64::from(*watching),
            ),
            Some(Transaction::Queued { commands, .. }) => ((commands.len() as i64 - 1).max(0), 0),
            _ => (-1, 0),
        };
        let user = match extra.map(|extra| extra.user.as_slice()) {
            Some(name) if !name.is_empty() => String::from_utf8_lossy(name).into_owned(),
            _ => "default".into(),
        };
        ClientView {
            id: session.id,
            addr: session.peer.to_string(),
            laddr: session.socket.local_name(),
            fd: std::os::fd::AsRawFd::as_raw_fd(&session.socket).into(),
            name: text(extra.map(|extra| extra.name.as_slice())),
            age: seconds(session.accepted_at),
            idle: seconds(session.active_at),
            flags: self.flag_letters(session),
            db: session.partition.db,
            sub: subscriptions.map_or(0, |all| all.channels.len()),
            psub: subscriptions.map_or(0, |all| all.patterns.len()),
            ssub: subscriptions.map_or(0, |all| all.shards.len()),
            multi,
            watch,
            qbuf: session.input.len(),
            qbuf_free: session.input.capacity() - session.input.len(),
            obl: session.output.len(),
            omem: session.output.memory(),
            tot_mem: size_of::<Session>()
                + session.input.capacity()
                + session.output.memory()
                + extra.map_or(0, size_of_val),
            events: if session.output.is_empty() {
                "r".into()
            } else {
                "rw".into()
            },
            cmd: front
                .table
                .by_id(CommandId(session.command))
                .name
                .to_string(),
            user,
            redir: match extra {
                Some(extra) if extra.tracking => {
                    extra.redirect.map_or(0, |redirect| redirect.target as i64)
                }
                _ => -1,
            },
            resp: if session.partition.version == Version::Resp3 {
                3
            } else {
                2
            },
            lib_name: text(extra.map(|extra| extra.lib_name.as_slice())),
            lib_ver: text(extra.map(|extra| extra.lib_version.as_slice())),
            ..ClientView::default()
        }
    }

    fn flag_letters(&self, session: &Session) -> String {
        let mut letters = String::new();
        let Some(extra) = session.extra.as_deref() else {
            return "N".into();
        };
        if extra.monitoring {
            letters.push('O');
        }
        if !extra.subscriptions.is_empty() {
            letters.push('P');
        }
        match &extra.transaction {
            Transaction::OnLease { open: true, .. } | Transaction::Queued { .. } => {
                letters.push('x');
            }
            _ => {}
        }
        if self.is_blocked(session) {
            letters.push('b');
        }
        if extra.tracking {
            letters.push('t');
            if extra.redirect.is_some_and(|redirect| redirect.broken) {
                letters.push('R');
            }
        }
        if extra.no_evict {
            letters.push('e');
        }
        if session.partition.no_touch {
            letters.push('T');
        }
        if letters.is_empty() {
            letters.push('N');
        }
        letters
    }

    /// Whether the client waits in a blocking command, or is held by a pause.
    pub(super) fn is_blocked(&self, session: &Session) -> bool {
        let waits = session.extra.as_deref().is_some_and(|extra| {
            let shares = extra.shared_wait.as_ref();
            shares.is_some_and(|wait| wait.registered) || extra.in_line.is_some()
        });
        waits
            || session.flags.any(Flags::PAUSED)
            || session
                .lease()
                .and_then(|conn| self.conns.get(conn as usize))
                .is_some_and(|conn| !conn.in_flight.is_empty() && self.may_block(session, conn))
    }

    /// Whether what a session has under way on its own connection may block: any
    /// command on a connection for that; on one that is held for something else, such
    /// as tracking, what has no deadline because the server times it.
    fn may_block(&self, session: &Session, conn: &Conn) -> bool {
        let table = &self.fronts[session.route as usize].table;
        conn.kind == Kind::Blocking
            || conn.in_flight.back().is_some_and(|entry| {
                let class = table.by_id(CommandId(entry.command)).class;
                entry.marks.any(Marks::UNTIMED) && matches!(class, Class::Blocking(_) | Class::Wait)
            })
    }

    /// Brings the gauges up to date that count this session by its state.
    pub(super) fn recount(&mut self, ticket: Ticket) {
        let Some(session) = self.sessions.get(ticket.slot as usize) else {
            return;
        };
        if session.id as u32 != ticket.generation {
            return;
        }
        let census = self.census_of(session);
        let session = &mut self.sessions[ticket.slot as usize];
        if session.extra.is_none() && census == Census::default() {
            return;
        }
        let before = std::mem::replace(&mut session.extra().census, census);
        self.change_census(self.sessions[ticket.slot as usize].route, before, census);
    }

    /// Moves the gauges from one state of a session to another.
    pub(super) fn change_census(&self, route: u16, before: Census, after: Census) {
        let metrics = &self.fronts[route as usize].metrics;
        let change = |before: bool, after: bool| i64::from(after) - i64::from(before);
        metrics
            .clients_blocked
            .add(change(before.blocked, after.blocked));
        metrics
            .clients_subscribed
            .add(change(before.subscribed, after.subscribed));
        metrics
            .clients_tracking
            .add(change(before.tracking, after.tracking));
        metrics
            .clients_watching
            .add(change(before.watching, after.watching));
    }

    fn census_of(&self, session: &Session) -> Census {
        let extra = session.extra.as_deref();
        Census {
            blocked: self.is_blocked(session),
            subscribed: extra.is_some_and(|extra| !extra.subscriptions.is_empty()),
            tracking: extra.is_some_and(|extra| extra.tracking),
            watching: extra.is_some_and(|extra| {
                matches!(
                    extra.transaction,
                    Transaction::OnLease { watching: true, .. }
                )
            }),
        }
    }

    /// Closes this worker's clients that match; not the one that asked, which is
    /// closed after its reply.
    pub(super) fn kill(&mut self, route: u16, kill: &Kill) -> usize {
        let doomed: Vec<Ticket> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.route == route && session.id != kill.caller)
            // Who was refused was never a client, and goes by itself.
            .filter(|(_, session)| !session.flags.any(Flags::REFUSED))
            .filter(|(_, session)| kill.filter.matches(&self.view(session), kill.caller))
            .map(|(slot, session)| session.ticket(slot as u32))
            .collect();
        for ticket in &doomed {
            self.close(ticket.slot, CloseReason::Killed);
        }
        doomed.len()
    }

    /// Unblocks a client that waits on this worker.
    pub(super) fn unblock(&mut self, id: u64, error: bool, answer: oneshot::Sender<bool>) {
        let found = self
            .sessions
            .iter()
            .find(|(_, session)| session.id == id && self.is_blocked(session))
            .map(|(slot, session)| session.ticket(slot as u32));
        let answer = match found {
            Some(ticket) => match self.unblock_waiting(ticket, error, answer) {
                Some(answer) => answer,
                None => return,
            },
            None => answer,
        };
        let conn = found.and_then(|ticket| self.sessions[ticket.slot as usize].lease());
        let (Some(ticket), Some(conn)) = (found, conn) else {
            let _ = answer.send(false);
            return;
        };
        let paused = self.fronts[self.sessions[ticket.slot as usize].route as usize]
            .pause
            .is_some();
        if paused {
            // Servers up to 8.0 crash when a paused connection is unblocked.
            let _ = answer.send(false);
            return;
        }
        let connection = &self.conns[conn as usize];
        let node = self.lanes[connection.lane as usize].node.clone();
        let key = self.lanes[connection.lane as usize].key.clone();
        let Some(backend_id) = connection.backend_id else {
            let _ = answer.send(false);
            return;
        };
        tokio::task::spawn_local(async move {
            let done = node.unblock(&key, backend_id, error).await;
            let _ = answer.send(done);
        });
    }
}

/// Which of the counted states a session is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Census {
    /// Waits in a blocking command, or is held by a pause.
    pub blocked: bool,
    /// Has subscriptions.
    pub subscribed: bool,
    /// Has client-side caching on.
    pub tracking: bool,
    /// Watches keys.
    pub watching: bool,
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}
