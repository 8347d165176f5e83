//! Reads that do not go to the primary: which sessions have them, and which node serves
//! each.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::client::{Flags, NONE};
use super::dispatch::Row;
use super::failure::Failure;
use super::input::{Request, Step};
use super::worker::State;
use crate::admission::matches_pattern;
use crate::backend::{Entry, Io, Kind, Marks, Node, Ticket};
use crate::command::{Class, CommandId, Flags as CommandFlags};
use crate::config::ReadFrom;

impl State {
    /// Sees anew where the session's reads go: after its name, its wish or the topology
    /// has changed.
    pub(super) fn refresh_reads(&mut self, ticket: Ticket) {
        let policy = self.read_policy(ticket);
        let session = &mut self.sessions[ticket.slot as usize];
        if policy == ReadFrom::Primary {
            session.flags.clear(Flags::BALANCED);
        } else {
            // Its lanes are looked for when they are needed.
            session.flags.set(Flags::BALANCED.with(Flags::MOVED));
        }
    }

    /// Where the session's reads go.
    fn read_policy(&self, ticket: Ticket) -> ReadFrom {
        let session = &self.sessions[ticket.slot as usize];
        let front = &self.fronts[session.route as usize];
        if front.route.deployment.is_standalone() {
            return ReadFrom::Primary;
        }
        let failover = &front.config.failover;
        let extra = session.extra.as_deref();
        let name = extra.map_or(&[][..], |extra| &extra.name);
        let is_among = |patterns: &[String]| {
            !name.is_empty()
                && patterns
                    .iter()
                    .any(|it| matches_pattern(it.as_bytes(), name))
        };
        let wanted = match extra.and_then(|extra| extra.reads) {
            Some(reads) => reads,
            None if is_among(&failover.primary_clients) => ReadFrom::Primary,
            None if is_among(&failover.replica_clients) => ReadFrom::PreferReplica,
            None => failover.read_from,
        };
        let is_out = !front.snapshot.topology.is_writable;
        match wanted {
            ReadFrom::Primary if is_out && failover.stale_reads_on_failure => {
                ReadFrom::PreferReplica
            }
            wanted => wanted,
        }
    }

    /// Whether the session's reads never go to the primary.
    pub(super) fn reads_replicas_only(&self, ticket: Ticket) -> bool {
        self.read_policy(ticket) == ReadFrom::Replica
    }

    /// `READONLY` and `READWRITE`: this client's reads go to replicas, or to the primary.
    pub(super) fn set_reads(&mut self, ticket: Ticket, reads: ReadFrom, silent: bool) -> Step {
        let step = self.answer(ticket, b"+OK\r\n", silent);
        if step == Step::Taken
            && let Some(session) = self.session(ticket)
        {
            session.extra().reads = Some(reads);
            self.refresh_reads(ticket);
        }
        step
    }

    /// A plain command of a session whose reads do not all go to the primary.
    pub(super) fn forward_balanced(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
        marks: Marks,
    ) -> Step {
        if !is_read(row.class, row.flags) {
            let step = self.forward(ticket, request.frame, row.id, marks);
            if step == Step::Taken
                && !row.flags.contains(CommandFlags::READONLY)
                && let Some(session) = self.session(ticket)
            {
                session.wrote_at = JUST_NOW;
            }
            return step;
        }
        self.traced.command = row.id;
        let is_scan = is_scan(request.arg(0).unwrap_or_default());
        let conn = if self.sessions[ticket.slot as usize].in_flight > 0 {
            Ok(self.read_behind(ticket, is_scan))
        } else {
            self.reader_conn(ticket, is_scan).map(Some)
        };
        let frame = request.frame;
        match conn {
            Ok(Some(conn)) if self.rather_misses(ticket, conn, frame, row.id, marks) => {
                self.refuse_or_miss(ticket, frame, row.id, &Failure::NoPrimary, marks)
            }
            Ok(Some(_)) if self.memory.is_full_of_requests() => {
                if self.must_wait_for_replies(ticket) {
                    return Step::Wait;
                }
                self.refuse_or_miss(ticket, frame, row.id, &Failure::Memory, marks)
            }
            Ok(Some(conn)) => self.enter(ticket, conn, request.frame, row.id, marks),
            Ok(None) => {
                self.set_barrier(ticket);
                Step::Wait
            }
            Err(failure) => self.refuse_or_miss(ticket, frame, row.id, &failure, marks),
        }
    }

    /// The connection for a read behind commands that are under way, or wait: theirs, or
    /// `None` if it has to wait for their replies.
    fn read_behind(&self, ticket: Ticket, is_scan: bool) -> Option<u32> {
        let session = &self.sessions[ticket.slot as usize];
        let conn = if session.in_flight > session.queued {
            session.conn
        } else {
            self.lanes[session.line as usize].conn
        };
        let current = self.conns.get(conn as usize)?;
        let stale = matches!(&current.io, Io::Link(link) if !link.is_live())
            || session.flags.any(Flags::MOVED);
        // After a loss what is under way may be at another node than what waits.
        let apart = session.queued > 0 && current.lane != session.line;
        let is_shut = current.retiring || current.kind != Kind::Shared || current.gate.is_closed();
        if stale || apart || is_shut {
            return None;
        }
        let on_primary = current.lane == session.lane;
        let only_replicas = self.read_policy(ticket) == ReadFrom::Replica;
        let serves = match (on_primary, is_scan) {
            (true, _) => !only_replicas,
            (false, is_scan) => !is_scan,
        };
        serves.then_some(conn)
    }

    /// The connection for a read of a session that has nothing under way, or whose
    /// commands all go to another connection.
    pub(super) fn reader_conn(&mut self, ticket: Ticket, is_scan: bool) -> Result<u32, Failure> {
        let policy = self.read_policy(ticket);
        let topology = self.snapshot_of(ticket);
        let session = &self.sessions[ticket.slot as usize];
        let (id, reader) = (session.id, session.reader);
        if reader != NONE && !is_scan && !session.flags.any(Flags::MOVED) {
            let node = self.lanes[reader as usize].node.id;
            if let Some(place) = topology.place(node)
                && self.has_own_writes(ticket, &topology, place)
                && let Ok(conn) = self.conn_of_lane(reader)
            {
                return Ok(conn);
            }
        }
        let place = if is_scan {
            topology.topology.scanned(policy)
        } else {
            topology.topology.reader(policy, id)
        };
        let place = match place {
            Ok(place) => place,
            Err(_) => return Err(Failure::NoReplica),
        };
        let Some(place) = place.filter(|&place| self.has_own_writes(ticket, &topology, place))
        else {
            return self.lane_conn(ticket);
        };
        let nodes = &topology.nodes;
        if nodes[place].unavailable().is_none() {
            let lane = self.reader_lane(ticket, &nodes[place]);
            if let Ok(conn) = self.conn_of_lane(lane) {
                return Ok(conn);
            }
        }
        // It is not known yet that this one cannot serve: another does.
        self.fronts[self.sessions[ticket.slot as usize].route as usize]
            .route
            .deployment
            .doubt(nodes[place].id);
        let members = topology.topology.members.iter().enumerate();
        let others = members.filter(|(other, member)| *other != place && member.read_weight > 0.0);
        for (other, _) in others {
            if nodes[other].unavailable().is_none() {
                let lane = self.reader_lane(ticket, &nodes[other]);
                if let Ok(conn) = self.conn_of_lane(lane) {
                    return Ok(conn);
                }
            }
        }
        match policy {
            ReadFrom::Replica => Err(Failure::NoReplica),
            _ => self.lane_conn(ticket),
        }
    }

    fn snapshot_of(&self, ticket: Ticket) -> Arc<crate::discovery::Snapshot> {
        let route = self.sessions[ticket.slot as usize].route;
        self.fronts[route as usize].snapshot.clone()
    }

    /// The session's lane to the node that serves its reads; it is kept as long as the
    /// session reads there.
    fn reader_lane(&mut self, ticket: Ticket, node: &Arc<Node>) -> u32 {
        self.lane_of(ticket);
        let session = &self.sessions[ticket.slot as usize];
        let (route, key, old) = (session.route, session.partition.clone(), session.reader);
        if old != NONE {
            let lane = &self.lanes[old as usize];
            if lane.node.id == node.id && lane.key == key {
                return old;
            }
        }
        let lane = self.find_lane(route, node, key);
        self.lanes[lane as usize].sessions += 1;
        self.sessions[ticket.slot as usize].reader = lane;
        self.leave_lane(old);
        lane
    }

    /// Whether the node has what the session wrote, if that matters to it. All replies to
    /// its writes have arrived by now.
    fn has_own_writes(
        &mut self,
        ticket: Ticket,
        snapshot: &crate::discovery::Snapshot,
        place: usize,
    ) -> bool {
        let session = &self.sessions[ticket.slot as usize];
        let wrote_at = session.wrote_at;
        let matters = self.fronts[session.route as usize]
            .config
            .failover
            .read_your_writes;
        if wrote_at == 0 || !matters {
            return true;
        }
        let wrote_at = match wrote_at {
            JUST_NOW => self.clock.exact(),
            known => known,
        };
        let covered = snapshot.covered[place].load(Relaxed);
        self.sessions[ticket.slot as usize].wrote_at =
            if covered > wrote_at { 0 } else { wrote_at };
        covered > wrote_at
    }

    /// Whether a command that is sent again may go to where the session's reads go.
    pub(super) fn is_read_entry(&self, entry: &Entry) -> bool {
        let Some(session) = self.sessions.get(entry.to.slot as usize) else {
            return false;
        };
        if !session.flags.any(Flags::BALANCED) || entry.marks.any(NOT_READS) {
            return false;
        }
        let table = &self.fronts[session.route as usize].table;
        let command = table.by_id(CommandId(entry.command));
        is_read(command.class, command.flags) && !is_scan(command.name.as_bytes())
    }
}

/// Commands whose replies mean more than data.
const NOT_READS: Marks = Marks::IN_BLOCK
    .with(Marks::WHOLE)
    .with(Marks::LOST)
    .with(Marks::EXEC);

/// In place of the time of a write whose reply may not have arrived.
const JUST_NOW: u64 = u64::MAX;

/// Whether a replica may serve it. Not scripts: what they call is known only to them.
fn is_read(class: Class, flags: CommandFlags) -> bool {
    class == Class::Plain
        && flags.contains(CommandFlags::READONLY)
        && !flags.intersects(CommandFlags::NOSCRIPT.union(CommandFlags::WRITE))
}

/// `SCAN`, `HSCAN`, `SSCAN`, `ZSCAN`: a cursor means something on its own node only.
fn is_scan(name: &[u8]) -> bool {
    matches!(name.len(), 4 | 5) && name[name.len() - 4..].eq_ignore_ascii_case(b"scan")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_are_told_by_their_names() {
        for name in ["scan", "HSCAN", "sScan", "zscan"] {
            assert!(is_scan(name.as_bytes()), "{name}");
        }
        for name in ["get", "scard", "sscans", ""] {
            assert!(!is_scan(name.as_bytes()), "{name}");
        }
    }
}
