//! `process.watch_config`: every way in which files change.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use super::support::{RedisServer, ReservedPort, WeirProcess, binary, wait_until};
use super::{Busy, in_force, text};

const KEY: &str = "route.main.clients.max_clients";
const WATCHED: &str = "[process]\nwatch_config = true\n";

fn wait_for(weir: &WeirProcess, value: &str) {
    wait_until("the change is in force", || in_force(weir, KEY) == value);
}

#[test]
fn a_file_that_is_written_or_renamed_over_is_taken_and_a_bad_one_is_not() {
    let (redis, console) = (RedisServer::start(), ReservedPort::new());
    let weir = WeirProcess::with_config(&redis, &text("500", &console, WATCHED));
    let busy = Busy::start(&weir);
    let path = weir.config_path();
    let filled = |weir: &WeirProcess, value: &str| weir.filled(&text(value, &console, WATCHED));

    fs::write(&path, filled(&weir, "600")).unwrap();
    wait_for(&weir, "600");

    let beside = path.with_extension("new");
    fs::write(&beside, filled(&weir, "700")).unwrap();
    fs::rename(&beside, &path).unwrap();
    wait_for(&weir, "700");

    fs::write(&path, filled(&weir, "\"plenty\"")).unwrap();
    wait_until("the log says what is wrong with it", || {
        let log = weir.log();
        let mut refusal = log
            .lines()
            .skip_while(|line| !line.contains("settings were not read again"));
        refusal.any(|line| line.contains(&format!("{KEY}: expected")))
    });
    assert_eq!(in_force(&weir, KEY), "700");
    // Gone for a moment, as with editors that delete first.
    fs::remove_file(&path).unwrap();
    fs::write(&path, filled(&weir, "800")).unwrap();
    wait_for(&weir, "800");
    assert_eq!(
        weir.log().matches("settings were not read again").count(),
        1
    );
    busy.go_on(&redis);
}

/// A mounted ConfigMap: the file is a link through `..data`, and that link is replaced.
#[test]
fn a_link_that_leads_elsewhere_is_taken() {
    let (redis, console, listen) = (
        RedisServer::start(),
        ReservedPort::new(),
        ReservedPort::new(),
    );
    let admin = ReservedPort::new();
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let first = text("500", &console, WATCHED)
        .replace("{listen}", &listen.address().to_string())
        .replace("{admin}", &admin.address().to_string())
        .replace("{backend}", &redis.address().to_string());
    fs::create_dir(at("..1")).unwrap();
    fs::write(at("..1").join("weir.toml"), first).unwrap();
    symlink("..1", at("..data")).unwrap();
    symlink("..data/weir.toml", at("weir.toml")).unwrap();
    let mut command: Command = binary();
    command.arg("--config").arg(at("weir.toml"));
    let weir = WeirProcess::with_command(command, listen, admin, redis.address());
    let busy = Busy::start(&weir);
    assert_eq!(in_force(&weir, KEY), "500");

    let other = text("600", &console, WATCHED);
    fs::create_dir(at("..2")).unwrap();
    fs::write(at("..2").join("weir.toml"), weir.filled(&other)).unwrap();
    symlink("..2", at("..tmp")).unwrap();
    fs::rename(at("..tmp"), at("..data")).unwrap();
    fs::remove_dir_all(at("..1")).unwrap();
    wait_for(&weir, "600");
    busy.go_on(&redis);
}
