//! What becomes of each command when its connection is lost (COMMANDS.md 3.1), one by one.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::fake_node::{Act, FakeNode};
use super::support::{RawClient, RedisServer, WeirProcess, encode, wait_until};
use super::{error, is_unknown, weir_at};

fn weir(redis: &RedisServer, node: &FakeNode) -> WeirProcess {
    weir_at(redis, node.address(), "[process]\nworkers = 1\n")
}

/// The first connection is lost with each command; others answer.
fn loses_the_first(number: usize, _: &[String]) -> Act {
    if number == 0 {
        Act::Close
    } else {
        Act::Say(b"+answered\r\n".to_vec())
    }
}

fn ask(client: &mut RawClient, command: &str) -> Vec<u8> {
    client.command(&command.split(' ').collect::<Vec<_>>())
}

#[test]
fn a_read_is_sent_once_more_and_a_write_never() {
    let redis = RedisServer::start();
    for command in [
        "GET k",
        "MGET k l",
        "EXISTS k",
        "SCAN 0",
        "ECHO x",
        "PING",
        "TIME",
        "OBJECT ENCODING k",
        "EVAL_RO return1 0",
        "PFCOUNT k",
        "SCRIPT EXISTS x",
        "RANDOMKEY",
        "XRANGE s - +",
        "TTL k",
    ] {
        let node = FakeNode::start(loses_the_first);
        let weir = weir(&redis, &node);
        assert_eq!(
            ask(&mut weir.client(), command),
            b"+answered\r\n",
            "{command}"
        );
        assert_eq!(node.times_seen(command), 2, "{command}");
    }
    for command in [
        "SET k v",
        "INCR k",
        "DEL k",
        "EVAL return1 0",
        "EVALSHA x 0",
        "FCALL f 0",
        "PUBLISH c m",
        "EXPIRE k 10",
        "GETSET k v",
        "GETDEL k",
        "SETNX k v",
        "SPOP s",
        "XADD s * f v",
        "FLUSHDB",
        "GETEX k EX 10",
        "NOSUCHCOMMAND k",
    ] {
        let node = FakeNode::start(loses_the_first);
        let weir = weir(&redis, &node);
        let mut client = weir.client();
        let reply = ask(&mut client, command);
        assert!(
            error(&reply).is_some_and(is_unknown),
            "{command}: {}",
            reply.escape_ascii()
        );
        assert_eq!(node.times_seen(command), 1, "{command}");
        // The client goes on over another connection.
        assert_eq!(
            ask(&mut client, "GET k"),
            b"+answered\r\n",
            "after {command}"
        );
    }
}

#[test]
fn a_read_is_not_sent_a_third_time() {
    let redis = RedisServer::start();
    let node = FakeNode::start(|number, _| match number {
        0 | 1 => Act::Close,
        _ => Act::Say(b"+answered\r\n".to_vec()),
    });
    let weir = weir(&redis, &node);
    let reply = ask(&mut weir.client(), "GET k");
    assert!(
        error(&reply).is_some_and(is_unknown),
        "{}",
        reply.escape_ascii()
    );
    assert_eq!(node.times_seen("GET k"), 2);
}

#[test]
fn each_command_of_a_pipeline_has_its_own_fate_and_replies_keep_their_order() {
    let redis = RedisServer::start();
    let node = FakeNode::start(|number, command| match (number, command[1].as_str()) {
        // Everything was written when the connection is lost behind the second reply.
        (0, "5") => Act::Close,
        (0, "0" | "1") => Act::Say(format!("+{}\r\n", command[1]).into_bytes()),
        (0, _) => Act::Say(Vec::new()),
        _ => Act::Say(format!("+again {}\r\n", command[1]).into_bytes()),
    });
    let weir = weir(&redis, &node);
    let mut client = weir.client();
    let pipeline: Vec<u8> = ["GET 0", "INCR 1", "GET 2", "INCR 3", "GET 4", "INCR 5"]
        .iter()
        .flat_map(|line| encode(&line.split(' ').collect::<Vec<_>>()))
        .collect();
    client.send(pipeline);
    let unknown = "-ERR weir: upstream connection lost, command outcome unknown\r\n";
    client.expect("+0\r\n+1\r\n");
    client.expect(format!("+again 2\r\n{unknown}+again 4\r\n{unknown}"));
    for (command, times) in [
        ("GET 0", 1),
        ("INCR 1", 1),
        ("GET 2", 2),
        ("INCR 3", 1),
        ("GET 4", 2),
        ("INCR 5", 1),
    ] {
        assert_eq!(node.times_seen(command), times, "{command}");
    }
}

#[test]
fn a_block_whose_exec_was_sent_is_unknown_and_not_sent_again() {
    let redis = RedisServer::start();
    let node = FakeNode::start(|number, command| match (number, command[0].as_str()) {
        (0, "EXEC") => Act::Close,
        (0, "MULTI") => Act::Say(b"+OK\r\n".to_vec()),
        (0, _) => Act::Say(b"+QUEUED\r\n".to_vec()),
        _ => Act::Say(b"+answered\r\n".to_vec()),
    });
    let weir = weir(&redis, &node);
    // At once, over the shared connection.
    let mut client = weir.client();
    for command in [&["MULTI"][..], &["INCR", "k"], &["GET", "k"], &["EXEC"]] {
        client.send(encode(command));
    }
    client.expect("+OK\r\n+QUEUED\r\n+QUEUED\r\n");
    let reply = client.read_reply();
    assert!(
        error(&reply).is_some_and(is_unknown),
        "{}",
        reply.escape_ascii()
    );
    for command in ["MULTI", "INCR k", "GET k", "EXEC"] {
        assert_eq!(node.times_seen(command), 1, "{command}");
    }
}

#[test]
fn a_lease_that_is_lost_before_exec_ends_its_transaction_and_nothing_ran() {
    let redis = RedisServer::start();
    for (first, null) in [("WATCH k", true), ("MULTI", false)] {
        let node =
            FakeNode::start(
                |number, command| match (number, command[1..].join(" ").as_str()) {
                    (0, "lose 1") => Act::Close,
                    (0, _) if command[0] == "SET" => Act::Say(b"+QUEUED\r\n".to_vec()),
                    (0, _) => Act::Say(b"+OK\r\n".to_vec()),
                    _ => Act::Say(b"+answered\r\n".to_vec()),
                },
            );
        let weir = weir(&redis, &node);
        let mut client = weir.client();
        assert_eq!(ask(&mut client, first), b"+OK\r\n");
        if null {
            assert_eq!(ask(&mut client, "MULTI"), b"+OK\r\n");
        }
        assert_eq!(ask(&mut client, "SET k 1"), b"+QUEUED\r\n");
        let lost = ask(&mut client, "SET lose 1");
        assert!(
            error(&lost).is_some_and(is_unknown),
            "{}",
            lost.escape_ascii()
        );
        assert_eq!(ask(&mut client, "SET l 1"), b"+QUEUED\r\n");
        let reply = ask(&mut client, "EXEC");
        if null {
            assert_eq!(reply, b"*-1\r\n");
        } else {
            assert!(
                reply.starts_with(b"-EXECABORT "),
                "{}",
                reply.escape_ascii()
            );
        }
        assert_eq!(node.times_seen("EXEC"), 0);
        assert_eq!(ask(&mut client, "GET k"), b"+answered\r\n");
    }
}

#[test]
fn a_reply_that_breaks_off_in_the_client_s_hands_closes_the_client() {
    let redis = RedisServer::start();
    let node = FakeNode::start(|number, command| {
        if number == 0 && command[1] == "large" {
            let mut half = b"$1000000\r\n".to_vec();
            half.resize(500_000, b'x');
            Act::SayAndClose(half)
        } else if number == 0 {
            Act::Say(Vec::new())
        } else {
            Act::Say(b"+answered\r\n".to_vec())
        }
    });
    let weir = weir(&redis, &node);
    let mut reader = weir.client();
    reader.send(encode(&["GET", "large"]));
    assert!(reader.try_read_reply().is_err(), "half a reply is not one");
    // A reply that had not begun is asked for again.
    let node = FakeNode::start(|number, _| {
        if number == 0 {
            Act::SayAndClose(b"$1000\r\nxxxxx".to_vec())
        } else {
            Act::Say(b"+answered\r\n".to_vec())
        }
    });
    let weir = self::weir(&redis, &node);
    assert_eq!(ask(&mut weir.client(), "GET k"), b"+answered\r\n");
}

#[test]
fn a_blocking_command_is_not_sent_again() {
    let redis = RedisServer::start();
    let node = FakeNode::start(loses_the_first);
    let weir = weir(&redis, &node);
    let mut client = weir.client();
    let reply = ask(&mut client, "BLPOP k 0");
    assert!(
        error(&reply).is_some_and(is_unknown),
        "{}",
        reply.escape_ascii()
    );
    assert_eq!(node.times_seen("BLPOP k 0"), 1);
    assert_eq!(ask(&mut client, "GET k"), b"+answered\r\n");
}

#[test]
fn a_subscriber_whose_connection_is_lost_is_closed() {
    let redis = RedisServer::start();
    let node = FakeNode::start(|_, command| match command[0].as_str() {
        "SUBSCRIBE" => Act::SayAndClose(b"*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n".to_vec()),
        _ => Act::Say(b"+answered\r\n".to_vec()),
    });
    let weir = weir(&redis, &node);
    let mut client = weir.client();
    client.expect_command(
        &["SUBSCRIBE", "x"],
        "*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n",
    );
    client.expect_closed();
}

#[test]
fn clients_are_closed_instead_where_the_configuration_says_so() {
    let redis = RedisServer::start();
    let node = FakeNode::start(loses_the_first);
    let weir = weir_at(
        &redis,
        node.address(),
        "on_loss = \"close\"\n[process]\nworkers = 1\n",
    );
    let mut client = weir.client();
    client.send(encode(&["INCR", "k"]));
    client.expect_closed();
    assert_eq!(node.times_seen("INCR k"), 1);
    assert_eq!(ask(&mut weir.client(), "GET k"), b"+answered\r\n");
}

#[test]
fn bytes_that_are_no_reply_cost_the_connection_and_nobody_gets_them() {
    let redis = RedisServer::start();
    for nonsense in [
        &b"HTTP/1.1 200 OK\r\n\r\n"[..],
        b"$-7\r\n",
        b"+one\r\n+two\r\n",
    ] {
        let answer = nonsense.to_vec();
        let node = FakeNode::start(move |number, _| {
            if number == 0 {
                Act::Say(answer.clone())
            } else {
                Act::Say(b"+answered\r\n".to_vec())
            }
        });
        let weir = weir(&redis, &node);
        let mut client = weir.client();
        let reply = ask(&mut client, "GET k");
        assert!(
            matches!(reply.as_slice(), b"+answered\r\n" | b"+one\r\n"),
            "{}",
            reply.escape_ascii()
        );
        assert_eq!(ask(&mut client, "GET k"), b"+answered\r\n");
        client.expect_nothing_pending();
    }
}

#[test]
fn a_deadline_in_the_middle_of_a_reply_closes_its_client_and_nobody_else() {
    let redis = RedisServer::start();
    // On a connection of the client's own, and with more behind it.
    let node = FakeNode::start(|_, command| match command[0].as_str() {
        "WATCH" => Act::Say(b"+OK\r\n".to_vec()),
        "GET" if command[1] == "first" => {
            let mut half = b"$1000000\r\n".to_vec();
            half.resize(500_000, b'x');
            Act::Say(half)
        }
        "GET" => Act::Say(Vec::new()),
        _ => Act::Say(b"+PONG\r\n".to_vec()),
    });
    let settings = "[route.main.timeouts]\nrequest = \"2s\"\n[process]\nworkers = 1\n";
    let weir = weir_at(&redis, node.address(), settings);
    let mut client = weir.client();
    client.expect_command(&["WATCH", "key"], "+OK\r\n");
    client.send([encode(&["GET", "first"]), encode(&["GET", "second"])].concat());
    assert!(client.try_read_reply().is_err(), "half a reply is not one");
    // The same worker looks at deadlines as before.
    let reply = ask(&mut weir.client(), "GET third");
    assert!(
        error(&reply).is_some_and(is_unknown),
        "{}",
        reply.escape_ascii()
    );
}

#[test]
fn an_element_that_comes_back_among_others_loses_none_of_those() {
    let redis = RedisServer::start();
    let (said, go_on) = std::sync::mpsc::channel::<()>();
    let go_on = std::sync::Mutex::new(go_on);
    let execs = AtomicUsize::new(0);
    let element = |value: &str| format!("*2\r\n$1\r\nk\r\n$1\r\n{value}\r\n");
    let node = FakeNode::start(move |_, command| match command[0].as_str() {
        "MULTI" => Act::Say(b"+OK\r\n".to_vec()),
        "BLPOP" => Act::Say(b"+QUEUED\r\n".to_vec()),
        "EXEC" => {
            let _ = go_on.lock().expect("no panic holds it").recv();
            Act::Say(match execs.fetch_add(1, Ordering::Relaxed) {
                0 => format!("*1\r\n{}", element("1")).into_bytes(),
                _ => format!("*2\r\n{}{}", element("2"), element("3")).into_bytes(),
            })
        }
        _ => Act::Say(b"+PONG\r\n".to_vec()),
    });
    // All of them share, and the second is not read any more when it goes.
    let settings = "max_blocking = 1\nmax_blocking_shared = 1\n\
                    [route.main.clients]\npipeline_buffer = \"4KiB\"\n[process]\nworkers = 1\n";
    let weir = weir_at(&redis, node.address(), settings);
    let [mut first, mut second, mut third] = [(); 3].map(|()| weir.client());
    let pop = encode(&["BLPOP", "k", "0"]);
    for (number, client) in [&mut first, &mut second, &mut third]
        .into_iter()
        .enumerate()
    {
        client.send(&pop);
        wait_until("it waits", || {
            weir.metric("weir_clients_blocked", &["way=\"shared\""]) > number as f64
        });
    }
    for _ in 0..100 {
        second.send(encode(&["PING"]).repeat(100));
    }
    said.send(()).expect("the node listens");
    first.expect(element("1"));
    second.reset();
    said.send(()).expect("the node listens");
    // The second's, if it was seen to leave before that came.
    let reply = String::from_utf8_lossy(&third.read_reply()).into_owned();
    assert!(reply == element("3") || reply == element("2"), "{reply}");
    // As at Redis, what was popped for one that has gone is gone.
    wait_until("it is counted", || {
        weir.metric("weir_blocked_orphans_total", &[]) == 1.0
    });
    drop(said);
    assert_eq!(ask(&mut weir.client(), "GET k"), b"+PONG\r\n");
}
