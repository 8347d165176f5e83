//! Clients that wait in a blocking command: on connections of their own, on shared ones,
//! in line. Each reads what it would read at Redis, in its turn, and no element is lost or
//! given twice.

// Real sockets and processes are waited for, not a clock that tests stop.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod crowd;
mod endings;
mod losses;
mod order;
mod same_as_redis;
mod small_budget;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod ten_thousand;

use support::{RawClient, RedisServer, WeirProcess, encode, wait_until};

/// Weir with settings for its backend and its process; sections may follow.
fn weir(behind: &RedisServer, backend: &str) -> WeirProcess {
    WeirProcess::with_backend(behind, backend)
}

/// How many clients Weir says are blocked; far too many while it can not say.
fn blocked(weir: &WeirProcess) -> usize {
    let reply = weir.client().command(&["INFO", "clients"]);
    let text = String::from_utf8_lossy(&reply).into_owned();
    let field = text
        .lines()
        .find_map(|line| line.strip_prefix("blocked_clients:"));
    field.map_or(usize::MAX, |field| field.trim().parse().expect("a number"))
}

/// Clients in every place for one that blocks alone: whoever comes next has to share.
struct Crowd {
    clients: Vec<RawClient>,
}

impl Crowd {
    fn of(weir: &WeirProcess, places: usize) -> Crowd {
        let clients: Vec<RawClient> = (0..places)
            .map(|_| {
                let mut client = weir.client();
                client.send(encode(&["BRPOP", "weir-test-crowd", "0"]));
                client
            })
            .collect();
        wait_until("the places are taken", || blocked(weir) == places);
        Crowd { clients }
    }

    fn len(&self) -> usize {
        self.clients.len()
    }
}

/// Weir where eight clients have connections of their own and all others share.
fn crowded(behind: &RedisServer, process: &str) -> (WeirProcess, Crowd) {
    let settings =
        format!("max_blocking = 16\nmax_blocking_shared = 8\nlease_wait = \"20s\"\n{process}");
    let weir = weir(behind, &settings);
    let crowd = Crowd::of(&weir, 8);
    (weir, crowd)
}
