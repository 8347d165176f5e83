//! The test support tested: if it lied, every other test would.

mod support;

use std::net::TcpStream;

use support::{
    ConnectionWatch, RawClient, RedisServer, ReservedPort, WeirProcess, reply_length, wait_until,
};

#[test]
fn a_reserved_port_refuses_until_a_server_takes_it() {
    let port = ReservedPort::new();
    assert!(TcpStream::connect(port.address()).is_err());
    let server = std::net::TcpListener::bind(port.address()).expect("the reserved port");
    assert!(TcpStream::connect(port.address()).is_ok());
    drop(server);
}

#[test]
fn a_redis_stops_goes_on_dies_and_comes_back() {
    let mut redis = RedisServer::start();
    redis.client().expect_command(&["SET", "k", "v"], "+OK\r\n");

    redis.stop();
    let mut waiting = redis.client();
    waiting.send("PING\r\n");
    waiting.expect_nothing_pending();
    redis.cont();
    waiting.expect("+PONG\r\n");

    redis.kill();
    waiting.expect_closed();
    assert!(RawClient::try_connect(None, redis.address()).is_err());
    redis.restart();
    redis.client().expect_command(&["GET", "k"], "$-1\r\n");
}

#[test]
fn arguments_reach_the_server() {
    let redis = RedisServer::with(&["--maxclients", "64"]);
    redis.client().expect_command(
        &["CONFIG", "GET", "maxclients"],
        "*2\r\n$10\r\nmaxclients\r\n$2\r\n64\r\n",
    );
    assert!(redis.version() >= (6, 0));
}

#[test]
fn the_watch_sees_a_crowd_that_has_gone_again_and_not_the_tests_own_connections() {
    let redis = RedisServer::start();
    let watch = ConnectionWatch::start(&redis);
    let _own = redis.client();
    let mut crowd: Vec<_> = (0..5)
        .map(|_| RawClient::connect(redis.address()))
        .collect();
    // Redis has accepted all of them once the last is answered; two more looks later one
    // look at least has begun after that.
    crowd
        .iter_mut()
        .for_each(|client| client.expect_command(&["PING"], "+PONG\r\n"));
    let looks = |redis: &RedisServer| {
        let stats = String::from_utf8_lossy(&redis.command(&["INFO", "commandstats"])).into_owned();
        // Redis 6.2 counts `CLIENT`, later versions `CLIENT|LIST`.
        let line = stats
            .lines()
            .find_map(|line| line.strip_prefix("cmdstat_client")?.split(',').next());
        line.and_then(|line| line.split("calls=").nth(1))
            .map_or(0, |calls| calls.parse().unwrap_or(0))
    };
    let before: u64 = looks(&redis);
    wait_until("the watch looks", || looks(&redis) >= before + 2);
    drop(crowd);
    assert_eq!(watch.assert_at_most(5).max, 5);
}

#[test]
#[should_panic(expected = "got \"+PONG")]
fn an_unexpected_reply_fails_the_test() {
    let redis = RedisServer::start();
    redis.client().expect_command(&["PING"], "+PANG\r\n");
}

#[test]
fn replies_are_cut_apart_where_they_end() {
    let redis = RedisServer::start();
    let mut client = redis.client();
    client.send("PING\r\nECHO two\r\nHELLO 3\r\nECHO three\r\n");
    assert_eq!(client.read_reply(), b"+PONG\r\n");
    assert_eq!(client.read_text(), "two");
    assert!(client.read_reply().starts_with(b"%7\r\n"));
    client.expect("$5\r\nthree\r\n");
    client.expect_nothing_pending();
}

#[test]
fn a_reply_ends_where_its_last_value_ends() {
    let whole: [&[u8]; 9] = [
        b"+OK\r\n",
        b"$-1\r\n",
        b"$0\r\n\r\n",
        b"$4\r\n\r\n\r\n\r\n",
        b"*-1\r\n",
        b"*2\r\n:1\r\n*1\r\n$1\r\na\r\n",
        b"%1\r\n+a\r\n_\r\n",
        b"|1\r\n+ttl\r\n:1\r\n+value\r\n",
        b">3\r\n+message\r\n+c\r\n$1\r\nx\r\n",
    ];
    for reply in whole {
        for cut in 0..reply.len() {
            assert_eq!(
                reply_length(&reply[..cut]),
                None,
                "{:?}",
                reply[..cut].escape_ascii()
            );
        }
        let followed = [reply, b"+next\r\n"].concat();
        assert_eq!(
            reply_length(&followed),
            Some(reply.len()),
            "{:?}",
            reply.escape_ascii()
        );
    }
}

#[test]
fn a_weir_serves_says_what_it_counts_and_ends_when_told() {
    let redis = RedisServer::start();
    let mut weir = WeirProcess::with_args(&redis, &["--workers", "1"]);
    let watch = ConnectionWatch::start(&redis);
    weir.client().expect_command(&["SET", "k", "v"], "+OK\r\n");
    assert_eq!(redis.command(&["GET", "k"]), b"$1\r\nv\r\n");
    assert!(
        watch.assert_at_most(64).max >= 1,
        "nothing but Weir can have written the key"
    );
    assert_eq!(weir.get("/healthz").0, 200);
    assert_eq!(weir.metric("weir_no_such_metric", &[]), 0.0);
    assert!(weir.resident_bytes() > 1024 * 1024);
    assert!(weir.terminate().success());
}

#[test]
fn a_weir_takes_a_config_file() {
    let redis = RedisServer::start();
    let weir = WeirProcess::with_config(
        &redis,
        "[admin]\nlisten = \"{admin}\"\n[route.main]\nlisten = \"{listen}\"\nbackend = \"{backend}\"\n",
    );
    weir.client().expect_command(&["PING"], "+PONG\r\n");
    assert_eq!(weir.get("/healthz").0, 200);
}
