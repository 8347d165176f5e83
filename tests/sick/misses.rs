//! A route that fails open: a cache whose Redis is away answers as one that misses.

use super::support::{RawClient, RedisServer, WeirProcess, encode, wait_until};
use super::{error, weir};

/// What a cache is asked, each for what is not there.
const READS: &[&str] = &[
    "GET k",
    "GETEX k EX 10",
    "MGET a b c",
    "STRLEN k",
    "GETRANGE k 0 -1",
    "SUBSTR k 0 -1",
    "GETBIT k 7",
    "BITCOUNT k",
    "BITPOS k 1",
    "BITPOS k 0",
    "EXISTS k",
    "EXISTS a b",
    "TOUCH a b",
    "TTL k",
    "PTTL k",
    "EXPIRETIME k",
    "PEXPIRETIME k",
    "TYPE k",
    "DUMP k",
    "OBJECT ENCODING k",
    "OBJECT IDLETIME k",
    "OBJECT REFCOUNT k",
    "SORT_RO k",
    "HGET k f",
    "HMGET k a b",
    "HGETALL k",
    "HKEYS k",
    "HVALS k",
    "HLEN k",
    "HEXISTS k f",
    "HSTRLEN k f",
    "HRANDFIELD k",
    "HRANDFIELD k 2",
    "HRANDFIELD k 2 WITHVALUES",
    "HSCAN k 0",
    "LLEN k",
    "LINDEX k 0",
    "LRANGE k 0 -1",
    "LPOS k v",
    "LPOS k v COUNT 2",
    "LPOS k v RANK 1",
    "SCARD k",
    "SISMEMBER k m",
    "SMISMEMBER k a b",
    "SMEMBERS k",
    "SRANDMEMBER k",
    "SRANDMEMBER k 2",
    "SSCAN k 0",
    "SINTER a b",
    "SUNION a b",
    "SDIFF a b",
    "SINTERCARD 2 a b",
    "ZCARD k",
    "ZCOUNT k 0 1",
    "ZLEXCOUNT k - +",
    "ZSCORE k m",
    "ZMSCORE k a b",
    "ZRANK k m",
    "ZREVRANK k m",
    "ZRANGE k 0 -1",
    "ZRANGE k 0 -1 WITHSCORES",
    "ZREVRANGE k 0 -1",
    "ZRANGEBYSCORE k 0 1",
    "ZREVRANGEBYSCORE k 1 0",
    "ZRANGEBYLEX k - +",
    "ZREVRANGEBYLEX k + -",
    "ZRANDMEMBER k",
    "ZRANDMEMBER k 2",
    "ZSCAN k 0",
    "ZDIFF 2 a b",
    "ZINTER 2 a b",
    "ZUNION 2 a b WITHSCORES",
    "ZINTERCARD 2 a b",
    "GEODIST k a b",
    "GEOHASH k a b",
    "GEOPOS k a b",
    "GEOSEARCH k FROMLONLAT 1 2 BYRADIUS 3 m",
    "GEORADIUS_RO k 1 2 3 m",
    "GEORADIUSBYMEMBER_RO k a 3 m",
    "PFCOUNT k",
    "XLEN k",
    "XRANGE k - +",
    "XREVRANGE k + -",
];

/// What only Redis can answer, with whatever keys there are.
const DECISIONS: &[&str] = &[
    "SET k v NX",
    "SET k v XX GET",
    "SETNX k v",
    "INCR k",
    "GETDEL k",
    "HINCRBY k f 1",
    "SADD k m",
    "LPUSH k v",
    "EVAL return(1) 0",
    "KEYS *",
    "DBSIZE",
    "WATCH k",
    "BLPOP k 0",
    "SUBSCRIBE c",
    "INFO",
    "GET",
    "NOSUCHCOMMAND",
];

fn words(request: &str) -> Vec<&str> {
    request.split(' ').collect()
}

fn fails_open(redis: &RedisServer, writes: &str) -> WeirProcess {
    weir(
        redis,
        &format!(
            "[route.main.health]\nfail_open = true\nfail_open_writes = \"{writes}\"\n\
             silence_max = \"2s\"\n[route.main.timeouts]\nrequest = \"3s\"\n\
             [process]\nworkers = 1\n"
        ),
    )
}

fn resp3(client: &mut RawClient) {
    assert!(client.command(&["HELLO", "3"]).starts_with(b"%"));
}

#[test]
fn without_redis_reads_are_answered_byte_for_byte_as_redis_answers_for_what_is_not_there() {
    let mut redis = RedisServer::start();
    let weir = fails_open(&redis, "error");
    let mut clients = [weir.client(), weir.client()];
    resp3(&mut clients[1]);
    let expected: Vec<Vec<Vec<u8>>> = (2..4)
        .map(|version| {
            let mut direct = redis.client();
            if version == 3 {
                resp3(&mut direct);
            }
            let ask = |request: &&str| direct.command(&words(request));
            READS.iter().map(ask).collect()
        })
        .collect();
    // A Redis that is there answers itself.
    clients[0].expect_command(&["SET", "there", "v"], "+OK\r\n");
    clients[0].expect_command(&["GET", "there"], "$1\r\nv\r\n");
    assert_eq!(weir.metric("weir_fail_open_total", &[]), 0.0);
    redis.kill();
    wait_until("Weir knows", || weir.get("/readyz").0 == 503);
    for (client, expected) in clients.iter_mut().zip(&expected) {
        for (request, expected) in READS.iter().zip(expected) {
            if expected.starts_with(b"-ERR unknown command") {
                continue;
            }
            let reply = client.command(&words(request));
            assert_eq!(
                reply.escape_ascii().to_string(),
                expected.escape_ascii().to_string(),
                "{request}"
            );
        }
        // Not when it is there, and not what it had: a miss.
        let there = client.command(&["GET", "there"]);
        assert!(there == b"$-1\r\n" || there == b"_\r\n");
    }
    let client = &mut clients[0];
    for request in DECISIONS.iter().chain(&["SET k v", "DEL k", "HSET k f v"]) {
        let reply = client.command(&words(request));
        let text = error(&reply).unwrap_or_default();
        assert!(text.ends_with("command not executed"), "{request}: {text}");
    }
    // A pipeline is answered in its order.
    client.send(
        [
            encode(&["GET", "a"]),
            encode(&["INCR", "n"]),
            encode(&["LLEN", "l"]),
        ]
        .concat(),
    );
    client.expect("$-1\r\n");
    assert!(client.read_reply().starts_with(b"-MASTERDOWN"));
    client.expect(":0\r\n");
    let reads = weir.metric("weir_fail_open_total", &["kind=\"read\""]);
    assert!(reads as usize > READS.len(), "{reads}");
    assert_eq!(
        weir.metric("weir_fail_open_total", &["kind=\"write\""]),
        0.0
    );
    redis.restart();
    wait_until("Weir is ready", || weir.get("/readyz").0 == 200);
    wait_until("it is served", || {
        client.command(&["SET", "k", "v"]) == b"+OK\r\n"
    });
    client.expect_command(&["GET", "k"], "$1\r\nv\r\n");
    wait_until("Weir says so", || {
        weir.log().contains("answering with Redis again")
    });
    let log = weir.log();
    assert_eq!(log.matches("answering as a cache that misses").count(), 1);
}

#[test]
fn plain_writes_are_answered_as_configured_and_nothing_that_decides() {
    let mut redis = RedisServer::start();
    let weir = fails_open(&redis, "ok");
    let mut client = weir.client();
    client.expect_command(&["SET", "k", "v"], "+OK\r\n");
    redis.kill();
    wait_until("Weir knows", || weir.get("/readyz").0 == 503);
    for (request, reply) in [
        ("SET k w", "+OK\r\n"),
        ("SET k w EX 10", "+OK\r\n"),
        ("SETEX k 10 w", "+OK\r\n"),
        ("MSET a 1 b 2", "+OK\r\n"),
        ("HSET h a 1 b 2", ":2\r\n"),
        ("DEL k", ":0\r\n"),
        ("EXPIRE k 10", ":0\r\n"),
        ("GET k", "$-1\r\n"),
    ] {
        client.expect_command(&words(request), reply);
    }
    for request in DECISIONS {
        let reply = client.command(&words(request));
        let text = error(&reply).unwrap_or_default();
        assert!(text.ends_with("command not executed"), "{request}: {text}");
    }
    // Nothing in a transaction is made up.
    let block = [&["MULTI"][..], &["SET", "k", "w"], &["GET", "k"], &["EXEC"]].map(encode);
    client.send(block.concat());
    for _ in 0..4 {
        assert!(client.read_reply().starts_with(b"-"));
    }
    wait_until("they are counted", || {
        weir.metric("weir_fail_open_total", &["kind=\"write\""]) >= 7.0
    });
}

#[test]
fn a_redis_that_hangs_is_a_cache_that_misses_and_no_late_reply_is_mixed_up() {
    let mut redis = RedisServer::start();
    let weir = fails_open(&redis, "ok");
    let mut client = weir.client();
    client.expect_command(&["SET", "k", "v"], "+OK\r\n");
    redis.stop();
    // What was sent before anybody knew: a read misses at its deadline, of a write nobody
    // can say whether it ran.
    let mut writer = weir.client();
    writer.send(encode(&["SET", "w", "1"]));
    client.expect_command(&["GET", "k"], "$-1\r\n");
    let reply = writer.read_reply();
    assert_eq!(
        error(&reply),
        Some("ERR weir: upstream timeout, command outcome unknown")
    );
    for _ in 0..100 {
        client.expect_command(&["GET", "k"], "$-1\r\n");
        client.expect_command(&["SET", "k", "w"], "+OK\r\n");
    }
    redis.cont();
    wait_until("Redis answers", || {
        client.command(&["GET", "k"]) == b"$1\r\nv\r\n"
    });
    client.expect_command(&["GET", "w"], "$1\r\n1\r\n");
}

#[test]
fn a_rule_decides_for_its_clients_whether_they_hear_a_miss() {
    for (route, cache, other) in [
        ("false", "on", false),
        ("true", "route", true),
        ("true", "off", true),
    ] {
        let mut redis = RedisServer::start();
        let weir = weir(
            &redis,
            &format!(
                "[route.main.health]\nfail_open = {route}\nfail_open_writes = \"ok\"\n\
                 [route.main.limits.cache]\nclient_names = \"cache-*\"\nfail_open = \"{cache}\"\n"
            ),
        );
        let (mut named, mut unnamed) = (weir.client(), weir.client());
        named.expect_command(&["CLIENT", "SETNAME", "cache-1"], "+OK\r\n");
        named.expect_command(&["SET", "k", "v"], "+OK\r\n");
        unnamed.expect_command(&["GET", "k"], "$1\r\nv\r\n");
        redis.kill();
        let misses = |client: &mut RawClient| match client.command(&["GET", "k"]) {
            reply if reply == b"$-1\r\n" => Some(true),
            reply if reply.starts_with(b"-MASTERDOWN") => Some(false),
            // It was under way, or is not known to be gone yet.
            _ => None,
        };
        for (client, misses_it) in [(&mut named, cache != "off"), (&mut unnamed, other)] {
            wait_until("Redis is known to be away", || {
                misses(client) == Some(misses_it)
            });
            let write = client.command(&["SET", "k", "v"]);
            assert_eq!(write == b"+OK\r\n", misses_it, "{}", write.escape_ascii());
        }
    }
}
