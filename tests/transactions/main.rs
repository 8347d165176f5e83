//! `MULTI`, `EXEC`, `WATCH` through Weir: what they answer at Redis they answer here,
//! whichever way the block travels, and a lease is held no longer than it is needed.

// Real sockets and processes are waited for, not a clock that tests stop.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod contention;
mod leases;
mod same_as_redis;
#[path = "../support/mod.rs"]
mod support;
mod without_leases;

use support::{RedisServer, WeirProcess};

/// Weir with settings for its backend.
fn weir(behind: &RedisServer, backend: &str) -> WeirProcess {
    WeirProcess::with_backend(behind, backend)
}

/// Connections that Weir has to Redis for this use, open or being opened.
fn connections(weir: &WeirProcess, kind: &str) -> f64 {
    weir.metric("weir_backend_connections", &[&format!("kind=\"{kind}\"")])
}
