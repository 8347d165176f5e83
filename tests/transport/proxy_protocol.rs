//! The real client's address from a load balancer.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::authority::Authority;
use crate::client_tls::{tls, weir};
use crate::support::{RedisServer, ReservedPort, WeirProcess, encode, wait_until};
use crate::talker::{Talker, config, secured, tcp};

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 6379\r\n";
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C\xC0\0\x02\x01\xC6\x33\x64\x01\xDC\x04\x18\xEB";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

const TRUSTED: &str = "proxy_protocol_from = \"127.0.0.0/8\"\n";

fn connect(port: &ReservedPort, header: &[u8]) -> Talker<TcpStream> {
    let mut stream = tcp(port.address());
    stream.write_all(header).unwrap();
    Talker::new(stream)
}

fn addr_of(client: &mut Talker<TcpStream>) -> String {
    let info = client.text(&["CLIENT", "INFO"]);
    let addr = info
        .split(' ')
        .find_map(|field| field.strip_prefix("addr="));
    addr.unwrap_or_else(|| panic!("{info}")).to_owned()
}

fn headers(weir: &WeirProcess, result: &str) -> f64 {
    weir.metric(
        "weir_proxy_headers_total",
        &[&format!("result=\"{result}\"")],
    )
}

#[test]
fn the_client_is_whom_the_header_names() {
    let (redis, port) = (RedisServer::start(), ReservedPort::new());
    let weir = weir(&redis, &port, TRUSTED);
    let v6 = b"PROXY TCP6 2001:db8::1 2001:db8::2 4321 6379\r\n";
    for (header, addr) in [
        (V1, "192.0.2.1:56324"),
        (V2, "192.0.2.1:56324"),
        (v6, "[2001:db8::1]:4321"),
    ] {
        let mut client = connect(&port, header);
        assert_eq!(addr_of(&mut client), addr);
        let kill = client.text(&["CLIENT", "LIST"]);
        assert!(kill.contains(&format!("addr={addr} ")), "{kill}");
    }
    assert_eq!(headers(&weir, "ok"), 3.0);
    // The load balancer's own connections keep its address.
    for header in [LOCAL, b"PROXY UNKNOWN\r\n"] {
        assert!(addr_of(&mut connect(&port, header)).starts_with("127.0.0.1:"));
    }
    assert_eq!(headers(&weir, "local"), 2.0);
}

/// However it is cut, and whatever comes behind it in the same packet.
#[test]
fn a_header_may_come_byte_by_byte_or_with_commands_behind_it() {
    let (redis, port) = (RedisServer::start(), ReservedPort::new());
    let _weir = weir(&redis, &port, TRUSTED);
    for header in [V1, V2] {
        let mut client = connect(&port, b"");
        for byte in header {
            client.stream.write_all(&[*byte]).unwrap();
        }
        assert_eq!(addr_of(&mut client), "192.0.2.1:56324");
        let together = [header, &encode(&["PING"]), &encode(&["ECHO", "behind"])].concat();
        let mut client = connect(&port, &together);
        assert_eq!(client.try_read_reply().unwrap(), b"+PONG\r\n");
        assert_eq!(client.try_read_reply().unwrap(), b"$6\r\nbehind\r\n");
    }
}

#[test]
fn tls_begins_behind_the_header() {
    let (redis, authority, port) = (RedisServer::start(), Authority::new(), ReservedPort::new());
    let server = authority.sign("server", &["localhost"]);
    let _weir = weir(&redis, &port, &format!("{}{TRUSTED}", tls(&[&server])));
    let mut socket = tcp(port.address());
    socket.write_all(V2).unwrap();
    let mut client = secured(socket, &config(&authority.file(), None), "localhost").unwrap();
    let info = client.text(&["CLIENT", "INFO"]);
    assert!(info.contains("addr=192.0.2.1:56324 "), "{info}");
}

fn expect_closed(mut client: Talker<TcpStream>) {
    let mut answer = Vec::new();
    // A reset is an end as well: what was sent had not been read.
    let _ = client.stream.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{}", answer.escape_ascii());
}

#[test]
fn what_is_no_header_is_closed_with_a_line_in_the_log() {
    let (redis, port) = (RedisServer::start(), ReservedPort::new());
    let mut weir = weir(
        &redis,
        &port,
        &format!("{TRUSTED}handshake_timeout = \"2s\""),
    );
    let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
    let wrong = [
        encode(&["PING"]),
        b"PROXY TCP4 nobody nobody 1 2\r\n".to_vec(),
        long,
        [&V2[..12], b"\x31\x11\0\x0C"].concat(),
        [&V2[..12], b"\x21\x11\xFF\xFF"].concat(),
    ];
    for header in &wrong {
        expect_closed(connect(&port, header));
    }
    wait_until("all are counted", || {
        headers(&weir, "malformed") == wrong.len() as f64
    });
    weir.wait_for_log("what it sent is no PROXY header");
    // The beginning of one, and then nothing; and one who goes away.
    expect_closed(connect(&port, &V1[..20]));
    wait_until("it is counted", || headers(&weir, "timeout") == 1.0);
    drop(connect(&port, &V1[..20]));
    wait_until("it is counted", || headers(&weir, "closed") == 1.0);
    // Nobody who is turned away has been a client.
    wait_until("nobody is left", || {
        weir.metric("weir_handshakes_in_progress", &[]) == 0.0
    });
    assert_eq!(weir.metric("weir_clients_connected", &[]), 0.0);
}

#[test]
fn whoever_is_not_trusted_may_not_name_clients() {
    let (redis, port) = (RedisServer::start(), ReservedPort::new());
    let mut weir = weir(
        &redis,
        &port,
        "proxy_protocol_from = [\"10.0.0.0/8\", \"::1\"]",
    );
    expect_closed(connect(&port, V1));
    wait_until("it is counted", || headers(&weir, "untrusted") == 1.0);
    weir.wait_for_log("it is none of proxy_protocol_from");
}

#[test]
fn without_the_setting_a_header_is_no_header() {
    let (redis, port) = (RedisServer::start(), ReservedPort::new());
    let _weir = weir(&redis, &port, "");
    let mut client = connect(&port, V1);
    let reply = client.try_read_reply().unwrap();
    // Which quotation marks it has depends on the version.
    let told = reply.starts_with(b"-ERR unknown command 'PROXY'")
        || reply.starts_with(b"-ERR unknown command `PROXY`");
    assert!(told, "{}", reply.escape_ascii());
}
