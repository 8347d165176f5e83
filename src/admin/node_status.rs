//! What is told about a node's health: its breaker, its probes, the pace of dials.

use crate::admission::{BreakerState, Trip};
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
            (labels, node.breaker(), node.counters())
        })
        .collect();
    out.family(
        "weir_node_state",
        "Whether the node gets work: 1 for the state that its breaker is in.",
        Kind::Gauge,
    );
    for ([route, node], (state, _), _) in &nodes {
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
    for ([route, node], _, counters) in &nodes {
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
    for (labels, _, counters) in &nodes {
        out.sample(labels, counters.probes);
    }
    out.family(
        "weir_backend_dials_total",
        "Connections to the node that were tried, whatever became of them.",
        Kind::Counter,
    );
    for (labels, _, counters) in &nodes {
        out.sample(labels, counters.dials);
    }
    out.family(
        "weir_backend_dials_delayed_total",
        "Of these, those that waited for their turn, since the node was unwell.",
        Kind::Counter,
    );
    for (labels, _, counters) in &nodes {
        out.sample(labels, counters.dials_delayed);
    }
}
