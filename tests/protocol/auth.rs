//! Who a client is, and what it may do before it has said so.

use super::compare::{Pair, weir};
use super::support::{RawClient, RedisServer, encode};

const PASSWORD: &str = "open sesame";

/// Both servers want a password; Weir is not told it. It learns what the server is from the
/// first client that logs in.
fn locked() -> Pair {
    let pair = Pair::with(&["--requirepass", PASSWORD], "");
    pair.weir
        .client()
        .expect_command(&["AUTH", PASSWORD], "+OK\r\n");
    pair
}

/// Both servers have these users besides the default one.
fn with_users() -> Pair {
    let pair = Pair::start();
    for server in [&pair.redis, &pair.behind] {
        for user in [
            "alice on >a ~a* resetchannels &news* +@all -@dangerous +acl|whoami",
            "bob on nopass ~* &* +@read +auth +hello +select",
            "carol off >c ~* +@all",
            "dave on >d ~* +@all -client",
            "nobody on >n",
        ] {
            let mut command = vec!["ACL", "SETUSER"];
            command.extend(user.split(' '));
            server.client().expect_command(&command, "+OK\r\n");
        }
    }
    pair
}

fn same_lines(pair: &Pair, lines: &[&str]) {
    for line in lines {
        let mut input = Vec::new();
        for command in line.split("; ") {
            let words: Vec<String> = command
                .split(' ')
                .map(|word| word.replace("SESAME", PASSWORD))
                .collect();
            input.extend(encode(&words));
        }
        pair.same(input);
    }
}

const BEFORE_LOGIN: &[&str] = &[
    "GET a",
    "PING",
    "GET",
    "nosuch a b",
    "nosuch",
    "get a b c",
    "INFO",
    "COMMAND",
    "CLIENT",
    "CLIENT ID",
    "CLIENT nosuch",
    "CLIENT ID x",
    "CLIENT SETNAME x",
    "CONFIG GET x",
    "CONFIG nosuch",
    "SELECT 1",
    "SELECT",
    "MULTI",
    "EXEC",
    "EXEC x",
    "WATCH a",
    "SUBSCRIBE a",
    "UNSUBSCRIBE",
    "MONITOR",
    "SYNC",
    "BLPOP a 0",
    "EVAL return(1) 0",
    "MODULE LIST",
    "READONLY",
    "RESET",
    "QUIT",
    "RESET; GET a; QUIT; GET a",
    "HELLO",
    "HELLO 2",
    "HELLO 3",
    "HELLO 9",
    "HELLO x",
    "HELLO 3 SETNAME x",
    "HELLO 3 AUTH default wrong",
    "HELLO 3 AUTH nobody wrong",
    "HELLO 3 AUTH default SESAME; GET nothing",
    "HELLO 2 AUTH default SESAME SETNAME me; CLIENT GETNAME",
    "HELLO 3 AUTH default wrong SETNAME me; AUTH SESAME; CLIENT GETNAME; GET nothing",
    "AUTH a b c",
    "AUTH wrong",
    "AUTH default wrong",
    "AUTH nobody x",
    "AUTH SESAME",
    "AUTH default SESAME",
    "GET a; AUTH wrong; GET a; AUTH SESAME; SET a 1; GET a; AUTH wrong; GET a; RESET; GET a",
    "AUTH SESAME; SELECT 1; SET b 1; AUTH SESAME; GET b",
    "AUTH SESAME; MULTI; SET a 2; EXEC; QUIT",
    "AUTH SESAME; RESET; AUTH SESAME; GET a",
    "AUTH SESAME; CLIENT SETNAME me; RESET; AUTH SESAME; CLIENT GETNAME",
    "auth SESAME; ping",
];

#[test]
fn before_the_login_redis_s_checks_come_in_redis_s_order() {
    let pair = locked();
    same_lines(&pair, BEFORE_LOGIN);
}

#[test]
fn weir_with_a_password_of_its_own_lets_nobody_in_on_it() {
    let route = format!("backend.password = \"{PASSWORD}\"");
    let pair = Pair::with(&["--requirepass", PASSWORD], &route);
    same_lines(&pair, BEFORE_LOGIN);
}

#[test]
fn before_the_login_requests_are_small() {
    let pair = locked();
    let argument = |len: usize| encode(&[b"nosuch".as_slice(), &vec![b'x'; len]]);
    let arguments = |count: usize| encode(&vec!["x"; count]);
    for input in [
        arguments(10),
        arguments(11),
        argument(16_384),
        argument(16_385),
        b"*11\r\n".to_vec(),
        b"*1000000\r\n".to_vec(),
        b"*2147483648\r\n".to_vec(),
        b"*2\r\n$3\r\nGET\r\n$16385\r\n".to_vec(),
        b"*2\r\n$3\r\nGET\r\n$600000000\r\n".to_vec(),
        b"nosuch a b c d e f g h i j k l m n o p\r\n".to_vec(),
        [b"nosuch ".to_vec(), vec![b'x'; 30_000], b"\r\n".to_vec()].concat(),
    ] {
        pair.same(&input);
        pair.same([encode(&["PING"]), input.clone()].concat());
        // The limits are gone with the login, and back with RESET.
        let login = encode(&["AUTH", PASSWORD]);
        if input.ends_with(b"x\r\n") {
            pair.same([login.clone(), input.clone()].concat());
        }
        if !pair.redis.is_valkey() {
            // There they do not come back.
            pair.same([login, encode(&["RESET"]), input].concat());
        }
    }
}

#[test]
fn users_are_who_redis_says_and_may_do_what_redis_lets_them() {
    let pair = with_users();
    same_lines(
        &pair,
        &[
            "AUTH alice a; ACL WHOAMI; SET a1 x; GET a1; SET b1 x; GET b1; FLUSHALL; KEYS *",
            "AUTH alice wrong; ACL WHOAMI",
            "AUTH alice a; AUTH alice wrong; ACL WHOAMI; AUTH bob anything; ACL WHOAMI",
            "AUTH bob x; GET a1; SET a1 y; SELECT 1; GET a1",
            "AUTH carol c; ACL WHOAMI",
            "AUTH nobody n; PING; GET a; AUTH alice a; PING",
            "AUTH nosuch x",
            "AUTH default x",
            "AUTH x",
            "HELLO 3 AUTH alice a; ACL WHOAMI; HGETALL a2; SET b x; MULTI; SET a1 1; EXEC",
            "AUTH alice a; MULTI; SET a1 1; SET b1 1; EXEC; GET a1",
            "AUTH alice a; WATCH a1; MULTI; SET a1 2; EXEC; WATCH b1; GET a1",
            "AUTH alice a; RPUSH alist x; BLPOP alist 1; BLPOP blist 1",
            "AUTH alice a; PUBLISH news x; PUBLISH other x; SUBSCRIBE other; SUBSCRIBE news1",
            "AUTH alice a; CONFIG GET maxmemory; DEBUG SLEEP 0; SHUTDOWN; INFO server; SAVE",
            "AUTH alice a; EVAL return(1) 0; SELECT 2; SET a 1; GET a; RESET; ACL WHOAMI; GET a",
            "AUTH nobody n; SELECT 1; HELLO; COMMAND COUNT; QUIT",
            "AUTH dave d; CLIENT LIST; CLIENT KILL ID 999999; CLIENT UNBLOCK 999999; PING; GET a",
            "AUTH dave d; MULTI; CLIENT GETNAME; EXEC; PING",
            "AUTH bob x; MULTI; SUBSCRIBE x",
            "AUTH bob x; MULTI; GET a; EXEC; WATCH a; UNWATCH; BLPOP a 1; PING; INFO",
        ],
    );
}

#[test]
fn a_hundred_clients_of_several_users_stay_themselves() {
    let pair = with_users();
    let mut clients: Vec<(RawClient, &str)> = (0..100)
        .map(|number| {
            let mut client = pair.weir.client();
            let user = ["default", "alice"][number % 2];
            if user == "alice" {
                client.expect_command(&["AUTH", "alice", "a"], "+OK\r\n");
            }
            (client, user)
        })
        .collect();
    for _ in 0..20 {
        for (client, _) in &mut clients {
            client.send(encode(&["ACL", "WHOAMI"]));
        }
        for (client, user) in &mut clients {
            client.expect(format!("${}\r\n{user}\r\n", user.len()));
        }
    }
}

#[test]
fn a_login_that_is_changed_or_taken_away() {
    let pair = with_users();
    let mut client = pair.weir.client();
    client.expect_command(&["AUTH", "alice", "a"], "+OK\r\n");
    client.expect_command(&["SET", "a1", "x"], "+OK\r\n");
    // A change of the password leaves those alone who are in.
    pair.behind
        .client()
        .expect_command(&["ACL", "SETUSER", "alice", "resetpass", ">b"], "+OK\r\n");
    client.expect_command(&["GET", "a1"], "$1\r\nx\r\n");
    let mut second = pair.weir.client();
    second.expect_command(
        &["AUTH", "alice", "a"],
        "-WRONGPASS invalid username-password pair or user is disabled.\r\n",
    );
    second.expect_command(&["AUTH", "alice", "b"], "+OK\r\n");
    second.expect_command(&["GET", "a1"], "$1\r\nx\r\n");
}

const WEIR_MODE: &str = r#"
[route.main.auth]
mode = "weir"
[route.main.auth.users.web]
password = "w"
[route.main.auth.users.default]
password = "d"
"#;

#[test]
fn weir_may_keep_the_clients_passwords_itself() {
    let redis = RedisServer::with(&["--requirepass", PASSWORD]);
    let weir = weir(
        &redis,
        &format!("backend.password = \"{PASSWORD}\"\n{WEIR_MODE}"),
    );
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    let mut client = weir.client();
    client.expect_command(&["GET", "a"], "-NOAUTH Authentication required.\r\n");
    client.expect_command(&["AUTH", PASSWORD], wrong);
    client.expect_command(&["AUTH", "web", "d"], wrong);
    client.expect_command(&["GET", "a"], "-NOAUTH Authentication required.\r\n");
    client.expect_command(&["AUTH", "web", "w"], "+OK\r\n");
    client.expect_command(&["SET", "a", "1"], "+OK\r\n");
    client.expect_command(&["AUTH", "web", "x"], wrong);
    client.expect_command(&["GET", "a"], "$1\r\n1\r\n");
    client.expect_command(&["RESET"], "+RESET\r\n");
    client.expect_command(&["GET", "a"], "-NOAUTH Authentication required.\r\n");
    client.expect_command(&["AUTH", "d"], "+OK\r\n");
    client.expect_command(&["GET", "a"], "$1\r\n1\r\n");
    let mut third = weir.client();
    assert!(
        third
            .command(&["HELLO", "3", "AUTH", "web", "w"])
            .starts_with(b"%7\r\n")
    );
    third.expect_command(&["GET", "nothing"], "_\r\n");
    let mut too_much = weir.client();
    too_much.send(b"*11\r\n");
    too_much.expect("-ERR Protocol error: unauthenticated multibulk length\r\n");
    too_much.expect_closed();
}

#[test]
fn weir_may_let_everybody_in_with_its_own_password() {
    let redis = RedisServer::with(&["--requirepass", PASSWORD]);
    let weir = weir(
        &redis,
        &format!("backend.password = \"{PASSWORD}\"\nauth.mode = \"open\""),
    );
    let mut client = weir.client();
    client.expect_command(&["SET", "a", "1"], "+OK\r\n");
    client.expect_command(
        &["AUTH", "x"],
        "-ERR AUTH <password> called without any password configured for the default user. \
         Are you sure your configuration is correct?\r\n",
    );
    client.expect_command(&["GET", "a"], "$1\r\n1\r\n");
    assert!(client.command(&["HELLO", "3"]).starts_with(b"%7\r\n"));
    client.expect_command(&["GET", "nothing"], "_\r\n");
}
