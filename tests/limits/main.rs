//! Who may come in when not all can: exact refusals by who a client is, shares that are kept,
//! places that come back. What limits promise, with a real Redis behind.

// Real sockets and processes are waited for, not a clock that tests stop.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod leak;
mod pressure;
mod rates;
mod rules;
#[path = "../support/mod.rs"]
mod support;

use std::net::IpAddr;

use support::{RawClient, RedisServer, WeirProcess};

/// What a client hears for whom there is no place.
const REFUSED: &str = "-ERR max number of clients reached\r\n";

/// Weir with settings for its only route's clients, and other sections behind them.
fn weir(redis: &RedisServer, process: &str, clients: &str) -> WeirProcess {
    let head = format!("[process]\n{process}\n[admin]\nlisten = \"{{admin}}\"\n");
    let route = "[route.main]\nlisten = \"{listen}\"\nbackend = \"{backend}\"\n";
    let config = format!("{head}{route}[route.main.clients]\n{clients}\n");
    WeirProcess::with_config(redis, &config)
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A client from one of the loopback addresses.
fn from(weir: &WeirProcess, source: &str) -> RawClient {
    RawClient::connect_from(address(source), weir.address())
}

/// Whether the client is let in; one that is not has heard the exact refusal.
fn is_in(client: &mut RawClient) -> bool {
    let reply = client.command(&["PING"]);
    if reply == b"+PONG\r\n" {
        return true;
    }
    assert_eq!(reply, REFUSED.as_bytes(), "{}", reply.escape_ascii());
    false
}

/// A client that is let in, from an address; comes again until somebody's place is free.
fn comes_in(weir: &WeirProcess, source: &str) -> RawClient {
    let mut client = from(weir, source);
    support::wait_until("a place", || {
        let there = is_in(&mut client);
        if !there {
            client = from(weir, source);
        }
        there
    });
    client
}
