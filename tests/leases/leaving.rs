//! Clients leave at any moment: their connections come back, and nothing is taken from
//! Redis on behalf of those who have gone.

use std::net::SocketAddr;
use std::time::Duration;

use super::rng::Rng;
use super::support::{ConnectionWatch, RawClient, RedisServer, encode, wait_until};
use super::{connections, weir};

#[test]
fn a_blocked_client_that_leaves_frees_its_connection_and_pops_nothing() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "max_blocking = 1\nlease_wait = \"20s\"\n");
    let leave: [fn(RawClient); 2] = [drop, RawClient::reset];
    for leave in leave {
        let mut blocked = weir.client();
        blocked.send(encode(&["BLPOP", "k", "0"]));
        wait_until("it is blocked", || {
            redis.info("clients", "blocked_clients") == "1"
        });
        // One in line, who leaves as well.
        let mut in_line = weir.client();
        in_line.send(encode(&["BLPOP", "k", "0"]));
        wait_until("the other is in line", || {
            weir.metric("weir_leases_waiting", &[]) == 1.0
        });
        leave(in_line);
        leave(blocked);
        wait_until("nobody is blocked", || {
            redis.info("clients", "blocked_clients") == "0"
                && weir.metric("weir_leases_waiting", &[]) == 0.0
                && weir.metric("weir_leases_held", &[]) == 0.0
        });
        redis
            .client()
            .expect_command(&["RPUSH", "k", "x"], ":1\r\n");
        // The connection serves the next.
        weir.client().expect_command(
            &["BLPOP", "other", "k", "0"],
            "*2\r\n$1\r\nk\r\n$1\r\nx\r\n",
        );
    }
}

#[test]
fn a_blocked_client_with_much_behind_its_command_is_missed_as_well() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "");
    let mut blocked = weir.client();
    blocked.send(encode(&["BLPOP", "k", "0"]));
    // More than Weir reads ahead of a client that waits (64 KiB), so that its end is not
    // read; and no more than the kernel takes beside that, or the end would stand behind
    // it in the client's own buffer, where nobody can see it.
    blocked.send(encode(&["PING"]).repeat(5_200));
    wait_until("it is blocked", || {
        redis.info("clients", "blocked_clients") == "1"
    });
    drop(blocked);
    wait_until("nobody is blocked", || {
        redis.info("clients", "blocked_clients") == "0"
    });
    redis
        .client()
        .expect_command(&["RPUSH", "k", "x"], ":1\r\n");
    wait_until("its lease is free", || {
        weir.metric("weir_leases_held", &[]) == 0.0
    });
    redis.client().expect_command(&["LLEN", "k"], ":1\r\n");
}

#[test]
fn whoever_leaves_at_whatever_moment_leaves_no_connection_behind() {
    for workers in [1, 3] {
        let mut rng = Rng::from_environment("leaving");
        let redis = RedisServer::start();
        let budget = 10;
        let weir = weir(
            &redis,
            &format!(
                "max_connections = {budget}\nmax_blocking = 3\nmax_subscriptions = 3\n\
                 max_leases = 3\nlease_wait = \"1s\"\n[process]\nworkers = {workers}\n"
            ),
        );
        let watch = ConnectionWatch::start(&redis);
        std::thread::scope(|scope| {
            for _ in 0..12 {
                let (address, seed) = (weir.address(), rng.next());
                scope.spawn(move || come_and_go(address, seed, 60));
            }
        });
        wait_until("everybody has left", || {
            weir.metric("weir_clients_connected", &[]) == 0.0
        });
        wait_until("no lease is held or waited for", || {
            weir.metric("weir_leases_held", &[]) == 0.0
                && weir.metric("weir_leases_waiting", &[]) == 0.0
        });
        wait_until("nothing is subscribed, monitored or blocked", || {
            redis.info("clients", "blocked_clients") == "0"
                && redis.command(&["PUBSUB", "NUMSUB", "x"]) == b"*2\r\n$1\r\nx\r\n:0\r\n"
                && connections(&weir, "subscription") + connections(&weir, "tunnel") == 0.0
        });
        watch.assert_at_most(budget);
        // All that there may be of a kind is to be had.
        let mut all: Vec<_> = (0..3).map(|_| weir.client()).collect();
        for client in &mut all {
            client.expect_command(
                &["SUBSCRIBE", "x"],
                "*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n",
            );
        }
        let mut all: Vec<_> = (0..3).map(|_| weir.client()).collect();
        for client in &mut all {
            client.expect_command(&["WATCH", "k"], "+OK\r\n");
        }
        assert!(!weir.log().contains("panicked"), "{}", weir.log());
    }
}

/// Asks for something that needs a connection of its own and leaves, somehow, somewhen.
fn come_and_go(address: SocketAddr, seed: u64, times: usize) {
    let mut rng = Rng::new(seed);
    for _ in 0..times {
        let mut client = RawClient::connect(address);
        if rng.once_in(3) {
            client.command(&["HELLO", "3"]);
        }
        if rng.once_in(4) {
            client.command(&["SELECT", "1"]);
        }
        let large = "x".repeat(rng.below(200_000));
        let commands: &[&[&str]] = match rng.below(10) {
            0 => &[&["BLPOP", "nothing", "0"]],
            1 => &[&["BLPOP", "nothing", "0.02"], &["PING"]],
            2 => &[&["SUBSCRIBE", "x", "y"]],
            3 => &[&["SUBSCRIBE", "x"], &["UNSUBSCRIBE", "x"]],
            4 => &[&["MONITOR"]],
            5 => &[&["WATCH", "k"], &["GET", "k"]],
            6 => &[&["WATCH", "k"], &["MULTI"], &["SET", "k", "v"], &["EXEC"]],
            7 => &[&["MULTI"], &["SELECT", "2"], &["SET", "k", "v"]],
            8 => &[&["SYNC"]],
            _ => &[&["SET", "k", &large], &["GET", "k"]],
        };
        let bytes: Vec<u8> = commands
            .iter()
            .flat_map(|command| encode(command))
            .collect();
        let sent = if rng.once_in(4) {
            rng.below(bytes.len())
        } else {
            bytes.len()
        };
        client.send(&bytes[..sent]);
        if rng.once_in(2) {
            client
                .stream()
                .set_read_timeout(Some(Duration::from_millis(1 + rng.below(20) as u64)))
                .expect("a socket option");
            let _ = client.try_read_reply();
        }
        match rng.below(4) {
            0 => client.reset(),
            1 => client.half_close(),
            _ => drop(client),
        }
    }
}
