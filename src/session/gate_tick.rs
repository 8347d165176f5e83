//! The gates by the clock: what is in flight is counted anew, who has waited too long is
//! answered, and whether there is overload.

use super::failure::Busy;
use super::line::every_line;
use super::reached::OVERLOAD_CLEARED_AFTER;
use super::worker::State;
use crate::admission::Work;
use crate::backend::{Entry, Io, Kind as ConnKind, Marks, Ticket};

impl State {
    /// Looks at all gates by the clock.
    pub(super) fn tick_gates(&mut self) {
        if !self.stashes.is_empty() {
            self.look_at_stashes();
        }
        let indices: Vec<u16> = self.gates.iter().map(|(index, _)| index as u16).collect();
        for index in indices {
            // Each may be the last to see this gate: its lanes go with those who waited.
            self.expire_lines(index);
            if self.gates.contains(index as usize) {
                self.tick_gate(index);
                self.pump(index);
            }
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
        let Some(node_gate) = self.gates.get_mut(index as usize) else {
            return;
        };
        if std::mem::take(&mut node_gate.refused) {
            node_gate.refused_at = Some(now);
        } else if node_gate
            .refused_at
            .is_some_and(|at| now.saturating_sub(at) > OVERLOAD_CLEARED_AFTER)
        {
            node_gate.refused_at = None;
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
            shedding += i64::from(gate.refused_at.is_some());
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

    /// Answers those whose deadline has passed while they waited here, or for whom it is too
    /// late since others go first.
    fn expire_lines(&mut self, index: u16) {
        let now = self.clock.now();
        let Some(node_gate) = self.gates.get(index as usize) else {
            return;
        };
        let timeouts = &self.fronts[node_gate.route as usize].config.timeouts;
        let plain = timeouts.request.as_micros() as u64;
        let slow = timeouts.slow_request.as_micros() as u64;
        for lane in node_gate.lined.clone() {
            for (work, priority) in every_line() {
                let place = self.lanes.get_mut(lane as usize);
                let Some(lines) = place.and_then(|place| place.lines.as_mut()) else {
                    break;
                };
                let oldest = lines
                    .of(work, priority)
                    .front()
                    .map_or(now, |entry| entry.at);
                let Some(node_gate) = self.gates.get(index as usize) else {
                    return;
                };
                let late = node_gate
                    .gate
                    .late_after(work, priority)
                    .unwrap_or(u64::MAX);
                let soonest = plain.min(slow).min(late);
                if now.saturating_sub(oldest) < soonest {
                    continue;
                }
                let mut kept: Vec<Ticket> = Vec::new();
                let leaves = |entry: &Entry| {
                    let limit = if entry.marks.any(Marks::SLOW) {
                        slow
                    } else {
                        plain
                    };
                    let limit = limit.min(late);
                    let waited = now.saturating_sub(entry.at);
                    // A session is answered in order.
                    let leaves = !entry.marks.any(Marks::REFUSED)
                        && waited > limit
                        && !kept.contains(&entry.to);
                    if !leaves && waited > soonest {
                        kept.push(entry.to);
                    }
                    leaves
                };
                let busy = match soonest == late {
                    true => Busy::QueueTime,
                    false => Busy::Deadline,
                };
                self.take_out(lane, work, priority, busy, leaves);
            }
        }
    }
}
