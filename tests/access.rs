//! What a client may not ask for: refused commands, reading only, keys of its own.

mod support;

use support::{RedisServer, WeirProcess};

/// A Weir whose route has these sections besides, and one lease.
fn weir(redis: &RedisServer, sections: &str) -> WeirProcess {
    WeirProcess::with_backend(redis, &format!("max_leases = 1\n{sections}"))
}

fn refused(command: &str, setting: &str) -> String {
    format!(
        "-NOPERM weir: '{command}' is refused here (access.{setting}), command not executed\r\n"
    )
}

const TENANTS: &str = "[route.main.access.tenants]\nrefuse = [\"@shared\", \"object|freq\"]\n";

#[test]
fn a_shared_tier_refuses_what_would_harm_the_others() {
    let redis = RedisServer::start();
    let weir = weir(&redis, TENANTS);
    let mut client = weir.client();
    client.expect_command(&["SET", "key", "value"], "+OK\r\n");
    for (request, command) in [
        (&["FLUSHALL"][..], "flushall"),
        (&["flushdb", "ASYNC"], "flushdb"),
        (&["KEYS", "*"], "keys"),
        (&["CONFIG", "GET", "requirepass"], "config|get"),
        (&["DEBUG", "SLEEP", "0"], "debug"),
        (&["SHUTDOWN", "NOSAVE"], "shutdown"),
        (&["MONITOR"], "monitor"),
        (&["CLIENT", "KILL", "TYPE", "normal"], "client|kill"),
        (&["OBJECT", "FREQ", "key"], "object|freq"),
    ] {
        client.expect_command(request, refused(command, "tenants.refuse"));
    }
    client.expect_command(&["GET", "key"], "$5\r\nvalue\r\n");
    client.expect_command(&["OBJECT", "REFCOUNT", "key"], ":1\r\n");
    let of_cause = ["route=\"main\"", "cause=\"no_permission\""];
    weir.wait_for_metric("weir_errors_total", &of_cause, 9.0);
    assert_eq!(redis.client().command(&["DBSIZE"]), b":1\r\n");
}

#[test]
fn a_refused_command_spoils_its_transaction_however_it_came() {
    let redis = RedisServer::start();
    let weir = weir(&redis, TENANTS);
    let mut client = weir.client();
    let no = refused("flushall", "tenants.refuse");
    let abort = "-EXECABORT Transaction discarded because of previous errors.\r\n";
    // Command by command, and in one piece.
    client.expect_command(&["MULTI"], "+OK\r\n");
    client.expect_command(&["SET", "a", "1"], "+QUEUED\r\n");
    client.expect_command(&["FLUSHALL"], &no);
    client.expect_command(&["SET", "b", "1"], "+QUEUED\r\n");
    client.expect_command(&["EXEC"], abort);
    client.send(b"MULTI\r\nSET a 1\r\nFLUSHALL\r\nEXEC\r\nGET a\r\n");
    client.expect(format!("+OK\r\n+QUEUED\r\n{no}{abort}$-1\r\n"));
    client.send(b"MULTI\r\nSET a 1\r\nGET a\r\nEXEC\r\n");
    client.expect("+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n$1\r\n1\r\n");
}

#[test]
fn a_transaction_that_is_kept_in_weir_is_spoilt_as_well() {
    let redis = RedisServer::start();
    let weir = weir(&redis, TENANTS);
    let mut holder = weir.client();
    let mut client = weir.client();
    holder.expect_command(&["WATCH", "key"], "+OK\r\n");
    client.expect_command(&["MULTI"], "+OK\r\n");
    client.expect_command(&["FLUSHALL"], refused("flushall", "tenants.refuse"));
    client.expect_command(
        &["EXEC"],
        "-EXECABORT Transaction discarded because of previous errors.\r\n",
    );
    client.expect_command(&["PING"], "+PONG\r\n");
}

#[test]
fn rules_are_about_users_and_hold_from_the_login_on() {
    let redis = RedisServer::start();
    let mut admin = redis.client();
    for user in ["report", "orders"] {
        admin.expect_command(
            &["ACL", "SETUSER", user, "on", ">secret", "~*", "&*", "+@all"],
            "+OK\r\n",
        );
    }
    let weir = weir(
        &redis,
        "[route.main.access.reports]\nusers = \"report*\"\nread_only = true\n\
         [route.main.access.orders]\nusers = \"orders\"\nkey_prefixes = \"orders:\"\n\
         [route.main.access.elsewhere]\nnetworks = \"10.0.0.0/8\"\nrefuse = \"get\"\n",
    );
    let mut client = weir.client();
    client.expect_command(&["SET", "key", "value"], "+OK\r\n");
    client.expect_command(&["AUTH", "report", "secret"], "+OK\r\n");
    client.expect_command(&["GET", "key"], "$5\r\nvalue\r\n");
    let no = |command| refused(command, "reports.read_only");
    client.expect_command(&["SET", "key", "other"], no("set"));
    client.expect_command(&["EVAL", "return 1", "0"], no("eval"));
    if redis.compatible_version() >= (7, 0) {
        client.expect_command(&["EVAL_RO", "return 1", "0"], ":1\r\n");
    }
    client.expect_command(&["PUBLISH", "channel", "message"], no("publish"));
    client.expect_command(&["AUTH", "orders", "secret"], "+OK\r\n");
    let no = |command| refused(command, "orders.key_prefixes");
    client.expect_command(&["SET", "orders:1", "value"], "+OK\r\n");
    client.expect_command(&["GET", "key"], no("get"));
    client.expect_command(&["MGET", "orders:1", "key"], no("mget"));
    client.expect_command(&["SCAN", "0"], no("scan"));
    client.expect_command(&["EVAL", "return 1", "1", "orders:1"], no("eval"));
    client.expect_command(&["PSUBSCRIBE", "*"], no("psubscribe"));
    client.expect_command(&["RESET"], "+RESET\r\n");
    client.expect_command(&["SET", "key", "other"], "+OK\r\n");
}

#[test]
fn a_large_request_is_looked_at_before_it_is_passed_on() {
    let redis = RedisServer::start();
    let weir = weir(
        &redis,
        "[route.main.access.orders]\nkey_prefixes = \"orders:\"\n",
    );
    let mut client = weir.client();
    let value = "x".repeat(1 << 20);
    client.expect_command(
        &["SET", "other:1", &value],
        refused("set", "orders.key_prefixes"),
    );
    client.expect_command(&["SET", "orders:1", &value], "+OK\r\n");
    client.expect_command(
        &["MSET", "orders:2", &value, "other:2", &value],
        refused("mset", "orders.key_prefixes"),
    );
    assert_eq!(redis.client().command(&["DBSIZE"]), b":1\r\n");
}

#[test]
fn a_pipeline_is_answered_in_its_order() {
    let redis = RedisServer::start();
    let weir = weir(&redis, TENANTS);
    let mut client = weir.client();
    let no = refused("keys", "tenants.refuse");
    client.send(b"SET a 1\r\nKEYS *\r\nGET a\r\nKEYS *\r\nKEYS\r\nPING\r\n");
    client.expect(format!(
        "+OK\r\n{no}$1\r\n1\r\n{no}-ERR wrong number of arguments for 'keys' command\r\n+PONG\r\n"
    ));
}
