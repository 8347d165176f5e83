//! A replica that was away is read from little by little.

use super::support::{RawClient, Replicas, WeirProcess, wait_until};
use super::{reached, weir_before};

const CLIENTS: usize = 200;

fn settings(ramp: &str) -> String {
    format!("[route.main.failover]\nread_from = \"replica\"\nramp = \"{ramp}\"\n")
}

fn weight(weir: &WeirProcess, replicas: &Replicas, node: usize) -> f64 {
    let label = format!("node=\"{}\"", replicas.nodes[node].address());
    weir.metric("weir_node_read_weight", &[&label])
}

/// A key whose value on this replica says that it was read there.
fn mark(replicas: &Replicas, node: usize) {
    let mut direct = replicas.nodes[node].client();
    direct.expect_command(&["CONFIG", "SET", "replica-read-only", "no"], "+OK\r\n");
    direct.expect_command(&["SET", "who", &format!("replica{node}")], "+OK\r\n");
}

/// How many of those who ask read from this replica.
fn readers_of(clients: &mut [RawClient], node: usize) -> usize {
    let name = format!("replica{node}");
    let each = clients.iter_mut().map(|client| reached(client, "who"));
    each.filter(|from| *from == name).count()
}

#[test]
fn a_node_that_comes_back_is_read_from_by_few_first_and_then_by_as_many_as_the_other() {
    let mut replicas = Replicas::start(3);
    // So long that this ends by a reload only.
    let mut weir = weir_before(&replicas, &settings("1h"));
    wait_until("both may serve", || {
        (1..=2).all(|node| weight(&weir, &replicas, node) == 1.0)
    });
    replicas.nodes[2].kill();
    wait_until("it is gone", || weight(&weir, &replicas, 2) == 0.0);
    replicas.nodes[2].restart();
    replicas.follow(2, 0);
    replicas.wait_until_linked(0);
    (1..=2).for_each(|node| mark(&replicas, node));
    wait_until("it is back", || weight(&weir, &replicas, 2) > 0.0);
    let first = weight(&weir, &replicas, 2);
    assert!(first < 0.5, "{first}");
    assert_eq!(weight(&weir, &replicas, 1), 1.0);
    let mut clients: Vec<RawClient> = (0..CLIENTS).map(|_| weir.client()).collect();
    // About one in eleven, and never so many as a third.
    let few = readers_of(&mut clients, 2);
    assert!((1..CLIENTS / 3).contains(&few), "{few} of {CLIENTS}");
    let text = weir.filled(&super::config(
        &replicas.settings(&[0, 1, 2]),
        &settings("1ms"),
    ));
    std::fs::write(weir.config_path(), text).expect("a config file");
    weir.signal(libc::SIGHUP);
    wait_until("it has its whole share", || {
        weight(&weir, &replicas, 2) == 1.0
    });
    wait_until("it is read from by about as many as the other", || {
        let half = readers_of(&mut clients, 2);
        (CLIENTS / 3..CLIENTS * 2 / 3).contains(&half)
    });
}
