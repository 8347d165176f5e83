//! A script that does not end.

use super::support::{RedisServer, encode, wait_until};
use super::weir;

#[test]
fn while_a_script_runs_for_ever_others_read_busy_and_it_can_be_killed() {
    for workers in [1, 2] {
        let redis = RedisServer::with(&["--lua-time-limit", "100"]);
        let weir = weir(&redis, &format!("[process]\nworkers = {workers}\n"));
        let mut other = weir.client();
        other.expect_command(&["SET", "k", "v"], "+OK\r\n");
        let mut direct = redis.client();
        direct.expect_command(&["PING"], "+PONG\r\n");
        let mut script = weir.client();
        script.send(encode(&["EVAL", "while true do end", "0"]));
        let mut busy = Vec::new();
        wait_until("Redis itself says that it is busy", || {
            busy = direct.command(&["PING"]);
            busy.starts_with(b"-BUSY")
        });
        // Whoever asks next may wait behind the script for a moment; those after do not.
        let mut late = weir.client();
        wait_until("others read Redis's own words", || {
            let heard = late.command(&["GET", "k"]);
            assert_eq!(heard, busy, "{}", heard.escape_ascii());
            true
        });
        let mut killer = weir.client();
        killer.expect_command(&["SCRIPT", "KILL"], "+OK\r\n");
        let end = String::from_utf8(script.read_reply()).expect("text");
        assert!(end.contains("killed by user"), "{end}");
        wait_until("everybody is served again", || {
            late.command(&["GET", "k"]) == b"$1\r\nv\r\n"
        });
        script.expect_command(&["GET", "k"], "$1\r\nv\r\n");
        killer.expect_command(
            &["SCRIPT", "KILL"],
            "-NOTBUSY No scripts in execution right now.\r\n",
        );
    }
}

#[test]
fn a_function_that_runs_for_ever_can_be_killed() {
    let redis = RedisServer::with(&["--lua-time-limit", "100"]);
    if redis.compatible_version() < (7, 0) {
        return;
    }
    let weir = weir(&redis, "");
    let library = "#!lua name=endless\nredis.register_function('endless', \
                   function() while true do end end)";
    let mut killer = weir.client();
    killer.expect_command(&["FUNCTION", "LOAD", library], "$7\r\nendless\r\n");
    let mut caller = weir.client();
    caller.send(encode(&["FCALL", "endless", "0"]));
    let mut direct = redis.client();
    wait_until("Redis itself says that it is busy", || {
        direct.command(&["PING"]).starts_with(b"-BUSY")
    });
    // SCRIPT KILL is not about functions, and Redis says so while it is busy.
    let refusal = killer.command(&["SCRIPT", "KILL"]);
    assert!(refusal.starts_with(b"-BUSY"), "{}", refusal.escape_ascii());
    killer.expect_command(&["FUNCTION", "KILL"], "+OK\r\n");
    let end = String::from_utf8(caller.read_reply()).expect("text");
    assert!(end.contains("killed by user"), "{end}");
    caller.expect_command(&["SET", "k", "v"], "+OK\r\n");
    killer.expect_command(
        &["FUNCTION", "KILL"],
        "-NOTBUSY No scripts in execution right now.\r\n",
    );
}
