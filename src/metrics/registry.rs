//! All counters of one process: handed out to workers, added up for readers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::counter::CountersBy;
use super::histogram::{Histogram, HistogramSnapshot};
use super::reason::Reason;
use super::worker::WorkerMetrics;

/// The counters of every worker for every route, fixed when the process starts.
#[derive(Debug)]
pub struct Metrics {
    pub(super) routes: Vec<RouteMetrics>,
    pub(super) started: SystemTime,
}

#[derive(Debug)]
pub(super) struct RouteMetrics {
    pub(super) name: String,
    /// One for each worker, then one for the acceptor.
    writers: Vec<Arc<WorkerMetrics>>,
}

impl Metrics {
    /// Counters for `workers` workers and one acceptor on each of `routes`.
    pub fn new(routes: impl IntoIterator<Item = impl Into<String>>, workers: usize) -> Self {
        let writers = || (0..=workers).map(|_| Arc::default()).collect();
        let routes = routes.into_iter();
        Self {
            routes: routes
                .map(|name| RouteMetrics {
                    name: name.into(),
                    writers: writers(),
                })
                .collect(),
            started: SystemTime::now(),
        }
    }

    /// The counters that worker number `worker` owns for route number `route`.
    ///
    /// # Panics
    /// When there is no such worker or route.
    pub fn worker(&self, worker: usize, route: usize) -> Arc<WorkerMetrics> {
        let writers = &self.routes[route].writers;
        assert!(
            worker + 1 < writers.len(),
            "worker {worker} of {}",
            writers.len() - 1
        );
        Arc::clone(&writers[worker])
    }

    /// The counters that the thread which accepts clients owns for route
    /// number `route`: for what happens before a client has a worker.
    ///
    /// # Panics
    /// When there is no such route.
    pub fn acceptor(&self, route: usize) -> Arc<WorkerMetrics> {
        let writers = &self.routes[route].writers;
        Arc::clone(
            writers
                .last()
                .expect("new() adds the acceptor's to every route"),
        )
    }

    /// One counter, all routes and workers added up: `total(|m| m.commands.get())`.
    pub fn total(&self, pick: impl Fn(&WorkerMetrics) -> u64) -> u64 {
        self.routes
            .iter()
            .map(|route| route.total(&pick))
            .fold(0, u64::wrapping_add)
    }

    /// One gauge, all routes and workers added up.
    pub fn total_gauge(&self, pick: impl Fn(&WorkerMetrics) -> i64) -> i64 {
        self.routes
            .iter()
            .map(|route| route.total_gauge(&pick))
            .fold(0, i64::wrapping_add)
    }

    /// One counter of one route, all workers added up.
    ///
    /// # Panics
    /// When there is no such route.
    pub fn route_total(&self, route: usize, pick: impl Fn(&WorkerMetrics) -> u64) -> u64 {
        self.routes[route].total(pick)
    }

    /// One gauge of one route, all workers added up.
    ///
    /// # Panics
    /// When there is no such route.
    pub fn route_total_gauge(&self, route: usize, pick: impl Fn(&WorkerMetrics) -> i64) -> i64 {
        self.routes[route].total_gauge(pick)
    }

    /// What one route has counted by reason, all workers added up; reasons that have
    /// never occurred are left out.
    ///
    /// # Panics
    /// When there is no such route.
    pub fn by_reason<R: Reason, const N: usize>(
        &self,
        route: usize,
        pick: impl Fn(&WorkerMetrics) -> &CountersBy<R, N>,
    ) -> BTreeMap<&'static str, u64> {
        let count = |reason: &R| self.route_total(route, |m| pick(m)[*reason].get());
        let counted = R::ALL.iter().map(|reason| (reason.label(), count(reason)));
        counted.filter(|(_, count)| *count > 0).collect()
    }

    /// One histogram of one route, all workers added up.
    ///
    /// # Panics
    /// When there is no such route.
    pub fn route_times(
        &self,
        route: usize,
        pick: impl Fn(&WorkerMetrics) -> &Histogram,
    ) -> HistogramSnapshot {
        self.routes[route].times(pick)
    }

    /// How long the process has been counting.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed().unwrap_or_default()
    }
}

impl RouteMetrics {
    pub(super) fn total(&self, pick: impl Fn(&WorkerMetrics) -> u64) -> u64 {
        self.writers
            .iter()
            .map(|writer| pick(writer))
            .fold(0, u64::wrapping_add)
    }

    pub(super) fn total_gauge(&self, pick: impl Fn(&WorkerMetrics) -> i64) -> i64 {
        self.writers
            .iter()
            .map(|writer| pick(writer))
            .fold(0, i64::wrapping_add)
    }

    pub(super) fn times(&self, pick: impl Fn(&WorkerMetrics) -> &Histogram) -> HistogramSnapshot {
        let mut times = HistogramSnapshot::default();
        self.writers
            .iter()
            .for_each(|writer| pick(writer).add_to(&mut times));
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_and_the_acceptor_are_added_up_by_route() {
        let metrics = Metrics::new(["cache", "queue"], 2);
        metrics.worker(0, 0).commands.add(3);
        metrics.worker(1, 0).commands.add(4);
        metrics.acceptor(0).commands.add(1);
        metrics.worker(1, 1).commands.add(5);
        metrics.worker(0, 0).clients_connected.add(2);
        metrics.worker(1, 0).clients_connected.dec();
        metrics.worker(0, 0).own_time.record_n(100, 2);
        metrics.worker(1, 0).own_time.record(1_000);

        assert_eq!(metrics.total(|m| m.commands.get()), 13);
        assert_eq!(metrics.route_total(0, |m| m.commands.get()), 8);
        assert_eq!(metrics.total_gauge(|m| m.clients_connected.get()), 1);
        assert_eq!(
            metrics.route_total_gauge(1, |m| m.clients_connected.get()),
            0
        );
        assert_eq!(metrics.route_times(0, |m| &m.own_time).count(), 3);
    }

    #[test]
    #[should_panic(expected = "worker 2 of 2")]
    fn the_acceptors_counters_are_not_given_to_a_worker() {
        Metrics::new(["cache"], 2).worker(2, 0);
    }
}
