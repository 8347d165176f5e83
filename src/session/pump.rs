//! Commands that wait in a lane's lines go on: to their connection when there is room, to
//! another when the lane's node gets nothing more, or nowhere.

use hashbrown::HashSet;

use super::client::{Flags, NONE};
use super::failure::{Busy, Failure};
use super::line::every_line;
use super::worker::State;
use crate::admission::{Priority, Work};
use crate::backend::{Entry, Held, Io, Kind as ConnKind, Marks};

/// Lanes of one gate take turns; each sends so many commands in its turn.
const QUANTUM: u32 = 32;

impl State {
    /// Sends what waits, as far as there is room. The gate may be gone behind it: its lanes
    /// go with the last who waited in them.
    pub(super) fn pump(&mut self, index: u16) {
        let Some(node_gate) = self.gates.get_mut(index as usize) else {
            return;
        };
        // Lanes take turns; whoever was served first goes to the end.
        let lined = std::mem::take(&mut node_gate.lined);
        for (work, priority) in every_line() {
            let mut sent = true;
            while sent {
                sent = false;
                for &lane in &lined {
                    let Some(node_gate) = self.gates.get(index as usize) else {
                        return;
                    };
                    let gate = &node_gate.gate;
                    let room = gate.room(work);
                    if room == 0 || gate.waiting_at(work, priority) == 0 {
                        break;
                    }
                    let most = if lined.len() == 1 {
                        room
                    } else {
                        room.min(QUANTUM)
                    };
                    sent |= self.pump_lane(lane, (work, priority), most);
                }
            }
        }
        let mut lined = lined;
        lined.retain(|&lane| {
            self.lanes
                .get(lane as usize)
                .and_then(|lane| lane.lines.as_ref())
                .is_some_and(|lines| !lines.is_empty())
        });
        if lined.len() > 1 {
            lined.rotate_left(1);
        }
        let Some(node_gate) = self.gates.get_mut(index as usize) else {
            return;
        };
        lined.append(&mut node_gate.lined);
        node_gate.lined = lined;
    }

    /// Sends up to `most` commands that wait in one of a lane's lines; whether there were any.
    fn pump_lane(&mut self, lane: u32, (work, priority): (Work, Priority), most: u32) -> bool {
        let Some(place) = self.lanes.get(lane as usize) else {
            return false;
        };
        if place
            .lines
            .as_ref()
            .is_none_or(|lines| lines.waiting_at(work, priority) == 0)
        {
            return false;
        }
        let (gate, mut conn) = (place.gate as usize, place.conn);
        if conn != NONE && self.link_is_stale(conn) {
            self.retire(conn);
            conn = NONE;
        }
        if conn == NONE {
            match self.open_shared(lane) {
                Ok(opened) => conn = opened,
                Err(failure) => {
                    self.no_conn_for_lines(lane, &failure);
                    return false;
                }
            }
        }
        if matches!(self.conns[conn as usize].io, Io::Opening) {
            if self.conns[conn as usize].retiring && self.may_miss_in_lane(lane) {
                self.miss_lines(lane);
            }
            return false;
        }
        let Some(mut lines) = self.lanes[lane as usize].lines.take() else {
            return false;
        };
        self.keep_lane(lane);
        let now = self.clock.now();
        let (mut sent, mut in_block) = (0, false);
        let line = lines.of(work, priority);
        while sent < most || in_block {
            let popped = line.pop(|entry, request| {
                self.send_waiting(conn, work, entry, request);
                entry
            });
            let Some(entry) = popped else { break };
            let waited = now.saturating_sub(entry.at);
            let node_gate = &mut self.gates[gate].gate;
            node_gate.left(work, priority, Some(waited));
            if !entry.marks.any(Marks::REFUSED) {
                node_gate.sent(work, 1);
                sent += 1;
                let route = self.gates[gate].route;
                self.fronts[route as usize]
                    .metrics
                    .queue_time
                    .record(waited);
            }
            in_block = entry.marks.any(Marks::IN_BLOCK) && !entry.marks.any(Marks::EXEC);
        }
        self.lanes[lane as usize].lines = Some(lines);
        self.lines_changed(lane);
        self.leave_lane(lane);
        sent > 0
    }

    /// A command's turn to be sent has come. `conn` is its lane's connection.
    fn send_waiting(&mut self, conn: u32, work: Work, entry: Entry, request: &[u8]) {
        let mut target = conn;
        if self.is_parted(&entry, conn) {
            return self.keep_unsent(&entry, request);
        }
        if let Some(session) = self.session(entry.to) {
            let on_conn = session.in_flight - session.queued;
            session.queued -= 1;
            if on_conn > 0 {
                target = session.conn;
            }
            if entry.marks.any(Marks::REFUSED) {
                if on_conn > 0 {
                    self.conns[target as usize].in_flight.push_back(entry);
                } else {
                    self.settle_refused(&entry);
                }
                return;
            }
            session.conn = target;
        } else if entry.marks.any(Marks::REFUSED) {
            return;
        }
        let marks = match work {
            Work::Quick => entry.marks,
            Work::Slow => entry.marks.with(Marks::HEAVY),
        };
        let connection = &mut self.conns[target as usize];
        connection.append(request, Entry { marks, ..entry });
        self.memory
            .add_request(&mut connection.charged, request.len());
        self.mark_dirty(target);
    }

    /// Whether a command whose turn to be put on `conn` has come can not follow what its
    /// session has under way: that is kept, or has gone to another node meanwhile, which is
    /// not asked this.
    fn is_parted(&mut self, entry: &Entry, conn: u32) -> bool {
        let lane = self.conns[conn as usize].lane;
        let Some(session) = self.session(entry.to) else {
            return false;
        };
        if session.flags.any(Flags::STASHED) {
            return true;
        }
        if session.in_flight == session.queued || entry.marks.any(Marks::REFUSED) {
            return false;
        }
        let current = session.conn;
        self.conns[current as usize].lane != lane && !self.is_read_entry(entry)
    }

    /// Ends the lines of a lane: `end` sees to each command that waits in them.
    fn end_lines(&mut self, lane: u32, mut end: impl FnMut(&mut State, &Entry, &[u8])) {
        let Some(mut lines) = self
            .lanes
            .get_mut(lane as usize)
            .and_then(|it| it.lines.take())
        else {
            return;
        };
        self.keep_lane(lane);
        let gate = self.lanes[lane as usize].gate as usize;
        for (work, priority) in every_line() {
            let line = lines.of(work, priority);
            let mut next = |state: &mut State| {
                line.pop(|entry, request| {
                    state.gates[gate].gate.left(work, priority, None);
                    end(state, &entry, request);
                })
            };
            while next(self).is_some() {}
        }
        self.memory
            .recount_conn(&mut lines.charged, Held::default());
        self.gates[gate].lined.retain(|&lined| lined != lane);
        self.leave_lane(lane);
    }

    /// The lane's node gets nothing more: those who wait in it go where their sessions'
    /// commands go now.
    pub(super) fn move_lines(&mut self, lane: u32) {
        self.end_lines(lane, |state, entry, request| {
            state.move_waiting(lane, entry, request);
        });
    }

    /// The same for some of them: all that a session has there, or nothing.
    pub(super) fn move_some(&mut self, lane: u32, leaves: impl Fn(&Entry) -> bool) {
        self.keep_lane(lane);
        for (work, priority) in every_line() {
            let place = &mut self.lanes[lane as usize];
            let (gate, Some(lines)) = (place.gate as usize, &mut place.lines) else {
                break;
            };
            for (entry, request) in lines.of(work, priority).take_whole(&leaves) {
                self.gates[gate].gate.left(work, priority, None);
                self.move_waiting(lane, &entry, &request);
            }
        }
        self.lines_changed(lane);
        self.leave_lane(lane);
    }

    fn move_waiting(&mut self, lane: u32, entry: &Entry, request: &[u8]) {
        let is_read = self.is_read_entry(entry);
        let is_refused = entry.marks.any(Marks::REFUSED);
        let Some(session) = self.session(entry.to) else {
            return;
        };
        let mut target = None;
        if session.in_flight > session.queued {
            let (conn, stashed) = (session.conn, session.flags.any(Flags::STASHED));
            // Reads follow those that have gone on before them.
            let may_follow = (is_read || is_refused)
                && !stashed
                && self.conns.get(conn as usize).is_some_and(|it| {
                    it.lane != lane && !it.retiring && it.kind == ConnKind::Shared
                });
            if !may_follow {
                // What is before it is at the node that gets nothing more.
                return self.keep_unsent(entry, request);
            }
            target = Some(conn);
        }
        if is_refused {
            return self.refuse_waiting(entry, request, Busy::NoConnection);
        }
        let Entry {
            to, command, marks, ..
        } = *entry;
        self.sessions[to.slot as usize].queued -= 1;
        let is_first = target.is_none();
        let target = match target {
            Some(conn) => Ok(conn),
            None if is_read => self.reader_conn(to, false),
            None => self.lane_conn(to),
        };
        match target {
            Ok(conn) if is_first && self.rather_misses(to, conn, request, command, marks) => {
                self.settle_made_up(entry, request, &Failure::NoPrimary);
            }
            Ok(conn) => {
                self.conns[conn as usize].append(request, *entry);
                self.sessions[entry.to.slot as usize].conn = conn;
                self.mark_dirty(conn);
            }
            Err(failure) if self.settle_made_up(entry, request, &failure) => {}
            Err(failure) => self.fail_entry(entry, &failure.reply(), &failure),
        }
    }

    /// No connection is to be had for those who wait in a lane: reads at a replica go to
    /// another node, as they would have if they had come now.
    fn no_conn_for_lines(&mut self, lane: u32, failure: &Failure) {
        let place = &self.lanes[lane as usize];
        if place.node.id == self.fronts[place.route as usize].node.id {
            self.fail_lines(lane, failure);
        } else {
            self.move_lines(lane);
        }
    }

    /// Those in a lane's lines wait for a primary: a cache's reads do not, except behind
    /// other commands of their client's.
    fn miss_lines(&mut self, lane: u32) {
        let Some(mut lines) = self.lanes[lane as usize].lines.take() else {
            return;
        };
        self.keep_lane(lane);
        let gate = self.lanes[lane as usize].gate as usize;
        let mut waiting: HashSet<(u32, u32)> = HashSet::new();
        for (work, priority) in every_line() {
            let line = lines.of(work, priority);
            for _ in 0..line.len() {
                let stays = line.pop(|entry, request| {
                    let client = (entry.to.slot, entry.to.generation);
                    if !waiting.contains(&client) && self.misses_from_line(&entry, request) {
                        self.gates[gate].gate.left(work, priority, None);
                        return None;
                    }
                    waiting.insert(client);
                    Some((entry, request.to_vec()))
                });
                if let Some((entry, request)) = stays.flatten() {
                    line.push(entry, &request);
                }
            }
        }
        self.lanes[lane as usize].lines = Some(lines);
        self.lines_changed(lane);
        self.leave_lane(lane);
    }

    /// No connection is to be had for those who wait in a lane.
    pub(super) fn fail_lines(&mut self, lane: u32, failure: &Failure) {
        let reply = failure.reply();
        // What is wrong with its client's credentials is no reason to miss.
        let may_miss = failure.is_of_the_node() && self.may_miss_in_lane(lane);
        self.end_lines(lane, |state, entry, request| {
            let request = if may_miss { request } else { &[] };
            let Some(session) = state.session(entry.to) else {
                return;
            };
            if session.in_flight > session.queued || entry.marks.any(Marks::REFUSED) {
                return state.refuse_waiting(entry, request, Busy::NoConnection);
            }
            session.queued -= 1;
            if !may_miss || !state.settle_made_up(entry, request, failure) {
                state.fail_entry(entry, &reply, failure);
            }
        });
    }

    /// Brings the account of a lane's lines up to date.
    pub(super) fn lines_changed(&mut self, lane: u32) {
        if let Some(lines) = self
            .lanes
            .get_mut(lane as usize)
            .and_then(|lane| lane.lines.as_mut())
        {
            let held = lines.held();
            self.memory.recount_conn(&mut lines.charged, held);
            if lines.is_empty() {
                self.drop_lane_if_unused(lane);
            }
        }
    }
}
