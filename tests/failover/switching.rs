//! A planned change of the primary: nobody sees an error.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::counters::{check, run};
use super::support::{RawClient, Replicas, WeirProcess, encode, wait_until};
use super::{wait_for_state, weir_before};

#[test]
fn a_switch_by_hand_under_a_pause_fails_no_command() {
    let replicas = Replicas::start(2);
    let more = "[route.main.clients]\noperator_networks = \"127.0.0.1\"\n";
    let weir = weir_before(&replicas, more);
    let told = run(weir.address(), 8, |progress| {
        progress.wait_for(20);
        let mut operator = weir.client();
        operator.expect_command(&["WEIR", "PAUSE", "60000"], "+OK\r\n");
        // Every client waits when nothing is under way and no command has come for a while.
        let (mut before, mut same) = (0.0, 0);
        wait_until("nothing is under way", || {
            let commands = weir.metric("weir_commands_total", &[]);
            let quiet = weir.metric("weir_commands_in_flight", &[]) == 0.0 && commands == before;
            (before, same) = (commands, if quiet { same + 1 } else { 0 });
            same >= 10
        });
        replicas.wait_until_caught_up(1, 0);
        replicas.promote(1, &[]);
        replicas.follow(0, 1);
        wait_for_state(&weir, &replicas.nodes[1], &["standing=\"primary\""]);
        operator.expect_command(&["WEIR", "RESUME"], "+OK\r\n");
        progress.wait_for(20);
    });
    check(&replicas.nodes[1], &told);
    for told in &told {
        assert_eq!(
            (told.unknown, told.refused, told.reads_failed),
            (0, 0, 0),
            "{told:?}"
        );
    }
}

#[test]
fn a_failover_command_under_load_fails_no_command() {
    for workers in [1, 3] {
        let replicas = Replicas::start(2);
        let more =
            format!("[process]\nworkers = {workers}\n[route.main.failover]\nhold = \"20s\"\n");
        let weir = weir_before(&replicas, &more);
        let mut primary = 0;
        let told = run(weir.address(), 12, |progress| {
            for _ in 0..3 {
                progress.wait_for(20);
                let other = 1 - primary;
                let mut direct = replicas.nodes[primary].client();
                direct.expect_command(&["FAILOVER"], "+OK\r\n");
                wait_until("the replica is promoted", || {
                    replicas.nodes[other].info("replication", "role") == "master"
                });
                primary = other;
                progress.wait_for(20);
                replicas.wait_until_linked(primary);
            }
        });
        check(&replicas.nodes[primary], &told);
        for told in &told {
            assert_eq!(
                (told.unknown, told.refused, told.reads_failed),
                (0, 0, 0),
                "{told:?}"
            );
        }
        wait_for_state(&weir, &replicas.nodes[primary], &["standing=\"primary\""]);
    }
}

/// Writes and reads that are sent together are refused and answered in turn by a primary
/// that is demoted: all of them go to its successor.
#[test]
fn a_failover_command_under_pipelines_fails_no_command() {
    let replicas = Replicas::start(2);
    let more = "[process]\nworkers = 2\n[route.main.failover]\nhold = \"20s\"\n";
    let weir = weir_before(&replicas, more);
    under_pipelines(&replicas, &weir, 8, |client, id, round| {
        let (count, text) = (format!("count:{id}"), format!("text:{id}"));
        if round == 0 {
            client.expect_command(&["SET", &text, &text], "+OK\r\n");
        }
        let both = [encode(&["INCR", &count]), encode(&["GET", &text])].concat();
        client.send(both.repeat(2));
        let value = format!("${}\r\n{text}\r\n", text.len());
        client.expect(format!(":{}\r\n{value}", 2 * round + 1));
        client.expect(format!(":{}\r\n{value}", 2 * round + 2));
    });
}

/// The primary hands over to its replica, and back, while clients `talk`: each sends a pipeline
/// by its number and that of the round, and expects the replies.
pub fn under_pipelines(
    replicas: &Replicas,
    weir: &WeirProcess,
    clients: usize,
    talk: impl Fn(&mut RawClient, usize, u64) + Sync,
) {
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..clients)
            .map(|id| {
                let (talk, stop, rounds) = (&talk, &stop, &rounds);
                scope.spawn(move || {
                    let mut client = weir.client();
                    let mut round = 0;
                    while !stop.load(Relaxed) {
                        talk(&mut client, id, round);
                        round += 1;
                        rounds.fetch_add(1, Relaxed);
                    }
                })
            })
            .collect();
        let mut primary = 0;
        for _ in 0..6 {
            let goal = rounds.load(Relaxed) + 200;
            wait_until("pipelines are answered", || rounds.load(Relaxed) >= goal);
            let mut direct = replicas.nodes[primary].client();
            direct.expect_command(&["FAILOVER"], "+OK\r\n");
            primary = 1 - primary;
            wait_until("the replica is promoted", || {
                replicas.nodes[primary].info("replication", "role") == "master"
            });
            replicas.wait_until_linked(primary);
        }
        stop.store(true, Relaxed);
        for client in clients {
            client.join().expect("every command is done once, in order");
        }
    });
}

/// Redis holds writes until its replica has everything: that may take longer than Weir would
/// wait for a primary.
#[test]
fn a_failover_command_that_takes_longer_than_the_hold_fails_no_command() {
    let mut replicas = Replicas::start(2);
    // Nor is a connection given up on which Redis holds a write.
    let more = "[route.main.timeouts]\nstall = \"60s\"\nrequest = \"60s\"\n";
    let weir = weir_before(&replicas, more);
    let mut client = weir.client();
    client.expect_command(&["INCR", "n"], ":1\r\n");
    wait_for_state(&weir, &replicas.nodes[1], &["standing=\"follower\""]);
    replicas.nodes[1].stop();
    client.expect_command(&["INCR", "n"], ":2\r\n");
    replicas.nodes[0]
        .client()
        .expect_command(&["FAILOVER"], "+OK\r\n");
    let both = [encode(&["INCR", "n"]), encode(&["GET", "n"])].concat();
    client.send(both);
    // The hold is 2 s.
    std::thread::sleep(std::time::Duration::from_millis(2300));
    replicas.nodes[1].cont();
    client.expect(":3\r\n$1\r\n3\r\n");
    wait_for_state(&weir, &replicas.nodes[1], &["standing=\"primary\""]);
    assert_eq!(replicas.nodes[1].command(&["GET", "n"]), b"$1\r\n3\r\n");
}
