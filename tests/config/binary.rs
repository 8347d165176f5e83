//! What the program answers on its command line.

use std::process::Command;

use crate::{repository, text, weir};

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
