//! What a node is sent at once and what waits for it here.
//!
//! The decisions are the gate's ([`Gate`](crate::admission::Gate)); here is who waits, in which order they go on,
//! and how one who is refused learns it in its turn. A command that waits is counted in its
//! session's `in_flight` like one that was sent, and in `queued`; only the difference of the
//! two is on a connection.

use super::client::Flags;
use super::dispatch::Row;
use super::failure::{Busy, Failure};
use super::gate::Kind;
use super::input::Step;
use super::worker::State;
use crate::admission::{Verdict, Work};
use crate::backend::{Entry, Marks, Ticket};

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

impl State {
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
                self.join_line(work, ticket, conn, frame, id, marks);
                Step::Taken
            }
            Entrance::Barrier => {
                self.set_barrier(ticket);
                Step::Wait
            }
            Entrance::Refused(busy) => {
                self.traced.command = id;
                let step = match self.miss(ticket, frame, id, &Failure::Busy(busy), marks) {
                    Some(step) => step,
                    None => self.refuse_busy(ticket, busy, marks),
                };
                if step != Step::Wait {
                    self.prune_gate(gate);
                }
                step
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
        let (queued, priority) = (session.queued, session.priority);
        let lane = self.conns[conn as usize].lane;
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
            Entrance::Line(work) => return self.join_line(work, ticket, conn, frame, id, marks),
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

    /// A command waits for its turn to be put on `conn`, or on what its lane has then.
    fn join_line(
        &mut self,
        work: Work,
        ticket: Ticket,
        conn: u32,
        frame: &[u8],
        id: u16,
        marks: Marks,
    ) {
        let now = self.clock.now();
        let entry = Entry {
            to: ticket,
            at: now,
            len: frame.len() as u32,
            command: id,
            marks,
        };
        let lane = self.conns[conn as usize].lane;
        self.line_up(entry, work, frame, lane);
        let session = &mut self.sessions[ticket.slot as usize];
        session.command = id;
        self.fronts[session.route as usize].metrics.commands.inc();
        if work == Work::Slow {
            session.flags.set(Flags::BARRIER);
        }
    }

    /// A command waits in the lines of a lane: the one in which others of its session do, if
    /// there are any.
    pub(super) fn line_up(&mut self, entry: Entry, work: Work, frame: &[u8], lane_index: u32) {
        let session = &mut self.sessions[entry.to.slot as usize];
        debug_assert!(session.queued == 0 || session.line == lane_index);
        let from = (entry.to.slot, session.in_flight == 0);
        session.queued += 1;
        session.line = lane_index;
        session.took(frame.len());
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
}
