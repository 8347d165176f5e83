//! Blocking commands, said to Redis and to Weir.

use super::support::{RedisServer, dialogue, encode, wait_until};
use super::weir;

#[rustfmt::skip] // one dialogue, one line
const DIALOGUES: &[&[&str]] = &[
    // There is something.
    &["a RPUSH k x y z", "a BLPOP k 0", "a BRPOP k 0", "a BLMOVE k l LEFT RIGHT 0", "a BRPOPLPUSH l m 0", "a LRANGE m 0 -1"],
    &["a ZADD z 1 a 2 b 3 c", "a BZPOPMIN z 0", "a BZPOPMAX z 0", "a BZMPOP 0 1 z MIN COUNT 5", "a EXISTS z"],
    &["a RPUSH k x y z", "a BLMPOP 0 2 nothing k LEFT COUNT 2", "a LRANGE k 0 -1"],
    &["a XADD s 1-1 f v", "a XREAD BLOCK 0 STREAMS s 0", "a XREAD COUNT 1 STREAMS s 0", "a XREAD STREAMS s $"],
    &["a XGROUP CREATE s g $ MKSTREAM", "a XADD s 1-1 f v", "a XREADGROUP GROUP g c BLOCK 0 STREAMS s >", "a XREADGROUP GROUP g c BLOCK 0 STREAMS s 0"],
    &["a HELLO 3", "a RPUSH k x", "a BLPOP k 0", "a ZADD z 1.5 m", "a BZPOPMIN z 0", "a XADD s 1-1 f v", "a XREAD BLOCK 0 STREAMS s 0"],
    // There is nothing, and nothing comes.
    &["a BLPOP k 0.01", "a BRPOP k l 0.01", "a BLMOVE k l LEFT LEFT 0.01", "a BRPOPLPUSH k l 0.01", "a BLMPOP 0.01 1 k LEFT"],
    &["a BZPOPMIN z 0.01", "a BZPOPMAX z 0.01", "a BZMPOP 0.01 1 z MIN", "a XREAD BLOCK 10 STREAMS s $"],
    &["a HELLO 3", "a BLPOP k 0.01", "a BLMOVE k l LEFT LEFT 0.01", "a BZPOPMIN z 0.01", "a XREAD BLOCK 10 STREAMS s $"],
    // Something comes.
    &["a:0 BLPOP k 0", "@blocked 1", "b RPUSH k x", "a:1", "b EXISTS k"],
    &["a HELLO 3", "a:0 BRPOP k 0", "@blocked 1", "b RPUSH k x y", "a:1", "b LRANGE k 0 -1"],
    &["a:0 BLPOP k l m 0", "@blocked 1", "b RPUSH m x", "a:1"],
    &["a:0 BLMOVE k l LEFT RIGHT 0", "@blocked 1", "b RPUSH k x", "a:1", "b LRANGE l 0 -1"],
    &["a:0 BZPOPMAX z 0", "@blocked 1", "b ZADD z 1 m", "a:1"],
    &["a:0 XREAD BLOCK 0 STREAMS s $", "@blocked 1", "b XADD s 1-1 f v", "a:1"],
    &["b XGROUP CREATE s g $ MKSTREAM", "a:0 XREADGROUP GROUP g c BLOCK 0 STREAMS s >", "@blocked 1", "b XADD s 1-1 f v", "a:1", "b XPENDING s g"],
    // In the order in which they came.
    &["a:0 BLPOP k 0", "@blocked 1", "b:0 BLPOP k 0", "@blocked 2", "c:0 BLPOP k 0", "@blocked 3", "d RPUSH k 1 2 3", "a:1", "b:1", "c:1"],
    &["a:0 BLPOP k 0", "@blocked 1", "b:0 BLMOVE k l LEFT LEFT 0", "@blocked 2", "d RPUSH k 1 2", "a:1", "b:1", "d LRANGE l 0 -1"],
    &["a:0 BLPOP k 0", "@blocked 1", "b MULTI", "b RPUSH k 1", "b DEL k", "b EXEC", "b RPUSH k 2", "a:1"],
    // What is behind a blocking command waits for it.
    &["a:0 BLPOP k 0", "a:0 PING", "a:0 GET v", "@blocked 1", "b SET v 1", "b RPUSH k x", "a:3"],
    &["a SET v 0", "a:0 BLPOP k 0", "a:0 INCR v", "@blocked 1", "b GET v", "b RPUSH k x", "a:2"],
    &["a SET v 1", "a BLPOP k 0.01", "a INCR v", "a BLPOP k 0.01", "a GET v"],
    // Errors.
    &["a BLPOP k -1", "a BLPOP k nonsense", "a BLPOP k", "a BLPOP", "a BLMPOP 0 x k LEFT", "a BLMOVE k l UP DOWN 0"],
    &["a SET k text", "a BLPOP k 0", "a BZPOPMIN k 0", "a XREAD BLOCK 0 STREAMS k 0", "a PING"],
    &["a XREAD BLOCK -1 STREAMS s $", "a XREAD BLOCK x STREAMS s $", "a XREAD BLOCK 0 STREAMS s", "a XREADGROUP GROUP g c BLOCK 0 STREAMS s >"],
    &["@since 7.0", "a:0 XREADGROUP GROUP g c BLOCK 0 STREAMS s >", "a:1", "b XGROUP CREATE s g $ MKSTREAM", "a:0 XREADGROUP GROUP g c BLOCK 0 STREAMS s >", "@blocked 1", "b DEL s", "a:1"],
    // The wrong type does not wake it.
    &["a:0 BLPOP k 0", "@blocked 1", "b SET k text", "b DEL k", "b RPUSH k x", "a:1"],
    // Databases.
    &["a SELECT 2", "a:0 BLPOP k 0", "@blocked 1", "b RPUSH k zero", "b SELECT 2", "b RPUSH k two", "a:1", "a SELECT 0", "a LPOP k"],
    &["a SELECT 1", "a:0 BLPOP k 0", "@blocked 1", "b RPUSH k x", "b SWAPDB 0 1", "a:1"],
    // One client wakes the other in a chain.
    &["a:0 BLMOVE k l LEFT LEFT 0", "@blocked 1", "b:0 BLPOP l 0", "@blocked 2", "c RPUSH k x", "a:1", "b:1"],
    // Replies that are not wanted.
    &["a RPUSH k x", "a:0 CLIENT REPLY SKIP", "a:0 BLPOP k 0", "a EXISTS k"],
    &["a:0 CLIENT REPLY OFF", "a:0 BLPOP k 0", "@blocked 1", "b RPUSH k x", "a CLIENT REPLY ON", "a EXISTS k"],
    // Leaving.
    &["a:0 BLPOP k 0", "a:0 QUIT", "@blocked 1", "b RPUSH k x", "a:close"],
    &["a:0 BLPOP k 0", "@blocked 1", "@gone a", "@blocked 0", "b RPUSH k x", "b LRANGE k 0 -1"],
    &["a WATCH w", "a:0 BLPOP k 0", "@blocked 1", "@gone a", "@blocked 0", "b RPUSH k x", "b LRANGE k 0 -1"],
];

#[test]
fn blocking_commands_answer_as_at_redis() {
    let redis = RedisServer::start();
    let behind = RedisServer::start();
    for settings in ["", "[process]\nworkers = 1\n"] {
        let weir = weir(&behind, settings);
        dialogue::compare(&redis, &behind, weir.address(), DIALOGUES);
        assert!(!weir.log().contains("panicked"), "{}", weir.log());
    }
}

#[test]
fn a_client_is_unblocked_by_its_id_as_at_redis() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "");
    for hello in ["2", "3"] {
        for (how, reply) in [
            (&[][..], if hello == "2" { "*-1\r\n" } else { "_\r\n" }),
            (&["TIMEOUT"], if hello == "2" { "*-1\r\n" } else { "_\r\n" }),
            (
                &["ERROR"],
                "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n",
            ),
        ] {
            let mut blocked = weir.client();
            blocked.command(&["HELLO", hello]);
            let id = String::from_utf8(blocked.command(&["CLIENT", "ID"])).expect("a number");
            let id = id.trim_start_matches(':').trim_end();
            blocked.send(encode(&["BLPOP", "k", "0"]));
            wait_until("it is blocked", || {
                redis.info("clients", "blocked_clients") == "1"
            });
            let mut other = weir.client();
            other.expect_command(&[&["CLIENT", "UNBLOCK", id], how].concat(), ":1\r\n");
            blocked.expect(reply);
            other.expect_command(&["CLIENT", "UNBLOCK", id], ":0\r\n");
            blocked.expect_command(&["EXISTS", "k"], ":0\r\n");
        }
    }
}

#[test]
fn plain_traffic_flows_while_as_many_block_as_may() {
    let redis = RedisServer::start();
    let weir = weir(
        &redis,
        "max_connections = 6\nmax_blocking = 4\nlease_wait = \"20s\"\n",
    );
    let mut blocked: Vec<_> = (0..6).map(|_| weir.client()).collect();
    for (number, client) in blocked.iter_mut().enumerate() {
        client.send(encode(&["BLPOP", &format!("k{number}"), "0"]));
    }
    wait_until("some are blocked, the others in line", || {
        let held = weir.metric("weir_leases_held", &[]);
        held >= 1.0 && held + weir.metric("weir_leases_waiting", &[]) == 6.0
    });
    let mut other = weir.client();
    for number in 0..100 {
        other.expect_command(&["INCR", "n"], format!(":{}\r\n", number + 1));
    }
    // Each gets its turn as those before it are served.
    for number in 0..6 {
        other.expect_command(&["RPUSH", &format!("k{number}"), "x"], ":1\r\n");
    }
    for (number, client) in blocked.iter_mut().enumerate() {
        client.expect(format!("*2\r\n$2\r\nk{number}\r\n$1\r\nx\r\n"));
    }
}
