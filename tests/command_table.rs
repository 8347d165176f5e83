//! The command table against the server itself: the built-in rows must say what
//! the installed server's own `COMMAND` says, and Weir's wording of Redis's
//! refusals must be Redis's.

mod support;

use support::{RawClient, RedisServer};
use weir::command::{
    Class, Command, Flags, ServerVersion, Table, blocking, blocking::TimeoutError, keys, refusal,
};
use weir::resp::{Value, decode};

/// Where servers disagree with one another about the number of arguments; the
/// table has the most permissive.
const ARITY_DIFFERS: [&str; 14] = [
    "cluster|replicate",
    "command|getkeys",
    "command|getkeysandflags",
    "expire",
    "expireat",
    "pexpire",
    "pexpireat",
    "pfdebug",
    "script|debug",
    "xsetid",
    "zrank",
    "zrevrank",
    "acl|genpass",
    "stralgo",
];

/// The flags in which the table must agree with every server.
const COMPARED: [(&str, Flags); 2] = [("readonly", Flags::READONLY), ("write", Flags::WRITE)];

/// And with every server since Redis 7.
const COMPARED_SINCE_7: [(&str, Flags); 4] = [
    ("denyoom", Flags::DENYOOM),
    ("admin", Flags::ADMIN),
    ("pubsub", Flags::PUBSUB),
    ("no_auth", Flags::NO_AUTH),
];

fn command_reply(client: &mut RawClient) -> Value {
    let bytes = client.command(&["COMMAND"]);
    decode(&bytes)
        .expect("a valid reply")
        .expect("a whole reply")
        .0
}

/// Every command and subcommand of a `COMMAND` reply.
fn entries(reply: &Value) -> Vec<&[Value]> {
    let mut entries = Vec::new();
    for entry in reply.as_array().expect("a list of commands") {
        let entry = entry.as_array().expect("a command is a list");
        entries.push(entry);
        let subs = entry.get(9).and_then(Value::as_array).unwrap_or_default();
        entries.extend(subs.iter().filter_map(Value::as_array));
    }
    entries
}

fn find<'a>(table: &'a Table, name: &str) -> &'a Command {
    match name.split_once('|') {
        Some((top, sub)) => table.find(top.as_bytes(), Some(sub.as_bytes())),
        None => table.find(name.as_bytes(), None),
    }
}

fn version_of(redis: &RedisServer) -> ServerVersion {
    let (major, minor) = redis.version();
    let (major, minor) = (major as u16, minor as u16);
    if redis.is_valkey() {
        ServerVersion::valkey(major, minor)
    } else {
        ServerVersion::redis(major, minor)
    }
}

fn flags_of(entry: &[Value]) -> Vec<&str> {
    entry[2]
        .as_array()
        .expect("flags")
        .iter()
        .filter_map(Value::as_str)
        .collect()
}

#[test]
fn the_table_says_of_every_command_what_the_server_says() {
    let redis = RedisServer::start();
    let version = version_of(&redis);
    let reply = command_reply(&mut redis.client());
    let table = Table::builtin();
    let mut wrong = Vec::new();
    for entry in entries(&reply) {
        let name = entry[0].as_str().expect("a name");
        let command = find(&table, name);
        if command.name != name {
            wrong.push(format!("{name} is missing"));
            continue;
        }
        let arity = entry[1].as_i64().expect("an arity");
        if i64::from(command.arity) != arity && !ARITY_DIFFERS.contains(&name) {
            wrong.push(format!("{name} has arity {arity}, not {}", command.arity));
        }
        let flags = flags_of(entry);
        // Before Redis 7 a container stands for all its subcommands.
        let container = command.flags.contains(Flags::CONTAINER);
        if container && !version.like_redis(7, 0) || command.class == Class::Refused {
            continue;
        }
        let since_7 = if version.like_redis(7, 0) {
            &COMPARED_SINCE_7[..]
        } else {
            &[]
        };
        for (word, flag) in COMPARED.iter().chain(since_7) {
            if command.flags.contains(*flag) != flags.contains(word) {
                wrong.push(format!("{name} is wrong about {word}"));
            }
        }
        let blocks = matches!(command.class, Class::Blocking(_) | Class::Wait);
        if flags.contains(&"blocking") && !blocks {
            wrong.push(format!("{name} blocks"));
        }
        let retried = command.flags.contains(Flags::RETRY_SAFE);
        if retried && flags.contains(&"write") {
            wrong.push(format!("{name} writes and would be sent again"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_server_corrects_the_table() {
    let redis = RedisServer::start();
    let reply = command_reply(&mut redis.client());
    let table = Table::builtin().with_live(&reply);
    for entry in entries(&reply) {
        let name = entry[0].as_str().expect("a name");
        let command = find(&table, name);
        assert!(command.exists(), "{name}");
        assert_eq!(
            i64::from(command.arity),
            entry[1].as_i64().expect("an arity"),
            "{name}"
        );
        let writes = flags_of(entry).contains(&"write");
        assert_eq!(command.flags.contains(Flags::WRITE), writes, "{name}");
    }
    // What this server does not have is unknown, whatever Weir knows.
    let mut client = redis.client();
    for command in Table::builtin().iter() {
        let known = entries(&reply)
            .iter()
            .any(|entry| entry[0].as_str() == Some(&command.name));
        if known || command.name.contains('|') || command.class == Class::Refused {
            continue;
        }
        // `QUIT` was no command of the table before Redis 7, `WEIR` is Weir's own.
        if command.name == "quit" || command.name == "weir" {
            continue;
        }
        assert!(!find(&table, &command.name).exists(), "{}", command.name);
        let reply = client.command(&[&*command.name]);
        assert!(
            reply.starts_with(b"-ERR unknown command"),
            "{}",
            command.name
        );
    }
}

#[test]
fn keys_are_where_the_server_finds_them() {
    let redis = RedisServer::start();
    let mut client = redis.client();
    let table = Table::builtin();
    for request in [
        "GET k",
        "MSET a 1 b 2",
        "MGET a b c",
        "BLPOP a b 0",
        "RENAME a b",
        "BITOP AND d a b",
        "OBJECT ENCODING k",
        "EVAL script 2 a b x y",
        "ZUNIONSTORE d 2 a b WEIGHTS 1 2",
        "ZUNION 2 a b",
        "XREAD COUNT 1 STREAMS a b 0 0",
        "XREADGROUP GROUP streams c STREAMS a b > >",
        "XGROUP CREATE k g $",
        "XINFO STREAM k",
        "SORT k BY w DESC STORE d",
        "SORT k",
        "GEORADIUS k 1 2 3 m STORE d",
        "GEORADIUSBYMEMBER k m 3 m STOREDIST d",
        "MIGRATE h 1 k 0 5",
        "PFMERGE d a b",
        "LMOVE a b LEFT LEFT",
        "GEOSEARCHSTORE d k FROMMEMBER m BYRADIUS 1 m",
        "SDIFFSTORE d a b",
        "MEMORY USAGE k",
    ] {
        let args: Vec<&str> = request.split(' ').collect();
        let asked: Vec<&str> = ["COMMAND", "GETKEYS"]
            .into_iter()
            .chain(args.clone())
            .collect();
        let reply = client.command(&asked);
        let reply = decode(&reply).expect("valid").expect("whole").0;
        // Subcommands have keys of their own only since Redis 7.
        let Some(theirs) = reply.as_array() else {
            assert!(redis.version() < (7, 0), "{request}: {reply:?}");
            continue;
        };
        let theirs: Vec<&str> = theirs.iter().filter_map(Value::as_str).collect();
        let command = table.find(args[0].as_bytes(), args.get(1).map(|sub| sub.as_bytes()));
        let mut ours: Vec<&str> = keys(command, &args).map(|index| args[index]).collect();
        ours.sort_unstable();
        let mut sorted = theirs.clone();
        sorted.sort_unstable();
        assert_eq!(ours, sorted, "{request}");
    }
}

#[test]
fn a_refusal_in_a_transaction_reads_as_the_servers() {
    let redis = RedisServer::start();
    let version = version_of(&redis);
    let mut client = redis.client();
    let table = Table::builtin().with_live(&command_reply(&mut client));
    client.expect_command(&["MULTI"], "+OK\r\n");
    let long = "x".repeat(200);
    for request in [
        vec!["NOPE"],
        vec!["NOPE", "a", "b"],
        vec!["nope\0pe", "a\0b", ""],
        vec![&long, &long, &long],
        vec!["NOPE", "line\r\nbreak"],
        vec!["GET"],
        vec!["get", "a", "b"],
        vec!["CLIENT"],
        vec!["CLIENT", "NOPE"],
        vec!["client", &long, "a"],
        vec!["CLIENT", "GETNAME", "x"],
        vec!["CONFIG"],
        vec!["SAVE"],
        vec!["SYNC"],
        vec!["SHUTDOWN"],
    ] {
        // Before Redis 7 a container is queued whatever its subcommand, and so
        // is what must not be run in a transaction.
        let reply = client.command(&request);
        if reply == b"+QUEUED\r\n" && !version.like_redis(7, 0) {
            continue;
        }
        let ours = refusal(&table, &request, version).unwrap_or_default();
        let mut expected = Vec::new();
        let error = Value::error(ours);
        weir::resp::encode(&error, weir::resp::Version::Resp2, &mut expected);
        assert_eq!(
            String::from_utf8_lossy(&expected),
            String::from_utf8_lossy(&reply),
            "{request:?}"
        );
    }
}

#[test]
fn a_bad_timeout_is_refused_in_the_servers_words() {
    let redis = RedisServer::start();
    let version = version_of(&redis);
    let mut client = redis.client();
    let table = Table::builtin();
    for request in [
        "BLPOP k -1",
        "BLPOP k abc",
        "BLPOP k nan",
        "BLPOP k inf",
        "BLPOP k 1e20",
        "BZPOPMIN k 1x",
        "BLMOVE a b LEFT LEFT x",
        "XREAD BLOCK 1.5 STREAMS s 0",
        "XREAD BLOCK +5 STREAMS s 0",
        "XREAD BLOCK -1 STREAMS s 0",
        "WAIT 1 -1",
        "WAIT 1 x",
    ] {
        let args: Vec<&str> = request.split(' ').collect();
        let command = table.find(args[0].as_bytes(), args.get(1).map(|sub| sub.as_bytes()));
        let mut error = blocking::timeout(command, &args).expect_err(request);
        if error == TimeoutError::OutOfRange && !version.like_redis(7, 2) {
            error = TimeoutError::Negative;
        }
        client.expect_command(&args, format!("-{error}\r\n"));
    }
}
