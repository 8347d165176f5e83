//! What is told about backends: connections against the budget, readiness.

use super::http::Ready;
use crate::backend::{Kind, LedgerSnapshot, Node, Phase};
use crate::metrics::Exposition;
use crate::metrics::Kind as Metric;
use crate::session::{Proxy, Route};
use std::sync::Arc;

/// Writes what the ledgers count: connections by kind and phase, and what waits.
pub fn expose_backends(proxy: &Proxy, out: &mut Exposition) {
    let all = nodes_of(proxy);
    let nodes: Vec<(&str, &str, LedgerSnapshot, usize)> = all
        .iter()
        .map(|(route, node)| {
            (
                &**route,
                &*node.address,
                node.ledger.snapshot(),
                node.settings().backend.max_connections,
            )
        })
        .collect();
    out.family(
        "weir_backend_connections",
        "Connections to the node, by what they are for; all count against the budget.",
        Metric::Gauge,
    );
    for (route, node, snapshot, _) in &nodes {
        for kind in Kind::ALL {
            let labels = [("route", *route), ("node", *node), ("kind", kind.name())];
            out.sample(&labels, snapshot.of(kind) as u64);
        }
    }
    out.family(
        "weir_backend_connections_phase",
        "Connections to the node, by how far they are.",
        Metric::Gauge,
    );
    for (route, node, snapshot, _) in &nodes {
        for phase in Phase::ALL {
            let labels = [("route", *route), ("node", *node), ("phase", phase.name())];
            out.sample(
                &labels,
                snapshot
                    .slots
                    .iter()
                    .map(|by_phase| by_phase[phase.index()])
                    .sum::<usize>() as u64,
            );
        }
    }
    out.family(
        "weir_backend_connections_max",
        "The budget: connections that there may be to the node.",
        Metric::Gauge,
    );
    for (route, node, _, max) in &nodes {
        out.sample(&[("route", *route), ("node", *node)], *max as u64);
    }
    out.family(
        "weir_backend_connections_waiting",
        "Who stands in line for a connection to the node, by what for.",
        Metric::Gauge,
    );
    for (route, node, snapshot, _) in &nodes {
        for kind in Kind::ALL {
            let labels = [("route", *route), ("node", *node), ("kind", kind.name())];
            out.sample(&labels, snapshot.waiting[kind.index()] as u64);
        }
    }
    out.family(
        "weir_backend_up",
        "Whether the node can be used.",
        Metric::Gauge,
    );
    for (route, node) in &all {
        let labels = [("route", &**route), ("node", &*node.address)];
        out.sample(&labels, u64::from(node.is_ready()));
    }
    out.family(
        "weir_clients_max",
        "Clients that there may be.",
        Metric::Gauge,
    );
    for (index, route) in proxy.routes.iter().enumerate() {
        let max = proxy.limits.route_max(index as u16);
        out.sample(&[("route", &*route.name)], max as u64);
    }
}

/// Every node, with the name of its route.
fn nodes_of(proxy: &Proxy) -> Vec<(String, Arc<Node>)> {
    let of_route = |route: &Arc<Route>| {
        let name = route.name.clone();
        let nodes = route.deployment.snapshot().nodes.clone();
        nodes.into_iter().map(move |node| (name.clone(), node))
    };
    proxy.routes.iter().flat_map(of_route).collect()
}

/// Ready when every route has a node that can be used.
pub fn readiness(proxy: Arc<Proxy>) -> Ready {
    Box::new(move || {
        if proxy.draining.is_set() {
            return Err("draining".to_owned());
        }
        let down: Vec<String> = proxy
            .routes
            .iter()
            .map(|route| (route, route.deployment.primary()))
            .filter(|(route, node)| !node.is_ready() || route.deployment.outage().is_some())
            .map(|(route, node)| {
                let why = node.last_error();
                let why = why.map_or("not reached yet".into(), |error| error.to_string());
                format!("route {}: {why}", route.name)
            })
            .collect();
        if down.is_empty() {
            Ok(())
        } else {
            Err(down.join("\n"))
        }
    })
}
