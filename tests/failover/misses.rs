//! A route that is only a cache, and no node that may serve: what reads is answered as by a
//! cache that misses, at once; what writes waits for a primary as always.

use super::support::{RawClient, Replicas, WeirProcess, encode, wait_until};
use super::{error, weir_before};

const NO_PRIMARY: &str = "MASTERDOWN weir: no primary, command not executed";

fn start(count: usize, failover: &str, writes: &str) -> (Replicas, WeirProcess) {
    let replicas = Replicas::start(count);
    let more = format!(
        "[process]\nworkers = 1\n[route.main.health]\nfail_open = true\n\
         fail_open_writes = \"{writes}\"\n[route.main.failover]\n{failover}"
    );
    let weir = weir_before(&replicas, &more);
    let mut client = weir.client();
    client.expect_command(&["SET", "there", "v"], "+OK\r\n");
    for node in 1..count {
        replicas.wait_until_caught_up(node, 0);
    }
    (replicas, weir)
}

fn wait_until_lost(weir: &WeirProcess) {
    wait_until("the loss is seen", || {
        weir.metric("weir_primary_available", &[]) == 0.0
    });
}

fn expect_misses(client: &mut RawClient) {
    client.expect_command(&["GET", "there"], "$-1\r\n");
    client.expect_command(&["MGET", "there", "b"], "*2\r\n$-1\r\n$-1\r\n");
    client.expect_command(&["EXISTS", "there"], ":0\r\n");
}

#[test]
fn a_cache_misses_at_once_while_writes_wait_for_a_primary() {
    for policy in ["", "read_from = \"prefer_replica\"\n"] {
        let (mut replicas, weir) = start(2, &format!("hold = \"60s\"\n{policy}"), "ok");
        // What is read meanwhile is not kept for the primary that comes.
        replicas.nodes[1].kill();
        replicas.nodes[0].kill();
        wait_until_lost(&weir);
        let mut client = weir.client();
        expect_misses(&mut client);
        assert_eq!(weir.metric("weir_commands_held", &[]), 0.0);
        let mut writer = weir.client();
        writer.send([encode(&["SET", "k", "w"]), encode(&["GET", "k"])].concat());
        // What has no such answer waits as well.
        let mut counter = weir.client();
        counter.send(encode(&["INCR", "n"]));
        weir.wait_for_metric("weir_commands_held_total", &[], 2.0);
        expect_misses(&mut client);
        assert_eq!(weir.metric("weir_commands_held_total", &[]), 2.0);
        assert_eq!(
            weir.metric("weir_fail_open_total", &["kind=\"write\""]),
            0.0
        );
        writer.expect_nothing_pending();
        replicas.nodes[0].restart();
        // What its client sent behind it is answered behind it.
        writer.expect("+OK\r\n$1\r\nw\r\n");
        counter.expect(":1\r\n");
        wait_until("reads are served", || {
            client.command(&["GET", "k"]) == b"$1\r\nw\r\n"
        });
    }
}

#[test]
fn when_the_hold_is_over_writes_are_answered_as_configured() {
    for writes in ["error", "ok"] {
        let (mut replicas, weir) = start(1, "hold = \"100ms\"\n", writes);
        replicas.nodes[0].kill();
        wait_until_lost(&weir);
        let mut client = weir.client();
        // It waits until then.
        let reply = client.command(&["SET", "k", "v"]);
        match writes {
            "ok" => assert_eq!(reply, b"+OK\r\n"),
            _ => assert_eq!(error(&reply), Some(NO_PRIMARY)),
        }
        expect_misses(&mut client);
        for decision in [
            &["INCR", "n"][..],
            &["SET", "k", "v", "NX"],
            &["WATCH", "k"],
        ] {
            let reply = client.command(decision);
            assert_eq!(error(&reply), Some(NO_PRIMARY), "{decision:?}");
        }
        let block = [&["MULTI"][..], &["GET", "k"], &["EXEC"]];
        client.send(block.map(encode).concat());
        for _ in block {
            assert_eq!(error(&client.read_reply()), Some(NO_PRIMARY));
        }
    }
}

#[test]
fn without_a_replica_that_may_serve_those_who_read_there_only_hear_a_miss() {
    let (mut replicas, weir) = start(2, "read_from = \"replica\"\n", "ok");
    let mut client = weir.client();
    wait_until("the replica serves", || {
        client.command(&["GET", "there"]) == b"$1\r\nv\r\n"
    });
    replicas.nodes[1].kill();
    wait_until("it is known to be gone", || {
        client.command(&["GET", "there"]) == b"$-1\r\n"
    });
    expect_misses(&mut client);
    client.expect_command(&["SET", "k", "v"], "+OK\r\n");
    assert_eq!(replicas.nodes[0].command(&["GET", "k"]), b"$1\r\nv\r\n");
    // What cannot be made up says why.
    let reply = client.command(&["SCAN", "0"]);
    let text = error(&reply).unwrap_or_default();
    assert!(text.starts_with("MASTERDOWN weir: no replica"), "{text}");
}

#[test]
fn reads_that_are_lost_with_the_primary_are_misses_in_their_order() {
    let (mut replicas, weir) = start(1, "hold = \"60s\"\n", "ok");
    let mut reader = weir.client();
    let mut writer = weir.client();
    for client in [&mut reader, &mut writer] {
        client.expect_command(&["GET", "there"], "$1\r\nv\r\n");
    }
    replicas.nodes[0].stop();
    reader.send(
        [
            encode(&["GET", "there"]),
            encode(&["EXISTS", "there"]),
            encode(&["MGET", "a", "b"]),
        ]
        .concat(),
    );
    writer.send(
        [
            encode(&["GET", "there"]),
            encode(&["INCR", "n"]),
            encode(&["EXISTS", "there"]),
        ]
        .concat(),
    );
    wait_until("they are under way", || {
        weir.metric("weir_commands_in_flight", &[]) >= 6.0
    });
    replicas.nodes[0].kill();
    reader.expect("$-1\r\n:0\r\n*2\r\n$-1\r\n$-1\r\n");
    // Whether a write ran is never made up.
    writer.expect("$-1\r\n-ERR weir: upstream connection lost, command outcome unknown\r\n:0\r\n");
}

#[test]
fn reads_in_line_for_a_primary_that_is_lost_are_misses_in_their_order() {
    let overload = "[route.main.overload]\nin_flight = 1\ntarget = \"0s\"\n";
    let (mut replicas, weir) = start(1, &format!("hold = \"60s\"\n{overload}"), "ok");
    let mut clients = [weir.client(), weir.client()];
    for client in &mut clients {
        client.expect_command(&["GET", "there"], "$1\r\nv\r\n");
    }
    replicas.nodes[0].stop();
    clients[0].send([encode(&["GET", "there"]), encode(&["EXISTS", "there"])].concat());
    wait_until("one is under way, one waits", || {
        weir.metric("weir_commands_waiting", &[]) >= 1.0
    });
    clients[1].send([encode(&["EXISTS", "there"]), encode(&["INCR", "n"])].concat());
    wait_until("they wait", || {
        weir.metric("weir_commands_waiting", &[]) >= 3.0
    });
    replicas.nodes[0].kill();
    clients[0].expect("$-1\r\n:0\r\n");
    clients[1].expect(":0\r\n");
    clients[1].expect_nothing_pending();
    replicas.nodes[0].restart();
    clients[1].expect(":1\r\n");
}
