//! How a wait ends when nothing comes: timeouts, `CLIENT UNBLOCK`, pauses, clients that go.

use std::time::{Duration, Instant};

use super::support::{RawClient, RedisServer, encode, wait_until};
use super::{blocked, crowded, weir};

fn id_of(client: &mut RawClient) -> String {
    let id = String::from_utf8(client.command(&["CLIENT", "ID"])).expect("a number");
    id.trim_start_matches(':').trim_end().to_owned()
}

#[test]
fn each_of_many_is_told_at_its_own_time_and_not_before() {
    let redis = RedisServer::start();
    let (weir, _crowd) = crowded(&redis, "");
    let mut clients: Vec<_> = (0..200_u64)
        .map(|number| {
            let mut client = weir.client();
            let timeout = 50 + 7 * (number * 37 % 100);
            let seconds = format!("{}", timeout as f64 / 1000.0);
            let asked = Instant::now();
            client.send(encode(&["BLPOP", &format!("k{}", number % 20), &seconds]));
            (client, asked, Duration::from_millis(timeout))
        })
        .collect();
    clients.sort_by_key(|(_, asked, timeout)| *asked + *timeout);
    for (client, asked, timeout) in &mut clients {
        client.expect("*-1\r\n");
        assert!(asked.elapsed() >= *timeout, "too early");
    }
    assert_eq!(weir.metric("weir_blocked_orphans_total", &[]), 0.0);
}

#[test]
fn a_shared_wait_is_unblocked_by_its_client_s_id() {
    let redis = RedisServer::start();
    for process in ["[process]\nworkers = 1\n", "[process]\nworkers = 2\n"] {
        let (weir, crowd) = crowded(&redis, process);
        let mut other = weir.client();
        for command in [
            &["BLPOP", "k", "0"][..],
            &["BLPOP", "a", "b", "0"],
            &["XREAD", "BLOCK", "0", "STREAMS", "s", "$"],
        ] {
            for (how, reply) in [
                (&[][..], "*-1\r\n"),
                (&["TIMEOUT"], "*-1\r\n"),
                (
                    &["ERROR"],
                    "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n",
                ),
            ] {
                let mut client = weir.client();
                let id = id_of(&mut client);
                client.send(encode(command));
                wait_until("it is blocked", || blocked(&weir) == crowd.len() + 1);
                let list =
                    String::from_utf8(other.command(&["CLIENT", "LIST", "ID", &id])).expect("text");
                let cmd = format!("cmd={}", command[0].to_lowercase());
                assert!(list.contains(" flags=b ") && list.contains(&cmd), "{list}");
                other.expect_command(&[&["CLIENT", "UNBLOCK", &id], how].concat(), ":1\r\n");
                client.expect(reply);
                other.expect_command(&["CLIENT", "UNBLOCK", &id], ":0\r\n");
                client.expect_command(&["PING"], "+PONG\r\n");
            }
        }
        wait_until("nobody waits at Redis for them", || {
            redis.info("clients", "blocked_clients") == crowd.len().to_string()
        });
        other.expect_command(&["RPUSH", "k", "x"], ":1\r\n");
        other.expect_command(&["LLEN", "k"], ":1\r\n");
        redis.command(&["FLUSHALL"]);
    }
}

#[test]
fn a_client_in_line_is_unblocked_and_times_out_there() {
    let redis = RedisServer::start();
    let weir = weir(
        &redis,
        "max_blocking = 1\nmax_blocking_shared = 0\nlease_wait = \"20s\"\n",
    );
    redis.command(&["XGROUP", "CREATE", "s", "g", "$", "MKSTREAM"]);
    let read = |timeout| {
        encode(&[
            "XREADGROUP",
            "GROUP",
            "g",
            "c",
            "BLOCK",
            timeout,
            "STREAMS",
            "s",
            ">",
        ])
    };
    let mut holder = weir.client();
    holder.send(read("0"));
    wait_until("it is blocked", || blocked(&weir) == 1);
    let mut other = weir.client();
    for (how, reply) in [
        ("TIMEOUT", "*-1\r\n"),
        (
            "ERROR",
            "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n",
        ),
    ] {
        let mut client = weir.client();
        let id = id_of(&mut client);
        client.send(read("0"));
        wait_until("it is in line", || {
            weir.metric("weir_clients_blocked", &["way=\"in_line\""]) == 1.0
        });
        other.expect_command(&["CLIENT", "UNBLOCK", &id, how], ":1\r\n");
        client.expect(reply);
    }
    let mut client = weir.client();
    client.send(read("50"));
    client.expect("*-1\r\n");
    client.expect_command(&["PING"], "+PONG\r\n");
    other.expect_command(&["XADD", "s", "1-1", "f", "v"], "$3\r\n1-1\r\n");
    assert!(holder.read_reply().starts_with(b"*1\r\n"));
}

#[test]
fn who_leaves_takes_nothing_with_it() {
    let redis = RedisServer::start();
    let (weir, crowd) = crowded(&redis, "");
    let mut other = weir.client();
    for round in 0..20 {
        let mut gone = weir.client();
        gone.send(encode(&["BLPOP", "k", "0"]));
        wait_until("it is blocked", || blocked(&weir) == crowd.len() + 1);
        match round % 3 {
            0 => drop(gone),
            1 => gone.reset(),
            _ => gone.half_close(),
        }
        wait_until("it is gone", || blocked(&weir) == crowd.len());
        // The wait upstream ends soon, and then what is pushed stays.
        wait_until("nobody waits at Redis for it", || {
            redis.info("clients", "blocked_clients") == crowd.len().to_string()
        });
        other.expect_command(&["RPUSH", "k", "x"], ":1\r\n");
        other.expect_command(&["LPOP", "k"], "$1\r\nx\r\n");
    }
    assert_eq!(weir.metric("weir_blocked_orphans_total", &[]), 0.0);
}

#[test]
fn a_pause_holds_joins_and_leaves_and_redis_survives_it() {
    let redis = RedisServer::start();
    let (weir, crowd) = crowded(&redis, "");
    // Once Weir knows of the pause, once it was begun behind its back.
    for behind_its_back in [false, true] {
        let mut waiting = weir.client();
        waiting.send(encode(&["BLPOP", "k", "0"]));
        wait_until("it is blocked", || blocked(&weir) == crowd.len() + 1);
        let pause = ["CLIENT", "PAUSE", "400", "WRITE"];
        match behind_its_back {
            false => weir.client().expect_command(&pause, "+OK\r\n"),
            true => redis.client().expect_command(&pause, "+OK\r\n"),
        }
        // Joins, and one that leaves again at once.
        let mut joins: Vec<_> = (0..10).map(|_| weir.client()).collect();
        for (number, client) in joins.iter_mut().enumerate() {
            client.send(encode(&["BLPOP", &format!("j{number}"), "0"]));
        }
        let mut leaves = weir.client();
        leaves.send(encode(&["BLPOP", "l", "0.05"]));
        leaves.expect("*-1\r\n");
        wait_until("all have joined", || blocked(&weir) == crowd.len() + 11);
        let mut other = weir.client();
        for (number, client) in joins.iter_mut().enumerate() {
            other.expect_command(&["RPUSH", &format!("j{number}"), "x"], ":1\r\n");
            client.expect(format!("*2\r\n$2\r\nj{number}\r\n$1\r\nx\r\n"));
        }
        other.expect_command(&["RPUSH", "k", "x"], ":1\r\n");
        waiting.expect("*2\r\n$1\r\nk\r\n$1\r\nx\r\n");
    }
    assert!(!redis.log().contains("crash"), "{}", redis.log());
}

#[test]
fn where_nobody_may_be_unblocked_waits_come_in_slices() {
    let redis = RedisServer::start();
    redis.command(&["ACL", "SETUSER", "default", "-client|unblock"]);
    let (weir, crowd) = crowded(&redis, "");
    let mut first = weir.client();
    first.send(encode(&["BLPOP", "k", "0"]));
    wait_until("it is blocked", || blocked(&weir) == crowd.len() + 1);
    let mut second = weir.client();
    second.send(encode(&["BLPOP", "l", "0"]));
    let mut third = weir.client();
    third.send(encode(&["BLPOP", "m", "0.05"]));
    third.expect("*-1\r\n");
    wait_until("both are blocked", || blocked(&weir) == crowd.len() + 2);
    let mut other = weir.client();
    other.expect_command(&["RPUSH", "l", "x"], ":1\r\n");
    second.expect("*2\r\n$1\r\nl\r\n$1\r\nx\r\n");
    other.expect_command(&["RPUSH", "k", "x"], ":1\r\n");
    first.expect("*2\r\n$1\r\nk\r\n$1\r\nx\r\n");
}

#[test]
fn one_that_says_no_more_is_answered_if_that_is_possible_at_once() {
    let redis = RedisServer::start();
    let (weir, crowd) = crowded(&redis, "");
    for round in 10..30 {
        let key = format!("k{round}");
        weir.client()
            .expect_command(&["RPUSH", &key, "x"], ":1\r\n");
        let mut client = weir.client();
        client.send(encode(&["BLPOP", &key, "0"]));
        client.half_close();
        client.expect(format!("*2\r\n$3\r\n{key}\r\n$1\r\nx\r\n"));
        client.expect_closed();
        let mut client = weir.client();
        client.send(encode(&["BLPOP", &key, "0"]));
        client.half_close();
        client.expect_closed();
        wait_until("nobody waits at Redis for it", || {
            redis.info("clients", "blocked_clients") == crowd.len().to_string()
        });
    }
    assert_eq!(blocked(&weir), crowd.len());
}
