//! Connections end because they are idle or old, and nobody notices.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use super::support::{RawClient, RedisServer, encode, wait_until};
use super::{shared_connections, weir};

#[test]
fn connections_that_get_old_are_replaced_under_load_without_an_error() {
    for workers in [1, 3] {
        let redis = RedisServer::start();
        let weir = weir(
            &redis,
            &format!("max_age = \"1s\"\nmax_connections = 4\n[process]\nworkers = {workers}\n"),
        );
        let mut seen = BTreeSet::new();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for id in 0..8 {
                let (address, done) = (weir.address(), &done);
                scope.spawn(move || load(address, id, done));
            }
            let mut first = 0;
            wait_until("connections have been replaced twice", || {
                seen.extend(shared_connections(&redis));
                first = if first == 0 { seen.len() } else { first };
                first > 0 && seen.len() >= first + 3
            });
            done.store(true, Ordering::Relaxed);
        });
    }
}

/// Increments in pipelines without a pause: each count is the one before and one more.
fn load(address: std::net::SocketAddr, id: usize, done: &AtomicBool) {
    let mut client = RawClient::connect(address);
    let key = format!("count:{id}");
    let mut count = 0;
    while !done.load(Ordering::Relaxed) {
        for _ in 0..1 + id {
            client.send(encode(&["INCR", &key]));
        }
        for _ in 0..1 + id {
            count += 1;
            client.expect(format!(":{count}\r\n"));
        }
    }
}

#[test]
fn what_is_quiet_uses_up_no_connection_and_works_at_once_when_it_is_not() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "max_idle = \"1s\"\n");
    let mut client = weir.client();
    for round in 0..2 {
        let count = (round + 1).to_string();
        client.expect_command(&["INCR", "k"], format!(":{count}\r\n"));
        client.expect_command(&["WATCH", "k"], "+OK\r\n");
        client.expect_command(&["UNWATCH"], "+OK\r\n");
        client.expect_command(&["BLPOP", "nothing", "0.01"], "*-1\r\n");
        wait_until("every connection is closed", || {
            let list = String::from_utf8_lossy(&redis.command(&["CLIENT", "LIST"])).into_owned();
            !list.contains("name=weir:")
        });
    }
    client.expect_command(&["GET", "k"], "$1\r\n2\r\n");
}
