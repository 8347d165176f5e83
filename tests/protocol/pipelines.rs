//! Many commands before the first reply is read.

use std::thread;

use super::compare::{Pair, weir};
use super::support::{RawClient, RedisServer, encode, wait_until};

/// `count` requests that are answered with their numbers, and the answers.
fn numbered(count: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut requests, mut replies) = (Vec::new(), Vec::new());
    for number in 0..count {
        let word = number.to_string();
        requests.extend(encode(&["ECHO", &word]));
        replies.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
    }
    (requests, replies)
}

/// Sends everything while another thread reads, as a library with a reader thread does.
fn talk(client: &mut RawClient, requests: &[u8], replies: &[u8]) {
    let mut writer = client.second_handle();
    thread::scope(|scope| {
        scope.spawn(move || writer.send(requests));
        client.expect(replies);
    });
}

#[test]
fn pipelines_of_any_depth_are_answered_in_order() {
    let pair = Pair::start();
    let mut client = pair.weir.client();
    for count in [1, 2, 10, 100, 1023, 1024, 1025, 10_000, 100_000] {
        let (requests, replies) = numbered(count);
        talk(&mut client, &requests, &replies);
    }
}

#[test]
fn many_deep_pipelines_at_once_stay_apart() {
    // Thousands in line on a machine that is busy with other tests is no overload of Redis.
    let pair = Pair::with(&[], "overload.target = \"10s\"\n");
    thread::scope(|scope| {
        for client in 0..20 {
            let pair = &pair;
            scope.spawn(move || {
                let mut socket = pair.weir.client();
                let (mut requests, mut replies) = (Vec::new(), Vec::new());
                for number in 0..5000 {
                    let word = format!("{client}:{number}");
                    requests.extend(encode(&["ECHO", &word]));
                    replies.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
                }
                talk(&mut socket, &requests, &replies);
            });
        }
    });
}

#[test]
fn a_pipeline_of_every_kind_of_command_is_answered_in_order() {
    let pair = Pair::start();
    let mut commands: Vec<Vec<&str>> = Vec::new();
    for _ in 0..50 {
        for command in [
            "SET k 1",
            "CLIENT GETNAME",
            "INCR k",
            "SELECT 1",
            "GET k",
            "INCR only-here",
            "SELECT 0",
            "MULTI",
            "INCR k",
            "INCR k",
            "EXEC",
            "nosuch",
            "GET",
            "WATCH k",
            "GET k",
            "MULTI",
            "SET k 2",
            "EXEC",
            "CLIENT SETNAME me",
            "CLIENT GETNAME",
            "RPUSH l a b",
            "BLPOP l 1",
            "BLPOP l 1",
            "EVAL return{1,2,{3}} 0",
            "WAIT 0 10",
            "CONFIG GET maxmemory",
            "CONFIG SET maxmemory 0",
            "MULTI",
            "SELECT 2",
            "INCR two",
            "EXEC",
            "GET two",
            "SELECT 0",
            "DISCARD",
            "EXEC",
            "UNWATCH",
            "UNSUBSCRIBE",
            "RESET",
            "DBSIZE",
            "PING",
        ] {
            commands.push(command.split(' ').collect());
        }
    }
    let commands: Vec<&[&str]> = commands.iter().map(Vec::as_slice).collect();
    let heard = pair.same_commands(&commands);
    assert!(!heard.closed);
}

#[test]
fn nothing_behind_quit_is_run() {
    let pair = Pair::start();
    let heard = pair.same_commands(&[
        &["SET", "k", "1"],
        &["INCR", "k"],
        &["QUIT"],
        &["INCR", "k"],
        &["INCR", "k"],
    ]);
    assert!(heard.closed);
    assert_eq!(pair.behind.command(&["GET", "k"]), b"$1\r\n2\r\n");
    for input in [
        &b"QUIT\r\n"[..],
        b"quit\r\nnonsense \"\r\n",
        b"PING\r\nQUIT\r\n*x\r\n",
        b"MULTI\r\nINCR k\r\nQUIT\r\nEXEC\r\n",
        b"*3\r\n$4\r\nQUIT\r\n$1\r\na\r\n$1\r\nb\r\nPING\r\n",
    ] {
        pair.same(input);
    }
}

#[test]
fn a_hundred_thousand_commands_and_gone() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "");
    let mut other = weir.client();
    let before = weir.resident_bytes();
    for round in 0..10 {
        let mut client = weir.client();
        let (requests, _) = numbered(100_000);
        let mut writer = client.second_handle();
        let sender = thread::spawn(move || {
            let _ = writer.try_send(&requests);
        });
        client.expect("$1\r\n0\r\n");
        if round % 2 == 0 {
            client.shut_down();
            drop(client);
        } else {
            client.reset();
        }
        sender.join().expect("the sender ends");
        other.expect_command(&["PING"], "+PONG\r\n");
    }
    wait_until("they are gone", || {
        weir.metric("weir_clients_connected", &[]) <= 1.0
    });
    let grown = weir.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes were kept");
}

#[test]
fn who_pipelines_and_does_not_read_is_held_back_and_then_served() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "");
    let mut client = weir.client();
    let value = "v".repeat(10_000);
    client.expect_command(&["SET", "k", &value], "+OK\r\n");
    let before = weir.resident_bytes();
    let count = 20_000;
    let requests = encode(&["GET", "k"]).repeat(count);
    let mut writer = client.second_handle();
    let sender = thread::spawn(move || writer.send(&requests));
    let mut other = weir.client();
    wait_until("Weir reads no further", || {
        let commands = weir.metric("weir_commands_total", &[]);
        other.expect_command(&["PING"], "+PONG\r\n");
        weir.metric("weir_commands_total", &[]) <= commands + 1.0
    });
    let grown = weir.resident_bytes().saturating_sub(before);
    assert!(grown < 100 << 20, "{grown} bytes are held for one client");
    let reply = format!("${}\r\n{value}\r\n", value.len());
    for _ in 0..count {
        client.expect(&reply);
    }
    sender.join().expect("all was sent");
}
