//! Unix sockets, in front and behind.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::{ConnectionWatch, RedisServer, WeirProcess, encode, wait_until};
use crate::talker::over_unix;

fn weir(redis: &RedisServer, socket: &Path, backend: &str, more: &str) -> WeirProcess {
    let text = format!(
        "admin.listen = \"{{admin}}\"
         [route.main]
         listen = \"{{listen}}\"
         backend = \"{backend}\"
         [route.main.listener.local]
         address = \"unix:{}\"
         {more}",
        socket.display()
    );
    WeirProcess::with_config(redis, &text)
}

#[test]
fn a_client_comes_over_a_unix_socket_and_is_shown_as_redis_shows_it() {
    let directory = tempfile::tempdir().unwrap();
    let (own, theirs) = (
        directory.path().join("weir.sock"),
        directory.path().join("redis.sock"),
    );
    let redis = RedisServer::with(&["--unixsocket", theirs.to_str().unwrap()]);
    let mut weir = weir(&redis, &own, "{backend}", "unix_mode = \"0600\"");
    let mode = std::fs::metadata(&own).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let addresses = |path: &Path| {
        let mut client = over_unix(path).unwrap();
        let info = client.text(&["CLIENT", "INFO"]);
        let fields = info
            .split(' ')
            .filter(|field| field.contains("addr="))
            .map(str::to_owned);
        fields
            .map(|field| field.replace(path.to_str().unwrap(), "PATH"))
            // Valkey 9.1 takes the path for an address of IPv6, by its colon.
            .map(|field| field.replace("[PATH:0]:0", "PATH:0"))
            .collect::<Vec<_>>()
    };
    assert_eq!(addresses(&own), addresses(&theirs));
    let mut client = over_unix(&own).unwrap();
    client.send([encode(&["SET", "k", "v"]), encode(&["GET", "k"])].concat());
    assert_eq!(client.try_read_reply().unwrap(), b"+OK\r\n");
    assert_eq!(client.try_read_reply().unwrap(), b"$1\r\nv\r\n");
    drop(client);
    assert!(weir.terminate().success());
    assert!(!own.exists(), "the file goes with the process");
}

#[test]
fn redis_is_reached_over_its_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let theirs = directory.path().join("redis.sock");
    let mut redis = RedisServer::with(&["--unixsocket", theirs.to_str().unwrap()]);
    let own = directory.path().join("weir.sock");
    let weir = weir(&redis, &own, &format!("unix:{}", theirs.display()), "");
    let watch = ConnectionWatch::start(&redis);
    let mut client = over_unix(&own).unwrap();
    for len in [1, 100_000, 8 << 20] {
        let value = vec![b'x'; len];
        assert_eq!(
            client.command(&[b"SET".as_slice(), b"k", &value]),
            b"+OK\r\n"
        );
        let reply = client.command(&["GET", "k"]);
        assert_eq!(reply.len(), format!("${len}\r\n").len() + len + 2);
    }
    let list = String::from_utf8_lossy(&redis.command(&["CLIENT", "LIST"])).into_owned();
    let path = theirs.display();
    let is_shown =
        list.contains(&format!("addr={path}:0")) || list.contains(&format!("addr=[{path}:0]:0"));
    assert!(is_shown && list.contains("name=weir:main"), "{list}");
    watch.assert_at_most(64);
    redis.restart();
    wait_until("Redis is back", || {
        over_unix(&own).unwrap().command(&["GET", "k"]) == b"$-1\r\n"
    });
    drop(weir);
}

/// A process that was killed leaves its file; the next one replaces it.
#[test]
fn a_file_that_was_left_behind_is_no_obstacle() {
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("weir.sock");
    let redis = RedisServer::start();
    drop(weir(&redis, &own, "{backend}", ""));
    assert!(own.exists(), "it was killed");
    let _weir = weir(&redis, &own, "{backend}", "");
    over_unix(&own)
        .unwrap()
        .expect_command(&["PING"], "+PONG\r\n");
}
