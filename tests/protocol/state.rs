//! What a connection remembers: database, name, protocol, whether replies are wanted.

use super::compare::{Pair, hear_close, without_ids};
use super::support::{RawClient, encode};

/// Each line is one client's commands, separated by semicolons, sent in one write; `""`
/// stands for an empty line and `*0` for itself.
fn same_lines(pair: &Pair, lines: &[&str]) {
    for line in lines {
        pair.same(bytes_of(line));
    }
}

fn bytes_of(line: &str) -> Vec<u8> {
    let mut input = Vec::new();
    for command in line.split("; ") {
        match command {
            "\"\"" => input.extend(b"\r\n"),
            "*0" => input.extend(b"*0\r\n"),
            command if command.starts_with('"') => input.extend(command.bytes()),
            command => input.extend(encode(&command.split(' ').collect::<Vec<_>>())),
        }
    }
    input
}

/// As [`same_lines`], with every command sent when the one before it has been answered.
fn same_step_by_step(pair: &Pair, lines: &[&str]) {
    for line in lines {
        let talk = |address| {
            let mut client = RawClient::connect(address);
            let mut heard = Vec::new();
            for command in line.split("; ") {
                client.send(encode(&command.split(' ').collect::<Vec<_>>()));
                let reply = without_ids(client.read_reply());
                heard.push(reply.escape_ascii().to_string());
            }
            heard
        };
        let (direct, through) = (talk(pair.redis.address()), talk(pair.weir.address()));
        assert_eq!(through, direct, "Weir (left) and Redis (right): {line}");
    }
}

#[test]
fn replies_that_are_not_wanted_are_not_sent() {
    let pair = Pair::start();
    same_lines(
        &pair,
        &[
            "CLIENT REPLY ON; PING",
            "CLIENT REPLY OFF; SET a 1; GET a; CLIENT REPLY ON; GET a",
            "CLIENT REPLY SKIP; GET a; GET a",
            "SET a 5; CLIENT REPLY SKIP; INCR a; GET a; CLIENT REPLY SKIP; INCR a; GET a",
            "CLIENT REPLY SKIP; \"\"; GET a; GET a",
            "CLIENT REPLY SKIP; *0; GET a; GET a",
            "CLIENT REPLY SKIP; CLIENT REPLY SKIP; GET a; GET a",
            "CLIENT REPLY SKIP; nosuch; GET a",
            "CLIENT REPLY SKIP; GET; GET a",
            "CLIENT REPLY SKIP; CLIENT REPLY ON; GET a",
            "CLIENT REPLY SKIP; CLIENT REPLY OFF; GET a; CLIENT REPLY ON; GET a",
            "CLIENT REPLY OFF; CLIENT REPLY SKIP; GET a; CLIENT REPLY ON; GET a; GET a",
            "CLIENT REPLY OFF; nosuch; GET; CLIENT nosuch; CLIENT REPLY ON; GET a",
            "CLIENT REPLY OFF; CLIENT REPLY nonsense; CLIENT REPLY ON",
            "CLIENT REPLY SKIP; MULTI; INCR a; EXEC; GET a",
            "CLIENT REPLY OFF; MULTI; INCR a; EXEC; CLIENT REPLY ON; GET a",
            "MULTI; INCR a; EXEC; CLIENT REPLY SKIP; PING; PING",
            "CLIENT REPLY OFF; SELECT 1; SET b 1; CLIENT REPLY ON; GET b; SELECT 0; GET b",
            "CLIENT REPLY SKIP; SELECT 1; GET b; SELECT 0",
            "CLIENT REPLY OFF; RESET; GET a",
            "CLIENT REPLY SKIP; RESET; GET a",
            "CLIENT REPLY OFF; CLIENT SETNAME x; CLIENT REPLY ON; CLIENT GETNAME",
            "CLIENT REPLY SKIP; CLIENT GETNAME; CLIENT GETNAME",
            "CLIENT REPLY SKIP; CLIENT SETNAME y; CLIENT GETNAME",
            "CLIENT REPLY OFF; RPUSH l 1 2; BLPOP l 1; CLIENT REPLY ON; LLEN l; DEL l",
            "CLIENT REPLY SKIP; BLPOP nothing 0.01; GET a",
            "CLIENT REPLY OFF; WATCH a; MULTI; INCR a; EXEC; CLIENT REPLY ON; GET a",
            "CLIENT REPLY OFF; HELLO 3; CLIENT REPLY ON; GET nothing",
            "CLIENT REPLY SKIP; HELLO 3; GET nothing; GET nothing",
            "CLIENT REPLY SKIP; CONFIG GET maxmemory; CONFIG GET maxmemory",
            "CLIENT REPLY SKIP; INFO server; PING",
            "CLIENT REPLY SKIP; EVAL return{1,2,3} 0; PING",
            "CLIENT REPLY SKIP; WAIT 0 1; PING",
            "CLIENT REPLY OFF; AUTH x; AUTH x y; HELLO 9; SELECT x; CLIENT REPLY ON; PING",
            "CLIENT REPLY",
            "CLIENT REPLY nonsense",
            "CLIENT REPLY ON OFF",
            "CLIENT REPLY SKIP; CLIENT REPLY nonsense; PING",
            "CLIENT REPLY SKIP; UNSUBSCRIBE; PING; PING",
            "CLIENT REPLY OFF; UNSUBSCRIBE; CLIENT REPLY ON; PING",
        ],
    );
}

#[test]
fn large_commands_without_replies() {
    let pair = Pair::start();
    let large = "x".repeat(300_000);
    same_lines(
        &pair,
        &[
            &format!("CLIENT REPLY SKIP; SET a {large}; STRLEN a"),
            &format!("CLIENT REPLY OFF; SET b {large}; GET b; CLIENT REPLY ON; STRLEN b"),
            "CLIENT REPLY SKIP; GET a; STRLEN a",
            &format!("CLIENT REPLY SKIP; ECHO {large}; STRLEN a"),
        ],
    );
}

#[test]
fn confirmations_of_subscriptions_are_seen_by_those_who_want_no_replies() {
    let pair = Pair::start();
    for line in [
        "CLIENT REPLY OFF; SUBSCRIBE x y",
        "CLIENT REPLY SKIP; SUBSCRIBE x; PING",
        "CLIENT REPLY OFF; PSUBSCRIBE x*; PUNSUBSCRIBE",
    ] {
        pair.same_half_closed(bytes_of(line));
    }
}

/// Where Weir differs on purpose: a Redis that has nothing to write does not get to the
/// closing either, and keeps such a client for ever.
#[test]
fn who_wants_no_replies_is_closed_all_the_same() {
    let pair = Pair::start();
    for input in ["CLIENT REPLY OFF\r\nQUIT\r\n", "CLIENT REPLY OFF\r\n*x\r\n"] {
        let heard = hear_close(pair.weir.address(), input.as_bytes());
        assert_eq!(heard.bytes, b"");
    }
}

#[test]
fn reset_brings_back_the_beginning() {
    let pair = Pair::start();
    same_lines(
        &pair,
        &[
            "RESET",
            "RESET now",
            "SET a 0; SELECT 3; SET a 3; RESET; GET a",
            "CLIENT SETNAME x; RESET; CLIENT GETNAME",
            "MULTI; SET a 1; RESET; GET a; EXEC",
            "WATCH a; MULTI; RESET; EXEC; DISCARD",
            "SUBSCRIBE x y; RESET; GET a; UNSUBSCRIBE",
            "PSUBSCRIBE x y; RESET; RESET; GET a",
            "HELLO 3; RESET; HGETALL nothing",
            "HELLO 3; SUBSCRIBE x; RESET; GET nothing",
            "CLIENT TRACKING ON BCAST; RESET; CLIENT TRACKINGINFO",
            "HELLO 3; CLIENT TRACKING ON; GET a; RESET; GET a",
            "MULTI; nosuch; RESET; EXEC; MULTI; EXEC",
            "CLIENT NO-EVICT ON; RESET; PING",
        ],
    );
    same_step_by_step(
        &pair,
        &[
            "SELECT 3; SET a 3; RESET; GET a; SET a 1; MULTI; INCR a; RESET; GET a",
            "WATCH a; GET a; RESET; MULTI; INCR a; EXEC",
            "SUBSCRIBE x; RESET; GET a",
        ],
    );
}

#[test]
fn a_database_is_chosen_as_redis_chooses_it() {
    let pair = Pair::start();
    let lines = [
        "SELECT 0",
        "SELECT 15",
        "SELECT 16",
        "SELECT -1",
        "SELECT x",
        "SELECT 01",
        "SELECT +1",
        "SELECT 1.0",
        "SELECT 2147483647",
        "SELECT 2147483648",
        "SELECT 99999999999999999999",
        "SELECT",
        "SELECT 1 2",
        "SET a 0; SELECT 1; SET a 1; SELECT 0; GET a; SELECT 1; GET a; DBSIZE; DEL a",
        "SELECT 1; SELECT 99; SET where 1; SELECT 0; GET where; SELECT 1; GET where",
        "SELECT 2; SET m 2; MOVE m 3; SELECT 3; GET m; DEL m",
        "SELECT 4; SET s 4; SWAPDB 4 5; GET s; SELECT 5; GET s; FLUSHDB; GET s",
        "SELECT 6; MULTI; SET t 6; SELECT 7; SET t 7; EXEC; GET t; SELECT 6; GET t",
        "SELECT 6; MULTI; SELECT 7; DISCARD; GET t",
        "SELECT 6; MULTI; SELECT 99; SELECT x; EXEC; GET t",
        "SELECT 6; MULTI; SELECT 7; nosuch; EXEC; GET t",
        "SELECT 6; WATCH t; SELECT 7; GET t; MULTI; GET t; EXEC; GET t",
        "SELECT 6; SUBSCRIBE x; UNSUBSCRIBE x; GET t",
        "SELECT 6; EVAL return{redis.call('SELECT',7),redis.call('GET','t')} 0; GET t",
        "SELECT 6; BLPOP t 0.01; RPUSH l6 a; BLPOP l6 0; SELECT 7; EXISTS l6 t",
        "SELECT 6; COPY t t2 DB 7; SELECT 7; GET t2; DEL t2",
        "SELECT 9; HELLO 3; SET p 9; HELLO 2; GET p; SELECT 0; GET p",
    ];
    same_lines(&pair, &lines);
    same_step_by_step(&pair, &lines);
}

#[test]
fn commands_about_the_connection() {
    let pair = Pair::start();
    let lines = [
        "READONLY",
        "READWRITE",
        "ASKING; GET a",
        "PING; PING a; PING a b; ECHO; ECHO a; ECHO a b",
        "READONLY x; READWRITE x; ASKING x",
        "CLUSTER INFO; GET a",
        "CLIENT; CLIENT nosuch; CLIENT GETNAME x; CLIENT ID x; CLIENT SETNAME",
        "CLIENT SETNAME a b; CLIENT SETNAME x; CLIENT GETNAME; CLIENT NO-EVICT x",
        "CLIENT KILL 1.2.3.4:5; CLIENT KILL ID x; CLIENT KILL ID 0; CLIENT KILL a b",
        "CLIENT PAUSE x; CLIENT PAUSE -1; CLIENT PAUSE 0 x; CLIENT UNPAUSE x",
        "CLIENT UNBLOCK; CLIENT UNBLOCK x; CLIENT UNBLOCK 99999999; CLIENT UNBLOCK 1 x",
        "CLIENT TRACKING; CLIENT TRACKING x; CLIENT TRACKING ON PREFIX a; CLIENT CACHING YES",
        "CLIENT LIST TYPE x; CLIENT LIST ID x; CLIENT LIST x; CLIENT LIST ID 99999999",
        "COMMAND COUNT; COMMAND nosuch; COMMAND GETKEYS SET a b; COMMAND GETKEYS x",
        "CONFIG; CONFIG GET; CONFIG nosuch; CONFIG GET nosuch; CONFIG SET nosuch x",
    ];
    same_lines(&pair, &lines);
    same_step_by_step(&pair, &lines);
}

#[test]
fn transactions_are_redis_s_own() {
    let pair = Pair::start();
    let lines = [
        "MULTI; EXEC",
        "MULTI; DISCARD",
        "EXEC",
        "DISCARD",
        "UNWATCH",
        "WATCH",
        "MULTI now",
        "MULTI; MULTI; SET a 1; EXEC",
        "MULTI; WATCH a; SET a 2; EXEC",
        "MULTI; UNWATCH; SET a 3; EXEC",
        "MULTI; nosuch; SET a 4; EXEC; GET a",
        "MULTI; SET a; SET a 5; EXEC; GET a",
        "MULTI; INCR a; LPUSH a x; INCR a; EXEC; GET a",
        "SET a 10; WATCH a; INCR a; MULTI; INCR a; EXEC; GET a",
        "WATCH a b c; UNWATCH; INCR a; MULTI; INCR a; EXEC",
        "WATCH a; MULTI; DISCARD; INCR a; MULTI; INCR a; EXEC",
        "WATCH a; EXEC; DISCARD; MULTI; EXEC",
        "MULTI; BLPOP nothing 0; BRPOPLPUSH nothing b 0; EXEC",
        "MULTI; SAVE; EXEC",
        "MULTI; SUBSCRIBE x; DISCARD; PING",
        "MULTI; ECHO x; CONFIG GET maxmemory; EXEC",
        "MULTI; PING; QUIT; EXEC",
        "MULTI; EVAL return{1} 0; DBSIZE; RANDOMKEY; EXEC; DEL a",
        "MULTI; AUTH x; EXEC; PING",
        "MULTI; HELLO; DISCARD; PING",
        "MULTI; COMMAND COUNT; EXEC",
        "MULTI; ping; Echo x; eXec",
    ];
    // A reply in the other's protocol cannot be told from nonsense by these clients.
    same_lines(&pair, &lines);
    let lines: Vec<&str> = lines
        .into_iter()
        .filter(|line| !line.contains("SUBSCRIBE") && !line.contains("QUIT"))
        .collect();
    same_step_by_step(&pair, &lines);
}

#[test]
fn a_subscriber_may_do_little() {
    let pair = Pair::start();
    same_lines(
        &pair,
        &[
            "SUBSCRIBE x; GET a; nosuch; GET; PING; PING hello; ECHO x; UNSUBSCRIBE; GET a",
            "SUBSCRIBE x y z; UNSUBSCRIBE y; PUBLISH x m; UNSUBSCRIBE x z; PUBLISH x m",
            "PSUBSCRIBE x* y*; SUBSCRIBE x; PUNSUBSCRIBE x* nothing; CLIENT ID; MULTI; RESET",
            "SUBSCRIBE x; SUBSCRIBE x; UNSUBSCRIBE x; UNSUBSCRIBE x; UNSUBSCRIBE; GET a",
            "SUBSCRIBE; PSUBSCRIBE; SUBSCRIBE x; SUBSCRIBE; QUIT; PING",
            "SUBSCRIBE x; CLIENT nosuch; CLIENT; SELECT 1; AUTH x; HELLO; HELLO 3; COMMAND",
            "UNSUBSCRIBE; UNSUBSCRIBE x y; PUNSUBSCRIBE; SUNSUBSCRIBE; SUNSUBSCRIBE x",
            "SSUBSCRIBE s; SUBSCRIBE x; SUNSUBSCRIBE; UNSUBSCRIBE; GET a",
            "HELLO 3; SUBSCRIBE x; GET a; PING; PUBLISH x m; UNSUBSCRIBE; PING",
            "HELLO 3; PSUBSCRIBE x*; SUBSCRIBE x; PUBLISH x hello; UNSUBSCRIBE; PUNSUBSCRIBE",
        ],
    );
}
