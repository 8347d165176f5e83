//! The list of nodes, or of sentinels, is another one: taken over while Weir runs, and no
//! client is cut.

use super::counters::{check, run};
use super::support::{RedisServer, Replicas, Sentinels, WeirProcess, wait_until};
use super::{config, wait_for_state, weir};

fn rewrite(weir: &WeirProcess, backend: &str) {
    let text = weir.filled(&config(backend, ""));
    std::fs::write(weir.config_path(), text).expect("a config file");
}

/// Has Weir read its file again.
fn reload(weir: &mut WeirProcess, backend: &str) {
    let count = |weir: &WeirProcess| weir.log().matches("settings were read again").count();
    let before = count(weir);
    rewrite(weir, backend);
    weir.signal(libc::SIGHUP);
    wait_until("the settings were read again", || count(weir) > before);
}

fn has(weir: &WeirProcess, node: &RedisServer) -> bool {
    let label = format!("node=\"{}\"", node.address());
    weir.metric("weir_node_role", &[&label]) == 1.0
}

#[test]
fn nodes_come_and_go_by_a_reload_and_nobody_is_cut() {
    let replicas = Replicas::start(3);
    let mut weir = weir(&replicas.nodes[0], &replicas.settings(&[0, 1]), "");
    let address = weir.address();
    let mut primary = 0;
    let told = run(address, 8, |progress| {
        progress.wait_for(20);
        // One more.
        reload(&mut weir, &replicas.settings(&[0, 1, 2]));
        wait_for_state(&weir, &replicas.nodes[2], &["standing=\"follower\""]);
        progress.wait_for(20);
        // One less, in another order.
        reload(&mut weir, &replicas.settings(&[2, 0]));
        wait_until("it is gone", || !has(&weir, &replicas.nodes[1]));
        progress.wait_for(20);
        // The new one takes over, and the first goes: nothing is left of the first list.
        let mut direct = replicas.nodes[0].client();
        let port = replicas.nodes[2].port().to_string();
        let command = ["FAILOVER", "TO", "127.0.0.1", &port];
        direct.expect_command(&command, "+OK\r\n");
        wait_for_state(&weir, &replicas.nodes[2], &["standing=\"primary\""]);
        primary = 2;
        progress.wait_for(20);
        reload(&mut weir, &replicas.settings(&[2]));
        wait_until("it is gone", || !has(&weir, &replicas.nodes[0]));
        progress.wait_for(20);
    });
    check(&replicas.nodes[primary], &told);
    for told in &told {
        let failed = (told.unknown, told.refused, told.reads_failed);
        assert_eq!(failed, (0, 0, 0), "{told:?}");
    }
}

/// The whole list is replaced, and the primary is not in it any more: it is followed until
/// another is, for writes that go nowhere help nobody.
#[test]
fn a_primary_that_is_taken_off_the_list_goes_when_its_successor_is_there() {
    let replicas = Replicas::start(2);
    let mut weir = weir(&replicas.nodes[0], &replicas.settings(&[0]), "");
    let mut client = weir.client();
    client.expect_command(&["SET", "k", "1"], "+OK\r\n");
    reload(&mut weir, &replicas.settings(&[1]));
    wait_for_state(&weir, &replicas.nodes[1], &["standing=\"follower\""]);
    client.expect_command(&["SET", "k", "2"], "+OK\r\n");
    replicas.wait_until_caught_up(1, 0);
    replicas.nodes[0]
        .client()
        .expect_command(&["FAILOVER"], "+OK\r\n");
    wait_for_state(&weir, &replicas.nodes[1], &["standing=\"primary\""]);
    client.expect_command(&["SET", "k", "3"], "+OK\r\n");
    assert_eq!(replicas.nodes[1].command(&["GET", "k"]), b"$1\r\n3\r\n");
    wait_until("it is gone", || !has(&weir, &replicas.nodes[0]));
}

#[test]
fn sentinels_come_and_go_by_a_reload() {
    let replicas = Replicas::start(2);
    let sentinels = Sentinels::watch(&replicas, "");
    let only = |which: &[usize]| sentinels.settings_of(which);
    let mut weir = weir(&replicas.nodes[0], &only(&[0]), "");
    let mut client = weir.client();
    client.expect_command(&["SET", "k", "v"], "+OK\r\n");
    wait_for_state(&weir, &replicas.nodes[1], &["standing=\"follower\""]);
    wait_until("the first is listened to", || sentinels.subscribers(0) == 1);
    // Others, and not the first.
    reload(&mut weir, &only(&[1, 2]));
    wait_until("the first is left alone", || sentinels.subscribers(0) == 0);
    for _ in 0..20 {
        client.expect_command(&["GET", "k"], "$1\r\nv\r\n");
    }
    sentinels.fail_over();
    wait_for_state(&weir, &replicas.nodes[1], &["standing=\"primary\""]);
    client.expect_command(&["SET", "k", "w"], "+OK\r\n");
    assert_eq!(replicas.nodes[1].command(&["GET", "k"]), b"$1\r\nw\r\n");
}

#[test]
fn another_kind_of_topology_takes_a_restart_and_says_so() {
    let replicas = Replicas::start(1);
    let mut weir = weir(&replicas.nodes[0], &replicas.settings(&[0]), "");
    let address = format!("address = \"{}\"\n", replicas.nodes[0].address());
    rewrite(&weir, &address);
    weir.signal(libc::SIGHUP);
    weir.wait_for_log("route.main.backend.topology: replicated -> standalone (by a restart only)");
    weir.client().expect_command(&["SET", "k", "v"], "+OK\r\n");
}
