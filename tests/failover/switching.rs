//! A planned change of the primary: nobody sees an error.

use super::counters::{check, run};
use super::support::{Replicas, wait_until};
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
        let more = format!("[process]\nworkers = {workers}\n");
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
