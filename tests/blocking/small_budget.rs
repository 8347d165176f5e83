//! Few connections in all: those who wait alone leave some to those who share.

use super::support::{RedisServer, encode, wait_until};
use super::{Crowd, blocked, weir};

/// Of eight connections four can be for blocked clients, although `max_blocking` says eight.
#[test]
fn clients_with_connections_of_their_own_leave_some_to_those_who_share() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "max_connections = 8\nlease_wait = \"1s\"\n");
    let mut crowd = Crowd::of(&weir, 4);
    let mut late = weir.client();
    late.send(encode(&["BLPOP", "queue", "0"]));
    wait_until("it waits too", || blocked(&weir) == 5);
    let mut producer = weir.client();
    producer.expect_command(&["RPUSH", "queue", "element"], ":1\r\n");
    late.expect("*2\r\n$5\r\nqueue\r\n$7\r\nelement\r\n");
    // They came side by side, so any of them may be the first.
    producer.expect_command(&["RPUSH", "weir-test-crowd", "e", "e", "e", "e"], ":4\r\n");
    for client in &mut crowd.clients {
        client.expect("*2\r\n$15\r\nweir-test-crowd\r\n$1\r\ne\r\n");
    }
}
