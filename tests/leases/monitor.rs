//! `MONITOR`: a line for each command, until `RESET` or the client's end.

use super::support::{RawClient, RedisServer, wait_until};
use super::{connections, weir};

/// A monitor's line without its time and address, which differ.
fn line(client: &mut RawClient) -> String {
    let line = String::from_utf8(client.read_reply()).expect("text");
    let Some((before, after)) = line.split_once('[') else {
        return line;
    };
    assert!(before.starts_with('+'), "{line}");
    let (database, command) = after.split_once(' ').expect("an address");
    let (_, command) = command.split_once(']').expect("a bracket");
    format!("[{database}]{command}")
}

#[test]
fn a_monitor_sees_what_clients_do_and_nothing_of_weir() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "[process]\nworkers = 1\n");
    let mut client = weir.client();
    client.expect_command(&["PING"], "+PONG\r\n");
    let mut monitor = weir.client();
    monitor.expect_command(&["MONITOR"], "+OK\r\n");
    client.expect_command(&["SET", "k", "a \"quoted\" value"], "+OK\r\n");
    assert_eq!(
        line(&mut monitor),
        "[0] \"SET\" \"k\" \"a \\\"quoted\\\" value\"\r\n"
    );
    client.expect_command(&["GET", "k"], "$16\r\na \"quoted\" value\r\n");
    assert_eq!(line(&mut monitor), "[0] \"GET\" \"k\"\r\n");
    // It cannot use data itself, as at Redis; what Redis says to that it hears.
    let refusal = String::from_utf8(monitor.command(&["GET", "k"])).expect("text");
    assert!(refusal.starts_with("-ERR Replica can't inter"), "{refusal}");
    client.expect_command(&["DEL", "k"], ":1\r\n");
    assert_eq!(line(&mut monitor), "[0] \"DEL\" \"k\"\r\n");
    monitor.expect_command(&["RESET"], "+RESET\r\n");
    wait_until("its connection is given back", || {
        connections(&weir, "lease") == 0.0
    });
    monitor.expect_command(&["GET", "k"], "$-1\r\n");
}

#[test]
fn a_monitor_that_leaves_gives_its_connection_back() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "max_leases = 1\nlease_wait = \"20s\"\n");
    for _ in 0..5 {
        let mut monitor = weir.client();
        monitor.expect_command(&["MONITOR"], "+OK\r\n");
        drop(monitor);
    }
    let mut monitor = weir.client();
    monitor.expect_command(&["MONITOR"], "+OK\r\n");
    monitor.expect_command(&["QUIT"], "+OK\r\n");
    monitor.expect_closed();
    wait_until("its connection is given back", || {
        connections(&weir, "lease") == 0.0
    });
}

/// Redis itself keeps what a monitor does not read, without a limit; through Weir the
/// monitor is closed, and Redis is rid of it.
#[test]
fn a_monitor_that_does_not_read_is_closed() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "[route.main.timeouts]\nwrite = \"2s\"\n");
    let mut monitor = weir.client();
    monitor.expect_command(&["MONITOR"], "+OK\r\n");
    let mut client = weir.client();
    let value = "v".repeat(100_000);
    wait_until("it is closed", || {
        client.expect_command(&["SET", "k", &value], "+OK\r\n");
        weir.metric("weir_clients_closed_total", &["reason=\"write_timeout\""]) == 1.0
    });
    wait_until("its connection is given back", || {
        connections(&weir, "lease") == 0.0
    });
    client.expect_command(&["GET", "absent"], "$-1\r\n");
}
