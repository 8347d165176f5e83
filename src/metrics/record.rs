//! The flight recorder's numbers: samples of what the process does, close together for
//! the last minutes and further apart for the last day, in bounded memory.

use std::collections::VecDeque;
use std::sync::Arc;

/// The resolutions, finest first: seconds between two samples, and how many are kept.
/// One second for ten minutes, ten seconds for six hours, a minute for a day.
pub const RESOLUTIONS: [(u64, usize); 3] = [(1, 600), (10, 2160), (60, 1440)];

/// Rows (one route in one sample) kept in all. A row takes about 250 bytes, so that
/// the samples of a process with one route take 1 MB and those of any process 16 MB;
/// with more than fifteen routes each resolution reaches less far back.
pub const ROWS_MAX: usize = 64_000;

/// Nodes and identities listed for one route in one sample.
pub const LISTED_MAX: usize = 8;

/// The process over one interval.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Sample {
    /// The end of the interval, in milliseconds of Unix time.
    pub at: u64,
    /// How long it was, in milliseconds.
    pub over: u64,
    /// The routes, in the order of the settings.
    pub routes: Vec<RouteSample>,
}

/// One route over one interval. What is counted is counted over the interval; what goes
/// up and down is the highest value that was seen in it.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct RouteSample {
    /// Its name.
    pub route: Arc<str>,
    /// Clients connected.
    pub clients: u32,
    /// Clients that there may be.
    pub clients_max: u32,
    /// Connections to nodes, of any kind and phase.
    pub connections: u32,
    /// Connections that there may be.
    pub budget: u32,
    /// Commands under way at nodes.
    pub in_flight: u32,
    /// Commands that wait in front of nodes.
    pub waiting: u32,
    /// Clients accepted.
    pub accepted: u64,
    /// Clients refused.
    pub refused: u64,
    /// Commands that arrived.
    pub commands: u64,
    /// Commands refused because of a limit.
    pub shed: u64,
    /// Errors of Weir's own, shed commands included.
    pub errors: u64,
    /// The nodes behind it.
    pub nodes: Vec<NodeSample>,
    /// Who held the most client connections at the end of the interval, most first.
    pub top: Vec<(Arc<str>, u32)>,
}

/// One node over one interval.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct NodeSample {
    /// Its address.
    pub node: Arc<str>,
    /// It could be used all the time.
    pub up: bool,
    /// Half of its answers took no longer, in microseconds; of several intervals the
    /// longest. `None` if it was asked nothing.
    pub p50_us: Option<u32>,
    /// All but one in a hundred of its answers took no longer.
    pub p99_us: Option<u32>,
}

/// The samples that are kept.
#[derive(Debug, Default)]
pub struct Samples {
    rings: [VecDeque<Sample>; RESOLUTIONS.len()],
    /// What is being gathered for each resolution.
    open: [Option<Sample>; RESOLUTIONS.len()],
}

impl Samples {
    /// Takes in the last second, or however long it was since the last call.
    pub fn add(&mut self, mut sample: Sample) {
        for route in &mut sample.routes {
            route.nodes.truncate(LISTED_MAX);
            route.top.truncate(LISTED_MAX);
        }
        let routes = sample.routes.len();
        for (index, (seconds, kept)) in RESOLUTIONS.into_iter().enumerate() {
            let open = match self.open[index].take() {
                Some(mut open) => {
                    open.take_in(&sample);
                    open
                }
                None => sample.clone(),
            };
            // A timer is late as often as early: half a second is near enough.
            if open.over + 500 < seconds * 1000 {
                self.open[index] = Some(open);
                continue;
            }
            let ring = &mut self.rings[index];
            ring.push_back(open);
            while ring.len() > length(kept, routes) {
                ring.pop_front();
            }
        }
    }

    /// The samples of one resolution of [`RESOLUTIONS`], oldest first.
    pub fn of(&self, resolution: usize) -> impl DoubleEndedIterator<Item = &Sample> {
        self.rings.get(resolution).into_iter().flatten()
    }

    /// The last second.
    pub fn latest(&self) -> Option<&Sample> {
        self.rings[0].back()
    }

    /// All that is kept, oldest first, without overlap: coarse as far as fine does not reach.
    pub fn timeline(&self) -> Vec<Sample> {
        let mut timeline: VecDeque<Sample> = VecDeque::new();
        let mut before = u64::MAX;
        for ring in &self.rings {
            for sample in ring.iter().rev().filter(|sample| sample.at <= before) {
                timeline.push_front(sample.clone());
            }
            if let Some(first) = ring.front() {
                before = before.min(first.at.saturating_sub(first.over));
            }
        }
        timeline.into()
    }
}

/// How many samples of so many routes are kept.
fn length(kept: usize, routes: usize) -> usize {
    let all: usize = RESOLUTIONS.iter().map(|(_, kept)| kept).sum();
    let share = ROWS_MAX * kept / all;
    kept.min(share / routes.max(1)).max(1)
}

impl Sample {
    /// Goes on for as long as `next` lasted.
    fn take_in(&mut self, next: &Sample) {
        self.at = next.at;
        self.over += next.over;
        for route in &next.routes {
            match self.routes.iter_mut().find(|own| own.route == route.route) {
                Some(own) => own.take_in(route),
                None => self.routes.push(route.clone()),
            }
        }
    }
}

impl RouteSample {
    fn take_in(&mut self, next: &RouteSample) {
        self.clients = self.clients.max(next.clients);
        self.clients_max = next.clients_max;
        self.connections = self.connections.max(next.connections);
        self.budget = next.budget;
        self.in_flight = self.in_flight.max(next.in_flight);
        self.waiting = self.waiting.max(next.waiting);
        self.accepted += next.accepted;
        self.refused += next.refused;
        self.commands += next.commands;
        self.shed += next.shed;
        self.errors += next.errors;
        for node in &next.nodes {
            if let Some(own) = self.nodes.iter_mut().find(|own| own.node == node.node) {
                own.up &= node.up;
                own.p50_us = own.p50_us.max(node.p50_us);
                own.p99_us = own.p99_us.max(node.p99_us);
            } else if self.nodes.len() < LISTED_MAX {
                self.nodes.push(node.clone());
            }
        }
        self.top.clone_from(&next.top);
    }

    /// So many of something in this interval, as a rate.
    pub fn per_second(count: u64, over: u64) -> f64 {
        count as f64 * 1000.0 / over.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(second: u64, clients: u32, routes: usize) -> Sample {
        let route = |number: usize| RouteSample {
            route: format!("r{number}").into(),
            clients,
            commands: 10,
            nodes: vec![NodeSample {
                node: "n".into(),
                up: !second.is_multiple_of(60),
                p50_us: None,
                p99_us: Some(clients),
            }],
            ..RouteSample::default()
        };
        Sample {
            at: second * 1000,
            over: 1000,
            routes: (0..routes).map(route).collect(),
        }
    }

    #[test]
    fn coarse_samples_add_what_is_counted_and_keep_the_highest_of_the_rest() {
        let mut samples = Samples::default();
        for second in 1..=60 {
            samples.add(sample(second, if second == 7 { 90 } else { 3 }, 1));
        }
        assert_eq!(samples.of(0).count(), 60);
        let tens: Vec<&Sample> = samples.of(1).collect();
        assert_eq!(tens.len(), 6);
        assert_eq!((tens[0].at, tens[0].over), (10_000, 10_000));
        let clients: Vec<u32> = tens.iter().map(|ten| ten.routes[0].clients).collect();
        assert_eq!(clients, [90, 3, 3, 3, 3, 3]);
        assert_eq!(tens[0].routes[0].commands, 100);
        assert_eq!(tens[0].routes[0].nodes[0].p99_us, Some(90));
        assert!(tens[0].routes[0].nodes[0].up);
        let minute = samples.of(2).next().expect("a minute has passed");
        assert_eq!(minute.routes[0].commands, 600);
        assert!(!minute.routes[0].nodes[0].up);
        assert_eq!(samples.latest().expect("samples").at, 60_000);
    }

    #[test]
    fn a_day_is_kept_and_no_more() {
        let mut samples = Samples::default();
        for second in 1..=100_000 {
            samples.add(sample(second, 1, 1));
        }
        let kept: Vec<usize> = (0..3).map(|index| samples.of(index).count()).collect();
        assert_eq!(kept, RESOLUTIONS.map(|(_, kept)| kept));
        let timeline = samples.timeline();
        assert!(timeline.windows(2).all(|pair| {
            pair[0].at <= pair[1].at - pair[1].over
                && pair[1].at - pair[1].over - pair[0].at < 60_000
        }));
        assert!(timeline[0].at <= 100_000_000 - 86_000_000);
        assert_eq!(timeline.last().expect("samples").at, 100_000_000);
    }

    #[test]
    fn many_routes_reach_less_far_back() {
        for routes in [1, 15, 100, 1000, 100_000] {
            let rows: usize = RESOLUTIONS
                .map(|(_, kept)| length(kept, routes))
                .iter()
                .sum();
            assert!(rows * routes <= ROWS_MAX.max(3 * routes), "{routes}");
        }
        assert_eq!(length(600, 1), 600);
    }

    #[test]
    fn lists_are_bounded() {
        let mut wide = sample(1, 1, 1);
        wide.routes[0].top = (0..100).map(|n| (format!("{n}").into(), n)).collect();
        let mut samples = Samples::default();
        samples.add(wide);
        assert_eq!(
            samples.latest().expect("one").routes[0].top.len(),
            LISTED_MAX
        );
    }
}
