//! The primary is lost: killed, stopped, restarted again and again.

use super::counters::{check, nothing_twice, run};
use super::support::{RawClient, Replicas, encode, wait_until};
use super::{error, wait_for_state, weir_before};

#[test]
fn a_primary_that_is_killed_is_replaced_by_its_successor_and_nothing_runs_twice() {
    for workers in [1, 3] {
        let mut replicas = Replicas::start(3);
        let more =
            format!("[process]\nworkers = {workers}\n[route.main.failover]\nhold = \"20s\"\n");
        let weir = weir_before(&replicas, &more);
        let told = run(weir.address(), 12, |progress| {
            progress.wait_for(20);
            replicas.nodes[0].kill();
            replicas.promote(1, &[2]);
            progress.wait_for(20);
        });
        nothing_twice(&replicas.nodes[1], &told);
        for told in &told {
            // One at most was on its way, and what came behind waited.
            assert!(told.unknown <= 1 && told.refused == 0, "{told:?}");
        }
        // It comes back empty and says that it is the primary: it gets nothing.
        replicas.nodes[0].restart();
        wait_for_state(&weir, &replicas.nodes[0], &["standing=\"rival\""]);
        weir.client().expect_command(&["SET", "k", "v"], "+OK\r\n");
        assert_eq!(replicas.nodes[0].command(&["GET", "k"]), b"$-1\r\n");
    }
}

#[test]
fn when_the_hold_is_over_writes_fail_at_once_and_say_that_they_did_not_run() {
    let mut replicas = Replicas::start(2);
    let weir = weir_before(&replicas, "[route.main.failover]\nhold = \"100ms\"\n");
    let mut client = weir.client();
    client.expect_command(&["SET", "k", "v"], "+OK\r\n");
    replicas.nodes[0].kill();
    let refused = "MASTERDOWN weir: no primary, command not executed";
    wait_until("the hold is over", || {
        error(&client.command(&["SET", "k", "v"])) == Some(refused)
    });
    // Whatever needs a connection of its own, or is a block, as well.
    for command in [
        &["WATCH", "k"][..],
        &["BLPOP", "l", "0"],
        &["SUBSCRIBE", "c"],
        &["INFO"],
    ] {
        let reply = client.command(command);
        assert_eq!(error(&reply), Some(refused), "{command:?}");
    }
    let block = [&["MULTI"][..], &["INCR", "a"], &["EXEC"]];
    client.send(block.map(encode).concat());
    for _ in block {
        let reply = client.try_read_reply().expect("a reply");
        assert_eq!(error(&reply), Some(refused));
    }
    replicas.promote(1, &[]);
    wait_until("it is served again", || {
        client.command(&["SET", "k", "v"]) == b"+OK\r\n"
    });
    client.expect_command(&["WATCH", "k"], "+OK\r\n");
}

#[test]
fn what_waits_for_a_primary_goes_to_it_in_order() {
    let mut replicas = Replicas::start(2);
    let weir = weir_before(&replicas, "[route.main.failover]\nhold = \"20s\"\n");
    let mut client = weir.client();
    client.expect_command(&["SET", "k", "v"], "+OK\r\n");
    replicas.wait_until_caught_up(1, 0);
    replicas.nodes[0].kill();
    wait_until("the loss is seen", || {
        weir.metric("weir_primary_available", &[]) == 0.0
    });
    client.send(b"SET k 1\r\nAPPEND k 2\r\nMULTI\r\nAPPEND k 3\r\nEXEC\r\nGET k\r\nWATCH k\r\n");
    let mut other = weir.client();
    other.send(b"BLPOP list 0\r\n");
    let mut third = weir.client();
    third.send(b"SUBSCRIBE c\r\n");
    wait_until("three wait", || {
        weir.metric("weir_commands_held", &[]) >= 3.0
    });
    replicas.promote(1, &[]);
    client.expect("+OK\r\n:2\r\n+OK\r\n+QUEUED\r\n*1\r\n:3\r\n$3\r\n123\r\n+OK\r\n");
    third.expect("*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
    weir.client()
        .expect_command(&["RPUSH", "list", "x"], ":1\r\n");
    other.expect("*2\r\n$4\r\nlist\r\n$1\r\nx\r\n");
}

#[test]
fn no_more_wait_than_may() {
    let mut replicas = Replicas::start(1);
    let more = "[process]\nworkers = 1\n[route.main.failover]\nhold = \"20s\"\nhold_clients = 3\n";
    let mut weir = weir_before(&replicas, more);
    weir.client().expect_command(&["SET", "k", "v"], "+OK\r\n");
    assert_eq!(weir.metric("weir_commands_held_max", &[]), 3.0);
    replicas.nodes[0].kill();
    wait_until("the loss is seen", || {
        weir.metric("weir_primary_available", &[]) == 0.0
    });
    let mut clients: Vec<RawClient> = (0..3).map(|_| weir.client()).collect();
    for client in &mut clients {
        client.send(b"INCR n\r\n");
    }
    weir.wait_for_metric("weir_commands_held", &[], 3.0);
    let refused = "BUSY weir: too many wait for a primary (failover.hold_clients), \
                   command not executed";
    // Whatever it needs.
    for command in [
        &["SET", "k", "2"][..],
        &["WATCH", "k"],
        &["BLPOP", "l", "0"],
    ] {
        let reply = weir.client().command(command);
        assert_eq!(error(&reply), Some(refused), "{command:?}");
    }
    weir.wait_for_metric("weir_shed_total", &["limit=\"hold_clients\""], 3.0);
    weir.wait_for_metric("weir_errors_total", &["cause=\"busy\""], 3.0);
    assert_eq!(
        weir.metric("weir_shed_total", &["limit=\"lease_queue\""]),
        0.0
    );
    weir.wait_for_log("failover.hold_clients is reached: commands are refused");
    replicas.nodes[0].restart();
    for client in &mut clients {
        let reply = client.read_reply();
        assert!(reply.starts_with(b":"), "{}", reply.escape_ascii());
    }
    weir.wait_for_log("failover.hold_clients is no longer reached");
    weir.wait_for_metric("weir_commands_held", &[], 0.0);
    let log = weir.log();
    assert_eq!(log.matches("failover.hold_clients is reached").count(), 1);
}

#[test]
fn a_client_that_leaves_while_its_command_waits_gives_its_place_to_another() {
    let mut replicas = Replicas::start(1);
    let more = "[process]\nworkers = 1\n[route.main.failover]\nhold = \"60s\"\nhold_clients = 3\n";
    let weir = weir_before(&replicas, more);
    weir.client().expect_command(&["SET", "k", "v"], "+OK\r\n");
    replicas.nodes[0].kill();
    wait_until("the loss is seen", || {
        weir.metric("weir_primary_available", &[]) == 0.0
    });
    let wait = |command: &[u8], all: f64| {
        let mut client = weir.client();
        client.send(command);
        weir.wait_for_metric("weir_commands_held", &[], all);
        client
    };
    // On a connection that all share, and in its own input.
    let stays = wait(b"INCR n\r\n", 1.0);
    let mut leaves = [wait(b"INCR left\r\n", 2.0), wait(b"WATCH k\r\n", 3.0)];
    let refused = weir.client().command(&["INCR", "left"]);
    assert!(refused.starts_with(b"-BUSY"), "{}", refused.escape_ascii());
    for (client, stay) in leaves.iter_mut().zip([2.0, 1.0]) {
        client.half_close();
        client.expect_closed();
        weir.wait_for_metric("weir_commands_held", &[], stay);
    }
    wait(b"INCR left\r\n", 2.0).reset();
    weir.wait_for_metric("weir_commands_held", &[], 1.0);
    wait_until("what it takes is known", || {
        weir.metric("weir_held_bytes", &[]) > 0.0
    });
    let mut clients = [
        stays,
        wait(b"INCR n\r\n", 2.0),
        wait(b"BLPOP list 0\r\n", 3.0),
    ];
    let refused = weir.client().command(&["INCR", "left"]);
    assert!(refused.starts_with(b"-BUSY"), "{}", refused.escape_ascii());
    replicas.nodes[0].restart();
    for client in &mut clients[..2] {
        let reply = client.read_reply();
        assert!(reply.starts_with(b":"), "{}", reply.escape_ascii());
    }
    weir.client()
        .expect_command(&["RPUSH", "list", "x"], ":1\r\n");
    clients[2].expect("*2\r\n$4\r\nlist\r\n$1\r\nx\r\n");
    // Nobody is there to hear of these.
    weir.client().expect_command(&["EXISTS", "left"], ":0\r\n");
    weir.wait_for_metric("weir_commands_held", &[], 0.0);
    weir.wait_for_metric("weir_held_bytes", &[], 0.0);
}

#[test]
fn what_waits_takes_no_more_memory_than_may() {
    let mut replicas = Replicas::start(1);
    let more = "[process]\nworkers = 1\n[route.main.failover]\nhold = \"60s\"\nhold_memory = \"4KiB\"\n\
                [route.main.clients]\noperator_networks = \"127.0.0.1\"\n";
    let mut weir = weir_before(&replicas, more);
    weir.client().expect_command(&["SET", "k", "v"], "+OK\r\n");
    assert_eq!(weir.metric("weir_held_max_bytes", &[]), 4096.0);
    replicas.nodes[0].kill();
    wait_until("the loss is seen", || {
        weir.metric("weir_primary_available", &[]) == 0.0
    });
    let mut large = weir.client();
    large.send(encode(&["SET", "k", &"v".repeat(5000)]));
    wait_until("it waits", || weir.metric("weir_held_bytes", &[]) > 5000.0);
    let limits = weir.client().command(&["WEIR", "LIMITS"]);
    let limits = String::from_utf8_lossy(&limits);
    let used = |setting: &str| {
        let (_, of_it) = limits.split_once(setting).expect("it is there");
        let (_, used) = of_it.split_once("used\r\n:").expect("it is known");
        let (used, _) = used.split_once("\r\n").expect("a line");
        used.parse::<u64>().expect("a number")
    };
    assert_eq!(used("route.main.failover.hold_clients"), 1);
    assert!(used("route.main.failover.hold_memory") > 5000);
    let reply = weir.client().command(&["SET", "k", "2"]);
    let refused = "BUSY weir: too many wait for a primary (failover.hold_memory), \
                   command not executed";
    assert_eq!(error(&reply), Some(refused));
    weir.wait_for_metric("weir_shed_total", &["limit=\"hold_memory\""], 1.0);
    weir.wait_for_log("failover.hold_memory is reached: commands are refused");
    replicas.nodes[0].restart();
    large.expect("+OK\r\n");
    weir.wait_for_log("failover.hold_memory is no longer reached");
}

#[test]
fn no_more_bytes_wait_than_may() {
    let mut replicas = Replicas::start(1);
    let more = "[process]\nworkers = 1\n\
                [route.main.failover]\nhold = \"20s\"\nhold_memory = \"1KiB\"\n";
    let weir = weir_before(&replicas, more);
    weir.client().expect_command(&["SET", "k", "v"], "+OK\r\n");
    replicas.nodes[0].kill();
    wait_until("the loss is seen", || {
        weir.metric("weir_primary_available", &[]) == 0.0
    });
    // What one of them sends may wait, what both send is more.
    let value = "v".repeat(600);
    let mut clients: Vec<RawClient> = (0..2).map(|_| weir.client()).collect();
    for (client, held) in clients.iter_mut().zip([1.0, 2.0]) {
        client.send(encode(&["SET", "k", &value]));
        weir.wait_for_metric("weir_commands_held", &[], held);
    }
    for command in [&["SET", "k", "2"][..], &["WATCH", "k"]] {
        let reply = weir.client().command(command);
        let text = error(&reply).unwrap_or_default();
        assert!(text.contains("failover.hold_memory"), "{command:?}: {text}");
        assert!(
            text.ends_with("command not executed"),
            "{command:?}: {text}"
        );
    }
    replicas.nodes[0].restart();
    for client in &mut clients {
        client.expect("+OK\r\n");
    }
    weir.client().expect_command(&["SET", "k", "2"], "+OK\r\n");
}

#[test]
fn a_primary_that_hangs_is_replaced_and_gets_nothing_when_it_goes_on() {
    let mut replicas = Replicas::start(2);
    let more = "[route.main.timeouts]\nstall = \"5s\"\n[route.main.failover]\nhold = \"20s\"\n";
    let weir = weir_before(&replicas, more);
    let told = run(weir.address(), 8, |progress| {
        progress.wait_for(20);
        replicas.nodes[0].stop();
        replicas.promote(1, &[]);
        progress.wait_for(20);
        replicas.nodes[0].cont();
        wait_for_state(&weir, &replicas.nodes[0], &["standing=\"rival\""]);
        progress.wait_for(20);
    });
    nothing_twice(&replicas.nodes[1], &told);
    for told in &told {
        assert!(told.unknown <= 1, "{told:?}");
    }
}

#[test]
fn a_primary_that_is_killed_again_and_again_loses_nothing_that_was_acknowledged() {
    // Redis writes to its file before it answers.
    let aof = ["--appendonly", "yes", "--appendfsync", "no"];
    let mut replicas = Replicas::with(1, &aof);
    let weir = weir_before(&replicas, "[route.main.failover]\nhold = \"20s\"\n");
    let told = run(weir.address(), 8, |progress| {
        for _ in 0..4 {
            progress.wait_for(10);
            replicas.nodes[0].restart();
            progress.wait_for(10);
        }
    });
    check(&replicas.nodes[0], &told);
    for told in &told {
        assert!(told.unknown <= 4 && told.refused == 0, "{told:?}");
    }
}

/// What a stopped primary has taken is not waited for any longer than its successor takes
/// to be known: it would be lost with whatever it may still acknowledge.
#[test]
fn nobody_waits_for_a_hung_primary_that_has_a_successor() {
    let mut replicas = Replicas::start(2);
    // So that only the successor can be the reason.
    let more = "[route.main.timeouts]\nstall = \"5m\"\nrequest = \"5m\"\n\
                [route.main.health]\nsilence_max = \"1h\"\n";
    let weir = weir_before(&replicas, more);
    let mut reader = weir.client();
    let mut writer = weir.client();
    writer.expect_command(&["SET", "k", "v"], "+OK\r\n");
    reader.expect_command(&["GET", "k"], "$1\r\nv\r\n");
    replicas.wait_until_caught_up(1, 0);
    replicas.nodes[0].stop();
    reader.send(encode(&["GET", "k"]));
    writer.send(encode(&["INCR", "n"]));
    replicas.promote(1, &[]);
    reader.expect("$1\r\nv\r\n");
    let reply = writer.try_read_reply().expect("a reply");
    let unknown = "ERR weir: upstream connection lost, command outcome unknown";
    assert_eq!(error(&reply), Some(unknown));
    writer.expect_command(&["INCR", "n"], ":1\r\n");
    replicas.nodes[0].cont();
    wait_for_state(&weir, &replicas.nodes[0], &["standing=\"rival\""]);
}

/// A primary that hangs and has no successor: what only reads is asked again at a replica,
/// where it may be stale, and a write waits.
#[test]
fn reads_under_way_to_a_hung_primary_are_asked_again_at_a_replica() {
    let mut replicas = Replicas::start(2);
    let more = "[route.main.timeouts]\nstall = \"5m\"\nrequest = \"5m\"\n\
                [route.main.health]\nsilence_max = \"300ms\"\n\
                [route.main.failover]\nstale_reads_on_failure = true\nhold = \"20s\"\n";
    let weir = weir_before(&replicas, more);
    let label = format!("node=\"{}\"", replicas.nodes[1].address());
    wait_until("the replica may serve", || {
        weir.metric("weir_node_read_weight", &[&label]) == 1.0
    });
    let mut reader = weir.client();
    let mut writer = weir.client();
    writer.expect_command(&["SET", "k", "v"], "+OK\r\n");
    reader.expect_command(&["GET", "k"], "$1\r\nv\r\n");
    replicas.wait_until_caught_up(1, 0);
    replicas.nodes[0].stop();
    reader.send(encode(&["GET", "k"]));
    writer.send(encode(&["INCR", "n"]));
    reader.expect("$1\r\nv\r\n");
    // It was only stopped, and nobody took its place: the write has run.
    replicas.nodes[0].cont();
    writer.expect(":1\r\n");
}

/// The same for those that wait in Weir, since the primary has enough to do.
#[test]
fn reads_in_line_for_a_primary_that_is_lost_are_asked_at_a_replica() {
    for is_killed in [false, true] {
        let mut replicas = Replicas::start(2);
        let more = "[process]\nworkers = 1\n\
                    [route.main.timeouts]\nstall = \"5m\"\nrequest = \"5m\"\n\
                    [route.main.health]\nsilence_max = \"2s\"\n\
                    [route.main.overload]\nin_flight = 1\ntarget = \"0s\"\n\
                    [route.main.failover]\nstale_reads_on_failure = true\nhold = \"5m\"\n";
        let weir = weir_before(&replicas, more);
        let label = format!("node=\"{}\"", replicas.nodes[1].address());
        wait_until("the replica may serve", || {
            weir.metric("weir_node_read_weight", &[&label]) == 1.0
        });
        let mut clients: Vec<_> = (0..3).map(|_| weir.client()).collect();
        for client in &mut clients {
            client.expect_command(&["SET", "k", "v"], "+OK\r\n");
        }
        replicas.wait_until_caught_up(1, 0);
        let [first, reader, writer] = &mut clients[..] else {
            unreachable!("there are three");
        };
        let get = encode(&["GET", "k"]);
        weir.wait_for_metric("weir_commands_in_flight", &[], 0.0);
        replicas.nodes[0].stop();
        first.send(&get);
        weir.wait_for_metric("weir_commands_in_flight", &[], 1.0);
        reader.send(get.repeat(3));
        writer.send([encode(&["INCR", "n"]), get.clone()].concat());
        weir.wait_for_metric("weir_commands_waiting", &[], 5.0);
        if is_killed {
            replicas.nodes[0].kill();
        }
        first.expect("$1\r\nv\r\n");
        reader.expect("$1\r\nv\r\n".repeat(3));
        match is_killed {
            true => replicas.nodes[0].restart(),
            false => replicas.nodes[0].cont(),
        }
        writer.expect(":1\r\n");
        assert!(writer.read_reply().starts_with(b"$"), "a value");
    }
}

/// A replica that dies finds at its start the dump that it once got from the primary, and
/// with it a history that looks as if it had been promoted. Nobody has.
#[test]
fn a_replica_that_is_started_again_as_a_primary_gets_nothing() {
    let mut replicas = Replicas::start(2);
    let weir = weir_before(&replicas, "");
    wait_for_state(&weir, &replicas.nodes[1], &["standing=\"follower\""]);
    let mut client = weir.client();
    client.expect_command(&["SET", "k", "1"], "+OK\r\n");
    replicas.wait_until_caught_up(1, 0);
    replicas.nodes[1].restart();
    let primary = replicas.nodes[0].info("replication", "master_replid");
    let history = replicas.nodes[1].info("replication", "master_replid2");
    assert!(history == primary || history.starts_with("0000"));
    wait_for_state(&weir, &replicas.nodes[1], &["standing=\"rival\""]);
    client.expect_command(&["SET", "k", "2"], "+OK\r\n");
    assert_eq!(replicas.nodes[0].command(&["GET", "k"]), b"$1\r\n2\r\n");
    assert_eq!(weir.metric("weir_failovers_total", &[]), 0.0);
}
