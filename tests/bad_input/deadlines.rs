//! What may take how long.

use super::support::{RawClient, RedisServer, WeirProcess, encode, wait_until};
use super::{closed, weir};

const TIMED_OUT: &str = "-ERR weir: upstream timeout, command outcome unknown\r\n";

/// These settings of a route, where nobody takes Redis for sick because it stands still for a while.
fn patient(settings: &str) -> String {
    format!("{settings}\nhealth.silence_max = \"60s\"")
}

/// The connections that clients share, as Redis numbers them.
fn shared(redis: &RedisServer) -> Vec<String> {
    let list = String::from_utf8_lossy(&redis.command(&["CLIENT", "LIST"])).into_owned();
    list.lines()
        .filter(|line| line.contains(":shared"))
        .filter_map(|line| line.split(' ').find(|word| word.starts_with("id=")))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_deadline_is_one_caller_s_and_the_connection_stays() {
    let mut redis = RedisServer::start();
    let limits = "timeouts.request = \"2s\"\ntimeouts.slow_request = \"60s\"";
    let weir = weir(&redis, "workers = 1", &patient(limits));
    let mut early = weir.client();
    let mut patient = weir.client();
    let mut late = weir.client();
    for client in [&mut early, &mut patient, &mut late] {
        client.expect_command(&["SET", "k", "v"], "+OK\r\n");
    }
    let before = shared(&redis);
    assert_eq!(before.len(), 1);
    redis.stop();
    early.expect_command(&["INCR", "early"], TIMED_OUT);
    // A long command waits on, behind the one that was given up.
    patient.send(encode(&["EVAL", "return 'patient'", "0"]));
    late.send(encode(&["GET", "k"]).repeat(3));
    late.expect(TIMED_OUT.repeat(3));
    redis.cont();
    patient.expect("$7\r\npatient\r\n");
    // The late replies are swallowed: everybody gets what they ask for now.
    for (number, client) in [early, patient, late].iter_mut().enumerate() {
        let word = number.to_string();
        client.expect_command(&["ECHO", &word], format!("$1\r\n{word}\r\n"));
    }
    assert_eq!(shared(&redis), before, "the connection is the same");
    wait_until("the deadlines are counted", || {
        weir.metric("weir_errors_total", &["cause=\"request_timeout\""]) >= 4.0
    });
}

#[test]
fn a_long_reply_that_is_under_way_is_not_mixed_up_with_an_error() {
    let mut redis = RedisServer::start();
    // Long enough for the reply to begin on a machine that is busy with other tests.
    let weir = weir(&redis, "workers = 1", "timeouts.request = \"6s\"");
    let mut client = weir.client();
    let value = "v".repeat(60_000_000);
    client.expect_command(&["SET", "large", &value], "+OK\r\n");
    client.send(encode(&["GET", "large"]));
    client.expect("$60000000\r\n");
    // The rest does not come in time, and what has come can not be taken back.
    redis.stop();
    let mut heard = Vec::new();
    while let Ok(some) = client.read_some()
        && !some.is_empty()
    {
        heard.extend(some);
    }
    assert!(value.as_bytes().starts_with(&heard) || heard.starts_with(value.as_bytes()));
    redis.cont();
    let mut other = weir.client();
    wait_until("the connection is of use again", || {
        other.command(&["ECHO", "x"]) == b"$1\r\nx\r\n"
    });
}

#[test]
fn a_command_that_was_not_sent_in_time_says_so() {
    let mut redis = RedisServer::start();
    let weir = weir(&redis, "workers = 1", &patient("timeouts.request = \"2s\""));
    weir.client().expect_command(&["PING"], "+PONG\r\n");
    redis.stop();
    // Another database needs a connection of its own, and its handshake is not answered.
    let mut client = weir.client();
    let reply = client.command(&["SELECT", "5"]);
    let reply = String::from_utf8_lossy(&reply);
    assert!(reply.ends_with(", command not executed\r\n"), "{reply}");
    redis.cont();
    client.expect_command(&["SET", "where", "0"], "+OK\r\n");
    redis
        .client()
        .expect_command(&["GET", "where"], "$1\r\n0\r\n");
}

#[test]
fn who_is_idle_is_closed_and_who_waits_is_not() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "", "clients.idle_timeout = \"2s\"");
    let mut idle = weir.client();
    idle.expect_command(&["PING"], "+PONG\r\n");
    let mut silent = weir.client();
    let mut named = weir.client();
    named.expect_command(&["CLIENT", "SETNAME", "x"], "+OK\r\n");
    let mut selected = weir.client();
    selected.expect_command(&["SELECT", "3"], "+OK\r\n");

    let mut in_multi = weir.client();
    in_multi.expect_command(&["MULTI"], "+OK\r\n");
    in_multi.expect_command(&["INCR", "n"], "+QUEUED\r\n");
    let mut watching = weir.client();
    watching.expect_command(&["WATCH", "n"], "+OK\r\n");
    let mut subscribed = weir.client();
    subscribed.send(encode(&["SUBSCRIBE", "c"]));
    subscribed.read_reply();
    let mut blocked = weir.client();
    blocked.send(encode(&["BLPOP", "queue", "0"]));
    let mut monitoring = weir.client();
    monitoring.expect_command(&["MONITOR"], "+OK\r\n");
    wait_until("it is blocked", || {
        redis.info("clients", "blocked_clients") == "1"
    });

    for client in [&mut idle, &mut silent, &mut named, &mut selected] {
        client.expect_closed();
    }
    wait_until("they are counted", || closed(&weir, "idle") >= 4.0);
    assert_eq!(closed(&weir, "idle"), 4.0);
    // All that was meant to be closed is; wait as long again for what was not.
    let mut again = weir.client();
    again.expect_closed();
    in_multi.expect_command(&["EXEC"], "*1\r\n:1\r\n");
    watching.expect_command(&["UNWATCH"], "+OK\r\n");
    weir.client()
        .expect_command(&["RPUSH", "queue", "x"], ":1\r\n");
    blocked.expect("*2\r\n$5\r\nqueue\r\n$1\r\nx\r\n");
    weir.client()
        .expect_command(&["PUBLISH", "c", "m"], ":1\r\n");
    subscribed.expect("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n");
    assert!(monitoring.read_reply().starts_with(b"+"));
    // And then they are as idle as the others.
    for client in [&mut in_multi, &mut watching, &mut blocked] {
        client.expect_closed();
    }
}

#[test]
fn a_client_that_keeps_asking_is_never_idle() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "", "clients.idle_timeout = \"2s\"");
    let mut client = weir.client();
    let mut other = weir.client();
    other.expect_command(&["PING"], "+PONG\r\n");
    while closed(&weir, "idle") == 0.0 {
        client.expect_command(&["PING"], "+PONG\r\n");
    }
    client.expect_command(&["PING"], "+PONG\r\n");
}

fn gauge_in_flight(weir: &WeirProcess) -> f64 {
    weir.metric("weir_commands_in_flight", &[])
}

#[test]
fn no_more_of_one_client_s_commands_are_under_way_than_allowed() {
    let mut redis = RedisServer::start();
    let weir = weir(&redis, "workers = 1", &patient("clients.in_flight_max = 5"));
    let mut client = weir.client();
    client.expect_command(&["SET", "n", "0"], "+OK\r\n");
    redis.stop();
    client.send(encode(&["INCR", "n"]).repeat(500));
    let mut second = weir.client();
    second.send(encode(&["INCR", "m"]).repeat(3));
    wait_until("they are under way", || gauge_in_flight(&weir) >= 8.0);
    assert_eq!(gauge_in_flight(&weir), 8.0);
    redis.cont();
    for number in 1..=500 {
        client.expect(format!(":{number}\r\n"));
    }
    second.expect(":1\r\n:2\r\n:3\r\n");
}

#[test]
fn no_more_bytes_of_one_client_s_commands_are_under_way_than_allowed() {
    let mut redis = RedisServer::start();
    let weir = weir(
        &redis,
        "workers = 1",
        &patient("clients.in_flight_bytes_max = \"100KiB\""),
    );
    let mut client = weir.client();
    client.expect_command(&["PING"], "+PONG\r\n");
    let value = "x".repeat(10 * 1024);
    let large = "x".repeat(200 * 1024);
    redis.stop();
    let sets = encode(&["SET", "k", &value]).repeat(50);
    client.send([sets, encode(&["SET", "k", &large]).repeat(2)].concat());
    let mut second = weir.client();
    second.send(encode(&["INCR", "m"]).repeat(3));
    wait_until("they are under way", || gauge_in_flight(&weir) >= 13.0);
    assert_eq!(gauge_in_flight(&weir), 13.0);
    redis.cont();
    // Those that are larger by themselves go one after the other.
    client.expect("+OK\r\n".repeat(52));
    second.expect(":1\r\n:2\r\n:3\r\n");
}

#[test]
fn commands_behind_a_deadline_are_answered_in_their_order() {
    let mut redis = RedisServer::start();
    let weir = weir(&redis, "workers = 1", &patient("timeouts.request = \"2s\""));
    let mut client: RawClient = weir.client();
    client.expect_command(&["SET", "k", "v"], "+OK\r\n");
    redis.stop();
    let mut input = encode(&["GET", "k"]);
    input.extend(encode(&["CLIENT", "GETNAME"]));
    input.extend(encode(&["INCR", "n"]));
    input.extend(b"*x\r\n");
    client.send(input);
    client.expect(TIMED_OUT);
    client.expect("$-1\r\n");
    client.expect(TIMED_OUT);
    client.expect("-ERR Protocol error: invalid multibulk length\r\n");
    client.expect_closed();
    redis.cont();
}
