//! Reads at replicas: each node has a limit and a line of its own, and a client's answers stay
//! in order whatever waits where.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::support::{RawClient, Replicas, WeirProcess, encode, wait_until};
use super::{BEHIND, TOO_MANY};

/// Weir with one worker in front of all nodes. A node that stands still is taken neither for one
/// that hangs nor for one that lags.
fn weir(replicas: &Replicas, failover: &str, overload: &str) -> WeirProcess {
    let order: Vec<usize> = (0..replicas.nodes.len()).collect();
    let backend = replicas.settings(&order);
    let config = format!(
        "[process]\nworkers = 1\n[admin]\nlisten = \"{{admin}}\"\n\
         [route.main]\nlisten = \"{{listen}}\"\n\
         [route.main.backend]\n{backend}reconnect_min = \"5ms\"\nreconnect_max = \"50ms\"\n\
         [route.main.clients]\noperator_networks = \"127.0.0.1\"\n\
         [route.main.timeouts]\nstall = \"60s\"\nrequest = \"60s\"\n\
         [route.main.health]\nsilence_max = \"60s\"\n\
         [route.main.failover]\nreplica_lag_max = \"1h\"\n{failover}\
         [route.main.overload]\ntarget = \"0s\"\n{overload}"
    );
    let weir = WeirProcess::with_config(&replicas.nodes[0], &config);
    for node in &replicas.nodes[1..] {
        let label = format!("node=\"{}\"", node.address());
        wait_until("the replica may serve", || {
            weir.metric("weir_node_read_weight", &[&label]) == 1.0
        });
    }
    weir
}

/// Keys with values of their own, on every node; `who` names the node.
fn fill(replicas: &Replicas) {
    let mut primary = replicas.nodes[0].client();
    primary.expect_command(&["SET", "who", "0"], "+OK\r\n");
    for number in 0..10 {
        let (key, value) = (format!("k{number}"), format!("v{number}"));
        primary.expect_command(&["SET", &key, &value], "+OK\r\n");
    }
    for node in 1..replicas.nodes.len() {
        replicas.wait_until_caught_up(node, 0);
        let mut direct = replicas.nodes[node].client();
        direct.expect_command(&["CONFIG", "SET", "replica-read-only", "no"], "+OK\r\n");
        direct.expect_command(&["SET", "who", &node.to_string()], "+OK\r\n");
        direct.expect_command(&["CONFIG", "SET", "replica-read-only", "yes"], "+OK\r\n");
    }
}

fn get(key: &str) -> Vec<u8> {
    encode(&["GET", key])
}

/// The node that a client's reads go to; its connection is there then.
fn who(client: &mut RawClient) -> usize {
    let reply = client.command(&["GET", "who"]);
    usize::from(reply[reply.len() - 3] - b'0')
}

/// Waits until so many are under way, and so many wait in Weir.
fn wait_for(weir: &WeirProcess, in_flight: f64, waiting: f64) {
    weir.wait_for_metric("weir_commands_in_flight", &[], in_flight);
    weir.wait_for_metric("weir_commands_waiting", &[], waiting);
}

/// Runs of reads and of increments, of a length that changes with each round, and every
/// answer to them; of five commands `reads` are reads. `count` is what the counter stands at.
fn pipeline(client: &mut RawClient, number: usize, round: usize, reads: usize, count: &mut usize) {
    let counter = format!("n{number}");
    let (mut pipeline, mut replies) = (Vec::new(), String::new());
    for step in 0..24 {
        if (step * (round % 7 + 1) + number) % 5 < reads {
            let key = (step + round) % 10;
            pipeline.extend(get(&format!("k{key}")));
            replies += &format!("$2\r\nv{key}\r\n");
        } else {
            *count += 1;
            pipeline.extend(encode(&["INCR", &counter]));
            replies += &format!(":{count}\r\n");
        }
    }
    client.send(pipeline);
    client.expect(replies);
}

#[test]
fn reads_at_a_replica_wait_in_its_line_or_are_refused() {
    let mut replicas = Replicas::start(2);
    fill(&replicas);
    let weir = weir(
        &replicas,
        "read_from = \"prefer_replica\"\n",
        "in_flight = 1\nqueue_max = 3\n",
    );
    let mut clients: Vec<RawClient> = (0..4).map(|_| weir.client()).collect();
    for client in &mut clients {
        client.expect_command(&["SET", "own", "x"], "+OK\r\n");
        assert_eq!(who(client), 1);
    }
    let [first, second, third, fourth] = &mut clients[..] else {
        unreachable!("there are four");
    };
    wait_for(&weir, 0.0, 0.0);
    replicas.nodes[1].stop();
    first.send(get("k1"));
    wait_for(&weir, 1.0, 0.0);
    // The write waits for the read before it, which waits for the replica.
    second.send([get("k2"), encode(&["SET", "own", "y"]), get("k3")].concat());
    wait_for(&weir, 1.0, 1.0);
    third.send([get("k4"), get("k5"), get("k6"), get("k7")].concat());
    // Two join it, the next is refused and keeps its place, and so does the last.
    weir.wait_for_metric("weir_shed_total", &["limit=\"queue\""], 1.0);
    assert_eq!(fourth.command(&["GET", "k8"]), TOO_MANY.as_bytes());
    // The primary has a line of its own.
    fourth.expect_command(&["SET", "other", "z"], "+OK\r\n");
    assert_eq!(replicas.nodes[0].command(&["GET", "own"]), b"$1\r\nx\r\n");
    replicas.nodes[1].cont();
    first.expect("$2\r\nv1\r\n");
    second.expect("$2\r\nv2\r\n+OK\r\n$2\r\nv3\r\n");
    third.expect(format!("$2\r\nv4\r\n$2\r\nv5\r\n{TOO_MANY}{BEHIND}"));
    assert_eq!(replicas.nodes[0].command(&["GET", "own"]), b"$1\r\ny\r\n");
    wait_for(&weir, 0.0, 0.0);
}

/// Where reads go changes all the time meanwhile.
#[test]
fn pipelines_that_change_between_nodes_stay_in_order() {
    let replicas = Replicas::start(3);
    fill(&replicas);
    let weir = weir(
        &replicas,
        "read_from = \"prefer_replica\"\n",
        "in_flight = 2\n",
    );
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (weir, is_over) = (&weir, &is_over);
        scope.spawn(move || {
            let mut operator = weir.client();
            let policies = ["primary", "replica", "nearest", "prefer_replica"];
            for policy in policies.iter().cycle() {
                let key = "route.main.failover.read_from";
                operator.expect_command(&["WEIR", "CONFIG", "SET", key, policy], "+OK\r\n");
                if is_over.load(Relaxed) {
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        });
        let clients: Vec<_> = (0..8)
            .map(|number: usize| {
                scope.spawn(move || {
                    let mut client = weir.client();
                    let mut count = 0;
                    for round in 0..150_usize {
                        pipeline(&mut client, number, round, 3, &mut count);
                    }
                })
            })
            .collect();
        let results: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        is_over.store(true, Relaxed);
        assert!(results.iter().all(Result::is_ok));
    });
    assert_eq!(weir.metric("weir_shed_total", &[]), 0.0);
    assert!(weir.metric("weir_queue_time_seconds_count", &[]) > 0.0);
    wait_for(&weir, 0.0, 0.0);
}

#[test]
fn what_waits_for_a_replica_that_dies_is_asked_elsewhere() {
    for policy in ["prefer_replica", "replica"] {
        let mut replicas = Replicas::start(3);
        fill(&replicas);
        let failover = format!("read_from = \"{policy}\"\n");
        let weir = weir(&replicas, &failover, "in_flight = 1\n");
        let (mut first, mut second) = (weir.client(), weir.client());
        let dies = who(&mut first);
        // A client keeps its replica, and not every one has the same.
        while who(&mut second) != dies {
            second = weir.client();
        }
        wait_for(&weir, 0.0, 0.0);
        replicas.nodes[dies].stop();
        first.send([get("k1"), get("k2"), get("k3")].concat());
        wait_for(&weir, 1.0, 2.0);
        second.send([get("k4"), get("k5"), get("who")].concat());
        wait_for(&weir, 1.0, 5.0);
        replicas.nodes[dies].kill();
        first.expect("$2\r\nv1\r\n$2\r\nv2\r\n$2\r\nv3\r\n");
        let other = 3 - dies;
        second.expect(format!("$2\r\nv4\r\n$2\r\nv5\r\n$1\r\n{other}\r\n"));
        wait_for(&weir, 0.0, 0.0);
    }
}

/// As when the primary is there again after an outage, or `READWRITE` for all.
#[test]
fn what_follows_a_read_in_line_waits_though_reads_go_elsewhere_by_now() {
    let mut replicas = Replicas::start(2);
    fill(&replicas);
    let weir = weir(
        &replicas,
        "read_from = \"prefer_replica\"\n",
        "in_flight = 2\n",
    );
    let (mut first, mut second) = (weir.client(), weir.client());
    for client in [&mut first, &mut second] {
        client.expect_command(&["SET", "own", "x"], "+OK\r\n");
        assert_eq!(who(client), 1);
    }
    let mut subscriber = replicas.nodes[0].client();
    subscriber.expect_command(
        &["SUBSCRIBE", "news"],
        "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n",
    );
    wait_for(&weir, 0.0, 0.0);
    replicas.nodes[1].stop();
    first.send([get("k1"), get("k2")].concat());
    wait_for(&weir, 2.0, 0.0);
    second.send(get("k3"));
    wait_for(&weir, 2.0, 1.0);
    let mut operator = weir.client();
    // The worker takes over all settings at once: the second tells of the first.
    for (key, value) in [
        ("failover.read_from", "primary"),
        ("overload.in_flight", "1"),
    ] {
        let key = format!("route.main.{key}");
        operator.expect_command(&["WEIR", "CONFIG", "SET", &key, value], "+OK\r\n");
    }
    weir.wait_for_metric("weir_in_flight_limit", &[], 2.0);
    let labels = ["side=\"client\"", "direction=\"in\""];
    let before = weir.metric("weir_bytes_total", &labels);
    let behind = [encode(&["PUBLISH", "news", "hello"]), get("who")].concat();
    second.send(&behind);
    weir.wait_for_metric("weir_bytes_total", &labels, before + behind.len() as f64);
    replicas.nodes[1].cont();
    first.expect("$2\r\nv1\r\n$2\r\nv2\r\n");
    second.expect("$2\r\nv3\r\n:1\r\n$1\r\n0\r\n");
    subscriber.expect("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n");
}

/// Replicas die and come back under pipelines of which a part waits: nothing is lost, doubled
/// or out of order.
#[test]
fn replicas_come_and_go_under_pipelines_that_wait() {
    for policy in ["prefer_replica", "replica"] {
        come_and_go(policy);
    }
}

/// Ends what others do meanwhile, also if the test fails.
struct AtItsEnd<'a>(&'a AtomicBool);

impl Drop for AtItsEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn come_and_go(policy: &str) {
    let mut replicas = Replicas::start(3);
    fill(&replicas);
    let failover = format!("read_from = \"{policy}\"\nramp = \"100ms\"\n");
    let weir = weir(&replicas, &failover, "in_flight = 2\n");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (weir, is_over) = (&weir, &is_over);
        let clients: Vec<_> = (0..8)
            .map(|number: usize| {
                scope.spawn(move || {
                    let mut client = weir.client();
                    let (mut count, mut round) = (0, 0);
                    while !is_over.load(Relaxed) {
                        round += 1;
                        pipeline(&mut client, number, round, 4, &mut count);
                    }
                })
            })
            .collect();
        let at_its_end = AtItsEnd(is_over);
        for node in [1, 2, 1, 2] {
            let label = format!("node=\"{}\"", replicas.nodes[node].address());
            replicas.nodes[node].kill();
            wait_until("it serves nothing", || {
                weir.metric("weir_node_read_weight", &[&label]) == 0.0
            });
            replicas.nodes[node].restart();
            replicas.follow(node, 0);
            replicas.wait_until_linked(0);
            wait_until("it serves again", || {
                weir.metric("weir_node_read_weight", &[&label]) == 1.0
            });
        }
        drop(at_its_end);
        let results: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        assert!(results.iter().all(Result::is_ok));
    });
    assert_eq!(weir.metric("weir_shed_total", &[]), 0.0);
    wait_for(&weir, 0.0, 0.0);
}
