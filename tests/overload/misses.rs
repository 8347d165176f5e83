//! More work than Redis can do on a route that is only a cache: what reads is answered as by
//! a cache that misses wherever it would be refused, in order with all else.

use super::support::{RawClient, RedisServer, WeirProcess, encode, wait_until};
use super::{BEHIND, TOO_MANY, weir_with};

fn cache(redis: &RedisServer, overload: &str, writes: &str, others: &str) -> WeirProcess {
    let more = format!("health.fail_open = true\nhealth.fail_open_writes = \"{writes}\"\n{others}");
    let weir = weir_with(redis, overload, &more);
    weir.client().expect_command(&["SET", "k", "v"], "+OK\r\n");
    weir
}

/// A client whose connection is there, and whose first command is not counted any more.
fn known(weir: &WeirProcess) -> RawClient {
    let mut client = weir.client();
    client.expect_command(&["GET", "k"], "$1\r\nv\r\n");
    wait_until("nothing is under way", || {
        weir.metric("weir_commands_in_flight", &[]) == 0.0
    });
    client
}

fn send(client: &mut RawClient, commands: &[&str]) {
    let words = |command: &&str| encode(&command.split(' ').collect::<Vec<_>>());
    let request: Vec<Vec<u8>> = commands.iter().map(words).collect();
    client.send(request.concat());
}

fn wait_for(weir: &WeirProcess, metric: &str, count: f64) {
    wait_until(metric, || weir.metric(metric, &[]) >= count);
}

/// Nobody is refused because it takes too long.
const FULL_SOON: &str = "in_flight = 1\nqueue_max = 1\ntarget = \"0s\"";

#[test]
fn what_reads_behind_a_refused_command_is_a_miss() {
    for (writes, set) in [("error", BEHIND), ("ok", "+OK\r\n")] {
        let mut redis = RedisServer::start();
        let weir = cache(&redis, FULL_SOON, writes, "");
        let [mut first, mut second, mut late] = [(); 3].map(|()| known(&weir));
        redis.stop();
        send(&mut first, &["INCR n"]);
        wait_for(&weir, "weir_commands_in_flight", 1.0);
        send(&mut second, &["INCR n"]);
        wait_for(&weir, "weir_commands_waiting", 1.0);
        send(
            &mut late,
            &[
                "EXISTS k",
                "INCR n",
                "GET k",
                "SET k w",
                "PUBLISH c m",
                "MULTI",
                "GET k",
                "EXEC",
                "MGET a b",
            ],
        );
        let block = [BEHIND; 3].concat();
        late.expect([":0\r\n", TOO_MANY, "$-1\r\n", set, BEHIND, &block].concat());
        late.expect("*2\r\n$-1\r\n$-1\r\n");
        redis.cont();
        first.expect(":1\r\n");
        second.expect(":2\r\n");
        late.expect_command(&["GET", "k"], "$1\r\nv\r\n");
    }
}

#[test]
fn what_reads_behind_replies_that_are_due_waits_for_them_and_is_not_refused() {
    let mut redis = RedisServer::start();
    let weir = cache(&redis, FULL_SOON, "error", "");
    let mut client = known(&weir);
    redis.stop();
    // One is sent, one waits in line, the third finds the line full.
    send(&mut client, &["INCR n", "INCR n", "GET k", "INCR n"]);
    wait_for(&weir, "weir_commands_waiting", 1.0);
    client.expect_nothing_pending();
    redis.cont();
    client.expect(":1\r\n:2\r\n$1\r\nv\r\n:3\r\n");
    assert_eq!(weir.metric("weir_shed_total", &[]), 0.0);
}

const TOO_LATE: &str = "-BUSY weir: timeout before the command was sent (timeouts.request), \
                        command not executed\r\n";

#[test]
fn what_is_given_up_from_the_line_is_a_miss_in_its_turn() {
    let mut redis = RedisServer::start();
    let deadlines = "timeouts.request = \"1s\"\ntimeouts.slow_request = \"60s\"";
    let weir = cache(&redis, "in_flight = 1\ntarget = \"0s\"", "error", deadlines);
    let (mut busy, mut other) = (known(&weir), known(&weir));
    redis.stop();
    // What may take long is under way for longer than the others may wait.
    send(
        &mut busy,
        &["KEYS *", "ECHO sent", "GET k", "SET k w", "EXISTS k"],
    );
    wait_for(&weir, "weir_commands_waiting", 3.0);
    send(&mut other, &["MGET k k", "INCR n", "STRLEN k"]);
    // Nothing of its own is before them.
    other.expect(["*2\r\n$-1\r\n$-1\r\n", TOO_LATE, ":0\r\n"].concat());
    wait_until("all have left the line", || {
        weir.metric("weir_commands_waiting", &[]) == 0.0
    });
    busy.expect_nothing_pending();
    redis.cont();
    busy.expect("*1\r\n$1\r\nk\r\n$4\r\nsent\r\n");
    busy.expect(["$-1\r\n", TOO_LATE, ":0\r\n"].concat());
    let made_up = weir.metric("weir_fail_open_total", &["kind=\"read\""]);
    assert_eq!(made_up, 4.0);
    busy.expect_command(&["GET", "k"], "$1\r\nv\r\n");
}

#[test]
fn what_was_to_be_told_in_its_turn_is_told_when_the_connection_is_lost() {
    let mut redis = RedisServer::start();
    let deadlines = "timeouts.request = \"1s\"\ntimeouts.slow_request = \"60s\"";
    let weir = cache(&redis, "in_flight = 1\ntarget = \"0s\"", "error", deadlines);
    let mut busy = known(&weir);
    redis.stop();
    send(&mut busy, &["KEYS *", "INCR n", "GET k", "EXISTS k"]);
    wait_until("two have left the line", || {
        weir.metric("weir_fail_open_total", &["kind=\"read\""]) == 2.0
    });
    redis.kill();
    // A read is asked again, once.
    let unknown = "-ERR weir: upstream connection lost, command outcome unknown\r\n";
    busy.expect([unknown, unknown, "$-1\r\n:0\r\n"].concat());
}

#[test]
fn what_is_lost_with_its_lane_is_a_miss_in_its_turn() {
    for (writes, answer) in [("error", "-MASTERDOWN weir: no connection"), ("ok", "+OK")] {
        let mut redis = RedisServer::start();
        let weir = cache(&redis, "in_flight = 1\ntarget = \"0s\"", writes, "");
        let (mut busy, mut other) = (known(&weir), known(&weir));
        redis.stop();
        send(&mut busy, &["INCR n", "GET k", "SET k w", "EXISTS k"]);
        wait_for(&weir, "weir_commands_waiting", 3.0);
        send(&mut other, &["MGET k k", "SET k w", "STRLEN k"]);
        wait_for(&weir, "weir_commands_waiting", 6.0);
        redis.kill();
        busy.expect("-ERR weir: upstream connection lost, command outcome unknown\r\n$-1\r\n");
        let reply = busy.read_reply();
        assert!(
            reply.starts_with(answer.as_bytes()),
            "{}",
            reply.escape_ascii()
        );
        busy.expect(":0\r\n");
        other.expect("*2\r\n$-1\r\n$-1\r\n");
        let reply = other.read_reply();
        assert!(
            reply.starts_with(answer.as_bytes()),
            "{}",
            reply.escape_ascii()
        );
        other.expect(":0\r\n");
    }
}
