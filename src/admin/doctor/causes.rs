//! Which trouble it is.

use std::time::Duration;

use super::evidence::{Evidence, IdentityEvidence, NodeEvidence, Rates};
use crate::metrics::Severity;

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// No node takes writes.
    PrimaryLost,
    /// A replica cannot be used.
    ReplicaLost,
    /// Redis is nearly as full of clients as it takes, by others than Weir.
    RedisFull,
    /// Redis's memory is nearly used up, or will be.
    MemoryFilling,
    /// Redis is slower than usual, for whatever command.
    SlowNode,
    /// One kind of command takes Redis's time.
    SlowCommand,
    /// Workers that block take the connections set aside for them.
    BlockedWorkers,
    /// One identity takes more and more connections and does not use them.
    Leak,
    /// Everybody asks for more than usual.
    TrafficSpike,
    /// Clients are as many as there may be, and behave as always.
    LimitTooLow,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Cause; 10] = [
        Cause::PrimaryLost,
        Cause::ReplicaLost,
        Cause::RedisFull,
        Cause::MemoryFilling,
        Cause::SlowNode,
        Cause::SlowCommand,
        Cause::BlockedWorkers,
        Cause::Leak,
        Cause::TrafficSpike,
        Cause::LimitTooLow,
    ];

    /// Its stable name.
    pub const fn label(self) -> &'static str {
        match self {
            Cause::PrimaryLost => "primary_lost",
            Cause::ReplicaLost => "replica_lost",
            Cause::RedisFull => "redis_full",
            Cause::MemoryFilling => "memory_filling",
            Cause::SlowNode => "slow_node",
            Cause::SlowCommand => "slow_command",
            Cause::BlockedWorkers => "blocked_workers",
            Cause::Leak => "leak",
            Cause::TrafficSpike => "traffic_spike",
            Cause::LimitTooLow => "limit_too_low",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The route.
    pub route: String,
    /// What it is.
    pub cause: Cause,
    /// How much it matters.
    pub severity: Severity,
    /// In a sentence.
    pub what: String,
    /// What shows it.
    pub evidence: Vec<String>,
    /// What to do: commands to type, settings to turn.
    pub advice: Vec<String>,
}

/// Near a limit: where Weir itself begins to warn.
const NEAR: f64 = 0.8;

/// At a limit.
const AT: f64 = 0.95;

/// So much more than usual is a spike, and so much slower is slow. Twice is a busy hour.
const MUCH: f64 = 3.0;

/// Below this no Redis is called slow, in microseconds: a lunch-time p99 of 3 ms after a
/// night's of 0.5 ms is no trouble.
const SLOW_US: f64 = 20_000.0;

/// A command that takes this part of Redis's time is to be looked at.
const GREEDY: f64 = 0.5;

/// A key that so many of all commands name is hot.
const HOT: f64 = 0.25;

/// Below this no key is heavy, in bytes of replies a second: a tenth of what one Redis writes.
const HEAVY: f64 = 20e6;

/// Memory that lasts no longer than this: a weekend.
const SOON: Duration = Duration::from_secs(48 * 3600);

/// An identity with fewer connections does not leak, whatever it does.
const LEAK_MIN: u64 = 20;

/// What is wrong with a route, the worst first; empty when nothing is.
pub fn diagnose(evidence: &Evidence) -> Vec<Finding> {
    let mut findings: Vec<Finding> = evidence
        .nodes
        .iter()
        .filter_map(|n| node_lost(evidence, n))
        .collect();
    findings.extend(
        evidence
            .nodes
            .iter()
            .filter_map(|n| redis_full(evidence, n)),
    );
    findings.extend(
        evidence
            .nodes
            .iter()
            .filter_map(|n| memory_filling(evidence, n)),
    );
    findings.extend(slow(evidence));
    findings.extend(blocked_workers(evidence));
    findings.extend(crowd(evidence));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

fn node_lost(evidence: &Evidence, node: &NodeEvidence) -> Option<Finding> {
    if node.up {
        return None;
    }
    let shown = vec![format!("{} says: {}", node.node, node.why)];
    Some(if node.is_primary {
        Finding {
            cause: Cause::PrimaryLost,
            severity: Severity::Critical,
            what: format!("the primary {} cannot be used; writes fail", node.node),
            evidence: shown,
            advice: vec![
                format!("redis-cli -h {} -p {} PING, from Weir's machine", host(&node.node), port(&node.node)),
                "is it started, loading its data, or out of reach? its own log says".into(),
                "Weir tries again by itself and serves as soon as it answers, or another node is promoted".into(),
            ],
            route: evidence.route.clone(),
        }
    } else {
        Finding {
            cause: Cause::ReplicaLost,
            severity: Severity::Warning,
            what: format!(
                "the replica {} cannot be used; reads go elsewhere",
                node.node
            ),
            evidence: shown,
            advice: vec![format!(
                "redis-cli -h {} -p {} PING, from Weir's machine",
                host(&node.node),
                port(&node.node)
            )],
            route: evidence.route.clone(),
        }
    })
}

fn redis_full(evidence: &Evidence, node: &NodeEvidence) -> Option<Finding> {
    let (clients, max) = (node.clients?, node.clients_max?);
    let others = clients.saturating_sub(node.own);
    if share(clients, max) < NEAR || others <= node.own {
        return None;
    }
    Some(Finding {
        route: evidence.route.clone(),
        cause: Cause::RedisFull,
        severity: if share(clients, max) >= AT {
            Severity::Critical
        } else {
            Severity::Warning
        },
        what: format!(
            "Redis {} has {clients} of the {max} clients it takes, most of them not Weir's",
            node.node
        ),
        evidence: vec![format!("{} are Weir's, {others} go around it", node.own)],
        advice: vec![
            format!(
                "redis-cli -h {} -p {} CLIENT LIST: those not named weir:... go around Weir; let them go through it",
                host(&node.node),
                port(&node.node)
            ),
            "Weir gives connections back so that Redis stays below health.maxclients_share".into(),
        ],
    })
}

fn memory_filling(evidence: &Evidence, node: &NodeEvidence) -> Option<Finding> {
    if node.makes_room {
        return None;
    }
    let used = node.memory_share.filter(|used| *used >= 0.9);
    let soon = node.memory_lasts.filter(|left| *left <= SOON);
    if used.is_none() && soon.is_none() {
        return None;
    }
    let mut shown = Vec::new();
    if let Some(used) = node.memory_share {
        shown.push(format!("{:.0}% of maxmemory is in use", used * 100.0));
    }
    if let Some(left) = node.memory_lasts {
        shown.push(format!("as it grows, it is full in {}", words(left)));
    }
    let is_near = used.is_some_and(|used| used >= AT)
        || soon.is_some_and(|left| left < Duration::from_secs(3600));
    Some(Finding {
        route: evidence.route.clone(),
        cause: Cause::MemoryFilling,
        severity: if is_near {
            Severity::Critical
        } else {
            Severity::Warning
        },
        what: format!("the memory of Redis {} is filling up", node.node),
        evidence: shown,
        advice: vec![
            format!(
                "redis-cli -h {} -p {} --bigkeys, and INFO keyspace: how many keys never expire?",
                host(&node.node),
                port(&node.node)
            ),
            "a cache: set maxmemory-policy; else raise maxmemory before Redis refuses every write"
                .into(),
            "health.refuse_writes_above_memory keeps the rest for those who read and delete".into(),
        ],
    })
}

/// Redis is slow: by itself, or by what one command makes it do.
fn slow(evidence: &Evidence) -> Option<Finding> {
    let usual = evidence.usual?;
    let now = evidence.now.p99_us;
    if now < SLOW_US || now < usual.p99_us * MUCH {
        return None;
    }
    let mut shown = vec![format!(
        "99% of commands took up to {} at Redis lately, usually {}",
        micros(now),
        micros(usual.p99_us)
    )];
    let (hot, remedy) = hot_key(evidence);
    shown.extend(hot);
    if let Some(command) = evidence
        .slow
        .first()
        .filter(|command| command.share >= GREEDY)
    {
        shown.push(format!(
            "{} took {:.0}% of Redis's time, {} each",
            command.name.to_uppercase(),
            command.share * 100.0,
            micros(command.each.as_micros() as f64)
        ));
        return Some(Finding {
            route: evidence.route.clone(),
            cause: Cause::SlowCommand,
            severity: Severity::Critical,
            what: format!(
                "{} keeps Redis busy; everybody else waits behind it",
                command.name.to_uppercase()
            ),
            evidence: shown,
            advice: vec![
                "SLOWLOG GET, through Weir: whose, and on which keys?".into(),
                format!(
                    "[route.{}.access.NAME] refuse = [\"{}\"] stops it at once, for those whom the rule names",
                    evidence.route, command.name
                ),
            ],
        });
    }
    Some(Finding {
        route: evidence.route.clone(),
        cause: Cause::SlowNode,
        severity: Severity::Critical,
        what: "Redis is slower than usual, for every command".into(),
        evidence: shown,
        advice: [
            "INFO persistence, through Weir: is it forking, rewriting its AOF, waiting for its disk?".into(),
            "INFO cpu, and the machine: who else uses its processor or memory?".into(),
        ]
        .into_iter()
        .chain(remedy)
        .collect(),
    })
}

/// A key that much of the work is about: how it shows, and what can be done.
fn hot_key(evidence: &Evidence) -> (Vec<String>, Vec<String>) {
    let (mut shown, mut remedy) = (Vec::new(), Vec::new());
    let hottest = evidence.hottest.as_ref();
    if let Some(key) = hottest.filter(|key| key.commands_share >= HOT) {
        shown.push(format!(
            "{:.0}% of all commands are about the key {}: {:.0} a second, mostly {}",
            key.commands_share * 100.0,
            key.key,
            key.commands,
            key.command.to_uppercase()
        ));
        remedy.push(format!(
            "keep the value of {} in the clients for a moment (client-side caching), or spread it \
             over several keys; WEIR HOTKEYS has more",
            key.key
        ));
    }
    let heaviest = evidence.heaviest.as_ref();
    if let Some(key) = heaviest.filter(|key| key.bytes_share >= GREEDY && key.bytes >= HEAVY) {
        shown.push(format!(
            "{:.0}% of all bytes of replies are those of the key {}: {:.0} MB a second, mostly {}",
            key.bytes_share * 100.0,
            key.key,
            key.bytes / 1e6,
            key.command.to_uppercase()
        ));
        remedy.push(format!(
            "ask for less of {} (a field, a range), or split it; WEIR HOTKEYS has more",
            key.key
        ));
    }
    (shown, remedy)
}

fn blocked_workers(evidence: &Evidence) -> Option<Finding> {
    let held = share(evidence.blocking, evidence.blocking_max);
    let waiting = evidence.blocking_waiting;
    // With a line behind them they need not hold all at this very moment.
    let enough = if waiting > 0 { NEAR } else { AT };
    if held < enough {
        return None;
    }
    Some(Finding {
        route: evidence.route.clone(),
        cause: Cause::BlockedWorkers,
        severity: if waiting > 0 {
            Severity::Critical
        } else {
            Severity::Warning
        },
        what: "workers that block hold the connections set aside for them".into(),
        evidence: vec![format!(
            "{} of backend.max_blocking = {} are held by BLPOP, XREAD and their like; {waiting} more wait",
            evidence.blocking, evidence.blocking_max
        )],
        advice: vec![
            "CLIENT LIST, through Weir: those with the flag b, and the command that they wait in"
                .into(),
            format!(
                "raise backend.max_blocking of route {}, and max_connections with it if Redis has room",
                evidence.route
            ),
            "or let workers wait for a shorter time, so that they take turns".into(),
        ],
    })
}

/// Clients are near their limit, or turned away: why?
fn crowd(evidence: &Evidence) -> Option<Finding> {
    let full = share(evidence.clients, evidence.clients_max);
    let leaker = evidence
        .identities
        .iter()
        .find(|identity| leaks(identity, evidence));
    if let Some(leaker) = leaker {
        return Some(leak(evidence, leaker, full));
    }
    let spike = evidence
        .usual
        .filter(|usual| is_spike(&evidence.now, usual));
    if let Some(usual) = spike {
        return Some(traffic_spike(evidence, &usual, full));
    }
    (full >= AT).then(|| limit_too_low(evidence, full))
}

/// It has grown to what it is and goes on growing, for longer than a pool takes to fill
/// after a start; most of its connections do nothing, and most of the growth is its own.
fn leaks(identity: &IdentityEvidence, evidence: &Evidence) -> bool {
    let goes_on = identity.grown_1m > 0 && identity.grown_10m > identity.grown_1m;
    let grows = goes_on && identity.grown_1h >= (identity.clients / 2) as i64;
    let growth: i64 = evidence
        .identities
        .iter()
        .map(|it| it.grown_1h.max(0))
        .sum();
    let is_alone = identity.grown_1h * 2 > growth;
    let is_idle = identity
        .idle_median
        .is_none_or(|idle| idle >= Duration::from_secs(30));
    identity.clients >= LEAK_MIN && grows && is_alone && is_idle
}

fn is_spike(now: &Rates, usual: &Rates) -> bool {
    let far_above = |now: f64, usual: f64, least: f64| now >= least && now >= usual * MUCH;
    far_above(now.commands, usual.commands, 100.0) || far_above(now.accepted, usual.accepted, 10.0)
}

fn leak(evidence: &Evidence, leaker: &IdentityEvidence, full: f64) -> Finding {
    let mut shown = vec![
        format!(
            "{} holds {} connections, {:+} in an hour, {:+} in ten minutes",
            leaker.who, leaker.clients, leaker.grown_1h, leaker.grown_10m
        ),
        crowd_words(evidence),
    ];
    if let (Some(median), Some(oldest)) = (leaker.idle_median, leaker.idle_oldest) {
        shown.push(format!(
            "half of its connections have been idle for {}, the oldest for {}",
            words(median),
            words(oldest)
        ));
    }
    Finding {
        route: evidence.route.clone(),
        cause: Cause::Leak,
        severity: if full >= NEAR {
            Severity::Critical
        } else {
            Severity::Warning
        },
        what: format!(
            "{} takes more and more connections and does not use them",
            leaker.who
        ),
        evidence: shown,
        advice: vec![
            format!(
                "CLIENT LIST, through Weir: what do the connections of {} have in common (lib-name, name, cmd)?",
                leaker.who
            ),
            format!(
                "[route.{}.limits.NAME] with its address or user, and max_clients, holds it to a ceiling at once",
                evidence.route
            ),
            "a shorter clients.idle_timeout closes what it has left behind".into(),
            "then find where it opens a client and does not close it".into(),
        ],
    }
}

fn traffic_spike(evidence: &Evidence, usual: &Rates, full: f64) -> Finding {
    let now = &evidence.now;
    Finding {
        route: evidence.route.clone(),
        cause: Cause::TrafficSpike,
        severity: if full >= AT || now.shed > 0.0 || now.refused > 0.0 {
            Severity::Critical
        } else {
            Severity::Warning
        },
        what: "there is far more traffic than usual, from everybody".into(),
        evidence: vec![
            format!(
                "{:.0} commands a second, usually {:.0}",
                now.commands, usual.commands
            ),
            format!(
                "{:.0} new clients a second, usually {:.0}",
                now.accepted, usual.accepted
            ),
            crowd_words(evidence),
            format!(
                "{:.0} clients and {:.0} commands a second are refused",
                now.refused, now.shed
            ),
        ],
        advice: vec![
            "what Weir accepts is served at full speed; what it refuses did not run".into(),
            format!(
                "[route.{}.limits.NAME] with guaranteed keeps places for those who matter most",
                evidence.route
            ),
            "raise clients.max_clients only if Redis has time to spare: look at INFO cpu".into(),
        ],
    }
}

fn limit_too_low(evidence: &Evidence, full: f64) -> Finding {
    let mut shown = vec![crowd_words(evidence)];
    if let Some(usual) = evidence.usual {
        shown.push(format!(
            "{:.0} commands a second, usually {:.0}: traffic is as always",
            evidence.now.commands, usual.commands
        ));
    }
    if let Some(first) = evidence.identities.first() {
        shown.push(format!(
            "nobody stands out: the most, {}, are {}'s",
            first.clients, first.who
        ));
    }
    let twice = evidence.clients_max.saturating_mul(2);
    Finding {
        route: evidence.route.clone(),
        cause: Cause::LimitTooLow,
        severity: if full >= 1.0 || evidence.now.refused > 0.0 {
            Severity::Critical
        } else {
            Severity::Warning
        },
        what: "there are as many clients as there may be, and they behave as always".into(),
        evidence: shown,
        advice: vec![
            format!(
                "raise clients.max_clients of route {} to {twice} and reload: an idle client costs Weir less than 1 KiB, and Redis nothing",
                evidence.route
            ),
            "process.max_clients and the limit of file descriptors (LimitNOFILE) have to allow it"
                .into(),
        ],
    }
}

fn crowd_words(evidence: &Evidence) -> String {
    let before = evidence.clients_before.map_or(String::new(), |before| {
        format!(", {before} ten minutes ago")
    });
    format!(
        "{} of {} clients{before}",
        evidence.clients, evidence.clients_max
    )
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

fn port(address: &str) -> &str {
    address.rsplit_once(':').map_or("6379", |(_, port)| port)
}

fn micros(micros: f64) -> String {
    match micros {
        us if us < 1_000.0 => format!("{us:.0} µs"),
        us if us < 1_000_000.0 => format!("{:.1} ms", us / 1_000.0),
        us => format!("{:.1} s", us / 1_000_000.0),
    }
}

/// A time that people say.
fn words(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7_200 => format!("{} min", s / 60),
        s @ 7_200..172_800 => format!("{} h", s / 3_600),
        s => format!("{} days", s / 86_400),
    }
}

#[cfg(test)]
#[path = "causes_tests.rs"]
mod tests;
