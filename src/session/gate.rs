//! A worker's gates in front of the nodes: which there are, which commands are slow, and what
//! is known of each by the clock.

use std::sync::Arc;

use hashbrown::HashSet;

use super::worker::State;
use crate::admission::cost::told_by;
use crate::admission::{Costs, Gate, GateLimits, Work};
use crate::backend::Node;
use crate::command::{Flags as CommandFlags, Table};
use crate::config;
use crate::resp::{self, RequestLimits};
use crate::router::NodeId;

/// Slow commands in flight are worth so much of the node's time, in microseconds: what a quick
/// one may meet on its way.
const SLOW_WORTH: u64 = 8_000;

/// The least that may be in flight is worth no more than this of the node's time, in microseconds.
const FLOOR_WORTH: f64 = 20_000.0;

/// But so many in any case, so that the node does not wait for Weir.
const FLOOR_MIN: u32 = 4;

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
    pub(super) teller: Arc<Node>,
    /// From what the two were made.
    made_from: Option<(Arc<Table>, Arc<Costs>)>,
    /// Lanes behind it.
    pub lanes: u32,
    /// Of those, the ones in which somebody waits.
    pub lined: Vec<u32>,
    /// When something was last refused, in microseconds, if that is not long ago.
    pub(super) refused_at: Option<u64>,
    /// Something was refused since the last tick.
    pub(super) refused: bool,
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

    pub(super) fn work_of(&self, id: u16, frame: &[u8]) -> Work {
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
    pub(super) fn tell_classes(
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
    pub(super) fn floor(&self, conns: u32) -> u32 {
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
                refused_at: None,
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
            self.gates.remove(gate as usize);
        }
    }

    pub(super) fn gate_of_conn(&mut self, conn: u32) -> &mut Gate {
        &mut self.gates[self.conns[conn as usize].admission as usize].gate
    }
}
