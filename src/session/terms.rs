//! What the rules about a client say of its commands, taken over when it comes, when it says
//! who it is, and when the rules become others.

use super::client::Flags;
use super::failure::Failure;
use super::proxy::Proxy;
use super::worker::State;
use crate::admission::{ClientPermit, Terms};
use crate::backend::Ticket;
use crate::metrics::{Event, EventKind};

impl State {
    /// Takes over what the rules say now.
    pub(super) fn take_terms(&mut self, ticket: Ticket) {
        let Some(session) = self.session(ticket) else {
            return;
        };
        let permit = session.permit.as_ref();
        let terms = permit.map(ClientPermit::terms).unwrap_or_default();
        let metered: Vec<_> = permit
            .map(|permit| permit.metered().cloned().collect())
            .unwrap_or_default();
        if session.priority != terms.priority {
            session.priority = terms.priority;
            if session.queued > 0 {
                // Lines of different priorities are not ordered with each other.
                session.flags.set(Flags::BARRIER);
            }
        }
        if session.extra.is_some() || terms != Terms::default() || !metered.is_empty() {
            session.extra().terms = terms;
        }
        self.meter_by(ticket, &metered);
    }

    /// So many commands of a client are refused: counted for whoever it is counted with.
    pub(super) fn count_refused_of(&self, ticket: Ticket, count: u64) {
        let session = self.sessions.get(ticket.slot as usize);
        let permit = session
            .filter(|session| session.id as u32 == ticket.generation)
            .and_then(|session| session.permit.as_ref());
        for group in permit.map_or(&[][..], ClientPermit::groups) {
            group.count_commands_refused(count);
        }
    }

    /// Whether a client's writes are refused since the node's memory is nearly used up.
    pub(super) fn refuses_growth_of(&self, ticket: Ticket) -> bool {
        let session = &self.sessions[ticket.slot as usize];
        let front = &self.fronts[session.route as usize];
        if !front.refuses_growth {
            return false;
        }
        let terms = session.extra.as_deref().map(|extra| extra.terms);
        let own = terms.and_then(|terms| terms.refuse_writes_above);
        let above = own.unwrap_or(front.config.health.refuse_writes_above_memory);
        is_short(front.node.memory_share(), above)
    }

    /// Why they are.
    pub(super) fn no_growth(&self, ticket: Ticket) -> Failure {
        let session = &self.sessions[ticket.slot as usize];
        let rule = session
            .permit
            .as_ref()
            .and_then(ClientPermit::refuses_writes_by);
        Failure::NodeMemory {
            setting: match rule {
                Some(rule) => format!("limits.{rule}.refuse_writes_above_memory"),
                None => "health.refuse_writes_above_memory".to_owned(),
            },
        }
    }

    /// Whether writes of anybody on a route may have to be refused, as of now.
    pub(super) fn look_at_memory(&mut self, route: usize) {
        let front = &mut self.fronts[route];
        let by_rule = self.proxy.limits.rules(route as u16).refuse_writes_above();
        let above = front.config.health.refuse_writes_above_memory;
        let lowest = by_rule.map_or(above, |rule| rule.min(above));
        front.refuses_growth = is_short(front.node.memory_share(), lowest);
    }

    /// Whether any client of a route may be answered as by a cache that misses.
    pub(super) fn may_fail_open(&self, route: u16) -> bool {
        self.fronts[route as usize].config.health.fail_open
            || self.proxy.limits.rules(route).fails_open()
    }

    /// Whether this one may.
    pub(super) fn fails_open(&self, ticket: Ticket) -> bool {
        let session = &self.sessions[ticket.slot as usize];
        let terms = session.extra.as_deref().map(|extra| extra.terms);
        let by_rule = terms.and_then(|terms| terms.fail_open);
        by_rule.unwrap_or(self.fronts[session.route as usize].config.health.fail_open)
    }

    /// A session ends: what it is counted by is let go.
    pub(super) fn leave_meters(&mut self, meters: &[u32]) {
        self.meters.leave(meters, self.clock.now());
    }
}

/// Whether so much of the node's memory is used that writes are refused above this share.
fn is_short(used: f64, above: f64) -> bool {
    above < 1.0 && used > above
}

impl Proxy {
    /// Tells, once, that a rule's share of a node's memory is passed and writes of its clients
    /// are refused, and once that it is no more.
    pub(super) fn tell_refused_writes(&self) {
        for (index, route) in self.routes.iter().enumerate() {
            let share = route.deployment.primary().memory_share();
            for rule in &self.limits.rules(index as u16).rules {
                let refuses = rule
                    .says_refuse_writes_above()
                    .is_some_and(|above| is_short(share, above));
                let is_news = match refuses {
                    true => rule.tally.refuses_writes.set(),
                    false => rule.tally.refuses_writes.clear(),
                };
                if !is_news {
                    continue;
                }
                let setting = format!("limits.{}.refuse_writes_above_memory", rule.tally.name);
                let (route, percent) = (&*route.name, (share * 100.0).round());
                let kind = match refuses {
                    true => {
                        tracing::warn!(route, percent, "writes are refused ({setting})");
                        EventKind::LimitReached
                    }
                    false => {
                        tracing::info!(route, percent, "writes are taken again ({setting})");
                        EventKind::LimitCleared
                    }
                };
                let event = Event::new(kind, setting).on(route);
                self.journal.note(event.with("percent", percent));
            }
        }
    }
}
