//! redis-benchmark, which stops with an error at the first error reply.

use std::process::Command;

use crate::support::{ConnectionWatch, RedisServer, WeirProcess};

/// Runs it through `weir` and returns its table: test by test, the requests per second.
fn run(weir: &WeirProcess, arguments: &[&str]) -> Vec<(String, f64)> {
    let output = Command::new("redis-benchmark")
        .args(["-h", "127.0.0.1", "-p", &weir.address().port().to_string()])
        .arg("--csv")
        .args(arguments)
        .output()
        .expect("redis-benchmark starts");
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{arguments:?}: {table}{complaints}"
    );
    assert!(
        !format!("{table}{complaints}").contains("Error"),
        "{arguments:?}: {table}{complaints}"
    );
    table
        .lines()
        .skip(1)
        .map(|line| {
            let mut cells = line.split(',').map(|cell| cell.trim_matches('"'));
            let name = cells.next().expect("a name").to_owned();
            let rate = cells.next().and_then(|cell| cell.parse().ok());
            (name, rate.unwrap_or_else(|| panic!("no rate in {line:?}")))
        })
        .collect()
}

fn start() -> (RedisServer, WeirProcess, ConnectionWatch) {
    let redis = RedisServer::start();
    let weir = WeirProcess::in_front_of(&redis);
    let watch = ConnectionWatch::start(&redis);
    (redis, weir, watch)
}

fn assert_complete(table: &[(String, f64)], tests: usize) {
    assert!(table.len() >= tests, "{table:?}");
    assert!(table.iter().all(|(_, rate)| *rate > 0.0), "{table:?}");
}

/// PING both ways, SET, GET, INCR, pushes and pops, SADD, HSET, SPOP, ZADD, ZPOPMIN,
/// LRANGE of four sizes, MSET.
#[test]
fn all_of_its_default_tests() {
    let (redis, weir, watch) = start();
    assert_complete(&run(&weir, &["-n", "2000"]), 19);
    watch.assert_at_most(64);
    assert_eq!(redis.info("stats", "total_error_replies"), "0");
}

#[test]
fn all_of_its_default_tests_with_pipelines() {
    let (redis, weir, watch) = start();
    assert_complete(&run(&weir, &["-n", "4000", "-P", "32", "-r", "1000"]), 19);
    watch.assert_at_most(64);
    assert_eq!(redis.info("stats", "total_error_replies"), "0");
}

/// Nothing is lost or done twice: the sum is exact.
#[test]
fn a_thousand_clients() {
    let (redis, weir, watch) = start();
    let tests = ["-t", "set,get,incr", "-n", "30000", "-c", "1000"];
    assert_complete(&run(&weir, &tests), 3);
    assert_eq!(
        redis.command(&["GET", "counter:__rand_int__"]),
        b"$5\r\n30000\r\n"
    );
    watch.assert_at_most(64);
}

/// Every request over a connection of its own.
#[test]
fn clients_that_connect_ask_once_and_leave() {
    let (redis, weir, watch) = start();
    let tests = ["-t", "set,incr", "-k", "0", "-n", "3000", "-c", "100"];
    assert_complete(&run(&weir, &tests), 2);
    assert_eq!(
        redis.command(&["GET", "counter:__rand_int__"]),
        b"$4\r\n3000\r\n"
    );
    watch.assert_at_most(64);
}

#[test]
fn resp3_another_database_and_large_values() {
    let (redis, weir, watch) = start();
    let other = [
        "-3", "--dbnum", "2", "-t", "set,get", "-n", "2000", "-P", "4",
    ];
    assert_complete(&run(&weir, &other), 2);
    let large = ["-d", "200000", "-t", "set,get", "-n", "200", "-c", "10"];
    assert_complete(&run(&weir, &large), 2);
    watch.assert_at_most(64);
    let other = redis.info("keyspace", "db2");
    assert!(other.starts_with("keys=1,"), "{other}");
}
