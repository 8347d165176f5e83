//! What is not the protocol, in any amount.

use std::thread;

use super::bystander::Bystander;
use super::support::{RawClient, RedisServer, WeirProcess, encode, wait_until};
use super::{KIB, MIB, closed, weir};

/// Numbers without a pattern, from a seed that a failure prints.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.next() >> 24) as u8).collect()
    }
}

/// Sends as much as is taken; what comes back until the connection is closed.
fn send_and_hear(weir: &WeirProcess, input: &[u8]) -> Vec<u8> {
    let mut client = weir.client();
    let mut writer = client.second_handle();
    thread::scope(|scope| {
        scope.spawn(move || {
            let _ = writer.try_send(input);
        });
        let mut heard = Vec::new();
        while let Ok(some) = client.read_some()
            && !some.is_empty()
        {
            heard.extend(some);
        }
        heard
    })
}

#[test]
fn whoever_does_not_speak_redis_is_told_so_and_closed() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "", "");
    let bystander = Bystander::start(&weir);
    let before = weir.resident_bytes();
    let error = |text: &str| format!("-ERR Protocol error: {text}\r\n").into_bytes();
    let megabytes = vec![b'x'; 64 * MIB];
    let deep = b"*1\r\n".repeat(100_000);
    let tls = [
        &b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"[..],
        &[7; 400],
        b"\n",
    ]
    .concat();
    for (input, reply) in [
        (&megabytes[..], error("too big inline request")),
        (&deep, error("expected '$', got '*'")),
        (b"*1000000000\r\n$-5\r\n", error("invalid bulk length")),
        (b"*10000000000\r\n", error("invalid multibulk length")),
        (b"*1\r\n$-5\r\n", error("invalid bulk length")),
        (b"*1\r\n$1000000000\r\n", error("invalid bulk length")),
        (b"*3\r\n$3\r\nSET\r\n:1\r\n", error("expected '$', got ':'")),
        (b"GET / HTTP/1.1\r\nHost: redis\r\n\r\n", Vec::new()),
        (b"POST /x HTTP/1.1\r\nHost: redis\r\n\r\n", Vec::new()),
    ] {
        let heard = send_and_hear(&weir, input);
        let heard =
            match heard.strip_prefix(b"-ERR wrong number of arguments for 'get' command\r\n") {
                // The first line of HTTP is a command, in Redis too.
                Some(rest) => rest.to_vec(),
                None => heard,
            };
        let shown = &input[..input.len().min(60)];
        assert_eq!(
            heard.escape_ascii().to_string(),
            reply.escape_ascii().to_string(),
            "for \"{}\"",
            shown.escape_ascii()
        );
        bystander.is_well();
    }
    let mut client = weir.client();
    client.send(&tls);
    let answer = client.read_reply();
    assert!(
        answer.starts_with(b"-ERR unknown command "),
        "{}",
        answer.escape_ascii()
    );
    bystander.finish();
    let grown = weir.resident_bytes().saturating_sub(before);
    assert!(grown < 20 * MIB, "{grown} bytes grown");
}

#[test]
fn random_bytes_harm_nobody() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "", "");
    let bystander = Bystander::start(&weir);
    let before = weir.resident_bytes();
    for seed in 1..300_u64 {
        println!("seed {seed}");
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut client = weir.client();
        let mut sent = Vec::new();
        for _ in 0..random.next() % 20 {
            let len = (random.next() % 300) as usize;
            match random.next() % 4 {
                // Without what would wait, stop or shut down the server by chance.
                0 => sent.extend(encode(&["ECHO", &"e".repeat(len)])),
                1 => sent.extend(encode(&[random.bytes(len)])),
                2 => sent.extend(random.bytes(len)),
                _ => sent.extend(b"*2\r\n$3\r\nGET\r\n$"),
            }
        }
        let _ = client.try_send(&sent);
        match random.next() % 3 {
            0 => client.reset(),
            1 => drop(client),
            _ => {
                client.half_close();
                while client.read_some().is_ok_and(|some| !some.is_empty()) {}
            }
        }
    }
    bystander.finish();
    let grown = weir.resident_bytes().saturating_sub(before);
    assert!(grown < 20 * MIB, "{grown} bytes grown");
}

#[test]
fn clients_vanish_in_the_middle_of_anything() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "", "");
    let bystander = Bystander::start(&weir);
    let value = "v".repeat(200 * KIB);
    weir.client()
        .expect_command(&["SET", "large", &value], "+OK\r\n");
    let mut lines: Vec<&[u8]> = vec![
        b"",
        b"*",
        b"*2\r\n$3\r\nGE",
        b"PIN",
        b"MULTI\r\n",
        b"MULTI\r\nSET a 1\r\n",
        b"MULTI\r\nSET a 1\r\nEXEC\r\n",
        b"WATCH a\r\n",
        b"WATCH a\r\nMULTI\r\nSET a 2\r\n",
        b"BLPOP nothing 0\r\n",
        b"BLPOP nothing 0\r\nPING\r\nPING\r\n",
        b"XREAD BLOCK 0 STREAMS nothing $\r\n",
        b"WAIT 5 0\r\n",
        b"SUBSCRIBE a b c\r\n",
        b"PSUBSCRIBE *\r\nUNSUBSCRIBE\r\n",
        b"MONITOR\r\n",
        b"SYNC\r\n",
        b"CLIENT TRACKING ON\r\nGET a\r\n",
        b"HELLO 3\r\nCLIENT TRACKING ON BCAST\r\n",
        b"GET large\r\nGET large\r\nGET large\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1000000\r\nxxxx",
        b"EVAL \"return string.rep('x', 1000000)\" 0\r\n",
        b"SELECT 7\r\nGET a\r\n",
        b"AUTH x y\r\n",
        b"INFO\r\nCONFIG GET *\r\n",
        b"CLIENT REPLY OFF\r\nGET large\r\n",
        b"QUIT\r\n",
    ];
    if !redis.is_valkey() {
        // Valkey 9.1 does not survive the next script of anybody.
        lines.push(b"SCRIPT DEBUG YES\r\n");
    }
    for round in 0..9 {
        let gone: Vec<RawClient> = lines
            .iter()
            .map(|line| {
                let mut client = weir.client();
                client.send(line);
                client
            })
            .collect();
        if round % 3 == 2 {
            bystander.is_well();
        }
        for client in gone {
            match round % 3 {
                0 => client.reset(),
                1 => drop(client),
                _ => client.shut_down(),
            }
        }
    }
    bystander.is_well();
    wait_until("all that they held is back", || {
        weir.metric("weir_leases_held", &[]) == 0.0
            && weir.metric("weir_clients_connected", &[]) <= 1.0
    });
    // Every lease is of use again.
    for _ in 0..40 {
        let mut client = weir.client();
        client.expect_command(&["WATCH", "a"], "+OK\r\n");
        client.expect_command(&["UNWATCH"], "+OK\r\n");
        client.expect_command(&["BLPOP", "nothing", "0.01"], "*-1\r\n");
    }
    bystander.finish();
}

#[test]
fn a_flood_of_commands_from_some_is_not_felt_by_others() {
    let redis = RedisServer::start();
    // Thousands in line on a machine that is busy with other tests is no overload of Redis.
    let weir = weir(&redis, "workers = 1", "overload.target = \"10s\"");
    let bystander = Bystander::start(&weir);
    thread::scope(|scope| {
        for _ in 0..8 {
            let weir = &weir;
            scope.spawn(move || {
                let mut client = weir.client();
                let requests = encode(&["INCR", "flood"]).repeat(20_000);
                let mut writer = client.second_handle();
                scope.spawn(move || writer.send(&requests));
                for _ in 0..20_000 {
                    assert!(client.read_reply().starts_with(b":"));
                }
            });
        }
        bystander.is_well();
    });
    bystander.finish();
    let mut client = weir.client();
    client.expect_command(&["GET", "flood"], "$6\r\n160000\r\n");
}

#[test]
fn a_storm_of_connections_that_say_nothing() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "", "");
    let bystander = Bystander::start(&weir);
    let before = weir.resident_bytes();
    for _ in 0..5 {
        let clients: Vec<RawClient> = (0..300).map(|_| weir.client()).collect();
        bystander.is_well();
        drop(clients);
    }
    wait_until("they are gone", || {
        weir.metric("weir_clients_connected", &[]) <= 2.0
    });
    bystander.finish();
    wait_until("they are counted", || closed(&weir, "client") >= 1500.0);
    let grown = weir.resident_bytes().saturating_sub(before);
    assert!(grown < 20 * MIB, "{grown} bytes grown");
}
