//! What `weir top` shows, as JSON: how everything is at this moment.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::doctor;
use super::dump::event_json;
use super::hot_keys::{hot_keys, key_json};
use crate::metrics::{RouteSample, Sample, utc};
use crate::session::{Proxy, Route};

/// Identities that are told: those who hold the most, and as many of whom the most were refused.
const IDENTITIES: usize = 100;

/// Events that are told, the newest.
const EVENTS: usize = 50;

/// Hot keys that are told.
const KEYS: usize = 30;

/// `/top.json`.
pub fn top_json(proxy: &Proxy) -> String {
    let sample = proxy.journal.samples().latest().cloned();
    let now = SystemTime::now();
    let routes = proxy.routes.iter().enumerate();
    let routes: Vec<Value> = routes
        .map(|(index, route)| route_json(proxy, index, route, sample.as_ref()))
        .collect();
    let nodes: Vec<Value> = proxy
        .routes
        .iter()
        .enumerate()
        .flat_map(|(index, route)| nodes_json(route, of_route(sample.as_ref(), index)))
        .collect();
    let keys = hot_keys(proxy, KEYS).by_commands;
    let keys: Vec<Value> = keys.iter().map(|key| key_json(proxy, key)).collect();
    let events = proxy.journal.last(EVENTS, |_| true);
    let top = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "at": utc::rfc3339(now),
        "at_ms": utc::unix_millis(now),
        "up_seconds": proxy.started.elapsed().as_secs(),
        "routes": routes,
        "nodes": nodes,
        "identities": identities_json(proxy),
        "hot_keys": keys,
        "events": events.iter().rev().map(event_json).collect::<Vec<_>>(),
        "findings": doctor::json(&super::findings(proxy)),
    });
    top.to_string()
}

fn of_route(sample: Option<&Sample>, index: usize) -> Option<&RouteSample> {
    sample?.routes.get(index)
}

fn route_json(proxy: &Proxy, index: usize, route: &Route, sample: Option<&Sample>) -> Value {
    let over = sample.map_or(0, |sample| sample.over);
    let now = of_route(sample, index);
    let rate = |count: fn(&RouteSample) -> u64| {
        now.map_or(0.0, |now| RouteSample::per_second(count(now), over))
    };
    json!({
        "route": route.name,
        "clients": proxy.limits.route_taken(index as u16),
        "clients_max": proxy.limits.route_max(index as u16),
        "connections": now.map(|now| now.connections),
        "budget": now.map(|now| now.budget),
        "in_flight": now.map(|now| now.in_flight),
        "waiting": now.map(|now| now.waiting),
        "commands_per_second": rate(|now| now.commands),
        "refused_per_second": rate(|now| now.refused),
        "shed_per_second": rate(|now| now.shed),
        "errors_per_second": rate(|now| now.errors),
    })
}

fn nodes_json(route: &Route, now: Option<&RouteSample>) -> Vec<Value> {
    let snapshot = route.deployment.snapshot();
    let members = snapshot.topology.members.iter().zip(&snapshot.nodes);
    members
        .map(|(member, node)| {
            let samples = now.map_or(&[][..], |now| &now.nodes);
            let sample = samples.iter().find(|it| *it.node == *node.address);
            let ledger = node.ledger.snapshot();
            let (breaker, _) = node.breaker();
            json!({
                "route": route.name,
                "node": node.address,
                "role": member.role.label(),
                "up": node.is_ready(),
                "why": node.last_error().map(|error| error.to_string()),
                "breaker": breaker.name(),
                "connections": ledger.total(),
                "budget": ledger.limits.max_connections,
                "p50_us": sample.and_then(|sample| sample.p50_us),
                "p99_us": sample.and_then(|sample| sample.p99_us),
            })
        })
        .collect()
}

fn identities_json(proxy: &Proxy) -> Vec<Value> {
    let seconds = |time: Duration| time.as_secs();
    let top = proxy.limits.top(IDENTITIES).into_iter();
    top.map(|who| {
        json!({
            "route": who.route,
            "limit": who.limit,
            "identity": who.identity,
            "clients": who.clients,
            "clients_max": who.max_clients,
            "grown_1m": who.grown.one_minute,
            "grown_10m": who.grown.ten_minutes,
            "grown_1h": who.grown.one_hour,
            "idle_median": who.idle.map(|idle| seconds(idle.median)),
            "idle_oldest": who.idle.map(|idle| seconds(idle.oldest)),
            "admitted": who.admitted,
            "refused": who.refused,
            "shed": who.commands_refused,
        })
    })
    .collect()
}
