//! One of the two dies in the middle.

use std::net::TcpStream;

use super::chain::Chain;
use super::support::{ConnectionWatch, RedisServer, wait_until};

#[test]
fn a_successor_that_dies_is_succeeded_by_the_process_before_it() {
    let redis = RedisServer::start();
    let mut chain = Chain::start(&redis, "drain_timeout = \"60s\"", "max_connections = 4", "");
    let watch = ConnectionWatch::start(&redis);
    let mut busy = chain.weir.client();
    busy.expect_command(&["WATCH", "k"], "+OK\r\n");
    busy.expect_command(&["MULTI"], "+OK\r\n");
    chain.upgrade();
    let mut lost = chain.weir.client();
    lost.expect_command(&["PING"], "+PONG\r\n");
    chain.signal(libc::SIGKILL);
    lost.expect_closed();
    // Who connects meanwhile waits, and is not refused.
    let mut next = chain.weir.client();
    next.expect_command(&["SET", "other", "v"], "+OK\r\n");
    chain.weir.wait_for_log("serving again");
    wait_until("Weir is ready", || chain.weir.get("/readyz").0 == 200);
    busy.expect_command(&["PING"], "+QUEUED\r\n");
    busy.expect_command(&["EXEC"], "*1\r\n+PONG\r\n");
    // It is nobody's elder any more, and can try again.
    chain.go_back();
    chain.upgrade();
    chain.wait_for_elders();
    chain
        .weir
        .client()
        .expect_command(&["GET", "other"], "$1\r\nv\r\n");
    watch.assert_at_most(4);
}

#[test]
fn a_process_that_dies_while_it_drains_leaves_the_whole_budget() {
    let redis = RedisServer::start();
    let mut chain = Chain::start(&redis, "drain_timeout = \"60s\"", "max_connections = 8", "");
    let watch = ConnectionWatch::start(&redis);
    let mut busy = chain.weir.client();
    busy.expect_command(&["WATCH", "k"], "+OK\r\n");
    let first = chain.pid();
    chain.upgrade();
    let mut next = chain.weir.client();
    next.expect_command(&["PING"], "+PONG\r\n");
    // SAFETY: kill takes no pointers; the process is this test's own child.
    unsafe { libc::kill(first as i32, libc::SIGKILL) };
    busy.expect_closed();
    chain.wait_for_budget(1);
    next.expect_command(&["SET", "k", "v"], "+OK\r\n");
    let watching: Vec<_> = (0..2)
        .map(|_| {
            let mut client = chain.weir.client();
            client.expect_command(&["WATCH", "k"], "+OK\r\n");
            client
        })
        .collect();
    drop(watching);
    watch.assert_at_most(8);
}

#[test]
fn a_process_that_leaves_with_clients_leaves_its_successor_alone() {
    let redis = RedisServer::start();
    let mut chain = Chain::start(&redis, "drain_timeout = \"1s\"", "max_connections = 8", "");
    let watch = ConnectionWatch::start(&redis);
    // It never lets its connection go.
    let mut busy = chain.weir.client();
    busy.expect_command(&["WATCH", "k"], "+OK\r\n");
    chain.upgrade();
    let mut next = chain.weir.client();
    next.expect_command(&["SET", "k", "v"], "+OK\r\n");
    chain.wait_for_elders();
    wait_until("the old one said so", || {
        let log = chain.weir.log();
        log.contains("leaving with connections to Redis")
    });
    chain.wait_for_budget(1);
    next.expect_command(&["GET", "k"], "$1\r\nv\r\n");
    watch.assert_at_most(8);
}

#[test]
fn told_to_stop_both_stop() {
    let redis = RedisServer::start();
    let mut chain = Chain::start(&redis, "drain_timeout = \"20s\"", "max_connections = 4", "");
    let mut busy = chain.weir.client();
    busy.expect_command(&["WATCH", "k"], "+OK\r\n");
    chain.upgrade();
    chain.signal(libc::SIGTERM);
    wait_until("the new one has ended", || !super::chain::runs(chain.pid()));
    assert!(chain.weir.is_running());
    wait_until("who connects is refused", || {
        TcpStream::connect(chain.weir.address()).is_err()
    });
    busy.expect_command(&["UNWATCH"], "+OK\r\n");
    busy.expect_closed();
    wait_until("the old one has ended", || !chain.weir.is_running());
    assert!(!chain.weir.log().contains("serving again"));
}
