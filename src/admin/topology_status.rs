//! What is told about the nodes of each route: what they are, how they are, who waits.

use std::sync::atomic::Ordering::Relaxed;

use crate::metrics::{Exposition, Kind};
use crate::router::{Health, Member, Standing};
use crate::session::Proxy;

/// A family with a value for each node.
type OfNode = (&'static str, &'static str, fn(&Member) -> f64);

const OF_NODES: [OfNode; 4] = [
    (
        "weir_node_up",
        "Whether the node answers its probes; of a single node, whether it is there is in \
         weir_backend_up.",
        |member| f64::from(u8::from(member.health == Health::Up)),
    ),
    (
        "weir_node_read_weight",
        "The node's share of the reads that replicas serve, from 0 (none) to 1.",
        |member| f64::from(member.read_weight),
    ),
    (
        "weir_node_latency_seconds",
        "How fast the node answers a probe, smoothed.",
        |member| member.latency_us as f64 / 1e6,
    ),
    (
        "weir_node_disk_error",
        "Whether the node's last write to disk failed.",
        |member| f64::from(u8::from(member.disk_error)),
    ),
];

/// Writes what is known of the nodes of each route.
pub fn expose_topology(proxy: &Proxy, out: &mut Exposition) {
    let snapshots: Vec<_> = proxy
        .routes
        .iter()
        .map(|route| (route, route.deployment.snapshot()))
        .collect();
    let members = || {
        snapshots.iter().flat_map(|(route, snapshot)| {
            let members = snapshot.topology.members.iter();
            members.map(|member| (&*route.name, member))
        })
    };
    for (name, help, value) in OF_NODES {
        out.family(name, help, Kind::Gauge);
        for (route, member) in members() {
            let labels = [("route", route), ("node", &*member.address)];
            out.sample(&labels, value(member));
        }
    }
    let name = "weir_node_role";
    out.family(
        name,
        "How each node is: what it says that it is, how it answers, how it stands to the \
         deployment. Always 1.",
        Kind::Gauge,
    );
    for (route, member) in members() {
        let labels = [
            ("route", route),
            ("node", &*member.address),
            ("role", member.role.label()),
            ("health", member.health.label()),
            ("standing", member.standing.label()),
        ];
        out.sample(&labels, 1_u64);
    }
    let name = "weir_node_behind_seconds";
    out.family(
        name,
        "How long ago the replica is known to have had all that the primary had.",
        Kind::Gauge,
    );
    let now = proxy.started.elapsed().as_micros() as u64;
    for (route, snapshot) in &snapshots {
        let pairs = snapshot.topology.members.iter().zip(&snapshot.covered);
        for (member, covered) in pairs.filter(|(it, _)| it.standing == Standing::Follower) {
            let covered = covered.load(Relaxed);
            if covered != 0 {
                let labels = [("route", &*route.name), ("node", &*member.address)];
                out.sample(&labels, now.saturating_sub(covered) as f64 / 1e6);
            }
        }
    }
    of_routes(proxy, out);
}

fn of_routes(proxy: &Proxy, out: &mut Exposition) {
    out.family(
        "weir_primary_available",
        "Whether there is a node that takes writes.",
        Kind::Gauge,
    );
    for route in &proxy.routes {
        let deployment = &route.deployment;
        let is_there = match deployment.is_standalone() {
            true => deployment.primary().is_ready(),
            false => deployment.outage().is_none(),
        };
        out.sample(&[("route", &*route.name)], u64::from(is_there));
    }
    out.family(
        "weir_failovers_total",
        "Times another node became the primary.",
        Kind::Counter,
    );
    for route in &proxy.routes {
        let failovers = route.deployment.failovers.load(Relaxed);
        out.sample(&[("route", &*route.name)], failovers);
    }
    out.family(
        "weir_commands_held_total",
        "Commands that waited for a primary.",
        Kind::Counter,
    );
    for route in &proxy.routes {
        let held = route.deployment.held.load(Relaxed);
        out.sample(&[("route", &*route.name)], held);
    }
}
