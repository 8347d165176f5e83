//! The connection that all share is lost: everybody who is subscribed over it has to know.

use super::support::{RedisServer, wait_until};
use super::{confirmation, connections, message, subscriber, weir};

#[test]
fn subscribers_are_closed_when_their_connection_is_and_subscribe_again() {
    let redis = RedisServer::start();
    let mut weir = weir(&redis, "");
    let mut clients: Vec<_> = (0..8)
        .map(|number| subscriber(&weir, 2 + number % 2, &["x"]))
        .collect();
    let mut bystander = weir.client();
    bystander.expect_command(&["SET", "k", "v"], "+OK\r\n");
    assert_eq!(
        redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]),
        b":1\r\n"
    );
    clients.iter_mut().for_each(|client| client.expect_closed());
    bystander.expect_command(&["GET", "k"], "$1\r\nv\r\n");
    let closed = ["reason=\"subscription_lost\""];
    wait_until("they are counted", || {
        weir.metric("weir_clients_closed_total", &closed) == 8.0
    });
    weir.wait_for_log("subscription connection lost");
    // Nothing of what was is left.
    bystander.expect_command(&["PUBLISH", "x", "m"], ":0\r\n");
    let mut again: Vec<_> = (0..4).map(|_| subscriber(&weir, 2, &["x"])).collect();
    assert_eq!(connections(&weir), 1.0);
    bystander.expect_command(&["PUBLISH", "x", "m"], ":4\r\n");
    again
        .iter_mut()
        .for_each(|client| client.expect(message(2, "x", "m")));
}

#[test]
fn subscribing_while_redis_is_away_is_an_error_and_works_when_it_is_back() {
    let mut redis = RedisServer::start();
    let weir = weir(&redis, "");
    let mut client = subscriber(&weir, 2, &["x"]);
    redis.kill();
    client.expect_closed();
    let mut client = weir.client();
    let reply = String::from_utf8(client.command(&["SUBSCRIBE", "x"])).expect("text");
    assert!(reply.starts_with("-MASTERDOWN weir: "), "{reply}");
    redis.restart();
    wait_until("it is served again", || {
        client.command(&["SUBSCRIBE", "x"]) == confirmation(2, "subscribe", "x", 1).as_bytes()
    });
    weir.client()
        .expect_command(&["PUBLISH", "x", "m"], ":1\r\n");
    client.expect(message(2, "x", "m"));
}

#[test]
fn one_who_waits_in_vain_is_told_and_leaves_no_trace() {
    let mut redis = RedisServer::start();
    let weir = weir(
        &redis,
        "lease_wait = \"2s\"\n[route.main.timeouts]\nrequest = \"3s\"\nconnect = \"2s\"\n\
         [route.main.health]\nsilence_max = \"60s\"\n",
    );
    let mut other = subscriber(&weir, 2, &["y"]);
    redis.stop();
    let mut client = weir.client();
    let reply = String::from_utf8(client.command(&["SUBSCRIBE", "x"])).expect("text");
    assert!(reply.contains("outcome unknown"), "{reply}");
    redis.cont();
    // What comes late is undone.
    wait_until("Redis is not subscribed to it", || {
        redis.command(&["PUBSUB", "CHANNELS"]) == b"*1\r\n$1\r\ny\r\n"
    });
    wait_until("Weir takes the node for fit again", || {
        client.command(&["PING"]) == b"+PONG\r\n"
    });
    weir.client()
        .expect_command(&["PUBLISH", "y", "m"], ":1\r\n");
    other.expect(message(2, "y", "m"));
}

#[test]
fn a_feed_that_is_idle_is_given_back_and_comes_again() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "");
    let mut client = weir.client();
    for _ in 0..3 {
        client.expect_command(&["SUBSCRIBE", "x"], confirmation(2, "subscribe", "x", 1));
        weir.client()
            .expect_command(&["PUBLISH", "x", "m"], ":1\r\n");
        client.expect(message(2, "x", "m"));
        client.expect_command(
            &["UNSUBSCRIBE", "x"],
            confirmation(2, "unsubscribe", "x", 0),
        );
        wait_until("the connection is given back", || connections(&weir) == 0.0);
    }
}
