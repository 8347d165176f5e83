//! Certificates are read again with the settings, whether or not a file seems to have
//! changed and though nobody looks by the clock.

use super::support::{RawClient, RedisServer, ReservedPort, WeirProcess, wait_until};
use super::text;

#[path = "../transport/authority.rs"]
mod authority;
#[path = "../transport/talker.rs"]
#[allow(dead_code)]
mod talker;

use authority::Authority;
use talker::{config, over_tls, shown};

#[test]
fn a_reload_shows_the_new_certificate_to_new_clients_only() {
    let (redis, console) = (RedisServer::start(), ReservedPort::new());
    let (authority, port) = (Authority::new(), ReservedPort::new());
    let files = authority.sign("server", &["localhost"]);
    let settings = text("500", &console, "[process]\ncertificate_check = 0\n")
        + &format!(
            "[route.main.listener.secure]\naddress = \"{}\"\n\
             tls_certificate = {:?}\ntls_key = {:?}\n",
            port.address(),
            files.certificate,
            files.key
        );
    let mut weir = WeirProcess::with_config(&redis, &settings);
    let config = config(&authority.file(), None);
    let connect = || over_tls(port.address(), &config, "localhost").expect("a handshake");
    let mut first = connect();
    first.expect_command(&["SET", "k", "1"], "+OK\r\n");

    authority.sign("server", &["localhost"]);
    assert_eq!(shown(&connect()), shown(&first), "nobody has asked yet");
    let mut operator = RawClient::connect(console.address());
    operator.expect_command(&["WEIR", "RELOAD"], "*0\r\n");
    let mut second = connect();
    assert_ne!(shown(&second), shown(&first));

    authority.sign("server", &["localhost"]);
    weir.signal(libc::SIGHUP);
    wait_until("the third certificate is shown", || {
        shown(&connect()) != shown(&second)
    });
    for client in [&mut first, &mut second] {
        client.expect_command(&["GET", "k"], "$1\r\n1\r\n");
    }
    weir.wait_for_log("certificates read again");
}
