//! A connection whose oldest reply does not come (COMMANDS.md, G7). The node is asked
//! over another connection: if it answers there, this one alone is stuck, by a script
//! that runs for long or by a network that has lost it. Then new commands take another
//! connection, and reads that wait behind the stuck one are asked again there.

use std::time::Duration;

use hashbrown::HashMap;

use super::proxy::Message;
use super::worker::State;
use crate::admission::Tally;
use crate::backend::{Broken, Entry, Io, Kind, Marks, Ticket};

/// How long the oldest command of a shared connection may be unanswered before
/// it is asked, over another connection, whether the node answers there. A long
/// script makes Redis answer `-BUSY` elsewhere, which its callers should see.
pub(super) const SUSPECT_AFTER: Duration = Duration::from_millis(100);

/// While a connection is suspect all nodes are looked at once in so many ticks.
const LOOK_AROUND_TICKS: usize = 8;

impl State {
    /// Looks at a shared connection that has commands on it.
    pub(super) fn look_for_stall(&mut self, index: u32) {
        let now = self.clock.now();
        self.look_for_hang(index);
        let conn = &mut self.conns[index as usize];
        let silent = Duration::from_micros(now.saturating_sub(conn.progress_at));
        if conn.gate.is_closed() {
            // The node is probed already.
            return;
        }
        let asked = conn.probed_at_progress == conn.progress_at && now < conn.probe_again_at;
        if silent <= SUSPECT_AFTER {
            return;
        }
        if self.tick.is_multiple_of(LOOK_AROUND_TICKS) {
            // If it is the node that hangs, another may be taking its place.
            self.fronts[conn.route as usize].route.deployment.look();
        }
        if conn.probing || asked {
            return;
        }
        conn.probing = true;
        conn.probed_at_progress = conn.progress_at;
        let ticket = Ticket {
            slot: index,
            generation: conn.generation,
        };
        let node = self.lanes[conn.lane as usize].node.clone();
        let worker = self.worker();
        tokio::task::spawn_local(async move {
            let answers = node.probe().await;
            worker.enter(|state| state.probed(ticket, answers));
        });
        tracing::debug!(
            ?silent,
            "a shared connection makes no progress; asking elsewhere"
        );
    }

    /// Tells the node what its connection has met since the last tick.
    pub(super) fn report_to_node(&mut self, index: u32) {
        let now = self.clock.now();
        let conn = &mut self.conns[index as usize];
        if conn.answers == 0 || matches!(conn.io, Io::Link(_)) {
            // What comes over a link is counted by the worker that has the socket.
            return;
        }
        let tally = Tally {
            answers: std::mem::take(&mut conn.answers),
            micros: std::mem::take(&mut conn.answer_micros),
            timeouts: 0,
        };
        let heard_ago = Duration::from_micros(now.saturating_sub(conn.heard_at));
        let node = &self.lanes[conn.lane as usize].node;
        node.count(tally);
        node.heard(heard_ago);
    }

    /// If nothing has come from the node for too long, over this connection and any
    /// other, it hangs. Not judged by a worker that was late itself: what it has not heard
    /// may be waiting in its own sockets.
    fn look_for_hang(&mut self, index: u32) {
        if self.late_tick {
            return;
        }
        let now = self.clock.now();
        let conn = &self.conns[index as usize];
        let silent = Duration::from_micros(now.saturating_sub(conn.progress_at));
        let limit = self.fronts[conn.route as usize].config.health.silence_max;
        if silent > limit && !conn.gate.is_closed() {
            self.lanes[conn.lane as usize].node.hears_nothing(limit);
        }
    }

    /// Bytes came over a connection whose node gets no commands: it is back.
    #[inline]
    pub(super) fn look_at_gate(&mut self, index: u32) {
        let conn = &self.conns[index as usize];
        if conn.gate.is_closed() {
            self.lanes[conn.lane as usize].node.heard_while_sick();
        }
    }

    /// The node's answer to a probe. If it answers elsewhere while this connection
    /// has not moved, it is passed by; after the stall timeout what is on it is given
    /// up.
    fn probed(&mut self, ticket: Ticket, answers: bool) {
        let now = self.clock.now();
        let Some(conn) = self.conn(ticket) else {
            return;
        };
        conn.probing = false;
        conn.probe_again_at = now + SUSPECT_AFTER.as_micros() as u64;
        if !answers || conn.progress_at != conn.probed_at_progress || conn.is_quiet() {
            return;
        }
        let silent = Duration::from_micros(now.saturating_sub(conn.progress_at));
        let (route, retiring) = (conn.route, conn.retiring);
        let slow = conn
            .in_flight
            .front()
            .is_some_and(|head| head.marks.any(Marks::SLOW));
        let timeouts = &self.fronts[route as usize].config.timeouts;
        let limit = if slow {
            timeouts.slow_request
        } else {
            timeouts.stall
        };
        if silent > limit {
            let commands = self.conns[ticket.slot as usize].in_flight.len();
            tracing::warn!(
                ?silent,
                commands,
                "a connection has stalled while the node answers elsewhere"
            );
            return self.conn_lost(ticket.slot, &Broken::Stalled);
        }
        // The next look is the one that decides; until then asking again would only
        // cost the node.
        let conn = &mut self.conns[ticket.slot as usize];
        conn.probe_again_at = conn.progress_at + limit.as_micros() as u64 + 1;
        if !retiring {
            self.retire(ticket.slot);
            self.pass_by(ticket.slot);
        }
    }

    /// Has the reads on a stuck connection asked again elsewhere, here and on the
    /// workers that have handed commands over to it.
    fn pass_by(&mut self, index: u32) {
        let Some(conn) = self.conns.get(index as usize) else {
            return;
        };
        let mut told: Vec<Ticket> = Vec::new();
        for (place, entry) in conn.in_flight.iter().enumerate() {
            if !entry.marks.any(Marks::LINK) || told.contains(&entry.to) {
                continue;
            }
            told.push(entry.to);
            if let Some(link) = self.links.get(entry.to.slot as usize)
                && link.generation == entry.to.generation
            {
                let message = Message::LinkStuck {
                    conn: link.conn,
                    by_head: place == 0,
                };
                self.proxy.send(link.from, message);
            }
        }
        self.ask_again(index, true);
    }

    /// The connection behind a link is stuck; `by_head` if by this worker's own oldest
    /// command on it.
    pub(super) fn link_stuck(&mut self, conn: Ticket, by_head: bool) {
        if self.conn(conn).is_some() {
            self.ask_again(conn.slot, by_head);
        }
    }

    /// Asks reads again over the connection that took the stuck one's place; what still
    /// comes here is swallowed. A session moves with all that it has in flight or not
    /// at all, or its replies would change their order.
    fn ask_again(&mut self, index: u32, stuck_by_head: bool) {
        let conn = &self.conns[index as usize];
        if conn.kind != Kind::Shared {
            return;
        }
        let sessions = movable(conn.in_flight.iter(), stuck_by_head);
        self.move_reads(index, &sessions, |state, ticket| {
            state.lane_conn(ticket).ok().filter(|&to| to != index)
        });
    }

    /// Moves the commands of those `sessions` that may move to the connections that
    /// `target` finds for them; who finds none stays.
    pub(super) fn move_reads(
        &mut self,
        index: u32,
        sessions: &HashMap<(u32, u32), bool>,
        target: impl Fn(&mut State, Ticket) -> Option<u32>,
    ) {
        let conn = &self.conns[index as usize];
        let mut start = 0;
        let mut again = Vec::new();
        for (place, entry) in conn.in_flight.iter().enumerate() {
            if sessions.get(&name(entry)) == Some(&true) && !entry.marks.any(NOT_OURS) {
                again.push((place, *entry, conn.ring.copy(start, entry.len as usize)));
            }
            start += entry.len as usize;
        }
        let mut targets: HashMap<(u32, u32), Option<u32>> = HashMap::new();
        for (place, entry, request) in again {
            if self.session(entry.to).is_none() {
                continue;
            }
            let found = match targets.get(&name(&entry)) {
                Some(found) => *found,
                None => {
                    let found = target(self, entry.to);
                    targets.insert(name(&entry), found);
                    found
                }
            };
            if let Some(to) = found {
                self.move_entry(index, place, &entry, &request, to);
            }
        }
    }

    /// Has a read that is on a stuck connection asked again over another; what still comes
    /// over the stuck one is swallowed.
    fn move_entry(&mut self, from: u32, place: usize, entry: &Entry, request: &[u8], to: u32) {
        let stuck = &mut self.conns[from as usize].in_flight[place];
        stuck.marks = stuck.marks.with(Marks::ANSWERED);
        let marks = entry.marks.with(Marks::RETRIED);
        self.conns[to as usize].append(request, Entry { marks, ..*entry });
        self.mark_dirty(to);
        let session = &mut self.sessions[entry.to.slot as usize];
        session.conn = to;
        let route = session.route;
        self.fronts[route as usize].metrics.retries.inc();
    }
}

/// Commands that are answered already, or another worker's.
const NOT_OURS: Marks = Marks::ANSWERED.with(Marks::LINK);

pub(super) fn name(entry: &Entry) -> (u32, u32) {
    (entry.to.slot, entry.to.generation)
}

/// The sessions with commands here, and whether all of those may be sent again. The one
/// that the connection is stuck on would only get stuck again.
pub(super) fn movable<'a>(
    entries: impl Iterator<Item = &'a Entry>,
    stuck_by_head: bool,
) -> HashMap<(u32, u32), bool> {
    const NEVER: Marks = Marks::RETRIED
        .with(Marks::IN_BLOCK)
        .with(Marks::LOST)
        .with(Marks::WHOLE);
    let mut sessions = HashMap::new();
    for (place, entry) in entries.enumerate() {
        if entry.marks.any(NOT_OURS) {
            continue;
        }
        let stuck = place == 0 && stuck_by_head;
        let may = entry.marks.any(Marks::SAFE) && !entry.marks.any(NEVER) && !stuck;
        *sessions.entry(name(entry)).or_insert(true) &= may;
    }
    sessions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(slot: u32, marks: Marks) -> Entry {
        Entry {
            to: Ticket {
                slot,
                generation: 1,
            },
            at: 1,
            len: 1,
            command: 0,
            marks,
        }
    }

    fn may_move(entries: &[Entry], stuck_by_head: bool, slot: u32) -> Option<bool> {
        movable(entries.iter(), stuck_by_head)
            .get(&(slot, 1))
            .copied()
    }

    #[test]
    fn a_session_moves_with_all_of_its_commands_or_not_at_all() {
        let entries = [
            entry(1, Marks::NONE),
            entry(2, Marks::SAFE),
            entry(3, Marks::SAFE),
            entry(3, Marks::NONE),
            entry(2, Marks::SAFE),
            entry(4, Marks::SAFE.with(Marks::RETRIED)),
        ];
        assert_eq!(may_move(&entries, true, 2), Some(true));
        assert_eq!(may_move(&entries, true, 3), Some(false));
        assert_eq!(may_move(&entries, true, 4), Some(false));
    }

    #[test]
    fn the_command_that_is_stuck_is_not_asked_again() {
        let entries = [entry(1, Marks::SAFE), entry(2, Marks::SAFE)];
        assert_eq!(may_move(&entries, true, 1), Some(false));
        assert_eq!(may_move(&entries, true, 2), Some(true));
        // Over a link the oldest of ours is stuck behind another worker's.
        assert_eq!(may_move(&entries, false, 1), Some(true));
    }

    #[test]
    fn what_was_answered_at_its_deadline_holds_nobody_back() {
        let entries = [
            entry(1, Marks::NONE.with(Marks::ANSWERED)),
            entry(1, Marks::SAFE),
        ];
        assert_eq!(may_move(&entries, true, 1), Some(true));
    }
}
