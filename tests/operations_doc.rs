//! What docs/OPERATIONS.md tells operators is what the binary does. That it has every
//! error is tested where the errors are worded.

mod support;

use std::collections::BTreeSet;

use support::{RedisServer, WeirProcess};

const PAGE: &str = include_str!("../docs/OPERATIONS.md");

/// Every name in backquotes on the page that begins like a metric.
fn documented() -> BTreeSet<&'static str> {
    PAGE.split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| name.starts_with("weir_") || name.starts_with("process_"))
        .collect()
}

#[test]
fn the_page_names_every_metric_and_no_other() {
    let redis = RedisServer::start();
    let weir = WeirProcess::in_front_of(&redis);
    let metrics = weir.metrics();
    let exposed: BTreeSet<&str> = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(exposed, documented());
}

#[test]
fn health_and_readiness_are_as_the_page_says() {
    let mut redis = RedisServer::start();
    let weir = WeirProcess::in_front_of(&redis);
    assert_eq!(weir.get("/healthz"), (200, "ok\n".to_owned()));
    support::wait_until("Redis is known", || weir.get("/readyz").0 == 200);
    assert_eq!(weir.get("/readyz").1, "ready\n");
    redis.kill();
    weir.client().command(&["PING"]);
    support::wait_until("the loss is noticed", || weir.get("/readyz").0 == 503);
    assert!(
        weir.get("/readyz").1.contains("route main: "),
        "names the route"
    );
    assert_eq!(weir.get("/healthz").0, 200);
    redis.restart();
    support::wait_until("Redis is back", || weir.get("/readyz").0 == 200);
}

#[test]
fn a_terminated_weir_ends_by_itself_with_success() {
    let redis = RedisServer::start();
    let mut weir = WeirProcess::in_front_of(&redis);
    let mut client = weir.client();
    client.expect_command(&["SET", "key", "value"], "+OK\r\n");
    assert!(weir.terminate().success());
    client.expect_closed();
    assert!(weir.log().contains("stopping: "), "{}", weir.log());
}
