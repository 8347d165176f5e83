//! Settings that hold for connections made from then on.

use std::fs;
use std::net::SocketAddr;

use super::support::{RawClient, RedisServer, ReservedPort, WeirProcess, wait_until};
use super::text;

/// Whether the kernel asks after this client of Weir when it is silent: its end of the
/// connection has a timer though nothing is under way.
fn is_asked_after(weir: SocketAddr, client: SocketAddr) -> bool {
    let hex = |address: SocketAddr| {
        let std::net::IpAddr::V4(ip) = address.ip() else {
            panic!("IPv4 only")
        };
        let ip = u32::from_le_bytes(ip.octets());
        format!("{ip:08X}:{:04X}", address.port())
    };
    let ends = [hex(weir), hex(client)];
    let mut timer = String::new();
    wait_until("all that was sent has arrived", || {
        let table = fs::read_to_string("/proc/net/tcp").expect("Linux");
        let mut lines = table.lines();
        let line = lines.find(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields[1..3] == ends
        });
        let line = line.expect("the connection is there");
        timer = line.split_whitespace().nth(5).expect("a timer").to_owned();
        !timer.starts_with("01:")
    });
    timer.starts_with("02:")
}

#[test]
fn keepalive_holds_for_the_very_next_client() {
    let (redis, console) = (RedisServer::start(), ReservedPort::new());
    let with = |value: &str| text("500", &console, "") + &format!("tcp_keepalive = {value}\n");
    let weir = WeirProcess::with_config(&redis, &with("\"5m\""));
    let mut operator = RawClient::connect(console.address());
    let client = || {
        let mut client = weir.client();
        client.expect_command(&["PING"], "+PONG\r\n");
        client
    };
    let asked = |client: &RawClient| is_asked_after(weir.address(), client.local_address());
    let first = client();
    assert!(asked(&first));
    let mut change = |value: &str| {
        fs::write(weir.config_path(), weir.filled(&with(value))).unwrap();
        let told = operator.command(&["WEIR", "RELOAD"]);
        assert!(told.starts_with(b"*1"), "{}", told.escape_ascii());
    };
    change("0");
    let (second, third) = (client(), client());
    assert!(asked(&first) && !asked(&second) && !asked(&third));
    change("\"1m\"");
    let fourth = client();
    assert!(!asked(&second) && asked(&fourth));
}
