//! Overload: what a node is sent at once, what waits for it here, and what is refused.
//!
//! The decisions are the gate's ([`Gate`]); here is who waits, in which order they go on,
//! and how one who is refused learns it in its turn. A command that waits is counted in its
//! session's `in_flight` like one that was sent, and in `queued`; only the difference of the
//! two is on a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use hashbrown::{HashMap, HashSet};

use super::client::{Flags, NONE};
use super::dispatch::Row;
use super::failure::{Busy, Failure};
use super::input::{Request, Step};
use super::worker::State;
use crate::admission::cost::told_by;
use crate::admission::{Costs, Gate, GateLimits, Priority, Verdict, Work};
use crate::backend::{Entry, Held, Io, Kind as ConnKind, Marks, Mode, Node, Ticket};
use crate::command::{Class, Flags as CommandFlags, Table};
use crate::config;
use crate::metrics::{Event, EventKind};
use crate::resp::{self, RequestLimits};
use crate::router::NodeId;

/// Lanes of one gate take turns; each sends so many commands in its turn.
const QUANTUM: u32 = 32;

/// Slow commands in flight are worth so much of the node's time, in microseconds: what a quick
/// one may meet on its way.
const SLOW_WORTH: u64 = 8_000;

/// The least that may be in flight is worth no more than this of the node's time, in microseconds.
const FLOOR_WORTH: f64 = 20_000.0;

/// But so many in any case, so that the node does not wait for Weir.
const FLOOR_MIN: u32 = 4;

/// Overload counts as over when nothing was refused for so long, in microseconds.
const OVER_AFTER: u64 = 1_000_000;

/// One worker's gate in front of one node.
#[derive(Debug)]
pub struct NodeGate {
    /// Which node.
    pub node: NodeId,
    /// Over which route.
    pub route: u16,
    /// What decides.
    pub gate: Gate,
    /// Of each row of the command table, how to tell its class.
    pub kinds: Vec<Kind>,
    /// Single slow commands, by row and what tells the first argument.
    marked: HashSet<(u16, u64)>,
    /// Who says what commands cost.
    teller: Arc<Node>,
    /// From what the two were made.
    made_from: Option<(Arc<Table>, Arc<Costs>)>,
    /// Lanes behind it.
    pub lanes: u32,
    /// Of those, the ones in which somebody waits.
    pub lined: Vec<u32>,
    /// When something was last refused, in microseconds, if that was told.
    told: Option<u64>,
    /// Something was refused since the last tick.
    refused: bool,
}

/// How a command's class is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It is quick.
    Quick,
    /// It is slow.
    Slow,
    /// Its first argument tells.
    Marked,
}

impl NodeGate {
    /// Whether a command of this row is quick for certain.
    #[inline]
    pub fn is_quick(&self, id: u16) -> bool {
        self.kinds
            .get(usize::from(id))
            .is_none_or(|kind| *kind == Kind::Quick)
    }

    fn work_of(&self, id: u16, frame: &[u8]) -> Work {
        match self.kinds.get(usize::from(id)) {
            Some(Kind::Slow) => Work::Slow,
            Some(Kind::Marked) => {
                let argument = argument(frame, 1).unwrap_or_default();
                let is_marked = self.marked.contains(&(id, told_by(argument)));
                if is_marked { Work::Slow } else { Work::Quick }
            }
            _ => Work::Quick,
        }
    }

    /// Tells classes anew if the node has told something new.
    fn tell_classes(
        &mut self,
        node: &Node,
        table: &Arc<Table>,
        config: &config::Overload,
        workers: usize,
    ) {
        let is_current = self
            .made_from
            .as_ref()
            .is_some_and(|(of, costs)| Arc::ptr_eq(of, table) && node.has_costs(costs));
        if is_current {
            return;
        }
        let costs = node.costs();
        let slow_above = config.slow_above.as_micros() as f64;
        self.kinds = vec![Kind::Quick; table.rows()];
        self.marked.clear();
        let (mut slow_calls, mut slow_micros) = (0.0, 0.0);
        for command in table.iter() {
            let mean = costs.mean(&command.name);
            let by_name = command.flags.contains(CommandFlags::SLOW);
            if mean.map_or(by_name, |mean| mean >= slow_above) {
                self.kinds[usize::from(command.id.0)] = Kind::Slow;
                if let Some(mean) = mean {
                    let calls = costs.calls(&command.name) as f64;
                    slow_calls += calls;
                    slow_micros += mean * calls;
                }
            }
        }
        for (name, told, _) in costs.marked() {
            let command = table.find(name.as_bytes(), None);
            let kind = &mut self.kinds[usize::from(command.id.0)];
            if command.exists() && *kind != Kind::Slow {
                *kind = Kind::Marked;
                self.marked.insert((command.id.0, told));
            }
        }
        let cost = if slow_calls > 0.0 {
            slow_micros / slow_calls
        } else {
            0.0
        };
        let fit = match cost as u64 {
            0 => u64::MAX,
            cost => SLOW_WORTH / cost,
        };
        let all = u64::from(config.slow_in_flight).min(fit);
        let own = (all / workers.max(1) as u64).max(1) as u32;
        self.gate.set_slow(cost as u64, own);
        self.made_from = Some((table.clone(), costs));
    }

    /// What may be in flight at least: fewer than the settings say where that would be too
    /// much work in advance.
    fn floor(&self, conns: u32) -> u32 {
        let floor = self.gate.limits().floor.saturating_mul(conns.max(1));
        let quick = self
            .made_from
            .as_ref()
            .and_then(|(_, costs)| costs.quick_mean());
        match quick {
            Some(mean) if mean > 0.0 => floor.min((FLOOR_WORTH / mean) as u32).max(FLOOR_MIN),
            _ => floor,
        }
    }
}

/// An argument of a request in canonical form.
fn argument(frame: &[u8], index: usize) -> Option<&[u8]> {
    let limits = RequestLimits {
        bulk_max: i64::MAX as u64,
        args_max: i32::MAX as u64,
        unauthenticated: false,
    };
    let mut spans = Vec::new();
    resp::scan_request(frame, &limits, &mut spans).ok()?;
    spans.get(index).map(|span| span.of(frame))
}

/// How many workers are in the same trouble, so that its beginning and its end are each told
/// once.
#[derive(Debug, Default)]
pub struct Episode(AtomicU32);

impl Episode {
    /// A worker is in it; true for the first.
    fn begin(&self) -> bool {
        self.0.fetch_add(1, Relaxed) == 0
    }

    /// It is no longer; true for the last.
    fn end(&self) -> bool {
        self.0.fetch_sub(1, Relaxed) == 1
    }
}

/// What becomes of a block of commands that goes in one piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entrance {
    /// It is sent at once.
    Now(Work),
    /// It joins the line.
    Line(Work),
    /// It waits until its session's earlier replies have arrived.
    Barrier,
    /// It is refused.
    Refused(Busy),
}

/// A worker's share of what the settings allow.
fn gate_limits(config: &config::Overload, workers: usize) -> GateLimits {
    let workers = workers.max(1) as u32;
    let share = |all: u32| match all {
        0 => 0,
        all => (all / workers).max(1),
    };
    GateLimits {
        fixed: share(config.in_flight),
        floor: config.in_flight_floor,
        ceiling: share(config.in_flight_ceiling),
        slow: share(config.slow_in_flight),
        target: config.target.as_micros() as u64,
        interval: config.interval.as_micros() as u64,
        length: (config.queue_max / workers as usize).max(1),
    }
}

impl State {
    /// The gate in front of a node; one more lane is behind it.
    pub(super) fn enter_gate(&mut self, route: u16, node: &Arc<Node>) -> u16 {
        let found = self
            .gates
            .iter()
            .find(|(_, gate)| gate.node == node.id && gate.route == route)
            .map(|(index, _)| index);
        let index = found.unwrap_or_else(|| {
            let config = &self.fronts[route as usize].config.overload;
            let workers = self.proxy.workers();
            let limits = gate_limits(config, workers);
            let gate = Gate::new(limits, self.clock.now());
            let mut node_gate = NodeGate {
                node: node.id,
                route,
                gate,
                kinds: Vec::new(),
                marked: HashSet::new(),
                teller: node.clone(),
                made_from: None,
                lanes: 0,
                lined: Vec::new(),
                told: None,
                refused: false,
            };
            let front = &self.fronts[route as usize];
            node_gate.tell_classes(node, &front.table, &front.config.overload, workers);
            self.gates.insert(node_gate)
        });
        self.gates[index].lanes += 1;
        index as u16
    }

    /// The settings have changed.
    pub(super) fn renew_gates(&mut self) {
        let workers = self.proxy.workers();
        for (_, node_gate) in &mut self.gates {
            let config = &self.fronts[node_gate.route as usize].config.overload;
            node_gate.gate.set_limits(gate_limits(config, workers));
            node_gate.made_from = None;
        }
    }

    /// A lane is no more.
    pub(super) fn leave_gate(&mut self, gate: u16) {
        let left = &mut self.gates[gate as usize];
        left.lanes -= 1;
        if left.lanes == 0 {
            let left = self.gates.remove(gate as usize);
            if left.told.is_some() {
                self.tell_overload_over(left.route);
            }
        }
    }

    /// A plain command that can not simply be put on its connection.
    #[cold]
    pub(super) fn forward_gated(
        &mut self,
        ticket: Ticket,
        conn: u32,
        frame: &[u8],
        id: u16,
        marks: Marks,
    ) -> Step {
        // What Weir asked itself in the client's name is not refused.
        let may_refuse = !marks.any(Marks::WHOLE);
        let gate = self.conns[conn as usize].admission;
        let work = self.gates[gate as usize].work_of(id, frame);
        match self.entrance(ticket, conn, work, may_refuse) {
            now @ Entrance::Now(_) => {
                self.put_by(now, ticket, conn, frame, id, marks);
                Step::Taken
            }
            Entrance::Line(work) => {
                self.join_line(ticket, work, frame, id, marks);
                Step::Taken
            }
            Entrance::Barrier => {
                self.set_barrier(ticket);
                Step::Wait
            }
            Entrance::Refused(busy) => {
                let failure = Failure::Busy(busy);
                let session = &self.sessions[ticket.slot as usize];
                if session.in_flight == 0
                    && let Some((reply, kind)) = self.made_up(ticket, frame, id, &failure, marks)
                {
                    self.count_made_up(ticket, kind, &failure);
                    self.prune(ticket);
                    return self.answer(ticket, &reply, marks.any(Marks::SILENT));
                }
                self.refuse_busy(ticket, busy, marks)
            }
        }
    }

    /// What becomes of a command, or a block, that was about to be put on `conn`.
    pub(super) fn entrance(
        &mut self,
        ticket: Ticket,
        conn: u32,
        work: Work,
        may_refuse: bool,
    ) -> Entrance {
        let session = &self.sessions[ticket.slot as usize];
        let (queued, priority, lane) = (session.queued, session.priority, session.lane);
        if queued > 0 && work == Work::Slow {
            // Its lines are not ordered with each other.
            return Entrance::Barrier;
        }
        // Others may wait in lanes that can not send anything.
        let is_first = queued == 0
            && self.lanes[lane as usize]
                .lines
                .as_ref()
                .is_none_or(|lines| lines.waiting(work) == 0);
        let gate_index = self.conns[conn as usize].admission;
        let gate = &mut self.gates[gate_index as usize].gate;
        if is_first && gate.room(work) > 0 {
            return Entrance::Now(work);
        }
        match gate.judge(work, priority) {
            Verdict::TooLong if may_refuse => Entrance::Refused(Busy::QueueTime),
            Verdict::TooMany if may_refuse => Entrance::Refused(Busy::QueueLength),
            _ => Entrance::Line(work),
        }
    }

    /// The same for a block that goes in one piece or not at all.
    pub(super) fn block_entrance(
        &mut self,
        ticket: Ticket,
        conn: u32,
        rows: impl IntoIterator<Item = Row>,
    ) -> Entrance {
        let gate = &self.gates[self.conns[conn as usize].admission as usize];
        let is_slow = rows
            .into_iter()
            .any(|row| gate.kinds.get(usize::from(row.id)) == Some(&Kind::Slow));
        let work = if is_slow { Work::Slow } else { Work::Quick };
        self.entrance(ticket, conn, work, true)
    }

    /// One command of a block whose way is known.
    pub(super) fn put_by(
        &mut self,
        entrance: Entrance,
        ticket: Ticket,
        conn: u32,
        frame: &[u8],
        id: u16,
        marks: Marks,
    ) {
        let work = match entrance {
            Entrance::Line(work) => return self.join_line(ticket, work, frame, id, marks),
            Entrance::Now(work) => work,
            Entrance::Barrier | Entrance::Refused(_) => unreachable!("the caller has looked"),
        };
        self.gate_of_conn(conn).sent(work, 1);
        let marks = match work {
            Work::Quick => marks,
            Work::Slow => marks.with(Marks::HEAVY),
        };
        self.put(ticket, conn, frame, id, marks);
    }

    pub(super) fn gate_of_conn(&mut self, conn: u32) -> &mut Gate {
        &mut self.gates[self.conns[conn as usize].admission as usize].gate
    }

    fn join_line(&mut self, ticket: Ticket, work: Work, frame: &[u8], id: u16, marks: Marks) {
        let now = self.clock.now();
        let entry = Entry {
            to: ticket,
            at: now,
            len: frame.len() as u32,
            command: id,
            marks,
        };
        self.line_up(entry, work, frame);
        let session = &mut self.sessions[ticket.slot as usize];
        session.command = id;
        self.fronts[session.route as usize].metrics.commands.inc();
        if work == Work::Slow {
            session.flags.set(Flags::BARRIER);
        }
    }

    fn line_up(&mut self, entry: Entry, work: Work, frame: &[u8]) {
        let lane_index = self.lane_of(entry.to);
        let session = &mut self.sessions[entry.to.slot as usize];
        let from = (entry.to.slot, session.in_flight == 0);
        session.queued += 1;
        session.in_flight += 1;
        let priority = session.priority;
        let lane = &mut self.lanes[lane_index as usize];
        let node_gate = &mut self.gates[lane.gate as usize];
        let lines = lane.lines.get_or_insert_default();
        if lines.is_empty() {
            node_gate.lined.push(lane_index);
        }
        lines.of(work, priority).push(entry, frame);
        self.memory.add_request(&mut lines.charged, frame.len());
        node_gate.gate.joined(work, priority, from, entry.at);
    }

    /// Refuses a command, in its turn among its session's replies, and with it what its
    /// session has sent behind it: that may build on it.
    pub(super) fn refuse_busy(&mut self, ticket: Ticket, busy: Busy, marks: Marks) -> Step {
        let session = &mut self.sessions[ticket.slot as usize];
        session.flags.set(Flags::REFUSING);
        let (in_flight, queued, conn) = (session.in_flight, session.queued, session.conn);
        if in_flight == 0 {
            let step = self.refuse(ticket, &Failure::Busy(busy), marks.any(Marks::SILENT));
            self.prune(ticket);
            return step;
        }
        let entry = Entry {
            to: ticket,
            at: self.clock.now(),
            len: 0,
            command: busy as u16,
            marks: answer_only(marks),
        };
        if queued > 0 {
            self.line_up(entry, Work::Quick, &[]);
        } else if self.conns[conn as usize].mode == Mode::Shared {
            session.in_flight += 1;
            self.conns[conn as usize].in_flight.push_back(entry);
        } else {
            session.flags.set(Flags::BARRIER);
            return Step::Wait;
        }
        let route = self.sessions[ticket.slot as usize].route;
        self.fronts[route as usize].metrics.commands.inc();
        self.count_busy(route, busy);
        self.prune(ticket);
        Step::Taken
    }

    /// A command behind one that was refused, in what its client had sent at once. `None` if
    /// it is answered as always.
    pub(super) fn refuse_with_others(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        following: &[u8],
        row: Row,
        silent: bool,
    ) -> Option<Step> {
        let mut marks = row.marks();
        if silent {
            marks = marks.with(Marks::SILENT);
        }
        match row.class {
            Class::Plain | Class::Publish => Some(self.refuse_busy(ticket, Busy::Behind, marks)),
            Class::Multi => {
                let block = self.complete_block(ticket, request, following, row)?;
                let failure = Failure::Busy(Busy::Behind);
                let off = self.sessions[ticket.slot as usize]
                    .flags
                    .any(Flags::REPLY_OFF);
                Some(self.refuse_block(ticket, &failure, &block, (silent, off)))
            }
            _ => None,
        }
    }

    /// Counts a refusal that is answered in some other way.
    pub(super) fn count_refusal(&mut self, ticket: Ticket, busy: Busy) {
        let route = self.sessions[ticket.slot as usize].route;
        self.count_busy(route, busy);
        self.prune(ticket);
    }

    fn count_busy(&mut self, route: u16, busy: Busy) {
        let failure = Failure::Busy(busy);
        let metrics = &self.fronts[route as usize].metrics;
        metrics.local_replies.inc();
        match failure.shed() {
            Some(limit) => metrics.shed(failure.cause(), limit),
            None => metrics.error(failure.cause()),
        }
    }

    /// If it has just been found that a node has too much to do: gives up those who have
    /// waited longest.
    pub(super) fn prune(&mut self, ticket: Ticket) {
        let lane = self.sessions[ticket.slot as usize].lane;
        if lane != NONE {
            self.prune_gate(self.lanes[lane as usize].gate);
        }
    }

    pub(super) fn prune_gate(&mut self, index: u16) {
        self.gates[index as usize].refused = true;
        for work in Work::ALL {
            let gate = &mut self.gates[index as usize].gate;
            let total = gate.waiting(work);
            let Some(keep) = gate.take_prune(work).filter(|keep| *keep < total) else {
                continue;
            };
            for lane in self.gates[index as usize].lined.clone() {
                let Some(lines) = &self.lanes[lane as usize].lines else {
                    continue;
                };
                let waiting = lines.waiting(work);
                self.give_up(lane, work, waiting - waiting * keep / total);
            }
        }
    }

    /// Refuses so many of a lane's waiting commands, the oldest of the lowest priority first,
    /// each with what its client had sent together with it.
    fn give_up(&mut self, lane: u32, work: Work, mut count: usize) {
        let mut given_up: HashMap<(u32, u32), u64> = HashMap::new();
        for priority in Priority::ALL.into_iter().rev() {
            let leaves = |entry: &Entry| {
                let name = (entry.to.slot, entry.to.generation);
                let leaves = !entry.marks.any(Marks::REFUSED)
                    && (count > 0 || given_up.get(&name) == Some(&entry.at));
                if leaves {
                    count = count.saturating_sub(1);
                    given_up.insert(name, entry.at);
                }
                leaves
            };
            self.take_out(lane, work, priority, Busy::QueueTime, leaves);
        }
    }

    /// Refuses those of a line that `leaves` says.
    fn take_out(
        &mut self,
        lane: u32,
        work: Work,
        priority: Priority,
        busy: Busy,
        leaves: impl FnMut(&Entry) -> bool,
    ) {
        let place = &mut self.lanes[lane as usize];
        let (gate, Some(lines)) = (place.gate, &mut place.lines) else {
            return;
        };
        let taken = lines.of(work, priority).take_out(leaves);
        for entry in taken {
            self.gates[gate as usize].gate.left(work, priority, None);
            self.refuse_waiting(&entry, busy);
        }
        self.lines_changed(lane);
    }

    /// Answers a command that has left its line without having been sent.
    fn refuse_waiting(&mut self, entry: &Entry, busy: Busy) {
        let Some(session) = self.session(entry.to) else {
            return;
        };
        let on_conn = session.in_flight - session.queued;
        session.queued -= 1;
        let (conn, route) = (session.conn, session.route);
        let refused_before = entry.marks.any(Marks::REFUSED);
        let busy = match refused_before {
            true => Busy::of(entry.command),
            false => busy,
        };
        if !refused_before {
            self.count_busy(route, busy);
        }
        if on_conn > 0 {
            // Its turn comes behind those.
            let marks = answer_only(entry.marks);
            self.conns[conn as usize].in_flight.push_back(Entry {
                len: 0,
                command: busy as u16,
                marks,
                ..*entry
            });
        } else {
            self.settle_entry(entry, busy.reply(entry.marks));
        }
    }

    /// Sends what waits, as far as there is room.
    pub(super) fn pump(&mut self, index: u16) {
        let Some(node_gate) = self.gates.get_mut(index as usize) else {
            return;
        };
        // Lanes take turns; whoever was served first goes to the end.
        let lined = std::mem::take(&mut node_gate.lined);
        for work in Work::ALL {
            let mut sent = true;
            while sent {
                sent = false;
                for &lane in &lined {
                    let gate = &self.gates[index as usize].gate;
                    let room = gate.room(work);
                    if room == 0 || gate.waiting(work) == 0 {
                        break;
                    }
                    let most = if lined.len() == 1 {
                        room
                    } else {
                        room.min(QUANTUM)
                    };
                    sent |= self.pump_lane(lane, work, most);
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
        let node_gate = &mut self.gates[index as usize];
        lined.append(&mut node_gate.lined);
        node_gate.lined = lined;
    }

    /// Sends up to `most` commands that wait in a lane; whether there were any.
    fn pump_lane(&mut self, lane: u32, work: Work, most: u32) -> bool {
        let Some(place) = self.lanes.get(lane as usize) else {
            return false;
        };
        if place
            .lines
            .as_ref()
            .is_none_or(|lines| lines.waiting(work) == 0)
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
                    self.fail_lines(lane, &failure);
                    return false;
                }
            }
        }
        if matches!(self.conns[conn as usize].io, Io::Opening) {
            return false;
        }
        let Some(mut lines) = self.lanes[lane as usize].lines.take() else {
            return false;
        };
        let now = self.clock.now();
        let mut sent = 0;
        for priority in Priority::ALL {
            let line = lines.of(work, priority);
            let mut in_block = false;
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
        }
        self.lanes[lane as usize].lines = Some(lines);
        self.lines_changed(lane);
        sent > 0
    }

    /// A command's turn to be sent has come. `conn` is its lane's connection.
    fn send_waiting(&mut self, conn: u32, work: Work, entry: Entry, request: &[u8]) {
        let mut target = conn;
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
                    self.settle_entry(&entry, Busy::of(entry.command).reply(entry.marks));
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

    /// The lane's node gets nothing more: those who wait in it go where their sessions'
    /// commands go now.
    pub(super) fn move_lines(&mut self, lane: u32) {
        let Some(mut lines) = self
            .lanes
            .get_mut(lane as usize)
            .and_then(|it| it.lines.take())
        else {
            return;
        };
        let gate = self.lanes[lane as usize].gate as usize;
        for work in Work::ALL {
            for priority in Priority::ALL {
                let line = lines.of(work, priority);
                while let Some((entry, request)) = line.pop(|entry, it| (entry, it.to_vec())) {
                    self.gates[gate].gate.left(work, priority, None);
                    self.move_waiting(&entry, &request);
                }
            }
        }
        self.memory
            .recount_conn(&mut lines.charged, Held::default());
        self.gates[gate].lined.retain(|&lined| lined != lane);
        self.drop_lane_if_unused(lane);
    }

    fn move_waiting(&mut self, entry: &Entry, request: &[u8]) {
        let Some(session) = self.session(entry.to) else {
            return;
        };
        if session.in_flight > session.queued || entry.marks.any(Marks::REFUSED) {
            // What is before it is at the node that gets nothing more.
            return self.refuse_waiting(entry, Busy::NoConnection);
        }
        session.queued -= 1;
        match self.lane_conn(entry.to) {
            Ok(conn) => {
                self.conns[conn as usize].append(request, *entry);
                self.sessions[entry.to.slot as usize].conn = conn;
                self.mark_dirty(conn);
            }
            Err(failure) => self.fail_entry(entry, &failure.reply(), &failure),
        }
    }

    /// No connection is to be had for those who wait in a lane.
    pub(super) fn fail_lines(&mut self, lane: u32, failure: &Failure) {
        let Some(mut lines) = self
            .lanes
            .get_mut(lane as usize)
            .and_then(|it| it.lines.take())
        else {
            return;
        };
        let gate = self.lanes[lane as usize].gate as usize;
        let reply = failure.reply();
        for work in Work::ALL {
            for priority in Priority::ALL {
                for entry in lines.of(work, priority).take_out(|_| true) {
                    self.gates[gate].gate.left(work, priority, None);
                    let Some(session) = self.session(entry.to) else {
                        continue;
                    };
                    if session.in_flight > session.queued || entry.marks.any(Marks::REFUSED) {
                        self.refuse_waiting(&entry, Busy::NoConnection);
                    } else {
                        session.queued -= 1;
                        self.fail_entry(&entry, &reply, failure);
                    }
                }
            }
        }
        let held = lines.held();
        self.memory.recount_conn(&mut lines.charged, held);
        self.gates[gate].lined.retain(|&lined| lined != lane);
        self.drop_lane_if_unused(lane);
    }

    /// Brings the account of a lane's lines up to date.
    fn lines_changed(&mut self, lane: u32) {
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

    /// Looks at all gates by the clock.
    pub(super) fn tick_gates(&mut self) {
        let indices: Vec<u16> = self.gates.iter().map(|(index, _)| index as u16).collect();
        for index in indices {
            self.expire_lines(index);
            self.tick_gate(index);
            self.pump(index);
        }
    }

    fn tick_gate(&mut self, index: u16) {
        let now = self.clock.now();
        let (mut conns, mut quick, mut slow) = (0, 0, 0);
        for (_, conn) in &self.conns {
            if conn.admission != index
                || conn.kind != ConnKind::Shared
                || matches!(conn.io, Io::Opening)
            {
                continue;
            }
            conns += u32::from(!conn.retiring);
            for entry in conn.in_flight.iter() {
                match entry.marks {
                    marks if marks.any(Marks::LOST) => {}
                    marks if marks.any(Marks::HEAVY) => slow += 1,
                    _ => quick += 1,
                }
            }
        }
        let node_gate = &mut self.gates[index as usize];
        let route = node_gate.route;
        let front = &self.fronts[route as usize];
        let (teller, workers) = (node_gate.teller.clone(), self.proxy.workers());
        node_gate.tell_classes(&teller, &front.table, &front.config.overload, workers);
        node_gate.gate.recount(quick, slow);
        let floor = node_gate.floor(conns);
        node_gate.gate.on_tick(now, floor, 0);
        if Work::ALL
            .iter()
            .any(|work| node_gate.gate.is_shedding(*work))
        {
            self.prune_gate(index);
        }
        let node_gate = &mut self.gates[index as usize];
        let refused = std::mem::take(&mut node_gate.refused);
        match (refused, node_gate.told) {
            (true, told) => {
                node_gate.told = Some(now);
                if told.is_none() {
                    self.tell_overload(route);
                }
            }
            (false, Some(at)) if now.saturating_sub(at) > OVER_AFTER => {
                node_gate.told = None;
                self.tell_overload_over(route);
            }
            _ => {}
        }
    }

    /// Brings the gauges of a route's gates up to date. Returns how many commands wait.
    pub(super) fn measure_gates(&self, route: usize) -> i64 {
        let (mut limit, mut shedding, mut waiting) = (0, 0, 0);
        for (_, gate) in self
            .gates
            .iter()
            .filter(|(_, gate)| gate.route as usize == route)
        {
            limit += i64::from(gate.gate.limit(Work::Quick));
            shedding += i64::from(gate.told.is_some());
            waiting += Work::ALL
                .map(|work| gate.gate.waiting(work) as i64)
                .iter()
                .sum::<i64>();
        }
        let metrics = &self.fronts[route].metrics;
        metrics.in_flight_limit.set(limit);
        metrics.shedding.set(shedding);
        waiting
    }

    fn tell_overload(&self, route: u16) {
        let front = &self.fronts[route as usize];
        let name = &front.route.name;
        if front.route.overloaded.begin() {
            tracing::warn!(
                route = %name, target = ?front.config.overload.target,
                "Redis has more to do than it can: commands are refused (overload.target)"
            );
            let event = Event::new(EventKind::LimitReached, "overload.target");
            self.proxy.journal.note(event.on(name));
        }
    }

    fn tell_overload_over(&self, route: u16) {
        let route = &self.fronts[route as usize].route;
        if route.overloaded.end() {
            tracing::info!(route = %route.name, "no command is refused any more (overload.target)");
            let event = Event::new(EventKind::LimitCleared, "overload.target");
            self.proxy.journal.note(event.on(&route.name));
        }
    }

    /// Answers those whose deadline has passed while they waited here.
    fn expire_lines(&mut self, index: u16) {
        let now = self.clock.now();
        let node_gate = &self.gates[index as usize];
        let timeouts = &self.fronts[node_gate.route as usize].config.timeouts;
        let plain = timeouts.request.as_micros() as u64;
        let slow = timeouts.slow_request.as_micros() as u64;
        for lane in node_gate.lined.clone() {
            for (work, priority) in every_line() {
                let Some(lines) = &mut self.lanes[lane as usize].lines else {
                    break;
                };
                let oldest = lines
                    .of(work, priority)
                    .front()
                    .map_or(now, |entry| entry.at);
                if now.saturating_sub(oldest) < plain.min(slow) {
                    continue;
                }
                let mut kept: Vec<Ticket> = Vec::new();
                let leaves = |entry: &Entry| {
                    let limit = if entry.marks.any(Marks::SLOW) {
                        slow
                    } else {
                        plain
                    };
                    let waited = now.saturating_sub(entry.at);
                    // A session is answered in order.
                    let leaves = !entry.marks.any(Marks::REFUSED)
                        && waited > limit
                        && !kept.contains(&entry.to);
                    if !leaves && waited > plain.min(slow) {
                        kept.push(entry.to);
                    }
                    leaves
                };
                self.take_out(lane, work, priority, Busy::Deadline, leaves);
                if !self.lanes.contains(lane as usize) {
                    break;
                }
            }
        }
    }
}

fn every_line() -> impl Iterator<Item = (Work, Priority)> {
    Work::ALL
        .into_iter()
        .flat_map(|work| Priority::ALL.map(|priority| (work, priority)))
}

/// Marks of an entry that only keeps the place of an answer.
fn answer_only(marks: Marks) -> Marks {
    marks
        .without(Marks::WHOLE)
        .with(Marks::LOST)
        .with(Marks::REFUSED)
}
