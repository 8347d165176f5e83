//! What Weir answers itself, against the server's own answers: each request here
//! goes to the installed server and through Weir's reading of it, and both must
//! say the same.

mod support;

use support::RedisServer;
use weir::command::ServerVersion;
use weir::resp::{Value, Version, decode};
use weir::session::client_command::{self, ClientCommand};
use weir::session::client_filter::no_such_user;
use weir::session::client_line::{ClientView, format_line};
use weir::session::hello::{self, ServerHello};
use weir::session::info::{InfoFacts, rewrite_info};

fn version_of(redis: &RedisServer) -> ServerVersion {
    let info = redis.command(&["INFO", "server"]);
    let (info, _) = decode(&info).expect("valid").expect("whole");
    ServerVersion::from_info(info.as_bytes().expect("text")).expect("a version")
}

fn words(request: &str) -> Vec<&str> {
    request
        .split(' ')
        .map(|word| if word == "\"\"" { "" } else { word })
        .collect()
}

fn text(reply: &[u8]) -> String {
    String::from_utf8_lossy(reply).into_owned()
}

/// Every kind of right and wrong `CLIENT` request that leaves the connection as it is.
const CLIENT_REQUESTS: [&str; 97] = [
    "CLIENT",
    "CLIENT NOPE",
    "CLIENT ID",
    "CLIENT ID x",
    "CLIENT INFO",
    "CLIENT INFO x",
    "CLIENT GETNAME",
    "CLIENT GETNAME x",
    "CLIENT SETNAME",
    "CLIENT SETNAME a\tb",
    "CLIENT SETNAME \u{e9}",
    "CLIENT SETNAME \"\"",
    "CLIENT REPLY",
    "CLIENT REPLY FOO",
    "CLIENT REPLY ON",
    "CLIENT REPLY ON x",
    "CLIENT LIST",
    "CLIENT LIST TYPE",
    "CLIENT LIST TYPE foo",
    "CLIENT LIST TYPE NORMAL",
    "CLIENT LIST TYPE primary",
    "CLIENT LIST FOO",
    "CLIENT LIST FOO bar",
    "CLIENT LIST ID",
    "CLIENT LIST ID abc",
    "CLIENT LIST ID 0",
    "CLIENT LIST ID -1",
    "CLIENT LIST ID 99999",
    "CLIENT LIST ID 1 abc",
    "CLIENT LIST ID 1 2 TYPE normal",
    "CLIENT LIST ID 1 TYPE",
    "CLIENT LIST TYPE normal x",
    "CLIENT LIST TYPE normal ID 999",
    "CLIENT LIST USER default SKIPME yes",
    "CLIENT LIST SKIPME foo",
    "CLIENT LIST MAXAGE 0",
    "CLIENT LIST MAXAGE abc",
    "CLIENT LIST MAXAGE 1",
    "CLIENT LIST FLAGS NZ9",
    "CLIENT LIST FLAGS \"\"",
    "CLIENT LIST NOT-FLAGS Z",
    "CLIENT LIST IDLE -1",
    "CLIENT LIST IDLE abc",
    "CLIENT LIST NOT-IDLE 1",
    "CLIENT LIST LIB-NAME x NOT-LIB-VER y",
    "CLIENT LIST DB 99",
    "CLIENT LIST NOT-DB 99",
    "CLIENT LIST DB abc",
    "CLIENT LIST NOT-DB abc",
    "CLIENT LIST CAPA x",
    "CLIENT LIST NOT-CAPA x",
    "CLIENT LIST IP 1.2.3.4 NOT-IP 1.2.3.4",
    "CLIENT LIST NOT-TYPE foo",
    "CLIENT LIST NOT-FOO x",
    "CLIENT KILL",
    "CLIENT KILL 1.2.3.4:5",
    "CLIENT KILL ID",
    "CLIENT KILL ID abc",
    "CLIENT KILL ID 0",
    "CLIENT KILL ID 9999",
    "CLIENT KILL ID 9998 9999",
    "CLIENT KILL TYPE foo",
    "CLIENT KILL TYPE primary",
    "CLIENT KILL TYPE pubsub",
    "CLIENT KILL USER default SKIPME foo",
    "CLIENT KILL SKIPME yes ID 9999",
    "CLIENT KILL ID 9999 FOO",
    "CLIENT KILL ID 9999 FOO bar",
    "CLIENT KILL MAXAGE abc",
    "CLIENT KILL MAXAGE 0",
    "CLIENT KILL MAXAGE 99999",
    "CLIENT KILL NAME foo",
    "CLIENT KILL ADDR foo LADDR bar",
    "CLIENT NO-EVICT",
    "CLIENT NO-EVICT foo",
    "CLIENT NO-EVICT off",
    "CLIENT NO-TOUCH foo",
    "CLIENT NO-TOUCH off",
    "CLIENT SETINFO lib-name",
    "CLIENT SETINFO foo bar",
    "CLIENT SETINFO LIB-NAME a\tb",
    "CLIENT SETINFO lib-ver 1.2",
    "CLIENT CAPA redirect nope",
    "CLIENT PAUSE",
    "CLIENT PAUSE abc",
    "CLIENT PAUSE -1",
    "CLIENT PAUSE abc FOO",
    "CLIENT PAUSE 0 write",
    "CLIENT PAUSE 0 ALL x",
    "CLIENT UNPAUSE",
    "CLIENT UNPAUSE x",
    "CLIENT UNBLOCK abc",
    "CLIENT UNBLOCK abc FOO",
    "CLIENT UNBLOCK 999",
    "CLIENT UNBLOCK -1 error",
    "CLIENT UNBLOCK 999 TIMEOUT x",
    "CLIENT MAINT_NOTIFICATIONS ON",
];

#[test]
fn client_requests_are_refused_as_the_server_refuses_them() {
    let redis = RedisServer::start();
    let server = version_of(&redis);
    let mut client = redis.client();
    for request in CLIENT_REQUESTS {
        let args = words(request);
        let theirs = text(&client.command(&args));
        match client_command::parse(&args, server, 16) {
            Err(error) => assert_eq!(format!("-{}\r\n", text(&error)), theirs, "{request}"),
            Ok(ClientCommand::Forward) => {
                assert!(theirs.starts_with('-'), "{request} is answered: {theirs}");
            }
            Ok(ClientCommand::KillAddress(_)) => {
                assert_eq!(theirs, format!("-{}\r\n", client_command::NO_SUCH_CLIENT));
            }
            Ok(_) => assert!(!theirs.starts_with('-'), "{request} is refused: {theirs}"),
        }
    }
    let theirs = text(&client.command(&["CLIENT", "KILL", "USER", "nobody"]));
    assert_eq!(theirs, format!("-{}\r\n", text(&no_such_user(b"nobody"))));
}

#[test]
fn a_line_of_the_client_list_has_the_servers_fields_in_its_order() {
    let redis = RedisServer::start();
    let server = version_of(&redis);
    let mut client = redis.client();
    client.command(&["CLIENT", "SETNAME", "me"]);
    let (theirs, _) = decode(&client.command(&["CLIENT", "INFO"]))
        .expect("valid")
        .expect("whole");
    let theirs = text(theirs.as_bytes().expect("a line"));
    let field = |name: &str| {
        let fields = theirs
            .trim_end()
            .split(' ')
            .filter_map(|field| field.split_once('='));
        fields
            .into_iter()
            .find(|(key, _)| *key == name)
            .map_or("", |(_, value)| value)
    };
    let number = |name: &str| field(name).parse().unwrap_or(0);
    let total = |name: &str| field(name).parse().unwrap_or(0);
    let ours = ClientView {
        id: total("id"),
        addr: field("addr").to_owned(),
        laddr: field("laddr").to_owned(),
        fd: field("fd").parse().expect("a number"),
        name: "me".to_owned(),
        age: total("age"),
        idle: total("idle"),
        flags: "N".to_owned(),
        multi: -1,
        qbuf: number("qbuf"),
        qbuf_free: number("qbuf-free"),
        argv_mem: number("argv-mem"),
        rbs: number("rbs"),
        rbp: number("rbp"),
        obl: number("obl"),
        tot_mem: number("tot-mem"),
        events: "r".to_owned(),
        cmd: "client|info".to_owned(),
        user: "default".to_owned(),
        redir: -1,
        resp: 2,
        tot_net_in: total("tot-net-in"),
        tot_net_out: total("tot-net-out"),
        tot_cmds: total("tot-cmds"),
        ..ClientView::default()
    };
    assert_eq!(format_line(&ours, server), theirs);
}

#[test]
fn hello_is_refused_as_the_server_refuses_it() {
    let redis = RedisServer::start();
    let server = version_of(&redis);
    let mut client = redis.client();
    for request in [
        "HELLO abc",
        "HELLO 03",
        "HELLO 1",
        "HELLO 4 FOO",
        "HELLO 2 foo",
        "HELLO 2 AUTH",
        "HELLO 2 AUTH u",
        "HELLO 2 SETNAME",
        "HELLO 2 SETNAME a\tb",
        "HELLO 2 SETNAME ok FOO",
        "HELLO 2 AUTH u p x",
        "HELLO 2 AUTH a b SETNAME x\ty",
        "HELLO 2 SETNAME \"\"",
        "HELLO",
    ] {
        let args = words(request);
        let theirs = text(&client.command(&args));
        let ours = match hello::parse(&args, server) {
            Err(error) => text(&error),
            // There is no such user on this server.
            Ok(hello) if hello.authenticates() => {
                "WRONGPASS invalid username-password pair or user is disabled.".to_owned()
            }
            Ok(hello::Hello {
                error: Some(error), ..
            }) => text(&error),
            Ok(_) => {
                assert!(theirs.starts_with('*'), "{request}: {theirs}");
                continue;
            }
        };
        assert_eq!(theirs, format!("-{ours}\r\n"), "{request}");
    }
}

#[test]
fn a_stranger_is_told_to_authenticate_in_the_servers_words() {
    let redis = RedisServer::with(&["--requirepass", "secret"]);
    let (info, _) = decode(&redis.command(&["INFO", "server"]))
        .expect("valid")
        .expect("whole");
    let server = ServerVersion::from_info(info.as_bytes().expect("text")).expect("a version");
    let mut client = support::RawClient::connect(redis.address());
    client.expect_command(
        &["HELLO", "3"],
        format!("-{}\r\n", hello::not_authenticated(server)),
    );
}

#[test]
fn the_answer_to_hello_is_the_servers() {
    let redis = RedisServer::start();
    let mut client = redis.client();
    let theirs = client.command(&["HELLO", "3"]);
    let (reply, _) = decode(&theirs).expect("valid").expect("whole");
    let id = reply.get("id").and_then(Value::as_i64).expect("an id") as u64;
    let known = ServerHello::from_reply(&reply).expect("a map");
    for (version, request) in [(Version::Resp3, "3"), (Version::Resp2, "2")] {
        let theirs = client.command(&["HELLO", request]);
        let mut ours = Vec::new();
        let reply = known.answer(id, version);
        weir::resp::encode(&reply, version, &mut ours);
        assert_eq!(text(&ours), text(&theirs));
    }
}

#[test]
fn info_keeps_all_but_the_numbers_of_clients() {
    let redis = RedisServer::start();
    let (reply, _) = decode(&redis.command(&["INFO", "clients"]))
        .expect("valid")
        .expect("whole");
    let theirs = text(reply.as_bytes().expect("text"));
    let facts = InfoFacts {
        connected_clients: 4711,
        maxclients: 4712,
        ..InfoFacts::default()
    };
    let ours = text(&rewrite_info(
        theirs.as_bytes(),
        &["INFO", "clients"],
        &facts,
        "",
    ));
    let changed: Vec<&str> = ours
        .lines()
        .zip(theirs.lines())
        .filter(|(a, b)| a != b)
        .map(|(a, _)| a)
        .collect();
    assert_eq!(changed, ["connected_clients:4711", "maxclients:4712"]);
    assert_eq!(ours.lines().count(), theirs.lines().count());
}
