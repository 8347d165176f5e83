//! An upgrade that does not work leaves everything as it was.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::chain::{Chain, config, runs};
use super::support::{
    ConnectionWatch, RawClient, RedisServer, ReservedPort, WeirProcess, binary, wait_until,
};

#[test]
fn a_file_with_a_mistake_is_told_and_nobody_notices() {
    let redis = RedisServer::start();
    let console = ReservedPort::new();
    let settings = config("", "max_connections = 4", "").replace(
        "[admin]\n",
        &format!("[admin]\nresp_listen = \"{}\"\n", console.address()),
    );
    let weir = WeirProcess::with_config(&redis, &settings);
    let mut chain = Chain::of(weir);
    let watch = ConnectionWatch::start(&redis);
    let mut client = chain.weir.client();
    client.expect_command(&["WATCH", "k"], "+OK\r\n");
    let good = fs::read_to_string(chain.weir.config_path()).expect("the file");
    fs::write(chain.weir.config_path(), good.clone() + "nonsense = 1\n").expect("a file");
    let mut operator = RawClient::connect(console.address());
    let told = operator.command(&["WEIR", "UPGRADE"]);
    let told = String::from_utf8(told).expect("text");
    assert!(
        told.starts_with("-ERR no upgrade: ") && told.contains("nonsense"),
        "{told}"
    );
    assert!(
        told.contains(chain.weir.config_path().to_str().expect("text")),
        "{told}"
    );
    chain.weir.wait_for_log("no upgrade, this process goes on");
    for command in [&["MULTI"][..], &["PING"], &["EXEC"]] {
        client.command(command);
    }
    chain.weir.client().expect_command(&["PING"], "+PONG\r\n");
    wait_until("it is in the record", || {
        chain.weir.get("/events.json").1.contains("upgrade_failed")
    });
    // What was wrong can be put right.
    fs::write(chain.weir.config_path(), good).expect("a file");
    let told = operator.command(&["WEIR", "UPGRADE"]);
    assert!(told.starts_with(b"+OK"), "{}", told.escape_ascii());
    chain.wait_for_successor(0);
    chain.wait_for_elders();
    watch.assert_at_most(4);
}

/// Weir from an executable of its own, which can be replaced as a package does it.
fn weir_from(redis: &RedisServer, executable: &Path, directory: &Path) -> Chain {
    fs::copy(binary().get_program(), executable).expect("a copy");
    let (listen, admin) = (ReservedPort::new(), ReservedPort::new());
    let path = directory.join("weir.toml");
    let text = config("", "max_connections = 4", "")
        .replace("{listen}", &listen.address().to_string())
        .replace("{admin}", &admin.address().to_string())
        .replace("{backend}", &redis.address().to_string());
    fs::write(&path, text).expect("a file");
    let mut command = Command::new(executable);
    command.arg("--config").arg(path);
    Chain::of(WeirProcess::with_command(
        command,
        listen,
        admin,
        redis.address(),
    ))
}

fn replace(executable: &Path, script: &str) {
    let beside = executable.with_extension("new");
    fs::write(&beside, script).expect("a file");
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).expect("its own file");
    fs::rename(beside, executable).expect("the same directory");
}

#[test]
fn an_executable_that_fails_or_hangs_is_given_up() {
    let redis = RedisServer::start();
    let directory = tempfile::tempdir().expect("a directory");
    let executable = directory.path().join("weir");
    let mut chain = weir_from(&redis, &executable, directory.path());
    let mut client = chain.weir.client();
    let mut refusals = 0;
    let mut refused = |chain: &mut Chain, why: &str| {
        refusals += 1;
        chain.signal(libc::SIGUSR2);
        wait_until("the upgrade is given up", || {
            let log = chain.weir.log();
            let lines: Vec<&str> = log.lines().filter(|it| it.contains("no upgrade")).collect();
            lines.len() == refusals && lines[refusals - 1].contains(why)
        });
        client.expect_command(&["PING"], "+PONG\r\n");
        chain.weir.client().expect_command(&["PING"], "+PONG\r\n");
    };
    replace(&executable, "#!/bin/sh\nexit 3\n");
    refused(&mut chain, "exit status: 3");
    replace(&executable, "no program\n");
    refused(&mut chain, "weir: ");
    fs::remove_file(&executable).expect("it is there");
    refused(&mut chain, "No such file");
    // It does not read its first line.
    replace(&executable, "#!/bin/sh\nexec sleep 100\n");
    let asked = std::time::Instant::now();
    chain.signal(libc::SIGUSR2);
    wait_until("it has been started", || {
        chain.weir.log().matches("starting another process").count() == 4
    });
    // One at a time.
    refused(&mut chain, "is about to take over");
    // Longer than a test usually waits for anything.
    while !chain.weir.log().contains("it was not ready within") {
        assert!(asked.elapsed().as_secs() < 90, "{}", chain.weir.log());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    chain.weir.client().expect_command(&["PING"], "+PONG\r\n");
    // With a good one it works.
    fs::remove_file(&executable).expect("it is there");
    fs::copy(binary().get_program(), &executable).expect("a copy");
    let before = 0;
    chain.signal(libc::SIGUSR2);
    wait_until("another process has taken over", || {
        chain.weir.log().contains("handing over")
    });
    let log = chain.weir.log();
    assert_eq!(log.matches("handing over").count(), before + 1);
    wait_until("the process before has ended", || !chain.weir.is_running());
    RawClient::connect(chain.weir.address()).expect_command(&["PING"], "+PONG\r\n");
}

#[test]
fn who_is_told_to_stop_does_not_leave_a_successor_behind() {
    let redis = RedisServer::start();
    let directory = tempfile::tempdir().expect("a directory");
    let executable = directory.path().join("weir");
    let mut chain = weir_from(&redis, &executable, directory.path());
    let said = directory.path().join("pid");
    // It never becomes ready, and does not stop when it is asked to.
    let script = format!(
        "#!/bin/sh\ntrap '' TERM INT\necho $$ > {0}.new\nmv {0}.new {0}\nwhile :; do sleep 0.1; done\n",
        said.display()
    );
    replace(&executable, &script);
    chain.signal(libc::SIGUSR2);
    wait_until("it has been started", || said.exists());
    let pid = fs::read_to_string(&said).expect("its process id");
    let pid: u32 = pid.trim().parse().expect("a number");
    assert!(runs(pid));
    chain.signal(libc::SIGTERM);
    wait_until("Weir has ended", || !chain.weir.is_running());
    assert!(!runs(pid), "{}", chain.weir.log());
}
