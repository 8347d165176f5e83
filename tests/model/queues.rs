//! Elements that pass from one client to another through blocking pops: none is
//! lost, none comes twice, and they come in order.

use std::net::SocketAddr;
use std::thread::Scope;

use crate::rng::Rng;
use crate::support::{RawClient, encode};

/// One client that pushes `count` elements and one that pops them.
pub fn spawn<'scope>(
    scope: &'scope Scope<'scope, '_>,
    address: SocketAddr,
    pair: usize,
    seed: u64,
    count: usize,
) {
    let key = format!("queue:{pair}");
    let name = key.clone();
    scope.spawn(move || push(RawClient::connect(address), &name, seed, count));
    scope.spawn(move || pop(RawClient::connect(address), &key, pair, count));
}

fn push(mut client: RawClient, key: &str, seed: u64, count: usize) {
    let mut rng = Rng::new(seed);
    let mut next = 0;
    while next < count {
        let burst = (1 + rng.below(4)).min(count - next);
        for _ in 0..burst {
            client.send(encode(&["RPUSH", key, &format!("{key}:{next}")]));
            next += 1;
        }
        for _ in 0..burst {
            assert!(client.read_reply().starts_with(b":"));
        }
        if rng.once_in(2) {
            std::thread::yield_now();
        }
    }
}

fn pop(mut client: RawClient, key: &str, pair: usize, count: usize) {
    // The second pair speaks RESP3: its connections are others.
    if pair % 2 == 1 {
        assert!(client.command(&["HELLO", "3"]).starts_with(b"%7\r\n"));
    }
    for next in 0..count {
        let element = format!("{key}:{next}");
        let expected = format!(
            "*2\r\n${}\r\n{key}\r\n${}\r\n{element}\r\n",
            key.len(),
            element.len()
        );
        // A command behind the pop waits for its turn.
        client.send(encode(&["BLPOP", key, "20"]));
        client.send(encode(&["ECHO", &element]));
        client.expect(expected);
        client.expect(format!("${}\r\n{element}\r\n", element.len()));
    }
}
