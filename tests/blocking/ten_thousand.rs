//! The promise: ten thousand workers in `BLPOP` on a thousand queues, through at most
//! sixteen connections.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use tokio::sync::mpsc;

use super::crowd::{Dice, Worker, element, seed};
use super::support::{ConnectionWatch, RedisServer, wait_until};
use super::{blocked, weir};

const WORKERS: usize = 10_000;
const QUEUES: usize = 1_000;
const CONNECTIONS: usize = 16;

const SETTINGS: &str = "max_connections = 16\nmax_blocking = 8\nlease_wait = \"20s\"\n\
                        [process]\nworkers = 2\nmax_clients = 10100\n";

#[test]
fn ten_thousand_workers_on_a_thousand_queues_are_served_in_turn_through_sixteen_connections() {
    // Each worker is a descriptor here, and one in Weir.
    let limit = rlimit::increase_nofile_limit(30_000).expect("descriptors");
    assert!(
        limit >= 11_000,
        "{limit} descriptors are too few for this test"
    );
    let redis = RedisServer::start();
    let weir = weir(&redis, SETTINGS);
    let watch = ConnectionWatch::start(&redis);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (address, rounds) = (weir.address(), WORKERS / QUEUES);
    let mut workers: Vec<Worker> = Vec::with_capacity(WORKERS);
    // Those of one round come in any order, but before those of the next: in each queue
    // there is one of each round.
    for round in 0..rounds {
        runtime.block_on(async {
            for queue in 0..QUEUES {
                let mut worker = Worker::connect(address).await;
                let key = format!("q{queue}");
                worker.send(&["BLPOP", &key, "0"]).await.expect("sent");
                workers.push(worker);
            }
        });
        wait_until("the round waits", || blocked(&weir) == (round + 1) * QUEUES);
    }
    // One element for each, on all queues in turn. The worker of a round gets the queue's
    // element of that number, and nobody else.
    let elements = runtime.block_on(async {
        let mut producer = Worker::connect(address).await;
        for round in 0..rounds {
            for queue in 0..QUEUES {
                let (key, number) = (format!("q{queue}"), (round * QUEUES + queue).to_string());
                producer
                    .send(&["RPUSH", &key, &number])
                    .await
                    .expect("sent");
            }
            for _ in 0..QUEUES {
                producer.reply().await.expect("an answer");
            }
        }
        let mut elements = Vec::with_capacity(WORKERS);
        for worker in &mut workers {
            let reply = tokio::time::timeout(Duration::from_secs(30), worker.reply()).await;
            let reply = reply.expect("nobody is starved").expect("a reply");
            elements.push(element(&reply).expect("an element"));
        }
        elements
    });
    assert!(
        elements.iter().copied().eq(0..WORKERS as u64),
        "each the element of its turn"
    );
    assert_eq!(weir.metric("weir_blocked_orphans_total", &[]), 0.0);
    assert_eq!(blocked(&weir), 0);
    assert!(weir.metric("weir_backend_connections", &[]) <= CONNECTIONS as f64);
    watch.assert_at_most(CONNECTIONS);
}

/// What a worker did, told to the test.
enum Said {
    Got(u64),
    /// It left while it waited: what was on its way to it is lost with it.
    Left,
    /// It heard something else than an element, or nothing any more.
    Wrong(String),
}

#[test]
fn with_clients_that_leave_at_random_only_what_was_on_its_way_to_them_is_lost() {
    const WORKERS: usize = 500;
    const QUEUES: u64 = 100;
    const ELEMENTS: u64 = 5_000;
    let seed = seed();
    let redis = RedisServer::start();
    let weir = weir(&redis, SETTINGS);
    let watch = ConnectionWatch::start(&redis);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let address = weir.address();
    let (got, left, missing) = runtime.block_on(async {
        let (said, mut hears) = mpsc::unbounded_channel();
        for number in 0..WORKERS {
            let said = said.clone();
            let mut dice = Dice(seed.wrapping_add(number as u64 * 0x9E37_79B9) | 1);
            tokio::spawn(async move {
                loop {
                    // A life: some rounds, then it leaves while it waits, or in between.
                    let mut worker = Worker::connect(address).await;
                    let lives = dice.below(30);
                    for _ in 0..lives {
                        let key = format!("q{}", dice.below(QUEUES));
                        let timeout = ["0", "0", "0.2", "1"][dice.below(4) as usize];
                        let reply = worker.command(&["BLPOP", &key, timeout]).await;
                        let told = match reply.as_ref().map(|reply| (element(reply), &**reply)) {
                            Ok((Some(element), _)) => Said::Got(element),
                            Ok((None, b"*-1\r\n")) => continue,
                            _ => Said::Wrong(format!("{reply:?}")),
                        };
                        if said.send(told).is_err() {
                            return;
                        }
                    }
                    let key = format!("q{}", dice.below(QUEUES));
                    if let Err(error) = worker.send(&["BLPOP", &key, "0"]).await {
                        let _ = said.send(Said::Wrong(error.to_string()));
                    }
                    tokio::time::sleep(Duration::from_millis(dice.below(200))).await;
                    drop(worker);
                    if said.send(Said::Left).is_err() {
                        return;
                    }
                }
            });
        }
        drop(said);
        let mut producer = Worker::connect(address).await;
        let mut dice = Dice(seed | 1);
        let (mut got, mut left) = (HashSet::new(), 0);
        let mut hear = |said| match said {
            Said::Got(element) => assert!(got.insert(element), "{element} twice"),
            Said::Left => left += 1,
            Said::Wrong(what) => panic!("{what}"),
        };
        for element in 0..ELEMENTS {
            let key = format!("q{}", dice.below(QUEUES));
            let push = ["RPUSH", &key, &element.to_string()];
            producer.command(&push).await.expect("pushed");
            while let Ok(said) = hears.try_recv() {
                hear(said);
            }
        }
        // Until nothing new is heard of for a while: all wait where there is nothing.
        let mut quiet = 0;
        while quiet < 30 {
            quiet += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
            while let Ok(said) = hears.try_recv() {
                quiet = 0;
                hear(said);
            }
        }
        let mut untouched = 0;
        for queue in 0..QUEUES {
            let key = format!("q{queue}");
            let length = producer.command(&["LLEN", &key]).await.expect("a number");
            let length = String::from_utf8_lossy(&length[1..]).into_owned();
            untouched += length.trim_end().parse::<u64>().expect("a number");
        }
        let missing = ELEMENTS - got.len() as u64 - untouched;
        (got.len() as u64, left, missing)
    });
    println!("{got} got, {left} left, {missing} missing");
    let orphans = weir.metric("weir_blocked_orphans_total", &[]) as u64;
    assert!(
        missing <= left,
        "more are missing than can have been on their way"
    );
    assert!(orphans <= missing, "{orphans} orphans, {missing} missing");
    assert!(got > ELEMENTS / 2, "{got}");
    drop(runtime);
    watch.assert_at_most(CONNECTIONS);
}

#[test]
fn the_order_of_turns_is_that_of_numbers() {
    // The check of the first test, checked.
    let mut by_queue: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for element in 0..WORKERS as u64 {
        by_queue
            .entry(element % QUEUES as u64)
            .or_default()
            .push(element / QUEUES as u64);
    }
    assert!(
        by_queue
            .values()
            .all(|rounds| rounds.iter().copied().eq(0..10))
    );
}
