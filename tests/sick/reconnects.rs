//! Redis dies and comes back under many clients that each want a connection of their own.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use super::support::{RedisServer, wait_until};
use super::{error, weir};

const RATE: f64 = 40.0;
const BURST: f64 = 4.0;

#[test]
fn a_redis_that_comes_back_is_dialled_no_faster_than_the_bucket_allows() {
    let mut redis = RedisServer::start();
    let weir = weir(
        &redis,
        &format!(
            "max_connections = 40\nmax_leases = 30\nreconnect_rate = {RATE}\n\
             reconnect_burst = {BURST}\n[process]\nworkers = 3\n"
        ),
    );
    let stop = AtomicBool::new(false);
    let clients = 60;
    let served: Vec<AtomicU64> = (0..clients).map(|_| AtomicU64::new(0)).collect();
    let everybody_is_served = |what: &str| {
        let before: Vec<u64> = served.iter().map(|count| count.load(Relaxed)).collect();
        wait_until(what, || {
            let mut pairs = served.iter().zip(&before);
            pairs.all(|(count, before)| count.load(Relaxed) > *before)
        });
    };
    thread::scope(|scope| {
        for (id, served) in served.iter().enumerate() {
            let (weir, stop) = (&weir, &stop);
            scope.spawn(move || {
                let mut client = weir.client();
                let key = format!("k{id}");
                while !stop.load(Relaxed) {
                    // Needs a connection of its own from WATCH to EXEC.
                    let mut failed = error(&client.command(&["WATCH", &key])).is_some();
                    for command in [&["MULTI"][..], &["INCR", &key], &["EXEC"]] {
                        failed |= error(&client.command(command)).is_some();
                    }
                    served.fetch_add(u64::from(!failed), Relaxed);
                }
            });
        }
        everybody_is_served("everybody is served");
        for _ in 0..2 {
            let began = Instant::now();
            redis.kill();
            // From the first loss on, each dial takes a token. Before it there is none to
            // wait for, so they are counted from when Weir knows.
            wait_until("Weir knows", || {
                weir.metric("weir_node_state", &["state=\"healthy\""]) == 0.0
            });
            let before = weir.metric("weir_backend_dials_total", &[]);
            redis.restart();
            everybody_is_served("everybody is served again");
            let dials = weir.metric("weir_backend_dials_total", &[]) - before;
            let allowed = BURST + 1.0 + RATE * began.elapsed().as_secs_f64();
            assert!(dials <= allowed, "{dials} dials, {allowed} allowed");
        }
        stop.store(true, Relaxed);
    });
    assert!(weir.metric("weir_backend_dials_delayed_total", &[]) > 0.0);
    assert!(!weir.log().contains("panicked"), "{}", weir.log());
}
