//! A managed Redis that allows less: what is left serves.

use super::support::{RedisServer, WeirProcess, wait_until};
use super::weir;

fn check(weir: &WeirProcess) {
    wait_until("Weir is ready", || weir.get("/readyz").0 == 200);
    let mut client = weir.client();
    client.expect_command(&["SET", "k", "v"], "+OK\r\n");
    client.expect_command(&["SELECT", "3"], "+OK\r\n");
    client.expect_command(&["GET", "k"], "$-1\r\n");
    client.expect_command(&["SELECT", "0"], "+OK\r\n");
    assert!(client.command(&["HELLO", "3"]).starts_with(b"%7\r\n"));
    client.expect_command(&["GET", "k"], "$1\r\nv\r\n");
    client.expect_command(&["GET", "nothing"], "_\r\n");
    client.expect_command(&["WATCH", "k"], "+OK\r\n");
    client.expect_command(&["MULTI"], "+OK\r\n");
    client.expect_command(&["INCR", "n"], "+QUEUED\r\n");
    client.expect_command(&["EXEC"], "*1\r\n:1\r\n");
    client.expect_command(&["BLPOP", "nothing", "0.01"], "_\r\n");
    client.expect_command(
        &["SUBSCRIBE", "x"],
        ">3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n",
    );
    weir.client()
        .expect_command(&["PUBLISH", "x", "m"], ":1\r\n");
    client.expect(">3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$1\r\nm\r\n");
    let mut named = weir.client();
    named.expect_command(&["CLIENT", "SETNAME", "me"], "+OK\r\n");
    named.expect_command(&["CLIENT", "GETNAME"], "$2\r\nme\r\n");
    assert!(!weir.log().contains("panicked"), "{}", weir.log());
}

#[test]
fn a_redis_without_config_acl_client_and_command_is_served() {
    let redis = RedisServer::with(&[
        "--rename-command",
        "CONFIG",
        "",
        "--rename-command",
        "ACL",
        "",
        "--rename-command",
        "CLIENT",
        "",
        "--rename-command",
        "COMMAND",
        "",
        "--rename-command",
        "INFO",
        "",
    ]);
    check(&weir(&redis, ""));
}

#[test]
fn a_user_without_these_is_served() {
    let redis = RedisServer::with(&["--requirepass", "admin"]);
    let reply = redis.command(&[
        "ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-config", "-acl",
        "-client", "-command", "-info",
    ]);
    assert_eq!(reply, b"+OK\r\n");
    check(&weir(
        &redis,
        "username = \"app\"\npassword = \"secret\"\n[route.main.auth]\nmode = \"open\"\n",
    ));
}
