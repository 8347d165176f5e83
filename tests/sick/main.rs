//! A Redis that is sick, or near its own limits: what clients see meanwhile, what Redis
//! sees, and how soon work flows again.

// Real sockets and processes are waited for, not a clock that tests stop.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod hangs;
mod misses;
mod near_limits;
mod reconnects;
mod resting;
mod slow_readers;
#[path = "../support/mod.rs"]
mod support;

use support::{RedisServer, WeirProcess};

/// Weir in front of a Redis, with settings for its backend; other sections may follow.
fn weir(redis: &RedisServer, backend: &str) -> WeirProcess {
    let quick = "reconnect_min = \"5ms\"\nreconnect_max = \"50ms\"\n";
    WeirProcess::with_backend(redis, &format!("{quick}{backend}"))
}

/// The text of an error reply, or nothing if it is none.
fn error(reply: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(reply).ok()?;
    text.strip_prefix('-')?.strip_suffix("\r\n")
}
