//! More clients than there is room for.

use super::support::{RawClient, RedisServer, encode, wait_until};
use super::{closed, weir};

const REFUSAL: &str = "-ERR max number of clients reached\r\n";

fn refused(weir: &super::WeirProcess, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    weir.metric("weir_clients_refused_total", &[&label])
}

/// A Weir that is full, and the two clients that fill it.
fn full(redis: &RedisServer) -> (super::WeirProcess, [RawClient; 2]) {
    // Who is in stays, however long the others take.
    let weir = weir(
        redis,
        "workers = 1\nmax_clients = 2",
        "clients.gives_way_after = 0",
    );
    let mut clients = [weir.client(), weir.client()];
    for client in &mut clients {
        client.expect_command(&["PING"], "+PONG\r\n");
    }
    (weir, clients)
}

#[test]
fn the_refusal_answers_the_first_real_command() {
    let redis = RedisServer::start();
    let (weir, mut clients) = full(&redis);
    for first in [
        &["GET", "a"][..],
        &["PING"],
        &["AUTH", "x"],
        &["AUTH", "default", "x"],
        &["HELLO", "3", "AUTH", "default", "x"],
        &["MULTI"],
        &["SUBSCRIBE", "x"],
        &["BLPOP", "x", "0"],
        &["CLIENT", "ID"],
        &["INFO"],
        &["nosuch"],
        &["SET"],
        &["RESET"],
        &["COMMAND"],
    ] {
        let mut newcomer = weir.client();
        newcomer.send(encode(first));
        newcomer.expect(REFUSAL);
        newcomer.expect_closed();
    }
    for client in &mut clients {
        client.expect_command(&["PING"], "+PONG\r\n");
    }
    wait_until("they are counted", || refused(&weir, "max_clients") >= 14.0);
}

#[test]
fn the_handshake_before_it_is_answered() {
    let redis = RedisServer::start();
    let (weir, _clients) = full(&redis);
    let mut newcomer = weir.client();
    let hello = newcomer.command(&["HELLO", "3"]);
    assert!(hello.starts_with(b"%7\r\n"), "{}", hello.escape_ascii());
    newcomer.expect_command(&["CLIENT", "SETNAME", "x"], "+OK\r\n");
    newcomer.expect_command(&["CLIENT", "SETINFO", "LIB-NAME", "lib"], "+OK\r\n");
    newcomer.expect_command(&["CLIENT", "SETINFO", "LIB-VER", "1"], "+OK\r\n");
    newcomer.expect_command(&["SELECT", "4"], "+OK\r\n");
    newcomer.expect_command(&["SET", "a", "1"], REFUSAL);
    newcomer.expect_closed();
    // All in one write, as libraries do it; nothing behind the refusal is run.
    let mut newcomer = weir.client();
    let mut input = encode(&["HELLO"]);
    input.extend(encode(&["SELECT", "4"]));
    input.extend(encode(&["INCR", "a"]));
    input.extend(encode(&["INCR", "a"]));
    newcomer.send(input);
    assert!(newcomer.read_reply().starts_with(b"*14\r\n"));
    newcomer.expect("+OK\r\n");
    newcomer.expect(REFUSAL.repeat(2));
    newcomer.expect_closed();
    redis.client().expect_command(&["EXISTS", "a"], ":0\r\n");
    let mut newcomer = weir.client();
    newcomer.send(b"PING\r\n");
    newcomer.expect(REFUSAL);
    let mut newcomer = weir.client();
    newcomer.expect_command(&["QUIT"], "+OK\r\n");
    newcomer.expect_closed();
    let mut newcomer = weir.client();
    newcomer.send(b"*x\r\n");
    newcomer.expect("-ERR Protocol error: invalid multibulk length\r\n");
    newcomer.expect_closed();
}

#[test]
fn there_is_room_again_when_somebody_leaves() {
    let redis = RedisServer::start();
    let (weir, clients) = full(&redis);
    let mut newcomer = weir.client();
    newcomer.expect_command(&["PING"], REFUSAL);
    let [first, mut second] = clients;
    drop(first);
    wait_until("somebody else is let in", || {
        weir.client().command(&["PING"]) == b"+PONG\r\n"
    });
    second.expect_command(&["PING"], "+PONG\r\n");
}

#[test]
fn those_who_are_refused_do_not_pile_up() {
    let redis = RedisServer::start();
    let (weir, mut clients) = full(&redis);
    let before = weir.resident_bytes();
    for _ in 0..3 {
        let crowd: Vec<RawClient> = (0..1000).map(|_| weir.client()).collect();
        for client in &mut clients {
            client.expect_command(&["PING"], "+PONG\r\n");
        }
        drop(crowd);
    }
    // The last of them may still stand in front of the door.
    wait_until("all were refused", || {
        refused(&weir, "max_clients") >= 3000.0
    });
    let grown = weir.resident_bytes().saturating_sub(before);
    assert!(grown < 20 * super::MIB, "{grown} bytes for nobody");
    assert_eq!(weir.metric("weir_clients_connected", &[]), 2.0);
    assert_eq!(closed(&weir, "refused"), 0.0, "they were never taken in");
}

#[test]
fn a_route_has_its_own_limit() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "workers = 1", "clients.max_clients = 1");
    let mut client = weir.client();
    client.expect_command(&["PING"], "+PONG\r\n");
    weir.client().expect_command(&["PING"], REFUSAL);
    let reason = ["reason=\"route_max_clients\""];
    weir.wait_for_metric("weir_clients_refused_total", &reason, 1.0);
}
