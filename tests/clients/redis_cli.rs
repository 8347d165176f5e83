//! redis-cli in the ways that people and scripts use it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::support::{RedisServer, WeirProcess, encode};

/// redis-cli, pointed at `weir`.
fn cli(weir: &WeirProcess, arguments: &[&str]) -> Command {
    let mut command = Command::new("redis-cli");
    command
        .args(["-h", "127.0.0.1", "-p", &weir.address().port().to_string()])
        .args(arguments);
    command
}

/// What it writes, given `input`. Fails if it fails.
fn output(weir: &WeirProcess, arguments: &[&str], input: &[u8]) -> String {
    let mut child = cli(weir, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("redis-cli starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    // From a thread of its own: redis-cli answers before it has read everything.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("redis-cli ends");
    // It may have ended without reading the rest, which its status tells.
    let _ = writer.join().expect("the writer");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "redis-cli {arguments:?}: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

fn start() -> (RedisServer, WeirProcess) {
    let redis = RedisServer::start();
    let weir = WeirProcess::in_front_of(&redis);
    (redis, weir)
}

/// A redis-cli that runs until the test ends it, read line by line.
struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    fn start(mut command: Command) -> Running {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("redis-cli starts");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        Running { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn commands_one_by_one_as_typed_into_it() {
    let (_redis, weir) = start();
    let typed = b"SET key \"two words\"\nGET key\nINCR key\nSELECT 3\nGET key\nDBSIZE\n\
        MULTI\nSET a 1\nINCR a\nEXEC\nMULTI\nSET a 9\nDISCARD\nGET a\nQUIT\n";
    let expected = "OK\ntwo words\n\
        ERR value is not an integer or out of range\n\n\
        OK\n\n0\nOK\nQUEUED\nQUEUED\nOK\n2\nOK\nQUEUED\nOK\n2\n";
    assert_eq!(output(&weir, &[], typed), expected);
    assert_eq!(output(&weir, &["-n", "3", "GET", "a"], b""), "2\n");
    assert_eq!(
        output(&weir, &["-x", "SET", "stdin"], b"from stdin"),
        "OK\n"
    );
    assert_eq!(output(&weir, &["GET", "stdin"], b""), "from stdin\n");
}

#[test]
fn replies_of_resp3() {
    let (_redis, weir) = start();
    output(&weir, &["HSET", "hash", "a", "1", "b", "2"], b"");
    let shown = output(&weir, &["-3", "--no-raw", "HGETALL", "hash"], b"");
    assert_eq!(shown, "1# \"a\" => \"1\"\n2# \"b\" => \"2\"\n");
    let shown = output(&weir, &["-2", "--no-raw", "HGETALL", "hash"], b"");
    assert_eq!(shown, "1) \"a\"\n2) \"1\"\n3) \"b\"\n4) \"2\"\n");
    output(&weir, &["ZADD", "zset", "1.5", "m"], b"");
    let shown = output(&weir, &["-3", "--no-raw", "ZSCORE", "zset", "m"], b"");
    assert_eq!(shown, "(double) 1.5\n");
}

#[test]
fn a_mass_insertion_through_pipe() {
    let (redis, weir) = start();
    let mut requests = Vec::new();
    for number in 0..50_000 {
        let (key, value) = (format!("pipe:{number}"), format!("value {number}"));
        requests.extend(encode(&["SET", &key, &value]));
    }
    let report = output(&weir, &["--pipe"], &requests);
    assert!(report.contains("errors: 0, replies: 50000"), "{report}");
    assert_eq!(redis.command(&["DBSIZE"]), b":50000\r\n");
    assert_eq!(output(&weir, &["GET", "pipe:49999"], b""), "value 49999\n");
}

#[test]
fn keys_found_by_scan_and_by_bigkeys() {
    let (redis, weir) = start();
    let mut direct = redis.client();
    for number in 0..500 {
        direct.command(&["SET", &format!("key:{number}"), "x"]);
    }
    direct.command(&["SET", "big", &"x".repeat(1_000)]);
    direct.command(&["RPUSH", "list", "a", "b", "c"]);
    let found = output(&weir, &["--scan", "--pattern", "key:*"], b"");
    let mut found: Vec<_> = found.lines().collect();
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), 500);
    let report = output(&weir, &["--bigkeys"], b"");
    assert!(
        report.contains("Sampled 502 keys in the keyspace!"),
        "{report}"
    );
    assert!(
        report.contains(r#"Biggest string found '"big"' has 1000 bytes"#),
        "{report}"
    );
    assert!(report.contains(r#"found '"list"' has 3 items"#), "{report}");
    let report = output(&weir, &["--memkeys"], b"");
    assert!(
        report.contains("Sampled 502 keys in the keyspace!"),
        "{report}"
    );
}

#[test]
fn monitor_shows_what_other_clients_do() {
    let (_redis, weir) = start();
    let mut monitor = Running::start(cli(&weir, &["MONITOR"]));
    assert_eq!(monitor.line(), "OK");
    weir.client()
        .expect_command(&["SET", "seen", "yes"], "+OK\r\n");
    let line = loop {
        let line = monitor.line();
        assert!(!line.is_empty(), "redis-cli ended");
        if line.contains("seen") {
            break line;
        }
    };
    assert!(line.ends_with(r#""SET" "seen" "yes""#), "{line}");
}

#[test]
fn subscribe_and_psubscribe_show_messages() {
    let (_redis, weir) = start();
    let read = |reader: &mut Running, lines: usize| -> Vec<String> {
        (0..lines).map(|_| reader.line()).collect()
    };
    let mut one = Running::start(cli(&weir, &["SUBSCRIBE", "news", "weather"]));
    assert_eq!(
        read(&mut one, 6),
        ["subscribe", "news", "1", "subscribe", "weather", "2"]
    );
    let mut all = Running::start(cli(&weir, &["-3", "PSUBSCRIBE", "n*"]));
    assert_eq!(read(&mut all, 3), ["psubscribe", "n*", "1"]);
    assert_eq!(output(&weir, &["PUBLISH", "news", "hello"], b""), "2\n");
    assert_eq!(read(&mut one, 3), ["message", "news", "hello"]);
    assert_eq!(read(&mut all, 4), ["pmessage", "n*", "news", "hello"]);
}

#[test]
fn latency_is_measured() {
    let (_redis, weir) = start();
    // Without a terminal it measures for a while (-i, in seconds) and prints raw numbers.
    let report = output(&weir, &["--latency", "-i", "3"], b"");
    let numbers: Vec<f64> = report
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    // Smallest, largest, mean, samples.
    assert_eq!(numbers.len(), 4, "{report}");
    assert!(numbers[3] >= 10.0, "{report}");
}

#[test]
fn a_blocking_pop_and_scripts() {
    let (_redis, weir) = start();
    let mut waiting = Running::start(cli(&weir, &["BLPOP", "queue", "30"]));
    let mut client = weir.client();
    crate::support::wait_until("it is blocked", || {
        let info = client.command(&["INFO", "clients"]);
        String::from_utf8_lossy(&info).contains("blocked_clients:1\r")
    });
    assert_eq!(output(&weir, &["RPUSH", "queue", "element"], b""), "1\n");
    assert_eq!([waiting.line(), waiting.line()], ["queue", "element"]);

    let directory = tempfile::tempdir().expect("a directory");
    let script = directory.path().join("add.lua");
    std::fs::write(&script, "return redis.call('INCRBY', KEYS[1], ARGV[1])").expect("a file");
    let path = script.to_str().expect("a UTF-8 path");
    let shown = output(&weir, &["--eval", path, "sum", ",", "5"], b"");
    assert_eq!(shown, "5\n");
}

/// What a replica would get: the whole data set, over a tunnel.
#[test]
fn a_copy_of_the_data_set_through_a_tunnel() {
    let (redis, weir) = start();
    redis.command(&["SET", "copied", "value-that-is-in-the-copy"]);
    let directory = tempfile::tempdir().expect("a directory");
    let copy = directory.path().join("copy.rdb");
    output(&weir, &["--rdb", copy.to_str().expect("a UTF-8 path")], b"");
    let bytes = std::fs::read(&copy).expect("the copy");
    assert!(bytes.starts_with(b"REDIS"), "not an RDB file");
    let has = |text: &[u8]| bytes.windows(text.len()).any(|part| part == text);
    assert!(has(b"value-that-is-in-the-copy"));
}
