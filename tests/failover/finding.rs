//! The primary is found wherever it stands in the list, and however it was promoted.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::support::{ConnectionWatch, RedisServer, Replicas, wait_until};
use super::{error, wait_for_state, weir, weir_before};

#[test]
fn the_primary_is_found_wherever_it_stands() {
    let replicas = Replicas::start(3);
    for order in [[0, 1, 2], [1, 2, 0], [2, 0, 1]] {
        let weir = weir(&replicas.nodes[0], &replicas.settings(&order), "");
        let mut client = weir.client();
        let key = format!("{order:?}");
        client.expect_command(&["SET", &key, "v"], "+OK\r\n");
        client.expect_command(&["GET", &key], "$1\r\nv\r\n");
        let direct = replicas.nodes[0].command(&["GET", &key]);
        assert_eq!(direct, b"$1\r\nv\r\n");
        wait_for_state(&weir, &replicas.nodes[0], &["standing=\"primary\""]);
        wait_for_state(&weir, &replicas.nodes[1], &["standing=\"follower\""]);
    }
}

#[test]
fn a_node_that_is_promoted_by_hand_is_followed_and_the_old_one_gets_nothing() {
    let replicas = Replicas::start(2);
    let mut weir = weir_before(&replicas, "");
    let mut client = weir.client();
    client.expect_command(&["SET", "k", "1"], "+OK\r\n");
    replicas.wait_until_caught_up(1, 0);
    // The old primary stays one: two say that they are.
    replicas.promote(1, &[]);
    wait_for_state(&weir, &replicas.nodes[1], &["standing=\"primary\""]);
    wait_for_state(&weir, &replicas.nodes[0], &["standing=\"rival\""]);
    client.expect_command(&["SET", "k", "2"], "+OK\r\n");
    assert_eq!(replicas.nodes[1].command(&["GET", "k"]), b"$1\r\n2\r\n");
    assert_eq!(replicas.nodes[0].command(&["GET", "k"]), b"$1\r\n1\r\n");
    weir.wait_for_log("says that it is the primary too");
    weir.wait_for_metric("weir_failovers_total", &[], 1.0);
    replicas.follow(0, 1);
    wait_for_state(&weir, &replicas.nodes[0], &["standing=\"follower\""]);
}

#[test]
fn a_list_that_is_changed_while_weir_runs_is_taken_over() {
    let replicas = Replicas::start(2);
    let more = "[route.main.clients]\noperator_networks = \"127.0.0.1\"\n";
    let weir = weir(&replicas.nodes[0], &replicas.settings(&[0]), more);
    let mut client = weir.client();
    client.expect_command(&["SET", "k", "v"], "+OK\r\n");
    let addresses: Vec<_> = replicas.nodes.iter().map(|it| it.address()).collect();
    let both = format!("[\"{}\", \"{}\"]", addresses[0], addresses[1]);
    let mut operator = weir.client();
    let reply = operator.command(&["WEIR", "CONFIG", "SET", "route.main.backend.nodes", &both]);
    assert!(!reply.starts_with(b"-"), "{}", reply.escape_ascii());
    wait_for_state(&weir, &replicas.nodes[1], &["standing=\"follower\""]);
    client.expect_command(&["GET", "k"], "$1\r\nv\r\n");
    let one = format!("[\"{}\"]", addresses[0]);
    operator.command(&["WEIR", "CONFIG", "SET", "route.main.backend.nodes", &one]);
    let label = format!("node=\"{}\"", addresses[1]);
    wait_until("the node is gone", || {
        weir.metric("weir_node_role", &[&label]) == 0.0
    });
    client.expect_command(&["GET", "k"], "$1\r\nv\r\n");
}

#[test]
fn the_budget_holds_at_every_node() {
    let replicas = Replicas::start(2);
    let watches: Vec<_> = replicas.nodes.iter().map(ConnectionWatch::start).collect();
    let failover = "max_connections = 4\n[route.main.failover]\nread_from = \"prefer_replica\"\n";
    let weir = weir_before(&replicas, failover);
    wait_for_state(&weir, &replicas.nodes[1], &["standing=\"follower\""]);
    std::thread::scope(|scope| {
        for id in 0..8 {
            let weir = &weir;
            scope.spawn(move || {
                let mut client = weir.client();
                for round in 0..200 {
                    let key = format!("{id}:{round}");
                    client.expect_command(&["SET", &key, "v"], "+OK\r\n");
                    client.command(&["GET", &key]);
                    if round % 50 == id {
                        client.expect_command(&["WATCH", &key], "+OK\r\n");
                        client.expect_command(&["UNWATCH"], "+OK\r\n");
                    }
                }
            });
        }
    });
    for watch in watches {
        // Replication is a connection too, and not Weir's.
        watch.assert_at_most(4 + 1);
    }
}

#[test]
fn without_any_node_every_command_is_told_so_and_served_when_one_comes() {
    let mut redis = RedisServer::start();
    redis.kill();
    let backend = format!(
        "topology = \"replicated\"\nnodes = [\"{}\"]\n",
        redis.address()
    );
    let weir = weir(&redis, &backend, "[route.main.failover]\nhold = \"50ms\"\n");
    let mut client = weir.client();
    wait_until("it has waited long enough", || {
        let reply = client.command(&["SET", "k", "v"]);
        error(&reply) == Some("MASTERDOWN weir: no primary, command not executed")
    });
    assert_eq!(weir.get("/readyz").0, 503);
    redis.restart();
    wait_until("it is served", || {
        client.command(&["SET", "k", "v"]) == b"+OK\r\n"
    });
    wait_until("Weir is ready", || weir.get("/readyz").0 == 200);
}

/// Such as a server of another kind behind a name, which ends what it does not understand.
#[test]
fn a_node_that_hangs_up_on_every_question_is_down_and_not_dialled_without_pause() {
    const DIALS: usize = 100;
    let redis = RedisServer::start();
    let (listener, dials) = (
        TcpListener::bind("127.0.0.1:0").expect("a port"),
        Arc::new(AtomicUsize::new(0)),
    );
    let address = listener.local_addr().expect("an address");
    let (target, count) = (redis.address(), dials.clone());
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            count.fetch_add(1, Relaxed);
            let mut server = TcpStream::connect(target).expect("Redis is there");
            let mut back = (
                server.try_clone().expect("a copy"),
                client.try_clone().expect("a copy"),
            );
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut back.0, &mut back.1);
            });
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = client.read(&mut buffer) {
                    let asked = buffer[..n].windows(4).any(|it| it == b"rOLE");
                    if asked || server.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                }
                let _ = client.shutdown(Shutdown::Both);
                let _ = server.shutdown(Shutdown::Both);
            });
        }
    });
    let nodes = format!("topology = \"replicated\"\nnodes = [\"{address}\"]\n");
    let began = Instant::now();
    let weir = weir(&redis, &nodes, "");
    wait_until("it is down", || {
        let labels = [format!("node=\"{address}\""), "health=\"down\"".to_owned()];
        weir.metric("weir_node_role", &labels.each_ref().map(String::as_str)) == 1.0
    });
    wait_until("it was dialled often", || dials.load(Relaxed) >= DIALS);
    // Every fiftieth of a second while there is no primary, and twice each time.
    assert!(began.elapsed() > Duration::from_millis(1000), "a storm");
}
