//! What people use: redis-cli and redis-py, with TLS.

use std::process::Command;

use crate::authority::Authority;
use crate::client_tls::{tls, weir};
use crate::support::{RedisServer, ReservedPort, libraries};

#[test]
fn redis_cli_and_redis_py_speak_tls_with_weir() {
    let (redis, authority, port) = (RedisServer::start(), Authority::new(), ReservedPort::new());
    let server = authority.sign("server", &["localhost", "127.0.0.1"]);
    let app = authority.sign("app", &["app"]);
    let settings = format!(
        "{}tls_client_ca = {:?}\n",
        tls(&[&server]),
        authority.file()
    );
    let _weir = weir(&redis, &port, &settings);
    let cli = |shows: bool, arguments: &[&str]| {
        let mut command = Command::new("redis-cli");
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &port.port().to_string(),
            "--tls",
            "--cacert",
        ]);
        command.arg(authority.file());
        if shows {
            command
                .arg("--cert")
                .arg(&app.certificate)
                .arg("--key")
                .arg(&app.key);
        }
        let output = command.args(arguments).output().expect("redis-cli");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(cli(true, &["SET", "k", "v"]), "OK\n");
    assert_eq!(cli(true, &["GET", "k"]), "v\n");
    assert_eq!(cli(false, &["GET", "k"]), "");
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let arguments = [
        port.port().to_string(),
        path(&authority.file()),
        path(&app.certificate),
        path(&app.key),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    libraries::python("tls.py", &arguments);
}
