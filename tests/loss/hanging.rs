//! Redis, or one connection to it, makes no sound.

use std::time::{Duration, Instant};

use super::forwarder::Forwarder;
use super::support::{ConnectionWatch, RedisServer, encode, wait_until};
use super::{error, is_unknown, shared_connections, weir, weir_at};

#[test]
fn one_connection_that_hangs_is_replaced_and_nobody_waits_for_it() {
    let redis = RedisServer::start();
    let forwarder = Forwarder::to(redis.address());
    let weir = weir_at(
        &redis,
        forwarder.address(),
        "[route.main.timeouts]\nstall = \"600ms\"\n[process]\nworkers = 1\n",
    );
    let mut reader = weir.client();
    let mut writer = weir.client();
    let mut other = weir.client();
    reader.expect_command(&["SET", "k", "v"], "+OK\r\n");
    forwarder.hang_those_there();
    reader.send(encode(&["GET", "k"]));
    writer.send(encode(&["INCR", "n"]));
    // Who comes later soon takes another connection.
    wait_until("the suspect connection is left alone", || {
        weir.metric("weir_backend_connections", &["kind=\"shared\""]) >= 2.0 || {
            other.send(encode(&["PING"]));
            other
                .stream()
                .set_read_timeout(Some(Duration::from_millis(300)))
                .expect("a socket option");
            other.try_read_reply().is_ok()
        }
    });
    // The read is answered over another connection, the write may have run.
    reader.expect("$1\r\nv\r\n");
    let reply = writer.read_reply();
    assert!(
        error(&reply).is_some_and(is_unknown),
        "{}",
        reply.escape_ascii()
    );
    redis.client().expect_command(&["GET", "n"], "$1\r\n1\r\n");
    writer.expect_command(&["INCR", "n"], ":2\r\n");
}

#[test]
fn a_redis_that_hangs_keeps_its_connections_and_late_replies_reach_nobody() {
    let mut redis = RedisServer::start();
    let weir = weir(
        &redis,
        "max_connections = 4\n[route.main.timeouts]\nrequest = \"2s\"\nstall = \"1500ms\"\nconnect = \"1500ms\"\n",
    );
    let mut clients: Vec<_> = (0..8).map(|_| weir.client()).collect();
    for (id, client) in clients.iter_mut().enumerate() {
        client.expect_command(&["SET", &format!("k{id}"), &id.to_string()], "+OK\r\n");
    }
    let watch = ConnectionWatch::start(&redis);
    redis.stop();
    for (id, client) in clients.iter_mut().enumerate() {
        client.send(encode(&["INCR", &format!("n{id}")]));
    }
    for client in &mut clients {
        let asked = Instant::now();
        let reply = client.read_reply();
        let text = error(&reply).unwrap_or_default();
        assert!(
            is_unknown(text) || text.ends_with("command not executed"),
            "{}",
            reply.escape_ascii()
        );
        assert!(asked.elapsed() < Duration::from_secs(10), "a hang");
    }
    redis.cont();
    // Each hears the answer to what it asks now, not to what it asked before.
    for (id, client) in clients.iter_mut().enumerate() {
        let key = format!("k{id}");
        wait_until("Weir serves again", || {
            let reply = client.command(&["GET", &key]);
            if error(&reply).is_some() {
                return false;
            }
            assert_eq!(
                reply,
                format!("$1\r\n{id}\r\n").into_bytes(),
                "{}",
                reply.escape_ascii()
            );
            true
        });
        let value = redis.client().command(&["GET", &format!("n{id}")]);
        assert!(
            matches!(value.as_slice(), b"$1\r\n1\r\n" | b"$-1\r\n"),
            "incremented twice: {}",
            value.escape_ascii()
        );
    }
    watch.assert_at_most(4);
}

#[test]
fn a_deadline_answers_its_caller_and_the_connection_stays() {
    let mut redis = RedisServer::start();
    let weir = weir(
        &redis,
        "[route.main.timeouts]\nrequest = \"2s\"\n\
         [route.main.health]\nsilence_max = \"20s\"\n[process]\nworkers = 1\n",
    );
    let mut caller = weir.client();
    caller.expect_command(&["SET", "k", "v"], "+OK\r\n");
    let before = shared_connections(&redis);
    redis.stop();
    caller.send(encode(&["INCR", "n"]));
    caller.send(encode(&["GET", "k"]));
    for _ in 0..2 {
        let reply = caller.read_reply();
        assert!(
            error(&reply).is_some_and(is_unknown),
            "{}",
            reply.escape_ascii()
        );
    }
    redis.cont();
    // What it asks now is answered behind the two late replies, which nobody hears.
    wait_until("Weir serves again", || {
        let reply = caller.command(&["GET", "k"]);
        error(&reply).is_none() && {
            assert_eq!(reply, b"$1\r\nv\r\n");
            true
        }
    });
    caller.expect_command(&["INCR", "n"], ":2\r\n");
    assert_eq!(shared_connections(&redis), before);
}
