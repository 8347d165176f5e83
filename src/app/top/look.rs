//! What one answer of `/top.json` says, and what two of them say together.

use serde_json::Value;

/// How a Weir was at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    /// Its version.
    pub version: String,
    /// When, as it is told: UTC.
    pub at: String,
    /// The same in milliseconds.
    pub at_ms: u64,
    /// For how long it has been running, in seconds.
    pub up_seconds: u64,
    /// Its routes.
    pub routes: Vec<RouteLook>,
    /// Nodes of all routes.
    pub nodes: Vec<NodeLook>,
    /// Those who hold the most connections, and of whom the most were refused.
    pub identities: Vec<IdentityLook>,
    /// Keys that most commands name.
    pub hot_keys: Vec<KeyLook>,
    /// What happened, newest first.
    pub events: Vec<EventLook>,
    /// What is wrong: how much it matters, and what it is.
    pub findings: Vec<(String, String)>,
}

/// One route; rates are per second.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // As /top.json says.
pub struct RouteLook {
    pub route: String,
    pub clients: u64,
    pub clients_max: u64,
    pub connections: u64,
    pub budget: u64,
    pub in_flight: u64,
    pub waiting: u64,
    pub commands: f64,
    pub refused: f64,
    pub shed: f64,
    pub errors: f64,
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // As /top.json says.
pub struct NodeLook {
    pub route: String,
    pub node: String,
    pub role: String,
    pub up: bool,
    pub why: String,
    pub breaker: String,
    pub connections: u64,
    pub budget: u64,
    pub p50_us: Option<u64>,
    pub p99_us: Option<u64>,
}

/// One who holds connections.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IdentityLook {
    /// The route.
    pub route: String,
    /// The rule that it is counted by.
    pub limit: String,
    /// An address, user or name.
    pub identity: String,
    /// Connections now.
    pub clients: u64,
    /// How many there may be; 0 for no ceiling.
    pub clients_max: u64,
    /// How many more than a minute, ten minutes and an hour ago.
    pub grown: [i64; 3],
    /// How long half of its connections have been idle, in seconds.
    pub idle: Option<u64>,
    /// Connections that it made, ever.
    pub admitted: u64,
    /// Connections that it was refused, ever.
    pub refused: u64,
    /// Commands of its that were refused, ever, if that is told.
    pub shed: Option<u64>,
    /// The last three as rates, per second, once there are two looks.
    pub rates: [Option<f64>; 3],
}

/// One hot key.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // As /top.json says.
pub struct KeyLook {
    pub route: String,
    pub key: String,
    pub command: String,
    pub commands: f64,
    pub share: f64,
    pub bytes: f64,
}

/// One event.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // As /events.json says.
pub struct EventLook {
    pub at: String,
    pub severity: String,
    pub what: String,
}

impl Look {
    /// From the answer; `None` if it is not one. `before` is an earlier look.
    pub fn of(answer: &[u8], before: Option<&Look>) -> Option<Look> {
        let answer: Value = serde_json::from_slice(answer).ok()?;
        let all = |name: &str| answer[name].as_array().map(Vec::as_slice);
        let mut look = Look {
            version: text(&answer["version"]),
            at: text(&answer["at"]),
            at_ms: answer["at_ms"].as_u64()?,
            up_seconds: number(&answer["up_seconds"]),
            routes: all("routes")?.iter().map(route).collect(),
            nodes: all("nodes")?.iter().map(node).collect(),
            identities: all("identities")?.iter().map(identity).collect(),
            hot_keys: all("hot_keys")?.iter().map(key).collect(),
            events: all("events")?.iter().map(event).collect(),
            findings: all("findings")?.iter().map(finding).collect(),
        };
        if let Some(before) = before {
            look.compare(before);
        }
        Some(look)
    }

    fn compare(&mut self, before: &Look) {
        let seconds = self.at_ms.saturating_sub(before.at_ms) as f64 / 1000.0;
        if seconds <= 0.0 || self.up_seconds < before.up_seconds {
            // The same moment, or another process.
            return;
        }
        for own in &mut self.identities {
            let same = |it: &&IdentityLook| {
                (&it.route, &it.limit, &it.identity) == (&own.route, &own.limit, &own.identity)
            };
            let Some(known) = before.identities.iter().find(same) else {
                continue;
            };
            let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
            let shed = own.shed.zip(known.shed);
            own.rates = [
                Some(rate(own.admitted, known.admitted)),
                Some(rate(own.refused, known.refused)),
                shed.map(|(now, then)| rate(now, then)),
            ];
        }
    }
}

fn route(of: &Value) -> RouteLook {
    let rate = |name: &str| of[name].as_f64().unwrap_or(0.0);
    RouteLook {
        route: text(&of["route"]),
        clients: number(&of["clients"]),
        clients_max: number(&of["clients_max"]),
        connections: number(&of["connections"]),
        budget: number(&of["budget"]),
        in_flight: number(&of["in_flight"]),
        waiting: number(&of["waiting"]),
        commands: rate("commands_per_second"),
        refused: rate("refused_per_second"),
        shed: rate("shed_per_second"),
        errors: rate("errors_per_second"),
    }
}

fn node(of: &Value) -> NodeLook {
    NodeLook {
        route: text(&of["route"]),
        node: text(&of["node"]),
        role: text(&of["role"]),
        up: of["up"] == true,
        why: text(&of["why"]),
        breaker: text(&of["breaker"]),
        connections: number(&of["connections"]),
        budget: number(&of["budget"]),
        p50_us: of["p50_us"].as_u64(),
        p99_us: of["p99_us"].as_u64(),
    }
}

fn identity(of: &Value) -> IdentityLook {
    let grown = |name: &str| of[name].as_i64().unwrap_or(0);
    IdentityLook {
        route: text(&of["route"]),
        limit: text(&of["limit"]),
        identity: text(&of["identity"]),
        clients: number(&of["clients"]),
        clients_max: number(&of["clients_max"]),
        grown: [grown("grown_1m"), grown("grown_10m"), grown("grown_1h")],
        idle: of["idle_median"].as_u64(),
        admitted: number(&of["admitted"]),
        refused: number(&of["refused"]),
        shed: of["shed"].as_u64(),
        rates: [None; 3],
    }
}

fn key(of: &Value) -> KeyLook {
    let rate = |name: &str| of[name].as_f64().unwrap_or(0.0);
    KeyLook {
        route: text(&of["route"]),
        key: text(&of["key"]),
        command: text(&of["command"]),
        commands: rate("commands_per_second"),
        share: rate("commands_share"),
        bytes: rate("bytes_per_second"),
    }
}

fn event(of: &Value) -> EventLook {
    let mut what = format!("{}: {}", text(&of["what"]), text(&of["subject"]));
    let times = number(&of["times"]);
    if times > 1 {
        what += &format!(" ({times} times)");
    }
    let route = text(&of["route"]);
    if !route.is_empty() {
        what += &format!("  route {route}");
    }
    for (name, fact) in of["facts"].as_object().into_iter().flatten() {
        what += &format!("  {} {}", clean(name), text(fact));
    }
    EventLook {
        at: text(&of["at"]),
        severity: text(&of["severity"]),
        what,
    }
}

fn finding(of: &Value) -> (String, String) {
    let (route, what) = (text(&of["route"]), text(&of["what"]));
    (text(&of["severity"]), format!("{what} (route {route})"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => clean(text),
        other => clean(&other.to_string()),
    }
}

/// What a client calls itself must not steer the operator's terminal.
fn clean(text: &str) -> String {
    let shown = text.chars();
    shown
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
pub mod tests {
    use serde_json::json;

    use super::*;

    /// An answer with two identities, as of so many seconds after the first.
    pub fn answer(second: u64) -> Vec<u8> {
        let who = |identity: &str, clients: u64, admitted: u64| {
            json!({
                "route": "main", "limit": "address", "identity": identity,
                "clients": clients, "clients_max": 200,
                "grown_1m": 1, "grown_10m": -10, "grown_1h": 55,
                "idle_median": 4000, "admitted": admitted, "refused": 0, "shed": 7 * second,
            })
        };
        let answer = json!({
            "version": "1.2.3", "at": "2026-01-02T03:04:05.678Z", "at_ms": 1_000_000 + second * 1000,
            "up_seconds": 7265 + second,
            "routes": [{
                "route": "main", "clients": 123, "clients_max": 10_000, "connections": 6, "budget": 64,
                "in_flight": 4, "waiting": 3, "commands_per_second": 12_345.0,
                "refused_per_second": 2.0, "shed_per_second": 0.5, "errors_per_second": 0.0,
            }],
            "nodes": [
                {"route": "main", "node": "10.0.0.9:6379", "role": "primary", "up": true,
                 "breaker": "healthy", "connections": 6, "budget": 64, "p50_us": 180, "p99_us": 2_400},
                {"route": "main", "node": "10.0.0.10:6379", "role": "replica", "up": false,
                 "why": "connection refused", "breaker": "tripped", "connections": 0, "budget": 64,
                 "p50_us": null, "p99_us": null},
            ],
            "identities": [
                who("10.1.0.1", 100, 100 + 50 * second), who("10.1.0.2", 23, 9_000),
                who("al\u{1b}[2Jice", 0, 0),
            ],
            "hot_keys": [{"route": "main", "key": "cart:7", "command": "get",
                "commands_per_second": 5000.0, "commands_share": 0.4, "bytes_per_second": 1.5e6}],
            "events": [{"at": "2026-01-02T03:00:00.000Z", "severity": "critical",
                "what": "node went down", "subject": "10.0.0.10:6379", "route": "main", "times": 3,
                "facts": {"why": "connection refused"}}],
            "findings": [{"severity": "warning", "route": "main", "what": "a replica is lost"}],
        });
        answer.to_string().into_bytes()
    }

    #[test]
    fn two_looks_tell_rates() {
        let first = Look::of(&answer(0), None).expect("an answer");
        assert_eq!(first.identities[0].rates, [None; 3]);
        let second = Look::of(&answer(2), Some(&first)).expect("an answer");
        assert_eq!(second.identities[0].rates, [50.0, 0.0, 7.0].map(Some));
        assert_eq!(second.identities[1].rates, [0.0, 0.0, 7.0].map(Some));
        let another = Look::of(&answer(0), Some(&second)).expect("an answer");
        assert_eq!(another.identities[0].rates, [None; 3], "it was restarted");
    }

    #[test]
    fn what_is_no_answer_is_none_and_control_characters_do_nothing() {
        for other in [&b""[..], b"{}", b"[]", b"{\"at_ms\": 1}", b"nonsense"] {
            assert_eq!(Look::of(other, None), None);
        }
        let look = Look::of(&answer(0), None).expect("an answer");
        assert_eq!(look.identities[2].identity, "al [2Jice");
        assert!(!format!("{look:?}").contains("\\u{1b}"));
    }
}
