//! Channels belong to users: each has a connection of its own, and Redis decides.

use super::support::{RawClient, RedisServer, WeirProcess, encode, wait_until};
use super::{confirmation, connections, message, weir};

fn login(weir: &WeirProcess, user: &str) -> RawClient {
    let mut client = weir.client();
    client.expect_command(&["AUTH", user, "secret"], "+OK\r\n");
    client
}

fn redis_with_users() -> RedisServer {
    let redis = RedisServer::start();
    for (user, channels) in [("alice", "&a:*"), ("bob", "&b:*")] {
        let rule = [
            "ACL",
            "SETUSER",
            user,
            "on",
            ">secret",
            "+@all",
            "~*",
            "resetchannels",
            channels,
        ];
        assert_eq!(redis.command(&rule), b"+OK\r\n");
    }
    redis
}

#[test]
fn redis_says_who_may_hear_what() {
    let redis = redis_with_users();
    let weir = weir(&redis, "");
    let mut direct = redis.client();
    direct.expect_command(&["AUTH", "alice", "secret"], "+OK\r\n");
    let refusal = direct.command(&["SUBSCRIBE", "a:1", "b:1"]);
    assert!(refusal.starts_with(b"-NOPERM "));
    let mut alice = login(&weir, "alice");
    let mut bob = login(&weir, "bob");
    bob.expect_command(
        &["SUBSCRIBE", "b:1"],
        confirmation(2, "subscribe", "b:1", 1),
    );
    alice.expect_command(&["SUBSCRIBE", "a:1", "b:1"], &refusal);
    alice.expect_command(&["SUBSCRIBE", "b:1"], &refusal);
    // Nothing of it has happened, and there is no trace left of it.
    alice.expect_command(&["GET", "k"], "$-1\r\n");
    alice.expect_command(
        &["SUBSCRIBE", "a:1"],
        confirmation(2, "subscribe", "a:1", 1),
    );
    assert_eq!(connections(&weir), 2.0);
    let mut publisher = weir.client();
    publisher.expect_command(&["PUBLISH", "b:1", "m"], ":1\r\n");
    publisher.expect_command(&["PUBLISH", "a:1", "m"], ":1\r\n");
    bob.expect(message(2, "b:1", "m"));
    alice.expect(message(2, "a:1", "m"));
    alice.expect_command(&["SUBSCRIBE", "b:1"], &refusal);
    alice.expect_command(
        &["UNSUBSCRIBE", "a:1"],
        confirmation(2, "unsubscribe", "a:1", 0),
    );
}

#[test]
fn whose_channels_are_taken_away_is_closed_and_nobody_else() {
    let redis = redis_with_users();
    let weir = weir(&redis, "");
    let (mut alice, mut bob) = (login(&weir, "alice"), login(&weir, "bob"));
    alice.expect_command(
        &["SUBSCRIBE", "a:1"],
        confirmation(2, "subscribe", "a:1", 1),
    );
    bob.expect_command(
        &["SUBSCRIBE", "b:1"],
        confirmation(2, "subscribe", "b:1", 1),
    );
    redis.command(&["ACL", "SETUSER", "alice", "resetchannels", "&z"]);
    alice.expect_closed();
    weir.client()
        .expect_command(&["PUBLISH", "b:1", "m"], ":1\r\n");
    bob.expect(message(2, "b:1", "m"));
}

#[test]
fn users_share_the_connections_that_there_are_for_subscriptions() {
    let redis = redis_with_users();
    let mut weir = weir(&redis, "max_subscriptions = 1\nlease_wait = \"1s\"\n");
    let (mut alice, mut bob) = (login(&weir, "alice"), login(&weir, "bob"));
    alice.expect_command(
        &["SUBSCRIBE", "a:1"],
        confirmation(2, "subscribe", "a:1", 1),
    );
    let reply = String::from_utf8(bob.command(&["SUBSCRIBE", "b:1"])).expect("text");
    assert!(
        reply.starts_with("-BUSY weir: ") && reply.contains("max_subscriptions"),
        "{reply}"
    );
    let labels = ["setting=\"backend.max_subscriptions\"", "reason=\"wait\""];
    weir.wait_for_metric("weir_backend_connections_refused_total", &labels, 1.0);
    weir.wait_for_log("backend.max_subscriptions is reached: commands are refused");
    // He goes on with other things, and is served when she has left.
    bob.expect_command(&["PING"], "+PONG\r\n");
    drop(alice);
    wait_until("there is room again", || {
        bob.send(encode(&["SUBSCRIBE", "b:1"]));
        !bob.read_reply().starts_with(b"-")
    });
    assert_eq!(connections(&weir), 1.0);
}

#[test]
fn a_subscriber_that_becomes_somebody_else_keeps_what_it_has() {
    let redis = redis_with_users();
    let weir = weir(&redis, "");
    let mut client = login(&weir, "alice");
    client.command(&["HELLO", "3"]);
    client.expect_command(
        &["SUBSCRIBE", "a:1"],
        confirmation(3, "subscribe", "a:1", 1),
    );
    client.expect_command(&["AUTH", "bob", "secret"], "+OK\r\n");
    weir.client()
        .expect_command(&["PUBLISH", "a:1", "m"], ":1\r\n");
    client.expect(message(3, "a:1", "m"));
    client.expect_command(
        &["SUBSCRIBE", "a:2"],
        "-ERR weir: this client is subscribed as another user, command not executed\r\n",
    );
    client.expect_command(&["UNSUBSCRIBE"], confirmation(3, "unsubscribe", "a:1", 0));
    client.expect_command(
        &["SUBSCRIBE", "b:1"],
        confirmation(3, "subscribe", "b:1", 1),
    );
}
