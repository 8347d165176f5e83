//! What several clients say and hear, byte for byte as at Redis.

use super::support::{RawClient, RedisServer, dialogue, encode};
use super::weir;

#[rustfmt::skip] // one dialogue, one line
const DIALOGUES: &[&[&str]] = &[
    // Counts.
    &["a SUBSCRIBE x", "b SUBSCRIBE x", "c PUBLISH x 1", "a:1", "b:1", "b UNSUBSCRIBE x", "c PUBLISH x 2", "a:1", "@gone a", "b PUBLISH y 3"],
    &["a PSUBSCRIBE n*", "b SUBSCRIBE news", "c PSUBSCRIBE *s", "d PUBLISH news 1", "a:1", "b:1", "c:1", "d PUBLISH none 1", "a:1"],
    &["a SUBSCRIBE x", "b SUBSCRIBE x", "b SUBSCRIBE y", "c PUBSUB NUMSUB x y z", "c PUBSUB NUMSUB", "c PUBSUB NUMPAT", "d HELLO 3", "d PUBSUB NUMSUB x y"],
    &["@since 7.0", "a SSUBSCRIBE x", "b SSUBSCRIBE x", "b SUBSCRIBE x", "c SPUBLISH x 1", "a:1", "b:1", "c PUBLISH x 2", "b:1", "c PUBSUB SHARDNUMSUB x y", "c PUBSUB SHARDCHANNELS", "a SUNSUBSCRIBE", "b SUNSUBSCRIBE x"],
    &["a SUBSCRIBE x", "b SUBSCRIBE x", "c MULTI", "c SET k v", "c EXEC", "c PUBSUB CHANNELS"],
    // Again, and what was not there.
    &["a SUBSCRIBE x", "a SUBSCRIBE x", "a:2 SUBSCRIBE x y", "b PUBLISH x 1", "a:1", "a UNSUBSCRIBE z", "a:3 UNSUBSCRIBE x z x", "b PUBLISH x 2", "b PUBLISH y 3", "a:1"],
    &["a SUBSCRIBE x", "a PUNSUBSCRIBE", "a PUNSUBSCRIBE p", "a UNSUBSCRIBE", "a GET k"],
    &["@since 7.0", "a SUBSCRIBE x", "a SSUBSCRIBE s", "a PSUBSCRIBE p", "a SUNSUBSCRIBE", "a SUNSUBSCRIBE", "a UNSUBSCRIBE", "a PUNSUBSCRIBE", "a GET k"],
    &["a HELLO 3", "a SUBSCRIBE x", "a PUNSUBSCRIBE", "a UNSUBSCRIBE", "a UNSUBSCRIBE", "a GET k"],
    // Everybody his own protocol.
    &["a HELLO 3", "a SUBSCRIBE x", "b SUBSCRIBE x", "c PUBLISH x 1", "a:1", "b:1", "a PSUBSCRIBE *", "b PSUBSCRIBE *", "c PUBLISH x 2", "a:2", "b:2"],
    &["a HELLO 3", "b SUBSCRIBE x", "a SUBSCRIBE x", "a HELLO 2", "c PUBLISH x 1", "a:1", "b:1", "a PING", "a PING hi", "a HELLO 3"],
    &["a HELLO 3", "a SUBSCRIBE x", "a PING", "a PING hi", "a PING a b", "a ECHO e"],
    // A client's own messages.
    &["a HELLO 3", "a SUBSCRIBE x", "a:2 PUBLISH x 1", "a GET k"],
    &["a HELLO 3", "a SUBSCRIBE x", "b SUBSCRIBE x", "a:2 PUBLISH x 1", "b:1", "a SET k v", "a:2 PUBLISH x 2", "a GET k", "a PUBLISH y 3"],
    &["@since 7.0", "a HELLO 3", "a SSUBSCRIBE x", "a:2 SPUBLISH x 1", "a GET k"],
    // Unwanted replies, and wanted messages.
    &["a:0 CLIENT REPLY OFF", "a SUBSCRIBE x", "a:0 PING", "a:0 GET k", "b PUBLISH x 1", "a:1", "a UNSUBSCRIBE x"],
    &["a:0 CLIENT REPLY SKIP", "a SUBSCRIBE x", "a PING", "b PUBLISH x 1", "a:1"],
    // What Redis says of keys.
    &["b CONFIG SET notify-keyspace-events KEA", "a PSUBSCRIBE __key*__:*", "c SUBSCRIBE __keyspace@0__:k", "b SET k v", "a:2", "c:1", "b SELECT 3", "b SET k v", "a:2", "b CONFIG SET notify-keyspace-events E"],
    // Where there is a connection already.
    &["a HELLO 3", "a WATCH k", "a SUBSCRIBE x", "b PUBLISH x 1", "a:1", "a MULTI", "a SET k v", "a EXEC", "b PUBLISH x 2", "a:1", "a UNSUBSCRIBE x", "a GET k"],
    &["a HELLO 3", "a SUBSCRIBE x", "a WATCH k", "a SUBSCRIBE y", "b PUBLISH y 1", "a:1", "a MULTI", "a SET k v", "a EXEC", "b PUBLISH x 2", "a:1"],
    &["a HELLO 3", "a CLIENT TRACKING ON", "a SUBSCRIBE x", "a GET k", "b SET k v", "a:1", "b PUBLISH x 1", "a:1", "a CLIENT TRACKING OFF", "b PUBLISH x 2", "a:1"],
    &["a HELLO 3", "a SUBSCRIBE x", "a CLIENT TRACKING ON", "a GET k", "b SET k w", "a:1", "b PUBLISH x 1", "a:1", "a UNSUBSCRIBE x", "a GET k"],
    &["a HELLO 3", "a SUBSCRIBE x", "a:0 BLPOP k 0", "@blocked 1", "b PUBLISH x 1", "a:1", "b RPUSH k v", "a:1"],
    &["a WATCH k", "a SUBSCRIBE x", "b PUBLISH x 1", "a:1", "a PING", "a UNSUBSCRIBE x", "a UNWATCH", "a GET k"],
    // Starting anew.
    &["a HELLO 3", "a SUBSCRIBE x", "b SUBSCRIBE x", "a RESET", "b PING", "c PUBLISH x 1", "b:1", "a SUBSCRIBE x", "c PUBLISH x 2", "a:1", "b:1"],
    &["a SELECT 3", "a SUBSCRIBE x", "b PUBLISH x 1", "a:1", "a UNSUBSCRIBE x", "a SET k three", "b SELECT 3", "b GET k"],
    // Wrong.
    &["a SUBSCRIBE", "a PSUBSCRIBE", "a UNSUBSCRIBE x", "a PUBLISH x", "a PUBSUB", "a PUBSUB NOPE", "a PUBSUB NUMSUB x"],
];

#[test]
fn each_client_hears_what_it_would_of_redis() {
    let redis = RedisServer::start();
    let behind = RedisServer::start();
    let weir = weir(&behind, "");
    dialogue::compare(&redis, &behind, weir.address(), DIALOGUES);
    assert!(!weir.log().contains("panicked"), "{}", weir.log());
}

/// Libraries do not wait for confirmations: what is asked while others are under way builds on
/// them, also if one of them is refused.
#[rustfmt::skip] // one pipeline, one line
const PIPELINES: &[&[&str]] = &[
    &["SUBSCRIBE x", "UNSUBSCRIBE x", "SUBSCRIBE x", "PING"],
    &["SUBSCRIBE x y", "SUBSCRIBE y z z", "UNSUBSCRIBE y x", "UNSUBSCRIBE", "UNSUBSCRIBE", "GET k"],
    &["SUBSCRIBE x", "PSUBSCRIBE x", "PUNSUBSCRIBE x", "SSUBSCRIBE x", "UNSUBSCRIBE x", "SUNSUBSCRIBE", "GET k"],
    &["SUBSCRIBE x", "SUBSCRIBE", "SUBSCRIBE y", "PING", "UNSUBSCRIBE x y", "ECHO e", "SUBSCRIBE x"],
    &["SUBSCRIBE no", "SUBSCRIBE no", "UNSUBSCRIBE no", "SUBSCRIBE x", "UNSUBSCRIBE", "GET k"],
    &["SUBSCRIBE x no", "UNSUBSCRIBE x", "SUBSCRIBE x", "UNSUBSCRIBE", "SUBSCRIBE no", "GET k"],
    &["SUBSCRIBE x", "UNSUBSCRIBE x", "RESET", "SUBSCRIBE y", "QUIT"],
];

#[test]
fn subscriptions_in_a_pipeline_build_on_each_other() {
    let redis = RedisServer::start();
    let behind = RedisServer::start();
    let weir = weir(&behind, "");
    for server in [&redis, &behind] {
        let rule = "ACL SETUSER default resetchannels &x &y &z";
        let rule: Vec<&str> = rule.split(' ').collect();
        assert_eq!(server.command(&rule), b"+OK\r\n");
    }
    for hello in ["HELLO 2", "HELLO 3"] {
        for pipeline in PIPELINES {
            let lines = std::iter::once(&hello).chain(*pipeline);
            let mut input: Vec<u8> = lines
                .flat_map(|line| encode(&line.split(' ').collect::<Vec<_>>()))
                .collect();
            input.extend(encode(&["RESET"]));
            input.extend(encode(&["ECHO", "the end"]));
            let told = |mut client: RawClient| {
                client.send(&input);
                let mut told = Vec::new();
                while !told.ends_with(b"$7\r\nthe end\r\n") {
                    match client.read_some() {
                        Ok(some) if !some.is_empty() => told.extend(some),
                        _ => break,
                    }
                }
                let told = String::from_utf8(told).expect("text");
                // Each server has numbers of its own for its clients.
                let mut lines = told.lines();
                let mut kept = Vec::new();
                while let Some(line) = lines.next() {
                    kept.push(line.to_owned());
                    if line == "id" {
                        lines.next();
                    }
                }
                kept
            };
            let (direct, through) = (told(redis.client()), told(weir.client()));
            assert_eq!(through, direct, "{hello}: {pipeline:?}");
        }
    }
    // Nothing of it is left.
    assert_eq!(behind.command(&["PUBSUB", "NUMPAT"]), b":0\r\n");
    super::support::wait_until("Redis has no channels", || {
        behind.command(&["PUBSUB", "CHANNELS"]) == b"*0\r\n"
    });
}
