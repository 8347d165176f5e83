//! `PUBLISH` and `PUBSUB NUMSUB` count clients, not connections of Weir.

use std::collections::BTreeMap;

use super::support::{RedisServer, encode};
use super::{subscriber, weir};

#[test]
fn whoever_publishes_is_told_how_many_clients_got_it() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "");
    let mut on_x: Vec<_> = (0..7).map(|_| subscriber(&weir, 2, &["x"])).collect();
    let _on_y = subscriber(&weir, 3, &["y"]);
    let mut publisher = weir.client();
    publisher.expect_command(&["PUBLISH", "x", "m"], ":7\r\n");
    publisher.expect_command(&["PUBLISH", "y", "m"], ":1\r\n");
    publisher.expect_command(&["PUBLISH", "z", "m"], ":0\r\n");
    publisher.expect_command(
        &["PUBSUB", "NUMSUB", "x", "y", "z"],
        "*6\r\n$1\r\nx\r\n:7\r\n$1\r\ny\r\n:1\r\n$1\r\nz\r\n:0\r\n",
    );
    // In one pipeline, with other things and errors in between.
    let mut pipeline = Vec::new();
    for channel in ["x", "y", "x", "z"] {
        pipeline.extend(encode(&["PUBLISH", channel, "m"]));
        pipeline.extend(encode(&["PUBLISH", channel]));
        pipeline.extend(encode(&["SET", "k", channel]));
    }
    publisher.send(pipeline);
    for count in [7, 1, 7, 0] {
        publisher.expect(format!(
            ":{count}\r\n-ERR wrong number of arguments for 'publish' command\r\n+OK\r\n"
        ));
    }
    // Clients that leave do not count; one that has unsubscribed neither.
    for left in (4..7).rev() {
        let mut client = on_x.pop().expect("seven");
        client.send(encode(&["UNSUBSCRIBE", "x"]));
        while !client.read_reply().starts_with(b"*3\r\n$11\r\nunsubscribe") {}
        publisher.expect_command(&["PUBLISH", "x", "m"], format!(":{left}\r\n"));
    }
}

/// What Redis counts for a publication of which it is known how the patterns match.
#[test]
fn patterns_match_here_as_they_do_at_redis() {
    let redis = RedisServer::start();
    let direct = RedisServer::start();
    let weir = weir(&redis, "");
    let patterns = [
        "*", "?", "a*", "*a", "a?c", "[ab]c", "[^ab]c", "[a-c]*", "[c-a]*", "\\*", "a\\", "[a",
        "[^", "[]", "[a-", "a**b", "*b*c*", "[\\]]", "a[^b-d]e", "",
    ];
    let channels = [
        "", "a", "b", "ac", "bc", "cc", "abc", "*", "a\\", "[a", "]", "-", "a-", "aab", "xbycz",
        "aae", "abe", "azzb", "[", "[]",
    ];
    let mut clients = Vec::new();
    for (number, pattern) in patterns.iter().enumerate() {
        // As many of each as tells it from the others, here; one, there.
        for _ in 0..2 + number % 3 {
            let mut client = weir.client();
            client.command(&["PSUBSCRIBE", pattern]);
            clients.push(client);
            let mut client = direct.client();
            client.command(&["PSUBSCRIBE", pattern]);
            clients.push(client);
        }
    }
    let (mut through, mut there) = (weir.client(), direct.client());
    let mut counts = BTreeMap::new();
    for channel in channels {
        let command = ["PUBLISH", channel, "m"];
        let count = there.command(&command);
        assert_eq!(through.command(&command), count, "{channel:?}");
        *counts.entry(count).or_insert(0) += 1;
    }
    assert!(counts.len() > 5, "the channels do not differ: {counts:?}");
}

#[test]
fn client_list_shows_what_each_is_subscribed_to() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "");
    let mut client = subscriber(&weir, 3, &["x", "y"]);
    client.command(&["PSUBSCRIBE", "p*"]);
    let _other = subscriber(&weir, 2, &["x"]);
    let mut operator = weir.client();
    operator.send(encode(&["CLIENT", "LIST", "TYPE", "pubsub"]));
    let list = operator.read_text();
    assert_eq!(list.lines().count(), 2, "{list}");
    assert!(list.contains(" sub=2 psub=1 "), "{list}");
    assert!(list.contains(" sub=1 psub=0 "), "{list}");
    operator.expect_command(&["CLIENT", "KILL", "TYPE", "pubsub"], ":2\r\n");
    client.expect_closed();
}
