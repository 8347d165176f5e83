//! Clients that are in the middle of something, other sockets, other settings.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::chain::{Chain, config};
use super::support::{ConnectionWatch, RawClient, RedisServer, ReservedPort, encode, wait_until};

#[test]
fn who_is_in_the_middle_of_something_finishes_it_with_the_old_process() {
    let redis = RedisServer::start();
    let mut chain = Chain::start(&redis, "drain_timeout = \"28s\"", "max_connections = 5", "");
    let watch = ConnectionWatch::start(&redis);
    let (mut idle, mut busy) = (chain.weir.client(), chain.weir.client());
    let (mut blocked, mut subscriber) = (chain.weir.client(), chain.weir.client());
    idle.expect_command(&["PING"], "+PONG\r\n");
    busy.expect_command(&["WATCH", "k"], "+OK\r\n");
    busy.expect_command(&["MULTI"], "+OK\r\n");
    blocked.send(encode(&["BLPOP", "queue", "0"]));
    subscriber.send(encode(&["SUBSCRIBE", "news"]));
    subscriber.expect("*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    wait_until("it is blocked", || {
        redis.info("clients", "blocked_clients") == "1"
    });
    chain.upgrade();
    // In their turn, though with nothing to say.
    idle.expect_closed();
    subscriber.expect_closed();
    let mut next = chain.weir.client();
    next.expect_command(&["SET", "other", "v"], "+OK\r\n");
    assert!(chain.weir.is_running(), "two clients are busy");
    busy.expect_command(&["SET", "k", "v"], "+QUEUED\r\n");
    busy.expect_command(&["EXEC"], "*1\r\n+OK\r\n");
    busy.expect_closed();
    next.expect_command(&["RPUSH", "queue", "e"], ":1\r\n");
    blocked.expect("*2\r\n$5\r\nqueue\r\n$1\r\ne\r\n");
    blocked.expect_closed();
    chain.wait_for_elders();
    next.expect_command(&["GET", "k"], "$1\r\nv\r\n");
    watch.assert_at_most(5);
}

#[test]
fn every_socket_is_handed_over_and_files_stay() {
    let redis = RedisServer::start();
    let directory = tempfile::tempdir().expect("a directory");
    let (path, console) = (directory.path().join("weir.sock"), ReservedPort::new());
    let settings = config("", "max_connections = 4", "")
        .replace(
            "[route.main]\nlisten = \"{listen}\"",
            &format!(
                "[route.main]\nlisten = [\"{{listen}}\", \"unix:{}\"]",
                path.display()
            ),
        )
        .replace(
            "[admin]\n",
            &format!("[admin]\nresp_listen = \"{}\"\n", console.address()),
        );
    let weir = super::support::WeirProcess::with_config(&redis, &settings);
    let mut chain = Chain::of(weir);
    let ping = || {
        let mut local = UnixStream::connect(&path).expect("the file is there");
        local.write_all(b"PING\r\n").expect("it is read");
        let mut reply = [0; 7];
        local.read_exact(&mut reply).expect("a reply");
        assert_eq!(&reply, b"+PONG\r\n");
    };
    ping();
    let inode = || {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(&path).expect("the file").ino()
    };
    let before = inode();
    // By the console, which tells who takes over.
    let mut operator = RawClient::connect(console.address());
    let told = operator.command(&["WEIR", "UPGRADE"]);
    let told = String::from_utf8(told).expect("text");
    assert!(told.starts_with("+OK process "), "{told}");
    chain.wait_for_successor(0);
    assert!(told.contains(&chain.pid().to_string()), "{told}");
    wait_until("it leaves a line", || {
        let log = chain.weir.log();
        let mut lines = log.lines();
        lines.any(|line| line.contains("audit") && line.contains("WEIR UPGRADE"))
    });
    ping();
    chain.wait_for_elders();
    ping();
    assert_eq!(inode(), before);
    let events = chain.weir.get("/events.json").1;
    assert!(
        events.contains("started") && !events.contains("upgraded"),
        "the new process's page: {events}"
    );
    assert!(events.contains(&chain.pid().to_string()), "{events}");
    let mut operator = RawClient::connect(console.address());
    operator.expect_command(&["PING"], "+PONG\r\n");
    wait_until("Weir is ready", || chain.weir.get("/readyz").0 == 200);
    // The file goes with the last one.
    chain.signal(libc::SIGTERM);
    wait_until("the file is gone", || !path.exists());
}

/// What needs a restart is changed by an upgrade, and a socket that is no longer named goes.
#[test]
fn the_new_process_has_the_settings_of_the_file() {
    let redis = RedisServer::start();
    let other = ReservedPort::new();
    let mut chain = Chain::start(&redis, "", "max_connections = 4", "");
    let changed = config("", "max_connections = 2", "")
        .replace("workers = 2", "workers = 1")
        .replace(
            "listen = \"{listen}\"",
            &format!("listen = [\"{{listen}}\", \"{}\"]", other.address()),
        );
    fs::write(chain.weir.config_path(), chain.weir.filled(&changed)).expect("a file");
    chain.upgrade();
    chain.wait_for_elders();
    let mut client = RawClient::connect(other.address());
    client.expect_command(&["PING"], "+PONG\r\n");
    let (_, settings) = chain.weir.get("/config.json");
    let settings: serde_json::Value = serde_json::from_str(&settings).expect("JSON");
    assert_eq!(settings["process.workers"], "1");
    assert_eq!(settings["route.main.backend.max_connections"], "2");
}
