//! What is refused when the line is full: at once, in its turn, together with what was sent
//! behind it, transactions whole.

use super::support::{RawClient, RedisServer, WeirProcess, encode, wait_until};
use super::{BEHIND, TOO_MANY, weir, weir_with};

/// Redis stands still with one command in flight and one in line: the line is full.
fn full(redis: &mut RedisServer, weir: &WeirProcess) -> [RawClient; 2] {
    let mut clients = [weir.client(), weir.client()];
    for client in &mut clients {
        client.expect_command(&["PING"], "+PONG\r\n");
    }
    redis.stop();
    for (client, metric) in clients
        .iter_mut()
        .zip(["weir_commands_in_flight", "weir_commands_waiting"])
    {
        client.send(encode(&["INCR", "served"]));
        wait_until(metric, || weir.metric(metric, &[]) > 0.0);
    }
    clients
}

/// Nobody is refused because it takes too long.
const LIMITS: &str = "in_flight = 1\nqueue_max = 1\ntarget = \"0s\"";

#[test]
fn a_refused_command_is_refused_with_what_was_sent_behind_it() {
    let mut redis = RedisServer::start();
    let weir = weir(&redis, LIMITS);
    let mut late = weir.client();
    late.expect_command(&["PING"], "+PONG\r\n");
    let [mut first, mut second] = full(&mut redis, &weir);
    late.send(
        [
            encode(&["SET", "refused", "1"]),
            encode(&["GET", "refused"]),
            encode(&["PUBLISH", "c", "refused"]),
            // What Weir answers by itself costs Redis nothing.
            encode(&["CLIENT", "GETNAME"]),
        ]
        .concat(),
    );
    late.expect([TOO_MANY, BEHIND, BEHIND, "$-1\r\n"].concat());
    redis.cont();
    first.expect(":1\r\n");
    second.expect(":2\r\n");
    // The next batch is judged anew.
    late.expect_command(&["EXISTS", "refused"], ":0\r\n");
    weir.wait_for_metric("weir_shed_total", &["limit=\"queue\""], 1.0);
    weir.wait_for_metric("weir_errors_total", &["cause=\"busy\""], 3.0);
    assert_eq!(
        weir.metric("weir_errors_total", &["cause=\"backend_lost\""]),
        0.0
    );
}

#[test]
fn a_refusal_waits_for_its_turn_among_its_clients_replies() {
    let mut redis = RedisServer::start();
    let weir = weir(&redis, LIMITS);
    let mut client = weir.client();
    client.expect_command(&["SET", "k", "value"], "+OK\r\n");
    redis.stop();
    // One is sent, one waits, the others find the line full.
    client.send(
        [
            encode(&["GET", "k"]),
            encode(&["ECHO", "waits"]),
            encode(&["SET", "k", "refused"]),
            encode(&["GET", "k"]),
        ]
        .concat(),
    );
    wait_until("refusals are counted", || {
        weir.metric("weir_errors_total", &["cause=\"busy\""]) >= 2.0
    });
    client.expect_nothing_pending();
    redis.cont();
    client.expect(["$5\r\nvalue\r\n$5\r\nwaits\r\n", TOO_MANY, BEHIND].concat());
    client.expect_command(&["GET", "k"], "$5\r\nvalue\r\n");
}

#[test]
fn transactions_are_refused_whole() {
    let mut redis = RedisServer::start();
    let weir = weir_with(&redis, LIMITS, "backend.max_leases = 0");
    let (mut whole, mut single) = (weir.client(), weir.client());
    whole.expect_command(&["PING"], "+PONG\r\n");
    single.expect_command(&["PING"], "+PONG\r\n");
    let [mut first, mut second] = full(&mut redis, &weir);
    let block = [
        encode(&["MULTI"]),
        encode(&["SET", "refused", "1"]),
        encode(&["EXEC"]),
    ];
    whole.send([block.concat(), encode(&["SET", "refused", "2"])].concat());
    whole.expect([TOO_MANY, TOO_MANY, TOO_MANY, BEHIND].concat());
    // One that comes command by command is kept, and refused at its end.
    single.expect_command(&["MULTI"], "+OK\r\n");
    single.expect_command(&["SET", "refused", "3"], "+QUEUED\r\n");
    single.expect_command(
        &["EXEC"],
        format!(
            "-EXECABORT Transaction discarded because of: {}",
            &TOO_MANY[1..]
        ),
    );
    redis.cont();
    first.expect(":1\r\n");
    second.expect(":2\r\n");
    single.expect_command(&["EXISTS", "refused"], ":0\r\n");
    whole.expect_command(&["EXISTS", "refused"], ":0\r\n");
}

#[test]
fn who_wants_no_replies_gets_no_refusals() {
    let mut redis = RedisServer::start();
    let weir = weir(&redis, LIMITS);
    let mut client = weir.client();
    client.send([encode(&["CLIENT", "REPLY", "OFF"]), encode(&["PING"])].concat());
    wait_until("both were taken", || {
        weir.metric("weir_commands_total", &[]) >= 2.0
    });
    let [mut first, mut second] = full(&mut redis, &weir);
    client.send([encode(&["INCR", "refused"]), encode(&["INCR", "refused"])].concat());
    wait_until("they are refused", || {
        weir.metric("weir_errors_total", &["cause=\"busy\""]) >= 2.0
    });
    redis.cont();
    first.expect(":1\r\n");
    second.expect(":2\r\n");
    client.send(encode(&["CLIENT", "REPLY", "ON"]));
    client.expect("+OK\r\n");
    client.expect_command(&["EXISTS", "refused"], ":0\r\n");
}

#[test]
fn the_limit_on_their_number_is_told_by_its_name() {
    let mut redis = RedisServer::start();
    let mut weir = weir(&redis, LIMITS);
    let mut third = weir.client();
    third.expect_command(&["PING"], "+PONG\r\n");
    let [mut first, mut second] = full(&mut redis, &weir);
    let setting = "setting=\"overload.queue_max\"";
    assert_eq!(weir.metric("weir_setting_reached", &[setting]), 0.0);
    third.expect_command(&["INCR", "refused"], TOO_MANY);
    third.expect_command(&["INCR", "refused"], TOO_MANY);
    weir.wait_for_log("overload.queue_max is reached: commands are refused");
    weir.wait_for_metric("weir_shed_total", &["limit=\"queue\""], 2.0);
    assert_eq!(weir.metric("weir_commands_waiting_max", &[]), 1.0);
    redis.cont();
    first.expect(":1\r\n");
    second.expect(":2\r\n");
    weir.wait_for_log("overload.queue_max is no longer reached");
    weir.wait_for_metric("weir_setting_reached", &[setting], 0.0);
    let log = weir.log();
    assert_eq!(log.matches("overload.queue_max is reached").count(), 1);
    assert!(!log.contains("(overload.target)"), "{log}");
    let (_, events) = weir.get("/events.json");
    for kind in ["limit_reached", "limit_cleared"] {
        assert!(events.contains(kind), "{kind} in {events}");
    }
    assert!(events.contains("overload.queue_max") && !events.contains("overload.target"));
}
