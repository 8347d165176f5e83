//! What operators see and do: the record, and the console through any Redis client.

// Real sockets and processes are waited for, not a clock that tests stop.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod commands;
mod hot_keys;
mod libraries;
mod pause;
mod record;
mod slow_log;
#[path = "../support/mod.rs"]
mod support;
mod top;

use support::{RedisServer, WeirProcess};

/// Weir with these settings of its process, where every client is an operator.
fn of_operators(redis: &RedisServer, process: &str) -> WeirProcess {
    let rest = "[route.main.clients]\noperator_networks = \"127.0.0.1\"";
    WeirProcess::with_backend(redis, &format!("[process]\n{process}\n{rest}\n"))
}
