//! Which connection a command takes: the worker's connections by partition, how
//! they are opened, lent out, retired and closed.

use std::sync::Arc;

use tokio::time::Instant;

use super::client::{Flags, NONE};
use super::failure::Failure;
use super::hold::Wait;
use super::line::Lines;
use super::worker::{ConnTask, State};
use crate::backend::{
    Conn, Held, Io, Kind, Mode, Node, OpenError, Opened, Partition, Refused, RefusedBecause,
    SharedGrant, SharedReady, Slot, Ticket, close_holding, close_politely,
};

/// A worker's connections of one partition to one node.
#[derive(Debug)]
pub struct Lane {
    /// Its route.
    pub route: u16,
    /// The node that its connections are to.
    pub node: Arc<Node>,
    /// What its connections have in common.
    pub key: Partition,
    /// The connection that plain commands take, or [`NONE`].
    pub conn: u32,
    /// Where commands wait that cannot be sent now, or [`NONE`].
    pub parked: u32,
    /// The connection of the control class, or [`NONE`].
    pub control: u32,
    /// Leases that nobody holds, clean, for the next who needs one.
    pub idle_leases: Vec<u32>,
    /// The node has refused this partition: until when it is not asked again (in
    /// microseconds), and what it said.
    pub refused: Option<(u64, OpenError)>,
    /// The gate in front of the node.
    pub gate: u16,
    /// Commands that wait; made when first needed.
    pub lines: Option<Box<Lines>>,
    /// Sessions whose plain commands go here.
    pub sessions: u32,
    /// Connections of any kind that belong here.
    pub conns: u32,
}

impl State {
    /// The shared connection for the session's next plain command.
    #[inline]
    pub(super) fn lane_conn(&mut self, ticket: Ticket) -> Result<u32, Failure> {
        let lane = self.lane_of(ticket);
        self.conn_of_lane(lane)
    }

    /// The shared connection of a lane.
    #[inline]
    pub(super) fn conn_of_lane(&mut self, lane: u32) -> Result<u32, Failure> {
        let conn = self.lanes[lane as usize].conn;
        if conn != NONE {
            if self.link_is_stale(conn) {
                self.retire(conn);
            } else {
                return match self.check_gate(conn) {
                    Ok(()) => Ok(conn),
                    Err(failure) => self.or_park(lane, failure),
                };
            }
        }
        self.open_shared(lane)
    }

    /// Whether commands may go over a connection: not while its node is sick.
    #[inline]
    pub(super) fn check_gate(&self, conn: u32) -> Result<(), Failure> {
        let conn = &self.conns[conn as usize];
        if !conn.gate.is_closed() {
            return Ok(());
        }
        match self.lanes[conn.lane as usize].node.unavailable() {
            Some(error) => Err(Failure::Open(error)),
            // It was healed in this very moment.
            None => Ok(()),
        }
    }

    /// The lane of the session's partition.
    pub(super) fn lane_of(&mut self, ticket: Ticket) -> u32 {
        let session = &mut self.sessions[ticket.slot as usize];
        if session.lane != NONE && !session.flags.any(Flags::MOVED) {
            return session.lane;
        }
        session.flags.clear(Flags::MOVED);
        let (route, key, old) = (session.route, session.partition.clone(), session.lane);
        let node = self.fronts[route as usize].node.clone();
        let lane = self.find_lane(route, &node, key);
        self.lanes[lane as usize].sessions += 1;
        self.sessions[ticket.slot as usize].lane = lane;
        self.leave_lane(old);
        lane
    }

    /// The lane of a partition to a node, made if there is none.
    pub(super) fn find_lane(&mut self, route: u16, node: &Arc<Node>, key: Partition) -> u32 {
        if let Some(&lane) = self.lane_index.get(&(route, node.id, key.clone())) {
            return lane;
        }
        let gate = self.enter_gate(route, node);
        let lane = self.lanes.insert(Lane {
            route,
            gate,
            lines: None,
            node: node.clone(),
            key: key.clone(),
            conn: NONE,
            parked: NONE,
            control: NONE,
            idle_leases: Vec::new(),
            refused: None,
            sessions: 0,
            conns: 0,
        }) as u32;
        self.lane_index.insert((route, node.id, key), lane);
        lane
    }

    /// Keeps a lane, and with it its gate, for as long as what waits in it is seen to: its
    /// last session may leave meanwhile. Ended by [`State::leave_lane`].
    pub(super) fn keep_lane(&mut self, lane: u32) {
        self.lanes[lane as usize].sessions += 1;
    }

    /// A session goes; the last one turns out the light.
    pub(super) fn leave_lane(&mut self, lane: u32) {
        if lane != NONE {
            self.lanes[lane as usize].sessions -= 1;
            self.drop_lane_if_unused(lane);
        }
    }

    pub(super) fn drop_lane_if_unused(&mut self, lane: u32) {
        let Some(unused) = self.lanes.get(lane as usize) else {
            return;
        };
        let nobody_waits = unused.lines.as_ref().is_none_or(|lines| lines.is_empty());
        if unused.sessions == 0 && unused.conns == 0 && nobody_waits {
            let unused = self.lanes.remove(lane as usize);
            if let Some(gate) = self.gates.get_mut(unused.gate as usize) {
                // Another lane may get its number.
                gate.lined.retain(|&lined| lined != lane);
            }
            self.leave_gate(unused.gate);
            self.lane_index
                .remove(&(unused.route, unused.node.id, unused.key));
        }
    }

    /// A connection that has no socket yet. Commands can be appended at once.
    pub(super) fn add_conn(&mut self, kind: Kind, lane: u32) -> Ticket {
        self.conn_generation = self.conn_generation.wrapping_add(1);
        let generation = self.conn_generation;
        let Lane {
            route,
            key,
            node,
            gate,
            ..
        } = &self.lanes[lane as usize];
        let mut conn = Conn::opening(
            kind,
            *route,
            lane,
            generation,
            key.version,
            self.clock.now(),
        );
        conn.gate = node.gate.clone();
        conn.admission = *gate;
        conn.heeds = kind == Kind::Shared
            && !self.fronts[*route as usize]
                .route
                .deployment
                .is_standalone();
        let index = self.conns.insert(conn) as u32;
        self.lanes[lane as usize].conns += 1;
        Ticket {
            slot: index,
            generation,
        }
    }

    pub(super) fn open_shared(&mut self, lane: u32) -> Result<u32, Failure> {
        match self.wait_of(lane) {
            Wait::No => {}
            Wait::Parked => return self.park(lane),
            Wait::Over => return Err(Failure::NoPrimary),
        }
        let now = self.clock.now();
        let Lane {
            node, key, refused, ..
        } = &self.lanes[lane as usize];
        if let Some((until, error)) = refused
            && now < *until
        {
            return Err(Failure::Open(error.clone()));
        }
        let node = node.clone();
        if let Some(error) = node.unavailable() {
            return self.or_park(lane, Failure::Open(error));
        }
        let grant = node.ledger.shared(key, self.index);
        if let SharedGrant::QueueFull(refused) = &grant {
            return Err(refusal(refused));
        }
        let ticket = self.add_conn(Kind::Shared, lane);
        self.lanes[lane as usize].conn = ticket.slot;
        match grant {
            SharedGrant::Own(slot) => self.dial(ticket, slot),
            SharedGrant::Link(link) => self.conns[ticket.slot as usize].io = Io::Link(link),
            SharedGrant::Wait(wait) => {
                let deadline = Instant::now() + node.settings().backend.lease_wait;
                let worker = self.worker();
                tokio::task::spawn_local(async move {
                    let mut wait = wait;
                    let turn = tokio::time::timeout_at(deadline, &mut wait).await;
                    let refused = turn.is_err().then(|| wait.limit());
                    drop(wait);
                    worker.enter(|state| match (turn, refused) {
                        (Ok(SharedReady::Own(slot)), _) => state.dial_if_wanted(ticket, slot),
                        (Ok(SharedReady::Link(link)), _) => state.use_link(ticket, link),
                        (Err(_), Some(refused)) => state.opening_failed(ticket, &refusal(&refused)),
                        (Err(_), None) => unreachable!("a wait that failed names its limit"),
                    });
                });
            }
            SharedGrant::QueueFull(_) => unreachable!("handled above"),
        }
        Ok(ticket.slot)
    }

    fn dial_if_wanted(&mut self, ticket: Ticket, slot: Slot) {
        if self.conn(ticket).is_some() {
            self.dial(ticket, slot);
        }
    }

    /// Connects and shakes hands, in a task of its own.
    fn dial(&mut self, ticket: Ticket, slot: Slot) {
        let lane = &self.lanes[self.conns[ticket.slot as usize].lane as usize];
        let node = lane.node.clone();
        let key = lane.key.clone();
        let worker = self.worker();
        tokio::task::spawn_local(async move {
            let result = node.open(&key, slot).await;
            worker.enter(|state| state.opened(ticket, result));
        });
    }

    pub(super) fn opened(&mut self, ticket: Ticket, result: Result<Opened, OpenError>) {
        let Opened { socket, id, slot } = match result {
            Ok(opened) => opened,
            Err(error) => return self.opening_failed(ticket, &Failure::Open(error)),
        };
        let now = self.clock.now();
        let worker = self.worker();
        let Some(conn) = self.conn(ticket) else {
            return close_politely(socket, Some(slot));
        };
        let yielding = slot.asked_to_yield();
        conn.io = Io::Socket(socket);
        conn.slot = Some(slot);
        conn.backend_id = id;
        conn.opened_at = now;
        conn.progress_at = now;
        let reader = tokio::task::spawn_local(ConnTask {
            worker: worker.clone(),
            ticket,
        });
        let yielder = tokio::task::spawn_local(async move {
            yielding.await;
            worker.enter(|state| {
                if state.conn(ticket).is_some() {
                    state.retire(ticket.slot);
                }
            });
        });
        conn.tasks = vec![reader.abort_handle(), yielder.abort_handle()];
        let gate = conn.admission;
        self.mark_dirty(ticket.slot);
        self.pump(gate);
        self.retire_if_quiet(ticket.slot);
    }

    /// The node has refused a user or a database: every command would ask again.
    fn note_refusal(&mut self, lane: u32, failure: &Failure) {
        if let Failure::Open(error @ OpenError::Refused(_)) = failure {
            let until = self.clock.now() + ASK_AGAIN;
            self.lanes[lane as usize].refused = Some((until, error.clone()));
        }
    }

    /// No socket could be had: whoever waits for this connection is told.
    pub(super) fn opening_failed(&mut self, ticket: Ticket, failure: &Failure) {
        let Some(lane) = self.conn(ticket).map(|conn| conn.lane) else {
            return;
        };
        self.note_refusal(lane, failure);
        let gate = self.lanes[lane as usize].gate;
        let serves_line = self.lanes[lane as usize].conn == ticket.slot;
        let node = self.node_of_conn(ticket.slot);
        let conn = self.take_conn(ticket.slot);
        if let Io::Link(link) = &conn.io {
            self.link_closed(link.worker(), ticket);
        }
        if self.goes_elsewhere(&conn, &node, failure) {
            // Nothing was sent. There may be other connections, or nodes, to go on with.
            self.tell_links(&conn);
            self.shared_lost(&conn);
            return self.pump(gate);
        }
        let reply = failure.reply();
        let fails_open = self.may_fail_open(conn.route);
        let mut start = 0;
        for entry in &conn.in_flight {
            let (from, len) = (start, entry.len as usize);
            start += len;
            if fails_open && self.settle_made_up(entry, &conn.ring.copy(from, len), failure) {
                continue;
            }
            self.fail_entry(entry, &reply, failure);
        }
        if serves_line {
            self.fail_lines(lane, failure);
        }
    }

    /// Whether what waited for a connection that could not be opened may find another.
    fn goes_elsewhere(&self, conn: &Conn, node: &Node, failure: &Failure) -> bool {
        let Failure::Open(error) = failure else {
            return false;
        };
        if conn.kind == Kind::Shared && *error == OpenError::Full {
            return true;
        }
        let deployment = &self.fronts[conn.route as usize].route.deployment;
        let is_about_node = match error {
            OpenError::Unreachable(_) => true,
            OpenError::Refused(text) => {
                text.starts_with("LOADING") || text.starts_with("MASTERDOWN")
            }
            OpenError::Full => false,
        };
        if deployment.is_standalone() || !is_about_node {
            return false;
        }
        deployment.doubt(node.id);
        matches!(conn.kind, Kind::Shared | Kind::Control)
    }

    /// Takes a connection out of the worker's books, without closing its socket.
    pub(super) fn take_conn(&mut self, index: u32) -> Conn {
        let mut conn = self.conns.remove(index as usize);
        self.memory.recount_conn(&mut conn.charged, Held::default());
        for task in &conn.tasks {
            task.abort();
        }
        let lane = &mut self.lanes[conn.lane as usize];
        if lane.conn == index {
            lane.conn = NONE;
        }
        if lane.parked == index {
            lane.parked = NONE;
        }
        if lane.control == index {
            lane.control = NONE;
        }
        lane.idle_leases.retain(|&lease| lease != index);
        lane.conns -= 1;
        self.drop_lane_if_unused(conn.lane);
        conn
    }

    /// Gives a connection no new commands; it closes when its last reply is in.
    pub(super) fn retire(&mut self, index: u32) {
        let conn = &mut self.conns[index as usize];
        conn.retiring = true;
        if let Some(slot) = &conn.slot
            && conn.kind == Kind::Shared
        {
            slot.retire();
        }
        let lane = &mut self.lanes[conn.lane as usize];
        if lane.conn == index {
            lane.conn = NONE;
        }
        if lane.control == index {
            lane.control = NONE;
        }
        self.retire_if_quiet(index);
    }

    /// Closes a retiring connection that has nothing left to do; notes for the
    /// ledger that another one is idle.
    pub(super) fn retire_if_quiet(&mut self, index: u32) {
        let Some(conn) = self.conns.get(index as usize) else {
            return;
        };
        if !conn.is_quiet() || matches!(conn.io, Io::Opening) {
            return;
        }
        if let Mode::Feed(_) = conn.mode {
            // Whether anybody is subscribed over it is known elsewhere.
            return;
        }
        let held = matches!(conn.mode, Mode::Exclusive(owner) | Mode::Raw(owner)
            if self.sessions.get(owner.slot as usize)
                .is_some_and(|session| session.id as u32 == owner.generation
                    && session.holds(index)));
        if held {
            return;
        }
        if conn.retiring {
            self.close_conn(index);
        } else if let Some(slot) = &conn.slot {
            slot.set_idle(Instant::now());
        }
    }

    /// Closes a connection: its slot comes back when the node has closed its end.
    pub(super) fn close_conn(&mut self, index: u32) {
        let conn = self.take_conn(index);
        match conn.io {
            Io::Socket(socket) => close_holding(socket, conn.slot, conn.large),
            Io::Link(link) => self.link_closed(
                link.worker(),
                Ticket {
                    slot: index,
                    generation: conn.generation,
                },
            ),
            Io::Opening => {}
        }
    }

    /// The connection that control commands of the session's lane take: one of
    /// its own if the budget has room, else the shared one.
    pub(super) fn control_conn(&mut self, ticket: Ticket) -> Result<u32, Failure> {
        let lane = self.lane_of(ticket);
        self.control_of(ticket, lane)
    }

    /// The same for what is answered while a script runs. A new connection could not
    /// select a database then, and these commands have none.
    pub(super) fn control_conn_at_any_time(&mut self, ticket: Ticket) -> Result<u32, Failure> {
        let own = self.lane_of(ticket);
        let session = &self.sessions[ticket.slot as usize];
        let mut key = session.partition.clone();
        if key.db == 0 && !key.no_touch {
            return self.control_conn(ticket);
        }
        (key.db, key.no_touch) = (0, false);
        let (route, node) = (session.route, self.lanes[own as usize].node.clone());
        let lane = self.find_lane(route, &node, key);
        let conn = self.control_of(ticket, lane);
        self.drop_lane_if_unused(lane);
        conn
    }

    fn control_of(&mut self, ticket: Ticket, lane: u32) -> Result<u32, Failure> {
        let control = self.lanes[lane as usize].control;
        if control != NONE {
            return Ok(control);
        }
        if self.wait_of(lane) != Wait::No {
            return self.lane_conn(ticket);
        }
        let node = self.lanes[lane as usize].node.clone();
        if let Some(error) = node.unavailable() {
            return self.or_park(lane, Failure::Open(error));
        }
        match node.ledger.try_take(Kind::Control) {
            Some(slot) => {
                let conn = self.add_conn(Kind::Control, lane);
                self.lanes[lane as usize].control = conn.slot;
                self.dial(conn, slot);
                Ok(conn.slot)
            }
            None => self.lane_conn(ticket),
        }
    }
}

/// A partition that the node has refused is not tried again for this long, in
/// microseconds: a stale password would otherwise cost a login per command.
const ASK_AGAIN: u64 = 100_000;

/// The ledger's no as a client reads it.
pub(super) fn refusal(refused: &Refused) -> Failure {
    let limit = refused.limit.setting();
    match refused.because {
        RefusedBecause::QueueFull => Failure::QueueFull { limit },
        RefusedBecause::TimedOut => Failure::WaitedTooLong { limit },
        RefusedBecause::LimitIsZero => Failure::NotSupported {
            what: "a connection of this kind",
            setting: limit,
        },
    }
}
