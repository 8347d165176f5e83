//! Who goes first when Redis has more to do than it can.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use super::support::{RawClient, RedisServer, WeirProcess, wait_until};
use super::{BEHIND, TOO_MUCH, weir_with};

/// Takes Redis about 2 ms.
const SCRIPT: &str = "local t = redis.call('TIME') \
    local from = t[1] * 1000000 + t[2] repeat t = redis.call('TIME') \
    until t[1] * 1000000 + t[2] - from >= 2000 return 1";

/// A client logged in as a user, and so on another connection to Redis than other users are.
fn user(weir: &WeirProcess, name: &str) -> RawClient {
    let mut client = weir.client();
    client.expect_command(&["AUTH", name, "word"], "+OK\r\n");
    client
}

/// Asks once; whether it was served.
fn is_served(client: &mut RawClient) -> bool {
    let reply = client.command(&["EVAL", SCRIPT, "0"]);
    let reply = String::from_utf8_lossy(&reply).into_owned();
    assert!([":1\r\n", TOO_MUCH, BEHIND].contains(&&*reply), "{reply}");
    reply == ":1\r\n"
}

#[test]
fn the_low_are_refused_first_and_the_high_are_served() {
    let redis = RedisServer::start();
    for user in ["shop", "batch"] {
        redis.client().expect_command(
            &["ACL", "SETUSER", user, "on", ">word", "+@all", "~*"],
            "+OK\r\n",
        );
    }
    let weir = weir_with(
        &redis,
        "slow_in_flight = 4\ntarget = \"20ms\"\ninterval = \"100ms\"",
        "[route.main.limits.shop]\nusers = \"shop\"\npriority = \"high\"\n\
         [route.main.limits.batch]\nusers = \"batch\"\npriority = \"low\"\n",
    );
    let (served, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..60 {
            let mut client = user(&weir, "batch");
            let (served, refused, is_over) = (&served, &refused, &is_over);
            scope.spawn(move || {
                while !is_over.load(Relaxed) {
                    match is_served(&mut client) {
                        true => served.fetch_add(1, Relaxed),
                        false => refused.fetch_add(1, Relaxed),
                    };
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
        let shops: Vec<_> = (0..2)
            .map(|_| {
                let mut client = user(&weir, "shop");
                let refused = &refused;
                scope.spawn(move || {
                    wait_until("it is too much", || refused.load(Relaxed) > 100);
                    (0..200).all(|_| is_served(&mut client))
                })
            })
            .collect();
        let all_served = shops.into_iter().all(|shop| shop.join().expect("no panic"));
        is_over.store(true, Relaxed);
        assert!(all_served, "one of high priority was refused");
    });
    assert!(refused.load(Relaxed) > 100);
    assert!(served.load(Relaxed) > 0, "the low get what is left");
}

#[test]
fn an_operator_goes_first() {
    let mut redis = RedisServer::start();
    let weir = weir_with(
        &redis,
        "in_flight = 1\ntarget = \"0s\"",
        "clients.operator_networks = \"127.9.0.0/16\"",
    );
    let mut first = weir.client();
    first.expect_command(&["SET", "order", ""], "+OK\r\n");
    let mut others: Vec<RawClient> = (0..3).map(|_| weir.client()).collect();
    for other in &mut others {
        other.expect_command(&["PING"], "+PONG\r\n");
    }
    let mut operator =
        RawClient::connect_from("127.9.0.1".parse().expect("an address"), weir.address());
    operator.expect_command(&["PING"], "+PONG\r\n");
    redis.stop();
    let waiting = |count: usize| {
        wait_until("they wait", || {
            weir.metric("weir_commands_waiting", &[]) == count as f64
        });
    };
    first.send(super::support::encode(&["APPEND", "order", "0"]));
    wait_until("one is sent", || {
        weir.metric("weir_commands_in_flight", &[]) == 1.0
    });
    for (number, other) in others.iter_mut().enumerate() {
        other.send(super::support::encode(&["APPEND", "order", "1"]));
        waiting(number + 1);
    }
    operator.send(super::support::encode(&["GET", "order"]));
    waiting(4);
    redis.cont();
    operator.expect("$1\r\n0\r\n");
}
