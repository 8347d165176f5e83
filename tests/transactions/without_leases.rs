//! No lease to be had: a block is kept in Weir and goes out in one piece at `EXEC`.

use super::support::{RawClient, RedisServer, dialogue, encode};
use super::weir;

/// What is answered as at Redis even so.
#[rustfmt::skip] // one dialogue, one line
const SAME: &[&[&str]] = &[
    &["a MULTI", "a EXEC"],
    &["a MULTI", "a SET k 1", "a INCR k", "a GET k", "a EXEC", "a GET k"],
    &["a HELLO 3", "a MULTI", "a SET k 1", "a HGETALL h", "a EXEC", "a GET k"],
    &["a MULTI", "a SET k 1", "a DISCARD", "a GET k"],
    &["a MULTI", "a MULTI", "a WATCH k", "a SET k 1", "a EXEC"],
    &["a MULTI", "a NOSUCHCOMMAND x", "a SET k 1", "a EXEC", "a GET k"],
    &["a MULTI", "a SET k 1", "a GET", "a EXEC", "a GET k"],
    &["a MULTI", "a SET k 1", "a SELECT", "a EXEC", "a GET k"],
    &["a MULTI", "a SET k 1", "a SAVE", "a EXEC", "a GET k"],
    &["a MULTI", "a GET", "a DISCARD", "a MULTI", "a SET k 1", "a EXEC"],
    &["a SET k text", "a MULTI", "a INCR k", "a SET k 2", "a EXEC", "a GET k"],
    &["a MULTI", "a BLPOP k 0", "a XREAD BLOCK 0 STREAMS s 0", "a WAIT 0 0", "a UNWATCH", "a EXEC"],
    &["a MULTI", "a EVAL return{1,ARGV[1]} 0 x", "a INFO nosuchsection", "a CONFIG GET nosuch", "a FLUSHALL", "a EXEC"],
    &["a MULTI", "a SET k 1", "a RESET", "a EXEC", "a GET k"],
    &["a MULTI", "a SET k 1", "a:close QUIT", "b GET k"],
    &["a:0 CLIENT REPLY OFF", "a:0 MULTI", "a:0 SET k 1", "a:0 EXEC", "a CLIENT REPLY ON", "a GET k"],
    &["a MULTI", "b MULTI", "a SET k a", "b SET k b", "a GET k", "b EXEC", "a EXEC"],
    &["a SELECT 2", "a MULTI", "a SET k two", "a EXEC", "b GET k", "a GET k"],
];

#[test]
fn a_queued_block_answers_as_at_redis() {
    let redis = RedisServer::start();
    let behind = RedisServer::start();
    let weir = weir(&behind, "max_leases = 0\n");
    dialogue::compare(&redis, &behind, weir.address(), SAME);
    assert!(!weir.log().contains("panicked"), "{}", weir.log());
}

#[test]
fn nothing_of_a_queued_block_reaches_redis_before_exec() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "max_leases = 0\n");
    let mut client = weir.client();
    client.expect_command(&["MULTI"], "+OK\r\n");
    client.expect_command(&["SET", "k", "1"], "+QUEUED\r\n");
    // Another client's commands on the same connection run at once.
    weir.client().expect_command(&["GET", "k"], "$-1\r\n");
    client.expect_command(&["EXEC"], "*1\r\n+OK\r\n");
    weir.client().expect_command(&["GET", "k"], "$1\r\n1\r\n");
}

#[test]
fn what_cannot_be_queued_says_which_setting_would_help() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "max_leases = 0\n");
    let mut client = weir.client();
    for command in [&["SELECT", "1"][..], &["SUBSCRIBE", "x"], &["MONITOR"]] {
        client.expect_command(&["MULTI"], "+OK\r\n");
        assert_refused(&client.command(command));
        client.expect_command(
            &["EXEC"],
            "-EXECABORT Transaction discarded because of previous errors.\r\n",
        );
    }
    assert_refused(&client.command(&["WATCH", "k"]));
    client.expect_command(&["PING"], "+PONG\r\n");
}

/// The error says that there are no leases, and that nothing was done.
fn assert_refused(reply: &[u8]) {
    let text = String::from_utf8_lossy(reply);
    assert!(
        text.starts_with("-ERR weir: ")
            && text.contains("max_leases")
            && text.contains("command not executed"),
        "{text}"
    );
}

#[test]
fn a_block_too_large_to_be_kept_is_refused_and_nothing_of_it_runs() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "max_leases = 0\nlarge_request = \"64KiB\"\n");
    let mut client = weir.client();
    client.expect_command(&["MULTI"], "+OK\r\n");
    client.expect_command(&["SET", "first", "1"], "+QUEUED\r\n");
    let value = "x".repeat(40_000);
    client.expect_command(&["SET", "k", &value], "+QUEUED\r\n");
    assert_refused(&client.command(&["SET", "l", &value]));
    client.expect_command(&["SET", "last", "1"], "+QUEUED\r\n");
    client.expect_command(
        &["EXEC"],
        "-EXECABORT Transaction discarded because of previous errors.\r\n",
    );
    client.expect_command(&["EXISTS", "first", "k", "l", "last"], ":0\r\n");
}

#[test]
fn blocks_without_leases_lose_no_increment() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "max_leases = 0\nmax_connections = 2\n");
    let (clients, rounds) = (16_u32, 40);
    std::thread::scope(|scope| {
        for client in 0..clients {
            let address = weir.address();
            scope.spawn(move || {
                let mut client_socket = RawClient::connect(address);
                for _ in 0..rounds {
                    transfer(&mut client_socket, client.is_multiple_of(2));
                }
            });
        }
    });
    let total = (clients * rounds).to_string();
    redis.client().expect_command(
        &["GET", "there"],
        format!("${}\r\n{total}\r\n", total.len()),
    );
    redis.client().expect_command(
        &["GET", "here"],
        format!("${}\r\n-{total}\r\n", total.len() + 1),
    );
}

/// Moves one from here to there; nobody may see it in both or in neither.
fn transfer(client: &mut RawClient, at_once: bool) {
    if at_once {
        client.send(encode(&["MULTI"]));
        client.send(encode(&["DECR", "here"]));
        client.send(encode(&["INCR", "there"]));
        client.send(encode(&["EXEC"]));
        client.expect("+OK\r\n+QUEUED\r\n+QUEUED\r\n");
    } else {
        client.expect_command(&["MULTI"], "+OK\r\n");
        client.expect_command(&["DECR", "here"], "+QUEUED\r\n");
        client.expect_command(&["INCR", "there"], "+QUEUED\r\n");
        client.send(encode(&["EXEC"]));
    }
    let reply = String::from_utf8(client.read_reply()).unwrap();
    let numbers: Vec<i64> = reply
        .split("\r\n")
        .filter_map(|line| line.strip_prefix(':')?.parse().ok())
        .collect();
    assert!(
        numbers.len() == 2 && numbers[0] == -numbers[1],
        "not a transfer: {reply:?}"
    );
}
