//! Who has to wait for a connection of his own: the line has a length and the wait an
//! end, and the refusal says which setting to turn.

use std::time::{Duration, Instant};

use super::support::{RawClient, RedisServer, encode, wait_until};
use super::{connections, weir};

/// Two that take the only connection of a kind, and what they say.
const KINDS: [(&str, &str, &[&str]); 3] = [
    ("max_blocking", "blocking", &["BLPOP", "k", "0"]),
    ("max_leases", "lease", &["MONITOR"]),
    ("max_leases", "lease", &["WATCH", "k"]),
];

fn refusal(client: &mut RawClient) -> String {
    let reply = String::from_utf8(client.read_reply()).expect("text");
    assert!(
        reply.starts_with("-BUSY weir: ") && reply.ends_with("command not executed\r\n"),
        "{reply}"
    );
    reply
}

#[test]
fn a_wait_ends_with_the_name_of_the_setting() {
    let redis = RedisServer::start();
    for (setting, kind, command) in KINDS {
        let weir = weir(&redis, &format!("{setting} = 1\nlease_wait = \"1s\"\n"));
        let mut holder = weir.client();
        holder.send(encode(command));
        wait_until("the only one is taken", || connections(&weir, kind) == 1.0);
        let mut waiting = weir.client();
        let asked = Instant::now();
        waiting.send(encode(command));
        let text = refusal(&mut waiting);
        assert!(text.contains(setting), "{command:?}: {text}");
        assert!(asked.elapsed() >= Duration::from_secs(1), "it did not wait");
        // It goes on with other things, and is served when the other has left.
        waiting.expect_command(&["PING"], "+PONG\r\n");
        drop(holder);
        wait_until("there is room again", || {
            let mut next = weir.client();
            next.send(encode(command));
            next.send(encode(&["PING"]));
            match command[0] {
                "BLPOP" => connections(&weir, kind) == 1.0,
                _ => !next.read_reply().starts_with(b"-"),
            }
        });
    }
}

#[test]
fn a_line_that_is_full_refuses_at_once() {
    let redis = RedisServer::start();
    for (setting, kind, command) in KINDS {
        let weir = weir(
            &redis,
            &format!("{setting} = 1\nlease_wait = \"20s\"\nlease_queue = 2\n"),
        );
        let mut holder = weir.client();
        holder.send(encode(command));
        wait_until("the only one is taken", || connections(&weir, kind) == 1.0);
        let mut line: Vec<_> = (0..2).map(|_| weir.client()).collect();
        line.iter_mut()
            .for_each(|client| client.send(encode(command)));
        wait_until("two are in line", || {
            weir.metric("weir_leases_waiting", &[]) == 2.0
        });
        let mut late = weir.client();
        late.send(encode(command));
        let text = refusal(&mut late);
        assert!(
            text.contains("too many wait") && text.contains(setting),
            "{text}"
        );
        late.expect_command(&["PING"], "+PONG\r\n");
        // Who leaves the line makes room in it.
        line.pop().expect("two").reset();
        wait_until("one has left the line", || {
            weir.metric("weir_leases_waiting", &[]) < 2.0
        });
        drop(holder);
    }
}

#[test]
fn which_limit_leaves_no_connection_is_told_when_it_begins_and_when_it_is_over() {
    let redis = RedisServer::start();
    for (setting, kind, command) in KINDS {
        let mut weir = weir(
            &redis,
            &format!("{setting} = 1\nlease_wait = \"1s\"\nlease_queue = 1\n"),
        );
        let kind_label = format!("kind=\"{kind}\"");
        let max = weir.metric("weir_backend_connections_kind_max", &[&kind_label]);
        assert_eq!(max, 1.0);
        assert_eq!(
            weir.metric("weir_backend_connections_waiting_max", &[]),
            1.0
        );
        let mut holder = weir.client();
        holder.send(encode(command));
        wait_until("the only one is taken", || connections(&weir, kind) == 1.0);
        let mut waits = weir.client();
        waits.send(encode(command));
        weir.wait_for_metric("weir_leases_waiting", &[], 1.0);
        for _ in 0..2 {
            let mut late = weir.client();
            late.send(encode(command));
            refusal(&mut late);
        }
        refusal(&mut waits);
        let name = format!("backend.{setting}");
        let label = format!("setting=\"{name}\"");
        for (reason, times) in [("queue", 2.0), ("wait", 1.0)] {
            let reason = format!("reason=\"{reason}\"");
            let labels = [&*label, &*reason];
            weir.wait_for_metric("weir_backend_connections_refused_total", &labels, times);
        }
        let all = weir.metric("weir_backend_connections_refused_total", &[]);
        assert_eq!(all, 3.0, "of no other limit");
        weir.wait_for_log(&format!("{name} is reached: commands are refused"));
        assert_eq!(weir.metric("weir_setting_reached", &[&label]), 1.0);
        drop(holder);
        weir.wait_for_log(&format!("{name} is no longer reached"));
        weir.wait_for_metric("weir_setting_reached", &[], 0.0);
        let told = weir.log().matches(&format!("{name} is reached")).count();
        assert_eq!(told, 1, "not for each");
        let (_, events) = weir.get("/events.json");
        for kind in ["limit_reached", "limit_cleared"] {
            assert!(events.contains(kind) && events.contains(&name), "{events}");
        }
    }
}

#[test]
fn a_limit_of_zero_refuses_with_its_name() {
    let redis = RedisServer::start();
    let subscribe = ("max_subscriptions", "subscription", &["SUBSCRIBE", "x"][..]);
    for (setting, _, command) in KINDS.into_iter().chain([subscribe]) {
        let weir = weir(&redis, &format!("{setting} = 0\n"));
        let reply = String::from_utf8(weir.client().command(command)).expect("text");
        assert!(
            reply.starts_with("-ERR weir: ") && reply.contains(setting),
            "{command:?}: {reply}"
        );
    }
}

#[test]
fn the_time_in_line_is_part_of_a_blocking_command_s_timeout() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "max_blocking = 1\nlease_wait = \"20s\"\n");
    let mut holder = weir.client();
    holder.send(encode(&["BLPOP", "k", "0.5"]));
    wait_until("the only one is taken", || {
        connections(&weir, "blocking") == 1.0
    });
    let mut waiting = weir.client();
    let asked = Instant::now();
    waiting.send(encode(&["BLPOP", "k", "0.7"]));
    holder.expect("*-1\r\n");
    waiting.expect("*-1\r\n");
    let took = asked.elapsed();
    assert!(took >= Duration::from_millis(690), "too early: {took:?}");
}

/// What is left of a timeout for Redis is less by the time in line.
#[test]
fn redis_is_told_what_is_left_of_a_timeout() {
    const IN_LINE: Duration = Duration::from_millis(300);
    let redis = RedisServer::start();
    let weir = weir(&redis, "max_blocking = 1\nlease_wait = \"20s\"\n");
    let mut holder = weir.client();
    holder.send(encode(&["BLPOP", "held", "0"]));
    wait_until("it is blocked", || {
        redis.info("clients", "blocked_clients") == "1"
    });
    let mut monitor = redis.client();
    monitor.expect_command(&["MONITOR"], "+OK\r\n");
    let mut waiting = weir.client();
    waiting.send(encode(&["BLPOP", "k", "20"]));
    weir.wait_for_metric("weir_leases_waiting", &[], 1.0);
    let seen_in_line = Instant::now();
    wait_until("it has waited for a while", || {
        seen_in_line.elapsed() > IN_LINE
    });
    redis
        .client()
        .expect_command(&["RPUSH", "held", "x"], ":1\r\n");
    holder.expect("*2\r\n$4\r\nheld\r\n$1\r\nx\r\n");
    let left: f64 = loop {
        let line = String::from_utf8(monitor.read_reply()).expect("text");
        if let Some((_, left)) = line.split_once("\"BLPOP\" \"k\" \"") {
            break left
                .trim_end_matches(['"', '\r', '\n'])
                .parse()
                .expect(&line);
        }
    };
    let most = 20.0 - IN_LINE.as_secs_f64();
    assert!(0.0 < left && left <= most, "{left} of 20 seconds are left");
    redis
        .client()
        .expect_command(&["RPUSH", "k", "x"], ":1\r\n");
    waiting.expect("*2\r\n$1\r\nk\r\n$1\r\nx\r\n");
}
