//! Redis is killed, cut off, started late: accounts are kept meanwhile.

use super::accounts::{self, Tolerance};
use super::forwarder::Forwarder;
use super::support::{ConnectionWatch, RawClient, RedisServer, WeirProcess, wait_until};
use super::{error, is_not_executed, weir, weir_at};

fn serves(weir: &WeirProcess) -> bool {
    RawClient::try_connect(None, weir.address())
        .and_then(|mut client| client.try_command(&["PING"]))
        .is_ok_and(|reply| reply == b"+PONG\r\n")
}

#[test]
fn a_redis_that_is_killed_and_comes_back_loses_nothing_that_was_acknowledged() {
    for workers in [1, 3] {
        // Redis writes to its file before it answers, so that what it has answered
        // survives its own death (not the machine's): unless it waits for a sync.
        let mut redis = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "no"]);
        let weir = weir(
            &redis,
            &format!("max_connections = 6\n[process]\nworkers = {workers}\n"),
        );
        let accounts = accounts::run(weir.address(), 12, Tolerance::Outage, |progress| {
            for _ in 0..3 {
                progress.wait_for_rounds(5);
                redis.kill();
                // Everybody is told so, and told again.
                progress.wait_for_rounds(5);
                redis.restart();
                wait_until("Weir serves again", || serves(&weir));
            }
        });
        accounts::check(&redis, &accounts);
        for account in &accounts {
            assert!(account.acknowledged > 0, "{account:?}");
        }
        assert!(!weir.log().contains("panicked"), "{}", weir.log());
    }
}

#[test]
fn connections_that_redis_kills_cost_no_read_and_no_increment_twice() {
    for workers in [1, 3] {
        let redis = RedisServer::start();
        let weir = weir(
            &redis,
            &format!("max_connections = 5\n[process]\nworkers = {workers}\n"),
        );
        let watch = ConnectionWatch::start(&redis);
        let accounts = accounts::run(weir.address(), 12, Tolerance::ReadsNeverFail, |progress| {
            let mut direct = redis.client();
            for _ in 0..40 {
                // So that a read which has to be sent again is answered before the next
                // connection goes.
                progress.wait_for_rounds(2);
                let killed = direct.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
                assert!(killed.starts_with(b":"), "{}", killed.escape_ascii());
            }
        });
        accounts::check(&redis, &accounts);
        watch.assert_at_most(5);
        assert!(!weir.log().contains("panicked"), "{}", weir.log());
    }
}

#[test]
fn connections_that_are_reset_anywhere_in_a_reply_mix_up_nothing() {
    for workers in [1, 3] {
        let redis = RedisServer::start();
        let forwarder = Forwarder::to(redis.address());
        let weir = weir_at(
            &redis,
            forwarder.address(),
            &format!("max_connections = 5\n[process]\nworkers = {workers}\n"),
        );
        let accounts = accounts::run(weir.address(), 12, Tolerance::Outage, |progress| {
            for round in 0..40 {
                // A prime step, so that the cut falls anywhere in a reply.
                forwarder.cut_after(3_000 + round * 37);
                progress.wait_for_rounds(1);
                forwarder.cut();
            }
            forwarder.cut_after(0);
            forwarder.cut();
            wait_until("Weir serves again", || serves(&weir));
        });
        accounts::check(&redis, &accounts);
        assert!(!weir.log().contains("panicked"), "{}", weir.log());
    }
}

#[test]
fn a_redis_that_is_not_there_yet_is_answered_for_and_served_as_soon_as_it_is() {
    let mut redis = RedisServer::start();
    redis.kill();
    let weir = weir(&redis, "");
    let mut client = weir.client();
    for command in [
        &["SET", "k", "v"][..],
        &["GET", "k"],
        &["BLPOP", "k", "0"],
        &["WATCH", "k"],
    ] {
        let reply = client.command(command);
        let text = error(&reply).unwrap_or_default();
        assert!(
            text.starts_with("MASTERDOWN weir: ") && is_not_executed(text),
            "{command:?}: {}",
            reply.escape_ascii()
        );
    }
    assert_eq!(weir.get("/healthz").0, 200);
    let (status, why) = weir.get("/readyz");
    assert_eq!(status, 503, "{why}");
    assert!(why.contains("main"), "{why}");

    redis.restart();
    wait_until("Weir is ready", || weir.get("/readyz").0 == 200);
    client.expect_command(&["SET", "k", "v"], "+OK\r\n");
    client.expect_command(&["GET", "k"], "$1\r\nv\r\n");
    let mut new = weir.client();
    assert!(new.command(&["HELLO", "3"]).starts_with(b"%7\r\n"));
    new.expect_command(&["GET", "k"], "$1\r\nv\r\n");
}

#[test]
fn while_redis_is_away_everything_is_answered_and_readiness_says_so() {
    let mut redis = RedisServer::start();
    let weir = weir(&redis, "");
    let mut client = weir.client();
    client.expect_command(&["SET", "k", "v"], "+OK\r\n");
    wait_until("Weir is ready", || weir.get("/readyz").0 == 200);
    redis.kill();
    for _ in 0..200 {
        let reply = client.command(&["GET", "k"]);
        assert!(
            error(&reply).is_some_and(is_not_executed)
                || error(&reply).is_some_and(super::is_unknown),
            "{}",
            reply.escape_ascii()
        );
    }
    wait_until("Weir is not ready", || weir.get("/readyz").0 == 503);
    redis.restart();
    wait_until("Weir is ready", || weir.get("/readyz").0 == 200);
    client.expect_command(&["GET", "k"], "$-1\r\n");
}

#[test]
fn a_redis_that_loads_its_data_says_so_through_weir_and_is_served_afterwards() {
    if RedisServer::start().compatible_version() < (7, 0) {
        // It cannot be told to answer while it loads little.
        return;
    }
    let mut redis = RedisServer::with(&[
        "--key-load-delay",
        "5000",
        "--loading-process-events-interval-bytes",
        "1024",
    ]);
    let weir = weir(&redis, "");
    let mut client = weir.client();
    for key in 0..3000 {
        client.expect_command(&["SET", &format!("key:{key}"), "v"], "+OK\r\n");
    }
    redis.client().expect_command(&["SAVE"], "+OK\r\n");
    redis.kill();
    redis.begin_restart();
    wait_until("Redis says through Weir that it is loading", || {
        let reply = client.command(&["GET", "key:2999"]);
        let text = error(&reply).expect("the data takes long to load");
        assert!(is_not_executed(text), "{text}");
        text.starts_with("LOADING ")
    });
    // It need not be slow any longer.
    let quick = ["CONFIG", "SET", "key-load-delay", "0"];
    redis.client().expect_command(&quick, "+OK\r\n");
    wait_until("the data is there", || {
        let reply = client.command(&["GET", "key:2999"]);
        if let Some(text) = error(&reply) {
            assert!(is_not_executed(text), "{text}");
            return false;
        }
        assert_eq!(reply, b"$1\r\nv\r\n", "{}", reply.escape_ascii());
        true
    });
    wait_until("Weir is ready", || weir.get("/readyz").0 == 200);
}
