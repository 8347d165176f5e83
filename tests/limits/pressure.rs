//! It gets full: clients that nobody uses make room, those who come are taken in one after
//! the other, and operators hear of it.

use crate::support::{RawClient, RedisServer, WeirProcess, wait_until};
use crate::{comes_in, from, is_in, weir};

fn closed(weir: &WeirProcess, reason: &str) -> usize {
    let reason = format!("reason=\"{reason}\"");
    weir.metric("weir_clients_closed_total", &[&reason]) as usize
}

#[test]
fn the_longest_idle_of_whoever_holds_most_makes_room_and_nobody_who_is_busy() {
    let redis = RedisServer::start();
    let weir = weir(
        &redis,
        // Of several workers each offers its own longest idle, not all at the same moment.
        "max_clients = 11\nworkers = 1",
        "gives_way_after = \"300ms\"\nidle_timeout = 0",
    );
    wait_until("the look is over", || {
        weir.metric("weir_clients_connected", &[]) == 0.0
    });
    let greedy = "127.0.0.2";
    let mut in_transaction = comes_in(&weir, greedy);
    in_transaction.expect_command(&["MULTI"], "+OK\r\n");
    let mut subscribed = comes_in(&weir, greedy);
    let confirmed = "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n";
    subscribed.expect_command(&["SUBSCRIBE", "news"], confirmed);
    let mut blocked = comes_in(&weir, greedy);
    blocked.send("*3\r\n$5\r\nBLPOP\r\n$4\r\nlist\r\n$1\r\n0\r\n");
    let mut idle: Vec<RawClient> = (0..5).map(|_| comes_in(&weir, greedy)).collect();
    let mut modest: Vec<RawClient> = (0..2).map(|_| comes_in(&weir, "127.0.0.3")).collect();
    // Clients are looked at one after the other: all have to have been idle for a while for
    // the choice to be among all of them.
    let mut watcher = comes_in(&weir, "127.0.0.4");
    wait_until("all but one are idle", || {
        let list = watcher.command(&["CLIENT", "LIST"]);
        let list = String::from_utf8(list).expect("text");
        let is_idle = |line: &&str| !line.contains(" idle=0 ") && !line.contains(" idle=1 ");
        list.lines()
            .filter(is_idle)
            .filter(|line| line.contains(" idle="))
            .count()
            == 10
    });
    // All places are taken. Those who come get in, one after the other in the place of one that
    // idles, the greedy one's before all others'.
    let mut come = Vec::new();
    for host in 10..13 {
        come.push(comes_in(&weir, &format!("127.0.0.{host}")));
    }
    wait_until("the places are counted", || closed(&weir, "made_room") >= 3);
    assert_eq!(closed(&weir, "made_room"), 3);
    for client in &mut modest {
        client.expect_command(&["PING"], "+PONG\r\n");
    }
    // The first of them went first.
    for mut client in idle.drain(..3) {
        client.expect_closed();
    }
    for client in &mut idle {
        client.expect_command(&["PING"], "+PONG\r\n");
    }
    for client in &mut come {
        client.expect_command(&["PING"], "+PONG\r\n");
    }
    in_transaction.expect_command(&["EXEC"], "*0\r\n");
    let mut publisher = redis.client();
    publisher.expect_command(&["PUBLISH", "news", "x"], ":1\r\n");
    subscribed.expect("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1\r\nx\r\n");
    publisher.expect_command(&["LPUSH", "list", "x"], ":1\r\n");
    blocked.expect("*2\r\n$4\r\nlist\r\n$1\r\nx\r\n");
}

/// Who holds the most pushes out nobody but itself, and who is in use stays.
#[test]
fn whoever_leaks_pushes_nobody_else_out() {
    let redis = RedisServer::start();
    let weir = weir(
        &redis,
        "max_clients = 6\nworkers = 2",
        "gives_way_after = \"200ms\"\nidle_timeout = 0",
    );
    wait_until("the look is over", || {
        weir.metric("weir_clients_connected", &[]) == 0.0
    });
    let mut modest: Vec<RawClient> = (3..5)
        .map(|host| comes_in(&weir, &format!("127.0.0.{host}")))
        .collect();
    let mut leaked: Vec<RawClient> = (0..4).map(|_| comes_in(&weir, "127.0.0.2")).collect();
    for _ in 0..6 {
        leaked.push(comes_in(&weir, "127.0.0.2"));
    }
    for client in &mut modest {
        client.expect_command(&["PING"], "+PONG\r\n");
    }
    wait_until("the places are counted", || closed(&weir, "made_room") >= 6);
}

#[test]
fn nobody_makes_room_where_that_is_switched_off() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "max_clients = 1", "gives_way_after = 0");
    let mut only = comes_in(&weir, "127.0.0.2");
    assert!((0..20).all(|_| !is_in(&mut from(&weir, "127.0.0.3"))));
    only.expect_command(&["PING"], "+PONG\r\n");
    assert_eq!(closed(&weir, "made_room"), 0);
}

#[test]
fn the_idle_timeout_shrinks_as_it_gets_full_and_operators_are_warned() {
    let redis = RedisServer::start();
    let mut weir = weir(
        &redis,
        "max_clients = 10",
        "idle_timeout = \"1h\"\nidle_timeout_min = \"100ms\"\ngives_way_after = 0",
    );
    let mut clients: Vec<RawClient> = (0..10).map(|_| comes_in(&weir, "127.0.0.2")).collect();
    weir.wait_for_log("process.max_clients is nearly reached");
    wait_until("idle clients go", || closed(&weir, "idle") >= 1);
    // It is not so full any more: those who are left may idle for longer again.
    drop(clients.drain(..8));
    weir.wait_for_log("process.max_clients is no longer nearly reached");
    wait_until("the record says both", || {
        let events = weir.get("/events.json").1;
        events.contains("limit_near") && events.contains("limit_eased")
    });
}

#[test]
fn those_who_come_too_fast_wait_and_are_served() {
    let redis = RedisServer::start();
    let mut weir = weir(&redis, "", "accept_rate = 10\naccept_burst = 5");
    // All knock at once, and the last has to wait for two seconds.
    let mut clients: Vec<RawClient> = (0..25).map(|_| weir.client()).collect();
    for client in &mut clients {
        client.expect_command(&["PING"], "+PONG\r\n");
    }
    assert!(weir.metric("weir_accepts_delayed_total", &[]) >= 1.0);
    assert_eq!(weir.metric("weir_clients_refused_total", &[]), 0.0);
    weir.wait_for_log("clients.accept_rate is reached");
}
