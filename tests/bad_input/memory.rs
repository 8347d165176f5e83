//! All clients together hold no more than `process.buffer_memory_max`.

use std::time::Duration;

use super::bystander::Bystander;
use super::support::{RawClient, RedisServer, WeirProcess, encode, wait_until};
use super::{KIB, MIB, closed, weir};

/// A refusal takes less; an answer from the server that hangs takes longer.
const SOON: Duration = Duration::from_millis(500);

const LIMIT: usize = 32 * MIB;

/// What a process needs besides what it counts: its own structures and buffers.
const SLACK: usize = 20 * MIB;

fn small(redis: &RedisServer, route: &str) -> WeirProcess {
    weir(redis, "workers = 2\nbuffer_memory_max = \"32MiB\"", route)
}

/// In a flood, what grows is copied, and the allocator keeps for a moment what was freed.
fn assert_bounded(weir: &WeirProcess, before: usize) {
    let grown = weir.resident_bytes().saturating_sub(before);
    assert!(grown < 3 * LIMIT, "Weir has grown by {grown} bytes");
}

fn wait_until_settled(weir: &WeirProcess, before: usize) {
    wait_until("what is held is what may be held", || {
        assert_bounded(weir, before);
        weir.metric("weir_buffered_bytes", &[]) < LIMIT as f64
            && weir.resident_bytes().saturating_sub(before) < LIMIT + SLACK
    });
}

#[test]
fn replies_that_nobody_reads() {
    let redis = RedisServer::start();
    let mut weir = small(&redis, "");
    let bystander = Bystander::start(&weir);
    let value = "v".repeat(MIB);
    let mut client = weir.client();
    client.expect_command(&["SET", "large", &value], "+OK\r\n");
    let before = weir.resident_bytes();
    let mut clients: Vec<RawClient> = (0..30).map(|_| weir.client()).collect();
    for client in &mut clients {
        client.send(encode(&["GET", "large"]).repeat(50));
        assert_bounded(&weir, before);
    }
    wait_until("those that hold the most are closed", || {
        assert_bounded(&weir, before);
        closed(&weir, "memory_limit") > 0.0
    });
    wait_until_settled(&weir, before);
    weir.wait_for_log("buffer_memory_max");
    assert_eq!(weir.metric("weir_buffered_max_bytes", &[]), LIMIT as f64);
    bystander.finish();
    drop(clients);
    weir.wait_for_log("process.buffer_memory_max is no longer reached");
    let events = weir.get("/events.json").1;
    // Once when it was reached and once when it was not any more.
    let told = events.matches("\"subject\":\"process.buffer_memory_max\"");
    assert_eq!(told.count(), 2, "{events}");
    wait_until("nothing is held for nobody", || {
        weir.metric("weir_buffered_bytes", &[]) < MIB as f64
    });
}

#[test]
fn requests_that_never_end() {
    let redis = RedisServer::start();
    let weir = small(&redis, "");
    let bystander = Bystander::start(&weir);
    let before = weir.resident_bytes();
    // What can not be streamed: Weir answers it itself.
    let mut clients: Vec<RawClient> = (0..30).map(|_| weir.client()).collect();
    for client in &mut clients {
        client.send(b"*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$400000000\r\n");
        let _ = client.try_send(vec![b'x'; 4 * MIB]);
        assert_bounded(&weir, before);
    }
    wait_until("those that hold the most are closed", || {
        assert_bounded(&weir, before);
        closed(&weir, "memory_limit") > 0.0
    });
    wait_until_settled(&weir, before);
    bystander.finish();
    // The heaviest go, not all.
    assert!(weir.metric("weir_clients_connected", &[]) > 2.0);
}

#[test]
fn requests_to_a_server_that_hangs() {
    let mut redis = RedisServer::start();
    // Nobody's deadline passes, and nobody takes Redis for sick, while it stands still.
    let route = "timeouts.connect = \"9s\"\ntimeouts.request = \"2m\"\n\
                 timeouts.stall = \"2m\"\nhealth.silence_max = \"2m\"\n\
                 overload.target = \"0s\"\nclients.pipeline_buffer = \"4KiB\"";
    let weir = small(&redis, route);
    let mut client = weir.client();
    client.expect_command(&["PING"], "+PONG\r\n");
    let before = weir.resident_bytes();
    redis.stop();
    let value = "v".repeat(32 * KIB);
    let mut clients: Vec<RawClient> = (0..200).map(|_| weir.client()).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        let key = format!("key{index}");
        let _ = client.try_send(encode(&["SET", &key, &value]).repeat(10));
        assert_bounded(&weir, before);
    }
    // Those who have commands under way wait for these; for whom there is no room at all is
    // told so at once.
    let busy = b"-BUSY weir: requests fill the memory set aside (process.buffer_memory_max), \
                 command not executed\r\n";
    wait_until("somebody is refused", || {
        assert_bounded(&weir, before);
        let mut newcomer = weir.client();
        newcomer.send(encode(&["SET", "newcomer", &value]));
        newcomer
            .stream()
            .set_read_timeout(Some(SOON))
            .expect("a socket option");
        newcomer.try_read_reply().is_ok_and(|reply| reply == busy)
    });
    redis.cont();
    let mut lost = 0;
    for client in &mut clients {
        let replies = std::iter::from_fn(|| client.try_read_reply().ok());
        let count = replies
            .take(10)
            .inspect(|reply| {
                let is_right = reply == b"+OK\r\n" || reply == busy;
                assert!(is_right, "{}", reply.escape_ascii());
            })
            .count();
        lost += usize::from(count < 10);
    }
    let reason = ["reason=\"memory_limit\""];
    weir.wait_for_metric("weir_clients_closed_total", &reason, lost as f64);
    assert_bounded(&weir, before);
    client.expect_command(&["PING"], "+PONG\r\n");
}

#[test]
fn who_reads_is_served_however_much_it_is() {
    let redis = RedisServer::start();
    let weir = small(&redis, "");
    let value = "v".repeat(MIB);
    let mut client = weir.client();
    client.expect_command(&["SET", "large", &value], "+OK\r\n");
    let before = weir.resident_bytes();
    // 200 MiB through 32 MiB of memory.
    let count = 200;
    client.send(encode(&["GET", "large"]).repeat(count));
    let reply = format!("${MIB}\r\n{value}\r\n");
    for _ in 0..count {
        client.expect(&reply);
    }
    assert_bounded(&weir, before);
    assert_eq!(closed(&weir, "memory_limit"), 0.0);
}
