//! The slow log: what took long, whose it was, and where the time went.

use serde_json::Value;

use super::of_operators as weir;
use super::support::{RedisServer, WeirProcess, wait_until};

fn entries(weir: &WeirProcess) -> Vec<Value> {
    let (status, body) = weir.get("/slowlog.json");
    assert_eq!(status, 200);
    serde_json::from_str(&body).expect("JSON")
}

/// Keeps Redis busy for a moment that no quick command takes, about a key.
const BUSY: &str = "local t = redis.call('TIME'); local from = t[1] * 1000000 + t[2]; repeat \
                    t = redis.call('TIME') until t[1] * 1000000 + t[2] > from + 60000; \
                    return string.rep('x', 100000)";

#[test]
fn a_slow_command_is_told_with_key_and_client_and_where_the_time_went() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "slow_log_threshold = \"50ms\"");
    let mut client = weir.client();
    client.expect_command(&["CLIENT", "SETNAME", "reports"], "+OK\r\n");
    client.command(&["EVAL", BUSY, "1", "cart:7", "secret"]);
    let mut found = None;
    wait_until("it is in the log", || {
        let mut all = entries(&weir).into_iter();
        found = all.find(|entry| entry["command"] == "eval");
        found.is_some()
    });
    let entry = &found.expect("the script is in the log");
    assert_eq!(entry["key"], "cart:7");
    assert_eq!(entry["name"], "reports");
    assert_eq!(entry["user"], "default");
    assert_eq!(entry["route"], "main");
    assert_eq!(entry["node"], redis.address().to_string());
    assert_eq!(entry["address"], client.local_address().to_string());
    let number = |name: &str| entry[name].as_u64().expect(name);
    assert!(number("backend_us") >= 60_000, "{entry}");
    assert_eq!(
        number("backend_us") + number("waited_us"),
        number("total_us")
    );
    assert_eq!(number("reply_bytes"), 100_000 + 11, "{entry}");
    assert!(number("request_bytes") > BUSY.len() as u64, "{entry}");
    assert!(!weir.get("/slowlog.json").1.contains("secret"));
    wait_until("it is counted", || {
        weir.metric("weir_slow_commands_total", &[]) >= 1.0
    });

    let told = client.command(&["WEIR", "SLOWLOG"]);
    assert!(String::from_utf8_lossy(&told).contains("cart:7"));
    client.expect_command(&["WEIR", "SLOWLOG", "RESET"], "+OK\r\n");
    client.expect_command(&["WEIR", "SLOWLOG", "LEN"], ":0\r\n");
    client.expect_command(
        &["WEIR", "SLOWLOG", "GET", "-1"],
        "-ERR value is not an integer or out of range\r\n",
    );
    client.expect_command(&["WEIR", "SLOWLOG", "LEN", "1"], "-ERR syntax error\r\n");
}

#[test]
fn passwords_and_waiting_are_not_slow_commands() {
    let redis = RedisServer::start();
    // Everything that goes to Redis takes longer than this.
    let weir = weir(
        &redis,
        "slow_log_threshold = \"100us\"\nslow_log_entries = 3",
    );
    let mut client = weir.client();
    client.expect_command(&["BLPOP", "nothing", "0.2"], "*-1\r\n");
    client.command(&["CONFIG", "SET", "masterauth", "hunter2"]);
    for _ in 0..20 {
        client.command(&["EVAL", &BUSY.replace("60000", "300"), "1", "key"]);
    }
    wait_until("as many as are kept", || entries(&weir).len() == 3);
    let all = format!("{:?}", entries(&weir));
    assert!(!all.contains("blpop") && !all.contains("hunter2"), "{all}");

    // Workers hear of it within a tick, and then it is off.
    let off = &["WEIR", "CONFIG", "SET", "process.slow_log_threshold", "0"];
    client.expect_command(off, "+OK\r\n");
    wait_until("none is noted any more", || {
        client.expect_command(&["WEIR", "SLOWLOG", "RESET"], "+OK\r\n");
        client.command(&["EVAL", BUSY, "0"]);
        client.command(&["WEIR", "SLOWLOG", "LEN"]) == b":0\r\n"
    });
}
