//! Weir's own password changes while it runs.

use super::support::{RedisServer, WeirProcess, wait_until};
use super::{error, weir};

struct Rotation {
    redis: RedisServer,
    weir: WeirProcess,
    password: std::path::PathBuf,
    _directory: tempfile::TempDir,
}

impl Rotation {
    fn start(user: &str) -> Rotation {
        let redis = RedisServer::with(&["--requirepass", "admin"]);
        redis.command(&["ACL", "SETUSER", "weir", "on", ">old", "~*", "&*", "+@all"]);
        redis.command(&["ACL", "SETUSER", "default", ">old"]);
        let directory = tempfile::tempdir().expect("a directory");
        let password = directory.path().join("password");
        std::fs::write(&password, "old\n").expect("a file");
        let weir = weir(
            &redis,
            &format!("{user}password_file = {password:?}\n[route.main.auth]\nmode = \"open\"\n"),
        );
        Rotation {
            redis,
            weir,
            password,
            _directory: directory,
        }
    }

    fn change_in_redis(&self, user: &str) {
        let reply = self
            .redis
            .command(&["ACL", "SETUSER", user, "<old", ">new"]);
        assert_eq!(reply, b"+OK\r\n");
    }

    fn change_in_file(&self) {
        std::fs::write(&self.password, "new\n").expect("a file");
    }

    fn kill_connections(&self) {
        let reply = self
            .redis
            .command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        assert!(reply.starts_with(b":"), "{}", reply.escape_ascii());
    }
}

#[test]
fn a_password_that_is_changed_in_both_places_costs_nobody_an_error() {
    for (setting, user) in [("", "default"), ("username = \"weir\"\n", "weir")] {
        let rotation = Rotation::start(setting);
        let mut client = rotation.weir.client();
        client.expect_command(&["SET", "k", "v"], "+OK\r\n");
        rotation.change_in_file();
        rotation.change_in_redis(user);
        // Connections that are logged in stay so; new ones log in with what is in the file.
        client.expect_command(&["GET", "k"], "$1\r\nv\r\n");
        client.expect_command(&["WATCH", "k"], "+OK\r\n");
        client.expect_command(&["UNWATCH"], "+OK\r\n");
        rotation.kill_connections();
        client.expect_command(&["GET", "k"], "$1\r\nv\r\n");
        client.expect_command(&["SELECT", "1"], "+OK\r\n");
        client.expect_command(&["BLPOP", "nothing", "0.01"], "*-1\r\n");
    }
}

#[test]
fn a_password_that_is_late_is_used_as_soon_as_it_is_there() {
    let rotation = Rotation::start("username = \"weir\"\n");
    let mut client = rotation.weir.client();
    client.expect_command(&["SET", "k", "v"], "+OK\r\n");
    rotation.change_in_redis("weir");
    // What is open still serves; what would have to be opened is refused.
    client.expect_command(&["GET", "k"], "$1\r\nv\r\n");
    let refused = client.command(&["WATCH", "k"]);
    assert!(
        error(&refused).is_some_and(|text| text.starts_with("WRONGPASS")),
        "{}",
        refused.escape_ascii()
    );
    client.expect_command(&["GET", "k"], "$1\r\nv\r\n");
    rotation.change_in_file();
    wait_until("the new password is used", || {
        client.command(&["WATCH", "k"]) == b"+OK\r\n"
    });
    rotation.kill_connections();
    wait_until("new connections log in with it", || {
        client.command(&["GET", "k"]) == b"$1\r\nv\r\n"
    });
}
