//! Certificates that change while clients are connected, and those that are wrong from
//! the start.

use std::fs;

use crate::authority::{Authority, Validity};
use crate::client_tls::{tls, weir};
use crate::support::{RedisServer, ReservedPort, binary, wait_until};
use crate::talker::{config, over_tls, shown};

#[test]
fn a_new_certificate_is_shown_to_new_clients_and_nobody_else_notices() {
    let (redis, authority, port) = (RedisServer::start(), Authority::new(), ReservedPort::new());
    let server = authority.sign("server", &["localhost"]);
    let mut weir = weir(&redis, &port, &tls(&[&server]));
    let config = config(&authority.file(), None);
    let mut early = over_tls(port.address(), &config, "localhost").unwrap();
    early.expect_command(&["SET", "k", "v"], "+OK\r\n");
    let before = shown(&early);

    authority.sign("server", &["localhost"]);
    weir.wait_for_log("certificates read again");
    // Half of the renewal was seen, perhaps; in the end both files are the new ones.
    let mut late = None;
    wait_until("the new certificate is shown", || {
        let client = over_tls(port.address(), &config, "localhost").unwrap();
        let is_new = shown(&client) != before;
        late = Some(client);
        is_new
    });
    late.unwrap().expect_command(&["GET", "k"], "$1\r\nv\r\n");
    early.expect_command(&["GET", "k"], "$1\r\nv\r\n");
    assert_eq!(shown(&early), before);
}

#[test]
fn a_bad_renewal_leaves_the_certificate_in_force_and_says_so_once() {
    let (redis, authority, port) = (RedisServer::start(), Authority::new(), ReservedPort::new());
    let server = authority.sign("server", &["localhost"]);
    let mut weir = weir(&redis, &port, &tls(&[&server]));
    let config = config(&authority.file(), None);
    let (other, _) = authority.make(&["localhost"], Validity::Now);
    // At once: half a file would be told, too.
    let beside = server.certificate.with_extension("new");
    fs::write(&beside, other).unwrap();
    fs::rename(beside, &server.certificate).unwrap();
    weir.wait_for_log("certificates can not be used, those before stay");
    let mut client = over_tls(port.address(), &config, "localhost").unwrap();
    client.expect_command(&["PING"], "+PONG\r\n");
    assert_eq!(weir.log().matches("can not be used").count(), 1);
    assert!(!weir.log().contains("PRIVATE KEY"));
    authority.sign("server", &["localhost"]);
    weir.wait_for_log("certificates read again");
}

/// An authority that is taken away closes the door for new clients only.
#[test]
fn other_authorities_hold_for_new_clients() {
    let (redis, authority, port) = (RedisServer::start(), Authority::new(), ReservedPort::new());
    let (server, other) = (authority.sign("server", &["localhost"]), Authority::new());
    let clients = authority.path().join("clients.crt");
    fs::copy(authority.file(), &clients).unwrap();
    let settings = format!("{}tls_client_ca = {clients:?}\n", tls(&[&server]));
    let mut weir = weir(&redis, &port, &settings);
    let app = authority.sign("app", &["app"]);
    let config = config(&authority.file(), Some(&app));
    let mut early = over_tls(port.address(), &config, "localhost").unwrap();
    early.expect_command(&["PING"], "+PONG\r\n");
    fs::copy(other.file(), &clients).unwrap();
    weir.wait_for_log("certificates read again");
    let late =
        over_tls(port.address(), &config, "localhost").and_then(|mut late| late.command_or_error());
    late.unwrap_err();
    early.expect_command(&["PING"], "+PONG\r\n");
}

impl crate::talker::TlsTalker {
    fn command_or_error(&mut self) -> std::io::Result<Vec<u8>> {
        self.try_command(&["PING"])
    }
}

/// `weir check` names the file, the line, the key, and what is wrong.
#[test]
fn wrong_files_are_named_by_weir_check() {
    let authority = Authority::new();
    let good = authority.sign("good", &["localhost"]);
    let other = authority.sign("other", &["localhost"]);
    let old = authority.sign_for("old", &["localhost"], Validity::Expired);
    let garbage = authority.path().join("garbage.pem");
    fs::write(&garbage, "hunter2\n").unwrap();
    let missing = authority.path().join("missing.pem");
    let file = authority.path().join("weir.toml");
    let check = |listener: &str| {
        let text = format!(
            "[route.main]\nbackend = \"127.0.0.1:6379\"\n[route.main.listener.a]\naddress = \"127.0.0.1:0\"\n{listener}"
        );
        fs::write(&file, text).unwrap();
        let output = binary()
            .arg("check")
            .arg("--config")
            .arg(&file)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    let (certificate, key) = (&good.certificate, &good.key);
    let place = |line: usize, name: &str| {
        format!("{}:{line}: route.main.listener.a.{name}: ", file.display())
    };
    for (listener, line, name, problem) in [
        (
            format!("tls_certificate = {missing:?}\ntls_key = {key:?}"),
            5,
            "tls_certificate",
            "No such file",
        ),
        (
            format!("tls_certificate = {garbage:?}\ntls_key = {key:?}"),
            5,
            "tls_certificate",
            "found none",
        ),
        (
            format!("tls_certificate = {certificate:?}\ntls_key = {garbage:?}"),
            6,
            "tls_key",
            "found none",
        ),
        (
            format!(
                "tls_certificate = {certificate:?}\ntls_key = {:?}",
                other.key
            ),
            6,
            "tls_key",
            "expected the key of the certificate",
        ),
        (
            format!("tls_certificate = {certificate:?}"),
            5,
            "tls_certificate",
            "expected a key for each certificate",
        ),
        (
            format!(
                "tls_certificate = {certificate:?}\ntls_key = {key:?}\ntls_client_ca = {missing:?}"
            ),
            7,
            "tls_client_ca",
            "No such file",
        ),
        (
            format!("tls_client_ca = {certificate:?}"),
            5,
            "tls_client_ca",
            "expected a tls_certificate with it",
        ),
        (
            "unix_mode = \"0660\"".to_owned(),
            5,
            "unix_mode",
            "expected a Unix socket",
        ),
    ] {
        let (is_good, said) = check(&listener);
        assert!(!is_good, "{listener}: {said}");
        assert!(said.starts_with(&place(line, name)), "{said}");
        assert!(said.contains(problem), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    let (is_good, said) = check(&format!(
        "tls_certificate = {:?}\ntls_key = {:?}",
        old.certificate, old.key
    ));
    assert!(
        is_good && said.contains(&format!("warning: {}", place(5, "tls_certificate"))),
        "{said}"
    );
    assert!(said.contains("has expired"), "{said}");
    let (is_good, said) = check(&format!(
        "tls_certificate = {certificate:?}\ntls_key = {key:?}"
    ));
    assert!(is_good && !said.contains("warning"), "{said}");
}
