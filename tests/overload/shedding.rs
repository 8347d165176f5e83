//! Redis is given more than it can do for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::support::{Forwarder, RedisServer, WeirProcess, wait_until};
use super::{BEHIND, TOO_MUCH, weir};

/// Takes Redis about 2 ms, and counts that it ran.
const SCRIPT: &str = "redis.call('INCR', KEYS[1]) local t = redis.call('TIME') \
    local from = t[1] * 1000000 + t[2] repeat t = redis.call('TIME') \
    until t[1] * 1000000 + t[2] - from >= 2000 return 1";

#[test]
fn what_is_too_much_is_refused_and_what_is_served_has_run_once() {
    let redis = RedisServer::start();
    // 60 clients wait 120 ms for each other.
    let mut weir = weir(
        &redis,
        "slow_in_flight = 4\ntarget = \"20ms\"\ninterval = \"100ms\"",
    );
    let (served, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let is_over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..60)
        .map(|_| {
            let mut client = weir.client();
            let (served, refused) = (served.clone(), refused.clone());
            let is_over = is_over.clone();
            std::thread::spawn(move || {
                while !is_over.load(Relaxed) {
                    let reply = client.command(&["EVAL", SCRIPT, "1", "ran"]);
                    if reply == b":1\r\n" {
                        served.fetch_add(1, Relaxed);
                        continue;
                    }
                    let reply = String::from_utf8_lossy(&reply).into_owned();
                    assert!([TOO_MUCH, BEHIND].contains(&&*reply), "{reply}");
                    refused.fetch_add(1, Relaxed);
                    std::thread::sleep(Duration::from_millis(5));
                }
            })
        })
        .collect();
    wait_until("many are refused and many are served", || {
        let many = refused.load(Relaxed) > 500 && served.load(Relaxed) > 500;
        many && weir.metric("weir_shedding", &[]) > 0.0
    });
    // What waits, waits in Weir.
    assert!(weir.metric("weir_commands_in_flight", &[]) <= 4.0);
    is_over.store(true, Relaxed);
    clients
        .into_iter()
        .for_each(|client| client.join().expect("no panic"));

    let ran = redis.command(&["GET", "ran"]);
    let served = served.load(Relaxed).to_string();
    assert_eq!(
        ran,
        format!("${}\r\n{served}\r\n", served.len()).into_bytes()
    );
    let refused = refused.load(Relaxed) as f64;
    weir.wait_for_metric("weir_shed_total", &["limit=\"queue_time\""], refused);
    // Its beginning and its end are each told once.
    weir.wait_for_log("no command is refused any more");
    assert_eq!(weir.log().matches("commands are refused").count(), 1);
    wait_until("the metric says so too", || {
        weir.metric("weir_shedding", &[]) == 0.0
    });
    weir.client().expect_command(&["PING"], "+PONG\r\n");
}

/// Weir in front of a Redis behind a network that makes the pace, whatever this machine has
/// to do besides: 50 commands each 20 ms.
fn paced(redis: &RedisServer, overload: &str) -> (WeirProcess, Forwarder) {
    let network = Forwarder::before(redis.address());
    let weir = WeirProcess::with_config(
        redis,
        &format!(
            "[process]\nworkers = 1\n[admin]\nlisten = \"{{admin}}\"\n\
             [route.main]\nlisten = \"{{listen}}\"\n\
             [route.main.backend]\naddress = \"{}\"\nmax_connections = 8\n\
             [route.main.overload]\nin_flight = 50\n{overload}",
            network.address()
        ),
    );
    weir.client().expect_command(&["PING"], "+PONG\r\n");
    network.delay(Duration::from_millis(10));
    (weir, network)
}

#[test]
fn a_crowd_of_busy_clients_is_no_overload() {
    let redis = RedisServer::start();
    // They wait 80 ms for each other, or a few times as long on a machine that is busy.
    let (weir, _network) = paced(&redis, "target = \"400ms\"");
    benchmark(&weir, &["-c", "200", "-n", "5000", "GET", "k"]);
    assert_eq!(weir.metric("weir_shed_total", &[]), 0.0);
    // Some had to wait in Weir for a moment, and nobody was refused.
    assert!(weir.metric("weir_queue_time_seconds_count", &[]) > 0.0);
}

/// As many deep pipelines as people like to try: everybody's batch takes longer than the target,
/// and nobody asks for more than is served.
#[test]
fn clients_that_wait_for_their_batches_are_no_overload() {
    let redis = RedisServer::start();
    // A batch of everybody's takes 320 ms, or a few times as long on a machine that is busy.
    let (weir, _network) = paced(&redis, "target = \"300ms\"");
    benchmark(&weir, &["-c", "50", "-P", "16", "-n", "8000", "GET", "k"]);
    assert_eq!(weir.metric("weir_shed_total", &[]), 0.0);
}

fn benchmark(weir: &WeirProcess, arguments: &[&str]) {
    let output = std::process::Command::new("redis-benchmark")
        .args(["-h", "127.0.0.1", "-p", &weir.address().port().to_string()])
        .args(arguments)
        .output()
        .expect("redis-benchmark");
    let told = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}{complaints}");
}
