//! Every case of a transaction, said to Redis and to Weir, line by line and at once.

use super::support::RedisServer;
use super::support::dialogue::{self, Pace, hear};
use super::weir;

/// Dialogues that must be heard the same way at Redis and through Weir.
#[rustfmt::skip] // one dialogue, one line
const DIALOGUES: &[&[&str]] = &[
    // What does not belong.
    &["a EXEC", "a DISCARD", "a UNWATCH", "a EXEC now", "a MULTI now", "a PING"],
    // Empty.
    &["a MULTI", "a EXEC", "a PING"],
    &["a HELLO 3", "a MULTI", "a EXEC"],
    // Ordinary.
    &["a SET k 1", "a MULTI", "a INCR k", "a GET k", "a ECHO x", "a EXEC", "a GET k"],
    &["a MULTI", "a SET k 1", "a DISCARD", "a GET k", "a EXEC"],
    // Neither spoils the block.
    &["a MULTI", "a MULTI", "a SET k 1", "a EXEC"],
    &["a MULTI", "a WATCH k", "a SET k 1", "a EXEC"],
    // These do.
    &["a MULTI", "a NOSUCHCOMMAND x", "a SET k 1", "a EXEC", "a GET k"],
    &["a MULTI", "a SET k 1", "a GET", "a EXEC", "a GET k"],
    &["a MULTI", "a SET k 1", "a GET", "a DISCARD", "a GET k"],
    &["a MULTI", "a SET k 1", "a SELECT", "a EXEC", "a GET k"],
    &["a MULTI", "a SET k 1", "a CLIENT NOSUCH", "a EXEC", "a GET k"],
    &["a MULTI", "a SET k 1", "a SAVE", "a EXEC", "a GET k"],
    &["a MULTI", "a SET k 1", "a SYNC", "a EXEC", "a GET k"],
    &["a MULTI", "a SET k 1", "a EXEC now", "a EXEC", "a GET k"],
    &["a MULTI", "a SET k 1", "a DISCARD now", "a EXEC", "a GET k"],
    // Errors when it runs are elements.
    &["a SET k text", "a MULTI", "a INCR k", "a LPUSH k x", "a SET k 2", "a EXEC", "a GET k"],
    &["a MULTI", "a EVAL nonsense 0", "a SET k 2", "a EXEC", "a GET k"],
    &["a MULTI", "a EVAL return{1,ARGV[1]} 0 x", "a EXEC"],
    // Watched keys.
    &["a WATCH k", "b SET k 1", "a MULTI", "a SET k 2", "a EXEC", "a GET k"],
    &["a HELLO 3", "a WATCH k", "b SET k 1", "a MULTI", "a SET k 2", "a EXEC", "a GET k"],
    &["a WATCH k", "a MULTI", "b SET k 1", "a SET k 2", "a EXEC", "a GET k"],
    &["a WATCH k", "a GET k", "a MULTI", "a SET k 2", "a EXEC", "a GET k"],
    &["a WATCH k", "a SET k 1", "a MULTI", "a SET k 2", "a EXEC", "a GET k"],
    &["a WATCH k", "b SET k 1", "a UNWATCH", "a MULTI", "a SET k 2", "a EXEC"],
    &["a WATCH k", "b SET k 1", "a MULTI", "a DISCARD", "a MULTI", "a SET k 2", "a EXEC"],
    &["a WATCH k", "a MULTI", "a UNWATCH", "b SET k 1", "a SET k 2", "a EXEC"],
    &["a WATCH k", "b SET k 1", "a EXEC", "a MULTI", "a SET k 2", "a EXEC"],
    &["a WATCH k", "a WATCH l", "b SET l 1", "a MULTI", "a PING", "a EXEC", "a MULTI", "a PING", "a EXEC"],
    &["a WATCH", "a WATCH k", "a GET", "a NOSUCHCOMMAND", "a MULTI", "a PING", "a EXEC"],
    &["a WATCH k", "b FLUSHALL", "a MULTI", "a PING", "a EXEC"],
    &["b SET k 1", "a WATCH k", "b FLUSHALL", "a MULTI", "a PING", "a EXEC"],
    &["b SET k 1", "a WATCH k", "b SWAPDB 0 1", "a MULTI", "a PING", "a EXEC"],
    &["b SET k 1 PX 1", "b WAIT 1 20", "a WATCH k", "a MULTI", "a PING", "a EXEC"],
    &["b SET k 1 PX 500", "a WATCH k", "b WAIT 1 700", "a MULTI", "a PING", "a EXEC"],
    // Watched keys and databases.
    &["a SELECT 2", "a WATCH k", "b SELECT 2", "b SET k 1", "a MULTI", "a PING", "a EXEC"],
    &["a WATCH k", "a SELECT 2", "a SET k x", "a MULTI", "a GET k", "a EXEC", "a GET k"],
    &["a WATCH k", "a SELECT 2", "b SET k 1", "a MULTI", "a GET k", "a EXEC", "a SET k y", "a GET k"],
    &["a WATCH k", "a SELECT 99", "a SET k x", "a MULTI", "a GET k", "a EXEC", "a GET k"],
    // The database changes when the block has run.
    &["a SET k zero", "a MULTI", "a SELECT 3", "a SET k three", "a EXEC", "a GET k", "a SELECT 0", "a GET k"],
    &["a MULTI", "a SELECT 3", "a GET", "a EXEC", "a SET k zero", "b GET k"],
    &["a MULTI", "a SELECT 3", "a DISCARD", "a SET k zero", "b GET k"],
    &["a WATCH k", "a MULTI", "a SELECT 3", "b SET k 1", "a EXEC", "a SET k zero", "b GET k"],
    &["a MULTI", "a SELECT 99", "a SELECT 4", "a SELECT 98", "a EXEC", "a SET k four", "b SELECT 4", "b GET k"],
    &["a MULTI", "a MULTI", "a SELECT 3", "a EXEC", "a SET k three", "b SELECT 3", "b GET k"],
    // What would block does not.
    &["a MULTI", "a BLPOP k 0", "a BRPOPLPUSH k l 0", "a BLMOVE k l LEFT LEFT 0", "a BZPOPMIN z 0", "a EXEC"],
    &["a HELLO 3", "a MULTI", "a BLPOP k 0", "a BRPOPLPUSH k l 0", "a BZPOPMIN z 0", "a EXEC"],
    &["a XADD s 1-1 f v", "a MULTI", "a XREAD BLOCK 0 STREAMS s 1-1", "a XREAD BLOCK 0 STREAMS s 0", "a WAIT 0 0", "a EXEC"],
    &["a RPUSH k x", "a MULTI", "a BLPOP k 0", "a EXEC", "a EXISTS k"],
    &["a WATCH k", "a RPUSH k x", "a BLPOP k 1", "a MULTI", "a PING", "a EXEC"],
    // State that only a connection of its own has.
    &["a:1 MULTI", "a HELLO 3", "a GET k", "a EXEC", "a GET k", "a HGETALL h"],
    &["a MULTI", "a SUBSCRIBE x y", "a PING", "a:2 EXEC", "b PUBLISH x hello", "a:1", "a:2 UNSUBSCRIBE x y", "a GET k"],
    &["a MULTI", "a SSUBSCRIBE x", "a EXEC", "a GET k"],
    &["a MULTI", "a MONITOR", "a EXEC", "a GET k"],
    &["a MULTI", "a UNSUBSCRIBE", "a EXEC", "a GET k"],
    // Leaving.
    &["a MULTI", "a SET k 1", "a:close QUIT", "b GET k"],
    &["a MULTI", "a SET k 1", "a RESET", "a EXEC", "a GET k"],
    &["a WATCH k", "a RESET", "b SET k 1", "a MULTI", "a PING", "a EXEC"],
    &["a HELLO 3", "a MULTI", "a RESET", "a MULTI", "a GET k", "a EXEC"],
    // Replies that the client does not want.
    &["a:0 CLIENT REPLY SKIP", "a:0 MULTI", "a SET k 1", "a EXEC"],
    &["a:0 CLIENT REPLY OFF", "a:0 MULTI", "a:0 SET k 1", "a:0 EXEC", "a CLIENT REPLY ON", "a GET k"],
    // Two blocks of two clients do not mix.
    &["a MULTI", "b MULTI", "a SET k a", "b SET k b", "a GET k", "b GET k", "b EXEC", "a EXEC"],
];

/// Dialogues that need a server that was started with arguments of its own.
#[rustfmt::skip] // one dialogue, one line
const LIMITED: &[&[&str]] = &[
    &["a MULTI", "a SET k 1", "a EXEC", "a SET k 2"],
    &["a MULTI", "a GET k", "a EXEC"],
    &["a WATCH k", "a MULTI", "a SET k 1", "a EXEC"],
];

#[rustfmt::skip] // one dialogue, one line
const ACL: &[&[&str]] = &[
    &["a AUTH reader secret", "a MULTI", "a GET k", "a EXEC"],
    &["a AUTH reader secret", "a MULTI", "a SET k 1", "a GET k", "a EXEC", "a GET k"],
    &["a AUTH nomulti secret", "a MULTI", "a SET k 1", "a EXEC", "a GET k"],
    &["a AUTH noexec secret", "a MULTI", "a SET k 1", "a EXEC", "a GET k"],
    &["a AUTH nodiscard secret", "a MULTI", "a SET k 1", "a DISCARD", "a SET k 2", "a EXEC", "a GET k"],
    &["a AUTH nowatch secret", "a WATCH k", "a MULTI", "a SET k 1", "a EXEC"],
    // The rules change between queueing and running.
    &["a AUTH changing secret", "a MULTI", "a SET k 1", "b ACL SETUSER changing -set", "a EXEC", "a GET k", "b ACL SETUSER changing +set"],
    &["a MULTI", "a AUTH reader secret", "a SET k 1", "a EXEC", "a SET k 2"],
];

const USERS: &[&str] = &[
    "x ACL SETUSER reader on >secret ~* +@all -@write",
    "x ACL SETUSER nomulti on >secret ~* +@all -multi",
    "x ACL SETUSER noexec on >secret ~* +@all -exec",
    "x ACL SETUSER nodiscard on >secret ~* +@all -discard",
    "x ACL SETUSER nowatch on >secret ~* +@all -watch",
    "x ACL SETUSER changing on >secret ~* +@all",
];

fn compare(redis_arguments: &[&str], backend: &str, before: &[&str], dialogues: &[&[&str]]) {
    let redis = RedisServer::with(redis_arguments);
    let behind = RedisServer::with(redis_arguments);
    let weir = weir(&behind, backend);
    for server in [&redis, &behind] {
        hear(server.address(), server, before, Pace::LineByLine);
    }
    dialogue::compare(&redis, &behind, weir.address(), dialogues);
    assert!(!weir.log().contains("panicked"), "{}", weir.log());
}

#[test]
fn transactions_answer_as_at_redis() {
    compare(&[], "", &[], DIALOGUES);
}

#[test]
fn also_with_one_worker_s_share_of_a_small_budget() {
    compare(
        &[],
        "max_connections = 4\nlease_wait = \"20s\"",
        &[],
        DIALOGUES,
    );
}

#[test]
fn a_server_that_refuses_writes_spoils_a_block_as_at_redis() {
    compare(&["--maxmemory", "1"], "", &[], LIMITED);
    compare(&["--min-replicas-to-write", "1"], "", &[], LIMITED);
}

#[test]
fn permissions_are_checked_when_queued_and_when_run() {
    compare(&[], "", USERS, ACL);
}
