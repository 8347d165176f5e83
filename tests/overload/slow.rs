//! Commands that take Redis long have a concurrency of their own, and what is slow is what
//! Redis says took long.

use super::support::{RawClient, RedisServer, WeirProcess, encode, wait_until};
use super::weir_with;

/// One worker, one slow command at a time, and costs asked for often.
fn weir(redis: &RedisServer) -> WeirProcess {
    weir_with(
        redis,
        "slow_in_flight = 1",
        "health.watch_interval = \"100ms\"\ntimeouts.stall = \"10s\"",
    )
}

fn clients(weir: &WeirProcess) -> [RawClient; 3] {
    std::array::from_fn(|_| {
        let mut client = weir.client();
        client.expect_command(&["PING"], "+PONG\r\n");
        client
    })
}

/// How many of these commands are sent while Redis stands still, and how many wait here.
fn sent_and_waiting(
    redis: &mut RedisServer,
    weir: &WeirProcess,
    commands: &[&[&str]],
) -> (usize, usize) {
    let mut clients = clients(weir);
    redis.stop();
    for (client, command) in clients.iter_mut().zip(commands) {
        client.send(encode(command));
    }
    let count = |name| weir.metric(name, &[]) as usize;
    let mut seen = (0, 0);
    wait_until("all have arrived", || {
        seen = (
            count("weir_commands_in_flight"),
            count("weir_commands_waiting"),
        );
        seen.0 + seen.1 == commands.len()
    });
    redis.cont();
    for client in clients.iter_mut().take(commands.len()) {
        client.read_reply();
    }
    wait_until("all are answered", || {
        count("weir_commands_in_flight") + count("weir_commands_waiting") == 0
    });
    seen
}

const CHEAP_SCRIPT: [&str; 3] = ["EVAL", "return 1", "0"];

#[test]
fn quick_commands_do_not_wait_behind_slow_ones() {
    let mut redis = RedisServer::start();
    let weir = weir_with(
        &redis,
        "slow_in_flight = 1",
        "health.watch_interval = \"0\"\ntimeouts.stall = \"10s\"",
    );
    // Nobody has said yet what EVAL takes, so it counts as slow.
    let commands: [&[&str]; 3] = [&CHEAP_SCRIPT, &CHEAP_SCRIPT, &["GET", "k"]];
    assert_eq!(sent_and_waiting(&mut redis, &weir, &commands), (2, 1));
    let commands: [&[&str]; 3] = [&["GET", "k"], &["GET", "k"], &CHEAP_SCRIPT];
    assert_eq!(sent_and_waiting(&mut redis, &weir, &commands), (3, 0));
}

#[test]
fn what_redis_says_is_cheap_is_not_slow() {
    let mut redis = RedisServer::start();
    let weir = weir(&redis);
    let mut client = weir.client();
    let commands: [&[&str]; 2] = [&CHEAP_SCRIPT, &CHEAP_SCRIPT];
    wait_until("scripts are found to be cheap", || {
        client.expect_command(&CHEAP_SCRIPT, ":1\r\n");
        sent_and_waiting(&mut redis, &weir, &commands) == (2, 0)
    });
}

#[test]
fn a_command_is_slow_for_the_key_that_makes_it_so() {
    let mut redis = RedisServer::with(&["--slowlog-log-slower-than", "3000"]);
    let weir = weir(&redis);
    redis.command(&[
        "EVAL",
        "for i = 1, 100000 do redis.call('HSET', 'large', i, i) end redis.call('HSET', 'small', 1, 1)",
        "0",
    ]);
    let mut client = weir.client();
    let large: [&[&str]; 2] = [&["HGETALL", "large"], &["HGETALL", "large"]];
    // Many that are cheap: by its mean the command stays quick.
    wait_until("the large one is found to be slow", || {
        client.send(encode(&["HGETALL", "small"]).repeat(300));
        client.expect("*2\r\n$1\r\n1\r\n$1\r\n1\r\n".repeat(300));
        sent_and_waiting(&mut redis, &weir, &large) == (1, 1)
    });
    let small: [&[&str]; 2] = [&["HGETALL", "small"], &["HGETALL", "small"]];
    wait_until("the small one is quick", || {
        client.send(encode(&["HGETALL", "small"]).repeat(300));
        client.expect("*2\r\n$1\r\n1\r\n$1\r\n1\r\n".repeat(300));
        sent_and_waiting(&mut redis, &weir, &small) == (2, 0)
    });
}
