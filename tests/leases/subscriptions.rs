//! Publish and subscribe, said to Redis and to Weir.

use super::support::{RedisServer, dialogue, encode, wait_until};
use super::{connections, weir};

#[rustfmt::skip] // one dialogue, one line
const DIALOGUES: &[&[&str]] = &[
    &["a SUBSCRIBE x", "b PUBLISH x hello", "a:1", "b PUBLISH y nobody", "a UNSUBSCRIBE x", "b PUBLISH x nobody", "a GET k"],
    &["a:3 SUBSCRIBE x y x", "b PUBLISH x 1", "b PUBLISH y 2", "a:2", "a:2 UNSUBSCRIBE y x", "a PING"],
    &["a:2 PSUBSCRIBE n* m*", "b PUBLISH news hello", "a:1", "b PUBLISH more x", "a:1", "a:2 PUNSUBSCRIBE m* n*", "a GET k"],
    &["a SUBSCRIBE news", "a PSUBSCRIBE n*", "b PUBLISH news hello", "a:2", "a UNSUBSCRIBE", "a PUNSUBSCRIBE", "a GET k"],
    &["@since 7.0", "a SSUBSCRIBE x", "b SPUBLISH x hello", "a:1", "b PUBLISH x nobody", "a SUNSUBSCRIBE x", "a GET k"],
    // Nothing subscribed.
    &["a UNSUBSCRIBE", "a PUNSUBSCRIBE", "a SUNSUBSCRIBE", "a UNSUBSCRIBE x", "a:2 PUNSUBSCRIBE x y", "a GET k"],
    &["a HELLO 3", "a UNSUBSCRIBE", "a UNSUBSCRIBE x", "a GET k"],
    &["a SUBSCRIBE x", "a UNSUBSCRIBE y", "b PUBLISH x 1", "a:1"],
    // What a subscriber may say in RESP2.
    &["a SUBSCRIBE x", "a GET k", "a NOSUCHCOMMAND", "a GET", "a CLIENT ID", "a MULTI", "a HELLO 3", "a PUBLISH x y", "b PUBLISH x 1", "a:1"],
    &["a SUBSCRIBE x", "a PING", "a PING hello", "a PING a b", "a UNSUBSCRIBE x", "a PING", "a PING hello"],
    &["@since 7.0", "a SSUBSCRIBE x", "a GET k", "a PING"],
    &["a SUBSCRIBE x", "a RESET", "a GET k", "b PUBLISH x nobody"],
    &["a SUBSCRIBE x", "a:close QUIT", "b PUBLISH x nobody"],
    &["a SUBSCRIBE", "a PSUBSCRIBE", "a SSUBSCRIBE", "a PING"],
    // In RESP3 everything.
    &["a HELLO 3", "a SUBSCRIBE x", "a SET k v", "b PUBLISH x 1", "a:1", "a GET k", "a PING", "a PING hello", "a HGETALL h", "a UNSUBSCRIBE x", "a GET k"],
    &["a HELLO 3", "a:2 SUBSCRIBE x y", "a MULTI", "a SET k v", "a EXEC", "b PUBLISH y 1", "a:1", "a WATCH k", "a GET k", "a UNWATCH", "a:2 UNSUBSCRIBE x y"],
    &["a HELLO 3", "a SUBSCRIBE x", "a BLPOP k 0.01", "a RPUSH k v", "a BLPOP k 0", "b PUBLISH x 1", "a:1"],
    &["a HELLO 3", "a SUBSCRIBE x", "a SELECT 3", "a SET k three", "a UNSUBSCRIBE x", "a GET k", "b SELECT 3", "b GET k"],
    &["a HELLO 3", "a SUBSCRIBE x", "a HELLO 2", "a GET k", "b PUBLISH x 1", "a:1", "a UNSUBSCRIBE x", "a GET k"],
    &["a HELLO 3", "a SUBSCRIBE x", "a RESET", "a GET k", "b PUBLISH x nobody"],
    // Confirmations and messages are never suppressed.
    &["a:0 CLIENT REPLY OFF", "a SUBSCRIBE x", "b PUBLISH x 1", "a:1", "a UNSUBSCRIBE x"],
    &["a HELLO 3", "a:0 CLIENT REPLY OFF", "a SUBSCRIBE x", "a:0 GET k", "b PUBLISH x 1", "a:1", "a CLIENT REPLY ON", "a GET k"],
    // Who is there.
    &["a SUBSCRIBE x", "b PUBSUB NUMSUB x y", "b PUBSUB CHANNELS", "b PUBSUB NUMPAT", "a PSUBSCRIBE p*", "b PUBSUB NUMPAT"],
    &["a SUBSCRIBE x", "b SUBSCRIBE x", "c PUBLISH x 1", "a:1", "b:1", "@gone a", "b PING", "b UNSUBSCRIBE x"],
    // Pipelined with other things.
    &["a SET k v", "a SUBSCRIBE x", "a PING", "a UNSUBSCRIBE x", "a GET k", "a SUBSCRIBE y", "a:close QUIT"],
];

#[test]
fn subscriptions_answer_as_at_redis() {
    let redis = RedisServer::start();
    let behind = RedisServer::start();
    let weir = weir(&behind, "");
    dialogue::compare(&redis, &behind, weir.address(), DIALOGUES);
    assert!(!weir.log().contains("panicked"), "{}", weir.log());
}

#[test]
fn messages_come_in_order_and_in_between_replies_whatever_their_size() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "");
    for hello in ["2", "3"] {
        let mut subscriber = weir.client();
        subscriber.command(&["HELLO", hello]);
        let mark = if hello == "3" { '>' } else { '*' };
        subscriber.expect_command(
            &["SUBSCRIBE", "x"],
            format!("{mark}3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n"),
        );
        let mut publisher = weir.client();
        let sizes = [1, 100, 20_000, 300_000, 10, 70_000, 0, 1];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for size in sizes {
                    publisher.expect_command(&["PUBLISH", "x", &"m".repeat(size)], ":1\r\n");
                }
            });
            for size in sizes {
                subscriber.expect(format!(
                    "{mark}3\r\n$7\r\nmessage\r\n$1\r\nx\r\n${size}\r\n{}\r\n",
                    "m".repeat(size)
                ));
            }
        });
        if hello == "3" {
            // Its own commands are answered among the messages.
            for number in 0..50 {
                publisher.send(encode(&["PUBLISH", "x", &number.to_string()]));
                subscriber.send(encode(&["INCR", "n"]));
            }
            let (mut messages, mut replies) = (0, 0);
            while messages < 50 || replies < 50 {
                let frame = String::from_utf8(subscriber.read_reply()).expect("text");
                if frame.starts_with('>') {
                    assert!(frame.ends_with(&format!("\r\n{messages}\r\n")), "{frame:?}");
                    messages += 1;
                } else {
                    replies += 1;
                    assert_eq!(frame, format!(":{replies}\r\n"));
                }
            }
            for _ in 0..50 {
                publisher.expect(":1\r\n");
            }
        }
    }
}

#[test]
fn an_idle_subscriber_is_not_closed_and_an_unsubscribed_one_gives_its_connection_back() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "[route.main.clients]\nidle_timeout = \"2s\"\n");
    let mut subscriber = weir.client();
    subscriber.expect_command(
        &["SUBSCRIBE", "x"],
        "*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n",
    );
    let mut blocked = weir.client();
    blocked.send(encode(&["BLPOP", "k", "0"]));
    let mut idle = weir.client();
    idle.expect_command(&["PING"], "+PONG\r\n");
    idle.expect_closed();
    weir.client()
        .expect_command(&["PUBLISH", "x", "m"], ":1\r\n");
    subscriber.expect("*3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$1\r\nm\r\n");
    weir.client().expect_command(&["RPUSH", "k", "v"], ":1\r\n");
    blocked.expect("*2\r\n$1\r\nk\r\n$1\r\nv\r\n");
    assert_eq!(connections(&weir, "subscription"), 1.0);
    subscriber.expect_command(
        &["UNSUBSCRIBE", "x"],
        "*3\r\n$11\r\nunsubscribe\r\n$1\r\nx\r\n:0\r\n",
    );
    subscriber.expect_command(&["PING"], "+PONG\r\n");
    wait_until("the connection is given back", || {
        connections(&weir, "subscription") == 0.0
    });
}
