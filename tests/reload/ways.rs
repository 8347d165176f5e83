//! The ways to ask for it, and what is refused.

use std::fs;

use super::support::{RawClient, RedisServer, ReservedPort, WeirProcess, wait_until};
use super::{Busy, in_force, text};

const KEY: &str = "route.main.clients.max_clients";

#[test]
fn a_signal_puts_a_change_into_force_and_no_connection_notices() {
    let (redis, console) = (RedisServer::start(), ReservedPort::new());
    let mut weir = WeirProcess::with_config(&redis, &text("500", &console, ""));
    let busy = Busy::start(&weir);
    fs::write(weir.config_path(), weir.filled(&text("600", &console, ""))).unwrap();
    assert_eq!(in_force(&weir, KEY), "500");
    weir.signal(libc::SIGHUP);
    wait_until("the change is in force", || in_force(&weir, KEY) == "600");
    weir.wait_for_log("settings were read again");
    busy.go_on(&redis);
}

#[test]
fn the_console_says_what_has_changed() {
    let (redis, console) = (RedisServer::start(), ReservedPort::new());
    let weir = WeirProcess::with_config(&redis, &text("500", &console, ""));
    let busy = Busy::start(&weir);
    let mut operator = RawClient::connect(console.address());
    operator.expect_command(&["WEIR", "RELOAD"], "*0\r\n");
    fs::write(weir.config_path(), weir.filled(&text("600", &console, ""))).unwrap();
    let told = String::from_utf8(operator.command(&["WEIR", "RELOAD"])).unwrap();
    for part in [KEY, "500", "600"] {
        assert!(told.contains(part), "{told}");
    }
    assert_eq!(in_force(&weir, KEY), "600");
    busy.go_on(&redis);
}

/// Not only when the one from before, which may be hours, is over.
#[test]
fn another_interval_holds_at_once() {
    let (redis, console) = (RedisServer::start(), ReservedPort::new());
    let more = "[route.main.health]\nwatch_interval = \"1h\"\n";
    let settings = text("500", &console, "") + more;
    let weir = WeirProcess::with_config(&redis, &settings);
    let clients = || weir.metric("weir_node_clients", &[]);
    wait_until("Redis was looked at", || clients() > 0.0);
    let _others: Vec<_> = (0..20).map(|_| redis.client()).collect();
    let settings = settings.replace("1h", "100ms");
    fs::write(weir.config_path(), weir.filled(&settings)).unwrap();
    RawClient::connect(console.address()).command(&["WEIR", "RELOAD"]);
    wait_until("it was looked at again", || clients() > 20.0);
}

#[test]
fn a_file_with_a_mistake_is_refused_as_a_whole() {
    let (redis, console) = (RedisServer::start(), ReservedPort::new());
    let mut weir = WeirProcess::with_config(&redis, &text("500", &console, ""));
    let busy = Busy::start(&weir);
    let mut operator = RawClient::connect(console.address());
    // The first change is good; the mistake is in the line after it.
    let bad = text("600", &console, "") + "idle_timeout = \"soon\"\n";
    fs::write(weir.config_path(), weir.filled(&bad)).unwrap();
    let line = bad.lines().count();
    let place = format!("{}:{line}", weir.config_path().display());
    let told = String::from_utf8(operator.command(&["WEIR", "RELOAD"])).unwrap();
    assert!(told.starts_with("-ERR"), "{told}");
    for part in [&*place, "route.main.clients.idle_timeout"] {
        assert!(told.contains(part), "{told}");
    }
    weir.signal(libc::SIGHUP);
    wait_until("the log says where the mistake is", || {
        let log = weir.log();
        let mut refusals = log
            .lines()
            .skip_while(|line| !line.contains("by=\"SIGHUP\""));
        refusals.any(|line| line.contains(&place))
    });
    assert_eq!(in_force(&weir, KEY), "500");
    busy.go_on(&redis);
}

#[test]
fn what_needs_a_restart_is_named_and_changes_nothing() {
    let (redis, console) = (RedisServer::start(), ReservedPort::new());
    let weir = WeirProcess::with_config(&redis, &text("500", &console, ""));
    let busy = Busy::start(&weir);
    let mut operator = RawClient::connect(console.address());
    let both = text("600", &console, "") + "backlog = 17\n";
    fs::write(weir.config_path(), weir.filled(&both)).unwrap();
    let told = String::from_utf8(operator.command(&["WEIR", "RELOAD"])).unwrap();
    assert!(
        told.starts_with("-ERR") && told.contains("needs a restart") && told.contains("backlog"),
        "{told}"
    );
    assert_eq!(in_force(&weir, KEY), "500");
    busy.go_on(&redis);
}
