//! Commands that a node has refused because of what it is: demoted (`-READONLY`), loading
//! its data (`-LOADING`), without a link to its primary (`-MASTERDOWN`). Nothing of them
//! has run, so they go to another node, in order, and only while no later command of
//! their session has run (COMMANDS.md 3.2): what follows a refused command is kept
//! together with its reply until all that is under way was answered. Then everything goes
//! again if all of it was refused or only reads; else the client gets the replies as they
//! came.

use super::client::Flags;
use super::worker::State;
use crate::backend::{Entry, Kind, Marks, Ticket, is_about_node, is_demoted};
use crate::router::NodeId;

/// Replies that are kept of one session, at most, in bytes.
const STASH_MAX: usize = 1 << 20;

/// A command that was answered, and its client does not know it yet.
#[derive(Debug)]
pub struct Stashed {
    entry: Entry,
    request: Vec<u8>,
    reply: Vec<u8>,
}

/// What is kept of one session.
#[derive(Debug, Default)]
pub struct Stash {
    answered: Vec<Stashed>,
    /// To which node the commands were sent.
    node: NodeId,
}

impl State {
    /// Replies of one connection that say what its node is, and those behind them.
    pub(super) fn heed_all(
        &mut self,
        conn: Ticket,
        route: u16,
        node: NodeId,
        heeded: Vec<(Entry, Vec<u8>, Vec<u8>)>,
    ) {
        let deployment = &self.fronts[route as usize].route.deployment;
        deployment.doubt(node);
        if deployment.primary().id != self.fronts[route as usize].node.id {
            // This worker is about to hear of it.
            self.take_topology(route);
        } else if deployment.outage().is_some() && node == self.fronts[route as usize].node.id {
            // Or what goes again would only be refused once more.
            self.retire_shared(conn);
        }
        for (entry, request, reply) in heeded {
            if is_demoted(&reply) {
                self.wait_on(conn, &entry, request, &reply);
                continue;
            }
            self.heed(node, &entry, request, &reply);
        }
    }

    fn retire_shared(&mut self, ticket: Ticket) {
        if self
            .conn(ticket)
            .is_some_and(|conn| conn.kind == Kind::Shared)
        {
            self.retire(ticket.slot);
        }
    }

    fn heed(&mut self, node: NodeId, entry: &Entry, request: Vec<u8>, reply: &[u8]) {
        let Some(session) = self.session(entry.to) else {
            return;
        };
        session.flags.set(Flags::STASHED.with(Flags::BARRIER));
        let in_flight = session.in_flight as usize;
        let stash = self
            .stashes
            .entry((entry.to.slot, entry.to.generation))
            .or_default();
        stash.node = node;
        stash.answered.push(Stashed {
            entry: *entry,
            request,
            reply: reply.to_vec(),
        });
        let bytes: usize = stash.answered.iter().map(|it| it.reply.len()).sum();
        if bytes > STASH_MAX {
            self.relay_stash(entry.to);
        } else if stash.answered.len() >= in_flight {
            self.decide_stash(entry.to);
        }
    }

    /// All that was under way is answered.
    fn decide_stash(&mut self, ticket: Ticket) {
        let now = self.clock.now();
        let Some(session) = self.session(ticket) else {
            return;
        };
        let route = session.route;
        let front = &self.fronts[route as usize];
        let hold_until = front.route.deployment.hold_until();
        let Some(stash) = self.stashes.get(&(ticket.slot, ticket.generation)) else {
            return;
        };
        let all_read = stash
            .answered
            .iter()
            .all(|it| self.is_read_entry(&it.entry));
        // Of a replica nothing is asked but reads.
        let was_primary = stash.node == front.node.id || !all_read;
        let may_go = stash.answered.iter().all(|it| {
            let is_harmless = is_about_node(&it.reply) || it.entry.marks.any(Marks::SAFE);
            let is_in_time = match was_primary {
                // For as long as a primary is waited for, however long the node has kept
                // what it refuses: `FAILOVER` makes it hold writes first.
                true => hold_until.is_none_or(|until| now < until),
                false => !it.entry.marks.any(Marks::RETRIED),
            };
            is_harmless && is_in_time
        });
        let target = match (may_go, all_read && was_primary) {
            (false, _) => None,
            // Never to the primary.
            (true, _) if !was_primary && all_read && self.reads_replicas_only(ticket) => None,
            (true, true) => self.reader_conn(ticket, false).ok(),
            (true, false) => self.lane_conn(ticket).ok(),
        };
        let Some(target) = target else {
            return self.relay_stash(ticket);
        };
        let stash = self.end_stash(ticket);
        for Stashed {
            entry,
            request,
            reply,
        } in stash.answered
        {
            let mut marks = entry.marks.without(Marks::HEEDED);
            if !was_primary || !is_about_node(&reply) {
                marks = marks.with(Marks::RETRIED);
            }
            self.conns[target as usize].append(&request, Entry { marks, ..entry });
            self.fronts[route as usize].metrics.retries.inc();
        }
        self.sessions[ticket.slot as usize].conn = target;
        self.mark_dirty(target);
    }

    /// The client gets what is kept as it came.
    pub(super) fn relay_stash(&mut self, ticket: Ticket) {
        for Stashed { entry, reply, .. } in self.end_stash(ticket).answered {
            self.settle_entry(&entry, &reply);
        }
    }

    fn end_stash(&mut self, ticket: Ticket) -> Stash {
        if let Some(session) = self.session(ticket) {
            session.flags.clear(Flags::STASHED);
        }
        let name = (ticket.slot, ticket.generation);
        self.stashes.remove(&name).unwrap_or_default()
    }

    /// A session goes, and with it what is kept for it.
    pub(super) fn drop_stash(&mut self, ticket: Ticket) {
        self.stashes.remove(&(ticket.slot, ticket.generation));
    }
}
