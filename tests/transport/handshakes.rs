//! Handshakes are bounded: in number, and in time.

use std::io::Read;

use crate::authority::Authority;
use crate::client_tls::{tls, weir};
use crate::support::{RedisServer, ReservedPort, wait_until};
use crate::talker::{config, over_tls, tcp};

#[test]
fn who_does_not_finish_the_handshake_in_time_is_closed() {
    let (redis, authority, port) = (RedisServer::start(), Authority::new(), ReservedPort::new());
    let server = authority.sign("server", &["localhost"]);
    let weir = weir(
        &redis,
        &port,
        &format!("{}handshake_timeout = \"200ms\"", tls(&[&server])),
    );
    let mut silent = tcp(port.address());
    let _ = silent.read_to_end(&mut Vec::new());
    wait_until("it is counted", || {
        weir.metric("weir_tls_handshakes_total", &["result=\"timeout\""]) == 1.0
    });
}

/// Those who hold all places make the next wait, not fail, until their time is up.
#[test]
fn as_many_shake_hands_at_once_as_configured() {
    let (redis, authority, port) = (RedisServer::start(), Authority::new(), ReservedPort::new());
    let server = authority.sign("server", &["localhost"]);
    let settings = format!(
        "{}handshakes_max = 3\nhandshake_timeout = \"4s\"",
        tls(&[&server])
    );
    let mut weir = weir(&redis, &port, &settings);
    let silent: Vec<_> = (0..3).map(|_| tcp(port.address())).collect();
    wait_until("all places are taken", || {
        weir.metric("weir_handshakes_in_progress", &[]) == 3.0
    });
    let mut client = over_tls(
        port.address(),
        &config(&authority.file(), None),
        "localhost",
    )
    .unwrap();
    client.expect_command(&["PING"], "+PONG\r\n");
    assert!(weir.metric("weir_tls_handshakes_total", &["result=\"timeout\""]) >= 1.0);
    weir.wait_for_log("handshakes_max is reached");
    drop(silent);
    wait_until("all places are free", || {
        weir.metric("weir_handshakes_in_progress", &[]) == 0.0
    });
    assert_eq!(weir.metric("weir_handshakes_max", &[]), 3.0);
}

#[test]
fn many_clients_at_once_are_let_in_one_after_the_other() {
    let (redis, authority, port) = (RedisServer::start(), Authority::new(), ReservedPort::new());
    let server = authority.sign("server", &["localhost"]);
    let settings = format!(
        "{}handshakes_max = 4\nhandshake_timeout = \"30s\"",
        tls(&[&server])
    );
    let weir = weir(&redis, &port, &settings);
    let config = config(&authority.file(), None);
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                let clients: Vec<_> = (0..20)
                    .map(|_| over_tls(port.address(), &config, "localhost").unwrap())
                    .collect();
                for mut client in clients {
                    assert!(client.command(&["INCR", "n"]).starts_with(b":"));
                }
            });
        }
    });
    assert_eq!(redis.command(&["GET", "n"]), b"$3\r\n200\r\n");
    assert_eq!(
        weir.metric("weir_tls_handshakes_total", &["result=\"ok\""]),
        200.0
    );
    wait_until("all have left", || {
        weir.metric("weir_clients_connected", &[]) == 0.0
    });
}
