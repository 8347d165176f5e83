//! The same dialogues with Redis and with a Weir where everybody has to share.

use super::support::{RedisServer, dialogue};
use super::{blocked, crowded};

#[rustfmt::skip] // one dialogue, one line
const DIALOGUES: &[&[&str]] = &[
    // There is something.
    &["a RPUSH k x y z", "a BLPOP k 0", "a BRPOP k 0", "a BLMOVE k l LEFT RIGHT 0", "a BRPOPLPUSH l m 0", "a LRANGE m 0 -1"],
    &["a ZADD z 1 a 2 b 3 c", "a BZPOPMIN z 0", "a BZPOPMAX z 0"],
    &["@since 7.0", "a ZADD z 1 a 2.5 b inf c", "a BZMPOP 0 1 z MIN COUNT 5", "a EXISTS z", "a RPUSH k x y z", "a BLMPOP 0 2 nothing k LEFT COUNT 2", "a LRANGE k 0 -1"],
    &["a XADD s 1-1 f v", "a XADD s 1-2 f v", "a XREAD BLOCK 0 STREAMS s 0", "a XREAD COUNT 1 BLOCK 0 STREAMS s 0", "a XREAD BLOCK 0 STREAMS none s 0 1-1"],
    &["a HELLO 3", "a RPUSH k x", "a BLPOP k 0", "a ZADD z 1.5 m -inf n", "a BZPOPMIN z 0", "a BZPOPMAX z 0", "a XADD s 1-1 f v", "a XREAD BLOCK 0 STREAMS s 0"],
    &["@since 7.0", "a HELLO 3", "a ZADD z 1.5 m 2 n", "a BZMPOP 0 1 z MAX COUNT 5", "a RPUSH k x", "a BLMPOP 0 1 k LEFT"],
    // There is nothing, and nothing comes.
    &["a BLPOP k 0.01", "a BRPOP k l 0.01", "a BLMOVE k l LEFT LEFT 0.01", "a BRPOPLPUSH k l 0.01", "a BZPOPMIN z 0.01", "a BZPOPMAX z 0.01", "a XREAD BLOCK 10 STREAMS s $"],
    &["@since 7.0", "a BLMPOP 0.01 1 k LEFT", "a BZMPOP 0.01 1 z MIN"],
    &["a HELLO 3", "a BLPOP k 0.01", "a BLMOVE k l LEFT LEFT 0.01", "a BZPOPMIN z 0.01", "a XREAD BLOCK 10 STREAMS s $"],
    // Something comes.
    &["a:0 BLPOP k 0", "@blocked 1", "b RPUSH k x", "a:1", "b EXISTS k"],
    &["a HELLO 3", "a:0 BRPOP k 0", "@blocked 1", "b RPUSH k x y", "a:1", "b LRANGE k 0 -1"],
    &["a:0 BLPOP k l m 0", "@blocked 1", "b RPUSH m x", "a:1"],
    &["a:0 BLMOVE k l LEFT RIGHT 0", "@blocked 1", "b RPUSH k x", "a:1", "b LRANGE l 0 -1"],
    &["a:0 BZPOPMAX z 0", "@blocked 1", "b ZADD z 1 m", "a:1"],
    &["a HELLO 3", "a:0 BZPOPMIN z 0", "@blocked 1", "b ZADD z 1.25 m", "a:1"],
    &["a:0 XREAD BLOCK 0 STREAMS s $", "@blocked 1", "b XADD s 1-1 f v", "a:1"],
    &["a HELLO 3", "a:0 XREAD BLOCK 0 STREAMS s t $ $", "@blocked 1", "b XADD t 1-1 f v", "a:1"],
    // In the order in which they came, on many queues at once.
    &["a:0 BLPOP k 0", "@blocked 1", "b:0 BLPOP k 0", "@blocked 2", "c:0 BLPOP k 0", "@blocked 3", "d RPUSH k 1 2 3", "a:1", "b:1", "c:1"],
    &["a:0 BLPOP k 0", "@blocked 1", "b:0 BLPOP l 0", "@blocked 2", "c:0 BLPOP m 0", "@blocked 3", "d RPUSH m 1", "c:1", "d RPUSH k 2", "a:1", "d RPUSH l 3", "b:1"],
    &["a:0 BRPOP q1 q2 0", "@blocked 1", "b:0 BRPOP q1 q2 0", "@blocked 2", "d LPUSH q2 1", "a:1", "d LPUSH q1 2", "b:1"],
    &["a:0 BLPOP k 0", "@blocked 1", "b MULTI", "b RPUSH k 1", "b DEL k", "b EXEC", "b RPUSH k 2", "a:1"],
    // What is behind a blocking command waits for it.
    &["a:0 BLPOP k 0", "a:0 PING", "a:0 GET v", "@blocked 1", "b SET v 1", "b RPUSH k x", "a:3"],
    &["a SET v 0", "a:0 BLPOP k 0", "a:0 INCR v", "@blocked 1", "b GET v", "b RPUSH k x", "a:2"],
    &["a SET v 1", "a BLPOP k 0.01", "a INCR v", "a BLPOP k 0.01", "a GET v"],
    // Errors.
    &["a BLPOP k -1", "a BLPOP k nonsense", "a BLPOP k", "a BLPOP", "a BLPOP k -0.1", "a BLMOVE k l UP DOWN 0", "a BZPOPMIN z -1", "a PING"],
    &["a BLPOP k 1e20", "a BRPOP k nan", "a BZPOPMAX z inf", "a BLMOVE k l LEFT LEFT 1e400", "a XREAD BLOCK 99999999999999999999 STREAMS s $", "a XREAD BLOCK 0.5 STREAMS s $", "a PING"],
    &["a EVAL return(redis.call('BLPOP','k',0)) 0", "a EVAL return(redis.call('XREAD','BLOCK',0,'STREAMS','s','$')) 0", "a RPUSH k x", "a EVAL return(redis.call('BLPOP','k',0)) 0", "a PING"],
    &["@since 7.0", "a BLMPOP 0 x k LEFT", "a BLMPOP 0 0 k LEFT", "a BLMPOP 0 1 k UP", "a BLMPOP 0 1 k LEFT COUNT 0", "a BLMPOP -1 1 k LEFT", "a BZMPOP 0 1 k LEFT", "a PING"],
    &["a SET k text", "a BLPOP k 0", "a BZPOPMIN k 0", "a XREAD BLOCK 0 STREAMS k 0", "a XREAD BLOCK 0 STREAMS k $", "a BLMOVE k l LEFT LEFT 0", "a PING"],
    &["a XREAD BLOCK -1 STREAMS s $", "a XREAD BLOCK x STREAMS s $", "a XREAD BLOCK 0 STREAMS s", "a XREAD BLOCK 0 STREAMS s nonsense"],
    &["a MULTI", "a BLPOP k 0", "a BLMOVE k l LEFT LEFT 0", "a XREAD BLOCK 0 STREAMS s $", "a EXEC"],
    // The wrong type does not wake it, and does not hurt who waits beside it.
    &["a:0 BLPOP k 0", "@blocked 1", "b SET k text", "b DEL k", "b RPUSH k x", "a:1"],
    &["a:0 BLPOP k 0", "@blocked 1", "b:0 BLPOP l 0", "@blocked 2", "c SET k text", "d:0 BLPOP m 0", "@blocked 3", "c RPUSH l 1", "b:1", "c RPUSH m 2", "d:1", "c DEL k", "c RPUSH k 3", "a:1"],
    &["a:0 XREAD BLOCK 0 STREAMS s $", "@blocked 1", "b:0 XREAD BLOCK 0 STREAMS t $", "@blocked 2", "c SET s text", "d:0 XREAD BLOCK 0 STREAMS u $", "@blocked 3", "c XADD t 1-1 f v", "b:1", "c XADD u 1-1 f v", "d:1", "c DEL s", "c XADD s 5-5 f v", "a:1"],
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
];

#[test]
fn shared_waits_answer_as_at_redis() {
    let redis = RedisServer::start();
    let behind = RedisServer::start();
    for process in ["[process]\nworkers = 1\n", "[process]\nworkers = 4\n"] {
        let (weir, crowd) = crowded(&behind, process);
        let count = || (blocked(&weir) - crowd.len()).to_string();
        dialogue::compare_and_ask(&redis, &behind, (weir.address(), &count), DIALOGUES);
        assert!(!weir.log().contains("panicked"), "{}", weir.log());
        assert_eq!(weir.metric("weir_blocked_orphans_total", &[]), 0.0);
        assert!(weir.metric("weir_blocked_handed_over_total", &[]) > 10.0);
    }
}
