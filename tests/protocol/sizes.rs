//! Values of any size, up and down.

use std::thread;

use super::compare::{Pair, weir};
use super::support::{RawClient, RedisServer, encode};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Bytes that differ from place to place and from seed to seed, line breaks among them.
fn value(seed: usize, len: usize) -> Vec<u8> {
    let mut state = seed as u64 ^ 0x9E37_79B9_7F4A_7C15;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    let mut reply = format!("${}\r\n", bytes.len()).into_bytes();
    reply.extend_from_slice(bytes);
    reply.extend(b"\r\n");
    reply
}

fn set(key: &str, value: &[u8]) -> Vec<u8> {
    encode(&[b"SET".as_slice(), key.as_bytes(), value])
}

#[test]
fn values_of_any_size_go_up_and_come_down() {
    let pair = Pair::start();
    let mut client = pair.weir.client();
    for len in [
        0,
        1,
        16 * KIB - 1,
        16 * KIB,
        16 * KIB + 1,
        64 * KIB - 40,
        64 * KIB - 1,
        64 * KIB,
        64 * KIB + 1,
        128 * KIB,
        MIB,
        20 * MIB,
    ] {
        let value = value(len, len);
        client.send(set("key", &value));
        client.expect("+OK\r\n");
        client.send(encode(&["GET", "key"]));
        client.expect(bulk(&value));
        client.expect_command(&["STRLEN", "key"], format!(":{len}\r\n"));
    }
}

#[test]
fn large_values_may_stand_anywhere_in_a_pipeline() {
    let pair = Pair::start();
    let mut input = Vec::new();
    for (number, len) in [10, 3 * MIB, 70 * KIB, 0, MIB, 5].into_iter().enumerate() {
        input.extend(encode(&["INCR", "count"]));
        input.extend(set("key", &value(number, len)));
        input.extend(encode(&["STRLEN", "key"]));
        input.extend(encode(&["GETRANGE", "key", "0", "40"]));
    }
    input.extend(encode(&["MULTI"]));
    input.extend(set("key", &value(7, 2 * MIB)));
    input.extend(encode(&["STRLEN", "key"]));
    input.extend(encode(&["EXEC"]));
    input.extend(encode(&["SELECT", "1"]));
    input.extend(set("key", &value(8, MIB)));
    input.extend(encode(&["GET", "key"]));
    input.extend(encode(&["SELECT", "0"]));
    input.extend(encode(&["STRLEN", "key"]));
    pair.same(input);
}

#[test]
fn commands_of_many_arguments() {
    let pair = Pair::start();
    for count in [100, 1000, 20_000, 200_000] {
        let mut command = vec!["RPUSH".to_owned(), format!("list{count}")];
        command.extend((0..count).map(|number| format!("element {number}")));
        pair.same(encode(&command));
        pair.same(encode(&["LRANGE", &format!("list{count}"), "0", "-1"]));
        let mut command = vec!["MGET".to_owned()];
        command.extend((0..count).map(|number| format!("k{number}")));
        pair.same(encode(&command));
    }
}

#[test]
fn wrong_large_requests_get_the_server_s_error() {
    let pair = Pair::start();
    let large = value(1, 200 * KIB);
    for words in [
        vec![b"nosuch".as_slice(), &large],
        vec![b"GET", &large, b"x"],
        vec![b"INCRBY", b"k", &large],
        vec![b"CLIENT", b"SETNAME", &large],
        vec![b"AUTH", &large],
        vec![b"SELECT", &large],
        vec![b"HELLO", &large],
        vec![b"SUBSCRIBE", &large],
        vec![b"PING", &large],
        vec![b"ECHO", &large],
        vec![b"EVAL", &large, b"0"],
        vec![b"CONFIG", b"GET", &large],
        vec![b"PUBLISH", b"c", &large],
        vec![&large],
    ] {
        pair.same(encode(&words));
        // In the middle of a pipeline, and in a transaction.
        let mut input = encode(&["INCR", "n"]);
        input.extend(encode(&words));
        input.extend(encode(&["INCR", "n"]));
        pair.same(&input);
        if !matches!(words[0], b"AUTH" | b"HELLO" | b"SUBSCRIBE") {
            pair.same([encode(&["MULTI"]), input, encode(&["EXEC"])].concat());
        }
    }
}

#[test]
fn replies_may_arrive_in_the_middle_of_a_large_request() {
    let pair = Pair::with(&[], "[process]\nworkers = 1");
    let large = "9".repeat(300 * KIB);
    let talk = |address| {
        let mut client = RawClient::connect(address);
        let mut other = RawClient::connect(address);
        // Weir answers SELECT itself, so this one can not be streamed.
        let request = encode(&["SELECT", &large]);
        let mut heard = Vec::new();
        client.send(encode(&["MULTI"]));
        client.send(&request[..100 * KIB]);
        heard.extend(client.read_reply());
        client.send(&request[100 * KIB..200 * KIB]);
        other.expect_command(&["PING"], "+PONG\r\n");
        client.send(&request[200 * KIB..]);
        heard.extend(client.read_reply());
        heard.extend(client.command(&["EXEC"]));
        heard.extend(client.command(&["PING"]));
        heard.escape_ascii().to_string()
    };
    assert_eq!(talk(pair.weir.address()), talk(pair.redis.address()));
}

#[test]
fn many_large_values_at_once() {
    let pair = Pair::start();
    let before = pair.weir.resident_bytes();
    thread::scope(|scope| {
        for client in 0..12 {
            let pair = &pair;
            scope.spawn(move || {
                let mut socket = pair.weir.client();
                let key = format!("key{client}");
                for round in 0..3 {
                    let value = value(client * 100 + round, 4 * MIB + client);
                    socket.send(set(&key, &value));
                    socket.expect("+OK\r\n");
                    socket.send(encode(&["GET", &key]));
                    socket.expect(bulk(&value));
                }
            });
        }
    });
    let grown = pair.weir.resident_bytes().saturating_sub(before);
    // Each may have a window full on its way in either direction.
    assert!(grown < 64 * MIB, "{grown} bytes for values that stream");
}

#[test]
fn a_large_value_does_not_hold_up_others() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "[process]\nworkers = 1");
    let mut slow = weir.client();
    let value = value(3, 4 * MIB);
    let request = set("large", &value);
    let mut other = weir.client();
    // It comes in parts, and between them others are served.
    for part in request.chunks(300 * KIB) {
        slow.send(part);
        other.expect_command(&["INCRBY", "n", "0"], ":0\r\n");
    }
    slow.expect("+OK\r\n");
    // It is read in parts, and between them others are served.
    slow.send(encode(&["GET", "large"]));
    for part in bulk(&value).chunks(300 * KIB) {
        slow.expect(part);
        other.expect_command(&["INCRBY", "n", "0"], ":0\r\n");
    }
}

#[test]
fn an_upload_that_breaks_off_harms_nobody() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "[process]\nworkers = 1");
    let mut other = weir.client();
    for round in 0..20 {
        let mut client = weir.client();
        client.send(b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$10000000\r\n");
        client.send(value(round, 300 * KIB));
        other.expect_command(&["EXISTS", "key"], ":0\r\n");
        match round % 3 {
            0 => client.reset(),
            1 => drop(client),
            _ => {
                client.half_close();
                client.expect_closed();
            }
        }
        other.expect_command(&["EXISTS", "key"], ":0\r\n");
    }
    super::support::wait_until("the leases are back", || {
        weir.metric("weir_leases_held", &[]) == 0.0
    });
}

#[test]
fn an_upload_that_turns_out_to_be_malformed_is_told_so() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "");
    let mut client = weir.client();
    client.send(b"*4\r\n$4\r\nMSET\r\n$1\r\na\r\n$100000\r\n");
    client.send(vec![b'x'; 100_000]);
    client.send(b"\r\n$-7\r\n");
    client.expect("-ERR Protocol error: invalid bulk length\r\n");
    client.expect_closed();
    let mut other = weir.client();
    other.expect_command(&["EXISTS", "a"], ":0\r\n");
}

#[test]
fn large_replies_of_every_shape() {
    let pair = Pair::start();
    let script = "local t = {} for i = 1, 3000 do t[i] = string.rep(i .. ',', 20) end return t";
    let nested = "local t = {} for i = 1, 2000 do t[i] = {i, {tostring(i), {i}}} end return t";
    for version in ["2", "3"] {
        for script in [script, nested] {
            let ask = |address| {
                let mut client = RawClient::connect(address);
                client.command(&["HELLO", version]);
                client.command(&["EVAL", script, "0"])
            };
            let (redis, weir) = (pair.redis.address(), pair.weir.address());
            assert!(ask(redis) == ask(weir), "replies differ in RESP{version}");
        }
    }
}
