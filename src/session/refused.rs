//! Commands that a node has refused because of what it is: demoted (`-READONLY`), loading
//! its data (`-LOADING`), without a link to its primary (`-MASTERDOWN`). Nothing of them
//! has run, so they go to another node, in order, and only while no later command of
//! their session has run (COMMANDS.md 3.2): what follows a refused command is kept
//! together with its reply until all that is under way was answered. Then everything goes
//! again if all of it was refused or only reads; else the client gets the replies as they
//! came. What the session has in line goes behind all that.

use hashbrown::HashSet;

use super::client::Flags;
use super::failure;
use super::line::every_line;
use super::shed::place_only;
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

/// What is kept of one session. While there is something, nothing of the session waits in a
/// line: what does is kept here as well, so that nobody takes it for next. All of it is
/// counted in the session's `in_flight`, and none of it is on a connection.
#[derive(Debug, Default)]
pub struct Stash {
    answered: Vec<Stashed>,
    /// What was on the connection behind those and has to be sent to another one. An entry
    /// without a request stands for one whose outcome is unknown.
    again: Vec<(Entry, Vec<u8>)>,
    /// What had not been sent yet. An entry without a request stands for one that was
    /// refused.
    unsent: Vec<(Entry, Vec<u8>)>,
    /// To which node the commands were sent.
    node: NodeId,
}

impl Stash {
    /// How many of the session's commands it has.
    fn len(&self) -> usize {
        self.answered.len() + self.again.len() + self.unsent.len()
    }

    /// All entries, those without a request left out.
    fn commands(&self) -> impl Iterator<Item = &Entry> {
        let behind = self.again.iter().chain(&self.unsent);
        let behind = behind.filter(|(entry, _)| entry.len > 0);
        let answered = self.answered.iter().map(|it| &it.entry);
        answered.chain(behind.map(|(entry, _)| entry))
    }
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
        let deployment = self.fronts[route as usize].route.deployment.clone();
        deployment.doubt(node);
        // All is kept before anything else is done about the node: none of it is on the
        // connection any more, which may go.
        let (mut kept, mut ended) = (HashSet::new(), Vec::new());
        for (entry, request, reply) in heeded {
            match is_demoted(&reply) {
                true => ended.push((entry, request, reply)),
                false if self.heed(node, &entry, request, reply) => {
                    kept.insert((entry.to.slot, entry.to.generation));
                }
                false => {}
            }
        }
        self.keep_waiting(route, &kept);
        if deployment.primary().id != self.fronts[route as usize].node.id {
            // This worker is about to hear of it.
            self.take_topology(route);
        } else if deployment.outage().is_some() && node == self.fronts[route as usize].node.id {
            // Or what goes again would only be refused once more.
            self.retire_shared(conn);
        }
        for (slot, generation) in kept {
            self.look_at_stash(Ticket { slot, generation });
        }
        for (entry, request, reply) in ended {
            self.wait_on(conn, &entry, request, &reply);
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

    /// Keeps a reply. Whether its client is still there.
    fn heed(&mut self, node: NodeId, entry: &Entry, request: Vec<u8>, reply: Vec<u8>) -> bool {
        let Some(session) = self.session(entry.to) else {
            return false;
        };
        session.flags.set(Flags::STASHED.with(Flags::BARRIER));
        let stash = self
            .stashes
            .entry((entry.to.slot, entry.to.generation))
            .or_default();
        stash.node = node;
        stash.answered.push(Stashed {
            entry: *entry,
            request,
            reply,
        });
        true
    }

    /// What these sessions have in line is kept with what is kept of them: it has not been
    /// sent, and comes behind.
    fn keep_waiting(&mut self, route: u16, sessions: &HashSet<(u32, u32)>) {
        let waits = |&(slot, _): &(u32, u32)| self.sessions[slot as usize].queued > 0;
        if !sessions.iter().any(waits) {
            return;
        }
        let lanes = self.lanes.iter();
        let lined = lanes.filter(|(_, lane)| lane.route == route && lane.lines.is_some());
        let lined: Vec<u32> = lined.map(|(index, _)| index as u32).collect();
        for lane in lined {
            for (work, priority) in every_line() {
                let place = &mut self.lanes[lane as usize];
                let (gate, Some(lines)) = (place.gate, &mut place.lines) else {
                    continue;
                };
                let is_theirs =
                    |entry: &Entry| sessions.contains(&(entry.to.slot, entry.to.generation));
                for (entry, request) in lines.of(work, priority).take_whole(is_theirs) {
                    self.gates[gate as usize].gate.left(work, priority, None);
                    self.keep_unsent(&entry, &request);
                }
            }
            self.lines_changed(lane);
        }
    }

    /// A command leaves its line and is kept until what its session has under way is
    /// answered: that is at a node which gets nothing more.
    pub(super) fn keep_unsent(&mut self, entry: &Entry, request: &[u8]) {
        let Some(session) = self.session(entry.to) else {
            return;
        };
        session.queued -= 1;
        session.flags.set(Flags::STASHED.with(Flags::BARRIER));
        let stash = self.stashes.entry((entry.to.slot, entry.to.generation));
        stash.or_default().unsent.push((*entry, request.to_vec()));
    }

    /// The same for one that was refused, and has left its line.
    pub(super) fn keep_place(&mut self, entry: &Entry) {
        let stash = self.stashes.entry((entry.to.slot, entry.to.generation));
        let entry = Entry { len: 0, ..*entry };
        stash.or_default().unsent.push((entry, Vec::new()));
    }

    /// Goes on with those of whom something is kept and nothing is under way any more.
    #[cold]
    pub(super) fn look_at_stashes(&mut self) {
        let sessions = &self.sessions;
        let is_complete = |&(&(slot, _), stash): &(&(u32, u32), &Stash)| {
            (sessions.get(slot as usize))
                .is_some_and(|session| session.in_flight as usize <= stash.len())
        };
        let complete = self.stashes.iter().filter(is_complete);
        let complete: Vec<(u32, u32)> = complete.map(|(name, _)| *name).collect();
        for (slot, generation) in complete {
            self.look_at_stash(Ticket { slot, generation });
        }
    }

    /// Keeps a command of a session of which replies are kept, and whose connection was lost:
    /// it is sent again in its turn. Without a request only its caller's place is kept.
    /// Whether that was done.
    pub(super) fn keep_for_again(&mut self, entry: &Entry, request: Vec<u8>) -> bool {
        let name = (entry.to.slot, entry.to.generation);
        let is_stashed =
            (self.session(entry.to)).is_some_and(|session| session.flags.any(Flags::STASHED));
        let Some(stash) = self.stashes.get_mut(&name).filter(|_| is_stashed) else {
            return false;
        };
        if request.is_empty() && stash.again.is_empty() {
            // Nothing goes on before it: it can be told now.
            return false;
        }
        stash.again.push((*entry, request));
        true
    }

    /// Goes on with a session of which replies are kept, if all that was under way is
    /// answered.
    pub(super) fn look_at_stash(&mut self, ticket: Ticket) {
        let Some(session) = self.session(ticket) else {
            return;
        };
        if !session.flags.any(Flags::STASHED) {
            return;
        }
        let in_flight = session.in_flight as usize;
        let Some(stash) = self.stashes.get(&(ticket.slot, ticket.generation)) else {
            return;
        };
        let bytes: usize = stash.answered.iter().map(|it| it.reply.len()).sum();
        if stash.len() >= in_flight {
            self.decide_stash(ticket);
        } else if bytes > STASH_MAX {
            self.relay_stash(ticket);
        }
    }

    /// All that was under way is answered.
    fn decide_stash(&mut self, ticket: Ticket) {
        let now = self.clock.now();
        let Some(session) = self.session(ticket) else {
            return;
        };
        let route = session.route;
        let stash = self.end_stash(ticket);
        let front = &self.fronts[route as usize];
        let hold_until = front.route.deployment.hold_until();
        let all_read = stash.commands().all(|entry| self.is_read_entry(entry));
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
        // One behind them whose outcome is unknown may have run.
        let may_have_run = stash.again.iter().any(|(_, request)| request.is_empty());
        let may_go = may_go && !may_have_run && !stash.answered.is_empty();
        let target = match (may_go, all_read && was_primary) {
            (false, _) => None,
            // Never to the primary.
            (true, _) if !was_primary && all_read && self.reads_replicas_only(ticket) => None,
            (true, true) => self.reader_conn(ticket, false).ok(),
            (true, false) => self.lane_conn(ticket).ok(),
        };
        match target {
            Some(target) => {
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
            None => self.tell(stash.answered),
        }
        let behind = stash.again.into_iter().chain(stash.unsent);
        self.send_behind(ticket, target, all_read, behind);
    }

    /// What comes behind the answered ones goes on: to `target`, if they went there.
    fn send_behind(
        &mut self,
        ticket: Ticket,
        mut target: Option<u32>,
        all_read: bool,
        commands: impl Iterator<Item = (Entry, Vec<u8>)>,
    ) {
        let mut failed = None;
        for (entry, request) in commands {
            if self.session(ticket).is_none() {
                return;
            }
            let is_place = request.is_empty();
            let to = match target {
                Some(target) => Ok(target),
                None if is_place => {
                    // Nothing comes before it any more.
                    match entry.marks.any(Marks::REFUSED) {
                        true => self.settle_refused(&entry),
                        false => self.settle_entry(&entry, failure::OUTCOME_UNKNOWN),
                    }
                    continue;
                }
                None => match failed.take() {
                    // Not the rest of a block alone.
                    Some(failure) => Err(failure),
                    None if all_read => self.reader_conn(ticket, false),
                    None => self.lane_conn(ticket),
                },
            };
            match to {
                Ok(to) if is_place => {
                    let marks = place_only(entry.marks);
                    let entry = Entry { marks, ..entry };
                    self.conns[to as usize].in_flight.push_back(entry);
                }
                Ok(to) => {
                    let marks = entry.marks.without(Marks::HEEDED);
                    self.conns[to as usize].append(&request, Entry { marks, ..entry });
                    self.sessions[ticket.slot as usize].conn = to;
                    self.mark_dirty(to);
                    target = Some(to);
                }
                Err(failure) => {
                    if !self.settle_made_up(&entry, &request, &failure) {
                        self.fail_entry(&entry, &failure.reply(), &failure);
                    }
                    failed = Some(failure);
                }
            }
        }
    }

    /// The client gets the replies that are kept as they came.
    pub(super) fn relay_stash(&mut self, ticket: Ticket) {
        let name = (ticket.slot, ticket.generation);
        let Some(stash) = self.stashes.get_mut(&name) else {
            return;
        };
        let answered = std::mem::take(&mut stash.answered);
        if stash.len() == 0 {
            self.end_stash(ticket);
        }
        self.tell(answered);
    }

    fn tell(&mut self, answered: Vec<Stashed>) {
        for Stashed { entry, reply, .. } in answered {
            self.settle_in_turn(&entry, &reply);
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
