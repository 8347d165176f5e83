//! What belongs to a client and not to a connection stays the client's, whichever
//! connection carries it: found by Redis's own tests, kept here without them.

// Real sockets and processes are waited for, not a clock that tests stop.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

#[path = "support/mod.rs"]
mod support;

use support::{RawClient, RedisServer, WeirProcess, wait_until};

fn text(reply: &[u8]) -> String {
    String::from_utf8_lossy(reply).into_owned()
}

fn id_of(client: &mut RawClient) -> String {
    let reply = text(&client.command(&["CLIENT", "ID"]));
    reply.trim_matches([':', '\r', '\n']).to_owned()
}

#[test]
fn invalidations_go_to_the_client_that_they_are_redirected_to() {
    let redis = RedisServer::start();
    let weir = WeirProcess::in_front_of(&redis);
    // Several sources, so that some are on another worker than the target.
    for version in ["2", "3"] {
        let mut target = weir.client();
        target.command(&["HELLO", version]);
        let id = id_of(&mut target);
        target.command(&["SUBSCRIBE", "__redis__:invalidate"]);
        let mut writer = weir.client();
        for number in 0..4 {
            let key = format!("key:{number}");
            let mut source = weir.client();
            source.expect_command(&["CLIENT", "TRACKING", "ON", "REDIRECT", &id], "+OK\r\n");
            source.expect_command(&["CLIENT", "GETREDIR"], format!(":{id}\r\n"));
            source.command(&["GET", &key]);
            writer.expect_command(&["SET", &key, "1"], "+OK\r\n");
            let told = match version {
                "3" => format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n$5\r\n{key}\r\n"),
                _ => format!(
                    "*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n*1\r\n$5\r\n{key}\r\n"
                ),
            };
            target.expect(told);
            source.expect_command(&["CLIENT", "TRACKING", "OFF"], "+OK\r\n");
            source.expect_command(&["CLIENT", "GETREDIR"], ":-1\r\n");
        }
    }
    let mut source = weir.client();
    source.expect_command(
        &["CLIENT", "TRACKING", "ON", "REDIRECT", "999999"],
        "-ERR The client ID you want redirect to does not exist\r\n",
    );
}

#[test]
fn a_source_is_told_that_its_target_has_gone() {
    let redis = RedisServer::start();
    let weir = WeirProcess::in_front_of(&redis);
    let (mut source, mut target, mut writer) = (weir.client(), weir.client(), weir.client());
    let id = id_of(&mut target);
    source.command(&["HELLO", "3"]);
    source.expect_command(&["CLIENT", "TRACKING", "ON", "REDIRECT", &id], "+OK\r\n");
    source.command(&["GET", "key"]);
    target.expect_command(&["QUIT"], "+OK\r\n");
    target.expect_closed();
    writer.expect_command(&["SET", "key", "1"], "+OK\r\n");
    source.expect(format!(">2\r\n$21\r\ntracking-redir-broken\r\n:{id}\r\n"));
    let info = text(&source.command(&["CLIENT", "TRACKINGINFO"]));
    assert!(
        info.contains("~2\r\n$2\r\non\r\n$15\r\nbroken_redirect\r\n"),
        "{info}"
    );
    // Its two connections go with it.
    drop(source);
    wait_until("the receiver is closed", || {
        !text(&redis.command(&["CLIENT", "LIST"])).contains("weir:main:subscription")
    });
}

#[test]
fn the_protocol_of_a_subscriber_changes_on_its_connection_too() {
    let redis = RedisServer::start();
    let weir = WeirProcess::in_front_of(&redis);
    let mut subscriber = weir.client();
    subscriber.command(&["HELLO", "3"]);
    subscriber.command(&["SUBSCRIBE", "news"]);
    subscriber.command(&["HELLO", "2"]);
    subscriber.expect_command(&["PING"], "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
    weir.client()
        .expect_command(&["PUBLISH", "news", "a"], ":1\r\n");
    subscriber.expect("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1\r\na\r\n");
}

#[test]
fn a_block_tells_and_changes_what_is_the_clients() {
    let redis = RedisServer::start();
    let weir = WeirProcess::in_front_of(&redis);
    let mut client = weir.client();
    let id = id_of(&mut client);
    client.expect_command(&["MULTI"], "+OK\r\n");
    for command in [
        ["CLIENT", "ID", ""],
        ["CLIENT", "SETNAME", "somebody"],
        ["SELECT", "3", ""],
        ["CLIENT", "GETNAME", ""],
    ] {
        let words: Vec<&str> = command
            .into_iter()
            .filter(|word| !word.is_empty())
            .collect();
        client.expect_command(&words, "+QUEUED\r\n");
    }
    client.expect_command(
        &["EXEC"],
        format!("*4\r\n:{id}\r\n+OK\r\n+OK\r\n$8\r\nsomebody\r\n"),
    );
    client.expect_command(&["CLIENT", "GETNAME"], "$8\r\nsomebody\r\n");
    client.expect_command(&["SET", "where", "3"], "+OK\r\n");
    let mut other = weir.client();
    other.expect_command(&["SELECT", "3"], "+OK\r\n");
    other.expect_command(&["GET", "where"], "$1\r\n3\r\n");
}

#[test]
fn a_pause_holds_what_writes_and_lets_pass_what_says_that_it_reads() {
    let redis = RedisServer::start();
    let weir = WeirProcess::in_front_of(&redis);
    let (mut operator, mut writer, mut reader) = (weir.client(), weir.client(), weir.client());
    writer.expect_command(&["MULTI"], "+OK\r\n");
    writer.expect_command(&["SET", "key", "1"], "+QUEUED\r\n");
    operator.expect_command(&["CLIENT", "PAUSE", "100000", "WRITE"], "+OK\r\n");
    writer.send(support::encode(&["EXEC"]));
    wait_until("EXEC is held", || {
        text(&operator.command(&["INFO", "clients"])).contains("blocked_clients:1\r\n")
    });
    // Before version 7 no script can say that it only reads, and all are held.
    if redis.is_valkey() || redis.version() >= (7, 0) {
        let script = "#!lua flags=no-writes\nreturn 1";
        reader.expect_command(&["EVAL", script, "0"], ":1\r\n");
        let sha = reader.command(&["SCRIPT", "LOAD", script]);
        let sha = text(&sha[5..45]);
        reader.expect_command(&["EVALSHA", &sha, "0"], ":1\r\n");
    }
    operator.expect_command(&["GET", "key"], "$-1\r\n");
    operator.expect_command(&["CLIENT", "UNPAUSE"], "+OK\r\n");
    writer.expect("*1\r\n+OK\r\n");
    wait_until("nobody is held", || {
        text(&operator.command(&["INFO", "clients"])).contains("blocked_clients:0\r\n")
    });
}

#[test]
fn a_pause_that_redis_refuses_holds_nobody_and_ends_for_nobody() {
    let redis = RedisServer::start();
    redis.command(&["ACL", "SETUSER", "bob", "on", ">pw", "~*", "+get"]);
    let weir = WeirProcess::in_front_of(&redis);
    let (mut bob, mut operator, mut writer) = (weir.client(), weir.client(), weir.client());
    bob.expect_command(&["AUTH", "bob", "pw"], "+OK\r\n");
    for mode in ["ALL", "WRITE"] {
        let refused = text(&bob.command(&["CLIENT", "PAUSE", "100000", mode]));
        assert!(refused.starts_with("-NOPERM"), "{refused}");
        writer.expect_command(&["SET", "key", "1"], "+OK\r\n");
    }
    operator.expect_command(&["CLIENT", "PAUSE", "100000", "WRITE"], "+OK\r\n");
    writer.send(support::encode(&["SET", "key", "2"]));
    let is_held = |operator: &mut RawClient| {
        text(&operator.command(&["INFO", "clients"])).contains("blocked_clients:1\r\n")
    };
    wait_until("SET is held", || is_held(&mut operator));
    let refused = text(&bob.command(&["CLIENT", "UNPAUSE"]));
    assert!(refused.starts_with("-NOPERM"), "{refused}");
    assert!(is_held(&mut operator), "the pause goes on");
    operator.expect_command(&["CLIENT", "UNPAUSE"], "+OK\r\n");
    writer.expect("+OK\r\n");
}

#[test]
fn a_pause_that_a_busy_redis_refuses_leaves_the_one_before_as_it_was() {
    let redis = RedisServer::start();
    if redis.compatible_version() < (7, 0) {
        // No script can run in a pause.
        return;
    }
    redis.command(&["CONFIG", "SET", "lua-time-limit", "10"]);
    let weir = WeirProcess::in_front_of(&redis);
    let (mut operator, mut writer) = (weir.client(), weir.client());
    operator.expect_command(&["PING"], "+PONG\r\n");
    operator.expect_command(&["CLIENT", "PAUSE", "100000", "WRITE"], "+OK\r\n");
    writer.send(support::encode(&["SET", "key", "1"]));
    let is_held = |operator: &mut RawClient| {
        text(&operator.command(&["INFO", "clients"])).contains("blocked_clients:1\r\n")
    };
    wait_until("SET is held", || is_held(&mut operator));
    let mut script = redis.client();
    script.send(support::encode(&["EVAL_RO", "while true do end", "0"]));
    wait_until("Redis is busy", || {
        text(&redis.command(&["PING"])).starts_with("-BUSY")
    });
    let refused = text(&operator.command(&["CLIENT", "PAUSE", "100000", "ALL"]));
    assert!(refused.starts_with("-BUSY"), "{refused}");
    redis.command(&["SCRIPT", "KILL"]);
    script.read_reply();
    assert!(is_held(&mut operator), "writes are held, and reads are not");
    operator.expect_command(&["GET", "key"], "$-1\r\n");
    operator.expect_command(&["CLIENT", "UNPAUSE"], "+OK\r\n");
    writer.expect("+OK\r\n");
}

#[test]
fn a_monitor_shows_what_clients_do_and_not_what_weir_does() {
    let redis = RedisServer::start();
    let weir = WeirProcess::in_front_of(&redis);
    let mut monitor = weir.client();
    monitor.expect_command(&["MONITOR"], "+OK\r\n");
    let mut client = weir.client();
    client.expect_command(&["SELECT", "5"], "+OK\r\n");
    // A connection of its own, opened now: named, and put into the database.
    client.expect_command(&["MULTI"], "+OK\r\n");
    client.expect_command(&["set", "a", "1"], "+QUEUED\r\n");
    client.expect_command(&["exec"], "*1\r\n+OK\r\n");
    client.command(&["auth", "nobody", "wrong"]);
    for shown in [
        "\"SELECT\" \"5\"",
        "\"MULTI\"",
        "\"set\" \"a\" \"1\"",
        "\"exec\"",
        "\"auth\" \"(redacted)\" \"(redacted)\"",
    ] {
        let line = text(&monitor.read_reply());
        assert!(line.trim_end().ends_with(shown), "{line}");
    }
    assert!(text(&redis.command(&["CLIENT", "LIST"])).contains("name=weir:main:"));
}

#[test]
fn a_user_who_may_not_select_stays_where_he_came_to() {
    let redis = RedisServer::start();
    let weir = WeirProcess::in_front_of(&redis);
    redis.command(&["ACL", "SETUSER", "bob", "on", ">pw", "~*", "+get", "+set"]);
    let mut client = weir.client();
    client.expect_command(&["SELECT", "4"], "+OK\r\n");
    client.expect_command(&["SET", "where", "4"], "+OK\r\n");
    client.expect_command(&["AUTH", "bob", "pw"], "+OK\r\n");
    client.expect_command(&["GET", "where"], "$1\r\n4\r\n");
    let refused = text(&client.command(&["SELECT", "5"]));
    assert!(refused.starts_with("-NOPERM"), "{refused}");
    client.expect_command(&["GET", "where"], "$1\r\n4\r\n");
}

#[test]
fn a_reply_that_nests_as_deep_as_a_script_can_costs_nobody_the_connection() {
    let redis = RedisServer::start();
    let weir = WeirProcess::in_front_of(&redis);
    let mut client = weir.client();
    let reply = client.command(&["EVAL", "local a = {} local b = {a} a[1] = b return a", "0"]);
    assert!(reply.ends_with(b"-ERR reached lua stack limit\r\n"));
    client.expect_command(&["PING"], "+PONG\r\n");
}

/// How often a key was read is told by Redis's own counter, which counts here every read
/// and forgets none.
#[test]
fn reads_of_a_client_that_touches_nothing_do_not_count_and_those_of_others_do() {
    let policy = ["--maxmemory-policy", "allkeys-lfu"];
    let exact = ["--lfu-log-factor", "0", "--lfu-decay-time", "0"];
    let redis = RedisServer::with(&[&policy[..], &exact].concat());
    if redis.compatible_version() < (7, 2) {
        return;
    }
    let weir = WeirProcess::in_front_of(&redis);
    let (mut quiet, mut other) = (weir.client(), weir.client());
    other.expect_command(&["SET", "key", "v"], "+OK\r\n");
    let count = || {
        let reply = text(&redis.command(&["OBJECT", "FREQ", "key"]));
        let number = reply.trim().strip_prefix(':').expect("a number");
        number.parse::<u32>().expect("a number")
    };
    let read = |client: &mut RawClient| client.expect_command(&["GET", "key"], "$1\r\nv\r\n");
    quiet.expect_command(&["CLIENT", "NO-TOUCH", "ON"], "+OK\r\n");
    let first = count();
    for round in 1..=10 {
        // Whatever carries them: shared, and each for itself.
        read(&mut quiet);
        quiet.expect_command(&["WATCH", "key"], "+OK\r\n");
        read(&mut quiet);
        quiet.send(b"MULTI\r\nGET key\r\nEXEC\r\n");
        quiet.expect("+OK\r\n+QUEUED\r\n*1\r\n$1\r\nv\r\n");
        assert_eq!(count(), first + round - 1);
        read(&mut other);
        assert_eq!(count(), first + round);
    }
    // Until it says otherwise, or begins anew.
    quiet.expect_command(&["CLIENT", "NO-TOUCH", "OFF"], "+OK\r\n");
    read(&mut quiet);
    assert_eq!(count(), first + 11);
    quiet.expect_command(&["CLIENT", "NO-TOUCH", "ON"], "+OK\r\n");
    read(&mut quiet);
    assert_eq!(count(), first + 11);
    quiet.expect_command(&["RESET"], "+RESET\r\n");
    read(&mut quiet);
    assert_eq!(count(), first + 12);
}
