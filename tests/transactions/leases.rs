//! How long a transaction holds its connection.

use super::support::{RedisServer, encode, wait_until};
use super::{connections, weir};

const LEASED: &str = "weir_leases_held";

#[test]
fn a_client_that_vanishes_in_a_transaction_frees_its_lease() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "max_leases = 1\nlease_wait = \"20s\"\n");
    let vanish: [fn(super::support::RawClient); 2] = [drop, super::support::RawClient::reset];
    for leave in vanish {
        for commands in [
            &[&["WATCH", "k"][..]][..],
            &[&["MULTI"], &["SET", "k", "1"]],
        ] {
            let mut client = weir.client();
            for command in commands {
                let reply = client.command(command);
                assert!(reply.starts_with(b"+"), "{}", reply.escape_ascii());
            }
            leave(client);
            // With the only lease free again another client gets it.
            let mut next = weir.client();
            next.expect_command(&["WATCH", "k"], "+OK\r\n");
            next.expect_command(&["UNWATCH"], "+OK\r\n");
            next.expect_command(&["EXISTS", "k"], ":0\r\n");
        }
    }
}

/// The ids that a client knows are Weir's; Redis would look for them among Weir's connections.
#[test]
fn clients_are_not_listed_or_killed_in_a_transaction() {
    let redis = RedisServer::start();
    // With a lease, and kept until EXEC.
    for settings in ["", "max_leases = 0\n"] {
        let weir = weir(&redis, settings);
        let mut other = weir.client();
        other.expect_command(&["SET", "k", "0"], "+OK\r\n");
        for (command, name) in [
            (&["CLIENT", "LIST"][..], "LIST"),
            (&["CLIENT", "KILL", "TYPE", "normal"], "KILL"),
            (&["client", "kill", "127.0.0.1:1"], "KILL"),
            (&["CLIENT", "UNBLOCK", "1"], "UNBLOCK"),
        ] {
            let mut client = weir.client();
            client.expect_command(&["MULTI"], "+OK\r\n");
            client.expect_command(&["SET", "k", "1"], "+QUEUED\r\n");
            let refusal = format!(
                "-ERR weir: CLIENT {name} is not available in a transaction, \
                 command not executed\r\n"
            );
            client.expect_command(command, refusal);
            let reply = client.command(&["EXEC"]);
            assert!(reply.starts_with(b"-EXECABORT"), "{}", reply.escape_ascii());
            client.expect_command(&["GET", "k"], "$1\r\n0\r\n");
        }
        other.expect_command(&["GET", "k"], "$1\r\n0\r\n");
    }
}

#[test]
fn the_lease_of_an_idle_transaction_expires_and_nothing_of_it_runs() {
    let redis = RedisServer::start();
    let weir = weir(
        &redis,
        "max_leases = 8\nlease_idle = \"1500ms\"\nlease_wait = \"20s\"\n",
    );
    let mut watcher = weir.client();
    watcher.expect_command(&["WATCH", "k"], "+OK\r\n");
    let mut third = weir.client();
    assert!(third.command(&["HELLO", "3"]).starts_with(b"%7\r\n"));
    third.expect_command(&["WATCH", "k"], "+OK\r\n");
    wait_until("the leases expire", || weir.metric(LEASED, &[]) == 0.0);
    for (client, null) in [(&mut watcher, "*-1\r\n"), (&mut third, "_\r\n")] {
        // Reads before MULTI are still answered, and are true.
        client.expect_command(&["EXISTS", "k"], ":0\r\n");
        client.expect_command(&["MULTI"], "+OK\r\n");
        client.expect_command(&["SET", "k", "1"], "+QUEUED\r\n");
        client.expect_command(&["EXEC"], null);
        client.expect_command(&["EXISTS", "k"], ":0\r\n");
        // Trying again is what a library does now.
        client.expect_command(&["WATCH", "k"], "+OK\r\n");
        client.expect_command(&["MULTI"], "+OK\r\n");
        client.expect_command(&["SET", "l", "1"], "+QUEUED\r\n");
        client.expect_command(&["EXEC"], "*1\r\n+OK\r\n");
    }

    let mut queuing = weir.client();
    queuing.expect_command(&["MULTI"], "+OK\r\n");
    queuing.expect_command(&["SET", "k", "1"], "+QUEUED\r\n");
    wait_until("the lease expires", || weir.metric(LEASED, &[]) == 0.0);
    queuing.expect_command(&["SET", "k", "2"], "+QUEUED\r\n");
    queuing.expect_command(
        &["EXEC"],
        "-EXECABORT Transaction discarded because of: lease expired\r\n",
    );
    queuing.expect_command(&["EXISTS", "k"], ":0\r\n");

    let mut leaving = weir.client();
    leaving.expect_command(&["WATCH", "k"], "+OK\r\n");
    leaving.expect_command(&["MULTI"], "+OK\r\n");
    wait_until("the lease expires", || weir.metric(LEASED, &[]) == 0.0);
    leaving.expect_command(&["DISCARD"], "+OK\r\n");
    leaving.expect_command(&["MULTI"], "+OK\r\n");
    leaving.expect_command(&["EXEC"], "*0\r\n");
}

#[test]
fn a_transaction_that_is_busy_keeps_its_lease() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "lease_idle = \"2s\"\n");
    let mut client = weir.client();
    client.expect_command(&["WATCH", "k"], "+OK\r\n");
    // Each command begins the time anew; together they take longer than it.
    for _ in 0..8 {
        client.expect_command(&["BLPOP", "nothing", "0.3"], "*-1\r\n");
    }
    client.expect_command(&["MULTI"], "+OK\r\n");
    client.expect_command(&["SET", "k", "1"], "+QUEUED\r\n");
    client.expect_command(&["EXEC"], "*1\r\n+OK\r\n");
}

#[test]
fn a_lease_serves_one_transaction_after_the_other() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "");
    let mut client = weir.client();
    for _ in 0..100 {
        client.expect_command(&["WATCH", "k"], "+OK\r\n");
        client.expect_command(&["MULTI"], "+OK\r\n");
        client.expect_command(&["INCR", "k"], "+QUEUED\r\n");
        let reply = client.command(&["EXEC"]);
        assert!(reply.starts_with(b"*1\r\n:"), "{}", reply.escape_ascii());
    }
    assert_eq!(
        connections(&weir, "lease"),
        1.0,
        "a connection is opened once and used again"
    );
    let accepted: u64 = redis
        .info("stats", "total_connections_received")
        .parse()
        .unwrap();
    assert!(accepted < 20, "{accepted} connections for 100 transactions");
}

#[test]
fn who_waits_for_a_lease_longer_than_allowed_is_told_which_setting_to_turn() {
    let redis = RedisServer::start();
    let weir = weir(
        &redis,
        "max_leases = 1\nlease_wait = \"2s\"\nlease_queue = 1\n",
    );
    let mut holder = weir.client();
    holder.expect_command(&["WATCH", "k"], "+OK\r\n");
    let mut waiting = weir.client();
    let late = String::from_utf8(waiting.command(&["WATCH", "k"])).unwrap();
    assert!(
        late.starts_with("-BUSY weir: ")
            && late.contains("max_leases")
            && late.contains("command not executed"),
        "{late}"
    );
    // The line has room for one; who comes behind it is refused at once.
    let mut crowd: Vec<_> = (0..3).map(|_| weir.client()).collect();
    crowd
        .iter_mut()
        .for_each(|client| client.send(encode(&["WATCH", "k"])));
    let refusals: Vec<String> = crowd
        .iter_mut()
        .map(|client| String::from_utf8(client.read_reply()).unwrap())
        .collect();
    let full = refusals
        .iter()
        .filter(|refusal| refusal.contains("too many wait"))
        .count();
    assert_eq!(full, 2, "{refusals:#?}");
    holder.expect_command(&["UNWATCH"], "+OK\r\n");
    waiting.expect_command(&["WATCH", "k"], "+OK\r\n");
    waiting.expect_command(&["UNWATCH"], "+OK\r\n");
}

/// What may block goes on a connection of its own also when the keys of its client are not
/// watched any more.
#[test]
fn after_an_expired_watch_commands_that_block_hold_up_nobody() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "lease_idle = \"100ms\"\n");
    let mut client = weir.client();
    client.expect_command(&["WATCH", "k"], "+OK\r\n");
    wait_until("the lease expires", || weir.metric(LEASED, &[]) == 0.0);
    client.send(encode(&["BLPOP", "list", "0"]));
    wait_until("it is blocked", || {
        redis.info("clients", "blocked_clients") == "1"
    });
    let mut other = weir.client();
    other.expect_command(&["SET", "k", "v"], "+OK\r\n");
    other.expect_command(&["RPUSH", "list", "x"], ":1\r\n");
    client.expect("*2\r\n$4\r\nlist\r\n$1\r\nx\r\n");
    // To watch more changes nothing, and nobody else's block is about it.
    client.expect_command(&["WATCH", "l"], "+OK\r\n");
    other.expect_command(&["SET", "l", "v"], "+OK\r\n");
    let block = [&["MULTI"][..], &["INCR", "n"], &["EXEC"]];
    other.send(block.map(encode).concat());
    other.expect("+OK\r\n+QUEUED\r\n*1\r\n:1\r\n");
    client.expect_command(&["DISCARD"], "-ERR DISCARD without MULTI\r\n");
    client.expect_command(&["MULTI"], "+OK\r\n");
    client.expect_command(&["SET", "k", "w"], "+QUEUED\r\n");
    client.expect_command(&["UNWATCH"], "+QUEUED\r\n");
    client.expect_command(&["EXEC"], "*-1\r\n");
    client.expect_command(&["GET", "k"], "$1\r\nv\r\n");
    // A subscription has its own way, too.
    client.expect_command(&["WATCH", "k"], "+OK\r\n");
    wait_until("the lease expires", || weir.metric(LEASED, &[]) == 0.0);
    let confirmation = "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n";
    client.expect_command(&["SUBSCRIBE", "c"], confirmation);
    other.expect_command(&["PUBLISH", "c", "m"], ":1\r\n");
    client.expect("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n");
    other.expect_command(&["GET", "k"], "$1\r\nv\r\n");
}
