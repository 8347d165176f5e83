//! `WEIR`: what operators ask Weir itself, over the port that clients use. Only who may is
//! decided here; the questions are answered by the console, which is on another thread
//! and on a higher floor, so that they cost no client anything.

use tokio::sync::{mpsc, oneshot};

use super::client::Answer;
use super::dispatch::Row;
use super::input::{Request, Step};
use super::worker::State;
use crate::admission::Key;
use crate::backend::Ticket;
use crate::metrics::ErrorCause;
use crate::resp::{self, Value};

/// Questions that wait for the console; more are refused.
pub const QUESTIONS_MAX: usize = 64;

/// Bytes of one question. Nothing that operators ask is long.
const QUESTION_MAX: usize = 64 * 1024;

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// As whom it logged in.
    pub user: String,
    /// Its address.
    pub address: String,
    /// What it came in by: the name of a route, or `admin`.
    pub by: String,
    /// Its id among the clients; 0 if it is none of them.
    pub client: u64,
}

/// A question of an operator's.
#[derive(Debug)]
pub struct Asked {
    /// Who asks.
    pub caller: Caller,
    /// The whole command, `WEIR` included.
    pub args: Vec<Vec<u8>>,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Value>,
}

/// Where questions are put.
pub type Questions = mpsc::Sender<Asked>;

/// What clients are counted together by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Their source address, or its network for IPv6.
    Address,
    /// The user that they logged in as.
    User,
    /// The name that they gave themselves.
    Name,
}

/// What the clients of one identity have in common on one worker. Times in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityView {
    /// The route's index.
    pub route: u16,
    /// Address, user or name.
    pub identity: String,
    /// Its clients.
    pub clients: u64,
    /// Of these, those that came within the last minute.
    pub new_1m: u64,
    /// Within the last ten minutes.
    pub new_10m: u64,
    /// Those that wait in a blocking command, or are held.
    pub blocked: u64,
    /// Those that have subscriptions.
    pub subscribed: u64,
    /// How long the one that is idle longest has been.
    pub idle_max: u64,
    /// How long all of them have been idle, added up.
    pub idle_sum: u64,
    /// Memory that is held for them, in bytes.
    pub memory: u64,
    /// Clients of this identity that were refused so far. Addresses are always counted, users
    /// and names where a rule counts by them.
    pub refused: u64,
    /// Commands of its clients that were refused so far, counted likewise.
    pub commands_refused: u64,
}

impl IdentityView {
    /// Two workers' views of the same identity together.
    pub fn add(&mut self, other: &IdentityView) {
        self.clients += other.clients;
        self.new_1m += other.new_1m;
        self.new_10m += other.new_10m;
        self.blocked += other.blocked;
        self.subscribed += other.subscribed;
        self.idle_max = self.idle_max.max(other.idle_max);
        self.idle_sum += other.idle_sum;
        self.memory += other.memory;
        // The process counts it, not the worker.
        self.refused = self.refused.max(other.refused);
        self.commands_refused = self.commands_refused.max(other.commands_refused);
    }
}

/// What a client reads that is no operator.
const NOT_AN_OPERATOR: &str = "NOPERM weir: WEIR is for operators (clients.operator_networks, \
                               clients.operator_users, admin.resp_listen)";

/// What an operator reads when too many ask at once, or too much.
const BUSY: &str = "BUSY weir: too many console commands at once, command not executed";

impl State {
    /// `WEIR` with any subcommand, behind the replies that are due.
    pub(super) fn weir_command(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
        silent: bool,
    ) -> Step {
        let session = &mut self.sessions[ticket.slot as usize];
        session.command = row.id;
        if let Some(Answer::Reply(reply)) = session.extra().answer.take() {
            return self.answer(ticket, &reply, silent);
        }
        let session = &self.sessions[ticket.slot as usize];
        let rules = self.proxy.limits.rules(session.route);
        if !rules.is_operator(&session.who()) {
            return self.answer_error(ticket, NOT_AN_OPERATOR, ErrorCause::NoPermission, silent);
        }
        drop(rules);
        let user = match session.extra.as_deref().map(|extra| extra.user.as_slice()) {
            Some(user) if !user.is_empty() => String::from_utf8_lossy(user).into_owned(),
            _ => "default".to_owned(),
        };
        let caller = Caller {
            user,
            address: session.peer.to_string(),
            by: self.fronts[session.route as usize].route.name.clone(),
            client: session.id,
        };
        let version = self.version_of(ticket);
        let (answer, answered) = oneshot::channel();
        let args = request.args().iter().map(|arg| arg.to_vec()).collect();
        let asked = Asked {
            caller,
            args,
            answer,
        };
        let is_long = request.frame.len() > QUESTION_MAX;
        if is_long || self.proxy.questions().try_send(asked).is_err() {
            return self.answer_error(ticket, BUSY, ErrorCause::State, silent);
        }
        self.answer_later(ticket, async move {
            // Nobody answers any more when Weir ends.
            let value = answered.await.unwrap_or_else(|_| Value::error(BUSY));
            let mut reply = Vec::new();
            resp::encode(&value, version, &mut reply);
            reply
        })
    }

    /// This worker's clients, added up by who they are.
    pub(super) fn identities(&self, by: By) -> Vec<IdentityView> {
        let now = self.clock.now();
        let seconds = |since: u64| now.saturating_sub(since) / 1_000_000;
        let mut views: hashbrown::HashMap<(u16, String), IdentityView> = hashbrown::HashMap::new();
        for (_, session) in &self.sessions {
            let Some(permit) = &session.permit else {
                continue;
            };
            let groups = permit.groups();
            let group = match by {
                By::Address => groups.first(),
                By::User => groups.iter().find(|it| matches!(it.key, Key::User(_))),
                By::Name => groups.iter().find(|it| matches!(it.key, Key::Name(_))),
            };
            let who = session.who();
            let identity = match by {
                By::Address => match group.map(|group| &group.key) {
                    Some(key @ Key::Address(_)) => key.to_string(),
                    _ => session.peer.ip().to_canonical().to_string(),
                },
                By::User => who.user.map_or(String::new(), shown),
                By::Name => shown(who.name),
            };
            let view =
                views
                    .entry((session.route, identity))
                    .or_insert_with_key(|(route, identity)| IdentityView {
                        route: *route,
                        identity: identity.clone(),
                        ..IdentityView::default()
                    });
            let (age, idle) = (seconds(session.accepted_at), seconds(session.active_at));
            let extra = session.extra.as_deref();
            view.add(&IdentityView {
                clients: 1,
                new_1m: u64::from(age < 60),
                new_10m: u64::from(age < 600),
                blocked: u64::from(self.is_blocked(session)),
                subscribed: u64::from(extra.is_some_and(|extra| !extra.subscriptions.is_empty())),
                idle_max: idle,
                idle_sum: idle,
                memory: (session.charged + size_of_val(session)) as u64,
                refused: group.map_or(0, |group| group.refused_all()),
                commands_refused: group.map_or(0, |group| group.commands_refused()),
                ..IdentityView::default()
            });
        }
        views.into_values().collect()
    }
}

/// What a client calls itself, printable and short.
pub(super) fn shown(name: &[u8]) -> String {
    const SHOWN_MAX: usize = 128;
    name[..name.len().min(SHOWN_MAX)].escape_ascii().to_string()
}
