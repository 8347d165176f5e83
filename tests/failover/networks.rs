//! The network between Weir and the nodes: cut, slow, or under another address than before.

use super::counters::{check, nothing_twice, run};
use super::support::{Forwarder, RedisServer, Replicas, wait_until};
use super::{reached, weir};

fn settings(addresses: &[String]) -> String {
    let quoted: Vec<String> = addresses.iter().map(|it| format!("\"{it}\"")).collect();
    let nodes = quoted.join(", ");
    format!("topology = \"replicated\"\nnodes = [{nodes}]\n")
}

/// What the metrics say of a node by the address at which Weir reaches it.
fn wait_for(weir: &super::WeirProcess, address: &str, label: &str) {
    let node = format!("node=\"{address}\"");
    wait_until(&format!("{address}: {label}"), || {
        weir.metric("weir_node_role", &[&node, label]) == 1.0
    });
}

#[test]
fn a_primary_that_is_cut_off_is_replaced_and_gets_nothing_when_the_network_is_back() {
    let replicas = Replicas::start(2);
    let network = Forwarder::before(replicas.nodes[0].address());
    let first = network.address().to_string();
    let second = replicas.nodes[1].address().to_string();
    let more = "[process]\nworkers = 2\n[route.main.timeouts]\nstall = \"3s\"\n\
                connect = \"2s\"\n[route.main.failover]\nhold = \"20s\"\n";
    let weir = weir(
        &replicas.nodes[0],
        &settings(&[first.clone(), second.clone()]),
        more,
    );
    wait_for(&weir, &second, "standing=\"follower\"");
    let told = run(weir.address(), 8, |progress| {
        progress.wait_for(20);
        network.cut();
        // Nobody has promoted another: it is known to be gone nevertheless.
        wait_for(&weir, &first, "health=\"hung\"");
        replicas.promote(1, &[]);
        progress.wait_for(20);
        network.mend();
        // It still says that it is the primary.
        wait_for(&weir, &first, "standing=\"rival\"");
        progress.wait_for(20);
    });
    nothing_twice(&replicas.nodes[1], &told);
    for told in &told {
        assert!(told.unknown <= 2 && told.refused == 0, "{told:?}");
    }
}

#[test]
fn the_nearest_node_is_read_from_and_another_when_it_becomes_slow() {
    let replicas = Replicas::start(2);
    let primary = replicas.nodes[0]
        .client()
        .command(&["SET", "who", "primary"]);
    assert_eq!(primary, b"+OK\r\n");
    replicas.wait_until_caught_up(1, 0);
    let mut direct = replicas.nodes[1].client();
    direct.expect_command(&["CONFIG", "SET", "replica-read-only", "no"], "+OK\r\n");
    direct.expect_command(&["SET", "who", "replica"], "+OK\r\n");
    let networks: Vec<Forwarder> = (replicas.nodes.iter())
        .map(|it| Forwarder::before(it.address()))
        .collect();
    let slow = std::time::Duration::from_millis(20);
    networks[0].delay(slow);
    let addresses: Vec<String> = networks.iter().map(|it| it.address().to_string()).collect();
    let more = "[route.main.failover]\nread_from = \"nearest\"\nprobe_interval = \"20ms\"\n";
    let weir = weir(&replicas.nodes[0], &settings(&addresses), more);
    let mut client = weir.client();
    wait_until("the replica is nearer", || {
        reached(&mut client, "who") == "replica"
    });
    networks[0].delay(std::time::Duration::ZERO);
    networks[1].delay(slow);
    wait_until("the primary is nearer", || {
        reached(&mut client, "who") == "primary"
    });
}

/// Slow is not gone: as long as it answers its probes, it stays what it is.
#[test]
fn a_primary_that_is_slow_keeps_its_role() {
    let replicas = Replicas::start(2);
    let network = Forwarder::before(replicas.nodes[0].address());
    let first = network.address().to_string();
    let second = replicas.nodes[1].address().to_string();
    let more = "[process]\nworkers = 2\n[route.main.timeouts]\nstall = \"10s\"\n\
                connect = \"10s\"\n[route.main.health]\nsilence_max = \"20s\"\n\
                [route.main.failover]\nhold = \"20s\"\nprobe_interval = \"100ms\"\n";
    let weir = weir(
        &replicas.nodes[0],
        &settings(&[first.clone(), second.clone()]),
        more,
    );
    wait_for(&weir, &second, "standing=\"follower\"");
    let told = run(weir.address(), 8, |progress| {
        progress.wait_for(5);
        // More than a connection may be silent before others are looked at.
        network.delay(std::time::Duration::from_millis(200));
        let node = format!("node=\"{first}\"");
        wait_until("its probes tell how slow it is", || {
            weir.metric("weir_node_latency_seconds", &[&node]) > 0.2
        });
        progress.wait_for(5);
        wait_for(&weir, &first, "standing=\"primary\"");
        wait_for(&weir, &first, "health=\"up\"");
        network.delay(std::time::Duration::ZERO);
        progress.wait_for(20);
    });
    check(&replicas.nodes[0], &told);
    for told in &told {
        assert_eq!((told.unknown, told.refused), (0, 0), "{told:?}");
    }
    assert_eq!(weir.metric("weir_failovers_total", &[]), 0.0);
    assert_eq!(weir.metric("weir_node_trips_total", &[]), 0.0);
}

/// While a node loads its data it is there and cannot serve: another does, where reads may
/// be stale, and writes wait.
#[test]
fn a_primary_that_loads_its_data_is_waited_for() {
    if RedisServer::start().compatible_version() < (7, 0) {
        // It cannot be told to answer while it loads little.
        return;
    }
    let slow_loading = [
        "--key-load-delay",
        "5000",
        "--loading-process-events-interval-bytes",
        "1024",
    ];
    let mut replicas = Replicas::with(2, &slow_loading);
    let mut direct = replicas.nodes[0].client();
    for key in 0..3000 {
        direct.expect_command(&["SET", &format!("key:{key}"), "value"], "+OK\r\n");
    }
    replicas.wait_until_caught_up(1, 0);
    direct.expect_command(&["SAVE"], "+OK\r\n");
    let addresses: Vec<String> = (replicas.nodes.iter())
        .map(|it| it.address().to_string())
        .collect();
    let more = "[route.main.failover]\nhold = \"60s\"\nstale_reads_on_failure = true\n";
    let weir = weir(&replicas.nodes[0], &settings(&addresses), more);
    wait_for(&weir, &addresses[1], "standing=\"follower\"");
    let label = format!("node=\"{}\"", addresses[1]);
    wait_until("the replica may serve", || {
        weir.metric("weir_node_read_weight", &[&label]) == 1.0
    });
    let mut reader = weir.client();
    let mut writer = weir.client();
    writer.expect_command(&["INCR", "n"], ":1\r\n");
    replicas.wait_until_caught_up(1, 0);
    replicas.nodes[0].begin_restart();
    wait_for(&weir, &addresses[0], "health=\"loading\"");
    writer.send(super::support::encode(&["INCR", "other"]));
    assert_eq!(reached(&mut reader, "key:7"), "value");
    // It need not be slow any longer.
    for node in &replicas.nodes {
        let quick = ["CONFIG", "SET", "key-load-delay", "0"];
        node.client().expect_command(&quick, "+OK\r\n");
    }
    // It has what it had saved, and nobody has taken its place.
    writer.expect(":1\r\n");
    assert_eq!(replicas.nodes[0].command(&["GET", "other"]), b"$1\r\n1\r\n");
}

/// A name stands for another server than before, as a service's does: the hosts file that
/// Weir's resolver reads is a test's own, in a namespace of mounts.
#[test]
fn a_name_that_gets_another_address_is_followed() {
    let may = std::process::Command::new("unshare")
        .args(["--mount", "--map-root-user", "true"])
        .status();
    if !may.is_ok_and(|status| status.success()) {
        eprintln!("not tested: namespaces are not allowed here");
        return;
    }
    let first = RedisServer::start();
    let second = RedisServer::start();
    for (server, name) in [(&first, "first"), (&second, "second")] {
        let reply = server.command(&["SET", "who", name]);
        assert_eq!(reply, b"+OK\r\n");
    }
    // The same port at another address leads to the second.
    let other = format!("127.0.0.77:{}", first.port());
    let _network = Forwarder::at(other.parse().expect("an address"), second.address());
    let directory = tempfile::tempdir().expect("a directory");
    let hosts = directory.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 redis.weir.test\n").expect("a file");
    let backend = format!(
        "topology = \"replicated\"\nnodes = [\"redis.weir.test:{}\"]\n",
        first.port()
    );
    let more = "[route.main.failover]\nresolve_interval = \"50ms\"\nprobe_interval = \"50ms\"\n";
    let weir = super::WeirProcess::with_hosts(&first, &super::config(&backend, more), &hosts);
    let mut client = weir.client();
    assert_eq!(reached(&mut client, "who"), "first");
    // A name that is another server's, with other data: nobody takes it for a successor while
    // the first is there.
    std::fs::write(&hosts, "127.0.0.77 redis.weir.test\n").expect("a file");
    wait_for(&weir, &other, "standing=\"foreign\"");
    assert_eq!(reached(&mut client, "who"), "first");
    // It is the first's replica now, and then its successor.
    let port = first.port().to_string();
    let mut direct = second.client();
    direct.expect_command(&["REPLICAOF", "127.0.0.1", &port], "+OK\r\n");
    wait_for(&weir, &other, "standing=\"follower\"");
    direct.expect_command(&["REPLICAOF", "NO", "ONE"], "+OK\r\n");
    wait_for(&weir, &other, "standing=\"primary\"");
    client.expect_command(&["SET", "who", "second"], "+OK\r\n");
    assert_eq!(second.command(&["GET", "who"]), b"$6\r\nsecond\r\n");
}
