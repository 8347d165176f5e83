//! Reads on replicas: which node serves them, how old they may be, and what becomes of
//! them when a node is lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::support::{RawClient, Replicas, WeirProcess, encode, wait_until};
use super::{error, wait_for_state, weir_before};

/// A key whose value says which server it was read from: replicas are written to behind
/// their primary's back.
fn mark(replicas: &Replicas) {
    replicas.nodes[0]
        .client()
        .expect_command(&["SET", "who", "primary"], "+OK\r\n");
    for node in 1..replicas.nodes.len() {
        replicas.wait_until_caught_up(node, 0);
        let mut direct = replicas.nodes[node].client();
        direct.expect_command(&["CONFIG", "SET", "replica-read-only", "no"], "+OK\r\n");
        direct.expect_command(&["SET", "who", &format!("replica{node}")], "+OK\r\n");
        direct.expect_command(&["CONFIG", "SET", "replica-read-only", "yes"], "+OK\r\n");
    }
}

fn who(client: &mut RawClient) -> String {
    super::reached(client, "who")
}

fn start(count: usize, failover: &str) -> (Replicas, WeirProcess) {
    let replicas = Replicas::start(count);
    mark(&replicas);
    let weir = weir_before(&replicas, &format!("[route.main.failover]\n{failover}"));
    for node in 1..count {
        let label = format!("node=\"{}\"", replicas.nodes[node].address());
        wait_until("the replica may serve", || {
            weir.metric("weir_node_read_weight", &[&label]) == 1.0
        });
    }
    (replicas, weir)
}

#[test]
fn each_policy_reads_where_it_says_and_writes_go_to_the_primary() {
    for (policy, from) in [
        ("primary", "primary"),
        ("prefer_replica", "replica1"),
        ("replica", "replica1"),
    ] {
        let (replicas, weir) = start(2, &format!("read_from = \"{policy}\"\n"));
        let mut client = weir.client();
        assert_eq!(who(&mut client), from, "{policy}");
        client.expect_command(&["SET", "k", "v"], "+OK\r\n");
        assert_eq!(replicas.nodes[0].command(&["GET", "k"]), b"$1\r\nv\r\n");
        // Pipelines that change between nodes keep their order.
        for round in 0..50 {
            let value = round.to_string();
            for command in [
                &["SET", "k", &value][..],
                &["GET", "who"],
                &["INCR", "n"],
                &["GET", "who"],
            ] {
                client.send(encode(command));
            }
            client.expect("+OK\r\n");
            let first = client.try_read_reply().unwrap();
            client.expect(format!(":{}\r\n", round + 1));
            let second = client.try_read_reply().unwrap();
            for reply in [first, second] {
                let text = String::from_utf8_lossy(&reply).into_owned();
                // Behind a write that is under way a read may stay with it.
                let fine = text.contains(from) || policy != "replica" && text.contains("primary");
                assert!(fine, "{policy}: {text}");
            }
        }
        // What is not data, or may write, is the primary's.
        for command in ["EVAL", "EVAL_RO"] {
            if command == "EVAL_RO" && replicas.nodes[0].compatible_version() < (7, 0) {
                continue;
            }
            let reply = client.command(&[command, "return redis.call('get','who')", "0"]);
            assert_eq!(reply, b"$7\r\nprimary\r\n", "{command}");
        }
        client.send(b"MULTI\r\nGET who\r\nEXEC\r\n");
        client.expect("+OK\r\n+QUEUED\r\n*1\r\n$7\r\nprimary\r\n");
    }
}

#[test]
fn a_client_says_itself_where_it_reads_by_command_or_by_name() {
    let names = "replica_clients = [\"report-*\"]\nprimary_clients = [\"checkout\"]\n";
    let (_replicas, weir) = start(2, names);
    let mut client = weir.client();
    assert_eq!(who(&mut client), "primary");
    client.expect_command(&["READONLY"], "+OK\r\n");
    assert_eq!(who(&mut client), "replica1");
    client.expect_command(&["READWRITE"], "+OK\r\n");
    assert_eq!(who(&mut client), "primary");
    client.expect_command(&["CLIENT", "SETNAME", "report-7"], "+OK\r\n");
    // What it has said itself holds.
    assert_eq!(who(&mut client), "primary");
    client.expect_command(&["RESET"], "+RESET\r\n");
    client.expect_command(&["CLIENT", "SETNAME", "report-7"], "+OK\r\n");
    assert_eq!(who(&mut client), "replica1");
    client.expect_command(&["CLIENT", "SETNAME", "other"], "+OK\r\n");
    assert_eq!(who(&mut client), "primary");
    let mut client = weir.client();
    client.command(&["HELLO", "2", "SETNAME", "report-1"]);
    assert_eq!(who(&mut client), "replica1");
}

#[test]
fn a_reload_moves_the_reads_of_those_who_are_there() {
    let (replicas, mut weir) = start(2, "read_from = \"primary\"\n");
    let (mut client, mut named) = (weir.client(), weir.client());
    named.expect_command(&["CLIENT", "SETNAME", "report-1"], "+OK\r\n");
    assert_eq!((who(&mut client), who(&mut named)), primaries());
    let mut reload = |failover: &str, wanted: (String, String)| {
        let more = format!("[route.main.failover]\n{failover}");
        let text = weir.filled(&super::config(&replicas.settings(&[0, 1]), &more));
        std::fs::write(weir.config_path(), text).expect("a config file");
        weir.signal(libc::SIGHUP);
        wait_until("the reads have moved", || {
            (who(&mut client), who(&mut named)) == wanted
        });
    };
    let (primary, replica) = ("primary".to_owned(), "replica1".to_owned());
    reload(
        "replica_clients = [\"report-*\"]\n",
        (primary, replica.clone()),
    );
    reload("read_from = \"replica\"\n", (replica.clone(), replica));
    reload("read_from = \"primary\"\n", primaries());
}

fn primaries() -> (String, String) {
    ("primary".to_owned(), "primary".to_owned())
}

#[test]
fn scans_stay_on_one_node() {
    let (replicas, weir) = start(3, "read_from = \"prefer_replica\"\n");
    for key in 0..500 {
        let key = format!("key:{key}");
        replicas.nodes[0]
            .client()
            .expect_command(&["SET", &key, "v"], "+OK\r\n");
    }
    for replica in [1, 2] {
        replicas.wait_until_caught_up(replica, 0);
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut cursor = "0".to_owned();
    loop {
        // A pool hands each call to another connection.
        let reply = weir.client().command(&["SCAN", &cursor, "COUNT", "7"]);
        let text = String::from_utf8_lossy(&reply).into_owned();
        let lines: Vec<&str> = text.split("\r\n").collect();
        cursor = lines[2].to_owned();
        seen.extend(
            lines
                .iter()
                .filter(|it| it.starts_with("key:"))
                .map(|it| it.to_string()),
        );
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.len(), 500);
}

#[test]
fn a_client_reads_its_own_writes_if_that_is_asked_for() {
    let more =
        "read_from = \"prefer_replica\"\nread_your_writes = true\nprobe_interval = \"20ms\"\n";
    let (replicas, weir) = start(2, more);
    let mut client = weir.client();
    assert_eq!(who(&mut client), "replica1");
    for round in 0..300 {
        let value = format!("{round:04}");
        client.expect_command(&["SET", "own", &value], "+OK\r\n");
        client.expect_command(&["GET", "own"], format!("$4\r\n{value}\r\n"));
    }
    // It comes back to its replica, and stays with the primary while that lags.
    wait_until("the replica serves again", || {
        who(&mut client) == "replica1"
    });
    let mut replica = replicas.nodes[1].client();
    replica.expect_command(&["REPLICAOF", "127.0.0.1", "1"], "+OK\r\n");
    client.expect_command(&["SET", "own", "late"], "+OK\r\n");
    client.expect_command(&["GET", "own"], "$4\r\nlate\r\n");
    drop(replicas);
}

#[test]
fn a_replica_that_is_behind_or_has_lost_its_link_serves_nothing() {
    let more =
        "read_from = \"prefer_replica\"\nreplica_lag_max = \"300ms\"\nprobe_interval = \"50ms\"\n";
    let (mut replicas, weir) = start(2, more);
    let mut client = weir.client();
    // On a busy machine it may lag for a moment.
    wait_until("it serves", || who(&mut client) == "replica1");
    let mut replica = replicas.nodes[1].client();
    replica.expect_command(&["REPLICAOF", "127.0.0.1", "1"], "+OK\r\n");
    wait_until("it serves nothing", || who(&mut client) == "primary");
    replicas.follow(1, 0);
    wait_for_state(&weir, &replicas.nodes[1], &["standing=\"follower\""]);
    wait_until("it serves again", || {
        let label = format!("node=\"{}\"", replicas.nodes[1].address());
        weir.metric("weir_node_read_weight", &[&label]) > 0.0
    });
    // A replica that hangs is seen by its probe; what was on its way is asked elsewhere.
    replicas.nodes[1].stop();
    replicas.nodes[0]
        .client()
        .expect_command(&["SET", "who", "primary"], "+OK\r\n");
    assert_eq!(who(&mut client), "primary");
    replicas.nodes[1].cont();
}

#[test]
fn reads_go_on_while_there_is_no_primary_where_they_may_be_stale() {
    for more in [
        "stale_reads_on_failure = true\n",
        "read_from = \"prefer_replica\"\n",
        "read_from = \"nearest\"\n",
    ] {
        let (mut replicas, weir) = start(2, &format!("hold = \"100ms\"\n{more}"));
        let mut client = weir.client();
        who(&mut client);
        replicas.nodes[0].kill();
        for _ in 0..50 {
            let from = who(&mut client);
            assert_eq!(from, "replica1", "{more}");
        }
        wait_until("writes say that there is no primary", || {
            let reply = client.command(&["SET", "k", "v"]);
            error(&reply) == Some("MASTERDOWN weir: no primary, command not executed")
        });
        assert_eq!(who(&mut client), "replica1");
    }
}

#[test]
fn a_replica_that_is_killed_costs_no_read() {
    let (mut replicas, weir) = start(3, "read_from = \"replica\"\nramp = \"200ms\"\n");
    let stop = AtomicBool::new(false);
    let all_reads = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (weir, stop, all_reads) = (&weir, &stop, &all_reads);
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(move || {
                    let mut client = weir.client();
                    let mut reads = 0;
                    while !stop.load(Relaxed) {
                        let reply = client.command(&["GET", "who"]);
                        let text = String::from_utf8_lossy(&reply).into_owned();
                        assert!(error(&reply).is_none(), "{text}");
                        let from = text.split("\r\n").nth(1).unwrap_or_default();
                        // One that is back has what the primary has.
                        assert!(from.starts_with("replica") || from == "primary", "{from:?}");
                        reads += 1;
                        all_reads.fetch_add(1, Relaxed);
                    }
                    reads
                })
            })
            .collect();
        for node in [1, 2] {
            let goal = all_reads.load(Relaxed) + 200;
            wait_until("reads go on", || all_reads.load(Relaxed) >= goal);
            replicas.nodes[node].kill();
            wait_for_state(weir, &replicas.nodes[node], &["health=\"down\""]);
            replicas.nodes[node].restart();
            replicas.follow(node, 0);
            replicas.wait_until_linked(0);
            let mut direct = replicas.nodes[node].client();
            direct.expect_command(&["CONFIG", "SET", "replica-read-only", "no"], "+OK\r\n");
            direct.expect_command(&["SET", "who", &format!("replica{node}")], "+OK\r\n");
            let label = format!("node=\"{}\"", replicas.nodes[node].address());
            wait_until("it has its whole share again", || {
                weir.metric("weir_node_read_weight", &[&label]) == 1.0
            });
        }
        stop.store(true, Relaxed);
        for thread in threads {
            assert!(thread.join().expect("a reader does not panic") > 0);
        }
    });
}

/// A read behind writes of which some wait in Weir takes its turn behind them.
#[test]
fn a_read_behind_writes_in_line_is_answered_behind_them() {
    let mut replicas = Replicas::start(2);
    let more = "[process]\nworkers = 1\n\
                [route.main.failover]\nread_from = \"prefer_replica\"\nhold = \"20s\"\n\
                [route.main.overload]\nin_flight = 1\ntarget = \"0s\"\n";
    let weir = weir_before(&replicas, more);
    let mut first = weir.client();
    first.expect_command(&["SET", "k", "v"], "+OK\r\n");
    let mut client = weir.client();
    client.expect_command(&["SET", "k", "v"], "+OK\r\n");
    for _ in 0..20 {
        // One after the other has its place in line.
        let pipeline = [
            encode(&["SET", "k", "1"]),
            encode(&["APPEND", "k", "2"]),
            encode(&["GET", "k"]),
        ];
        client.send(pipeline.concat());
        client.expect("+OK\r\n:2\r\n");
        assert!(client.read_reply().starts_with(b"$"), "a value");
    }
    // And when all that is under way is in line.
    replicas.nodes[0].stop();
    first.send(encode(&["SET", "l", "1"]));
    wait_until("it was sent", || {
        weir.metric("weir_commands_in_flight", &[]) == 1.0
    });
    client.send([encode(&["SET", "k", "2"]), encode(&["GET", "k"])].concat());
    wait_until("they wait, one behind the other", || {
        weir.metric("weir_commands_waiting", &[]) == 2.0
    });
    replicas.nodes[0].cont();
    first.expect("+OK\r\n");
    client.expect("+OK\r\n");
    assert!(client.read_reply().starts_with(b"$"), "a value");
}
