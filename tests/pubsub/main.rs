//! Publish and subscribe: to each client as if it had a connection of its own, to Redis one
//! connection for all clients of a user.

// Real sockets and processes are waited for, not a clock that tests stop.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod counts;
mod fan_out;
mod libraries;
mod limits;
mod loss;
mod same_as_redis;
mod slow;
#[path = "../support/mod.rs"]
mod support;
mod users;

use support::{RawClient, RedisServer, WeirProcess, encode};

/// Weir with four workers, so that a feed has its home on another worker than most of its
/// clients; more settings for its route may follow.
fn weir(behind: &RedisServer, more: &str) -> WeirProcess {
    WeirProcess::with_config(
        behind,
        &format!(
            "[process]\nworkers = 4\n[admin]\nlisten = \"{{admin}}\"\n[route.main]\n\
             listen = \"{{listen}}\"\n[route.main.backend]\naddress = \"{{backend}}\"\n{more}"
        ),
    )
}

/// Connections that Weir has to Redis for subscriptions.
fn connections(weir: &WeirProcess) -> f64 {
    weir.metric("weir_backend_connections", &["kind=\"subscription\""])
}

/// A client that is subscribed to these channels, in this version of the protocol.
fn subscriber(weir: &WeirProcess, version: u8, channels: &[&str]) -> RawClient {
    let mut client = weir.client();
    client.command(&["HELLO", &version.to_string()]);
    let mut words = vec!["SUBSCRIBE"];
    words.extend(channels);
    client.send(encode(&words));
    for (index, channel) in channels.iter().enumerate() {
        client.expect(confirmation(version, "subscribe", channel, index + 1));
    }
    client
}

fn mark(version: u8) -> char {
    if version == 3 { '>' } else { '*' }
}

fn confirmation(version: u8, word: &str, name: &str, count: usize) -> String {
    let (mark, len) = (mark(version), word.len());
    format!(
        "{mark}3\r\n${len}\r\n{word}\r\n${}\r\n{name}\r\n:{count}\r\n",
        name.len()
    )
}

fn message(version: u8, channel: &str, text: &str) -> String {
    format!(
        "{}3\r\n$7\r\nmessage\r\n${}\r\n{channel}\r\n${}\r\n{text}\r\n",
        mark(version),
        channel.len(),
        text.len()
    )
}

fn pattern_message(version: u8, pattern: &str, channel: &str, text: &str) -> String {
    format!(
        "{}4\r\n$8\r\npmessage\r\n${}\r\n{pattern}\r\n${}\r\n{channel}\r\n${}\r\n{text}\r\n",
        mark(version),
        pattern.len(),
        channel.len(),
        text.len()
    )
}
