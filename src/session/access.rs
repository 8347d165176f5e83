//! What a client may not ask for, by the route's access rules.

use super::client::{Flags, Session, Transaction};
use super::failure::Failure;
use super::input::{Request, Step};
use super::worker::State;
use crate::admission::matches_pattern;
use crate::backend::{Marks, Ticket};
use crate::command::{self, AccessRules, Class, Command, Denied, Table};
use crate::config::{self, Network};
use crate::resp;

/// One rule of a route, worked out for the command table in force.
pub struct AccessRule {
    name: Box<str>,
    networks: Vec<Network>,
    users: Vec<String>,
    access: command::Access,
}

impl AccessRule {
    /// The rules of a route's settings.
    pub fn all(config: &config::Route, table: &Table) -> Vec<AccessRule> {
        let rules = config.access.iter();
        rules
            .map(|rule| AccessRule {
                name: rule.name.as_str().into(),
                networks: rule.networks.clone(),
                users: rule.users.clone(),
                access: command::Access::new(table, &rules_of(rule)),
            })
            .collect()
    }

    /// Whether it is about this client.
    fn is_about(&self, session: &Session) -> bool {
        let who = session.who();
        let here = |network: &Network| network.contains(who.address);
        let named = |user: &[u8]| {
            self.users
                .iter()
                .any(|pattern| matches_pattern(pattern.as_bytes(), user))
        };
        (self.networks.is_empty() || self.networks.iter().any(here))
            && (self.users.is_empty() || who.user.is_some_and(named))
    }
}

/// The rule as the command table understands it.
pub fn rules_of(rule: &config::Access) -> AccessRules {
    AccessRules {
        refuse: rule.refuse.clone(),
        read_only: rule.read_only,
        key_prefixes: rule.key_prefixes.clone(),
    }
}

impl State {
    /// Sees which rules are about a client: when it comes, when it says who it is, and
    /// when the rules change.
    pub(super) fn guard(&mut self, ticket: Ticket) {
        let Some(session) = self.session(ticket) else {
            return;
        };
        let route = session.route as usize;
        let session = &mut self.sessions[ticket.slot as usize];
        let rules = &self.fronts[route].access;
        session.guards = 0;
        for (number, rule) in rules.iter().enumerate() {
            session.guards |= u32::from(rule.is_about(session)) << number;
        }
        match session.guards {
            0 => session.flags.clear(Flags::GUARDED),
            _ => session.flags.set(Flags::GUARDED),
        }
    }

    /// The rules about a session.
    fn guards(&self, ticket: Ticket) -> impl Iterator<Item = &AccessRule> {
        let session = &self.sessions[ticket.slot as usize];
        let rules = self.fronts[session.route as usize].access.iter();
        let guards = session.guards;
        rules
            .enumerate()
            .filter(move |(number, _)| guards >> number & 1 == 1)
            .map(|(_, rule)| rule)
    }

    /// Why this request of a guarded client is refused, if it is.
    pub(super) fn denial(
        &self,
        ticket: Ticket,
        command: &Command,
        request: &Request<'_>,
    ) -> Option<Failure> {
        self.guards(ticket).find_map(|rule| {
            let denied = rule.access.check(command, request).err()?;
            let setting = match denied {
                Denied::Refused => "refuse",
                Denied::ReadOnly => "read_only",
                Denied::Key | Denied::Unscoped => "key_prefixes",
            };
            Some(Failure::Access {
                command: command.name.to_string(),
                setting: format!("access.{}.{setting}", rule.name),
            })
        })
    }

    /// Whether a guarded client's request may be let through before its arguments are known.
    pub(super) fn is_always_allowed(&self, ticket: Ticket, command: &Command) -> bool {
        self.guards(ticket)
            .all(|rule| rule.access.always_allows(command))
    }

    /// Refuses a request; in a transaction, as in Redis, the whole of it.
    pub(super) fn deny(
        &mut self,
        ticket: Ticket,
        row: u16,
        class: Class,
        failure: &Failure,
        silent: bool,
    ) -> Step {
        if self.must_wait_for_replies(ticket) {
            return Step::Wait;
        }
        self.abort_queue(ticket, class);
        let step = self.refuse(ticket, failure, silent);
        let session = &self.sessions[ticket.slot as usize];
        let extra = session.extra.as_deref();
        let is_open = extra.is_some_and(|extra| {
            matches!(extra.transaction, Transaction::OnLease { open: true, .. })
        });
        if let (true, Some(conn)) = (is_open, session.lease()) {
            // Redis has queued what came before: a command that it has not makes it
            // refuse EXEC.
            let mut spoil = Vec::new();
            resp::encode_command(&["wEIR"], &mut spoil);
            let marks = Marks::SILENT.with(Marks::UNTIMED);
            self.send_on(ticket, conn, &spoil, row, marks);
        }
        step
    }
}
