//! `SCRIPT DEBUG`, where it is allowed: a connection of the client's own, byte by byte.

use super::support::{RawClient, RedisServer, wait_until};
use super::{connections, weir};

/// The debugger of Redis speaks a protocol of its own, so its bytes pass as they are.
#[test]
fn a_script_is_debugged_through_weir_as_at_redis() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "");
    let script = "redis.call('set','k','v')\nreturn redis.call('get','k')";
    let session = |mut client: RawClient| {
        let mut told = Vec::new();
        for command in [
            &["SCRIPT", "DEBUG", "NO"][..],
            &["SCRIPT", "DEBUG", "YES"],
            &["EVAL", script, "0"],
            &["step"],
            &["print"],
            &["continue"],
        ] {
            told.push(client.command(command));
        }
        told.push(client.read_reply());
        // Redis ends the connection with the session.
        client.expect_closed();
        told
    };
    let direct = session(redis.client());
    assert_eq!(direct.last().expect("an answer"), b"$1\r\nv\r\n");
    let through = session(weir.client());
    let shown = |told: &[Vec<u8>]| -> Vec<String> {
        let text = |reply: &Vec<u8>| String::from_utf8_lossy(reply).into_owned();
        told.iter().map(text).collect()
    };
    assert_eq!(shown(&through), shown(&direct));
    // Nothing that it did is kept, and nobody else is affected.
    weir.client().expect_command(&["GET", "k"], "$-1\r\n");
    wait_until("the tunnel is closed", || {
        connections(&weir, "tunnel") == 0.0
    });
    // One that leaves in the middle takes its session along.
    let mut leaving = weir.client();
    leaving.expect_command(&["SCRIPT", "DEBUG", "YES"], "+OK\r\n");
    leaving.command(&["EVAL", script, "0"]);
    assert_eq!(connections(&weir, "tunnel"), 1.0);
    drop(leaving);
    wait_until("the tunnel is closed", || {
        connections(&weir, "tunnel") == 0.0
    });
    weir.client().expect_command(&["SET", "k", "v"], "+OK\r\n");
}
