//! The flight recorder: every second a [`Sample`] of what the process does goes into
//! its journal, and limits that are no longer reached are told.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::backend::LedgerSnapshot;
use crate::metrics::record::LISTED_MAX;
use crate::metrics::{HistogramSnapshot, Metrics, NodeSample, RouteSample, Sample, utc};
use crate::session::{Proxy, Route};

/// How often a sample is taken: the finest resolution of the record.
const EVERY: Duration = Duration::from_secs(1);

/// How often it is noted who holds how many connections.
const IDENTITIES_EVERY: Duration = Duration::from_secs(10);

/// Seconds between two looks at who holds the most connections, for the record: a look goes through
/// all accounts, of which there may be tens of thousands.
const TOP_EVERY: u32 = 5;

/// Records until told to stop.
pub async fn record(proxy: Arc<Proxy>, mut stop: watch::Receiver<bool>) {
    let mut recorder = Recorder::new(&proxy);
    let mut interval = tokio::time::interval(EVERY);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::task::spawn_local(look_at_identities(proxy.clone(), stop.clone()));
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            _ = interval.tick() => {}
        }
        let sample = recorder.sample(&proxy);
        proxy.journal.samples().add(sample);
        proxy.watch_limits();
    }
}

async fn look_at_identities(proxy: Arc<Proxy>, mut stop: watch::Receiver<bool>) {
    let mut interval = tokio::time::interval(IDENTITIES_EVERY);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            _ = interval.tick() => {}
        }
        proxy.look_at_identities().await;
    }
}

/// What was counted when the last sample was taken.
struct Recorder {
    last: Instant,
    /// Of each route who held the most connections when that was last looked at.
    top: Vec<Vec<(Arc<str>, u32)>>,
    top_age: u32,
    routes: Vec<Counted>,
}

#[derive(Clone, Default)]
struct Counted {
    accepted: u64,
    refused: u64,
    commands: u64,
    shed: u64,
    errors: u64,
    times: HistogramSnapshot,
}

impl Recorder {
    fn new(proxy: &Proxy) -> Recorder {
        let routes = 0..proxy.routes.len();
        Recorder {
            last: Instant::now(),
            top: Vec::new(),
            top_age: TOP_EVERY,
            routes: routes
                .map(|route| Counted::of(&proxy.metrics, route))
                .collect(),
        }
    }

    fn sample(&mut self, proxy: &Proxy) -> Sample {
        let over = self.last.elapsed();
        self.last = Instant::now();
        self.top_age += 1;
        if self.top_age >= TOP_EVERY {
            self.top_age = 0;
            self.top = greediest(proxy);
        }
        let routes = proxy.routes.iter().enumerate().map(|(index, route)| {
            let counted = Counted::of(&proxy.metrics, index);
            let before = std::mem::replace(&mut self.routes[index], counted.clone());
            let top = self.top.get(index).cloned().unwrap_or_default();
            route_sample(route, proxy, index, &before, &counted, top)
        });
        Sample {
            routes: routes.collect(),
            at: utc::unix_millis(SystemTime::now()),
            over: over.as_millis() as u64,
        }
    }
}

/// Of each route those who hold the most connections, most first.
fn greediest(proxy: &Proxy) -> Vec<Vec<(Arc<str>, u32)>> {
    let all = proxy.limits.top(LISTED_MAX * proxy.routes.len());
    let of_route = |route: &Arc<Route>| {
        let own = all
            .iter()
            .filter(|it| it.route == route.name && it.clients > 0);
        let mut own: Vec<(Arc<str>, u32)> = own
            .map(|it| ((&*it.identity).into(), narrow(it.clients as u64)))
            .collect();
        own.sort_by_key(|(_, clients)| std::cmp::Reverse(*clients));
        own.truncate(LISTED_MAX);
        own
    };
    proxy.routes.iter().map(of_route).collect()
}

impl Counted {
    fn of(metrics: &Metrics, route: usize) -> Counted {
        let total =
            |pick: fn(&crate::metrics::WorkerMetrics) -> u64| metrics.route_total(route, pick);
        Counted {
            accepted: total(|m| m.clients_accepted.get()),
            refused: total(|m| m.clients_refused.sum()),
            commands: total(|m| m.commands.get()),
            shed: total(|m| m.shed.sum()),
            errors: total(|m| m.errors.sum()),
            times: metrics.route_times(route, |m| &m.backend_time),
        }
    }
}

fn route_sample(
    route: &Route,
    proxy: &Proxy,
    index: usize,
    before: &Counted,
    now: &Counted,
    top: Vec<(Arc<str>, u32)>,
) -> RouteSample {
    let (metrics, limits) = (&proxy.metrics, &proxy.limits);
    let nodes = route.deployment.snapshot();
    let ledgers: Vec<_> = nodes
        .nodes
        .iter()
        .map(|node| node.ledger.snapshot())
        .collect();
    let connections: usize = ledgers.iter().map(LedgerSnapshot::total).sum();
    let budget: usize = ledgers.iter().map(|it| it.limits.max_connections).sum();
    let times = now.times.since(&before.times);
    let micros = |q| times.quantile_micros(q).map(narrow);
    RouteSample {
        route: (&*route.name).into(),
        clients: narrow(limits.route_taken(index as u16) as u64),
        clients_max: narrow(limits.route_max(index as u16) as u64),
        connections: narrow(connections as u64),
        budget: narrow(budget as u64),
        in_flight: gauge(metrics.route_total_gauge(index, |m| m.commands_in_flight.get())),
        waiting: gauge(metrics.route_total_gauge(index, |m| m.commands_waiting.get())),
        accepted: now.accepted.wrapping_sub(before.accepted),
        refused: now.refused.wrapping_sub(before.refused),
        commands: now.commands.wrapping_sub(before.commands),
        shed: now.shed.wrapping_sub(before.shed),
        errors: now.errors.wrapping_sub(before.errors),
        nodes: nodes
            .nodes
            .iter()
            .map(|node| NodeSample {
                node: (&*node.address).into(),
                up: node.is_ready(),
                // Of all nodes of the route together.
                p50_us: micros(0.5),
                p99_us: micros(0.99),
            })
            .collect(),
        top,
    }
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn gauge(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}
