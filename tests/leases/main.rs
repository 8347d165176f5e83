//! What needs a connection of its own: blocking commands, subscriptions, `MONITOR`,
//! `WAIT`, tunnels. Each answers as at Redis, holds a bounded number of connections, and
//! gives its own back whenever its client leaves.

// Real sockets and processes are waited for, not a clock that tests stop.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod blocking;
mod debugger;
mod leaving;
mod lines;
mod monitor;
mod replicas;
#[allow(dead_code, reason = "each test uses its own part")]
#[path = "../resp_oracle/rng.rs"]
mod rng;
mod subscriptions;
#[path = "../support/mod.rs"]
mod support;
mod uploads;

use support::{RedisServer, WeirProcess};

/// Weir with settings for its backend; other sections may follow. Nobody shares here what
/// is for clients of their own: `tests/blocking` is about that.
fn weir(behind: &RedisServer, backend: &str) -> WeirProcess {
    WeirProcess::with_backend(behind, &format!("max_blocking_shared = 0\n{backend}"))
}

/// Connections that Weir has to Redis for this use, open, being opened or closed.
fn connections(weir: &WeirProcess, kind: &str) -> f64 {
    weir.metric("weir_backend_connections", &[&format!("kind=\"{kind}\"")])
}
