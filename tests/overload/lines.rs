//! Commands that wait in Weir: in order, with a deadline, and whatever happens to the
//! connection that they were to take.

use super::support::{RawClient, RedisServer, WeirProcess, encode, wait_until};
use super::{TOO_MANY, weir, weir_with};

/// One command at a time; nobody is refused because it takes too long.
const ONE: &str = "in_flight = 1\ntarget = \"0s\"";

/// Sends a command while Redis stands still, and waits until it is on its way or in line.
fn send_and_wait(weir: &WeirProcess, client: &mut RawClient, command: &[&str], metric: &str) {
    let before = weir.metric(metric, &[]);
    client.send(encode(command));
    wait_until(metric, || weir.metric(metric, &[]) > before);
}

/// A client whose connection is there, so that nothing needs to be dialled later, and whose
/// first command is not counted any more.
fn known(weir: &WeirProcess) -> RawClient {
    let mut client = weir.client();
    client.expect_command(&["PING"], "+PONG\r\n");
    wait_until("nothing is under way", || {
        weir.metric("weir_commands_in_flight", &[]) == 0.0
    });
    client
}

#[test]
fn what_waits_is_sent_in_order_of_arrival() {
    let mut redis = RedisServer::start();
    let weir = weir(&redis, ONE);
    let mut clients: Vec<RawClient> = (0..5).map(|_| known(&weir)).collect();
    redis.stop();
    send_and_wait(
        &weir,
        &mut clients[0],
        &["RPUSH", "l", "0"],
        "weir_commands_in_flight",
    );
    for (number, client) in clients.iter_mut().enumerate().skip(1) {
        let value = number.to_string();
        send_and_wait(
            &weir,
            client,
            &["RPUSH", "l", &value],
            "weir_commands_waiting",
        );
    }
    assert_eq!(weir.metric("weir_commands_in_flight", &[]), 1.0);
    redis.cont();
    for (number, client) in clients.iter_mut().enumerate() {
        client.expect(format!(":{}\r\n", number + 1));
    }
    let list = redis.command(&["LRANGE", "l", "0", "-1"]);
    assert_eq!(
        list,
        b"*5\r\n$1\r\n0\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n$1\r\n4\r\n"
    );
    wait_until("nobody waits", || {
        weir.metric("weir_commands_waiting", &[]) == 0.0
    });
}

#[test]
fn a_pipeline_stays_in_order_when_a_part_of_it_waits() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "in_flight = 3\ntarget = \"0s\"");
    let mut client = weir.client();
    let mut request = Vec::new();
    let mut replies = String::new();
    for number in 1..=500 {
        request.extend(encode(&["INCR", "n"]));
        request.extend(encode(&["ECHO", &format!("{number:03}")]));
        replies += &format!(":{number}\r\n$3\r\n{number:03}\r\n");
    }
    client.send(request);
    client.expect(replies);
}

#[test]
fn transactions_go_in_one_piece_whether_they_wait_or_not() {
    let redis = RedisServer::start();
    let weir = weir_with(
        &redis,
        "in_flight = 2\ntarget = \"0s\"",
        "backend.max_leases = 0",
    );
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let mut socket = weir.client();
            std::thread::spawn(move || {
                for round in 0..40 {
                    // Every other one comes command by command and is kept until EXEC.
                    let value = format!("{client}:{round}");
                    let block = [
                        encode(&["MULTI"]),
                        encode(&["SET", "k", &value]),
                        encode(&["GET", "k"]),
                        encode(&["INCR", "blocks"]),
                        encode(&["EXEC"]),
                    ];
                    let expected = format!("*3\r\n+OK\r\n${}\r\n{value}\r\n:", value.len());
                    if round % 2 == 0 {
                        socket.send(block.concat());
                        socket.expect("+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n");
                    } else {
                        for (command, reply) in
                            block[..4].iter().zip(["OK", "QUEUED", "QUEUED", "QUEUED"])
                        {
                            socket.send(command);
                            socket.expect(format!("+{reply}\r\n"));
                        }
                        socket.send(&block[4]);
                    }
                    let reply = socket.read_reply();
                    assert!(
                        reply.starts_with(expected.as_bytes()),
                        "{}",
                        reply.escape_ascii()
                    );
                }
            })
        })
        .collect();
    clients
        .into_iter()
        .for_each(|client| client.join().expect("no panic"));
    assert_eq!(redis.command(&["GET", "blocks"]), b"$3\r\n320\r\n");
}

#[test]
fn a_deadline_that_passes_in_line_means_that_the_command_has_not_run() {
    let mut redis = RedisServer::start();
    let weir = weir_with(&redis, ONE, "timeouts.request = \"3s\"");
    let (mut first, mut second) = (known(&weir), known(&weir));
    redis.stop();
    send_and_wait(
        &weir,
        &mut first,
        &["INCR", "sent"],
        "weir_commands_in_flight",
    );
    send_and_wait(
        &weir,
        &mut second,
        &["INCR", "waits"],
        "weir_commands_waiting",
    );
    first.expect("-ERR weir: upstream timeout, command outcome unknown\r\n");
    second.expect(
        "-BUSY weir: timeout before the command was sent (timeouts.request), command not executed\r\n",
    );
    redis.cont();
    wait_until("the late command has run", || {
        redis.command(&["GET", "sent"]) == b"$1\r\n1\r\n"
    });
    assert_eq!(redis.command(&["EXISTS", "waits"]), b":0\r\n");
    // The connection and its clients go on.
    wait_until("work flows", || {
        second.command(&["INCR", "after"]).starts_with(b":")
    });
}

#[test]
fn what_waits_survives_the_loss_of_the_connection() {
    let mut redis = RedisServer::start();
    let weir = weir(&redis, ONE);
    let mut clients: Vec<RawClient> = (0..4).map(|_| known(&weir)).collect();
    // Redis knows this client, and reads what it sends before what comes after it.
    let mut killer = redis.client();
    killer.expect_command(&["PING"], "+PONG\r\n");
    redis.stop();
    killer.send(encode(&[
        "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes",
    ]));
    send_and_wait(
        &weir,
        &mut clients[0],
        &["GET", "k"],
        "weir_commands_in_flight",
    );
    for client in &mut clients[1..] {
        send_and_wait(&weir, client, &["INCR", "n"], "weir_commands_waiting");
    }
    redis.cont();
    // A read is sent again; what waited has not been sent before.
    clients[0].expect("$-1\r\n");
    for (number, client) in clients[1..].iter_mut().enumerate() {
        client.expect(format!(":{}\r\n", number + 1));
    }
}

#[test]
fn a_client_that_leaves_the_line_holds_nobody_up() {
    let mut redis = RedisServer::start();
    let weir = weir(&redis, "in_flight = 1\nqueue_max = 2\ntarget = \"0s\"");
    let (mut first, mut second, mut third) = (known(&weir), known(&weir), known(&weir));
    redis.stop();
    send_and_wait(&weir, &mut first, &["GET", "k"], "weir_commands_in_flight");
    send_and_wait(&weir, &mut second, &["INCR", "n"], "weir_commands_waiting");
    second.reset();
    send_and_wait(&weir, &mut third, &["INCR", "n"], "weir_commands_waiting");
    let mut fourth = known_line(&weir);
    fourth.expect(TOO_MANY);
    redis.cont();
    first.expect("$-1\r\n");
    // As in Redis, what a client had sent before it left is run.
    third.expect(":2\r\n");
}

/// A client that asks for something while the line is full.
fn known_line(weir: &WeirProcess) -> RawClient {
    let mut client = weir.client();
    client.send(encode(&["GET", "k"]));
    client
}

/// Nobody but clients that have gone waits, and the node cannot be reached: what there was of
/// lines and gates goes with them.
#[test]
fn a_line_of_clients_that_have_gone_ends_with_its_node() {
    let mut redis = RedisServer::start();
    let others = "backend.reconnect_min = \"1s\"\nbackend.reconnect_max = \"1s\"";
    let mut weir = weir_with(&redis, ONE, others);
    for _ in 0..3 {
        let (mut first, mut second) = (known(&weir), known(&weir));
        // Another database: the node is found to be gone over another connection.
        let mut third = known(&weir);
        third.expect_command(&["SELECT", "1"], "+OK\r\n");
        wait_until("nothing is under way", || {
            weir.metric("weir_commands_in_flight", &[]) == 0.0
        });
        redis.stop();
        send_and_wait(&weir, &mut first, &["GET", "k"], "weir_commands_in_flight");
        send_and_wait(&weir, &mut second, &["INCR", "n"], "weir_commands_waiting");
        second.reset();
        first.reset();
        third.send(encode(&["SET", "k", "v"]));
        redis.kill();
        wait_until("it is refused", || {
            third.command(&["SET", "k", "v"]).starts_with(b"-")
        });
        third.reset();
        wait_until("nobody waits", || {
            weir.metric("weir_commands_waiting", &[]) == 0.0
        });
        redis.restart();
        let mut client = weir.client();
        wait_until("it is served again", || {
            client.command(&["SET", "k", "v"]) == b"+OK\r\n"
        });
    }
    assert!(weir.is_running());
}

#[test]
fn a_select_that_is_refused_in_line_leaves_its_client_where_it_was() {
    let mut redis = RedisServer::start();
    let others = "timeouts.request = \"300ms\"\ntimeouts.stall = \"300ms\"";
    let weir = weir_with(&redis, "in_flight = 1", others);
    // Keeps the connection to the other database there.
    let mut other = weir.client();
    other.expect_command(&["SELECT", "1"], "+OK\r\n");
    let (mut first, mut second) = (known(&weir), known(&weir));
    redis.stop();
    send_and_wait(
        &weir,
        &mut first,
        &["INCR", "sent"],
        "weir_commands_in_flight",
    );
    send_and_wait(
        &weir,
        &mut second,
        &["SELECT", "1"],
        "weir_commands_waiting",
    );
    second.expect(
        "-BUSY weir: timeout before the command was sent (timeouts.request), command not executed\r\n",
    );
    redis.cont();
    wait_until("work flows", || {
        second.command(&["SET", "where", "0"]) == b"+OK\r\n"
    });
    assert_eq!(redis.command(&["GET", "where"]), b"$1\r\n0\r\n");
}

#[test]
fn a_count_of_receivers_that_is_refused_behind_others_leaves_the_next_one_right() {
    let mut redis = RedisServer::start();
    let others = "timeouts.request = \"300ms\"\ntimeouts.stall = \"300ms\"";
    let weir = weir_with(&redis, "in_flight = 1", others);
    let mut subscribers: Vec<RawClient> = (0..6).map(|_| weir.client()).collect();
    for (number, subscriber) in subscribers.iter_mut().enumerate() {
        // Two of one, four of the other.
        let channel = if number < 2 { "x" } else { "y" };
        subscriber.send(encode(&["SUBSCRIBE", channel]));
        subscriber.read_reply();
    }
    let (mut first, mut second) = (known(&weir), known(&weir));
    redis.stop();
    send_and_wait(
        &weir,
        &mut first,
        &["INCR", "sent"],
        "weir_commands_in_flight",
    );
    // One that may take long, and behind it one that waits here until it is too late.
    second.send([encode(&["KEYS", "*"]), encode(&["PUBLISH", "x", "late"])].concat());
    first.expect("-ERR weir: upstream timeout, command outcome unknown\r\n");
    wait_until("what waits is refused", || {
        weir.metric("weir_errors_total", &["cause=\"queue_timeout\""]) > 0.0
    });
    redis.cont();
    second.read_reply();
    second.expect(
        "-BUSY weir: timeout before the command was sent (timeouts.request), command not executed\r\n",
    );
    second.expect_command(&["PUBLISH", "y", "message"], ":4\r\n");
    second.expect_command(&["PUBLISH", "x", "message"], ":2\r\n");
}
