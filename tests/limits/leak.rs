//! One address leaks connections. Everybody else is served without an error.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::support::{RawClient, RedisServer, WeirProcess, wait_until};
use crate::{REFUSED, address, from, weir};

const LEAKER: &str = "127.0.0.2";
const CEILING: usize = 40;
/// Leaked connections a second.
const LEAKED: usize = 50;
/// Others, each from an address of its own.
const OTHERS: u8 = 8;

fn identity(weir: &WeirProcess, metric: &str) -> usize {
    let label = format!("identity=\"{LEAKER}\"");
    weir.metric(metric, &[&label, "limit=\"address\""]) as usize
}

/// The others come, ask and go, over and over, until told to stop; every command is answered.
fn others(weir: &WeirProcess, stop: &AtomicBool, served: &AtomicUsize) {
    std::thread::scope(|scope| {
        for host in 0..OTHERS {
            scope.spawn(move || {
                let source = format!("127.0.1.{host}");
                let mut stays = from(weir, &source);
                while !stop.load(Relaxed) {
                    let mut comes = from(weir, &source);
                    for client in [&mut stays, &mut comes] {
                        client.expect_command(&["SET", &source, "value"], "+OK\r\n");
                        client.expect_command(&["GET", &source], "$5\r\nvalue\r\n");
                        served.fetch_add(2, Relaxed);
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        }
    });
}

fn leak_for(seconds: usize) {
    let redis = RedisServer::start();
    // Room for everybody but the leaker, however long it goes on.
    let max_clients = CEILING + 3 * usize::from(OTHERS);
    let limits = format!("[route.main.limits.each]\nmax_clients = {CEILING}");
    let mut weir = weir(&redis, &format!("max_clients = {max_clients}"), &limits);
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut leaked = Vec::new();
    let mut in_now = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| others(&weir, &stop, &served));
        let began = Instant::now();
        for count in 0..seconds * LEAKED {
            let due = Duration::from_secs_f64(count as f64 / LEAKED as f64);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
            let mut client = RawClient::connect_from(address(LEAKER), weir.address());
            let reply = client.command(&["PING"]);
            if reply == b"+PONG\r\n" {
                in_now += 1;
            } else {
                assert_eq!(reply, REFUSED.as_bytes());
            }
            // Nobody gives it back.
            leaked.push(client);
        }
        stop.store(true, Relaxed);
    });
    println!(
        "{} leaked at {LEAKED} a second: {in_now} held, others were served {} commands",
        leaked.len(),
        served.load(Relaxed)
    );
    assert_eq!(in_now, CEILING, "held to its ceiling exactly");
    wait_until("its places are counted", || {
        identity(&weir, "weir_identity_clients") == CEILING
    });
    assert_eq!(identity(&weir, "weir_identity_max_clients"), CEILING);
    let refused = seconds * LEAKED - CEILING;
    wait_until("its refusals are counted", || {
        identity(&weir, "weir_identity_refused_total") == refused
    });
    // Nobody else was refused, and nobody heard another error.
    weir.wait_for_metric("weir_clients_refused_total", &[], refused as f64);
    weir.wait_for_metric("weir_errors_total", &[], refused as f64);
    weir.wait_for_log("limits.each.max_clients is reached");
    // The leaker is named.
    weir.wait_for_log(LEAKER);
    // It lets go; there is room again, and that is told.
    drop(leaked);
    wait_until("the places come back", || {
        identity(&weir, "weir_identity_clients") == 0
    });
    weir.wait_for_log("limits.each.max_clients is no longer reached");
}

#[test]
fn one_address_leaks_and_everybody_else_is_served() {
    leak_for(5);
}

#[test]
#[ignore = "takes a minute; the same as above, for longer"]
fn one_address_leaks_for_a_minute_and_everybody_else_is_served() {
    leak_for(60);
}
