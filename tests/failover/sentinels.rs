//! Sentinels name the nodes and make failovers.

use super::counters::{nothing_twice, run};
use super::support::{Replicas, Sentinels, wait_until};
use super::{wait_for_state, weir};

#[test]
fn nodes_are_found_by_sentinels_and_a_failover_is_followed() {
    let mut replicas = Replicas::start(3);
    let sentinels = Sentinels::watch(&replicas, "");
    let more = "[route.main.failover]\nhold = \"20s\"\n";
    let weir = weir(&replicas.nodes[0], &sentinels.settings(), more);
    weir.client().expect_command(&["SET", "k", "v"], "+OK\r\n");
    for node in 1..3 {
        wait_for_state(&weir, &replicas.nodes[node], &["standing=\"follower\""]);
    }
    let told = run(weir.address(), 8, |progress| {
        progress.wait_for(20);
        replicas.nodes[0].kill();
        progress.wait_for(20);
    });
    for told in &told {
        assert!(told.unknown <= 1 && told.refused == 0, "{told:?}");
    }
    let primary = (1..3)
        .find(|&node| replicas.nodes[node].info("replication", "role") == "master")
        .expect("the sentinels have promoted one");
    nothing_twice(&replicas.nodes[primary], &told);
    // The old one comes back as a primary: until the sentinels have seen to it, it gets
    // nothing; then it is a replica.
    replicas.nodes[0].restart();
    wait_until("it is a replica", || {
        replicas.nodes[0].info("replication", "role") == "slave"
    });
    wait_for_state(&weir, &replicas.nodes[0], &["standing=\"follower\""]);
    assert!(weir.metric("weir_failovers_total", &[]) >= 1.0);
}

#[test]
fn while_no_sentinel_answers_what_was_known_last_holds() {
    let replicas = Replicas::start(2);
    let mut sentinels = Sentinels::watch(&replicas, "");
    let mut weir = weir(&replicas.nodes[0], &sentinels.settings(), "");
    let mut client = weir.client();
    client.expect_command(&["SET", "k", "v"], "+OK\r\n");
    sentinels.kill_all();
    weir.wait_for_log("sentinel cannot be asked");
    for _ in 0..20 {
        client.expect_command(&["GET", "k"], "$1\r\nv\r\n");
        weir.client().expect_command(&["SET", "k", "v"], "+OK\r\n");
    }
    // Somebody promotes the replica by hand.
    replicas.promote(1, &[0]);
    wait_for_state(&weir, &replicas.nodes[1], &["standing=\"primary\""]);
    client.expect_command(&["SET", "k", "w"], "+OK\r\n");
    assert_eq!(replicas.nodes[1].command(&["GET", "k"]), b"$1\r\nw\r\n");
}

#[test]
fn sentinels_and_nodes_have_passwords_of_their_own() {
    let passwords = [
        "--requirepass",
        "node-secret",
        "--masterauth",
        "node-secret",
    ];
    let replicas = Replicas::with(2, &passwords);
    let settings = "sentinel auth-pass main node-secret\nrequirepass sentinel-secret\n\
                    sentinel sentinel-pass sentinel-secret\n";
    let sentinels = Sentinels::with_password(&replicas, settings, "sentinel-secret");
    let backend = format!(
        "{}sentinel_password = \"sentinel-secret\"\npassword = \"node-secret\"\n",
        sentinels.settings()
    );
    let weir = weir(&replicas.nodes[0], &backend, "");
    let mut client = weir.client();
    client.expect_command(&["AUTH", "node-secret"], "+OK\r\n");
    client.expect_command(&["SET", "k", "v"], "+OK\r\n");
    sentinels.fail_over();
    wait_for_state(&weir, &replicas.nodes[1], &["standing=\"primary\""]);
    client.expect_command(&["SET", "k", "w"], "+OK\r\n");
    assert!(!weir.log().contains("secret"), "{}", weir.log());
}

/// Sentinels name the new primary only when they have told its replicas; it is followed as
/// soon as it says itself what it is.
#[test]
fn one_that_sentinels_are_about_to_name_is_followed_at_once() {
    let mut replicas = Replicas::start(2);
    // They would begin in an hour.
    let sentinels = Sentinels::watch(&replicas, "sentinel down-after-milliseconds main 3600000\n");
    let weir = weir(&replicas.nodes[0], &sentinels.settings(), "");
    weir.client().expect_command(&["SET", "k", "v"], "+OK\r\n");
    wait_for_state(&weir, &replicas.nodes[1], &["standing=\"follower\""]);
    replicas.wait_until_caught_up(1, 0);
    replicas.nodes[0].kill();
    replicas.promote(1, &[]);
    wait_for_state(&weir, &replicas.nodes[1], &["standing=\"primary\""]);
    weir.client().expect_command(&["SET", "k", "w"], "+OK\r\n");
    // The one that they still name comes back, without its data: it is waited for no more.
    replicas.nodes[0].restart();
    wait_for_state(&weir, &replicas.nodes[0], &["standing=\"rival\""]);
    let mut client = weir.client();
    client.expect_command(&["GET", "k"], "$1\r\nw\r\n");
}
