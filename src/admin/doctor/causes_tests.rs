//! Each trouble is told from the others by what they do not share.

use super::*;
use crate::admin::doctor::{KeyEvidence, SlowCommand};

/// A quiet afternoon.
fn well() -> Evidence {
    let usual = Rates {
        commands: 1_000.0,
        accepted: 1.0,
        p99_us: 800.0,
        ..Rates::default()
    };
    let who = |who: &str, clients| IdentityEvidence {
        who: who.into(),
        clients,
        idle_median: Some(Duration::from_secs(2)),
        idle_oldest: Some(Duration::from_secs(60)),
        ..IdentityEvidence::default()
    };
    Evidence {
        route: "main".into(),
        now: usual,
        usual: Some(usual),
        clients: 300,
        clients_max: 1_000,
        clients_before: Some(300),
        identities: vec![who("10.0.0.1", 150), who("10.0.0.2", 150)],
        blocking_max: 32,
        budget: 64,
        connections: 8,
        nodes: vec![NodeEvidence {
            node: "10.0.0.9:6379".into(),
            is_primary: true,
            up: true,
            clients: Some(20),
            own: 8,
            clients_max: Some(10_000),
            ..NodeEvidence::default()
        }],
        ..Evidence::default()
    }
}

fn causes(evidence: &Evidence) -> Vec<Cause> {
    diagnose(evidence)
        .iter()
        .map(|finding| finding.cause)
        .collect()
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    assert_eq!(causes(&well()), []);
    // Nor before there is anything to compare with.
    assert_eq!(
        causes(&Evidence {
            usual: None,
            ..well()
        }),
        []
    );
}

#[test]
fn a_leak_is_one_that_grows_and_does_nothing() {
    let mut evidence = well();
    evidence.clients = 820;
    evidence.identities.insert(
        0,
        IdentityEvidence {
            who: "10.0.0.7".into(),
            clients: 520,
            grown_1m: 8,
            grown_10m: 80,
            grown_1h: 500,
            idle_median: Some(Duration::from_secs(1_500)),
            idle_oldest: Some(Duration::from_secs(3_500)),
        },
    );
    let findings = diagnose(&evidence);
    assert_eq!(findings[0].cause, Cause::Leak);
    assert_eq!(findings[0].severity, Severity::Critical);
    assert!(findings[0].what.contains("10.0.0.7"), "{findings:?}");
    assert_eq!(findings.len(), 1);
    // A pool that was filled after a start, and stays.
    evidence.identities[0].grown_1m = 0;
    assert_eq!(causes(&evidence), []);
    evidence.identities[0].grown_1m = 8;
    // One that uses what it takes is no leak.
    evidence.identities[0].idle_median = Some(Duration::from_millis(100));
    assert_eq!(causes(&evidence), []);
}

#[test]
fn a_spike_is_everybody_at_once() {
    let mut evidence = well();
    evidence.clients = 1_000;
    evidence.clients_before = Some(300);
    evidence.now.commands = 9_000.0;
    evidence.now.accepted = 60.0;
    evidence.now.refused = 12.0;
    for identity in &mut evidence.identities {
        identity.clients = 500;
        identity.grown_10m = 350;
        identity.grown_1h = 350;
    }
    assert_eq!(causes(&evidence), [Cause::TrafficSpike]);
}

#[test]
fn a_limit_is_too_low_when_all_is_as_always_and_full() {
    let mut evidence = well();
    evidence.clients = 1_000;
    evidence.clients_before = Some(990);
    let findings = diagnose(&evidence);
    assert_eq!(findings[0].cause, Cause::LimitTooLow);
    assert!(findings[0].advice[0].contains("max_clients of route main to 2000"));
}

#[test]
fn blocked_workers_are_told_by_the_line_behind_them() {
    let mut evidence = well();
    evidence.blocking = 32;
    evidence.blocking_waiting = 5;
    assert_eq!(causes(&evidence), [Cause::BlockedWorkers]);
    evidence.blocking_max = 64;
    assert_eq!(causes(&evidence), [], "somebody else's line");
}

#[test]
fn a_slow_redis_is_told_from_a_slow_command() {
    let mut evidence = well();
    evidence.now.p99_us = 250_000.0;
    assert_eq!(causes(&evidence), [Cause::SlowNode]);
    evidence.slow = vec![SlowCommand {
        name: "keys".into(),
        share: 0.8,
        each: Duration::from_millis(90),
    }];
    assert_eq!(causes(&evidence), [Cause::SlowCommand]);
    // Three times as slow as nothing at all is nothing.
    evidence.now.p99_us = 5_000.0;
    assert_eq!(causes(&evidence), []);
}

#[test]
fn a_slow_redis_is_told_with_the_key_that_it_is_asked_for() {
    let mut evidence = well();
    evidence.now.p99_us = 250_000.0;
    let key = KeyEvidence {
        key: "cart:7".into(),
        command: "get".into(),
        commands: 50_000.0,
        commands_share: 0.6,
        bytes: 90e6,
        bytes_share: 0.9,
    };
    evidence.hottest = Some(key.clone());
    evidence.heaviest = Some(key);
    let finding = &diagnose(&evidence)[0];
    assert_eq!(finding.cause, Cause::SlowNode);
    let shown = finding.evidence.join("\n");
    assert!(
        shown.contains("60% of all commands are about the key cart:7: 50000 a second, mostly GET")
    );
    assert!(shown.contains("90 MB a second"), "{shown}");
    assert!(
        finding
            .advice
            .iter()
            .any(|line| line.contains("client-side caching"))
    );
    evidence.hottest.as_mut().expect("set").commands_share = 0.1;
    evidence.heaviest.as_mut().expect("set").bytes = 1e6;
    assert!(!format!("{:?}", diagnose(&evidence)).contains("cart:7"));
}

#[test]
fn a_node_that_is_gone_matters_by_what_it_was() {
    let mut evidence = well();
    evidence.nodes[0].up = false;
    evidence.nodes[0].why = "connection refused".into();
    let findings = diagnose(&evidence);
    assert_eq!(findings[0].cause, Cause::PrimaryLost);
    assert!(findings[0].evidence[0].contains("connection refused"));
    assert!(findings[0].advice[0].contains("-h 10.0.0.9 -p 6379"));
    evidence.nodes[0].is_primary = false;
    assert_eq!(causes(&evidence), [Cause::ReplicaLost]);
}

#[test]
fn memory_is_told_with_the_time_left() {
    let mut evidence = well();
    evidence.nodes[0].memory_share = Some(0.7);
    evidence.nodes[0].memory_lasts = Some(Duration::from_secs(30 * 3600));
    let findings = diagnose(&evidence);
    assert_eq!(
        (findings[0].cause, findings[0].severity),
        (Cause::MemoryFilling, Severity::Warning)
    );
    assert!(findings[0].evidence[1].contains("30 h"), "{findings:?}");
    evidence.nodes[0].memory_lasts = Some(Duration::from_secs(600));
    assert_eq!(diagnose(&evidence)[0].severity, Severity::Critical);
    evidence.nodes[0].memory_lasts = Some(Duration::from_secs(60 * 86_400));
    assert_eq!(causes(&evidence), []);
    evidence.nodes[0].memory_share = Some(1.0);
    assert_eq!(causes(&evidence), [Cause::MemoryFilling]);
    // A cache is full as a rule.
    evidence.nodes[0].makes_room = true;
    assert_eq!(causes(&evidence), []);
}

#[test]
fn a_redis_that_others_fill_is_told_from_one_that_weir_fills() {
    let mut evidence = well();
    evidence.nodes[0].clients = Some(9_800);
    assert_eq!(causes(&evidence), [Cause::RedisFull]);
    evidence.nodes[0].own = 9_700;
    assert_eq!(causes(&evidence), []);
}

#[test]
fn what_clients_feel_comes_first() {
    let mut evidence = well();
    evidence.blocking = 32;
    evidence.nodes[0].up = false;
    let severities: Vec<_> = diagnose(&evidence)
        .iter()
        .map(|finding| finding.severity)
        .collect();
    assert_eq!(severities, [Severity::Critical, Severity::Warning]);
}
