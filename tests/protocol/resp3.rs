//! RESP3: every type of reply, pushes and attributes, and the way there and back.

use super::compare::Pair;
use super::support::{RawClient, RedisServer, encode};

/// In both protocols: all commands in one write, and one by one.
fn same_in_resp3(pair: &Pair, commands: &[&[&str]]) {
    for before in [&[][..], &[&["HELLO", "3"][..]]] {
        let commands: Vec<&[&str]> = before.iter().chain(commands).copied().collect();
        pair.same_commands(&commands);
    }
}

fn same_one_by_one(pair: &Pair, commands: &[&[&str]]) {
    for version in ["2", "3"] {
        let mut direct = pair.redis.client();
        let mut through = pair.weir.client();
        direct.command(&["HELLO", version]);
        through.command(&["HELLO", version]);
        for command in commands {
            let expected = direct.command(command).escape_ascii().to_string();
            let got = through.command(command).escape_ascii().to_string();
            assert_eq!(got, expected, "Weir (left) and Redis (right): {command:?}");
        }
    }
}

/// Both servers let anybody use `DEBUG`, as Redis before version 7 always does.
fn pair() -> Pair {
    let server = RedisServer::start();
    if server.version() < (7, 0) && !server.is_valkey() {
        return Pair::start();
    }
    Pair::with(&["--enable-debug-command", "yes"], "")
}

#[test]
fn every_type_of_reply_is_passed_on_in_both_protocols() {
    let pair = pair();
    for kind in [
        "string", "integer", "double", "null", "array", "set", "map", "attrib", "push", "verbatim",
        "true", "false", "bignum", "nosuch",
    ] {
        same_in_resp3(&pair, &[&["DEBUG", "PROTOCOL", kind], &["PING"]]);
        same_in_resp3(
            &pair,
            &[
                &["GET", "a"],
                &["DEBUG", "PROTOCOL", kind],
                &["DEBUG", "PROTOCOL", kind],
                &["ECHO", "behind"],
            ],
        );
    }
    for kind in [
        "string", "double", "null", "set", "map", "attrib", "verbatim", "bignum",
    ] {
        same_in_resp3(
            &pair,
            &[
                &["MULTI"],
                &["DEBUG", "PROTOCOL", kind],
                &["PING"],
                &["EXEC"],
                &["PING"],
            ],
        );
    }
}

#[test]
fn commands_whose_replies_differ_between_the_protocols() {
    let pair = pair();
    same_one_by_one(
        &pair,
        &[
            &["FLUSHALL"],
            &["HSET", "h", "f", "v", "g", "w"],
            &["HGETALL", "h"],
            &["HRANDFIELD", "h", "2", "WITHVALUES"],
            &["HGETALL", "nothing"],
            &["SADD", "s", "one"],
            &["SMEMBERS", "s"],
            &["SPOP", "s", "3"],
            &["ZADD", "z", "1.5", "a", "2", "b", "inf", "c"],
            &["ZRANGE", "z", "0", "-1", "WITHSCORES"],
            &["ZSCORE", "z", "a"],
            &["ZSCORE", "z", "nothing"],
            &["ZMSCORE", "z", "a", "nothing"],
            &["ZINCRBY", "z", "1", "a"],
            &["ZADD", "z", "INCR", "NX", "1", "a"],
            &["ZPOPMIN", "z"],
            &["ZPOPMAX", "z", "2"],
            &["ZRANDMEMBER", "z", "2", "WITHSCORES"],
            &["GET", "nothing"],
            &["MGET", "nothing", "h"],
            &["LPOP", "nothing"],
            &["LPOP", "nothing", "2"],
            &["BLPOP", "nothing", "0.01"],
            &["BLMOVE", "nothing", "x", "LEFT", "LEFT", "0.01"],
            &["XADD", "x", "1-1", "f", "v"],
            &["XRANGE", "x", "-", "+"],
            &["XREAD", "COUNT", "1", "STREAMS", "x", "0"],
            &["XREAD", "STREAMS", "nothing", "0"],
            &["XINFO", "STREAM", "x"],
            &["GEOADD", "g", "13.361389", "38.115556", "p"],
            &["GEOPOS", "g", "p", "nothing"],
            &["GEODIST", "g", "p", "nothing"],
            &[
                "GEOSEARCH",
                "g",
                "FROMMEMBER",
                "p",
                "BYRADIUS",
                "1",
                "m",
                "WITHCOORD",
            ],
            &["INCRBYFLOAT", "f", "1.5"],
            &["CONFIG", "GET", "maxmemory"],
            &["COMMAND", "INFO", "get"],
            &["COMMAND", "DOCS", "get"],
            &["OBJECT", "FREQ", "nothing"],
            &["SCRIPT", "EXISTS", "nothing"],
            &["PUBSUB", "NUMSUB", "a", "b"],
            &["MEMORY", "DOCTOR"],
            &["LATENCY", "DOCTOR"],
            &["ACL", "GETUSER", "default"],
            &["CLIENT", "TRACKINGINFO"],
            &["CLIENT", "GETNAME"],
            &[
                "EVAL",
                "redis.setresp(3) return redis.call('HGETALL', 'h')",
                "0",
            ],
            &["EVAL", "return {double = 3.5}", "0"],
            &["EVAL", "return {map = {a = 1}}", "0"],
            &["EVAL", "return {set = {a = true}}", "0"],
            &["EVAL", "return {big_number = '12345678901234567890'}", "0"],
            &[
                "EVAL",
                "return {verbatim_string = {format = 'txt', string = 'x'}}",
                "0",
            ],
            &[
                "EVAL",
                "return {true, false, {1, {2}}, 'x', {err = 'MY error'}}",
                "0",
            ],
            &["MULTI"],
            &["HGETALL", "h"],
            &["ZSCORE", "z", "a"],
            &["GET", "nothing"],
            &["EXEC"],
            &["WATCH", "h"],
            &["HSET", "h", "f", "2"],
            &["MULTI"],
            &["PING"],
            &["EXEC"],
        ],
    );
}

#[test]
fn the_protocol_may_change_within_a_pipeline() {
    let pair = pair();
    pair.same_commands(&[
        &["GET", "nothing"],
        &["HELLO", "3"],
        &["GET", "nothing"],
        &["HELLO"],
        &["GET", "nothing"],
        &["HELLO", "2"],
        &["GET", "nothing"],
        &["HELLO", "3", "SETNAME", "me"],
        &["CLIENT", "GETNAME"],
        &["HELLO", "4"],
        &["GET", "nothing"],
        &["HELLO", "2", "nonsense"],
        &["GET", "nothing"],
        &["RESET"],
        &["GET", "nothing"],
    ]);
    for words in [
        &["HELLO", "x"][..],
        &["HELLO", "1"],
        &["HELLO", "4"],
        &["HELLO", "03"],
        &["HELLO", "-3"],
        &["HELLO", "3", "AUTH"],
        &["HELLO", "3", "AUTH", "a"],
        &["HELLO", "3", "AUTH", "a", "b"],
        &["HELLO", "3", "AUTH", "default", "b"],
        &["HELLO", "3", "SETNAME"],
        &["HELLO", "3", "SETNAME", "a b"],
        &["HELLO", "3", "SETNAME", "a\nb"],
        &["HELLO", "3", "SETNAME", ""],
        &["HELLO", "2", "SETNAME", "x", "SETNAME", "y"],
        &["HELLO", "3", "SETNAME", "x", "AUTH", "a", "b"],
        &["hello", "3", "setname", "x"],
    ] {
        pair.same_commands(&[words, &["GET", "nothing"], &["CLIENT", "GETNAME"]]);
    }
}

/// Redis up to 7.0 sends a push before the reply of the command that caused it, later ones
/// behind it; Weir's client sees what the server does.
#[test]
fn invalidations_come_where_redis_sends_them() {
    let pair = pair();
    pair.same_commands(&[
        &["HELLO", "3"],
        &["CLIENT", "TRACKING", "ON"],
        &["SET", "a", "1"],
        &["GET", "a"],
        &["SET", "a", "2"],
        &["GET", "a"],
        &["MULTI"],
        &["SET", "a", "3"],
        &["SET", "b", "3"],
        &["EXEC"],
        &["GET", "a"],
        &["FLUSHALL"],
        &["GET", "a"],
        &["CLIENT", "TRACKINGINFO"],
        &["CLIENT", "TRACKING", "OFF"],
        &["SET", "a", "2"],
        &["GET", "a"],
    ]);
}

#[test]
fn what_another_client_changes_is_pushed() {
    let pair = pair();
    for address in [pair.redis.address(), pair.weir.address()] {
        let mut reader = RawClient::connect(address);
        let mut writer = RawClient::connect(address);
        reader.command(&["HELLO", "3"]);
        reader.expect_command(&["CLIENT", "TRACKING", "ON"], "+OK\r\n");
        writer.expect_command(&["SET", "a", "1"], "+OK\r\n");
        reader.expect_command(&["GET", "a"], "$1\r\n1\r\n");
        writer.expect_command(&["SET", "a", "2"], "+OK\r\n");
        reader.expect(">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n");
        reader.send(encode(&["PING"]));
        reader.expect("+PONG\r\n");
    }
}

#[test]
fn a_subscriber_s_messages_are_pushes() {
    let pair = pair();
    for address in [pair.redis.address(), pair.weir.address()] {
        let mut subscriber = RawClient::connect(address);
        let mut publisher = RawClient::connect(address);
        subscriber.command(&["HELLO", "3"]);
        subscriber.send(encode(&["SUBSCRIBE", "c"]));
        subscriber.expect(">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
        publisher.expect_command(&["PUBLISH", "c", "m"], ":1\r\n");
        subscriber.expect(">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n");
        subscriber.expect_command(&["INCR", "n"], ":1\r\n");
        subscriber.expect_command(&["DEL", "n"], ":1\r\n");
    }
}
