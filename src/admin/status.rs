//! What is told about backends: connections against the budget, readiness.

use super::http::Ready;
use crate::backend::{Kind, LedgerSnapshot, Phase};
use crate::metrics::Exposition;
use crate::metrics::Kind as Metric;
use crate::session::Proxy;
use std::sync::Arc;

/// Writes what the ledgers count: connections by kind and phase, and what waits.
pub fn expose_backends(proxy: &Proxy, out: &mut Exposition) {
    let nodes: Vec<(&str, &str, LedgerSnapshot, usize)> = proxy
        .routes
        .iter()
        .map(|route| {
            let config = &route.node.config;
            (
                &*route.config.name,
                &*config.address,
                route.node.ledger.snapshot(),
                config.max_connections,
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
    for route in &proxy.routes {
        let labels = [
            ("route", &*route.config.name),
            ("node", &*route.node.config.address),
        ];
        out.sample(&labels, u64::from(route.node.is_ready()));
    }
    out.family(
        "weir_clients_max",
        "Clients that there may be.",
        Metric::Gauge,
    );
    for route in &proxy.routes {
        out.sample(
            &[("route", &*route.config.name)],
            route.clients.max() as u64,
        );
    }
}

/// Ready when every route has a node that can be used.
pub fn readiness(proxy: Arc<Proxy>) -> Ready {
    Box::new(move || {
        let down: Vec<String> = proxy
            .routes
            .iter()
            .filter(|route| !route.node.is_ready())
            .map(|route| {
                let why = route.node.last_error();
                let why = why.map_or("not reached yet".into(), |error| error.to_string());
                format!("route {}: {why}", route.config.name)
            })
            .collect();
        if down.is_empty() {
            Ok(())
        } else {
            Err(down.join("\n"))
        }
    })
}
