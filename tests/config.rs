//! What Weir promises about its configuration: the reference is complete and
//! true, the examples load, every mistake is named at once, secrets stay hidden.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use proptest::prelude::*;
use weir::config::{AuthMode, Config, Flags, LogFormat, OnLoss, Secret, User, reference};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The real binary, with an environment in which all passwords of the examples are set.
fn weir(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(arguments)
        .env_remove("WEIR_LOG")
        .env("REDIS_PASSWORD", "of-redis")
        .env("ORDERS_PASSWORD", "of-orders")
        .env("SEARCH_PASSWORD", "of-search")
        .env("DEFAULT_PASSWORD", "of-default")
        .output()
        .expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("Weir writes UTF-8")
}

fn mistakes(config: &str) -> Vec<String> {
    let mistakes = Config::parse("weir.toml", config).expect_err("the file has mistakes");
    mistakes.0.iter().map(ToString::to_string).collect()
}

// The reference.

#[test]
fn the_reference_is_as_the_definitions_say() {
    let files = [
        ("config/weir.toml", reference::file()),
        ("docs/CONFIGURATION.md", reference::page()),
    ];
    for (path, wanted) in files {
        let path = repository(path);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &wanted).expect("the reference can be written");
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == wanted,
            "{} differs from the definitions; `UPDATE=1 cargo test --test config` writes it",
            path.display()
        );
    }
}

#[test]
fn the_reference_runs_as_it_is_and_changes_no_default() {
    let config = Config::parse("weir.toml", &reference::file()).unwrap();
    assert_eq!(config, Config::for_backend("127.0.0.1:6379"));
    let flags = Flags {
        backend: Some("127.0.0.1:6379".to_owned()),
        ..Flags::default()
    };
    assert_eq!(config, Config::from_flags(&flags).unwrap());
}

#[test]
fn every_line_of_the_reference_can_be_uncommented() {
    let is_setting = |line: &str| {
        let name: String = line
            .chars()
            .take_while(|c| c.is_ascii_lowercase() || *c == '_')
            .collect();
        !name.is_empty() && line[name.len()..].starts_with(" = ")
    };
    // A password is given in one of its forms, and users have to be asked for.
    let file = reference::file().replace("mode = \"redis\"", "mode = \"weir\"");
    let uncommented = file.lines().map(|line| match line.strip_prefix("# ") {
        Some(rest) if rest.starts_with("password_") => "",
        Some(rest) if rest.starts_with("[route.") || is_setting(rest) => rest,
        _ => line,
    });
    let uncommented: String = uncommented.flat_map(|line| [line, "\n"]).collect();

    let config = Config::parse("weir.toml", &uncommented).unwrap();
    let mut expected = Config::for_backend("127.0.0.1:6379");
    let route = &mut expected.routes[0];
    route.backend.username = Some("weir".to_owned());
    route.backend.password = Some(Secret::new("..."));
    route.auth.mode = AuthMode::Weir;
    route.auth.users = vec![User {
        name: "alice".to_owned(),
        password: Secret::new("..."),
    }];
    assert_eq!(config, expected);

    let settings: usize = reference::chapters()
        .iter()
        .map(|chapter| chapter.settings.len())
        .sum();
    let shown = uncommented.lines().filter(|line| is_setting(line)).count();
    assert_eq!(
        shown, settings,
        "every setting stands in the reference once"
    );
}

#[test]
fn every_setting_says_what_it_is_for() {
    for chapter in reference::chapters() {
        assert!(!chapter.about.is_empty(), "{}", chapter.path);
        for facts in chapter.settings {
            let words: usize = facts
                .doc
                .iter()
                .map(|line| line.split_whitespace().count())
                .sum();
            assert!(
                words >= 8,
                "{}.{} says too little",
                chapter.path,
                facts.name
            );
        }
    }
}

// The examples.

#[test]
fn every_example_loads() {
    let directory = repository("config/examples");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let output = weir(&["check", "--config", path.to_str().unwrap()]);
        assert_eq!(text(&output.stderr), "", "{}", path.display());
        assert_eq!(output.status.code(), Some(0));
        names.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(
        names,
        [
            "managed-redis",
            "shared-tier",
            "sidecar",
            "two-routes",
            "weir-users"
        ]
    );
}

#[test]
fn an_example_means_what_it_says() {
    let path = repository("config/examples/two-routes.toml");
    let config = Config::load(&path, &Flags::default()).unwrap();
    let [cache, queues] = &config.routes[..] else {
        panic!("two routes");
    };
    assert_eq!(
        (cache.name.as_str(), queues.name.as_str()),
        ("cache", "queues")
    );
    assert_eq!(cache.listen, ["127.0.0.1:6380".parse().unwrap()]);
    assert_eq!(cache.backend.address, "cache.internal:6379");
    assert_eq!(cache.backend.max_connections, 16);
    assert_eq!(
        cache.backend.max_leases, 16,
        "its default of 32 gives way to the budget"
    );
    assert_eq!(cache.timeouts.connect, cache.timeouts.request);
    assert_eq!(queues.backend.max_blocking, 80);
    assert_eq!(queues.clients.max_clients, 2_000);
}

// Reading.

#[test]
fn every_setting_is_read() {
    let config = Config::parse(
        "weir.toml",
        r#"
        [process]
        workers = 0x10
        max_clients = 1_000
        [log]
        filter = "warn,weir::backend=debug"
        format = "json"
        [admin]
        listen = "off"
        [route.a]
        listen = ["127.0.0.1:1", "[::1]:1"]
        clients.idle_timeout = 0
        clients.output_max = 65536
        clients.tcp_nodelay = false
        backend.address = "[::1]:6379"
        backend.on_loss = "close"
        backend.password = "geheim"
        timeouts.request = "1m30s"
        [route.b]
        listen = "127.0.0.1:2"
        backend = "redis_1.internal:6379"
        auth.mode = "open"
        "#,
    )
    .unwrap();
    assert_eq!(config.process.workers, 16);
    assert_eq!(config.log.filter, "warn,weir::backend=debug");
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.admin.listen, None);
    let a = &config.routes[0];
    assert_eq!(a.listen.len(), 2);
    assert!(a.clients.idle_timeout.is_zero());
    assert_eq!(a.clients.output_max, 65_536);
    assert!(!a.clients.tcp_nodelay);
    assert_eq!(a.clients.max_clients, 1_000, "as many as the process");
    assert_eq!(a.backend.address, "[::1]:6379");
    assert_eq!(a.backend.on_loss, OnLoss::Close);
    assert_eq!(a.backend.password, Some(Secret::new("geheim")));
    assert_eq!(a.timeouts.request.as_secs(), 90);
    assert_eq!(config.routes[1].backend.address, "redis_1.internal:6379");
    assert_eq!(config.routes[1].auth.mode, AuthMode::Open);
}

#[test]
fn passwords_come_from_files_and_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("password"), "from-file\n").unwrap();
    let file = directory.path().join("weir.toml");
    let write = |password: &str| {
        let backend = "[route.main.backend]\naddress = \"127.0.0.1:6379\"\n";
        std::fs::write(&file, format!("{backend}{password}\n")).unwrap();
    };
    let check = || weir(&["check", "--config", file.to_str().unwrap()]);

    write("password_file = \"password\"");
    let config = Config::load(&file, &Flags::default()).unwrap();
    let password = config.routes[0].backend.password.clone().unwrap();
    assert_eq!(password.expose(), b"from-file");
    std::fs::write(directory.path().join("password"), "rotated").unwrap();
    assert_eq!(password.reread().unwrap().expose(), b"rotated");

    write("password_env = \"REDIS_PASSWORD\"");
    assert_eq!(check().status.code(), Some(0));
    for (line, problem) in [
        (
            "password_env = \"NO_SUCH_VARIABLE\"",
            "NO_SUCH_VARIABLE, which is not set",
        ),
        ("password_file = \"absent\"", "No such file or directory"),
        ("password = \"\"", "found an empty one"),
    ] {
        write(line);
        let output = check();
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(
            text(&output.stderr).contains(problem),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn flags_have_precedence_over_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("weir.toml");
    std::fs::write(
        &file,
        "process.workers = 7\nroute.main.backend = \"127.0.0.1:6379\"\n",
    )
    .unwrap();
    let flags = Flags {
        workers: Some("3".to_owned()),
        admin: Some("off".to_owned()),
        log: Some("debug".to_owned()),
        ..Flags::default()
    };
    let config = Config::load(&file, &flags).unwrap();
    assert_eq!(config.process.workers, 3);
    assert_eq!(config.admin.listen, None);
    assert_eq!(config.log.filter, "debug");
}

// Mistakes.

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
weir.toml:9: route.main.listen: expected an IP address with a port such as "127.0.0.1:6380", or a list of them, found "localhost:1"
weir.toml:10: route.main.backend.address: expected a host with a port such as "127.0.0.1:6379" or "redis.internal:6379", found "…@host:6379"
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
weir.toml:31: route.c.backend.address: expected a host with a port such as "127.0.0.1:6379" or "redis.internal:6379", found nothing
weir.toml:32: route.c.auth.users.al: expected a section, found a text
weir.toml:33: route."d d": expected a name of at most 64 letters, digits, "-" and "_", found "d d"
weir.toml:34: route."d d".backend.adress: unknown setting; the nearest known one is "address"
weir.toml:35: route."d d".x: unknown setting; known are listen, clients, backend, auth, timeouts
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

// The binary.

#[test]
fn check_says_what_a_file_amounts_to_and_exits_with_0() {
    let output = weir(&[
        "check",
        "--config",
        repository("config/weir.toml").to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("no mistakes"), "{said}");
    assert!(
        said.contains("route main: 127.0.0.1:6380 -> 127.0.0.1:6379"),
        "{said}"
    );
}

#[test]
fn a_file_with_mistakes_starts_nothing_and_exits_with_1() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("weir.toml");
    std::fs::write(&file, "[route.main]\nbackend = 1\nlisten = 2\n").unwrap();
    let file = file.to_str().unwrap();
    for arguments in [&["check", "--config", file][..], &["--config", file]] {
        let output = weir(arguments);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(text(&output.stdout), "");
        let lines: Vec<&str> = text(&output.stderr).lines().collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with(&format!("{file}:2: route.main.backend.address: expected ")));
        assert!(lines[1].starts_with(&format!("{file}:3: route.main.listen: expected ")));
    }
}

#[test]
fn mistakes_on_the_command_line_are_named_at_once() {
    let output = weir(&[
        "--listen",
        "x",
        "--backend",
        "y",
        "--admin",
        "z",
        "--workers",
        "w",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    for flag in ["--listen", "--backend", "--admin", "--workers"] {
        assert!(
            said.contains(&format!("command line: {flag}: expected ")),
            "{said}"
        );
    }
    let without_backend = weir(&["--listen", "127.0.0.1:0"]);
    assert_eq!(without_backend.status.code(), Some(2));
    assert!(text(&without_backend.stderr).contains("--backend"));
}

#[test]
fn a_filter_in_the_environment_is_checked_too() {
    let output = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["--backend", "127.0.0.1:6379"])
        .env("WEIR_LOG", "loud")
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.starts_with("environment: WEIR_LOG: expected a log filter "),
        "{said}"
    );
}

#[test]
fn help_shows_how_to_begin() {
    let output = weir(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let said = text(&output.stdout);
    assert!(
        said.contains("weir --listen 127.0.0.1:6380 --backend 127.0.0.1:6379"),
        "{said}"
    );
    assert!(said.contains("weir check --config weir.toml"), "{said}");
    let version = weir(&["--version"]);
    assert_eq!(
        text(&version.stdout),
        concat!("weir ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

// Secrets.

#[test]
fn secrets_show_in_no_output() {
    let config = r#"
        [route.main.backend]
        address = "127.0.0.1:6379"
        username = "weir"
        password = "geheim"
        [route.main.auth]
        mode = "weir"
        users.alice.password = "geheim"
    "#;
    let parsed = Config::parse("weir.toml", config).unwrap();
    assert!(!format!("{parsed:?} {parsed:#?}").contains("geheim"));

    let misplaced = [
        "route.main.backend = \"redis://weir:geheim@127.0.0.1:6379\"",
        "route.main.backend = { address = \"geheim@h:1\", passwort = \"geheim\" }",
        "route.main = { backend = \"h:1\", auth.users.alice = \"geheim\" }",
        "route.main.backend = { address = \"h:1\", password_env = \"geheim!\" }",
        "route.main.backend = { address = \"h:1\", password = [\"geheim\"] }",
        "route.main.backend = { address = \"h:1\", password = geheim }",
        "route.main.backend = { address = \"h:1\", password = \"geheim }",
        "password = \"geheim\"",
    ];
    for config in misplaced {
        let said = mistakes(config).join("\n");
        assert!(!said.contains("geheim"), "{config}: {said}");
    }
}
