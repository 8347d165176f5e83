//! Which number is exposed under which name.
//!
//! The names and labels are stable: dashboards and alerts are built on them.

use std::time::UNIX_EPOCH;

use super::counter::{Counter, CountersBy, Gauge};
use super::exposition::{Exposition, Kind};
use super::histogram::Histogram;
use super::reason::Reason;
use super::registry::Metrics;
use super::worker::WorkerMetrics;

/// Label values `side` and `direction`, and the counter they stand for.
type Side = (&'static str, &'static str, fn(&WorkerMetrics) -> &Counter);

impl Metrics {
    /// Writes every family, each route's workers added up. Names and labels
    /// are stable; the number of series is a fixed one for each route.
    pub fn expose(&self, out: &mut Exposition) {
        self.expose_process(out);
        self.expose_clients(out);
        self.expose_commands(out);
        self.expose_bytes(out);
        self.expose_queues(out);
        self.expose_pubsub(out);
        self.expose_times(out);
    }

    fn expose_pubsub(&self, out: &mut Exposition) {
        let help = "Clients that are subscribed to anything.";
        self.gauge(out, "weir_pubsub_subscribers", help, |m| {
            &m.clients_subscribed
        });
        let help = "Channels and patterns that nodes are subscribed to for clients.";
        self.gauge(out, "weir_pubsub_channels", help, |m| &m.pubsub_channels);
        let help = "Messages that arrived from nodes, each once for all its subscribers.";
        self.counter(out, "weir_pubsub_messages_in_total", help, |m| {
            &m.pubsub_messages_in
        });
        let help = "Messages handed to subscribers.";
        self.counter(out, "weir_pubsub_messages_out_total", help, |m| {
            &m.pubsub_messages_out
        });
    }

    fn expose_process(&self, out: &mut Exposition) {
        out.family(
            "weir_build_info",
            "The version that runs; always 1.",
            Kind::Gauge,
        );
        out.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1_u64);
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        out.family(
            "weir_start_time_seconds",
            "When Weir started, in Unix time.",
            Kind::Gauge,
        );
        out.sample(&[], started.as_secs_f64());
    }

    fn expose_clients(&self, out: &mut Exposition) {
        self.gauge(
            out,
            "weir_clients_connected",
            "Clients connected now.",
            |m| &m.clients_connected,
        );
        self.counter(
            out,
            "weir_clients_accepted_total",
            "Clients that connected.",
            |m| &m.clients_accepted,
        );
        let help = "Times a listener waited because clients came faster than its accept rate.";
        self.counter(out, "weir_accepts_delayed_total", help, |m| {
            &m.accepts_delayed
        });
        let help = "Clients that were not taken in, by the limit that refused them.";
        self.by(out, "weir_clients_refused_total", help, "reason", |m| {
            &m.clients_refused
        });
        let help = "Clients whose connection ended, by why.";
        self.by(out, "weir_clients_closed_total", help, "reason", |m| {
            &m.clients_closed
        });
    }

    fn expose_commands(&self, out: &mut Exposition) {
        self.counter(
            out,
            "weir_commands_total",
            "Commands that arrived whole.",
            |m| &m.commands,
        );
        let name = "weir_replies_total";
        out.family(
            name,
            "Replies written to clients, by who made them.",
            Kind::Counter,
        );
        for route in &self.routes {
            let of = |source| [("route", route.name.as_str()), ("source", source)];
            out.sample(&of("redis"), route.total(|m| m.replies.get()));
            out.sample(&of("weir"), route.total(|m| m.local_replies.get()));
        }
        let help = "Errors that Weir itself answered with, by cause.";
        self.by(out, "weir_errors_total", help, "cause", |m| &m.errors);
        let help = "Commands that were refused and not run, by the limit that was reached.";
        self.by(out, "weir_shed_total", help, "limit", |m| &m.shed);
        let name = "weir_fail_open_total";
        let help = "Commands answered without Redis since the route fails open, by kind.";
        out.family(name, help, Kind::Counter);
        for route in &self.routes {
            let of = |kind| [("route", route.name.as_str()), ("kind", kind)];
            out.sample(&of("read"), route.total(|m| m.misses_made_up.get()));
            out.sample(&of("write"), route.total(|m| m.writes_made_up.get()));
        }
        let help = "Commands sent to nodes, repeated ones included.";
        self.counter(out, "weir_backend_commands_total", help, |m| {
            &m.backend_commands
        });
        let help = "Batches of commands written to nodes.";
        self.counter(out, "weir_backend_flushes_total", help, |m| &m.flushes);
        let help = "Commands that took longer than slow_log_threshold.";
        self.counter(out, "weir_slow_commands_total", help, |m| &m.commands_slow);
        let help = "Commands sent over another worker's connection.";
        self.counter(out, "weir_commands_handed_over_total", help, |m| {
            &m.handed_over
        });
        let help = "Commands sent again after their connection was lost.";
        self.counter(out, "weir_retries_total", help, |m| &m.retries);
    }

    fn expose_bytes(&self, out: &mut Exposition) {
        let help = "Bytes received and sent, by side.";
        let sides: [Side; 4] = [
            ("client", "in", |m| &m.bytes_in),
            ("client", "out", |m| &m.bytes_out),
            ("backend", "in", |m| &m.backend_bytes_in),
            ("backend", "out", |m| &m.backend_bytes_out),
        ];
        self.by_side(out, "weir_bytes_total", help, &sides);
    }

    fn expose_queues(&self, out: &mut Exposition) {
        let help = "Commands sent to nodes whose reply has not come.";
        self.gauge(out, "weir_commands_in_flight", help, |m| {
            &m.commands_in_flight
        });
        let help = "Commands that wait in front of a node.";
        self.gauge(out, "weir_commands_waiting", help, |m| &m.commands_waiting);
        let help = "Commands that may be in flight to nodes now.";
        self.gauge(out, "weir_in_flight_limit", help, |m| &m.in_flight_limit);
        let help = "Workers that refuse commands because a node has too much to do.";
        self.gauge(out, "weir_shedding", help, |m| &m.shedding);
        let help = "Commands that wait for a primary.";
        self.gauge(out, "weir_commands_held", help, |m| &m.commands_held);
        let help = "Bytes of commands that wait for a primary.";
        self.gauge(out, "weir_held_bytes", help, |m| &m.held_bytes);
        let help = "Commands that wait for the end of a pause.";
        self.gauge(out, "weir_commands_paused", help, |m| &m.commands_paused);
        let help = "Bytes of commands that wait for the end of a pause, and behind them.";
        self.gauge(out, "weir_paused_bytes", help, |m| &m.paused_bytes);
        let help = "Bytes of requests and replies held in memory for clients.";
        self.gauge(out, "weir_buffered_bytes", help, |m| &m.buffered_bytes);
        let help = "Clients that hold a connection to a node alone.";
        self.gauge(out, "weir_leases_held", help, |m| &m.leases_held);
        let name = "weir_clients_blocked";
        out.family(
            name,
            "Clients that are blocked, by how they wait; paused ones wait alone.",
            Kind::Gauge,
        );
        for route in &self.routes {
            let of = |way| [("route", route.name.as_str()), ("way", way)];
            let all = route.total_gauge(|m| m.clients_blocked.get());
            let shared = route.total_gauge(|m| m.blocked_sharing.get());
            let in_line = route.total_gauge(|m| m.blocked_in_line.get());
            out.sample(&of("own"), (all - shared - in_line).max(0));
            out.sample(&of("shared"), shared);
            out.sample(&of("in_line"), in_line);
        }
        let help = "Elements popped on shared connections and handed to a blocked client.";
        self.counter(out, "weir_blocked_handed_over_total", help, |m| {
            &m.blocked_handed
        });
        let help = "Elements popped for a blocked client that had gone, and lost with it.";
        self.counter(out, "weir_blocked_orphans_total", help, |m| {
            &m.blocked_orphans
        });
        let help = "Waits on shared connections that were ended and begun anew.";
        self.counter(out, "weir_blocked_reissued_total", help, |m| {
            &m.blocked_reissued
        });
        let help = "Clients that wait for a connection of their own.";
        self.gauge(out, "weir_leases_waiting", help, |m| &m.leases_waiting);
        let help = "Connections to a node given to one client alone.";
        self.counter(out, "weir_leases_granted_total", help, |m| {
            &m.leases_granted
        });
    }

    fn expose_times(&self, out: &mut Exposition) {
        let help = "Weir's own share of the time of a command.";
        self.times(out, "weir_own_time_seconds", help, |m| &m.own_time);
        let help = "The node's share of the time of a command.";
        self.times(out, "weir_backend_time_seconds", help, |m| &m.backend_time);
        let help = "How long commands waited that could not be sent to a node at once.";
        self.times(out, "weir_queue_time_seconds", help, |m| &m.queue_time);
        let help = "How long clients waited for a connection of their own that they got.";
        self.times(out, "weir_lease_wait_seconds", help, |m| &m.lease_wait);
    }

    fn counter(
        &self,
        out: &mut Exposition,
        name: &'static str,
        help: &'static str,
        pick: impl Fn(&WorkerMetrics) -> &Counter,
    ) {
        out.family(name, help, Kind::Counter);
        for route in &self.routes {
            out.sample(&[("route", &route.name)], route.total(|m| pick(m).get()));
        }
    }

    fn gauge(
        &self,
        out: &mut Exposition,
        name: &'static str,
        help: &'static str,
        pick: impl Fn(&WorkerMetrics) -> &Gauge,
    ) {
        out.family(name, help, Kind::Gauge);
        for route in &self.routes {
            out.sample(
                &[("route", &route.name)],
                route.total_gauge(|m| pick(m).get()),
            );
        }
    }

    fn by<R: Reason, const N: usize>(
        &self,
        out: &mut Exposition,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        pick: impl Fn(&WorkerMetrics) -> &CountersBy<R, N>,
    ) {
        out.family(name, help, Kind::Counter);
        for route in &self.routes {
            for reason in R::ALL {
                let labels = [("route", route.name.as_str()), (label, reason.label())];
                out.sample(&labels, route.total(|m| pick(m)[*reason].get()));
            }
        }
    }

    fn by_side(
        &self,
        out: &mut Exposition,
        name: &'static str,
        help: &'static str,
        sides: &[Side],
    ) {
        out.family(name, help, Kind::Counter);
        for route in &self.routes {
            for (side, direction, pick) in sides {
                let labels = [
                    ("route", route.name.as_str()),
                    ("side", side),
                    ("direction", direction),
                ];
                out.sample(&labels, route.total(|m| pick(m).get()));
            }
        }
    }

    fn times(
        &self,
        out: &mut Exposition,
        name: &'static str,
        help: &'static str,
        pick: impl Fn(&WorkerMetrics) -> &Histogram,
    ) {
        out.family(name, help, Kind::Histogram);
        for route in &self.routes {
            out.histogram(&[("route", &route.name)], &route.times(&pick));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::reason::{CloseReason, ErrorCause, RefusedReason, ShedLimit};

    fn exposed(metrics: &Metrics) -> String {
        let mut out = Exposition::new();
        metrics.expose(&mut out);
        out.finish()
    }

    #[test]
    fn every_family_has_its_stable_name_and_labels() {
        let metrics = Metrics::new(["cache", "queue"], 2);
        metrics.worker(0, 0).commands.add(3);
        metrics.worker(1, 0).commands.add(4);
        metrics.worker(1, 1).commands.add(5);
        metrics.worker(0, 0).client_opened();
        metrics.worker(1, 0).client_opened();
        metrics.worker(1, 0).client_closed(CloseReason::Idle);
        metrics.acceptor(0).clients_refused[RefusedReason::MaxClients].inc();
        metrics.worker(0, 0).own_time.record_n(100, 2);
        metrics.worker(1, 0).own_time.record(1_000);

        let text = exposed(&metrics);
        for line in [
            "weir_commands_total{route=\"cache\"} 7",
            "weir_commands_total{route=\"queue\"} 5",
            "weir_clients_connected{route=\"cache\"} 1",
            "weir_clients_closed_total{route=\"cache\",reason=\"idle\"} 1",
            "weir_clients_refused_total{route=\"cache\",reason=\"max_clients\"} 1",
            "weir_own_time_seconds_bucket{route=\"cache\",le=\"0.000064\"} 0",
            "weir_own_time_seconds_bucket{route=\"cache\",le=\"0.000128\"} 2",
            "weir_own_time_seconds_bucket{route=\"cache\",le=\"+Inf\"} 3",
            "weir_own_time_seconds_sum{route=\"cache\"} 0.0012",
            "weir_own_time_seconds_count{route=\"cache\"} 3",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} in\n{text}");
        }
    }

    /// Nothing that happens adds a series: only another route does.
    #[test]
    fn the_number_of_series_is_fixed_by_the_number_of_routes() {
        let series = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
        let none = series(&exposed(&Metrics::new(Vec::<String>::new(), 4)));
        let one = series(&exposed(&Metrics::new(["a"], 1)));
        let three = Metrics::new(["a", "b", "c"], 8);
        assert_eq!(series(&exposed(&three)), none + 3 * (one - none));

        for worker in 0..8 {
            let metrics = three.worker(worker, 1);
            metrics.client_opened();
            CloseReason::ALL
                .iter()
                .for_each(|reason| metrics.client_closed(*reason));
            ErrorCause::ALL
                .iter()
                .for_each(|cause| metrics.shed(*cause, ShedLimit::Queue));
            (0..40).for_each(|power| metrics.backend_time.record(1 << power));
        }
        assert_eq!(series(&exposed(&three)), none + 3 * (one - none));
    }
}
