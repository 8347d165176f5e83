//! Clients that contend for one watched key: the sum says whether each increment
//! happened once.

use std::net::SocketAddr;

use crate::rng::Rng;
use crate::support::{RawClient, RedisServer, encode};

const KEY: &str = "watched";

/// Adds one to the watched key `times` times, by WATCH, GET, MULTI, SET, EXEC.
pub fn contend(address: SocketAddr, id: usize, seed: u64, times: usize) {
    let mut rng = Rng::new(seed);
    let mut client = RawClient::connect(address);
    if id % 2 == 1 {
        assert!(client.command(&["HELLO", "3"]).starts_with(b"%7\r\n"));
    }
    let mut done = 0;
    while done < times {
        if add_one(&mut client, &mut rng) {
            done += 1;
        }
    }
}

/// The sum is what the clients were told, and none of their transactions is left.
pub fn check(redis: &RedisServer, clients: usize, times: usize) {
    let sum = (clients * times).to_string();
    redis
        .client()
        .expect_command(&["GET", KEY], format!("${}\r\n{sum}\r\n", sum.len()));
}

fn add_one(client: &mut RawClient, rng: &mut Rng) -> bool {
    client.expect_command(&["WATCH", KEY], "+OK\r\n");
    client.send(encode(&["GET", KEY]));
    let now = match client.read_reply().as_slice() {
        b"$-1\r\n" | b"_\r\n" => 0,
        reply => {
            let text = String::from_utf8_lossy(reply).into_owned();
            let digits = text.split("\r\n").nth(1).map(str::to_owned);
            digits
                .and_then(|digits| digits.parse::<u64>().ok())
                .unwrap_or_else(|| panic!("not a number: {text:?}"))
        }
    };
    let next = (now + 1).to_string();
    if rng.once_in(6) {
        // Thinks better of it.
        client.expect_command(&["UNWATCH"], "+OK\r\n");
        return false;
    }
    if rng.once_in(2) {
        client.send(encode(&["MULTI"]));
        client.send(encode(&["SET", KEY, &next]));
        client.send(encode(&["EXEC"]));
        client.expect("+OK\r\n+QUEUED\r\n");
    } else {
        client.expect_command(&["MULTI"], "+OK\r\n");
        client.expect_command(&["SET", KEY, &next], "+QUEUED\r\n");
        client.send(encode(&["EXEC"]));
    }
    match client.read_reply().as_slice() {
        b"*1\r\n+OK\r\n" => true,
        b"*-1\r\n" | b"_\r\n" => false,
        reply => panic!("not a reply to EXEC: {}", reply.escape_ascii()),
    }
}
