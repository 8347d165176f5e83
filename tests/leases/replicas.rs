//! `WAIT` for replicas, and replicas that find their primary through Weir.

use super::support::{RedisServer, encode, wait_until};
use super::{connections, weir};

fn replica_of(port: u16) -> RedisServer {
    RedisServer::with(&["--replicaof", "127.0.0.1", &port.to_string()])
}

#[test]
fn wait_counts_replicas_that_have_the_client_s_own_writes() {
    let redis = RedisServer::start();
    let mut replica = replica_of(redis.port());
    let weir = weir(&redis, "");
    wait_until("the replica is in sync", || {
        redis.info("replication", "connected_slaves") == "1"
            && redis.info("replication", "slave0").contains("state=online")
    });
    let mut client = weir.client();
    client.expect_command(&["SET", "k", "1"], "+OK\r\n");
    client.expect_command(&["WAIT", "1", "20000"], ":1\r\n");
    // A replica that hangs has nothing of what is written now.
    replica.stop();
    for round in 0..3 {
        client.expect_command(&["SET", "k", &round.to_string()], "+OK\r\n");
        client.expect_command(&["WAIT", "1", "50"], ":0\r\n");
        // In one batch, and in a lease.
        client.send(encode(&["SET", "k", "x"]));
        client.send(encode(&["WAIT", "1", "50"]));
        client.expect("+OK\r\n:0\r\n");
        client.expect_command(&["WATCH", "k"], "+OK\r\n");
        client.expect_command(&["SET", "k", "y"], "+OK\r\n");
        client.expect_command(&["WAIT", "1", "50"], ":0\r\n");
        client.expect_command(&["UNWATCH"], "+OK\r\n");
    }
    let mut waiting = weir.client();
    waiting.expect_command(&["SET", "k", "z"], "+OK\r\n");
    waiting.send(encode(&["WAIT", "1", "0"]));
    wait_until("it waits", || {
        redis.info("clients", "blocked_clients") == "1"
    });
    client.expect_command(&["GET", "k"], "$1\r\nz\r\n");
    replica.cont();
    waiting.expect(":1\r\n");
    assert!(client.command(&["WAIT", "0", "0"]).starts_with(b":"));
    client.expect_command(
        &["WAIT", "x", "0"],
        "-ERR value is not an integer or out of range\r\n",
    );
    client.expect_command(&["WAIT", "1", "-1"], "-ERR timeout is negative\r\n");
}

/// As `WAIT`, for what is on disk; Redis has it since 7.2.
#[test]
fn waitaof_tells_of_the_client_s_own_writes_on_disk() {
    let redis = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    if redis.compatible_version() < (7, 2) {
        return;
    }
    let weir = weir(&redis, "");
    let mut client = weir.client();
    // There is no replica yet that could have it.
    for round in 0..2 {
        client.expect_command(&["SET", "k", &round.to_string()], "+OK\r\n");
        client.expect_command(&["WAITAOF", "1", "0", "20000"], "*2\r\n:1\r\n:0\r\n");
    }
    let port = redis.port().to_string();
    let aof = ["--appendonly", "yes", "--replicaof", "127.0.0.1", &port];
    let mut replica = RedisServer::with(&aof);
    wait_until("the replica has it on its disk", || {
        client.expect_command(&["SET", "k", "1"], "+OK\r\n");
        client.command(&["WAITAOF", "1", "1", "1000"]) == b"*2\r\n:1\r\n:1\r\n"
    });
    // A replica that hangs has nothing of what is written now.
    replica.stop();
    client.expect_command(&["SET", "k", "2"], "+OK\r\n");
    let reply = client.command(&["WAITAOF", "0", "1", "50"]);
    assert!(reply.ends_with(b"\r\n:0\r\n"), "{}", reply.escape_ascii());
    client.expect_command(&["WATCH", "k"], "+OK\r\n");
    client.expect_command(&["SET", "k", "3"], "+OK\r\n");
    let reply = client.command(&["WAITAOF", "0", "1", "50"]);
    assert!(reply.ends_with(b"\r\n:0\r\n"), "{}", reply.escape_ascii());
    client.expect_command(&["UNWATCH"], "+OK\r\n");
    client.expect_command(&["SET", "k", "4"], "+OK\r\n");
    client.send(encode(&["WAITAOF", "1", "1", "0"]));
    wait_until("it waits", || {
        redis.info("clients", "blocked_clients") == "1"
    });
    replica.cont();
    client.expect("*2\r\n:1\r\n:1\r\n");
}

#[test]
fn a_replica_finds_its_primary_through_weir() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "");
    let mut client = weir.client();
    let value = "x".repeat(200_000);
    client.expect_command(&["SET", "before", &value], "+OK\r\n");
    let replica = replica_of(weir.address().port());
    let has = |key: &str| replica.command(&["GET", key]) == redis.command(&["GET", key]);
    wait_until("the replica has the data", || has("before"));
    for number in 0..200 {
        client.expect_command(&["SET", &format!("k{number}"), "v"], "+OK\r\n");
    }
    client.expect_command(&["SET", "after", &value], "+OK\r\n");
    wait_until("the replica follows", || {
        has("after") && has("k0") && has("k199")
    });
    assert!(connections(&weir, "tunnel") >= 1.0);
    drop(replica);
    wait_until("the tunnel is closed", || {
        connections(&weir, "tunnel") == 0.0
    });
}

#[test]
fn a_tunnel_carries_a_snapshot_and_can_be_switched_off() {
    let redis = RedisServer::start();
    let behind = weir(&redis, "");
    let mut client = behind.client();
    client.expect_command(&["SET", "k", "v"], "+OK\r\n");
    // As redis-cli and Redis's own tests do it: inline, and alone.
    let mut copy = behind.client();
    copy.send("SYNC\r\n");
    let mut head = Vec::new();
    wait_until("the snapshot comes", || {
        head.extend(copy.read_some().expect("bytes"));
        // A snapshot of Valkey begins with its own name.
        [&b"REDIS0"[..], b"VALKEY0"]
            .iter()
            .any(|magic| head.windows(magic.len()).any(|bytes| bytes == *magic))
    });
    let start = String::from_utf8_lossy(&head).into_owned();
    assert!(start.trim_start_matches('\n').starts_with('$'), "{start:?}");
    client.expect_command(&["SET", "later", "1"], "+OK\r\n");
    wait_until("what is written later comes too", || {
        head.extend(copy.read_some().expect("bytes"));
        head.windows(5).any(|bytes| bytes == b"later")
    });
    drop(copy);
    wait_until("the tunnel is closed", || {
        connections(&behind, "tunnel") == 0.0
    });

    let without = weir(&redis, "tunnels = false\n");
    for command in [
        &["SYNC"][..],
        &["PSYNC", "?", "-1"],
        &["SCRIPT", "DEBUG", "YES"],
    ] {
        let refusal = String::from_utf8(without.client().command(command)).expect("text");
        assert!(
            refusal.starts_with("-ERR weir: ") && refusal.contains("tunnels"),
            "{command:?}: {refusal}"
        );
    }
}
