//! Every mistake is named at once, with its line; nothing panics.

use std::path::Path;

use proptest::prelude::*;
use weir::config::{Config, Flags, reference};

use crate::mistakes;

/// One file with a mistake of every kind; beside it what is said of each.
#[test]
fn all_mistakes_are_named_at_once_each_with_its_line() {
    let config = r#"[process]
workers = "many"
max_client = 10
[proces]
a = 1
[log]
filter = "inf"
[route.main]
listen = ["127.0.0.1:6380", "localhost:1"]
backend = "redis://:geheim@host:6379"
max_connections = 3
[route.main.clients]
idle_timeout = 5
output_max = "64 MiB"
[route.b]
listen = "0.0.0.0:6381"
[route.b.backend]
address = "127.0.0.1:6379"
max_connections = 4
max_leases = 10
password = "geheim"
password_env = "NOPE"
username = 5
tunnels = "yes"
on_loss = "panic"
[route.b.timeouts]
request = "500ms"
connect = "1s"
[route.b.auth]
mode = "weir"
[route.c.auth.users]
al = "geheim"
[route."d d"]
backend = { adress = "x:1" }
x = 1
[route.e]
backend = "127.0.0.1:6381"
listen = "127.0.0.1:6381"
[route.e.auth]
users.bo.password = "geheim"
"#;
    let expected = r#"
weir.toml:2: process.workers: expected a whole number from 0 to 1024, found "many"
weir.toml:3: process.max_client: unknown setting; the nearest known one is "max_clients"
weir.toml:4: proces: unknown section; the nearest known one is "process"
weir.toml:7: log.filter: expected a log filter such as "info" or "info,weir::backend=debug", found "inf"
weir.toml:9: route.main.listen: expected an IP address with a port such as "127.0.0.1:6380", "unix:" and the path of a socket, or a list of them, found "localhost:1"
weir.toml:10: route.main.backend.address: expected a host with a port such as "127.0.0.1:6379" or "redis.internal:6379", or "unix:" and the path of a socket, found "…@host:6379"
weir.toml:11: route.main.max_connections: unknown setting here; it belongs in [route.NAME.backend]
weir.toml:13: route.main.clients.idle_timeout: expected a duration from 1ms to 365d such as "1m30s", or 0 (never), found 5
weir.toml:14: route.main.clients.output_max: expected a size from 64KiB to 1TiB such as "64MiB", found "64 MiB"
weir.toml:20: route.b.backend.max_leases: expected at most route.b.backend.max_connections, 4, found 10
weir.toml:22: route.b.backend.password_env: expected only one of password, password_env, password_file, found another on line 21
weir.toml:23: route.b.backend.username: expected a text that is not empty, found 5
weir.toml:24: route.b.backend.tunnels: expected true or false, found "yes"
weir.toml:25: route.b.backend.on_loss: expected "error" or "close", found "panic"
weir.toml:28: route.b.timeouts.connect: expected at most route.b.timeouts.request, 500ms, found 1s
weir.toml:30: route.b.auth.mode: expected users for mode "weir", found no section [route.b.auth.users.NAME]
weir.toml:31: route.c.backend.address: expected a host with a port such as "127.0.0.1:6379" or "redis.internal:6379", or "unix:" and the path of a socket, found nothing
weir.toml:32: route.c.auth.users.al: expected a section, found a text
weir.toml:33: route."d d": expected a name of at most 64 letters, digits, "-" and "_", found "d d"
weir.toml:34: route."d d".backend.adress: unknown setting; the nearest known one is "address"
weir.toml:35: route."d d".x: unknown setting; known are listen, clients, limits, access, backend, failover, auth, timeouts, overload, health, listener
weir.toml:37: route.e.backend.address: expected the address of a Redis, found 127.0.0.1:6381, where this route listens
weir.toml:38: route.e.listen: expected an address that is free, found 127.0.0.1:6381; route.b.listen has 0.0.0.0:6381
weir.toml:40: route.e.auth.users: expected route.e.auth.mode = "weir" where users are listed, found another
"#;
    assert_eq!(mistakes(config).join("\n"), expected.trim());
}

#[test]
fn what_is_not_toml_is_named_with_its_line_beside_other_mistakes() {
    let config =
        "[route.main]\nbackend = \n[process]\nworkers = -1\nworkers = 2\nmax_clients = 1 1\n";
    let mistakes = mistakes(config);
    let starts: Vec<_> = mistakes
        .iter()
        .map(|m| m.split(": ").take(2).collect::<Vec<_>>())
        .collect();
    assert_eq!(
        starts,
        [
            ["weir.toml:2", "not TOML"],
            ["weir.toml:4", "process.workers"],
            ["weir.toml:5", "not TOML"],
            ["weir.toml:6", "not TOML"],
        ],
        "{mistakes:#?}"
    );
}

#[test]
fn a_file_without_a_route_says_so() {
    let expected = "route: expected a section [route.NAME] with a backend, found none";
    assert_eq!(mistakes(""), [format!("weir.toml: {expected}")]);
    assert_eq!(
        mistakes("\n[route]\n"),
        [format!("weir.toml:2: {expected}")]
    );
}

#[test]
fn what_can_not_be_read_is_a_mistake_and_no_panic() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("weir.toml");
    let mistake = |path: &Path| {
        let mistakes = Config::load(path, &Flags::default())
            .unwrap_err()
            .to_string();
        mistakes.replace(path.to_str().unwrap(), "FILE")
    };
    assert_eq!(
        mistake(&file),
        "FILE: can not be read: No such file or directory (os error 2)"
    );
    assert_eq!(
        mistake(directory.path()),
        "FILE: can not be read: Is a directory (os error 21)"
    );
    std::fs::write(&file, b"a = \"\xff\"").unwrap();
    assert_eq!(
        mistake(&file),
        "FILE: expected text in UTF-8, found other bytes"
    );
    std::fs::write(&file, format!("a = {}", "[".repeat(100_000))).unwrap();
    assert!(mistake(&file).starts_with("FILE:1: not TOML: "));
    let endless = mistake(Path::new("/dev/zero"));
    assert_eq!(
        endless,
        "FILE: expected a configuration file, found one of more than 4MiB"
    );
}

proptest! {
    /// Lines of the reference, some broken, in any order: an answer, never a panic.
    #[test]
    fn no_text_makes_the_reader_panic(
        picks in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..40, any::<char>()), 0..60)
    ) {
        let reference = reference::file();
        let lines: Vec<&str> = reference.lines().map(|line| line.trim_start_matches("# ")).collect();
        let mut text = String::new();
        for (pick, at, c) in picks {
            let line: Vec<char> = pick.get(&lines).chars().collect();
            for (i, original) in line.iter().enumerate() {
                // Most lines stay whole, so that reading gets past the syntax.
                text.push(if i == at && at > 20 { c } else { *original });
            }
            text.push('\n');
        }
        if let Err(mistakes) = Config::parse("weir.toml", &text) {
            prop_assert!(!mistakes.0.is_empty());
        }
    }
}
