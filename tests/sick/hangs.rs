//! Redis hangs: it takes what is sent to it and answers nothing (SIGSTOP).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::support::{ConnectionWatch, RedisServer, encode, wait_until};
use super::{error, weir};

fn is_tripped(weir: &super::WeirProcess, why: &str) -> bool {
    weir.metric("weir_node_trips_total", &[&format!("why=\"{why}\"")]) > 0.0
        && weir.metric("weir_node_state", &["state=\"healthy\""]) == 0.0
}

/// Clients that ask all the time, each for a key of its own, whose value names it. None is
/// cut, none reads another's value, and all are served when Redis goes on.
#[test]
fn while_redis_hangs_nobody_is_cut_and_afterwards_no_reply_is_mixed_up() {
    for workers in [1, 3] {
        let mut redis = RedisServer::start();
        let mut weir = weir(
            &redis,
            &format!(
                "max_connections = 6\n[route.main.health]\nsilence_max = \"200ms\"\n\
                 [route.main.timeouts]\nrequest = \"2s\"\n[process]\nworkers = {workers}\n"
            ),
        );
        let clients = 24;
        let watch = ConnectionWatch::start(&redis);
        let stop = AtomicBool::new(false);
        let served: Vec<AtomicU64> = (0..clients).map(|_| AtomicU64::new(0)).collect();
        let refused: Vec<AtomicU64> = (0..clients).map(|_| AtomicU64::new(0)).collect();
        let wait_for_more = |counts: &[AtomicU64], what: &str| {
            let before: Vec<u64> = counts.iter().map(|count| count.load(Relaxed)).collect();
            wait_until(what, || {
                let mut pairs = counts.iter().zip(&before);
                pairs.all(|(count, before)| count.load(Relaxed) > before + 3)
            });
        };
        thread::scope(|scope| {
            for id in 0..clients {
                let (weir, stop, served, refused) = (&weir, &stop, &served[id], &refused[id]);
                scope.spawn(move || {
                    let mut client = weir.client();
                    let mut round = 0;
                    while !stop.load(Relaxed) {
                        round += 1;
                        let key = format!("key:{id}:{round}");
                        let value = format!("value:{id}:{round}");
                        client.send(encode(&["SET", &key, &value]));
                        client.send(encode(&["GET", &key]));
                        let (set, get) = (client.read_reply(), client.read_reply());
                        match (error(&set), error(&get)) {
                            (None, None) => {
                                assert_eq!(set, b"+OK\r\n");
                                let expected = format!("${}\r\n{value}\r\n", value.len());
                                assert_eq!(get, expected.as_bytes(), "of client {id}");
                                served.fetch_add(1, Relaxed);
                            }
                            _ => {
                                for reply in [&set, &get] {
                                    check_refusal(reply, &value);
                                }
                                refused.fetch_add(1, Relaxed);
                            }
                        }
                    }
                });
            }
            for _ in 0..2 {
                wait_for_more(&served, "everybody is served");
                redis.stop();
                wait_until("the breaker trips", || is_tripped(&weir, "silent"));
                wait_until("Weir is not ready", || weir.get("/readyz").0 == 503);
                // Answered again and again while Redis says nothing: at once, that is.
                wait_for_more(&refused, "everybody is refused");
                redis.cont();
                wait_until("the breaker heals", || {
                    weir.metric("weir_node_state", &["state=\"healthy\""]) == 1.0
                });
                wait_for_more(&served, "everybody is served again");
                wait_until("Weir is ready", || weir.get("/readyz").0 == 200);
            }
            stop.store(true, Relaxed);
        });
        assert_eq!(weir.metric("weir_clients_closed_total", &["backend"]), 0.0);
        watch.assert_at_most(6);
        weir.wait_for_log("node cannot be used");
        weir.wait_for_log("node is back");
        assert!(!weir.log().contains("panicked"), "{}", weir.log());
    }
}

fn check_refusal(reply: &[u8], value: &str) {
    let Some(text) = error(reply) else {
        let own = format!("${}\r\n{value}\r\n", value.len());
        let is_own = [b"+OK\r\n", b"$-1\r\n", own.as_bytes()].contains(&reply);
        assert!(is_own, "{}", reply.escape_ascii());
        return;
    };
    let is_known = text.ends_with("command not executed") || text.ends_with("outcome unknown");
    assert!(is_known, "{text}");
}

#[test]
fn what_was_sent_before_redis_hung_is_answered_once_and_late_replies_reach_nobody() {
    let mut redis = RedisServer::start();
    let weir = weir(
        &redis,
        "[route.main.timeouts]\nrequest = \"3s\"\n[route.main.health]\nsilence_max = \"2s\"\n\
         [process]\nworkers = 1\n",
    );
    let mut caller = weir.client();
    caller.expect_command(&["SET", "k", "v"], "+OK\r\n");
    redis.stop();
    caller.send(encode(&["INCR", "n"]));
    let reply = caller.read_reply();
    let text = error(&reply).unwrap_or_default();
    assert_eq!(text, "ERR weir: upstream timeout, command outcome unknown");
    wait_until("the breaker trips", || is_tripped(&weir, "silent"));
    for command in [
        &["GET", "k"][..],
        &["INCR", "n"],
        &["WATCH", "k"],
        &["BLPOP", "l", "0"],
        &["INFO"],
        &["EVAL", "return 1", "0"],
    ] {
        let reply = caller.command(command);
        let text = error(&reply).unwrap_or_default();
        assert!(
            text.starts_with("MASTERDOWN weir: ") && text.ends_with("command not executed"),
            "{command:?}: {}",
            reply.escape_ascii()
        );
    }
    // A block is refused whole, in one piece or command by command.
    let block = [&["MULTI"][..], &["INCR", "n"], &["EXEC"]].map(encode);
    caller.send(block.concat());
    let replies = [(); 3].map(|()| caller.read_reply());
    for reply in replies {
        assert!(reply.starts_with(b"-MASTERDOWN"), "{reply:?}");
    }
    caller.expect_command(&["MULTI"], "+OK\r\n");
    let refused = caller.command(&["INCR", "n"]);
    assert!(refused.starts_with(b"-MASTERDOWN"), "{refused:?}");
    let aborted = caller.command(&["EXEC"]);
    assert!(aborted.starts_with(b"-EXECABORT"), "{aborted:?}");
    redis.cont();
    wait_until("Weir serves again", || {
        let reply = caller.command(&["GET", "k"]);
        error(&reply).is_none() && {
            assert_eq!(reply, b"$1\r\nv\r\n");
            true
        }
    });
    // The one that was sent ran, the ones that were refused did not.
    caller.expect_command(&["INCR", "n"], ":2\r\n");
}

/// A command that takes long keeps Redis from answering anybody: that is no reason to
/// take it for sick as long as `silence_max` has not passed, nor when it answers others.
#[test]
fn a_redis_that_answers_somebody_is_not_taken_for_sick() {
    let redis = RedisServer::with(&["--lua-time-limit", "50"]);
    let weir = weir(
        &redis,
        "[route.main.health]\nsilence_max = \"2s\"\n[route.main.timeouts]\nrequest = \"20s\"\n",
    );
    let mut script = weir.client();
    script.expect_command(&["PING"], "+PONG\r\n");
    script.send(encode(&["EVAL", "while true do end", "0"]));
    let mut other = weir.client();
    let (mut busy, began) = (0, Instant::now());
    wait_until("Redis has said for long that it is busy", || {
        let reply = other.command(&["GET", "k"]);
        let is_told = reply.starts_with(b"-BUSY Redis") || reply.starts_with(b"-BUSY Valkey");
        busy += u32::from(is_told);
        busy > 200 && began.elapsed() > Duration::from_secs(4)
    });
    assert_eq!(weir.metric("weir_node_trips_total", &[]), 0.0);
    weir.client().expect_command(&["SCRIPT", "KILL"], "+OK\r\n");
}
