//! What is known of each route, collected.

use std::sync::Arc;
use std::time::Duration;

use super::evidence::{Evidence, IdentityEvidence, KeyEvidence, NodeEvidence, Rates, SlowCommand};
use crate::admin::hot_keys::hot_keys;
use crate::backend::{Kind, Node};
use crate::metrics::{HotKey, RouteSample, Sample};
use crate::router::Role;
use crate::session::{Proxy, Route};

/// Identities that are looked at.
const IDENTITIES: usize = 16;

/// Keys that are looked at, of all routes together.
const KEYS: usize = 128;

/// Commands that are looked at.
const COMMANDS: usize = 5;

/// "Now", in milliseconds: long enough for a rate, short enough to be now.
const NOW: u64 = 10_000;

/// What is not "usual" yet, in milliseconds before now: the trouble may be a minute old.
const RECENT: u64 = 30_000;

/// The record that it takes to say what is usual, in milliseconds.
const USUAL_MIN: u64 = 60_000;

/// What is known of every route.
pub fn gather(proxy: &Proxy) -> Vec<Evidence> {
    let timeline = proxy.journal.samples().timeline();
    let hot = hot_keys(proxy, KEYS);
    let routes = proxy.routes.iter().enumerate();
    routes
        .map(|(index, route)| Evidence {
            hottest: key_of(index, &hot.by_commands),
            heaviest: key_of(index, &hot.by_bytes),
            ..of_route(proxy, index, route, &timeline)
        })
        .collect()
}

fn of_route(proxy: &Proxy, index: usize, route: &Route, timeline: &[Sample]) -> Evidence {
    let history = History::of(timeline, index);
    let snapshot = route.deployment.snapshot();
    let ledgers: Vec<_> = snapshot
        .nodes
        .iter()
        .map(|node| node.ledger.snapshot())
        .collect();
    let kind = Kind::Blocking;
    let sum = |count: &dyn Fn(&crate::backend::LedgerSnapshot) -> usize| -> u64 {
        ledgers.iter().map(|ledger| count(ledger) as u64).sum()
    };
    let members = snapshot.topology.members.iter().zip(&snapshot.nodes);
    let mut nodes: Vec<NodeEvidence> = members
        .map(|(member, node)| of_node(node, member.role))
        .collect();
    nodes.sort_by_key(|node| !node.is_primary);
    Evidence {
        route: route.name.to_string(),
        now: history.now(),
        usual: history.usual(),
        clients: proxy.limits.route_taken(index as u16) as u64,
        clients_max: proxy.limits.route_max(index as u16) as u64,
        clients_before: history.clients_before(600_000),
        identities: identities(proxy, &route.name),
        blocking: sum(&|ledger| ledger.of(kind)),
        blocking_max: sum(&|ledger| ledger.limits.max_blocking),
        blocking_waiting: sum(&|ledger| ledger.waiting[kind.index()]),
        connections: sum(&|ledger| ledger.total()),
        budget: sum(&|ledger| ledger.limits.max_connections),
        connections_waiting: sum(&|ledger| ledger.waiting.iter().sum()),
        nodes,
        slow: slow_commands(&snapshot.nodes),
        ..Evidence::default()
    }
}

/// The first of a route's keys.
fn key_of(route: usize, keys: &[HotKey]) -> Option<KeyEvidence> {
    let key = keys.iter().find(|key| key.route as usize == route)?;
    Some(KeyEvidence {
        key: key.key.clone(),
        command: key.command.clone(),
        commands: key.commands,
        commands_share: key.commands_share,
        bytes: key.bytes,
        bytes_share: key.bytes_share,
    })
}

fn identities(proxy: &Proxy, route: &str) -> Vec<IdentityEvidence> {
    let top = proxy.limits.top(IDENTITIES);
    let own = top.into_iter().filter(|identity| identity.route == route);
    own.map(|identity| IdentityEvidence {
        who: identity.identity,
        clients: identity.clients as u64,
        grown_1m: identity.grown.one_minute,
        grown_10m: identity.grown.ten_minutes,
        grown_1h: identity.grown.one_hour,
        idle_median: identity.idle.map(|idle| idle.median),
        idle_oldest: identity.idle.map(|idle| idle.oldest),
    })
    .collect()
}

/// The commands of which single ones are slow and that take the most of a node's time.
fn slow_commands(nodes: &[Arc<Node>]) -> Vec<SlowCommand> {
    let mut slow = Vec::new();
    for node in nodes {
        let slow_above = node.settings().overload.slow_above;
        let costs = node.costs();
        for (name, share) in costs.greediest(COMMANDS) {
            let micros = costs.mean(name).unwrap_or(0.0);
            let each = Duration::from_micros(micros as u64);
            // A quick command that is asked very often is traffic, not a slow command.
            if each >= slow_above {
                let name = name.to_owned();
                slow.push(SlowCommand { name, share, each });
            }
        }
    }
    slow.sort_by(|one, other| other.share.total_cmp(&one.share));
    slow.truncate(COMMANDS);
    slow
}

fn of_node(node: &Node, role: Role) -> NodeEvidence {
    let limits = node.limits();
    NodeEvidence {
        node: node.address.to_string(),
        is_primary: role == Role::Primary,
        up: node.is_ready(),
        why: node
            .last_error()
            .map_or("not reached yet".to_owned(), |error| error.to_string()),
        clients: limits.vitals.clients,
        own: node.ledger.snapshot().total() as u64,
        clients_max: limits.vitals.clients_max,
        memory_share: limits.vitals.memory_share(),
        memory_lasts: limits.memory_lasts,
        makes_room: limits.vitals.makes_room,
    }
}

/// One route's part of the record, newest last.
struct History<'a> {
    samples: Vec<(&'a Sample, &'a RouteSample)>,
    now: u64,
}

impl<'a> History<'a> {
    fn of(timeline: &'a [Sample], index: usize) -> History<'a> {
        let of_route = |sample: &'a Sample| Some((sample, sample.routes.get(index)?));
        History {
            samples: timeline.iter().filter_map(of_route).collect(),
            now: timeline.last().map_or(0, |sample| sample.at),
        }
    }

    fn ago(&self, sample: &Sample) -> u64 {
        self.now.saturating_sub(sample.at)
    }

    fn now(&self) -> Rates {
        let recent = self
            .samples
            .iter()
            .filter(|(sample, _)| self.ago(sample) < NOW);
        let rates: Vec<Rates> = recent.map(|(sample, route)| rates(sample, route)).collect();
        combine(&rates, mean)
    }

    fn usual(&self) -> Option<Rates> {
        let mut earlier = Vec::new();
        let mut recorded = 0;
        for (sample, route) in &self.samples {
            if self.ago(sample) >= RECENT {
                recorded += sample.over;
                earlier.push(rates(sample, route));
            }
        }
        (recorded >= USUAL_MIN).then(|| combine(&earlier, median))
    }

    /// Clients so many milliseconds ago.
    fn clients_before(&self, ago: u64) -> Option<u64> {
        let mut old = self.samples.iter().rev();
        let (_, route) = old.find(|(sample, _)| self.ago(sample) >= ago)?;
        Some(u64::from(route.clients))
    }
}

fn rates(sample: &Sample, route: &RouteSample) -> Rates {
    let rate = |count| RouteSample::per_second(count, sample.over);
    let slowest = route.nodes.iter().filter_map(|node| node.p99_us).max();
    Rates {
        commands: rate(route.commands),
        accepted: rate(route.accepted),
        refused: rate(route.refused),
        shed: rate(route.shed),
        p99_us: f64::from(slowest.unwrap_or(0)),
    }
}

fn combine(rates: &[Rates], how: fn(Vec<f64>) -> f64) -> Rates {
    let of = |pick: fn(&Rates) -> f64| how(rates.iter().map(pick).collect());
    Rates {
        commands: of(|rates| rates.commands),
        accepted: of(|rates| rates.accepted),
        refused: of(|rates| rates.refused),
        shed: of(|rates| rates.shed),
        p99_us: of(|rates| rates.p99_us),
    }
}

fn mean(values: Vec<f64>) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Not the mean: one spike an hour ago does not make the next one usual.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(commands: &[u64]) -> Vec<Sample> {
        let sample = |(second, commands): (usize, &u64)| Sample {
            at: second as u64 * 1_000,
            over: 1_000,
            routes: vec![RouteSample {
                commands: *commands,
                clients: second as u32,
                ..RouteSample::default()
            }],
        };
        commands.iter().enumerate().map(sample).collect()
    }

    #[test]
    fn now_is_the_last_seconds_and_usual_what_was_before_them() {
        let mut commands = vec![100; 120];
        commands[50] = 100_000;
        commands.extend([900; 20]);
        let timeline = timeline(&commands);
        let history = History::of(&timeline, 0);
        assert_eq!(history.now().commands, 900.0);
        assert_eq!(history.usual().map(|usual| usual.commands), Some(100.0));
        assert_eq!(history.clients_before(60_000), Some(79));
        assert_eq!(history.clients_before(600_000), None);
    }

    #[test]
    fn nothing_is_usual_before_something_is_known() {
        let timeline = timeline(&[100; 80]);
        assert_eq!(History::of(&timeline, 0).usual(), None);
        assert_eq!(History::of(&[], 0).now(), Rates::default());
    }
}
