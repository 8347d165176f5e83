//! A deployment's nodes have changed: what becomes of this worker's connections and
//! sessions.

use super::client::{Flags, NONE};
use super::worker::State;
use crate::backend::{Broken, Io, Kind, Mode, Ticket};
use crate::discovery::Snapshot;
use crate::router::{Health, Standing};

/// What becomes of the connections to one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// They stay.
    Kept,
    /// They get no new commands.
    Retired,
    /// They are given up with what is on them.
    Lost,
}

/// Decides for the node with this id, which was the primary before or not.
fn fate(snapshot: &Snapshot, node: u32, was_primary: bool) -> Fate {
    let Some(place) = snapshot.place(node) else {
        return Fate::Lost;
    };
    let topology = &snapshot.topology;
    let member = &topology.members[place];
    if place == topology.primary {
        // What is on its way to one that hangs may still be answered.
        return if topology.is_writable {
            Fate::Kept
        } else {
            Fate::Retired
        };
    }
    match (member.health, member.standing) {
        (_, Standing::Rival | Standing::Foreign) => Fate::Lost,
        (Health::Hung | Health::Down, _) => Fate::Lost,
        // It answers what it was asked, and is asked nothing more.
        _ if was_primary => Fate::Retired,
        _ => Fate::Kept,
    }
}

impl State {
    /// The nodes of a route have changed.
    pub(super) fn take_topology(&mut self, route: u16) {
        let front = &mut self.fronts[route as usize];
        let snapshot = front.route.deployment.snapshot();
        let before = front.node.id;
        front.node = snapshot.primary().clone();
        front.snapshot = snapshot.clone();
        let after = front.node.id;
        if before != after {
            front.primary_since = self.clock.now();
        }
        self.refresh_tables();
        self.move_sessions(route);
        let of_route = |(index, conn): (usize, &crate::backend::Conn)| {
            (conn.route == route).then_some((index as u32, conn.generation))
        };
        let conns: Vec<(u32, u32)> = self.conns.iter().filter_map(of_route).collect();
        for (slot, generation) in conns {
            let ticket = Ticket { slot, generation };
            let Some(conn) = self.conn(ticket) else {
                continue;
            };
            let (kind, lane, mode) = (conn.kind, conn.lane, conn.mode);
            let is_opening = matches!(conn.io, Io::Opening);
            if self.lanes[lane as usize].parked == slot {
                continue;
            }
            let node = self.lanes[lane as usize].node.id;
            let was_primary = node == before && before != after;
            match fate(&snapshot, node, was_primary) {
                Fate::Kept => {}
                Fate::Lost => self.conn_lost(slot, &Broken::Stalled),
                Fate::Retired if is_opening && mode == Mode::Shared => {
                    // Nothing was sent: it goes where it should go now.
                    let conn = self.take_conn(slot);
                    self.tell_links(&conn);
                    self.shared_lost(&conn);
                }
                Fate::Retired if matches!(kind, Kind::Shared | Kind::Control) => {
                    self.retire(slot);
                    if !snapshot.topology.is_writable && self.conn(ticket).is_some() {
                        self.ask_replicas(slot);
                    }
                }
                Fate::Retired => self.retire_idle_lease(slot),
            }
        }
        // What waits for a node that gets nothing more waits no longer.
        let gets_nothing = |node: u32| {
            let was_primary = node == before && before != after;
            was_primary || fate(&snapshot, node, false) == Fate::Lost
        };
        let lanes = self.lanes.iter();
        let lined = lanes.filter(|(_, lane)| lane.route == route && lane.lines.is_some());
        let left = lined.filter(|(_, lane)| gets_nothing(lane.node.id));
        let left: Vec<u32> = left.map(|(index, _)| index as u32).collect();
        for lane in left {
            self.move_lines(lane);
        }
        if !snapshot.topology.is_writable {
            self.move_waiting_reads(route);
        }
        self.release_held(route);
    }

    fn retire_idle_lease(&mut self, index: u32) {
        let nobody = |mode| matches!(mode, Mode::Exclusive(Ticket { slot: NONE, .. }));
        if self
            .conns
            .get(index as usize)
            .is_some_and(|conn| nobody(conn.mode))
        {
            self.retire(index);
        }
    }

    /// Has every session look for its lanes again.
    fn move_sessions(&mut self, route: u16) {
        let of_route = |(slot, session): (usize, &super::client::Session)| {
            (session.route == route).then(|| session.ticket(slot as u32))
        };
        let tickets: Vec<Ticket> = self.sessions.iter().filter_map(of_route).collect();
        for ticket in tickets {
            self.sessions[ticket.slot as usize].flags.set(Flags::MOVED);
            self.refresh_reads(ticket);
        }
    }
}
