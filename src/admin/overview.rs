//! What the page shows, as JSON: how each route is now, how it has been, what happened.
//! Small enough to be asked for every other second.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::doctor;
use super::dump::event_json;
use super::hot_keys::{hot_keys, lists_json};
use crate::admission::TopIdentity;
use crate::backend::{Kind, LedgerSnapshot};
use crate::metrics::{Journal, RESOLUTIONS, RouteSample, Sample, utc};
use crate::session::{Proxy, Route};

/// Events that are shown.
const EVENTS_SHOWN: usize = 100;

/// Hot keys and large replies that are shown of a route.
const KEYS_SHOWN: usize = 5;

/// Identities that are shown of a route, of those who were refused most.
const REFUSED_SHOWN: usize = 8;

/// How far back the curves reach: an index into [`RESOLUTIONS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// Ten minutes, by the second.
    Minutes = 0,
    /// Six hours, by ten seconds.
    Hours = 1,
    /// A day, by the minute.
    Day = 2,
}

/// Everything that the page shows.
pub fn overview(proxy: &Proxy, span: Span) -> String {
    let latest = proxy.journal.samples().latest().cloned();
    let history: Vec<Sample> = proxy.journal.samples().of(span as usize).cloned().collect();
    let evidence = doctor::gather(proxy);
    let findings: Vec<_> = evidence.iter().flat_map(doctor::diagnose).collect();
    let identities = proxy.limits.top(REFUSED_SHOWN * proxy.routes.len());
    let hot = hot_keys(proxy, KEYS_SHOWN * proxy.routes.len());
    let routes: Vec<Value> = proxy
        .routes
        .iter()
        .enumerate()
        .map(|(index, route)| {
            let now = latest.as_ref().and_then(|sample| sample.routes.get(index));
            json!({
                "route": route.name,
                "now": now.map(now_json),
                "over": latest.as_ref().map(|sample| seconds(sample.over)),
                "connections": connections(route),
                "nodes": nodes(route, now),
                "usual": evidence[index].usual.map(usual_json),
                "why": why(proxy, index),
                "hot": lists_json(proxy, &hot, Some(index as u16)),
                "first": first_top(&history, index),
                "refused_most": refused_most(&identities, &route.name),
                "history": history_json(&history, index),
            })
        })
        .collect();
    let overview = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "at": utc::rfc3339(SystemTime::now()),
        "up_seconds": proxy.started.elapsed().as_secs(),
        "step_seconds": RESOLUTIONS[span as usize].0,
        "times": history.iter().map(|sample| sample.at).collect::<Vec<_>>(),
        "routes": routes,
        "events": events(&proxy.journal),
        "findings": doctor::json(&findings),
    });
    overview.to_string()
}

/// What is wrong on any route.
pub fn findings(proxy: &Proxy) -> Vec<doctor::Finding> {
    doctor::gather(proxy)
        .iter()
        .flat_map(doctor::diagnose)
        .collect()
}

fn events(journal: &Journal) -> Vec<Value> {
    let events = journal.last(EVENTS_SHOWN, |_| true);
    events.iter().rev().map(event_json).collect()
}

/// Those who were refused most since they came, connections or commands.
fn refused_most(identities: &[TopIdentity], route: &str) -> Vec<Value> {
    identities
        .iter()
        .filter(|of| of.route == route && (of.refused > 0 || of.commands_refused > 0))
        .map(|of| {
            json!({
                "identity": of.identity, "limit": of.limit, "clients": of.clients,
                "max_clients": of.max_clients,
                "refused": of.refused, "commands_refused": of.commands_refused,
            })
        })
        .collect()
}

fn usual_json(usual: doctor::Rates) -> Value {
    json!({"commands": usual.commands, "accepted": usual.accepted, "p99_us": usual.p99_us})
}

/// How many connections those who hold the most had at the beginning of what is shown.
fn first_top(history: &[Sample], route: usize) -> Value {
    let mut routes = history.iter().filter_map(|sample| sample.routes.get(route));
    let first = routes.find(|route| !route.top.is_empty());
    let top = first.map_or(&[][..], |route| &route.top);
    let top = top
        .iter()
        .map(|(who, clients)| (who.to_string(), json!(clients)));
    Value::Object(top.collect())
}

fn now_json(now: &RouteSample) -> Value {
    let top = now
        .top
        .iter()
        .map(|(who, clients)| json!({"identity": &**who, "clients": clients}));
    json!({
        "clients": now.clients, "clients_max": now.clients_max,
        "connections": now.connections, "budget": now.budget,
        "in_flight": now.in_flight, "waiting": now.waiting,
        "accepted": now.accepted, "refused": now.refused,
        "commands": now.commands, "shed": now.shed, "errors": now.errors,
        "top": top.collect::<Vec<_>>(),
    })
}

/// Connections by what they are for, and who waits for one, to all nodes together; kinds
/// without any are left out.
fn connections(route: &Route) -> Value {
    let nodes = route.deployment.snapshot();
    let ledgers: Vec<LedgerSnapshot> = nodes
        .nodes
        .iter()
        .map(|node| node.ledger.snapshot())
        .collect();
    let by_kind = |count: fn(&LedgerSnapshot, Kind) -> usize| -> Map<String, Value> {
        let all = |kind| -> usize { ledgers.iter().map(|ledger| count(ledger, kind)).sum() };
        Kind::ALL
            .into_iter()
            .map(|kind| (kind, all(kind)))
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| (kind.name().to_owned(), json!(count)))
            .collect()
    };
    json!({
        "by_kind": by_kind(LedgerSnapshot::of),
        "waiting": by_kind(|ledger, kind| ledger.waiting[kind.index()]),
    })
}

fn nodes(route: &Route, now: Option<&RouteSample>) -> Vec<Value> {
    let snapshot = route.deployment.snapshot();
    let members = snapshot.topology.members.iter().zip(&snapshot.nodes);
    members
        .map(|(member, node)| {
            let sample = now.and_then(|now| {
                let mut nodes = now.nodes.iter();
                nodes.find(|sample| *sample.node == *member.address)
            });
            let vitals = node.limits().vitals;
            json!({
                "node": member.address,
                "role": member.role.label(),
                "up": node.is_ready(),
                "why": node.last_error().map(|error| error.to_string()),
                "connected_clients": vitals.clients,
                "maxclients": vitals.clients_max,
                "p50_us": sample.and_then(|sample| sample.p50_us),
                "p99_us": sample.and_then(|sample| sample.p99_us),
            })
        })
        .collect()
}

/// What was refused and which errors clients read since the start, by reason; the page
/// tells from two answers what is going on now.
fn why(proxy: &Proxy, route: usize) -> Value {
    let metrics = &proxy.metrics;
    json!({
        "refused": metrics.by_reason(route, |m| &m.clients_refused),
        "shed": metrics.by_reason(route, |m| &m.shed),
        "errors": metrics.by_reason(route, |m| &m.errors),
    })
}

/// One list for each curve: short names, since there are thousands of numbers.
fn history_json(history: &[Sample], route: usize) -> Value {
    let curve = |value: &dyn Fn(&Sample, &RouteSample) -> Value| -> Vec<Value> {
        history
            .iter()
            .map(|sample| {
                let route = sample.routes.get(route);
                route.map_or(Value::Null, |route| value(sample, route))
            })
            .collect()
    };
    let rate = |count: fn(&RouteSample) -> u64| {
        curve(&|sample, route| {
            let rate = RouteSample::per_second(count(route), sample.over);
            json!((rate * 10.0).round() / 10.0)
        })
    };
    let slowest = |time: fn(&crate::metrics::NodeSample) -> Option<u32>| {
        curve(&|_, route| json!(route.nodes.iter().filter_map(time).max()))
    };
    json!({
        "commands": rate(|route| route.commands),
        "refused": rate(|route| route.shed + route.refused),
        "errors": rate(|route| route.errors),
        "in_flight": curve(&|_, route| json!(route.in_flight)),
        "waiting": curve(&|_, route| json!(route.waiting)),
        "clients": curve(&|_, route| json!(route.clients)),
        "connections": curve(&|_, route| json!(route.connections)),
        "p50": slowest(|node| node.p50_us),
        "p99": slowest(|node| node.p99_us),
    })
}

fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}
