//! The handshake and what is learnt from it, against a real server.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use support::{DEADLINE, RedisServer};
use weir::backend::credential::Credential;
use weir::backend::handshake::{
    Greeting, Handshake, HandshakeError, HandshakeSpec, Progress, Step,
};
use weir::backend::server::{Flavour, Mode, Role, ServerFacts};
use weir::config::Secret;
use weir::resp::{Value, Version, decode};

const SPEC: HandshakeSpec<'static> = HandshakeSpec {
    credential: None,
    set_up_as: None,
    version: Version::Resp3,
    db: 0,
    no_touch: false,
    asks_id: false,
    name: "weir:main:shared",
};

/// Connects and shakes hands; the connection is open as long as the stream lives.
fn shake(
    redis: &RedisServer,
    spec: &HandshakeSpec<'_>,
) -> (TcpStream, Result<Greeting, HandshakeError>) {
    let mut stream = TcpStream::connect(redis.address()).expect("redis listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let mut handshake = Handshake::new(spec);
    // A server that is full answers and closes before it has read anything.
    let _ = stream.write_all(handshake.request());
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).expect("an answer");
        assert_ne!(
            read,
            0,
            "closed before {:?} was answered",
            handshake.awaited()
        );
        match handshake.feed(&buffer[..read]) {
            Progress::More => {}
            Progress::Ready(greeting) => return (stream, Ok(greeting)),
            Progress::Failed(error) => return (stream, Err(error)),
        }
    }
}

fn ask(stream: &mut TcpStream, command: &str) -> Value {
    stream
        .write_all(format!("{command}\r\n").as_bytes())
        .expect("sent");
    let mut reply = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some((value, _)) = decode(&reply).expect("RESP") {
            return value;
        }
        let read = stream.read(&mut buffer).expect("a reply");
        assert_ne!(read, 0, "closed instead of answering {command}");
        reply.extend_from_slice(&buffer[..read]);
    }
}

fn credential(username: Option<&str>, password: &str) -> Credential {
    Credential::new(username.map(str::as_bytes), Secret::new(password))
}

#[test]
fn a_connection_becomes_what_was_asked_for() {
    let redis = RedisServer::start();
    redis.command(&["ACL", "SETUSER", "alice", "on", ">secret", "+@all", "~*"]);
    let alice = credential(Some("alice"), "secret");
    for version in [Version::Resp2, Version::Resp3] {
        let spec = HandshakeSpec {
            credential: Some(&alice),
            version,
            db: 3,
            ..SPEC
        };
        let (mut stream, outcome) = shake(&redis, &spec);
        let greeting = outcome.expect("ready");
        assert!(greeting.is_named);
        assert_eq!(greeting.hello.is_some(), version == Version::Resp3);
        let info = ask(&mut stream, "CLIENT INFO");
        let info = info.as_str().expect("text");
        for part in ["name=weir:main:shared ", "db=3 ", "user=alice "] {
            assert!(info.contains(part), "{part} in {info}");
        }
        if let Some(id) = greeting.connection_id() {
            assert!(info.contains(&format!("id={id} ")), "{id} in {info}");
        }
    }
}

#[test]
fn refusals_are_told_apart() {
    let redis = RedisServer::with(&["--requirepass", "right"]);
    redis.command(&["ACL", "SETUSER", "weak", "on", ">p", "-@all", "+ping"]);
    let weak = credential(Some("weak"), "p");
    for version in [Version::Resp2, Version::Resp3] {
        let error = |credential: Option<&Credential>, db| {
            shake(
                &redis,
                &HandshakeSpec {
                    credential,
                    version,
                    db,
                    ..SPEC
                },
            )
            .1
        };
        let (right, wrong) = (credential(None, "right"), credential(None, "wrong"));
        assert!(error(Some(&right), 0).is_ok());
        assert_eq!(error(None, 0), Err(HandshakeError::NoAuth));
        assert_eq!(error(Some(&wrong), 0), Err(HandshakeError::WrongPass));
        assert_eq!(error(Some(&right), 4711), Err(HandshakeError::NoSuchDb));
        // Who may not name the connection can use it all the same.
        let unnamed = error(Some(&weak), 0).expect("ready");
        assert!(!unnamed.is_named);
        assert!(matches!(
            error(Some(&weak), 1),
            Err(HandshakeError::NoPerm(Step::Select, text)) if text.starts_with("NOPERM ")
        ));
    }
}

#[test]
fn a_full_server_is_recognised_by_what_it_says_unasked() {
    let redis = RedisServer::with(&["--maxclients", "1"]);
    let _only = loop {
        // The connection by which the support looked whether the server is there may
        // not be gone yet.
        if let (stream, Ok(_)) = shake(&redis, &SPEC) {
            break stream;
        }
    };
    for version in [Version::Resp2, Version::Resp3] {
        let (_, outcome) = shake(&redis, &HandshakeSpec { version, ..SPEC });
        assert_eq!(outcome, Err(HandshakeError::MaxClients));
    }
}

#[test]
fn no_touch_needs_a_server_that_knows_it() {
    let redis = RedisServer::start();
    let (_, outcome) = shake(
        &redis,
        &HandshakeSpec {
            no_touch: true,
            ..SPEC
        },
    );
    if redis.is_valkey() || redis.version() >= (7, 2) {
        assert!(outcome.is_ok());
    } else {
        assert!(
            matches!(outcome, Err(HandshakeError::Other(Step::NoTouch, _))),
            "{outcome:?}"
        );
    }
}

#[test]
fn a_server_tells_what_it_is() {
    let redis = RedisServer::with(&["--maxclients", "77", "--proto-max-bulk-len", "2mb"]);
    let (mut stream, outcome) = shake(&redis, &SPEC);
    let mut facts = ServerFacts::default();
    facts.learn_hello(&outcome.expect("ready").hello.expect("RESP3 greets"));
    facts.learn_info(&ask(&mut stream, "INFO"));
    facts.learn_role(&ask(&mut stream, "ROLE"));
    for name in ["proto-max-bulk-len", "databases", "maxclients"] {
        facts.learn_config(&ask(&mut stream, &format!("CONFIG GET {name}")));
    }
    let (major, minor) = redis.version();
    match facts.flavour {
        Flavour::Redis => {
            assert_eq!(
                (u32::from(facts.version.0), u32::from(facts.version.1)),
                (major, minor)
            );
        }
        Flavour::Valkey(own_major, own_minor, _) => {
            assert_eq!((u32::from(own_major), u32::from(own_minor)), (major, minor));
        }
        Flavour::Other(name) => panic!("{name}"),
    }
    assert_eq!((facts.mode, facts.role), (Mode::Standalone, Role::Primary));
    assert!(!facts.is_loading);
    assert_eq!(facts.proto_max_bulk_len, 2 * 1024 * 1024);
    assert_eq!((facts.databases, facts.maxclients), (Some(16), Some(77)));
    assert_eq!(facts.run_id.map(|id| id.len()), Some(40));
}
