//! A subscriber that does not read is closed at its own limit and costs nobody else
//! anything.

use super::support::{RedisServer, wait_until};
use super::{message, subscriber, weir};

#[test]
fn one_that_does_not_read_is_closed_and_the_others_get_everything() {
    let redis = RedisServer::start();
    let mut weir = weir(
        &redis,
        "[route.main.clients]\nsubscriber_output_max = \"1MiB\"\n",
    );
    for version in [2, 3] {
        let slow = subscriber(&weir, version, &["x"]);
        let mut fast: Vec<_> = (0..6)
            .map(|number| 2 + number % 2)
            .map(|version| (version, subscriber(&weir, version, &["x"])))
            .collect();
        let text = "m".repeat(100_000);
        let closed = || {
            let reason = ["reason=\"subscriber_limit\""];
            weir.metric("weir_clients_closed_total", &reason)
        };
        let before = closed();
        let mut publisher = weir.client();
        let mut sent = 0;
        wait_until("the slow one is closed", || {
            for _ in 0..20 {
                publisher.command(&["PUBLISH", "x", &text]);
                for (version, client) in &mut fast {
                    client.expect(message(*version, "x", &text));
                }
                sent += 1;
            }
            closed() > before
        });
        assert_eq!(closed(), before + 1.0);
        publisher.expect_command(&["PUBLISH", "x", "m"], ":6\r\n");
        drop(slow);
    }
    weir.wait_for_log("subscriber_output_max");
}

#[test]
fn one_that_stays_behind_for_too_long_is_closed() {
    let redis = RedisServer::start();
    let weir = weir(
        &redis,
        "[route.main.clients]\nsubscriber_output_soft = \"64KiB\"\n\
         subscriber_output_soft_time = \"2s\"\n",
    );
    let _slow = subscriber(&weir, 2, &["x"]);
    let mut fast = subscriber(&weir, 3, &["x"]);
    let text = "m".repeat(1_000_000);
    let mut publisher = weir.client();
    wait_until("the slow one is closed", || {
        if weir.metric("weir_buffered_bytes", &[]) < 1_000_000.0 {
            publisher.command(&["PUBLISH", "x", &text]);
            fast.expect(message(3, "x", &text));
        }
        let reason = ["reason=\"subscriber_soft_limit\""];
        weir.metric("weir_clients_closed_total", &reason) == 1.0
    });
    publisher.expect_command(&["PUBLISH", "x", "m"], ":1\r\n");
    fast.expect(message(3, "x", "m"));
}

#[test]
fn a_message_larger_than_anybody_may_keep_closes_only_those_it_is_for() {
    let redis = RedisServer::start();
    let weir = weir(
        &redis,
        "[route.main.clients]\nsubscriber_output_max = \"1MiB\"\nsubscriber_output_soft = \"1MiB\"\n",
    );
    let mut for_it = subscriber(&weir, 2, &["x"]);
    let mut not_for_it = subscriber(&weir, 2, &["y"]);
    let mut publisher = weir.client();
    publisher.command(&["PUBLISH", "x", &"m".repeat(4 << 20)]);
    for_it.expect_closed();
    publisher.expect_command(&["PUBLISH", "y", "m"], ":1\r\n");
    not_for_it.expect(message(2, "y", "m"));
}
