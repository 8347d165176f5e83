//! Nodes that do not belong, names that stand for nothing, passwords that are wrong on one
//! node only.

use super::support::{RedisServer, Replicas, wait_until};
use super::{wait_for_state, weir, weir_before};

#[test]
fn a_node_of_another_deployment_gets_nothing_and_is_named() {
    let mut replicas = Replicas::start(2);
    let stranger = RedisServer::start();
    let follower = RedisServer::start();
    let port = stranger.port().to_string();
    follower
        .client()
        .expect_command(&["REPLICAOF", "127.0.0.1", &port], "+OK\r\n");
    wait_until("it follows the stranger", || {
        follower.info("replication", "master_link_status") == "up"
    });
    let nodes = format!(
        "topology = \"replicated\"\nnodes = [\"{}\", \"{}\", \"{}\", \"{}\"]\n",
        stranger.address(),
        replicas.nodes[0].address(),
        replicas.nodes[1].address(),
        follower.address(),
    );
    // Without its followers in the list the stranger would be as good as any.
    let more = "[route.main.failover]\nread_from = \"prefer_replica\"\nhold = \"100ms\"\n";
    let short = nodes.replace(&format!(", \"{}\"", follower.address()), "");
    let mut weir = weir(&stranger, &short, more);
    weir.client().expect_command(&["SET", "k", "v"], "+OK\r\n");
    wait_for_state(&weir, &stranger, &["standing=\"foreign\""]);
    weir.wait_for_log("belongs to another deployment");
    assert_eq!(stranger.command(&["DBSIZE"]), b":0\r\n");
    // Nor does it take the primary's place.
    wait_for_state(&weir, &replicas.nodes[1], &["standing=\"follower\""]);
    replicas.nodes[0].kill();
    wait_until("there is no primary", || {
        weir.client()
            .command(&["SET", "k", "w"])
            .starts_with(b"-MASTERDOWN")
    });
    assert_eq!(stranger.command(&["DBSIZE"]), b":0\r\n");
}

#[test]
fn a_replica_of_a_replica_serves_reads_and_is_no_primary() {
    let replicas = Replicas::start(3);
    replicas.follow(2, 1);
    wait_until("it follows the replica", || {
        replicas.nodes[2].info("replication", "master_link_status") == "up"
    });
    let backend = replicas.settings(&[2, 0]);
    let more = "[route.main.failover]\nread_from = \"replica\"\n";
    let weir = weir(&replicas.nodes[0], &backend, more);
    let mut client = weir.client();
    client.expect_command(&["SET", "k", "v"], "+OK\r\n");
    wait_for_state(
        &weir,
        &replicas.nodes[2],
        &["standing=\"follower\"", "role=\"replica\""],
    );
    wait_until("it is read from", || {
        client.command(&["GET", "k"]) == b"$1\r\nv\r\n"
    });
}

#[test]
fn a_password_that_is_wrong_on_one_node_keeps_out_that_node_only() {
    let passwords = ["--requirepass", "right", "--masterauth", "right"];
    let replicas = Replicas::with(3, &passwords);
    let mut odd = replicas.nodes[2].client();
    odd.expect_command(&["CONFIG", "SET", "requirepass", "other"], "+OK\r\n");
    let backend = format!("{}password = \"right\"\n", replicas.settings(&[0, 1, 2]));
    let more = "[route.main.failover]\nread_from = \"prefer_replica\"\n";
    let weir = weir(&replicas.nodes[0], &backend, more);
    wait_for_state(&weir, &replicas.nodes[2], &["health=\"refused\""]);
    wait_for_state(&weir, &replicas.nodes[1], &["standing=\"follower\""]);
    let mut client = weir.client();
    client.expect_command(&["AUTH", "right"], "+OK\r\n");
    client.expect_command(&["SET", "k", "v"], "+OK\r\n");
    for _ in 0..20 {
        let reply = client.command(&["GET", "k"]);
        assert!(!reply.starts_with(b"-"), "{}", reply.escape_ascii());
    }
    let address = replicas.nodes[2].address().to_string();
    wait_until("the log says which node, and why", || {
        let log = weir.log();
        let mut lines = log.lines();
        lines.any(|line| line.contains(&address) && line.contains("WRONGPASS"))
    });
}

#[test]
fn names_that_stand_for_nothing_keep_out_nobody_else() {
    let replicas = Replicas::start(1);
    let backend = format!(
        "topology = \"replicated\"\nnodes = [\"nowhere.invalid:6379\", \"localhost:{}\"]\n",
        replicas.nodes[0].port()
    );
    let weir = weir(&replicas.nodes[0], &backend, "");
    let mut client = weir.client();
    client.expect_command(&["SET", "k", "v"], "+OK\r\n");
    wait_for_state(&weir, &replicas.nodes[0], &["standing=\"primary\""]);
}

#[test]
fn a_pool_that_is_used_up_is_no_reason_to_think_ill_of_a_node() {
    let replicas = Replicas::start(2);
    let more = "max_connections = 4\n[route.main.failover]\nprobe_interval = \"20ms\"\n";
    let weir = weir_before(&replicas, more);
    let mut waiting: Vec<_> = (0..8).map(|_| weir.client()).collect();
    for client in &mut waiting {
        client.send(b"BLPOP nothing 0\r\n");
    }
    let mut client = weir.client();
    for _ in 0..300 {
        client.expect_command(&["INCR", "n"].map(str::to_owned), {
            let reply = replicas.nodes[0].command(&["GET", "n"]);
            let text = String::from_utf8_lossy(&reply).into_owned();
            let n: u64 = text
                .split("\r\n")
                .nth(1)
                .and_then(|it| it.parse().ok())
                .unwrap_or(0);
            format!(":{}\r\n", n + 1)
        });
    }
    weir.wait_for_metric("weir_node_up", &[], 2.0);
    assert!(!weir.log().contains("cannot be used"), "{}", weir.log());
}
