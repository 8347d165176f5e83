//! A planned change of the primary: nobody sees an error.

use super::counters::{check, run};
use super::support::{Replicas, wait_until};
use super::{wait_for_state, weir_before};

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
