//! One connection for all: every message to everybody it is for, in order.

use super::support::{ConnectionWatch, RawClient, RedisServer, encode, wait_until};
use super::{confirmation, connections, message, pattern_message, subscriber, weir};

#[test]
fn many_subscribers_on_many_channels_take_one_connection_and_get_every_message_in_order() {
    const CHANNELS: usize = 10;
    const SUBSCRIBERS: usize = 60;
    const MESSAGES: usize = 200;
    let redis = RedisServer::start();
    let weir = weir(&redis, "");
    // The connection of the first probe is there as well, and one for the publishers.
    let watch = ConnectionWatch::start(&redis);
    let mut subscribers: Vec<(u8, [String; 2], RawClient)> = (0..SUBSCRIBERS)
        .map(|number| {
            let version = 2 + (number % 2) as u8;
            let own = [number, number + 3].map(|number| format!("c{}", number % CHANNELS));
            let client = subscriber(&weir, version, &[&own[0], &own[1]]);
            (version, own, client)
        })
        .collect();
    assert_eq!(connections(&weir), 1.0);
    assert_eq!(
        weir.metric("weir_pubsub_subscribers", &[]),
        SUBSCRIBERS as f64
    );
    assert_eq!(weir.metric("weir_pubsub_channels", &[]), CHANNELS as f64);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut publisher = weir.client();
            for number in 0..MESSAGES {
                let channel = format!("c{}", number * 7 % CHANNELS);
                publisher.send(encode(&["PUBLISH", &channel, &format!("message {number}")]));
            }
            let receivers = SUBSCRIBERS * 2 / CHANNELS;
            for _ in 0..MESSAGES {
                publisher.expect(format!(":{receivers}\r\n"));
            }
        });
        for (version, own, client) in &mut subscribers {
            for number in 0..MESSAGES {
                let channel = format!("c{}", number * 7 % CHANNELS);
                if own.contains(&channel) {
                    client.expect(message(*version, &channel, &format!("message {number}")));
                }
            }
            client.expect_nothing_pending();
        }
    });
    let out = (SUBSCRIBERS * 2 / CHANNELS * MESSAGES) as f64;
    weir.wait_for_metric("weir_pubsub_messages_out_total", &[], out);
    weir.wait_for_metric("weir_pubsub_messages_in_total", &[], MESSAGES as f64);
    drop(subscribers);
    wait_until("nothing is subscribed any more", || {
        connections(&weir) == 0.0 && weir.metric("weir_pubsub_channels", &[]) == 0.0
    });
    // One for subscriptions; shared ones, control and probes are as many as they were.
    watch.assert_at_most(12);
    assert_eq!(redis.command(&["PUBSUB", "CHANNELS"]), b"*0\r\n");
}

#[test]
fn the_copy_of_the_channel_comes_before_those_of_its_patterns() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "");
    for version in [2, 3] {
        let mut client = subscriber(&weir, version, &["news.art"]);
        let patterns = ["news.*", "n*t", "*"];
        for (index, pattern) in patterns.iter().enumerate() {
            client.expect_command(
                &["PSUBSCRIBE", pattern],
                confirmation(version, "psubscribe", pattern, index + 2),
            );
        }
        // Others are subscribed to the same in another order.
        let mut other = weir.client();
        other.command(&["HELLO", "3"]);
        other.send(encode(&["PSUBSCRIBE", "*", "n*t"]));
        other.expect(confirmation(3, "psubscribe", "*", 1));
        other.expect(confirmation(3, "psubscribe", "n*t", 2));
        let mut publisher = weir.client();
        publisher.expect_command(&["PUBLISH", "news.art", "m"], ":6\r\n");
        client.expect(message(version, "news.art", "m"));
        let mut copies = [(); 3].map(|()| String::from_utf8(client.read_reply()).expect("text"));
        copies.sort_unstable();
        let mut expected =
            patterns.map(|pattern| pattern_message(version, pattern, "news.art", "m"));
        expected.sort_unstable();
        assert_eq!(copies, expected);
    }
}

#[test]
fn messages_of_any_size_reach_both_protocols_and_all_workers_whole() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "");
    let mut clients: Vec<_> = (0..12)
        .map(|number| 2 + number % 2)
        .map(|version| (version, subscriber(&weir, version, &["x", "y"])))
        .collect();
    let sizes = [0, 1, 1000, 300_000, 5, 70_000, 2_000_000, 16_384, 3];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut publisher = weir.client();
            for (index, size) in sizes.into_iter().enumerate() {
                let channel = ["x", "y"][index % 2];
                publisher.expect_command(&["PUBLISH", channel, &"m".repeat(size)], ":12\r\n");
            }
        });
        for (version, client) in &mut clients {
            let (version, client) = (*version, client);
            scope.spawn(move || {
                for (index, size) in sizes.into_iter().enumerate() {
                    let channel = ["x", "y"][index % 2];
                    client.expect(message(version, channel, &"m".repeat(size)));
                }
            });
        }
    });
}

#[test]
fn nothing_from_before_a_subscription_is_delivered_and_everything_after_it_is() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "");
    // The feed has the channel all the time.
    let _other = subscriber(&weir, 2, &["x"]);
    let mut publisher = redis.client();
    let mut client = weir.client();
    for round in 0..200 {
        // Published before the subscription is asked for, and surely not read by Weir yet
        // in some of the rounds.
        publisher.send(encode(&["PUBLISH", "x", "before"]));
        publisher.expect(":1\r\n");
        client.send(encode(&["SUBSCRIBE", "x"]));
        client.expect(confirmation(2, "subscribe", "x", 1));
        let text = format!("after {round}");
        publisher.expect_command(&["PUBLISH", "x", &text], ":1\r\n");
        client.send(encode(&["UNSUBSCRIBE", "x"]));
        client.expect(message(2, "x", &text));
        client.expect(confirmation(2, "unsubscribe", "x", 0));
    }
}

#[test]
fn a_client_s_own_publication_reaches_it_right_after_it_has_subscribed() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "");
    for round in 0..100 {
        let mut client = weir.client();
        client.command(&["HELLO", "3"]);
        let channel = format!("c{round}");
        let both = [
            encode(&["SUBSCRIBE", &channel]),
            encode(&["PUBLISH", &channel, "m"]),
            encode(&["PING"]),
        ];
        client.send(both.concat());
        client.expect(confirmation(3, "subscribe", &channel, 1));
        let own = message(3, &channel, "m");
        if redis.compatible_version() >= (7, 2) {
            client.expect(format!(":1\r\n{own}+PONG\r\n"));
        } else {
            client.expect(format!("{own}:1\r\n+PONG\r\n"));
        }
    }
}
