//! Many clients, one key: the sum says whether each increment happened exactly once.

use std::net::SocketAddr;
use std::thread;

use super::support::{ConnectionWatch, RawClient, RedisServer, encode};
use super::weir;

#[test]
fn a_watched_counter_grows_by_what_was_acknowledged_and_nothing_else() {
    for (budget, workers) in [(2, 1), (4, 2), (16, 4)] {
        let redis = RedisServer::start();
        let settings = format!(
            "max_connections = {budget}\nlease_wait = \"25s\"\n[process]\nworkers = {workers}\n"
        );
        let weir = weir(&redis, &settings);
        let watch = ConnectionWatch::start(&redis);
        let (clients, times) = (12, 15);
        thread::scope(|scope| {
            for client in 0..clients {
                let address = weir.address();
                scope.spawn(move || add(address, client, times));
            }
        });
        let sum = (clients * times).to_string();
        redis
            .client()
            .expect_command(&["GET", "sum"], format!("${}\r\n{sum}\r\n", sum.len()));
        watch.assert_at_most(budget);
    }
}

fn add(address: SocketAddr, client: usize, times: usize) {
    let mut socket = RawClient::connect(address);
    let mut done = 0;
    while done < times {
        let watched = socket.command(&["WATCH", "sum"]);
        assert_eq!(String::from_utf8_lossy(&watched), "+OK\r\n");
        let reply = socket.command(&["GET", "sum"]);
        let text = String::from_utf8(reply).unwrap();
        let sum: u64 = match text.split("\r\n").nth(1) {
            Some(digits) if !digits.is_empty() => digits.parse().unwrap(),
            _ => 0,
        };
        let next = (sum + 1).to_string();
        if client.is_multiple_of(2) {
            socket.expect_command(&["MULTI"], "+OK\r\n");
            socket.expect_command(&["SET", "sum", &next], "+QUEUED\r\n");
            socket.send(encode(&["EXEC"]));
        } else {
            socket.send(encode(&["MULTI"]));
            socket.send(encode(&["SET", "sum", &next]));
            socket.send(encode(&["EXEC"]));
            socket.expect("+OK\r\n+QUEUED\r\n");
        }
        match socket.read_reply().as_slice() {
            b"*1\r\n+OK\r\n" => done += 1,
            b"*-1\r\n" => {}
            other => panic!("not a reply to EXEC: {}", other.escape_ascii()),
        }
    }
}
