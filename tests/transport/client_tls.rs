//! TLS from clients.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

use crate::authority::{Authority, Validity};
use crate::support::{RedisServer, ReservedPort, WeirProcess, encode, wait_until};
use crate::talker::{config, over_tls, shown, tcp};

/// Weir with one TLS listener besides the plain one.
pub fn weir(redis: &RedisServer, port: &ReservedPort, settings: &str) -> WeirProcess {
    weir_at(redis, &port.address().to_string(), settings)
}

fn weir_at(redis: &RedisServer, address: &str, settings: &str) -> WeirProcess {
    let text = format!(
        "admin.listen = \"{{admin}}\"
         process.certificate_check = \"50ms\"
         [route.main]
         listen = \"{{listen}}\"
         backend = \"{{backend}}\"
         [route.main.listener.secure]
         address = \"{address}\"
         {settings}"
    );
    WeirProcess::with_config(redis, &text)
}

/// The settings of a listener that shows these certificates.
pub fn tls(files: &[&crate::authority::Files]) -> String {
    let list = |pick: fn(&crate::authority::Files) -> &std::path::Path| {
        let paths: Vec<String> = files
            .iter()
            .map(|files| format!("{:?}", pick(files)))
            .collect();
        format!("[{}]", paths.join(", "))
    };
    format!(
        "tls_certificate = {}\ntls_key = {}\n",
        list(|files| &files.certificate),
        list(|files| &files.key)
    )
}

#[test]
fn a_client_speaks_tls_and_redis_does_not_notice() {
    let (redis, authority, port) = (RedisServer::start(), Authority::new(), ReservedPort::new());
    let server = authority.sign("server", &["weir.internal"]);
    let weir = weir(&redis, &port, &tls(&[&server]));
    let mut client = over_tls(
        port.address(),
        &config(&authority.file(), None),
        "weir.internal",
    )
    .unwrap();
    client.expect_command(&["SET", "k", "v"], "+OK\r\n");
    client.expect_command(&["GET", "k"], "$1\r\nv\r\n");
    assert!(
        client
            .text(&["HELLO", "3", "SETNAME", "app"])
            .starts_with('%')
    );
    let list = client.text(&["CLIENT", "LIST"]);
    assert!(
        list.contains(&format!("laddr={} ", port.address())),
        "{list}"
    );
    assert_eq!(
        weir.metric(
            "weir_tls_handshakes_total",
            &["result=\"ok\"", "listener=\"secure\""]
        ),
        1.0
    );
    let expiry = weir.metric(
        "weir_certificate_expiry_timestamp_seconds",
        &["place=\"route.main.listener.secure\""],
    );
    assert!(expiry > 1.7e9, "{expiry}");
}

/// Reply by reply: a pipeline of thousands in one go, and values of many records.
#[test]
fn pipelines_and_large_values_arrive_whole_and_in_order() {
    let (redis, authority, port) = (RedisServer::start(), Authority::new(), ReservedPort::new());
    let server = authority.sign("server", &["localhost"]);
    let _weir = weir(&redis, &port, &tls(&[&server]));
    let client_config = config(&authority.file(), None);
    let mut client = over_tls(port.address(), &client_config, "localhost").unwrap();
    let mut pipeline = Vec::new();
    for number in 0..5_000 {
        pipeline.extend(encode(&[
            "SET".to_owned(),
            format!("k{number}"),
            format!("v{number}"),
        ]));
        pipeline.extend(encode(&["GET".to_owned(), format!("k{number}")]));
    }
    client.send(&pipeline);
    for number in 0..5_000 {
        assert_eq!(client.try_read_reply().unwrap(), b"+OK\r\n");
        let value = format!("v{number}");
        let expected = format!("${}\r\n{value}\r\n", value.len());
        assert_eq!(client.try_read_reply().unwrap(), expected.as_bytes());
    }
    for len in [1, 16_383, 16_384, 16_385, 100_000, 20 << 20] {
        let value: Vec<u8> = (0..len).map(|at: usize| (at * 31 % 251) as u8).collect();
        assert_eq!(
            client.command(&[b"SET".as_slice(), b"large", &value]),
            b"+OK\r\n"
        );
        let expected = [format!("${len}\r\n").as_bytes(), &value, b"\r\n"].concat();
        // Before any is read, so that the socket is full and the rest waits.
        client.send(encode(&["GET", "large"]));
        client.send(encode(&["PING"]));
        let reply = client.try_read_reply().unwrap();
        assert!(
            reply == expected,
            "a value of {len} bytes came as {} bytes",
            reply.len()
        );
        assert_eq!(client.try_read_reply().unwrap(), b"+PONG\r\n");
    }
}

/// One byte of TLS at a time, as a bad network might do it.
#[test]
fn records_may_come_in_pieces() {
    let (redis, authority, port) = (RedisServer::start(), Authority::new(), ReservedPort::new());
    let server = authority.sign("server", &["localhost"]);
    let _weir = weir(&redis, &port, &tls(&[&server]));
    let mut client = over_tls(
        port.address(),
        &config(&authority.file(), None),
        "localhost",
    )
    .unwrap();
    let connection = &mut client.stream.conn;
    connection
        .writer()
        .write_all(&encode(&["ECHO", "in pieces"]))
        .unwrap();
    let mut records = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut records).unwrap();
    }
    for byte in records {
        client.stream.sock.write_all(&[byte]).unwrap();
    }
    assert_eq!(client.try_read_reply().unwrap(), b"$9\r\nin pieces\r\n");
}

#[test]
fn a_client_that_says_goodbye_first_still_gets_its_replies() {
    let (redis, authority, port) = (RedisServer::start(), Authority::new(), ReservedPort::new());
    let server = authority.sign("server", &["localhost"]);
    let weir = weir(&redis, &port, &tls(&[&server]));
    let mut client = over_tls(
        port.address(),
        &config(&authority.file(), None),
        "localhost",
    )
    .unwrap();
    client
        .stream
        .conn
        .writer()
        .write_all(&encode(&["PING"]))
        .unwrap();
    client.stream.conn.send_close_notify();
    client.stream.flush().unwrap();
    assert_eq!(client.try_read_reply().unwrap(), b"+PONG\r\n");
    // Weir's own goodbye, and not just the end of the socket, which rustls would refuse.
    assert_eq!(client.stream.read(&mut [0; 1]).unwrap(), 0);
    wait_until("the client is gone", || {
        weir.metric("weir_clients_connected", &[]) == 0.0
    });
}

#[test]
fn clients_show_certificates_where_they_have_to() {
    let (redis, authority, port) = (RedisServer::start(), Authority::new(), ReservedPort::new());
    let (other, server) = (Authority::new(), authority.sign("server", &["localhost"]));
    let settings = format!(
        "{}tls_client_ca = {:?}\n",
        tls(&[&server]),
        authority.file()
    );
    let mut weir = weir(&redis, &port, &settings);
    let good = authority.sign("good", &["app.internal"]);
    let expired = authority.sign_for("expired", &["app.internal"], Validity::Expired);
    let foreign = other.sign("foreign", &["app.internal"]);
    let attempt = |shows| {
        let config = config(&authority.file(), shows);
        // In TLS 1.3 the client is through before the server has seen its certificate.
        let mut client = over_tls(port.address(), &config, "localhost")?;
        client.try_command(&["PING"])
    };
    assert_eq!(attempt(Some(&good)).unwrap(), b"+PONG\r\n");
    for (shows, result) in [
        (None, "no_certificate"),
        (Some(&expired), "certificate_expired"),
        (Some(&foreign), "certificate_unknown"),
    ] {
        attempt(shows).unwrap_err();
        let counted = format!("result=\"{result}\"");
        wait_until(result, || {
            weir.metric("weir_tls_handshakes_total", &[&counted]) == 1.0
        });
    }
    weir.wait_for_log("connection turned away");
    // Who is refused is none of the clients.
    wait_until("nobody is left", || {
        weir.metric("weir_clients_connected", &[]) == 0.0
    });
}

#[test]
fn a_certificate_may_be_optional_and_is_checked_if_it_comes() {
    let (redis, authority, port) = (RedisServer::start(), Authority::new(), ReservedPort::new());
    let server = authority.sign("server", &["localhost"]);
    let settings = format!(
        "{}tls_client_ca = {:?}\ntls_client_certificate = \"optional\"\n",
        tls(&[&server]),
        authority.file()
    );
    let _weir = weir(&redis, &port, &settings);
    let other = Authority::new();
    let foreign = other.sign("foreign", &["app.internal"]);
    let attempt = |shows| {
        over_tls(
            port.address(),
            &config(&authority.file(), shows),
            "localhost",
        )?
        .try_command(&["PING"])
    };
    assert_eq!(attempt(None).unwrap(), b"+PONG\r\n");
    attempt(Some(&foreign)).unwrap_err();
}

#[test]
fn the_certificate_is_chosen_by_the_name_that_a_client_asks_for() {
    let (redis, authority, port) = (RedisServer::start(), Authority::new(), ReservedPort::new());
    let first = authority.sign("first", &["first.internal"]);
    let second = authority.sign("second", &["second.internal", "*.wild.internal"]);
    let _weir = weir(&redis, &port, &tls(&[&first, &second]));
    let config = config(&authority.file(), None);
    let mut certificates = Vec::new();
    for name in ["first.internal", "second.internal", "a.wild.internal"] {
        let mut client = over_tls(port.address(), &config, name).unwrap();
        client.expect_command(&["PING"], "+PONG\r\n");
        certificates.push(shown(&client));
    }
    assert_ne!(certificates[0], certificates[1]);
    assert_eq!(certificates[1], certificates[2]);
    // Nobody has that name: the first certificate is shown, and the client refuses it.
    over_tls(port.address(), &config, "third.internal")
        .err()
        .expect("a refusal");
}

#[test]
fn what_is_no_tls_is_turned_away_and_the_next_is_let_in() {
    let (redis, authority, port) = (RedisServer::start(), Authority::new(), ReservedPort::new());
    let server = authority.sign("server", &["localhost"]);
    let weir = weir(&redis, &port, &tls(&[&server]));
    let mut plain = tcp(port.address());
    plain.write_all(&encode(&["PING"])).unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"+PONG"));
    wait_until("it is counted", || {
        weir.metric("weir_tls_handshakes_total", &["result=\"protocol\""]) == 1.0
    });
    let mut client = over_tls(
        port.address(),
        &config(&authority.file(), None),
        "localhost",
    )
    .unwrap();
    client.expect_command(&["PING"], "+PONG\r\n");
}

#[test]
fn clients_come_over_ipv6_as_well() {
    let holder = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    holder.set_reuse_address(true).unwrap();
    let any = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    if holder.bind(&any.into()).is_err() {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    let address = holder.local_addr().unwrap().as_socket().unwrap();
    let (redis, authority) = (RedisServer::start(), Authority::new());
    let server = authority.sign("server", &["::1"]);
    let _weir = weir_at(&redis, &address.to_string(), &tls(&[&server]));
    let mut client = over_tls(address, &config(&authority.file(), None), "::1").unwrap();
    let list = client.text(&["CLIENT", "LIST"]);
    assert!(list.contains("addr=[::1]:"), "{list}");
    assert!(list.contains(&format!("laddr={address} ")), "{list}");
}

/// A plain client of a Weir that listens for all of IPv6 comes over IPv4 too.
#[test]
fn a_listener_for_everybody_takes_both() {
    // A port of both, held as ReservedPort does it.
    let holder = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    holder.set_reuse_address(true).unwrap();
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    if holder
        .set_only_v6(false)
        .and_then(|()| holder.bind(&any.into()))
        .is_err()
    {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    let address = holder.local_addr().unwrap().as_socket().unwrap();
    let redis = RedisServer::start();
    let _weir = weir_at(&redis, &address.to_string(), "");
    let port = address.port();
    for to in [
        (Ipv4Addr::LOCALHOST, port).into(),
        (Ipv6Addr::LOCALHOST, port).into(),
    ] {
        crate::support::RawClient::connect(to).expect_command(&["PING"], "+PONG\r\n");
    }
}

/// Who a client is by its certificate decides what it may take.
#[test]
fn certificates_can_be_limited() {
    let (redis, authority, port) = (RedisServer::start(), Authority::new(), ReservedPort::new());
    let server = authority.sign("server", &["localhost"]);
    let settings = format!(
        "{}tls_client_ca = {:?}
         [route.main.limits.jobs]
         certificates = \"*.jobs.internal\"
         per = \"certificate\"
         max_clients = 2",
        tls(&[&server]),
        authority.file()
    );
    let weir = weir(&redis, &port, &settings);
    let named =
        |file: &str, names: &[&str]| config(&authority.file(), Some(&authority.sign(file, names)));
    let (first, second) = (
        named("first", &["first", "first.jobs.internal"]),
        named("second", &["second", "second.jobs.internal"]),
    );
    let other = named("other", &["other.internal"]);
    let connect = |config| {
        let mut client = over_tls(port.address(), config, "localhost").unwrap();
        let reply = client.text(&["PING"]);
        (client, reply)
    };
    let mut kept = Vec::new();
    for config in [&first, &first, &second, &second, &other, &other, &other] {
        let (client, reply) = connect(config);
        assert_eq!(reply, "+PONG\r\n");
        kept.push(client);
    }
    for config in [&first, &second] {
        assert_eq!(connect(config).1, "-ERR max number of clients reached\r\n");
    }
    weir.wait_for_metric("weir_limit_refused_total", &["limit=\"jobs\""], 2.0);
    // RESET forgets who the client said it is, and not what its certificate says.
    kept[0].expect_command(&["RESET"], "+RESET\r\n");
    assert_eq!(connect(&first).1, "-ERR max number of clients reached\r\n");
    drop(kept);
    wait_until("there is room", || connect(&first).1 == "+PONG\r\n");
}
