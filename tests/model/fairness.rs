//! A budget of one for many: nobody starves, however busy the others are.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{ConnectionWatch, RawClient, RedisServer, encode};
use crate::{Setup, USERS};

/// Every kind of client that needs a connection which no other can use.
const PARTITIONS: &[(&str, &str, &str)] = &[
    ("", "2", "0"),
    ("", "3", "0"),
    ("", "2", "1"),
    ("alice", "2", "0"),
    ("bob", "3", "1"),
];

fn connect(address: SocketAddr, (user, hello, db): (&str, &str, &str)) -> RawClient {
    let mut client = RawClient::connect(address);
    if !user.is_empty() {
        client.expect_command(&["AUTH", user, "secret"], "+OK\r\n");
    }
    assert!(!client.command(&["HELLO", hello]).starts_with(b"-"));
    client.expect_command(&["SELECT", db], "+OK\r\n");
    client
}

/// Pipelines without a pause, in one partition.
fn press(address: SocketAddr, id: usize, done: &AtomicBool) -> u64 {
    let mut rounds = 0;
    let mut client = connect(address, PARTITIONS[0]);
    let payload = format!("{id}:{}", "x".repeat(100));
    let request = encode(&["ECHO", &payload]).repeat(50);
    let reply = format!("${}\r\n{payload}\r\n", payload.len()).repeat(50);
    while !done.load(Ordering::Relaxed) {
        client.send(&request);
        client.expect(&reply);
        rounds += 1;
    }
    rounds
}

#[test]
fn partitions_take_turns_on_a_single_connection() {
    for workers in [1, 4] {
        let redis = RedisServer::start();
        for user in USERS {
            redis.command(&["ACL", "SETUSER", user, "on", ">secret", "~*", "&*", "+@all"]);
        }
        let setup = Setup { workers, budget: 1 };
        let weir = setup.start(&redis);
        let watch = ConnectionWatch::start(&redis);
        let done = AtomicBool::new(false);
        let mut longest = Duration::ZERO;
        let mut rounds = Vec::new();
        let started = Instant::now();
        thread::scope(|scope| {
            let pressing: Vec<_> = (0..8)
                .map(|id| {
                    let (address, done) = (weir.address(), &done);
                    scope.spawn(move || press(address, id, done))
                })
                .collect();
            let others: Vec<_> = PARTITIONS[1..]
                .iter()
                .map(|&partition| {
                    let address = weir.address();
                    scope.spawn(move || ask_now_and_then(address, partition))
                })
                .collect();
            for other in others {
                longest = longest.max(other.join().expect("a client does not panic"));
            }
            done.store(true, Ordering::Relaxed);
            for client in pressing {
                rounds.push(client.join().expect("a client does not panic"));
            }
        });
        println!(
            "{workers} workers: in {:?} the busy partition was served {} commands, \
             the longest wait for a turn was {longest:?}",
            started.elapsed(),
            50 * rounds.iter().sum::<u64>()
        );
        assert!(rounds.iter().all(|&rounds| rounds > 0), "{rounds:?}");
        watch.assert_at_most(1);
    }
}

/// One command at a time, with a pause in which others get the connection; the longest
/// that one took.
fn ask_now_and_then(address: SocketAddr, partition: (&str, &str, &str)) -> Duration {
    let mut client = connect(address, partition);
    let mut longest = Duration::ZERO;
    for number in 0..25 {
        let payload = format!("{partition:?}:{number}");
        let asked = Instant::now();
        client.expect_command(
            &["ECHO", &payload],
            format!("${}\r\n{payload}\r\n", payload.len()),
        );
        longest = longest.max(asked.elapsed());
        thread::sleep(Duration::from_millis(30));
    }
    longest
}
