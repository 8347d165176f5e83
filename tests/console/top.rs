//! `weir top`, in a terminal and without one.

use super::support::{RawClient, RedisServer, WeirProcess, binary, libraries, wait_until};

/// A Weir with clients whose numbers have been looked at.
fn with_clients(redis: &RedisServer) -> (WeirProcess, Vec<RawClient>) {
    let weir = WeirProcess::in_front_of(redis);
    let mut clients: Vec<RawClient> = (0..5).map(|_| weir.client()).collect();
    for client in &mut clients {
        client.expect_command(&["PING"], "+PONG\r\n");
    }
    wait_until("there is a sample", || {
        weir.get("/top.json")
            .1
            .contains("\"budget\":64,\"clients\":5")
    });
    (weir, clients)
}

#[test]
fn keys_work_in_a_terminal_and_it_is_left_as_it_was() {
    let redis = RedisServer::start();
    let (weir, _clients) = with_clients(&redis);
    let program = binary().get_program().to_owned();
    let program = program.to_str().expect("a path");
    let admin = weir.admin_address().to_string();
    libraries::python("top_in_terminal.py", &[program, &admin]);
}

#[test]
fn without_a_terminal_it_is_plain_text_once() {
    let redis = RedisServer::start();
    let (weir, _clients) = with_clients(&redis);
    let admin = weir.admin_address().to_string();
    for once in [&["--once"][..], &[]] {
        let run = binary()
            .args(["top", "--admin", &admin])
            .args(once)
            .output()
            .expect("weir runs");
        let said = String::from_utf8(run.stdout).expect("text");
        assert!(run.status.success(), "{said}");
        assert!(!said.contains('\x1b'), "{said:?}");
        let row = said.lines().find(|line| line.starts_with("127.0.0.1 "));
        let cells: Vec<&str> = row.expect("a row").split_whitespace().collect();
        assert_eq!(cells[1..3], ["main", "5"], "{said}");
        assert!(said.contains("route main  clients 5/10000"), "{said}");
        let node = format!("node {}  primary  up", redis.address());
        assert!(said.contains(&node), "{said}");
    }
    let nowhere = binary().args(["top", "--admin", "127.0.0.1:1"]).output();
    let nowhere = nowhere.expect("weir runs");
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("127.0.0.1:1"));
}
