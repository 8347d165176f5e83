//! Redis near its own limits: as many clients as it takes, as much memory as it has.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use super::support::{RawClient, RedisServer, encode, wait_until};
use super::weir;

const WATCHED_OFTEN: &str = "[route.main.health]\nwatch_interval = \"100ms\"\n";

/// The demonstration of what Weir is for: more clients than Redis takes, all at once.
#[test]
fn two_thousand_clients_arrive_at_a_redis_that_takes_64_and_nobody_fails() {
    let clients = 2000;
    let redis = RedisServer::with(&["--maxclients", "64"]);
    // Written for the defaults: 64 connections, which are all that Redis has. That the machine
    // is busy with other tests is no overload of Redis.
    let settings = "[process]\nmax_clients = 3000\n[route.main.overload]\ntarget = \"10s\"\n";
    let weir = weir(&redis, settings);
    wait_until("Weir is ready", || weir.get("/readyz").0 == 200);
    let most = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let redis = &redis;
        let (most, stop) = (&most, &stop);
        scope.spawn(move || {
            let mut direct = redis.client();
            while !stop.load(Relaxed) {
                let list = direct.command(&["CLIENT", "LIST"]);
                let lines = list.split(|byte| *byte == b'\n');
                let count = lines.filter(|line| line.starts_with(b"id=")).count();
                most.fetch_max(count, Relaxed);
                thread::sleep(Duration::from_millis(5));
            }
        });
        let threads = 20;
        let arrivals: Vec<_> = (0..threads)
            .map(|part| {
                let weir = &weir;
                scope.spawn(move || {
                    let mut all: Vec<(usize, RawClient)> = Vec::new();
                    for id in (part..clients).step_by(threads) {
                        all.push((id, weir.client()));
                    }
                    for round in 0..5 {
                        for (id, client) in &mut all {
                            let (key, value) = (format!("k{id}"), format!("{id}:{round}"));
                            client.send(encode(&["SET", &key, &value]));
                            client.send(encode(&["GET", &key]));
                        }
                        for (id, client) in &mut all {
                            let value = format!("{id}:{round}");
                            client.expect("+OK\r\n");
                            client.expect(format!("${}\r\n{value}\r\n", value.len()));
                        }
                    }
                    all
                })
            })
            .collect();
        let all: Vec<_> = arrivals
            .into_iter()
            .map(|part| part.join().expect("nobody failed"))
            .collect();
        assert_eq!(all.iter().map(Vec::len).sum::<usize>(), clients);
        stop.store(true, Relaxed);
    });
    assert_eq!(redis.info("stats", "rejected_connections"), "0");
    let most = most.load(Relaxed);
    assert!(most <= 51, "{most} of 64 connections");
    assert!(weir.metric("weir_backend_connections_allowed", &[]) <= 51.0);
}

/// Others fill Redis: Weir makes room by closing its own, and takes it back when they go.
#[test]
fn the_budget_narrows_while_others_fill_redis_and_widens_when_they_have_gone() {
    let redis = RedisServer::with(&["--maxclients", "50"]);
    let weir = weir(&redis, &format!("max_connections = 30\n{WATCHED_OFTEN}"));
    let allowed = || weir.metric("weir_backend_connections_allowed", &[]) as usize;
    let own = || {
        let list = redis.command(&["CLIENT", "LIST"]);
        String::from_utf8_lossy(&list).matches("name=weir:").count()
    };
    wait_until("Redis was asked", || {
        weir.metric("weir_node_clients_max", &[]) == 50.0
    });
    assert_eq!(allowed(), 30);
    // Many partitions, each of which would like a connection of its own.
    let mut clients: Vec<_> = (0..14).map(|_| weir.client()).collect();
    let ask_all = |clients: &mut Vec<RawClient>| {
        for (db, client) in clients.iter_mut().enumerate() {
            client.expect_command(&["SELECT", &db.to_string()], "+OK\r\n");
            client.expect_command(&["SET", "k", &db.to_string()], "+OK\r\n");
            let value = db.to_string();
            client.expect_command(&["GET", "k"], format!("${}\r\n{value}\r\n", value.len()));
        }
    };
    ask_all(&mut clients);
    let crowd: Vec<_> = (0..35)
        .map(|_| {
            let mut client = redis.client();
            client.expect_command(&["PING"], "+PONG\r\n");
            client
        })
        .collect();
    // 80% of 50 are 40, of which the crowd has 35, and this test asks over one more.
    wait_until("the budget is narrow", || allowed() <= 5);
    wait_until("connections have yielded", || own() <= 5);
    // Everybody is served all the same, over what is left.
    ask_all(&mut clients);
    assert_eq!(redis.info("stats", "rejected_connections"), "0");
    drop(crowd);
    wait_until("the budget is wide again", || allowed() == 30);
    ask_all(&mut clients);
    let log = weir.log();
    assert_eq!(log.matches("budget narrowed").count(), 1, "{log}");
    assert_eq!(log.matches("budget as wide as it was").count(), 1, "{log}");
}

#[test]
fn a_redis_that_refuses_config_and_info_is_served_as_ever() {
    let redis = RedisServer::with(&[
        "--maxclients",
        "50",
        "--user",
        "default",
        "on",
        "nopass",
        "~*",
        "&*",
        "+@all",
        "-config",
        "-info",
    ]);
    let weir = weir(&redis, WATCHED_OFTEN);
    let mut client = weir.client();
    let mut direct = redis.client();
    wait_until("Weir has asked for both", || {
        client.expect_command(&["SET", "k", "v"], "+OK\r\n");
        let refused = String::from_utf8_lossy(&direct.command(&["ACL", "LOG"])).into_owned();
        ["\r\nconfig", "\r\ninfo\r\n"]
            .iter()
            .all(|it| refused.contains(it))
    });
    assert_eq!(weir.metric("weir_node_clients_max", &[]), 0.0);
    assert_eq!(weir.metric("weir_backend_connections_allowed", &[]), 64.0);
}

/// Fills Redis until it takes no more, and a little above, since what its clients' buffers
/// take comes and goes.
fn fill(redis: &RedisServer) {
    let (mut direct, value) = (redis.client(), "x".repeat(100_000));
    let mut keys = 0..;
    wait_until("Redis is full", || {
        let key = format!("fill:{:?}", keys.next());
        direct.command(&["SET", &key, &value]).starts_with(b"-OOM")
    });
    direct.expect_command(&["CONFIG", "SET", "maxmemory", "7mb"], "+OK\r\n");
}

#[test]
fn a_redis_that_is_full_says_so_itself_and_can_be_read() {
    let redis = RedisServer::with(&["--maxmemory", "8mb", "--maxmemory-policy", "noeviction"]);
    let weir = weir(&redis, WATCHED_OFTEN);
    let mut client = weir.client();
    client.expect_command(&["SET", "k", "v"], "+OK\r\n");
    fill(&redis);
    let own_words = redis.command(&["SET", "more", "v"]);
    assert!(own_words.starts_with(b"-OOM "));
    for _ in 0..50 {
        client.expect_command(&["SET", "more", "v"], &own_words);
        client.expect_command(&["GET", "k"], "$1\r\nv\r\n");
    }
    let block = [&["MULTI"][..], &["SET", "more", "v"], &["EXEC"]].map(encode);
    client.send(block.concat());
    client.expect("+OK\r\n");
    client.expect(&own_words);
    assert!(client.read_reply().starts_with(b"-EXECABORT"));
    client.expect_command(&["DEL", "k"], ":1\r\n");
    assert_eq!(weir.metric("weir_node_trips_total", &[]), 0.0);
    wait_until("Weir says so", || {
        weir.log().contains("memory is nearly used up")
    });
    wait_until("the metric does, too", || {
        weir.metric("weir_node_memory_max_bytes", &[]) == 7.0 * 1024.0 * 1024.0
    });
}

#[test]
fn writes_that_need_memory_are_refused_above_the_threshold_and_nothing_else_is() {
    let redis = RedisServer::with(&["--maxmemory", "8mb", "--maxmemory-policy", "noeviction"]);
    let weir = weir(
        &redis,
        &format!("{WATCHED_OFTEN}refuse_writes_above_memory = 0.9\n"),
    );
    let mut client = weir.client();
    client.expect_command(&["SET", "k", "v"], "+OK\r\n");
    fill(&redis);
    let refused = "-BUSY weir: the memory of Redis is nearly used up \
                   (health.refuse_writes_above_memory), command not executed\r\n";
    wait_until("writes are refused", || {
        client.command(&["SET", "more", "v"]) == refused.as_bytes()
    });
    client.expect_command(&["GET", "k"], "$1\r\nv\r\n");
    client.expect_command(&["DEL", "k"], ":1\r\n");
    client.expect_command(&["EXISTS", "k"], ":0\r\n");
    let block = [&["MULTI"][..], &["SET", "more", "v"], &["EXEC"]].map(encode);
    client.send(block.concat());
    for _ in 0..3 {
        client.expect(refused);
    }
    client.expect_command(&["MULTI"], "+OK\r\n");
    client.expect_command(&["SET", "more", "v"], refused);
    client.expect_command(&["GET", "k"], "+QUEUED\r\n");
    let reply = client.command(&["EXEC"]);
    assert!(reply.starts_with(b"-EXECABORT"), "{}", reply.escape_ascii());
    assert!(weir.metric("weir_shed_total", &["limit=\"node_memory\""]) > 0.0);
    redis.client().expect_command(&["FLUSHALL"], "+OK\r\n");
    wait_until("writes are taken again", || {
        client.command(&["SET", "more", "v"]) == b"+OK\r\n"
    });
    wait_until("the log has said it", || {
        weir.log().contains("writes are taken again")
    });
    let log = weir.log();
    assert_eq!(log.matches("writes are refused").count(), 1, "{log}");
    assert_eq!(log.matches("writes are taken again").count(), 1, "{log}");
}

#[test]
fn a_rule_has_its_clients_writes_refused_earlier_or_later_than_the_route() {
    let redis = RedisServer::with(&["--maxmemory", "8mb", "--maxmemory-policy", "noeviction"]);
    let early = "[route.main.limits.early]\nclient_names = \"early\"\n\
                 refuse_writes_above_memory = 0.8\n";
    let late = "[route.main.limits.late]\nclient_names = \"late\"\n\
                refuse_writes_above_memory = 1\n";
    let weir = weir(
        &redis,
        &format!("{WATCHED_OFTEN}refuse_writes_above_memory = 0.9\n{early}{late}"),
    );
    let mut others = weir.client();
    let named = |name: &str| {
        let mut client = weir.client();
        client.expect_command(&["CLIENT", "SETNAME", name], "+OK\r\n");
        client
    };
    let (mut early, mut late) = (named("early"), named("late"));
    early.expect_command(&["SET", "k", "v"], "+OK\r\n");
    fill(&redis);
    let full = redis.command(&["SET", "more", "v"]);
    assert!(full.starts_with(b"-OOM "));
    wait_until("writes are refused", || {
        others.command(&["SET", "more", "v"]).starts_with(b"-BUSY")
    });
    let refused = "-BUSY weir: the memory of Redis is nearly used up \
                   (limits.early.refuse_writes_above_memory), command not executed\r\n";
    // Another worker may hear of it a moment later.
    wait_until("those of the rule's clients are, too", || {
        early.command(&["SET", "more", "v"]) == refused.as_bytes()
    });
    early.expect_command(&["MULTI"], "+OK\r\n");
    early.expect_command(&["SET", "more", "v"], refused);
    early.expect_command(&["DISCARD"], "+OK\r\n");
    late.expect_command(&["SET", "more", "v"], &full);
    early.expect_command(&["GET", "k"], "$1\r\nv\r\n");
    // 7 MiB in use of so much are 85%.
    redis
        .client()
        .expect_command(&["CONFIG", "SET", "maxmemory", "9mb"], "+OK\r\n");
    wait_until("others may write", || {
        others.command(&["SET", "more", "v"]) == b"+OK\r\n"
    });
    wait_until("the rule's limit is told", || {
        weir.metric("weir_limit_refuses_writes", &["limit=\"early\""]) == 1.0
    });
    wait_until("the log says so", || {
        weir.log().contains("writes are refused (limits.early.")
    });
}

/// A cache whose Redis is full, and that is not one which cannot be used.
#[test]
fn a_full_cache_is_read_from_and_only_what_weir_refuses_is_made_up() {
    for (threshold, writes) in [(1.0, "ok"), (0.9, "ok"), (0.9, "error")] {
        let redis = RedisServer::with(&["--maxmemory", "8mb", "--maxmemory-policy", "noeviction"]);
        let weir = weir(
            &redis,
            &format!(
                "{WATCHED_OFTEN}fail_open = true\nfail_open_writes = \"{writes}\"\n\
                 refuse_writes_above_memory = {threshold:?}\n[process]\nworkers = 1\n"
            ),
        );
        let mut client = weir.client();
        client.expect_command(&["SET", "k", "v"], "+OK\r\n");
        fill(&redis);
        let own_words = redis.command(&["SET", "k", "w"]);
        assert!(own_words.starts_with(b"-OOM "));
        let refused = "-BUSY weir: the memory of Redis is nearly used up \
                       (health.refuse_writes_above_memory), command not executed\r\n";
        let weir_refuses = threshold < 1.0;
        if weir_refuses {
            wait_until("Weir refuses", || {
                client.command(&["INCR", "n"]) == refused.as_bytes()
            });
        }
        let (plain, decides) = match (weir_refuses, writes) {
            (false, _) => (own_words.as_slice(), own_words.as_slice()),
            (true, "ok") => (&b"+OK\r\n"[..], refused.as_bytes()),
            (true, _) => (refused.as_bytes(), refused.as_bytes()),
        };
        for _ in 0..50 {
            client.expect_command(&["SET", "k", "w"], plain);
            client.expect_command(&["INCR", "n"], decides);
            client.expect_command(&["SET", "k", "w", "NX"], decides);
            // It was not done: what was there is there.
            client.expect_command(&["GET", "k"], "$1\r\nv\r\n");
            client.expect_command(&["MGET", "k", "n"], "*2\r\n$1\r\nv\r\n$-1\r\n");
        }
        // In their order, with what came of each.
        let pipeline = [&["GET", "k"][..], &["SET", "k", "w"], &["EXISTS", "k"]].map(encode);
        client.send(pipeline.concat());
        client.expect([b"$1\r\nv\r\n", plain, b":1\r\n"].concat());
        // What frees memory is done.
        client.expect_command(&["DEL", "k"], ":1\r\n");
        client.expect_command(&["EXISTS", "k"], ":0\r\n");
        let made_up = |kind: &str| weir.metric("weir_fail_open_total", &[kind]);
        assert_eq!(made_up("kind=\"read\""), 0.0);
        let made_up_writes = if weir_refuses && writes == "ok" {
            51.0
        } else {
            0.0
        };
        assert_eq!(made_up("kind=\"write\""), made_up_writes);
        assert_eq!(weir.metric("weir_node_trips_total", &[]), 0.0);
    }
}
