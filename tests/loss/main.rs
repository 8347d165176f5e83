//! Redis dies, hangs, refuses, comes back: what becomes of each command, and how Weir
//! goes on. What was acknowledged is there, what may have run is never sent again, and
//! whoever is not told either reads that the outcome is unknown.

// Real sockets and processes are waited for, not a clock that tests stop.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod accounts;
mod fake_node;
mod fates;
mod forwarder;
mod full;
mod hanging;
mod lifetimes;
mod login;
mod managed;
mod outages;
mod scripts;
#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;

use support::{RedisServer, WeirProcess};

/// Weir in front of a Redis, with settings for its backend; other sections may follow.
fn weir(behind: &RedisServer, backend: &str) -> WeirProcess {
    weir_at(behind, behind.address(), backend)
}

/// Weir in front of another address, such as that of a forwarder to the Redis.
fn weir_at(redis: &RedisServer, address: SocketAddr, backend: &str) -> WeirProcess {
    WeirProcess::with_config(
        redis,
        &format!(
            "[admin]\nlisten = \"{{admin}}\"\n[route.main]\nlisten = \"{{listen}}\"\n\
             [route.main.backend]\naddress = \"{address}\"\n\
             reconnect_min = \"5ms\"\nreconnect_max = \"50ms\"\n{backend}"
        ),
    )
}

/// The text of an error reply, or nothing if it is none.
fn error(reply: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(reply).ok()?;
    text.strip_prefix('-')?.strip_suffix("\r\n")
}

/// The error says that nobody knows whether the command ran.
fn is_unknown(text: &str) -> bool {
    text.starts_with("ERR weir: ") && text.ends_with("command outcome unknown")
}

/// The error says that the command did not run.
fn is_not_executed(text: &str) -> bool {
    text.starts_with("LOADING ") || text.ends_with("command not executed")
}

/// The ids of Weir's shared connections, as Redis knows them.
fn shared_connections(redis: &RedisServer) -> Vec<String> {
    let list = redis.command(&["CLIENT", "LIST"]);
    String::from_utf8_lossy(&list)
        .lines()
        .filter(|line| line.contains("name=weir:main:shared"))
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect()
}
