//! Redis has as many clients as it takes: Weir goes on with what it has.

use std::thread;

use super::support::{RawClient, RedisServer, wait_until};
use super::{error, weir};

/// Takes what Redis has left until it refuses.
fn fill(redis: &RedisServer) -> Vec<RawClient> {
    let mut crowd = Vec::new();
    loop {
        let mut client = RawClient::connect(redis.address());
        match client.try_command(&["PING"]) {
            Ok(reply) if reply == b"+PONG\r\n" => crowd.push(client),
            _ => return crowd,
        }
    }
}

#[test]
fn a_full_redis_is_served_over_the_connections_that_are_there() {
    for workers in [1, 4] {
        let redis = RedisServer::with(&["--maxclients", "12"]);
        let weir = weir(&redis, &format!("[process]\nworkers = {workers}\n"));
        let mut first = weir.client();
        first.expect_command(&["SET", "k", "v"], "+OK\r\n");
        let crowd = fill(&redis);
        // Several workers, databases and protocols, which would all like a connection.
        thread::scope(|scope| {
            for id in 0..16 {
                let address = weir.address();
                scope.spawn(move || {
                    let mut client = RawClient::connect(address);
                    for round in 0..30 {
                        let reply = match (id + round) % 4 {
                            0 => {
                                client.command(&["SELECT", if round % 8 == 0 { "1" } else { "0" }])
                            }
                            _ => client.command(&["ECHO", &format!("{id}:{round}")]),
                        };
                        let expected = format!("{id}:{round}");
                        let expected = format!("${}\r\n{expected}\r\n", expected.len());
                        assert!(
                            reply == b"+OK\r\n" || reply == expected.as_bytes(),
                            "client {id}: {}",
                            reply.escape_ascii()
                        );
                    }
                });
            }
        });
        first.expect_command(&["GET", "k"], "$1\r\nv\r\n");
        wait_until("Weir is ready", || weir.get("/readyz").0 == 200);
        wait_until("the log says why", || weir.log().contains("maxclients"));
        drop(crowd);
        // With room again, a transaction gets a connection of its own.
        wait_until("there is room again", || {
            weir.client().command(&["WATCH", "k"]) == b"+OK\r\n"
        });
    }
}

#[test]
fn when_no_connection_is_left_the_error_is_weir_s_own() {
    let redis = RedisServer::with(&["--maxclients", "10"]);
    // It does not look at Redis by itself either.
    let weir = weir(&redis, "[route.main.health]\nwatch_interval = 0\n");
    wait_until("Weir is ready", || weir.get("/readyz").0 == 200);
    wait_until("Weir has no connection open", || {
        weir.metric("weir_backend_connections", &[]) == 0.0
    });
    let crowd = fill(&redis);
    let mut client = weir.client();
    for command in [
        &["GET", "k"][..],
        &["WATCH", "k"],
        &["BLPOP", "k", "0"],
        &["SUBSCRIBE", "c"],
        &["INFO"],
    ] {
        let reply = client.command(command);
        let text = error(&reply).unwrap_or_default();
        assert!(
            text.starts_with("BUSY weir: ")
                && text.contains("maxclients")
                && text.contains("not executed"),
            "{command:?}: {}",
            reply.escape_ascii()
        );
    }
    drop(crowd);
    wait_until("Weir serves again", || {
        client.command(&["GET", "k"]) == b"$-1\r\n"
    });
}
