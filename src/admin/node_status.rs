//! What is told about a node's health: its breaker, its probes, the pace of dials.

use crate::admission::{BreakerState, Trip};
use crate::backend::{LargeTold, Limits};
use crate::metrics::{Exposition, Kind};
use crate::session::Proxy;

/// Writes how each node fares.
pub fn expose_nodes(proxy: &Proxy, out: &mut Exposition) {
    let nodes: Vec<_> = proxy
        .routes
        .iter()
        .flat_map(|route| {
            let nodes = route.deployment.snapshot().nodes.clone();
            nodes.into_iter().map(|node| (&*route.name, node))
        })
        .collect();
    let nodes: Vec<_> = nodes
        .iter()
        .map(|(route, node)| {
            let labels = [("route", *route), ("node", &*node.address)];
            (labels, node.breaker(), node.counters(), node.limits())
        })
        .collect();
    out.family(
        "weir_node_state",
        "Whether the node gets work: 1 for the state that its breaker is in.",
        Kind::Gauge,
    );
    for ([route, node], (state, _), _, _) in &nodes {
        for one in BreakerState::ALL {
            let labels = [*route, *node, ("state", one.name())];
            out.sample(&labels, u64::from(one == *state));
        }
    }
    out.family(
        "weir_node_trips_total",
        "How often the node was taken for sick and got no work, by why.",
        Kind::Counter,
    );
    for ([route, node], _, counters, _) in &nodes {
        for trip in Trip::ALL {
            let labels = [*route, *node, ("why", trip.name())];
            out.sample(&labels, counters.trips[trip as usize]);
        }
    }
    out.family(
        "weir_node_probes_total",
        "Probes of the node while it was sick.",
        Kind::Counter,
    );
    for (labels, _, counters, _) in &nodes {
        out.sample(labels, counters.probes);
    }
    out.family(
        "weir_backend_dials_total",
        "Connections to the node that were tried, whatever became of them.",
        Kind::Counter,
    );
    for (labels, _, counters, _) in &nodes {
        out.sample(labels, counters.dials);
    }
    out.family(
        "weir_backend_dials_delayed_total",
        "Of these, those that waited for their turn, since the node was unwell.",
        Kind::Counter,
    );
    for (labels, _, counters, _) in &nodes {
        out.sample(labels, counters.dials_delayed);
    }
    out.family(
        "weir_backend_connections_allowed",
        "Connections that there may be now: the budget, or fewer so that the node stays under its share.",
        Kind::Gauge,
    );
    for (labels, _, _, limits) in &nodes {
        out.sample(labels, limits.connections_allowed as u64);
    }
    let gauges: [Told; 5] = [
        (
            "weir_node_clients",
            "Clients of the node, as it says itself; Weir's connections among them.",
            |l| l.vitals.clients,
        ),
        ("weir_node_clients_max", "The node's maxclients.", |l| {
            l.vitals.clients_max
        }),
        (
            "weir_node_clients_blocked",
            "Clients of the node that wait in a blocking command.",
            |l| l.vitals.blocked,
        ),
        (
            "weir_node_memory_used_bytes",
            "Memory that the node uses.",
            |l| l.vitals.memory,
        ),
        (
            "weir_node_memory_max_bytes",
            "The node's maxmemory; 0 for none.",
            |l| l.vitals.memory_max,
        ),
    ];
    let counters: [Told; 2] = [
        (
            "weir_node_evicted_keys_total",
            "Keys that the node has thrown out for want of memory.",
            |l| l.vitals.evicted,
        ),
        (
            "weir_node_rejected_connections_total",
            "Connections that the node has turned away for its maxclients.",
            |l| l.vitals.rejected,
        ),
    ];
    let families = gauges.iter().map(|told| (told, Kind::Gauge));
    for ((name, help, pick), kind) in
        families.chain(counters.iter().map(|told| (told, Kind::Counter)))
    {
        out.family(name, help, kind);
        for (labels, _, _, limits) in &nodes {
            out.sample(labels, pick(limits).unwrap_or(0));
        }
    }
    expose_large(proxy, out);
    out.family(
        "weir_node_memory_growth_bytes",
        "Bytes by which the node's memory has grown in a second of the last minute.",
        Kind::Gauge,
    );
    for (labels, _, _, limits) in &nodes {
        out.sample(labels, limits.memory_growth.unwrap_or(0.0));
    }
    out.family(
        "weir_node_memory_full_seconds",
        "How long the node's memory lasts if it goes on like this; +Inf if it does not grow or has no end.",
        Kind::Gauge,
    );
    for (labels, _, _, limits) in &nodes {
        let seconds = limits
            .memory_full_in
            .map_or(f64::INFINITY, |time| time.as_secs_f64());
        out.sample(labels, seconds);
    }
}

/// Writes how large replies fare at each node.
fn expose_large(proxy: &Proxy, out: &mut Exposition) {
    let gauges: [ToldOfLarge; 4] = [
        (
            "weir_large_replies_bytes",
            "Bytes of replies that are known to be large and that were asked of the node.",
            |told| told.under_way.bytes as usize,
        ),
        (
            "weir_large_replies_in_flight",
            "How many replies those are.",
            |told| told.under_way.count,
        ),
        (
            "weir_large_replies_waiting",
            "Requests that wait until others of those are over.",
            |told| told.waiting,
        ),
        (
            "weir_large_replies_known",
            "Requests whose reply was large within the last minute.",
            |told| told.known,
        ),
    ];
    for (name, help, pick) in gauges {
        out.family(name, help, Kind::Gauge);
        for route in &proxy.routes {
            for node in &route.deployment.snapshot().nodes {
                let labels = [("route", &*route.name), ("node", &*node.address)];
                out.sample(&labels, pick(&node.large.told()) as u64);
            }
        }
    }
    out.family(
        "weir_large_replies_max_bytes",
        "Bytes of large replies that the node may have to hold at once.",
        Kind::Gauge,
    );
    for route in &proxy.routes {
        let max = route.settings().backend.large_replies_max;
        out.sample(&[("route", &*route.name)], max);
    }
}

/// What is told of large replies: name, help, and where the number is.
type ToldOfLarge = (&'static str, &'static str, fn(&LargeTold) -> usize);

/// What the node says of itself: name, help, and where the number is.
type Told = (&'static str, &'static str, fn(&Limits) -> Option<u64>);
