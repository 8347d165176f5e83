//! Limits that refuse commands: which do now, and what each allows, beside the gauges of what
//! is used of it.

use crate::config;
use crate::metrics::{Exposition, Kind};
use crate::session::{Proxy, Setting, Why};

/// Name, help and value of what a route's settings allow.
type Max = (&'static str, &'static str, fn(&config::Route) -> u64);

const OF_ROUTES: [Max; 5] = [
    (
        "weir_commands_waiting_max",
        "Commands that may wait in front of a node.",
        |route| route.overload.queue_max as u64,
    ),
    (
        "weir_commands_held_max",
        "Commands that may wait for a primary.",
        |route| route.failover.hold_clients as u64,
    ),
    (
        "weir_held_max_bytes",
        "Bytes of commands that may wait for a primary.",
        |route| route.failover.hold_memory,
    ),
    (
        "weir_commands_paused_max",
        "Commands that may wait for the end of a pause.",
        |route| route.clients.pause_clients as u64,
    ),
    (
        "weir_paused_max_bytes",
        "Bytes of commands that may wait for the end of a pause, and behind them.",
        |route| route.clients.pause_memory,
    ),
];

/// Writes which limits refuse now, what they have refused and what they allow.
pub fn expose_reached(proxy: &Proxy, out: &mut Exposition) {
    out.family(
        "weir_setting_reached",
        "Whether commands are refused because of the setting, or were a moment ago.",
        Kind::Gauge,
    );
    for route in &proxy.routes {
        for &setting in Setting::ALL {
            let labels = [("route", &*route.name), ("setting", setting.name())];
            out.sample(&labels, u64::from(route.reached.is_reached(setting)));
        }
    }
    out.family(
        "weir_backend_connections_refused_total",
        "Commands refused for want of a connection, by the setting that left none, and whether \
         too many waited for one already or it took too long.",
        Kind::Counter,
    );
    for route in &proxy.routes {
        for setting in Setting::of_connections() {
            for &why in Why::ALL {
                let labels = [
                    ("route", &*route.name),
                    ("setting", setting.name()),
                    ("reason", why.label()),
                ];
                out.sample(&labels, route.reached.refused(setting, why));
            }
        }
    }
    for (name, help, max) in OF_ROUTES {
        out.family(name, help, Kind::Gauge);
        for route in &proxy.routes {
            out.sample(&[("route", &*route.name)], max(&route.settings()));
        }
    }
    expose_connections(proxy, out);
    out.family(
        "weir_buffered_max_bytes",
        "Bytes of requests and replies that may be held in memory for the clients of all routes.",
        Kind::Gauge,
    );
    out.sample(&[], proxy.settings().process.buffer_memory_max);
}

/// What the budget of each node of a route allows.
fn expose_connections(proxy: &Proxy, out: &mut Exposition) {
    out.family(
        "weir_backend_connections_kind_max",
        "Connections of the kind that there may be to each node of the route.",
        Kind::Gauge,
    );
    for route in &proxy.routes {
        let backend = &route.settings().backend;
        for (kind, max) in [
            ("shared", backend.max_shared),
            ("lease", backend.max_leases),
            ("blocking", backend.max_blocking),
            ("subscription", backend.max_subscriptions),
        ] {
            out.sample(&[("route", &*route.name), ("kind", kind)], max as u64);
        }
    }
    out.family(
        "weir_backend_connections_waiting_max",
        "Who may stand in line for a connection of a kind to each node of the route.",
        Kind::Gauge,
    );
    for route in &proxy.routes {
        let max = route.settings().backend.lease_queue;
        out.sample(&[("route", &*route.name)], max as u64);
    }
}
