//! The end of a process: nobody who is served loses a reply.

// Real sockets and processes are waited for, not a clock that tests stop.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

#[path = "../support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

use support::{RedisServer, WeirProcess, encode, wait_until};

/// Sends pipelines of `INCR` for as long as it is served: how many commands it sent, and
/// how many whole replies it read.
fn pipelines(address: SocketAddr, key: &str) -> (usize, usize) {
    const DEPTH: usize = 10;
    let mut socket = TcpStream::connect(address).expect("a connection");
    socket
        .set_read_timeout(Some(support::DEADLINE))
        .expect("a socket option");
    let batch = encode(&["INCR", key]).repeat(DEPTH);
    let (mut sent, mut replies) = (0, 0);
    let mut buffer = [0; 4096];
    loop {
        if socket.write_all(&batch).is_err() {
            return (sent, replies);
        }
        sent += DEPTH;
        while replies < sent {
            match socket.read(&mut buffer) {
                Ok(n @ 1..) => {
                    let bytes = &buffer[..n];
                    assert!(!bytes.contains(&b'-'), "an error: {}", bytes.escape_ascii());
                    replies += bytes.iter().filter(|byte| **byte == b'\n').count();
                }
                // Closed between two batches: nothing of the last one was taken.
                _ => return (sent, replies),
            }
        }
    }
}

/// Waits until a command of everybody has run.
fn wait_until_served(redis: &RedisServer, keys: &[impl AsRef<str>]) {
    wait_until("all are served", || {
        let mut direct = redis.client();
        let runs = |key: &str| direct.command(&["EXISTS", key]) == b":1\r\n";
        keys.iter().map(AsRef::as_ref).all(runs)
    });
}

#[test]
fn not_one_reply_is_cut_under_load() {
    let redis = RedisServer::start();
    let mut weir = WeirProcess::in_front_of(&redis);
    let address = weir.address();
    let keys: Vec<String> = (0..8).map(|n| format!("n{n}")).collect();
    let busy: Vec<_> = keys
        .iter()
        .map(|key| {
            let key = key.clone();
            thread::spawn(move || pipelines(address, &key))
        })
        .collect();
    wait_until_served(&redis, &keys);
    assert!(weir.terminate().success());
    for (key, client) in keys.iter().zip(busy) {
        let (sent, replies) = client.join().expect("no error was read");
        let ran = String::from_utf8(redis.client().command(&["GET", key])).expect("text");
        let ran: usize = ran
            .split("\r\n")
            .nth(1)
            .and_then(|n| n.parse().ok())
            .expect("a number");
        // What ran was answered; a batch that came too late did not run at all.
        assert_eq!(ran, replies, "{key}: {sent} sent");
        assert_eq!(replies % 10, 0, "{key}: half a batch was answered");
    }
    assert!(!weir.log().contains("drain timeout"), "{}", weir.log());
}

/// Sends `INCR`s without waiting for the replies, so that thousands are always under way, until
/// it hears that nothing more comes: how many replies it read.
fn never_pauses(address: SocketAddr, key: &str) -> usize {
    const UNDER_WAY: usize = 20_000;
    let mut socket = TcpStream::connect(address).expect("a connection");
    socket
        .set_read_timeout(Some(support::DEADLINE))
        .expect("a socket option");
    let (answered, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut writer = socket.try_clone().expect("a second handle");
    let batch = encode(&["INCR", key]).repeat(20);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut sent = 0;
            while !ended.load(Relaxed) {
                if sent - answered.load(Relaxed) < UNDER_WAY {
                    // Whoever has been told that this was all may not be able to.
                    let _ = writer.write_all(&batch);
                    sent += 20;
                }
            }
        });
        let mut buffer = [0; 4096];
        let outcome = loop {
            match socket.read(&mut buffer) {
                Ok(n @ 1..) => {
                    let replies = buffer[..n].iter().filter(|byte| **byte == b'\n');
                    answered.fetch_add(replies.count(), Relaxed);
                }
                outcome => break outcome,
            }
        };
        ended.store(true, Relaxed);
        assert_eq!(outcome.expect("an end, not a reset"), 0);
    });
    answered.into_inner()
}

#[test]
fn who_never_pauses_gets_every_reply_and_then_the_end() {
    let redis = RedisServer::start();
    let mut weir = WeirProcess::in_front_of(&redis);
    let address = weir.address();
    let keys = ["n0", "n1"];
    let busy = keys.map(|key| thread::spawn(move || never_pauses(address, key)));
    wait_until_served(&redis, &keys);
    assert!(weir.terminate().success());
    for (key, client) in keys.iter().zip(busy) {
        let replies = client.join().expect("a whole stream of replies");
        let mut direct = redis.client();
        direct.send(encode(&["GET", key]));
        assert_eq!(direct.read_text(), replies.to_string(), "{key}");
    }
    assert!(!weir.log().contains("drain timeout"), "{}", weir.log());
}

#[test]
fn while_it_drains_it_says_that_it_is_not_ready_and_lets_a_transaction_finish() {
    let redis = RedisServer::start();
    let mut weir = WeirProcess::in_front_of(&redis);
    let (mut idle, mut busy) = (weir.client(), weir.client());
    idle.expect_command(&["PING"], "+PONG\r\n");
    busy.expect_command(&["WATCH", "k"], "+OK\r\n");
    busy.expect_command(&["MULTI"], "+OK\r\n");
    weir.signal(libc::SIGTERM);
    idle.expect_closed();
    assert_eq!(
        weir.get("/readyz"),
        (503, "not ready: draining\n".to_owned())
    );
    busy.expect_command(&["SET", "k", "v"], "+QUEUED\r\n");
    busy.expect_command(&["EXEC"], "*1\r\n+OK\r\n");
    busy.expect_closed();
    assert!(weir.wait().success());
}

#[test]
fn subscribers_are_closed_in_their_turn() {
    let redis = RedisServer::start();
    let mut weir = WeirProcess::in_front_of(&redis);
    let mut subscriber = weir.client();
    subscriber.send(encode(&["SUBSCRIBE", "c"]));
    subscriber.expect("*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
    assert!(weir.terminate().success());
    subscriber.expect_closed();
    assert!(!weir.log().contains("drain timeout"), "{}", weir.log());
}

/// Its turn comes while it waits for the end of a pause, which no drain ends sooner.
#[test]
fn who_waits_with_a_request_is_served_before_it_is_closed() {
    let redis = RedisServer::start();
    let mut weir = WeirProcess::in_front_of(&redis);
    let (mut operator, mut held) = (weir.client(), weir.client());
    operator.expect_command(&["CLIENT", "PAUSE", "3000", "WRITE"], "+OK\r\n");
    held.send(encode(&["SET", "k", "v"]));
    wait_until("it is held", || {
        weir.metric("weir_commands_paused", &[]) == 1.0
    });
    assert!(weir.terminate().success());
    held.expect("+OK\r\n");
    held.expect_closed();
    assert!(!weir.log().contains("drain timeout"), "{}", weir.log());
}
