//! An operator's pause holds as much as it may.

use serde_json::Value;

use super::commands::weir;
use super::support::{RawClient, RedisServer, WeirProcess, encode, wait_until};

const FULL: &str = "-BUSY weir: too many wait for the end of a pause (clients.pause_clients), \
                    command not executed\r\n";

/// One worker, so that what it may hold is all that may be held.
const ONE_WORKER: &str = "[process]\nworkers = 1\n";

fn wait_for_held(weir: &WeirProcess, clients: f64) {
    wait_until("the commands are held", || {
        weir.metric("weir_commands_paused", &[]) == clients
    });
}

#[test]
fn who_comes_when_as_many_wait_as_may_is_refused_at_once_and_served_afterwards() {
    let redis = RedisServer::start();
    let (weir, console) = weir(&redis, ONE_WORKER, "pause_clients = 2\n");
    let mut operator = RawClient::connect(console.address());
    operator.expect_command(&["WEIR", "PAUSE", "60000"], "+OK\r\n");
    let (mut one, mut other, mut third) = (weir.client(), weir.client(), weir.client());
    one.send(b"INCR n\r\nINCR n\r\n");
    other.send(b"INCR n\r\n");
    wait_for_held(&weir, 2.0);

    third.send(b"INCR n\r\nINCR n\r\n");
    third.expect(FULL);
    third.expect(FULL);
    // A transaction is refused as a whole, however it comes.
    third.send(
        [
            encode(&["MULTI"]),
            encode(&["INCR", "n"]),
            encode(&["EXEC"]),
        ]
        .concat(),
    );
    for _ in 0..3 {
        third.expect(FULL);
    }
    third.expect_command(&["MULTI"], "+OK\r\n");
    third.expect_command(&["INCR", "n"], FULL);
    let aborted = third.command(&["EXEC"]);
    assert!(aborted.starts_with(b"-EXECABORT"), "{aborted:?}");
    third.expect_command(&["MULTI"], "+OK\r\n");
    let aborted = third.command(&["EXEC"]);
    assert!(aborted.starts_with(b"-EXECABORT"), "{aborted:?}");
    third.expect_command(&["MULTI"], "+OK\r\n");
    third.expect_command(&["DISCARD"], "+OK\r\n");
    let limits = operator.command(&["WEIR", "LIMITS"]);
    let limits = String::from_utf8_lossy(&limits).into_owned();
    assert!(
        limits.contains("clients.pause_clients\r\n$5\r\nvalue\r\n$1\r\n2\r\n$4\r\nused\r\n:2"),
        "{limits}"
    );

    // Who goes makes room.
    drop(one);
    wait_for_held(&weir, 1.0);
    third.send(b"INCR n\r\n");
    wait_for_held(&weir, 2.0);
    redis.client().expect_command(&["EXISTS", "n"], ":0\r\n");
    operator.expect_command(&["WEIR", "RESUME"], "+OK\r\n");
    other.read_reply();
    third.read_reply();
    third.expect_command(&["GET", "n"], "$1\r\n2\r\n");
    wait_for_held(&weir, 0.0);
    wait_until("the refusals are counted", || {
        weir.metric("weir_shed_total", &["limit=\"pause\""]) >= 7.0
    });
    wait_until("the record says when it was reached and cleared", || {
        let events: Value = serde_json::from_str(&weir.get("/events.json").1).expect("JSON");
        let of_kind = |kind: &str| {
            let mut all = events.as_array().expect("a list").iter();
            all.any(|event| event["kind"] == kind && event["subject"] == "clients.pause_clients")
        };
        of_kind("limit_reached") && of_kind("limit_cleared")
    });
}

#[test]
fn what_waits_is_bounded_in_bytes_and_a_pause_in_time() {
    let redis = RedisServer::start();
    let limits = "pause_memory = \"4KiB\"\npause_max = \"2s\"\n";
    let (weir, console) = weir(&redis, ONE_WORKER, limits);
    let mut operator = RawClient::connect(console.address());
    operator.expect_command(
        &["WEIR", "PAUSE", "2001"],
        "-ERR a pause takes at most 2000 ms (clients.pause_max)\r\n",
    );
    let longer = &[
        "WEIR",
        "LIMITS",
        "SET",
        "route.main.clients.pause_max",
        "60s",
    ];
    operator.expect_command(longer, "+OK\r\n");
    operator.expect_command(&["WEIR", "PAUSE", "60000"], "+OK\r\n");
    let (mut one, mut other) = (weir.client(), weir.client());
    let value = "x".repeat(5_000);
    one.send(format!("SET k {value}\r\n").as_bytes());
    wait_for_held(&weir, 1.0);
    wait_until("its bytes are counted", || {
        weir.metric("weir_paused_bytes", &[]) >= 5_000.0
    });
    other.expect_command(
        &["GET", "k"],
        "-BUSY weir: too many wait for the end of a pause (clients.pause_memory), \
         command not executed\r\n",
    );
    // Redis's own pause refuses nobody.
    operator.expect_command(&["WEIR", "RESUME"], "+OK\r\n");
    one.expect("+OK\r\n");
    other.expect_command(&["CLIENT", "PAUSE", "60000", "WRITE"], "+OK\r\n");
    one.send(format!("SET k {value}\r\n").as_bytes());
    wait_for_held(&weir, 1.0);
    let mut third = weir.client();
    third.send(b"APPEND k y\r\n");
    wait_for_held(&weir, 2.0);
    other.expect_command(&["CLIENT", "UNPAUSE"], "+OK\r\n");
    one.expect("+OK\r\n");
    third.read_reply();
}
