//! A primary with replicas behind Weir: it is found, followed when it changes, and waited
//! for when it is gone. Real servers, real sentinels.

// Real sockets and processes are waited for, not a clock that tests stop.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod blocked;
mod coming_back;
mod counters;
mod finding;
mod losing;
mod misses;
mod networks;
mod reads;
mod reads_back;
mod reloading;
mod sentinels;
mod strangers;
#[path = "../support/mod.rs"]
mod support;
mod switching;

use support::{RawClient, RedisServer, Replicas, WeirProcess, wait_until};

/// Weir in front of a deployment: settings of the backend, then of other sections.
fn weir(any: &RedisServer, backend: &str, more: &str) -> WeirProcess {
    WeirProcess::with_config(any, &config(backend, more))
}

fn config(backend: &str, more: &str) -> String {
    format!(
        "[admin]\nlisten = \"{{admin}}\"\n[route.main]\nlisten = \"{{listen}}\"\n\
         [route.main.backend]\n{backend}\
         reconnect_min = \"5ms\"\nreconnect_max = \"50ms\"\n{more}"
    )
}

/// Weir in front of all nodes, in the order of their starting.
fn weir_before(replicas: &Replicas, more: &str) -> WeirProcess {
    let order: Vec<usize> = (0..replicas.nodes.len()).collect();
    weir(&replicas.nodes[0], &replicas.settings(&order), more)
}

/// Waits until the metrics say this of a node.
fn wait_for_state(weir: &WeirProcess, node: &RedisServer, labels: &[&str]) {
    let address = format!("node=\"{}\"", node.address());
    let labels = [&[&*address], labels].concat();
    wait_until(&format!("{labels:?}"), || {
        weir.metric("weir_node_role", &labels) == 1.0
    });
}

/// Which server a client's command reaches, by what the servers are called.
fn reached(client: &mut RawClient, key: &str) -> String {
    let reply = client.command(&["GET", key]);
    let text = String::from_utf8_lossy(&reply).into_owned();
    text.split("\r\n").nth(1).unwrap_or_default().to_owned()
}

/// The text of an error reply, or nothing if it is none.
fn error(reply: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(reply).ok()?;
    text.strip_prefix('-')?.strip_suffix("\r\n")
}
