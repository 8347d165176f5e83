//! TLS to Redis.

use crate::authority::{Authority, Files, Validity};
use crate::support::{
    ConnectionWatch, RawClient, RedisServer, ReservedPort, WeirProcess, encode, wait_until,
};

/// A Redis that speaks TLS on a port of its own, besides the plain one that the test
/// itself uses.
struct SecureRedis {
    redis: RedisServer,
    port: ReservedPort,
}

impl SecureRedis {
    fn start(authority: &Authority, shows: &Files, more: &[&str]) -> SecureRedis {
        let port = ReservedPort::new();
        let (number, ca) = (port.port().to_string(), authority.file());
        let mut arguments = vec![
            "--tls-port",
            &number,
            "--tls-cert-file",
            shows.certificate.to_str().unwrap(),
            "--tls-key-file",
            shows.key.to_str().unwrap(),
            "--tls-ca-cert-file",
            ca.to_str().unwrap(),
        ];
        arguments.extend(more);
        let redis = RedisServer::with(&arguments);
        SecureRedis { redis, port }
    }

    /// Weir in front of its TLS port, by the name of localhost.
    fn weir(&self, tls: &str) -> WeirProcess {
        let text = format!(
            "admin.listen = \"{{admin}}\"
             process.certificate_check = \"50ms\"
             [route.main]
             listen = \"{{listen}}\"
             [route.main.backend]
             address = \"localhost:{}\"
             max_connections = 8
             reconnect_max = \"100ms\"
             [route.main.backend.tls]
             {tls}",
            self.port.port()
        );
        WeirProcess::with_config(&self.redis, &text)
    }
}

fn shows(files: &Files) -> String {
    format!(
        "certificate = {:?}\nkey = {:?}\n",
        files.certificate, files.key
    )
}

fn trusts(authority: &Authority) -> String {
    format!("ca = {:?}\n", authority.file())
}

fn refused(weir: &WeirProcess, result: &str) {
    let counted = format!("result=\"{result}\"");
    wait_until(result, || {
        weir.metric("weir_backend_tls_handshakes_total", &[&counted]) > 0.0
    });
    let reply = weir.client().command(&["GET", "k"]);
    assert!(reply.starts_with(b"-"), "{}", reply.escape_ascii());
    assert_eq!(weir.get("/readyz").0, 503);
}

#[test]
fn redis_is_spoken_tls_to_and_both_show_certificates() {
    if !RedisServer::is_built_with_tls() {
        return;
    }
    let authority = Authority::new();
    let (server, own) = (
        authority.sign("redis", &["localhost"]),
        authority.sign("weir", &["weir"]),
    );
    let secure = SecureRedis::start(&authority, &server, &["--tls-auth-clients", "yes"]);
    let weir = secure.weir(&format!("{}{}", trusts(&authority), shows(&own)));
    let watch = ConnectionWatch::start(&secure.redis);
    let mut client = weir.client();
    client.expect_command(&["SET", "k", "v"], "+OK\r\n");
    let mut pipeline = Vec::new();
    for number in 0..2_000 {
        pipeline.extend(encode(&["ECHO".to_owned(), number.to_string()]));
    }
    client.send(&pipeline);
    for number in 0..2_000 {
        let number = number.to_string();
        client.expect(format!("${}\r\n{number}\r\n", number.len()));
    }
    // More than a record, more than a socket takes; streamed over a lease and shared.
    for len in [10_000, 60_000, 8 << 20] {
        let value = vec![b'x'; len];
        client.expect_command(&[b"SET".as_slice(), b"large", &value], "+OK\r\n");
        let expected = [format!("${len}\r\n").as_bytes(), &value, b"\r\n"].concat();
        client.expect_command(&["GET", "large"], expected);
    }
    client.expect_command(&["MULTI"], "+OK\r\n");
    client.expect_command(&["INCR", "n"], "+QUEUED\r\n");
    client.expect_command(&["EXEC"], "*1\r\n:1\r\n");
    assert!(
        secure
            .redis
            .info("clients", "connected_clients")
            .parse::<u32>()
            .unwrap()
            > 1
    );
    watch.assert_at_most(8);
    assert!(weir.metric("weir_backend_tls_handshakes_total", &["result=\"ok\""]) > 0.0);
    assert!(
        weir.metric(
            "weir_certificate_expiry_timestamp_seconds",
            &["place=\"route.main.backend.tls\""]
        ) > 1.7e9
    );
}

#[test]
fn a_redis_with_another_authority_is_not_trusted() {
    if !RedisServer::is_built_with_tls() {
        return;
    }
    let (authority, other) = (Authority::new(), Authority::new());
    let server = authority.sign("redis", &["localhost"]);
    let secure = SecureRedis::start(&authority, &server, &["--tls-auth-clients", "no"]);
    let mut weir = secure.weir(&trusts(&other));
    refused(&weir, "certificate_unknown");
    weir.wait_for_log("name the authority that signed its certificate in ca");
}

#[test]
fn a_redis_of_another_name_is_not_trusted_unless_that_name_is_given() {
    if !RedisServer::is_built_with_tls() {
        return;
    }
    let authority = Authority::new();
    let server = authority.sign("redis", &["redis.internal"]);
    let secure = SecureRedis::start(&authority, &server, &["--tls-auth-clients", "no"]);
    let mut weir = secure.weir(&trusts(&authority));
    refused(&weir, "certificate_bad");
    weir.wait_for_log("or set server_name");
    let weir = secure.weir(&format!(
        "{}server_name = \"redis.internal\"\n",
        trusts(&authority)
    ));
    weir.client().expect_command(&["PING"], "+PONG\r\n");
}

#[test]
fn a_redis_whose_certificate_has_expired_is_not_trusted() {
    if !RedisServer::is_built_with_tls() {
        return;
    }
    let authority = Authority::new();
    let server = authority.sign_for("redis", &["localhost"], Validity::Expired);
    let secure = SecureRedis::start(&authority, &server, &["--tls-auth-clients", "no"]);
    refused(&secure.weir(&trusts(&authority)), "certificate_expired");
}

/// Redis closes the connection after the handshake: it is not until then that TLS 1.3
/// tells a client that its certificate is missing.
#[test]
fn a_redis_that_asks_for_a_certificate_says_so() {
    if !RedisServer::is_built_with_tls() {
        return;
    }
    let authority = Authority::new();
    let server = authority.sign("redis", &["localhost"]);
    let secure = SecureRedis::start(&authority, &server, &["--tls-auth-clients", "yes"]);
    let mut weir = secure.weir(&trusts(&authority));
    weir.wait_for_log("CertificateRequired");
    assert!(weir.client().command(&["GET", "k"]).starts_with(b"-"));
}

#[test]
fn a_port_without_tls_is_told_from_a_refusal() {
    let authority = Authority::new();
    let redis = RedisServer::start();
    let text = format!(
        "admin.listen = \"{{admin}}\"
         [route.main]
         listen = \"{{listen}}\"
         backend = {{ address = \"{{backend}}\", tls = {{ ca = {:?} }} }}",
        authority.file()
    );
    let mut weir = WeirProcess::with_config(&redis, &text);
    weir.wait_for_log("is this its TLS port?");
}

/// While connections come and go Redis never has more than the budget, although each
/// says goodbye before it closes; and when Redis dies and comes back, so does service.
#[test]
fn the_budget_holds_while_tls_connections_open_close_and_break() {
    if !RedisServer::is_built_with_tls() {
        return;
    }
    let authority = Authority::new();
    let server = authority.sign("redis", &["localhost"]);
    let mut secure = SecureRedis::start(&authority, &server, &["--tls-auth-clients", "no"]);
    let text = format!(
        "admin.listen = \"{{admin}}\"
         [route.main]
         listen = \"{{listen}}\"
         [route.main.backend]
         address = \"localhost:{}\"
         max_connections = 3
         lease_wait = \"20s\"
         reconnect_max = \"100ms\"
         [route.main.backend.tls]
         {}",
        secure.port.port(),
        trusts(&authority)
    );
    let weir = WeirProcess::with_config(&secure.redis, &text);
    let watch = ConnectionWatch::start(&secure.redis);
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let weir = &weir;
            scope.spawn(move || {
                for round in 0..12 {
                    let mut client = weir.client();
                    // Other databases and protocols: other connections, taken from each other.
                    client.command(&["SELECT", &((thread + round) % 5).to_string()]);
                    client.command(&["SET", "k", "v"]);
                    client.command(&["WATCH", "k"]);
                    client.command(&["MULTI"]);
                    client.command(&["EXEC"]);
                    if round % 3 == 0 {
                        client.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
                    }
                }
            });
        }
    });
    watch.assert_at_most(3);
    secure.redis.restart();
    wait_until("Redis is back", || {
        let mut client = RawClient::connect(weir.address());
        client
            .try_command(&["GET", "k"])
            .is_ok_and(|reply| reply.starts_with(b"$-1"))
    });
    wait_until("no slot is lost", || {
        weir.metric("weir_backend_connections", &[]) <= 3.0
    });
}

#[test]
fn weirs_own_certificate_can_be_replaced_while_it_serves() {
    if !RedisServer::is_built_with_tls() {
        return;
    }
    let authority = Authority::new();
    let server = authority.sign("redis", &["localhost"]);
    let own = authority.sign_for("weir", &["weir"], Validity::Expired);
    let secure = SecureRedis::start(&authority, &server, &["--tls-auth-clients", "yes"]);
    let mut weir = secure.weir(&format!("{}{}", trusts(&authority), shows(&own)));
    weir.wait_for_log("has expired");
    assert!(weir.client().command(&["GET", "k"]).starts_with(b"-"));
    authority.sign("weir", &["weir"]);
    weir.wait_for_log("certificates read again");
    wait_until("Redis takes it", || {
        weir.client().command(&["GET", "k"]) == b"$-1\r\n"
    });
}
