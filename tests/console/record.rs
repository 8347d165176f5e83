//! What happened can be told afterwards, in the order of time.

use serde_json::Value;

use super::support::{RedisServer, WeirProcess, binary, wait_until};

fn events(weir: &WeirProcess) -> Vec<Value> {
    let (status, body) = weir.get("/events.json");
    assert_eq!(status, 200, "{body}");
    let events: Value = serde_json::from_str(&body).expect("JSON");
    events.as_array().expect("a list").clone()
}

/// How often something of this kind happened.
fn times(weir: &WeirProcess, kind: &str) -> u64 {
    let events = events(weir);
    let of_kind = events.iter().filter(|event| event["kind"] == kind);
    of_kind.filter_map(|event| event["times"].as_u64()).sum()
}

#[test]
fn a_node_that_goes_and_comes_back_is_in_the_record() {
    let mut redis = RedisServer::start();
    let weir = WeirProcess::in_front_of(&redis);
    weir.client().expect_command(&["PING"], "+PONG\r\n");
    redis.kill();
    wait_until("the loss is noted", || {
        weir.client().command(&["PING"]);
        times(&weir, "node_down") > 0
    });
    redis.restart();
    wait_until("the return is noted", || times(&weir, "node_up") > 0);

    let events = events(&weir);
    let kinds: Vec<&str> = events
        .iter()
        .filter_map(|event| event["kind"].as_str())
        .collect();
    assert_eq!(kinds, ["started", "node_down", "node_up"]);
    let down = &events[1];
    assert_eq!(down["subject"], redis.address().to_string());
    assert_eq!(down["route"], "main");
    assert_eq!(down["severity"], "critical");
    let times: Vec<&str> = events.iter().filter_map(|it| it["at"].as_str()).collect();
    assert!(times.is_sorted() && times.iter().all(|at| at.ends_with('Z')));
}

#[test]
fn a_limit_that_is_reached_and_cleared_is_told_once_each() {
    let redis = RedisServer::start();
    let mut weir = WeirProcess::with_config(
        &redis,
        "[admin]\nlisten = \"{admin}\"\n[route.main]\nlisten = \"{listen}\"\n\
         backend = \"{backend}\"\n[route.main.clients]\nmax_clients = 4\n",
    );
    let held: Vec<_> = (0..4)
        .map(|_| {
            let mut client = weir.client();
            client.expect_command(&["PING"], "+PONG\r\n");
            client
        })
        .collect();
    for _ in 0..3 {
        let refusal = weir.client().command(&["PING"]);
        assert!(refusal.starts_with(b"-ERR max number of clients"));
    }
    wait_until("the limit is told", || times(&weir, "limit_reached") == 1);
    drop(held);
    weir.wait_for_log("clients.max_clients is no longer reached");
    wait_until("the end is noted", || times(&weir, "limit_cleared") == 1);
    let reached = "clients.max_clients is reached: new clients are refused";
    assert_eq!(weir.log().matches(reached).count(), 1, "{}", weir.log());
}

#[test]
fn the_numbers_of_each_second_are_in_the_record() {
    let redis = RedisServer::start();
    let weir = WeirProcess::in_front_of(&redis);
    let mut client = weir.client();
    for _ in 0..50 {
        client.expect_command(&["PING"], "+PONG\r\n");
    }
    let mut record = Value::Null;
    wait_until("the commands are in a sample", || {
        record = serde_json::from_str(&weir.get("/record.json").1).expect("JSON");
        let samples = record["samples"].as_array().expect("samples");
        let commands = samples
            .iter()
            .filter_map(|sample| sample["routes"][0]["commands"].as_u64());
        let last = samples
            .last()
            .map(|sample| &sample["routes"][0]["nodes"][0]["up"]);
        commands.sum::<u64>() >= 50 && last == Some(&Value::Bool(true))
    });
    let samples = record["samples"].as_array().expect("samples");
    let route = &samples.last().expect("samples")["routes"][0];
    assert_eq!(route["route"], "main");
    assert_eq!(route["clients"], 1);
    assert_eq!(route["budget"], 64);
    assert_eq!(route["nodes"][0]["node"], redis.address().to_string());
    assert_eq!(route["nodes"][0]["up"], true);
}

#[test]
fn the_record_of_a_running_weir_is_written_out() {
    let redis = RedisServer::start();
    let weir = WeirProcess::in_front_of(&redis);
    let run = |format: &[&str]| {
        let mut command = binary();
        command.args(["record", "--admin", &weir.admin_address().to_string()]);
        let output = command.args(format).output().expect("weir record runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    assert!(run(&[]).contains("| Weir started |"));
    let record: Value = serde_json::from_str(&run(&["--format", "json"])).expect("JSON");
    assert_eq!(record["events"][0]["kind"], "started");

    let nowhere = binary()
        .args(["record", "--admin", "127.0.0.1:1"])
        .output()
        .expect("weir record runs");
    assert_eq!(nowhere.status.code(), Some(1));
}

#[test]
fn the_record_names_who_held_the_most_connections() {
    let redis = RedisServer::start();
    let weir = WeirProcess::in_front_of(&redis);
    let _held: Vec<_> = (0..5)
        .map(|_| {
            let mut client = weir.client();
            client.expect_command(&["PING"], "+PONG\r\n");
            client
        })
        .collect();
    wait_until("the address is named", || {
        let record: Value = serde_json::from_str(&weir.get("/record.json").1).expect("JSON");
        let samples = record["samples"].as_array().expect("samples");
        let top = samples.iter().map(|sample| &sample["routes"][0]["top"][0]);
        let mut named = top.filter(|top| top["identity"] == "127.0.0.1");
        named.any(|top| top["clients"] == 5)
    });
    let page = weir.get("/overview/minutes.json").1;
    assert!(page.contains("\"identity\":\"127.0.0.1\""), "{page}");
}
