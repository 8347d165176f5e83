//! What is under way to a node that was the primary and is none any more, or hangs: it
//! does not wait for the stall time where that is of no use to its callers.

use hashbrown::{HashMap, HashSet};

use super::client::{Flags, NONE};
use super::stall::{SUSPECT_AFTER, movable, name};
use super::worker::State;
use crate::backend::{Broken, Entry, Marks, Ticket};
use crate::command::blocking;
use crate::resp::{self, RequestLimits};
use crate::router::Standing;

/// A primary that has a successor is given so long to answer a probe: one that was demoted
/// in good order does so at once, and answers what it was asked as well.
const SAYS_FAREWELL: u64 = 3 * SUSPECT_AFTER.as_micros() as u64 / 2;

impl State {
    /// Gives up a connection to a node that has a successor and has said nothing since:
    /// what it may still acknowledge is lost, since it will copy the other one. Whether
    /// this is such a connection.
    pub(super) fn look_for_deposed(&mut self, index: u32) -> bool {
        let now = self.clock.now();
        let conn = &self.conns[index as usize];
        let front = &self.fronts[conn.route as usize];
        let node = self.lanes[conn.lane as usize].node.id;
        let is_silent = now.saturating_sub(conn.progress_at) > SUSPECT_AFTER.as_micros() as u64;
        if node == front.node.id || conn.is_quiet() || !is_silent {
            return false;
        }
        let topology = &front.snapshot.topology;
        let has_successor =
            topology.is_writable && now.saturating_sub(front.primary_since) > SAYS_FAREWELL;
        let says_nothing = front
            .snapshot
            .place(node)
            .is_some_and(|place| topology.members[place].standing == Standing::Silent);
        if has_successor && says_nothing {
            self.conn_lost(index, &Broken::Stalled);
            return true;
        }
        false
    }

    /// The primary hangs, as it seems: what only reads is asked again at replicas, of
    /// clients whose reads they may serve. The rest waits on for an answer.
    pub(super) fn ask_replicas(&mut self, index: u32) {
        let conn = &self.conns[index as usize];
        let own_lane = conn.lane;
        let mut moves: HashMap<(u32, u32), bool> = movable(conn.in_flight.iter(), false);
        for entry in &conn.in_flight {
            if let Some(moves) = moves.get_mut(&name(entry)) {
                *moves &= self.is_read_entry(entry);
            }
        }
        self.move_reads(index, &moves, |state, ticket| {
            let target = state.reader_conn(ticket, false).ok();
            target.filter(|&to| state.conns[to as usize].lane != own_lane)
        });
    }

    /// There is no primary: reads that wait for it in line go to nodes that may serve them, of
    /// clients that have nothing else there.
    pub(super) fn move_waiting_reads(&mut self, route: u16) {
        let front = &self.fronts[route as usize];
        let topology = &front.snapshot.topology;
        let mut others = (topology.members.iter().enumerate())
            .filter(|(place, member)| *place != topology.primary && member.read_weight > 0.0);
        if others.next().is_none() {
            return;
        }
        let node = front.node.id;
        let lanes = self.lanes.iter();
        let lined = lanes.filter(|(_, lane)| lane.route == route && lane.node.id == node);
        let lined: Vec<u32> = lined.map(|(index, _)| index as u32).collect();
        for index in lined {
            let Some(lines) = &self.lanes[index as usize].lines else {
                continue;
            };
            let mut stay: HashSet<(u32, u32)> = HashSet::new();
            for entry in lines.entries() {
                if !self.may_be_asked_elsewhere(entry, index) {
                    stay.insert(name(entry));
                }
            }
            self.move_some(index, |entry| !stay.contains(&name(entry)));
        }
    }

    /// Whether a waiting command only reads, or was refused, and nothing of its client is
    /// under way on this lane.
    fn may_be_asked_elsewhere(&self, entry: &Entry, lane: u32) -> bool {
        let Some(session) = self.sessions.get(entry.to.slot as usize) else {
            return false;
        };
        let is_here = session.in_flight > session.queued
            && (self.conns.get(session.conn as usize)).is_none_or(|conn| conn.lane == lane);
        !is_here && (entry.marks.any(Marks::REFUSED) || self.is_read_entry(entry))
    }

    /// A node that is no primary any more has ended a client's blocking command. Nothing was
    /// taken: the command goes back to the front of the client's input, and waits anew at
    /// the next primary. Not one that waits for what is new from when it was asked (`$`): it
    /// would skip what came in between.
    pub(super) fn wait_on(&mut self, conn: Ticket, entry: &Entry, request: Vec<u8>, reply: &[u8]) {
        let Some(session) = self.session(entry.to) else {
            return;
        };
        let (route, is_half_closed) = (session.route, session.flags.any(Flags::EOF));
        let deployment = &self.fronts[route as usize].route.deployment;
        if deployment.is_standalone() || is_half_closed || reads_from_now(&request) {
            return self.settle_entry(entry, reply);
        }
        let session = &mut self.sessions[entry.to.slot as usize];
        session.in_flight -= 1;
        if session.in_flight == 0 {
            session.conn = NONE;
        }
        if self.conn(conn).is_some() {
            // Redis closes it behind its answer.
            self.conn_lost(conn.slot, &Broken::Stalled);
        }
        let Some(session) = self.session(entry.to) else {
            return;
        };
        if entry.marks.any(Marks::SILENT) && !session.flags.any(Flags::REPLY_OFF) {
            session.flags.set(Flags::SKIP_NEXT);
        }
        if session.flags.any(Flags::METERED) {
            session.flags.set(Flags::PAID);
        }
        session.put_back(request);
        self.fronts[route as usize].metrics.retries.inc();
        self.make_ready(entry.to);
    }
}

/// Whether a blocking command waits for what is new from when it was asked.
fn reads_from_now(request: &[u8]) -> bool {
    let mut spans = Vec::new();
    let limits = RequestLimits {
        bulk_max: i64::MAX as u64,
        args_max: i32::MAX as u64,
        unauthenticated: false,
    };
    if resp::scan_request(request, &limits, &mut spans).is_err() {
        return false;
    }
    let args: Vec<&[u8]> = spans.iter().map(|span| span.of(request)).collect();
    let is_read = args
        .first()
        .is_some_and(|name| name.eq_ignore_ascii_case(b"xread"));
    is_read && blocking::reads_from_now(args.as_slice())
}
