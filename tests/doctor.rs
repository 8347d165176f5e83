//! `weir doctor` names each trouble when it happens, and none when nothing is wrong.

#![allow(clippy::disallowed_methods)] // A pause between two requests makes the rate.

mod support;

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use support::{RedisServer, WeirProcess, wait_until};
use tokio::time::Instant;

/// What `weir doctor` says.
fn doctor(weir: &WeirProcess) -> String {
    let run = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["doctor", "--admin", &weir.admin_address().to_string()])
        .output()
        .expect("weir runs");
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    String::from_utf8(run.stdout).expect("text")
}

/// What it says when it names this cause.
fn wait_for(weir: &WeirProcess, cause: &str) -> String {
    let mut said = String::new();
    wait_until(cause, || {
        said = doctor(weir);
        said.contains(cause)
    });
    said
}

fn weir(redis: &RedisServer, settings: &str) -> WeirProcess {
    WeirProcess::with_backend(redis, settings)
}

#[test]
fn nothing_is_wrong_with_a_weir_that_does_its_work() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "");
    let mut client = weir.client();
    client.expect_command(&["SET", "key", "value"], "+OK\r\n");
    wait_until("a sample is taken", || {
        weir.get("/overview/minutes.json").1.contains("\"now\":{")
    });
    assert_eq!(doctor(&weir), "Nothing is wrong as far as Weir can see.\n");
    assert_eq!(weir.get("/doctor.json"), (200, "[]".to_owned()));
}

#[test]
fn a_lost_primary_is_named_with_why() {
    let mut redis = RedisServer::start();
    let weir = weir(&redis, "");
    weir.client().expect_command(&["PING"], "+PONG\r\n");
    redis.kill();
    weir.client().command(&["PING"]);
    let said = wait_for(&weir, "CRITICAL primary_lost (route main)");
    assert!(said.contains("refused"), "{said}");
    assert!(said.contains("redis-cli -h 127.0.0.1"), "{said}");
    redis.restart();
    wait_until("all is well again", || {
        doctor(&weir).starts_with("Nothing is wrong")
    });
}

#[test]
fn a_limit_that_is_too_low_is_told_by_clients_who_behave_as_always() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "[route.main.clients]\nmax_clients = 10\n");
    let mut clients: Vec<_> = (0..10).map(|_| weir.client()).collect();
    for client in &mut clients {
        client.expect_command(&["PING"], "+PONG\r\n");
    }
    let said = wait_for(&weir, "limit_too_low");
    assert!(said.contains("10 of 10 clients"), "{said}");
    assert!(
        said.contains("raise clients.max_clients of route main to 20"),
        "{said}"
    );
}

#[test]
fn workers_that_block_are_named_when_others_wait_behind_them() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "max_blocking = 2\n");
    // Moves between lists of their own cannot share a connection.
    let mut workers: Vec<_> = (0..3).map(|_| weir.client()).collect();
    for (number, worker) in workers.iter_mut().enumerate() {
        worker.send(format!("BLMOVE from{number} to{number} LEFT LEFT 0\r\n"));
    }
    let said = wait_for(&weir, "blocked_workers");
    assert!(said.contains("2 of backend.max_blocking = 2"), "{said}");
}

#[test]
fn memory_that_fills_up_is_named() {
    let redis = RedisServer::start();
    let mut admin = redis.client();
    let weir = weir(&redis, "[route.main.health]\nwatch_interval = \"200ms\"\n");
    let value = "x".repeat(1 << 20);
    for key in 0..20 {
        admin.expect_command(&["SET", &format!("key{key}"), &value], "+OK\r\n");
    }
    let used = admin.command(&["INFO", "memory"]);
    let used = String::from_utf8(used).expect("text");
    let used: u64 = used
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"))
        .and_then(|number| number.trim().parse().ok())
        .expect("a number");
    // Redis frees what it has read the values into a little later: a twentieth of all.
    let max = (used as f64 / 0.95) as u64;
    admin.expect_command(&["CONFIG", "SET", "maxmemory", &max.to_string()], "+OK\r\n");
    let said = wait_for(&weir, "memory_filling");
    assert!(said.contains("% of maxmemory is in use"), "{said}");
}

#[test]
fn a_redis_that_others_fill_is_named() {
    let redis = RedisServer::with(&["--maxclients", "40"]);
    let weir = weir(&redis, "[route.main.health]\nwatch_interval = \"200ms\"\n");
    weir.client().expect_command(&["PING"], "+PONG\r\n");
    let others: Vec<_> = (0..34).map(|_| redis.client()).collect();
    let said = wait_for(&weir, "redis_full");
    assert!(said.contains("go around it"), "{said}");
    drop(others);
}

/// The record has to know what is usual before anything is unusual, which takes it a minute and a
/// half: side by side, each with a Weir of its own.
#[test]
fn each_trouble_is_told_from_what_is_usual() {
    thread::scope(|scope| {
        for (name, trouble) in [
            ("spike", against_what_is_usual::spike as fn()),
            ("slow node", against_what_is_usual::slow_node),
            ("slow command", against_what_is_usual::slow_command),
            ("leak", against_what_is_usual::leak),
        ] {
            let named = thread::Builder::new().name(name.to_owned());
            named.spawn_scoped(scope, trouble).expect("a thread");
        }
    });
}

mod against_what_is_usual {
    use std::sync::Mutex;

    use super::*;

    /// Far longer than the record takes to know what is usual.
    const LEARNING_MAX: Duration = Duration::from_secs(300);

    /// Asks so many a second while `condition` holds; fewer if the machine is slow.
    fn ask_while(weir: &WeirProcess, a_second: u32, mut condition: impl FnMut() -> bool) {
        let mut client = weir.client();
        let pause = Duration::from_secs(1) / a_second;
        while condition() {
            client.expect_command(&["GET", "key"], "$-1\r\n");
            thread::sleep(pause);
        }
    }

    /// Weir in front of this Redis that has seen quiet traffic until it knows that this is usual.
    fn accustomed(redis: &RedisServer) -> WeirProcess {
        let weir = weir(redis, "");
        let began = Instant::now();
        ask_while(&weir, 20, || {
            assert!(began.elapsed() < LEARNING_MAX, "the record knows nothing");
            weir.get("/overview/minutes.json")
                .1
                .contains("\"usual\":null")
        });
        weir
    }

    /// Tells the threads beside a test that it is over, however it ends.
    struct Over<'a>(&'a AtomicBool);

    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }

    /// What goes on beside a test until it is told that the test is over.
    type GoesOn<'a> = &'a (dyn Fn(&AtomicBool) + Sync);

    /// What the doctor says when it names this cause, while all these go on.
    fn while_all(weir: &WeirProcess, go_on: &[GoesOn<'_>], cause: &str) -> String {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let _over = Over(&is_over);
            for goes_on in go_on {
                scope.spawn(|| goes_on(&is_over));
            }
            wait_for(weir, cause)
        })
    }

    /// Traffic from everybody.
    pub fn spike() {
        let redis = RedisServer::start();
        let weir = accustomed(&redis);
        let busy: GoesOn<'_> = &|is_over| ask_while(&weir, 500, || !is_over.load(Relaxed));
        let said = while_all(&weir, &[busy; 4], "traffic_spike");
        assert!(said.contains("commands a second, usually"), "{said}");
    }

    /// A slow Redis is told from a busy one.
    pub fn slow_node() {
        let redis = RedisServer::start();
        let weir = accustomed(&redis);
        let usual: GoesOn<'_> = &|is_over| ask_while(&weir, 20, || !is_over.load(Relaxed));
        let redis = Mutex::new(redis);
        // No command of anybody's: the process gets no processor.
        let starved: GoesOn<'_> = &|is_over| {
            let mut redis = redis.lock().expect("no panic");
            while !is_over.load(Relaxed) {
                redis.stop();
                thread::sleep(Duration::from_millis(200));
                redis.cont();
                thread::sleep(Duration::from_millis(20));
            }
        };
        let said = while_all(&weir, &[usual, starved], "slow_node");
        assert!(said.contains("99% of commands took up to"), "{said}");
    }

    pub fn slow_command() {
        const BUSY: &str = "local t = redis.call('TIME'); local from = t[1] * 1000000 + t[2]; \
                            repeat t = redis.call('TIME') \
                            until t[1] * 1000000 + t[2] > from + 100000";
        let redis = RedisServer::start();
        let weir = accustomed(&redis);
        let usual: GoesOn<'_> = &|is_over| ask_while(&weir, 20, || !is_over.load(Relaxed));
        let reports: GoesOn<'_> = &|is_over| {
            let mut client = weir.client();
            while !is_over.load(Relaxed) {
                client.command(&["EVAL", BUSY, "0"]);
            }
        };
        let said = while_all(&weir, &[usual, reports], "slow_command");
        assert!(said.contains("EVAL took "), "{said}");
    }

    /// One who grows and does nothing.
    pub fn leak() {
        let redis = RedisServer::start();
        let weir = weir(&redis, "[route.main.clients]\nmax_clients = 1000\n");
        let leaker = "127.0.0.77".parse().expect("an address");
        let began = Instant::now();
        let mut leaked = Vec::new();
        let mut said = String::new();
        while !said.contains("leak (route main)") {
            assert!(began.elapsed() < LEARNING_MAX, "{said}");
            let mut client = support::RawClient::connect_from(leaker, weir.address());
            client.expect_command(&["PING"], "+PONG\r\n");
            leaked.push(client);
            thread::sleep(Duration::from_millis(400));
            said = doctor(&weir);
        }
        assert!(said.contains("127.0.0.77 holds "), "{said}");
    }
}
