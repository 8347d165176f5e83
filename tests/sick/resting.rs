//! Redis answers, but too few commands in time or all of them late: it gets nothing for
//! a while, and work flows again when it does better.

use std::time::Duration;

use super::support::{Forwarder, RawClient, RedisServer, WeirProcess, encode, wait_until};
use super::{error, weir};

/// Who asks at once, so that a round or two are enough commands to judge by.
const CLIENTS: usize = 16;

fn clients(weir: &WeirProcess) -> Vec<RawClient> {
    let mut clients: Vec<RawClient> = (0..CLIENTS).map(|_| weir.client()).collect();
    for client in &mut clients {
        client.expect_command(&["PING"], "+PONG\r\n");
    }
    clients
}

/// One command of everybody at the same time, and what each of them is answered.
fn round(clients: &mut [RawClient]) -> Vec<Vec<u8>> {
    for client in &mut *clients {
        client.send(encode(&["GET", "k"]));
    }
    clients.iter_mut().map(RawClient::read_reply).collect()
}

/// The node has rested for this reason, and it says why to whoever asks meanwhile.
fn is_refused_for(replies: &[Vec<u8>], setting: &str) -> bool {
    replies.iter().filter_map(|reply| error(reply)).any(|text| {
        let is_refusal = text.starts_with("MASTERDOWN weir: ") && text.contains(setting);
        assert!(
            !is_refusal || text.ends_with("command not executed"),
            "{text}"
        );
        is_refusal
    })
}

fn wait_until_all_is_well(weir: &mut WeirProcess, clients: &mut [RawClient]) {
    wait_until("everybody is served again", || {
        let replies = round(clients);
        replies.iter().all(|reply| reply == b"$1\r\nv\r\n")
    });
    weir.wait_for_metric("weir_node_state", &["state=\"healthy\""], 1.0);
    weir.wait_for_log("node is back");
}

#[test]
fn a_redis_that_answers_too_few_commands_in_time_rests_and_is_used_again() {
    let mut redis = RedisServer::start();
    // Neither silence nor a connection that cannot be opened is what trips it here.
    let mut weir = weir(
        &redis,
        "[route.main.timeouts]\nrequest = \"100ms\"\nconnect = \"100ms\"\n\
         [route.main.health]\nsilence_max = \"1h\"\nerrors_max = 0.3\n",
    );
    redis.command(&["SET", "k", "v"]);
    let mut clients = clients(&weir);
    wait_until(
        "it is told that too many commands met their deadline",
        || {
            // Each pause is over as soon as everybody has been told so.
            redis.stop();
            let replies = round(&mut clients);
            redis.cont();
            is_refused_for(&replies, "health.errors_max")
        },
    );
    assert!(weir.metric("weir_node_trips_total", &["why=\"errors\""]) >= 1.0);
    assert_eq!(
        weir.metric("weir_node_trips_total", &["why=\"silent\""]),
        0.0
    );
    weir.wait_for_log("too many commands met their deadline");
    wait_until_all_is_well(&mut weir, &mut clients);
    let events = weir.get("/events.json").1;
    assert!(events.contains("health.errors_max"), "{events}");
}

#[test]
fn a_redis_whose_replies_take_too_long_rests_where_that_is_asked_for() {
    let redis = RedisServer::start();
    redis.command(&["SET", "k", "v"]);
    let network = Forwarder::before(redis.address());
    let config = |latency_max: &str| {
        format!(
            "[admin]\nlisten = \"{{admin}}\"\n[route.main]\nlisten = \"{{listen}}\"\n\
             [route.main.backend]\naddress = \"{}\"\nreconnect_min = \"5ms\"\n\
             reconnect_max = \"50ms\"\n[route.main.timeouts]\nconnect = \"10s\"\n\
             [route.main.health]\n{latency_max}",
            network.address()
        )
    };
    let mut weir = WeirProcess::with_config(&redis, &config("latency_max = \"20ms\"\n"));
    let patient = WeirProcess::with_config(&redis, &config(""));
    let mut asking = clients(&weir);
    let mut others = clients(&patient);
    network.delay(Duration::from_millis(50));
    wait_until("it is told that replies take too long", || {
        let late = round(&mut others);
        assert!(late.iter().all(|reply| reply == b"$1\r\nv\r\n"), "{late:?}");
        is_refused_for(&round(&mut asking), "health.latency_max")
    });
    assert!(weir.metric("weir_node_trips_total", &["why=\"slow\""]) >= 1.0);
    assert_eq!(
        weir.metric("weir_node_trips_total", &["why=\"errors\""]),
        0.0
    );
    // Whoever does not ask for that is served however long it takes.
    assert_eq!(patient.metric("weir_node_trips_total", &[]), 0.0);
    network.delay(Duration::ZERO);
    wait_until_all_is_well(&mut weir, &mut asking);
    let events = weir.get("/events.json").1;
    assert!(events.contains("health.latency_max"), "{events}");
}
