//! Commands that are refused because there is too much to do: each in its turn among its
//! session's replies, with what its client had sent behind it at once.

use hashbrown::HashMap;

use super::client::{Flags, NONE};
use super::dispatch::Row;
use super::failure::{Busy, Failure, MISS};
use super::input::{Request, Step};
use super::misses::InLine;
use super::worker::State;
use crate::admission::{Priority, Work};
use crate::backend::{Entry, Marks, Mode, Ticket};
use crate::command::Class;

impl State {
    /// Refuses a command, in its turn among its session's replies, and with it what its
    /// session has sent behind it: that may build on it.
    pub(super) fn refuse_busy(&mut self, ticket: Ticket, busy: Busy, marks: Marks) -> Step {
        let session = &mut self.sessions[ticket.slot as usize];
        session.flags.set(Flags::REFUSING);
        let (in_flight, queued, conn) = (session.in_flight, session.queued, session.conn);
        let line = session.line;
        if in_flight == 0 {
            let failure = self.failure_of(busy);
            return self.refuse(ticket, &failure, marks.any(Marks::SILENT));
        }
        let entry = Entry {
            to: ticket,
            at: self.clock.now(),
            len: 0,
            command: busy.number(),
            marks: answer_only(marks),
        };
        if queued > 0 {
            self.line_up(entry, Work::Quick, &[], line);
        } else if self.conns[conn as usize].mode == Mode::Shared {
            session.in_flight += 1;
            self.conns[conn as usize].in_flight.push_back(entry);
        } else {
            session.flags.set(Flags::BARRIER);
            return Step::Wait;
        }
        let route = self.sessions[ticket.slot as usize].route;
        self.fronts[route as usize].metrics.commands.inc();
        self.trace_busy(ticket, busy, self.traced.command, self.clock.now());
        self.count_busy(ticket, busy);
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
            Class::Plain | Class::Publish => Some(match self.over_rate(ticket) {
                // That is why the one before it was refused.
                Some(over) => self.refuse_over_rate(ticket, over, marks),
                None => {
                    let failure = Failure::Busy(Busy::Behind);
                    match self.miss(ticket, request.frame, row.id, &failure, marks) {
                        Some(step) => step,
                        None => self.refuse_busy(ticket, Busy::Behind, marks),
                    }
                }
            }),
            Class::Multi => {
                let block = self.complete_block(ticket, request, following, row)?;
                let failure = Failure::Busy(Busy::Behind);
                Some(self.refuse_block(ticket, &failure, &block, silent))
            }
            _ => None,
        }
    }

    /// Counts the refusal of a block that is answered in some other way.
    pub(super) fn count_refusal(&mut self, ticket: Ticket, busy: Busy) {
        self.count_busy(ticket, busy);
        if busy.is_overload() {
            self.prune(ticket);
        }
    }

    fn count_busy(&mut self, ticket: Ticket, busy: Busy) {
        let failure = self.failure_of(busy);
        self.count_refused_of(ticket, 1);
        let route = self.sessions[ticket.slot as usize].route;
        self.fronts[route as usize].metrics.local_replies.inc();
        self.count_failure(route, &failure);
    }

    /// If it has just been found that the primary has too much to do: gives up those who have
    /// waited longest.
    pub(super) fn prune(&mut self, ticket: Ticket) {
        let lane = self.sessions[ticket.slot as usize].lane;
        if lane != NONE {
            self.prune_gate(self.lanes[lane as usize].gate);
        }
    }

    /// The gate may be gone behind it, if those who are given up were the last to need it.
    pub(super) fn prune_gate(&mut self, index: u16) {
        let Some(node_gate) = self.gates.get_mut(index as usize) else {
            return;
        };
        node_gate.refused = true;
        for work in Work::ALL {
            let Some(node_gate) = self.gates.get_mut(index as usize) else {
                return;
            };
            let gate = &mut node_gate.gate;
            let total = gate.waiting(work);
            let Some(keep) = gate.take_prune(work).filter(|keep| *keep < total) else {
                continue;
            };
            // The lowest go first, and each lane gives its part of them.
            let mut too_many = total - keep;
            for priority in Priority::ALL.into_iter().rev() {
                let Some(node_gate) = self.gates.get(index as usize) else {
                    return;
                };
                let waiting = node_gate.gate.waiting_at(work, priority);
                let leave = too_many.min(waiting);
                too_many -= leave;
                if leave == 0 {
                    continue;
                }
                for lane in node_gate.lined.clone() {
                    let lines = self
                        .lanes
                        .get(lane as usize)
                        .and_then(|it| it.lines.as_ref());
                    let own = lines.map_or(0, |lines| lines.waiting_at(work, priority));
                    let leave = own - own * (waiting - leave) / waiting;
                    if leave > 0 {
                        self.give_up(lane, (work, priority), leave);
                    }
                }
            }
        }
    }

    /// Refuses so many of the commands in one of a lane's lines, the oldest first, each with
    /// what its client had sent together with it.
    fn give_up(&mut self, lane: u32, (work, priority): (Work, Priority), mut count: usize) {
        let mut given_up: HashMap<(u32, u32), u64> = HashMap::new();
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

    /// Refuses those of a line that `leaves` says.
    pub(super) fn take_out(
        &mut self,
        lane: u32,
        work: Work,
        priority: Priority,
        busy: Busy,
        leaves: impl FnMut(&Entry) -> bool,
    ) {
        let may_miss = self.may_miss_in_lane(lane);
        let place = &mut self.lanes[lane as usize];
        let (gate, Some(lines)) = (place.gate, &mut place.lines) else {
            return;
        };
        let line = lines.of(work, priority);
        let taken = match may_miss {
            true => line.take_whole(leaves),
            false => line.take_out(leaves),
        };
        self.keep_lane(lane);
        for (entry, frame) in taken {
            self.gates[gate as usize].gate.left(work, priority, None);
            self.refuse_waiting(&entry, &frame, busy);
        }
        self.lines_changed(lane);
        self.leave_lane(lane);
    }

    /// Answers a command that has left its line without having been sent: with a miss, if
    /// its route fails open and its request is known.
    pub(super) fn refuse_waiting(&mut self, entry: &Entry, frame: &[u8], busy: Busy) {
        let Some(session) = self.session(entry.to) else {
            return;
        };
        let on_conn = session.in_flight - session.queued;
        session.queued -= 1;
        let conn = session.conn;
        let is_stashed = session.flags.any(Flags::STASHED);
        let is_next = on_conn == 0 && !is_stashed;
        let refused_before = entry.marks.any(Marks::REFUSED);
        let mut command = entry.command;
        if !refused_before {
            let failure = self.failure_of(busy);
            command = match self.miss_in_line(entry, frame, &failure, is_next) {
                InLine::Answered => return,
                InLine::Kept => MISS,
                InLine::Refused => {
                    self.trace_busy(entry.to, busy, entry.command, entry.at);
                    self.count_busy(entry.to, busy);
                    busy.number()
                }
            };
        }
        let marks = answer_only(entry.marks);
        let place = Entry {
            len: 0,
            command,
            marks,
            ..*entry
        };
        if is_stashed {
            self.keep_place(&place);
        } else if on_conn > 0 {
            // Its turn comes behind those.
            self.conns[conn as usize].in_flight.push_back(place);
        } else if refused_before {
            self.settle_refused(entry);
        } else {
            let reply = self.meters.refusal(&Entry { command, ..*entry });
            // Whoever wanted to see its reply, as `SELECT` does, sees this one.
            self.settle_entry(entry, &reply);
        }
    }
}

/// Marks of an entry that only keeps the place of an answer.
fn answer_only(marks: Marks) -> Marks {
    place_only(marks).with(Marks::REFUSED)
}

/// The same, where it is told nothing but that it was lost.
pub(super) fn place_only(marks: Marks) -> Marks {
    marks.with(Marks::LOST)
}
