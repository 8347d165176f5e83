//! Every reply is the right one: clients that know what Redis must answer talk to
//! the real binary at random and all at once, and compare each byte. Meanwhile Redis
//! itself is asked, again and again, how many connections it sees.
//!
//! A failure prints the seed: `WEIR_TEST_SEED=… cargo test --test model` repeats the
//! clients' choices (the machine's timing stays its own).

// Real sockets and processes are waited for, not a clock that tests stop.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod actor;
mod contention;
mod fairness;
mod memory;
mod queues;
#[path = "../resp_oracle/rng.rs"]
mod rng;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use actor::{Actor, Habits};
use rng::Rng;
use support::{ConnectionWatch, RedisServer, WeirProcess, wait_until};

/// What all clients of a run have in common.
pub struct Shared {
    /// How often each counter was incremented by clients that were told so.
    pub counters: [AtomicU64; COUNTERS],
}

/// Counters that all clients increment.
pub const COUNTERS: usize = 4;

/// Databases that clients use.
pub const DATABASES: u64 = 3;

/// Users that clients log in as.
pub const USERS: &[&str] = &["alice", "bob"];

/// How one Weir is set up for a run.
#[derive(Clone, Copy)]
struct Setup {
    workers: usize,
    budget: usize,
}

impl Setup {
    fn start(self, redis: &RedisServer) -> WeirProcess {
        let Setup { workers, budget } = self;
        // Whoever waits for a connection may wait as long as the test: what is looked
        // for here is whether it is served, not how soon.
        WeirProcess::with_config(
            redis,
            &format!(
                "process.workers = {workers}\n\
                 [admin]\nlisten = \"{{admin}}\"\n\
                 [route.main]\nlisten = \"{{listen}}\"\n\
                 [route.main.backend]\naddress = \"{{backend}}\"\n\
                 max_connections = {budget}\nmax_shared = {budget}\nlease_wait = \"25s\"\n\
                 lease_queue = 10000\n\
                 [route.main.overload]\ntarget = 0\n\
                 [route.main.timeouts]\nrequest = \"25s\"\n"
            ),
        )
    }
}

/// Runs `clients` clients for `rounds` pipelines each, beside pairs that pass elements
/// through blocking pops and clients that contend for a watched key.
fn run(setup: Setup, clients: usize, rounds: usize) {
    let name = format!("workers {} budget {}", setup.workers, setup.budget);
    let mut rng = Rng::from_environment(&name);
    let redis = RedisServer::start();
    for user in USERS {
        redis.command(&["ACL", "SETUSER", user, "on", ">secret", "~*", "&*", "+@all"]);
    }
    let weir = setup.start(&redis);
    let watch = ConnectionWatch::start(&redis);
    let shared = Arc::new(Shared {
        counters: Default::default(),
    });
    // One connection serves plain traffic; a client that blocks would keep it.
    let pairs = if setup.budget >= 3 { 2 } else { 0 };
    let contenders = if setup.budget >= 2 { 4 } else { 2 };
    let habits = Habits {
        large_values: setup.budget > 1,
    };
    thread::scope(|scope| {
        for id in 0..clients {
            let actor = Actor::connect(weir.address(), id, rng.next(), habits, shared.clone());
            scope.spawn(move || actor.run(rounds));
        }
        for pair in 0..pairs {
            queues::spawn(scope, weir.address(), pair, rng.next(), rounds);
        }
        for id in 0..contenders {
            let seed = rng.next();
            let address = weir.address();
            scope.spawn(move || contention::contend(address, id, seed, rounds / 8 + 2));
        }
    });
    contention::check(&redis, contenders, rounds / 8 + 2);
    check_counters(&redis, &shared);
    wait_until("all clients are gone", || {
        weir.metric("weir_clients_connected", &[]) == 0.0
    });
    let seen = watch.assert_at_most(setup.budget);
    println!(
        "{name}: at most {} connections, {} looks",
        seen.max, seen.samples
    );
    assert!(
        !weir.log().contains("panicked"),
        "a part of Weir panicked:\n{}",
        weir.log()
    );
}

fn check_counters(redis: &RedisServer, shared: &Shared) {
    for (index, acknowledged) in shared.counters.iter().enumerate() {
        let acknowledged = acknowledged.load(Ordering::Relaxed);
        let counter = redis.command(&["GET", &format!("counter:{index}")]);
        let text = acknowledged.to_string();
        let expected = if acknowledged == 0 {
            "$-1\r\n".to_owned()
        } else {
            format!("${}\r\n{text}\r\n", text.len())
        };
        assert_eq!(
            String::from_utf8_lossy(&counter),
            expected,
            "counter {index}"
        );
    }
}

macro_rules! every_reply_is_right {
    ($($name:ident: $workers:literal workers, budget $budget:literal;)*) => {$(
        #[test]
        fn $name() {
            run(Setup { workers: $workers, budget: $budget }, 24, 40);
        }
    )*};
}

every_reply_is_right! {
    one_worker_budget_1: 1 workers, budget 1;
    one_worker_budget_2: 1 workers, budget 2;
    one_worker_budget_3: 1 workers, budget 3;
    one_worker_budget_8: 1 workers, budget 8;
    one_worker_budget_64: 1 workers, budget 64;
    two_workers_budget_1: 2 workers, budget 1;
    two_workers_budget_2: 2 workers, budget 2;
    two_workers_budget_3: 2 workers, budget 3;
    two_workers_budget_8: 2 workers, budget 8;
    two_workers_budget_64: 2 workers, budget 64;
    four_workers_budget_1: 4 workers, budget 1;
    four_workers_budget_2: 4 workers, budget 2;
    four_workers_budget_3: 4 workers, budget 3;
    four_workers_budget_8: 4 workers, budget 8;
    four_workers_budget_64: 4 workers, budget 64;
}
