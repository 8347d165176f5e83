//! Clients that do not read, read slowly, or send slowly.

use super::bystander::Bystander;
use super::support::{RawClient, RedisServer, encode, wait_until};
use super::{KIB, MIB, closed, weir};

fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn with_large_value(client: &mut RawClient, len: usize) -> Vec<u8> {
    let value: Vec<u8> = (0..len).map(|at| (at / 7) as u8).collect();
    client.send(encode(&[b"SET".as_slice(), b"large", &value]));
    client.expect("+OK\r\n");
    value
}

#[test]
fn who_reads_nothing_is_closed_at_the_write_timeout() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "", "timeouts.write = \"2s\"");
    let bystander = Bystander::start(&weir);
    let mut client = weir.client();
    with_large_value(&mut client, 4 * MIB);
    client.send(encode(&["GET", "large"]).repeat(10));
    wait_until("it is closed", || closed(&weir, "write_timeout") == 1.0);
    bystander.finish();
    // Nothing is put in place of what was lost: what arrives is the beginning.
    let mut heard = 0;
    while client.read_some().is_ok_and(|some| {
        heard += some.len();
        !some.is_empty()
    }) {}
    assert!(heard < 40 * MIB);
}

/// A message as a subscriber reads it.
fn message(text: &str) -> String {
    let len = text.len();
    format!("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n${len}\r\n{text}\r\n")
}

/// A subscriber that reads nothing is closed at its limit; until then its messages wait here,
/// and others do not notice.
#[test]
fn a_subscriber_that_does_not_read_costs_no_more_than_its_limit() {
    let redis = RedisServer::start();
    let weir = weir(
        &redis,
        "workers = 1",
        "clients.subscriber_output_max = \"4MiB\"",
    );
    let bystander = Bystander::start(&weir);
    let mut subscriber = weir.client();
    subscriber.send(encode(&["SUBSCRIBE", "c"]));
    subscriber.expect("*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
    let mut publisher = weir.client();
    bystander.is_well();
    let before = weir.resident_bytes();
    let mut expected = String::new();
    while expected.len() < 60 * MIB {
        let text = expected.len().to_string().repeat(50 * KIB);
        publisher.send(encode(&["PUBLISH", "c", &text]));
        expected.push_str(&message(&text));
        assert!(publisher.read_reply().starts_with(b":"));
        let held = weir.metric("weir_buffered_bytes", &[]);
        assert!(held < 6.0 * MIB as f64, "{held} bytes wait for it");
    }
    // What it cost for a moment the allocator keeps for a moment.
    wait_until("nothing more of it is here", || {
        weir.resident_bytes().saturating_sub(before) < 20 * MIB
    });
    // What arrives is in order, and nothing follows what was cut off.
    let mut heard = Vec::new();
    while heard.len() < expected.len()
        && let Ok(some) = subscriber.read_some()
        && !some.is_empty()
    {
        heard.extend(some);
    }
    assert!(expected.as_bytes().starts_with(&heard));
    let reason = ["reason=\"subscriber_limit\""];
    weir.wait_for_metric("weir_clients_closed_total", &reason, 1.0);
    bystander.finish();
}

#[test]
fn one_reply_may_be_larger_than_what_may_wait() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "workers = 1", "clients.output_max = \"1MiB\"");
    let mut client = weir.client();
    let mut other = weir.client();
    let value = with_large_value(&mut client, 40 * MIB);
    let mut input = encode(&["GET", "large"]);
    input.extend(encode(&["PING"]));
    client.send(input.repeat(3));
    // It is all here before the client reads on.
    other.expect_command(&["STRLEN", "large"], format!(":{}\r\n", value.len()));
    for _ in 0..3 {
        client.expect(bulk(&value));
        client.expect("+PONG\r\n");
    }
    assert_eq!(closed(&weir, "output_limit"), 0.0);
}

#[test]
fn who_reads_slowly_but_steadily_gets_everything() {
    let redis = RedisServer::start();
    let weir = weir(
        &redis,
        "workers = 1",
        "clients.output_max = \"16MiB\"\ntimeouts.write = \"30s\"",
    );
    let mut client = weir.client();
    let mut other = weir.client();
    let value = with_large_value(&mut client, 2 * MIB);
    // 60 MiB of replies, of which no more than 16 MiB may wait here: fewer commands are
    // sent at once, and nobody is closed for asking.
    client.send(encode(&["GET", "large"]).repeat(30));
    let reply = bulk(&value);
    for _ in 0..30 {
        for part in reply.chunks(100 * KIB) {
            client.expect(part);
            other.expect_command(&["PING"], "+PONG\r\n");
        }
    }
    assert_eq!(closed(&weir, "output_limit"), 0.0);
}

#[test]
fn a_client_s_own_connection_waits_for_it() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "workers = 1", "");
    let mut client = weir.client();
    let value = with_large_value(&mut client, 50 * MIB);
    client.expect_command(&["WATCH", "nothing"], "+OK\r\n");
    let before = weir.resident_bytes();
    client.send(encode(&["GET", "large"]));
    client.expect(format!("${}\r\n", value.len()));
    let mut other = weir.client();
    // The value is in Redis's own buffer and in the kernel's, not in Weir.
    for _ in 0..50 {
        other.expect_command(&["PING"], "+PONG\r\n");
        let grown = weir.resident_bytes().saturating_sub(before);
        assert!(grown < 10 * MIB, "{grown} bytes of it are here");
    }
    client.expect(&value);
    client.expect("\r\n");
    client.expect_command(&["UNWATCH"], "+OK\r\n");
}

/// The client of a lease has so much to read that the connection waits for it; then the lease
/// is over. Whoever has the connection next does not wait for that client.
#[test]
fn a_connection_that_waited_for_a_client_serves_the_next() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "workers = 1", "");
    let mut slow = weir.client();
    let reply = bulk(&with_large_value(&mut slow, 60 * KIB));
    slow.expect_command(&["SET", "small", &"x".repeat(8 * KIB)], "+OK\r\n");
    let mut expected = Vec::new();
    let buffered = || weir.metric("weir_buffered_bytes", &[]) as usize;
    wait_until("its socket is full", || {
        slow.send(encode(&["GET", "large"]));
        expected.extend(&reply);
        buffered() > MIB / 2
    });
    wait_until("most of the window is full", || {
        slow.send(encode(&["GET", "small"]));
        expected.extend(bulk(&[b'x'; 8 * KIB]));
        buffered() > MIB - 32 * KIB
    });
    let block: [&[&str]; 4] = [&["WATCH", "a"], &["MULTI"], &["GET", "large"], &["EXEC"]];
    slow.send(
        block
            .iter()
            .flat_map(|line| encode(line))
            .collect::<Vec<u8>>(),
    );
    expected.extend(b"+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n");
    expected.extend(&reply);
    wait_until("its lease is over", || {
        weir.metric("weir_leases_granted_total", &[]) == 1.0
            && weir.metric("weir_leases_held", &[]) == 0.0
    });
    let mut next = weir.client();
    next.expect_command(&["WATCH", "a"], "+OK\r\n");
    next.expect_command(&["GET", "large"], &reply);
    next.expect_command(&["UNWATCH"], "+OK\r\n");
    slow.expect(expected);
}

#[test]
fn a_request_that_does_not_go_on_is_given_up() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "", "timeouts.read = \"2s\"");
    let bystander = Bystander::start(&weir);
    let beginnings: &[&[u8]] = &[
        b"PIN",
        b"*2\r\n$4\r\nECHO\r\n$5\r\nhel",
        b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$10000000\r\nxxx",
        b"*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$1000000\r\nxxx",
        b"*",
    ];
    let mut clients: Vec<RawClient> = beginnings
        .iter()
        .map(|beginning| {
            let mut client = weir.client();
            client.send(encode(&["ECHO", "first"]));
            client.send(beginning);
            client.expect("$5\r\nfirst\r\n");
            client
        })
        .collect();
    let mut idle = weir.client();
    idle.expect_command(&["PING"], "+PONG\r\n");
    for client in &mut clients {
        client.expect_closed();
    }
    let (reason, count) = (["reason=\"read_timeout\""], beginnings.len() as f64);
    weir.wait_for_metric("weir_clients_closed_total", &reason, count);
    wait_until("the leases are back", || {
        weir.metric("weir_leases_held", &[]) == 0.0
    });
    // Who has begun nothing is not concerned.
    idle.expect_command(&["PING"], "+PONG\r\n");
    bystander.finish();
}

#[test]
fn one_byte_at_a_time_is_slow_and_allowed() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "workers = 1", "timeouts.read = \"20s\"");
    let mut client = weir.client();
    let mut other = weir.client();
    for byte in encode(&["SET", "slowly", "but it comes"]) {
        client.send([byte]);
        other.expect_command(&["PING"], "+PONG\r\n");
    }
    client.expect("+OK\r\n");
}
