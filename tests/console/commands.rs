//! The console through real clients, on its own port and on the service port.

use std::process::Command;

use super::support::{RawClient, RedisServer, ReservedPort, WeirProcess, wait_until};

/// Weir with a console port; `admin` follows in `[admin]`, `more` in `[route.main.clients]`.
pub fn weir(redis: &RedisServer, admin: &str, more: &str) -> (WeirProcess, ReservedPort) {
    let console = ReservedPort::new();
    let address = console.address();
    let weir = WeirProcess::with_config(
        redis,
        &format!(
            "[admin]\nlisten = \"{{admin}}\"\nresp_listen = \"{address}\"\n{admin}\
             [route.main]\nlisten = \"{{listen}}\"\nbackend = \"{{backend}}\"\n\
             [route.main.clients]\n{more}"
        ),
    );
    (weir, console)
}

/// What `redis-cli` prints.
fn cli(port: u16, words: &[&str]) -> String {
    let output = Command::new("redis-cli")
        .args(["-p", &port.to_string()])
        .args(words)
        .output()
        .expect("redis-cli runs");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn redis_cli_finds_its_way_in_both_protocols() {
    let redis = RedisServer::start();
    let (weir, console) = weir(&redis, "", "");
    let port = console.port();
    let mut client = weir.client();
    client.expect_command(&["CLIENT", "SETNAME", "worker"], "+OK\r\n");

    let help = cli(port, &["WEIR", "HELP"]);
    for name in ["CLIENTS", "POOLS", "RELOAD", "DRAIN"] {
        assert!(help.contains(name), "{help}");
    }
    let flat = cli(port, &["WEIR", "CLIENTS", "BY", "NAME"]);
    assert!(
        flat.contains("worker") && flat.contains("idle_max"),
        "{flat}"
    );
    let maps = cli(port, &["-3", "--no-raw", "WEIR", "CLIENTS"]);
    assert!(maps.contains("\"clients\" => (integer) 1"), "{maps}");
    let pools = cli(port, &["--json", "WEIR", "POOLS"]);
    let pools: serde_json::Value = serde_json::from_str(&pools).expect("JSON");
    assert_eq!(pools[0]["max_connections"], 64);
    let nodes = cli(port, &["--json", "WEIR", "NODES"]);
    let nodes: serde_json::Value = serde_json::from_str(&nodes).expect("JSON");
    assert_eq!(nodes[0]["node"], redis.address().to_string());
    assert!(cli(port, &["WEIR", "EVENTS"]).contains("started"));
    assert!(cli(port, &["WEIR", "RECORD"]).contains("# Weir: record"));
}

#[test]
fn mistakes_are_worded_as_redis_words_them() {
    let redis = RedisServer::start();
    let (_weir, console) = weir(&redis, "", "");
    let mut operator = RawClient::connect(console.address());
    for (command, reply) in [
        (
            &["WEIR"][..],
            "-ERR wrong number of arguments for 'weir' command\r\n",
        ),
        (
            &["WEIR", "NOPE"],
            "-ERR unknown subcommand 'NOPE'. Try WEIR HELP.\r\n",
        ),
        (
            &["weir", "kill"],
            "-ERR wrong number of arguments for 'weir|kill' command\r\n",
        ),
        (&["WEIR", "CLIENTS", "BY", "MOON"], "-ERR syntax error\r\n"),
        (
            &["WEIR", "PAUSE", "60001"],
            "-ERR a pause takes at most 60000 ms (clients.pause_max)\r\n",
        ),
        (
            &["WEIR", "RESUME", "ROUTE", "x"],
            "-ERR there is no route \"x\"\r\n",
        ),
        (
            &["GET", "k"],
            "-ERR this is Weir's console: it has WEIR, PING, HELLO, AUTH and QUIT\r\n",
        ),
        (&["PING"], "+PONG\r\n"),
    ] {
        operator.expect_command(command, reply);
    }
}

#[test]
fn on_the_service_port_it_is_for_operators_only() {
    let redis = RedisServer::start();
    let (weir, _console) = weir(&redis, "", "");
    let reply = weir.client().command(&["WEIR", "HELP"]);
    assert!(reply.starts_with(b"-NOPERM weir: WEIR is for operators"));

    let (weir, _console) = weir_for_operators(&redis);
    let mut operator = weir.client();
    let reply = operator.command(&["WEIR", "HELP"]);
    assert!(reply.starts_with(b"*"), "{reply:?}");
    // In the order of its other commands.
    operator.send(b"SET k v\r\nWEIR CONFIG GET process.max_clients\r\nGET k\r\n");
    operator.expect("+OK\r\n*2\r\n$19\r\nprocess.max_clients\r\n$5\r\n10000\r\n$1\r\nv\r\n");
}

/// The same, with everybody an operator.
pub fn weir_for_operators(redis: &RedisServer) -> (WeirProcess, ReservedPort) {
    weir(redis, "", "operator_networks = \"127.0.0.1\"\n")
}

#[test]
fn the_console_has_a_password_if_one_is_set() {
    let redis = RedisServer::start();
    let (mut weir, console) = weir(&redis, "resp_password = \"hunter2\"\n", "");
    let mut operator = RawClient::connect(console.address());
    operator.expect_command(&["WEIR", "HELP"], "-NOAUTH Authentication required.\r\n");
    let refusal = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    operator.expect_command(&["AUTH", "hunter3"], refusal);
    operator.expect_command(&["AUTH", "alice", "hunter2"], "+OK\r\n");
    operator.expect_command(&["WEIR", "RESUME"], "+OK\r\n");
    let shown = operator.command(&["WEIR", "CONFIG", "GET", "admin.*"]);
    let shown = String::from_utf8(shown).expect("text");
    assert!(
        shown.contains("(hidden)") && !shown.contains("hunter"),
        "{shown}"
    );
    weir.wait_for_log("alice");
    assert!(!weir.log().contains("hunter2"), "{}", weir.log());
}

#[test]
fn what_redis_is_given_to_do_at_once_is_set_while_clients_are_there() {
    let redis = RedisServer::start();
    let (weir, console) = weir(&redis, "", "");
    let mut client = weir.client();
    client.expect_command(&["GET", "k"], "$-1\r\n");
    let mut operator = RawClient::connect(console.address());
    let key = "route.main.overload.in_flight";
    operator.expect_command(&["WEIR", "CONFIG", "SET", key, "9000"], "+OK\r\n");
    wait_until("the gates have it", || {
        let limit = weir.metric("weir_in_flight_limit", &[]);
        limit > 1000.0 && limit <= 9000.0
    });
    client.expect_command(&["GET", "k"], "$-1\r\n");
}

#[test]
fn settings_are_set_at_once_and_leave_an_audit_line() {
    let redis = RedisServer::start();
    let (weir, console) = weir(&redis, "", "");
    let mut operator = RawClient::connect(console.address());
    let key = "route.main.clients.max_clients";
    operator.expect_command(&["WEIR", "LIMITS", "SET", key, "2"], "+OK\r\n");
    let mut clients: Vec<RawClient> = (0..2).map(|_| weir.client()).collect();
    for client in &mut clients {
        client.expect_command(&["PING"], "+PONG\r\n");
    }
    let refusal = weir.client().command(&["PING"]);
    assert!(
        refusal.starts_with(b"-ERR max number of clients"),
        "{refusal:?}"
    );
    operator.expect_command(&["WEIR", "CONFIG", "SET", key, "3"], "+OK\r\n");
    weir.client().expect_command(&["PING"], "+PONG\r\n");

    let refused = operator.command(&["WEIR", "CONFIG", "SET", key, "4", "process.workers", "77"]);
    let refused = String::from_utf8(refused).expect("text");
    assert!(
        refused.contains("needs a restart") && refused.contains("process.workers"),
        "{refused}"
    );
    let shown = operator.command(&["WEIR", "CONFIG", "GET", key]);
    assert!(shown.ends_with(b"$1\r\n3\r\n"), "all or nothing: {shown:?}");
    let wrong = operator.command(&["WEIR", "CONFIG", "SET", key, "many"]);
    assert!(wrong.starts_with(b"-ERR") && wrong.ends_with(b"\r\n"));

    wait_until("it is in the record", || {
        let events = weir.get("/events.json").1;
        events.contains("WEIR LIMITS SET route.main.clients.max_clients 2")
    });
    wait_until("it is in the log", || {
        let log = weir.log();
        let mut lines = log.lines();
        lines.any(|line| line.contains("audit") && line.contains("operator's command"))
    });
}

#[test]
fn clients_are_killed_by_filter() {
    let redis = RedisServer::start();
    let (weir, console) = weir(&redis, "", "");
    let (mut one, mut other) = (weir.client(), weir.client());
    one.expect_command(&["CLIENT", "SETNAME", "a"], "+OK\r\n");
    other.expect_command(&["CLIENT", "SETNAME", "b"], "+OK\r\n");
    let mut operator = RawClient::connect(console.address());
    operator.expect_command(&["WEIR", "KILL", "NAME", "a"], ":1\r\n");
    one.expect_closed();
    other.expect_command(&["PING"], "+PONG\r\n");
    operator.expect_command(&["WEIR", "KILL", "ROUTE", "main", "NAME", "a"], ":0\r\n");
    let reply = operator.command(&["WEIR", "KILL", "COLOUR", "red"]);
    assert!(reply.starts_with(b"-ERR"));
}

#[test]
fn a_pause_holds_commands_until_it_is_ended() {
    let redis = RedisServer::start();
    let (weir, console) = weir_for_operators(&redis);
    let mut operator = weir.client();
    operator.expect_command(&["WEIR", "PAUSE", "60000"], "+OK\r\n");
    let mut client = weir.client();
    client.send(b"INCR n\r\nINCR n\r\n");
    wait_until("it is held", || {
        let shown = cli(console.port(), &["--json", "WEIR", "CLIENTS"]);
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        shown[0]["blocked"] == 1
    });
    redis.client().expect_command(&["EXISTS", "n"], ":0\r\n");
    // Who paused can end it, on the service port too.
    operator.expect_command(&["WEIR", "RESUME"], "+OK\r\n");
    client.expect(":1\r\n:2\r\n");
}

#[test]
fn the_console_works_when_clients_have_taken_every_place_and_redis_is_gone() {
    let mut redis = RedisServer::start();
    let (weir, console) = weir(&redis, "", "max_clients = 2\n");
    let held: Vec<RawClient> = (0..2)
        .map(|_| {
            let mut client = weir.client();
            client.expect_command(&["PING"], "+PONG\r\n");
            client
        })
        .collect();
    redis.kill();
    let mut operator = RawClient::connect(console.address());
    let shed = || {
        weir.client().command(&["PING"]);
        String::from_utf8(RawClient::connect(console.address()).command(&["WEIR", "SHED"]))
    };
    wait_until("the refusal is shown", || {
        shed().is_ok_and(|shown| shown.contains("clients refused"))
    });
    operator.expect_command(
        &["WEIR", "KILL", "ROUTE", "main", "TYPE", "normal"],
        ":2\r\n",
    );
    drop(held);
}

#[test]
fn the_doctor_says_the_same_in_the_console() {
    let mut redis = RedisServer::start();
    let (weir, console) = weir(&redis, "", "");
    weir.client().expect_command(&["PING"], "+PONG\r\n");
    let findings = || -> serde_json::Value {
        let shown = cli(console.port(), &["--json", "WEIR", "DOCTOR"]);
        serde_json::from_str(&shown).expect("JSON")
    };
    assert_eq!(findings(), serde_json::json!([]));
    redis.kill();
    wait_until("the loss is told", || {
        weir.client().command(&["PING"]);
        findings()[0]["cause"] == "primary_lost"
    });
    let (shown, page) = (findings(), weir.get("/doctor.json").1);
    let page: serde_json::Value = serde_json::from_str(&page).expect("JSON");
    for key in ["route", "cause", "severity", "what", "advice"] {
        assert_eq!(shown[0][key], page[0][key], "{key}");
    }
    assert!(shown[0]["evidence"][0].is_string(), "{shown}");
    // In RESP2 a flat array.
    let mut operator = RawClient::connect(console.address());
    let flat = operator.command(&["WEIR", "DOCTOR"]);
    assert!(
        flat.starts_with(b"*1\r\n*12\r\n$5\r\nroute\r\n$4\r\nmain\r\n"),
        "{flat:?}"
    );
}

#[test]
fn each_thing_that_an_operator_does_leaves_a_line() {
    let redis = RedisServer::start();
    let (mut weir, console) = weir(&redis, "", "");
    let mut operator = RawClient::connect(console.address());
    let key = "process.max_clients";
    let done: &[(&[&str], &str)] = &[
        (&["CONFIG", "SET", key, "9000"], "OK"),
        (&["LIMITS", "SET", key, "9001"], "OK"),
        (&["PAUSE", "100"], "OK"),
        (&["RESUME"], "OK"),
        (&["KILL", "NAME", "nobody"], "0"),
        (&["SLOWLOG", "RESET"], "OK"),
        (&["RELOAD"], "done"),
        (
            &["CONFIG", "SET", "process.workers", "77"],
            "needs a restart",
        ),
        (&["DRAIN"], "OK"),
    ];
    // What only looks leaves none.
    operator.command(&["WEIR", "CLIENTS"]);
    for (command, _) in done {
        operator.command(&[&["WEIR"], *command].concat());
    }
    for (command, result) in done {
        let command = format!("WEIR {}", command.join(" "));
        weir.wait_for_log(&command);
        let log = weir.log();
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("audit") && line.contains(&command))
            .collect();
        assert_eq!(lines.len(), 1, "{command}: {log}");
        for fact in [
            "operator's command",
            "user=\"operator\"",
            "from=\"127.0.0.1:",
            result,
        ] {
            let fact = fact.replace('"', "");
            let line = lines[0].replace('"', "");
            assert!(line.contains(&fact), "{fact}: {line}");
        }
    }
    assert!(!weir.log().contains("WEIR CLIENTS"));
}
