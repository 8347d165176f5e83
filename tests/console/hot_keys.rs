//! Hot keys and large replies, told from a sample.

use serde_json::Value;

use super::of_operators as weir;
use super::support::{RawClient, RedisServer, WeirProcess, wait_until};

fn hot_keys(weir: &WeirProcess) -> Value {
    let (status, body) = weir.get("/hotkeys.json");
    assert_eq!(status, 200);
    serde_json::from_str(&body).expect("JSON")
}

/// Pipelines of `GET hot`, one in four of all commands, and of `GET` of as many other keys.
fn ask(client: &mut RawClient, round: usize) {
    let mut pipeline = Vec::new();
    for number in 0..100 {
        pipeline.extend(b"*2\r\n$3\r\nGET\r\n$3\r\nhot\r\n");
        for other in 0..3 {
            let key = format!("other:{round:04}:{number:02}:{other}");
            let request = format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len());
            pipeline.extend(request.into_bytes());
        }
    }
    client.send(&pipeline);
    for _ in 0..100 {
        client.expect("$3\r\n{x}\r\n$-1\r\n$-1\r\n$-1\r\n");
    }
}

#[test]
fn the_key_that_everybody_asks_for_is_named_with_its_share() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "hot_keys_sample = 10");
    let mut client = weir.client();
    client.expect_command(&["SET", "hot", "{x}"], "+OK\r\n");
    let mut round = 0;
    wait_until("it is told", || {
        ask(&mut client, round);
        round += 1;
        let told = hot_keys(&weir);
        let hottest = &told["by_commands"][0];
        round > 80 && hottest["key"] == "hot" && hottest["command"] == "get"
    });
    let told = hot_keys(&weir);
    let hottest = &told["by_commands"][0];
    let share = hottest["commands_share"].as_f64().expect("a share");
    // 32,000 commands, 3,200 of them looked at: eight standard deviations are 0.06.
    assert!((0.19..0.31).contains(&share), "{told:#}");
    assert_eq!(hottest["route"], "main");
    assert_eq!(told["sampled_one_in"], 10);
    let next = told["by_commands"][1]["commands_share"].as_f64();
    assert!(next.unwrap_or(0.0) < 0.05, "{told:#}");

    let told = client.command(&["WEIR", "HOTKEYS", "1"]);
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(told.contains("$3\r\nhot\r\n"), "{told}");
    client.expect_command(
        &["WEIR", "HOTKEYS", "x"],
        "-ERR value is not an integer or out of range\r\n",
    );
    wait_until("the page shows it", || {
        let page = weir.get("/overview/minutes.json").1;
        let page: Value = serde_json::from_str(&page).expect("JSON");
        page["routes"][0]["hot"]["by_commands"][0]["key"] == "hot"
    });
}

#[test]
fn large_replies_are_named_with_who_asked_for_them() {
    let redis = RedisServer::start();
    // So rarely that this one is told for its size and not as one of the sample.
    let weir = weir(&redis, "hot_keys_sample = 1000000");
    let mut client = weir.client();
    client.expect_command(&["CLIENT", "SETNAME", "reports"], "+OK\r\n");
    client.expect_command(&["SELECT", "3"], "+OK\r\n");
    let value = "v".repeat(3 << 20);
    client.expect_command(&["SET", "big", &value], "+OK\r\n");
    client.command(&["GET", "big"]);
    wait_until("it is told", || {
        hot_keys(&weir)["largest_replies"][0]["bytes"] != Value::Null
    });
    let told = hot_keys(&weir);
    let reply = &told["largest_replies"][0];
    assert_eq!(reply["key"], "big");
    assert_eq!(reply["command"], "get");
    assert_eq!(reply["db"], 3);
    assert_eq!(reply["bytes"], (3 << 20) + 12);
    assert_eq!(reply["name"], "reports");
    assert_eq!(reply["user"], "default");
    assert_eq!(reply["address"], client.local_address().to_string());
    assert!(!told.to_string().contains("vvvv"), "no values");
}

#[test]
fn keys_that_are_secrets_are_shown_nowhere() {
    let redis = RedisServer::start();
    let config = "hot_keys_sample = 1\nslow_log_threshold = \"100us\"\nshow_keys = false";
    let weir = weir(&redis, config);
    let mut client = weir.client();
    wait_until("there are hot keys and slow commands", || {
        for _ in 0..100 {
            client.command(&["LPUSH", "token:s3cret", "x"]);
        }
        client.command(&[
            "EVAL",
            "for i = 1, 1e5 do local x = i end return 1",
            "1",
            "token:s3cret",
        ]);
        client.command(&["LRANGE", "token:s3cret", "0", "-1"]);
        hot_keys(&weir)["by_commands"][0]["key"] != Value::Null
            && hot_keys(&weir)["largest_replies"][0]["key"] != Value::Null
            && weir.get("/slowlog.json").1.contains("eval")
    });
    let shown = [
        weir.get("/hotkeys.json").1,
        weir.get("/slowlog.json").1,
        weir.get("/overview/minutes.json").1,
        String::from_utf8_lossy(&client.command(&["WEIR", "HOTKEYS"])).into_owned(),
        String::from_utf8_lossy(&client.command(&["WEIR", "SLOWLOG"])).into_owned(),
        weir.get("/record.json").1,
    ];
    assert!(shown[0].contains("(hidden "), "{}", shown[0]);
    assert!(shown.iter().all(|shown| !shown.contains("s3cret")));
}

#[test]
fn what_was_shown_is_forgotten_when_keys_are_hidden_and_nothing_is_kept_when_it_is_off() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "hot_keys_sample = 1");
    let mut client = weir.client();
    let has_keys = |weir: &WeirProcess| hot_keys(weir)["by_commands"] != Value::Array(vec![]);
    wait_until("a key is told", || {
        client.command(&["GET", "token:s3cret"]);
        has_keys(&weir)
    });
    let set = |client: &mut RawClient, key, value| {
        client.expect_command(&["WEIR", "CONFIG", "SET", key, value], "+OK\r\n");
    };
    set(&mut client, "process.show_keys", "false");
    wait_until("it is hidden", || {
        !hot_keys(&weir).to_string().contains("s3cret")
    });
    set(&mut client, "process.hot_keys_sample", "0");
    wait_until("it is off", || {
        client.command(&["GET", "token:s3cret"]);
        !has_keys(&weir)
    });
}
