//! Many clients ask for large values and read nothing of them: what that costs Weir, what it
//! costs Redis, and that nobody else notices.

use std::time::Duration;

use super::support::{RawClient, RedisServer, WeirProcess, encode, wait_until};
use super::weir;

const MIB: usize = 1 << 20;

/// What all clients together may hold in Weir.
const WEIR_LIMIT: usize = 64 * MIB;

/// What Redis may hold of large replies.
const REDIS_LIMIT: usize = 64 * MIB;

/// The size of one value.
const VALUE: usize = 20 * MIB;

/// How many ask for it and do not read.
const CLIENTS: usize = 40;

/// What a process needs besides what it counts: its own structures, buffers of connections,
/// and what the allocator has not given back yet.
const ALLOWANCE: usize = 24 * MIB;

fn weir_with(redis: &RedisServer, workers: usize) -> WeirProcess {
    weir(
        redis,
        &format!(
            "large_replies_max = \"64MiB\"\n[route.main.timeouts]\nrequest = \"20s\"\n\
             [process]\nworkers = {workers}\nbuffer_memory_max = \"64MiB\"\n"
        ),
    )
}

/// What Redis holds of replies for its clients, in bytes. Its own sum of it
/// (`mem_clients_normal`) is brought up to date for one client after the other, within a second.
fn reply_bytes(direct: &mut RawClient) -> usize {
    let reply = direct.command(&["CLIENT", "LIST"]);
    let text = String::from_utf8_lossy(&reply);
    let fields = text.split_whitespace();
    let bytes = fields.filter_map(|field| field.strip_prefix("omem="));
    bytes
        .map(|bytes| bytes.parse::<usize>().expect("a number"))
        .sum()
}

fn set_large(redis: &RedisServer) -> RawClient {
    let mut direct = redis.client();
    let value = "v".repeat(VALUE);
    direct.expect_command(&["SET", "large", &value], "+OK\r\n");
    direct.expect_command(&["SET", "small", "v"], "+OK\r\n");
    direct
}

fn read_large(client: &mut RawClient) {
    assert_eq!(client.command(&["GET", "large"]).len(), VALUE + 13);
}

/// Once one client has read it, it is known that the value is large. Then Redis holds no more
/// of it at any time than it may, nor does Weir, those who do not read give way to each other,
/// and one who reads gets it.
fn known_to_be_large(workers: usize) {
    let redis = RedisServer::start();
    let weir = weir_with(&redis, workers);
    let mut direct = set_large(&redis);
    let mut other = weir.client();
    read_large(&mut other);
    wait_until("it is known", || {
        weir.metric("weir_large_replies_known", &[]) == 1.0
    });
    wait_until("Redis holds no reply", || reply_bytes(&mut direct) < MIB);
    let before = weir.resident_bytes();
    let mut slow: Vec<RawClient> = (0..CLIENTS).map(|_| weir.client()).collect();
    for client in &mut slow {
        client.send(encode(&["GET", "large"]));
    }
    let (mut most, mut redis_most) = (0, 0);
    let mut look = |other: &mut RawClient| {
        other.expect_command(&["GET", "small"], "$1\r\nv\r\n");
        most = most.max(weir.resident_bytes().saturating_sub(before));
        redis_most = redis_most.max(reply_bytes(&mut direct));
    };
    let closed = || weir.metric("weir_clients_closed_total", &["reason=\"output_limit\""]);
    wait_until("some who do not read have given way", || {
        look(&mut other);
        closed() >= 6.0
    });
    assert!(weir.metric("weir_large_replies_waiting", &[]) > 0.0);
    assert!(weir.log().contains("backend.large_replies_max"));
    drop(slow);
    wait_until("nothing is under way", || {
        look(&mut other);
        weir.metric("weir_large_replies_bytes", &[]) == 0.0
    });
    read_large(&mut other);
    let redis_max = REDIS_LIMIT + 4 * MIB;
    assert!(redis_most < redis_max, "Redis: {} MiB", redis_most / MIB);
    // Nobody's window is larger than a MiB, and few have one.
    assert!(most < ALLOWANCE, "Weir: {} MiB", most / MIB);
}

#[test]
fn replies_known_to_be_large_cost_what_they_may_with_one_worker() {
    known_to_be_large(1);
}

#[test]
fn replies_known_to_be_large_cost_what_they_may_with_three_workers() {
    known_to_be_large(3);
}

/// Of values that nobody has asked for yet Redis builds as many replies as it gets requests.
/// Weir reads them whatever its clients do, holds what it may of them, closes those who hold
/// the most, and answers others meanwhile.
fn not_known_yet(workers: usize) {
    let redis = RedisServer::start();
    let weir = weir_with(&redis, workers);
    let mut direct = set_large(&redis);
    for client in 0..CLIENTS {
        let key = format!("large:{client}");
        direct.expect_command(&["COPY", "large", &key], ":1\r\n");
    }
    let mut other = weir.client();
    other.expect_command(&["GET", "small"], "$1\r\nv\r\n");
    let before = weir.resident_bytes();
    let mut slow: Vec<RawClient> = (0..CLIENTS).map(|_| weir.client()).collect();
    for (number, client) in slow.iter_mut().enumerate() {
        client.send(encode(&["GET", &format!("large:{number}")]));
    }
    let mut most = 0;
    let mut look = || {
        other.expect_command(&["GET", "small"], "$1\r\nv\r\n");
        most = most.max(weir.resident_bytes().saturating_sub(before));
    };
    wait_until("those who hold the most are closed", || {
        look();
        weir.metric("weir_clients_closed_total", &["reason=\"memory_limit\""]) > 0.0
    });
    wait_until("Redis has sent all it had", || {
        look();
        weir.metric("weir_commands_in_flight", &[]) == 0.0
            && weir.metric("weir_buffered_bytes", &[]) < WEIR_LIMIT as f64
            && reply_bytes(&mut direct) < MIB
    });
    // Replies on their way from one worker to another are not counted.
    let links = workers * 4 * MIB;
    let max = WEIR_LIMIT + links + ALLOWANCE;
    assert!(most < max, "Weir: {} MiB", most / MIB);
    drop(slow);
    wait_until("nothing is held for nobody", || {
        weir.metric("weir_buffered_bytes", &[]) < MIB as f64
    });
}

#[test]
fn replies_that_nobody_knew_to_be_large_cost_weir_what_they_may_with_one_worker() {
    not_known_yet(1);
}

#[test]
fn replies_that_nobody_knew_to_be_large_cost_weir_what_they_may_with_three_workers() {
    not_known_yet(3);
}

/// A client that reads, slowly, gets its value: it holds up nobody who does not want one too.
#[test]
fn who_reads_slowly_gets_all_of_it() {
    let redis = RedisServer::start();
    let weir = weir_with(&redis, 2);
    set_large(&redis);
    let mut other = weir.client();
    read_large(&mut other);
    let mut slow = weir.client();
    // Behind it in the same pipeline: order is kept.
    slow.send([encode(&["GET", "large"]), encode(&["GET", "small"])].concat());
    wait_until("it is under way", || {
        weir.metric("weir_large_replies_in_flight", &[]) == 1.0
    });
    for _ in 0..20 {
        other.expect_command(&["GET", "small"], "$1\r\nv\r\n");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(slow.read_reply().len(), VALUE + 13);
    slow.expect("$1\r\nv\r\n");
    wait_until("it is over", || {
        weir.metric("weir_large_replies_in_flight", &[]) == 0.0
    });
}
