//! Settings that change while Weir runs, with real processes and real files: what can
//! change does so without touching a connection, what is wrong changes nothing.

// Real sockets and processes are waited for, not a clock that tests stop.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

#[path = "../support/mod.rs"]
mod support;

mod certificates;
mod files;
mod new_connections;
mod ways;

use support::{RawClient, RedisServer, ReservedPort, WeirProcess, encode};

/// A configuration in which `clients.max_clients` has this value, and more.
fn text(max_clients: &str, console: &ReservedPort, more: &str) -> String {
    format!(
        "[admin]\nlisten = \"{{admin}}\"\nresp_listen = \"{}\"\n{more}\n\
         [route.main]\nlisten = \"{{listen}}\"\nbackend = \"{{backend}}\"\n\
         [route.main.clients]\nmax_clients = {max_clients}\n",
        console.address()
    )
}

/// The value of a setting, as the running Weir has it.
fn in_force(weir: &WeirProcess, key: &str) -> String {
    let (_, body) = weir.get("/config.json");
    let settings: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    settings[key].as_str().expect("a setting").to_owned()
}

/// Clients in every state that a connection can be in.
struct Busy {
    plain: RawClient,
    in_transaction: RawClient,
    subscriber: RawClient,
    blocked: RawClient,
}

impl Busy {
    fn start(weir: &WeirProcess) -> Busy {
        let mut busy = Busy {
            plain: weir.client(),
            in_transaction: weir.client(),
            subscriber: weir.client(),
            blocked: weir.client(),
        };
        busy.plain.expect_command(&["SELECT", "3"], "+OK\r\n");
        busy.in_transaction
            .expect_command(&["WATCH", "watched"], "+OK\r\n");
        busy.in_transaction.expect_command(&["MULTI"], "+OK\r\n");
        busy.in_transaction
            .expect_command(&["SET", "watched", "1"], "+QUEUED\r\n");
        busy.subscriber.send(encode(&["SUBSCRIBE", "news"]));
        busy.subscriber
            .expect("*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
        busy.blocked.send(encode(&["BLPOP", "queue", "0"]));
        busy
    }

    /// None of them has noticed anything.
    fn go_on(mut self, redis: &RedisServer) {
        self.plain.expect_command(&["SET", "k", "v"], "+OK\r\n");
        let mut direct = redis.client();
        direct.expect_command(&["SELECT", "3"], "+OK\r\n");
        direct.expect_command(&["GET", "k"], "$1\r\nv\r\n");
        self.in_transaction
            .expect_command(&["EXEC"], "*1\r\n+OK\r\n");
        self.plain.expect_command(&["SELECT", "0"], "+OK\r\n");
        self.plain
            .expect_command(&["PUBLISH", "news", "hello"], ":1\r\n");
        self.subscriber
            .expect("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n");
        self.plain
            .expect_command(&["RPUSH", "queue", "e"], ":1\r\n");
        self.blocked.expect("*2\r\n$5\r\nqueue\r\n$1\r\ne\r\n");
    }
}
