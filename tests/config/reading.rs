//! What is written is what holds.

use weir::config::{AuthMode, Config, Flags, LogFormat, OnLoss, Secret};

use crate::{text, weir};

#[test]
fn every_setting_is_read() {
    let config = Config::parse(
        "weir.toml",
        r#"
        [process]
        workers = 0x10
        max_clients = 1_000
        [log]
        filter = "warn,weir::backend=debug"
        format = "json"
        [admin]
        listen = "off"
        [route.a]
        listen = ["127.0.0.1:1", "[::1]:1"]
        clients.idle_timeout = 0
        clients.output_max = 65536
        clients.tcp_nodelay = false
        backend.address = "[::1]:6379"
        backend.on_loss = "close"
        backend.password = "geheim"
        timeouts.request = "1m30s"
        [route.b]
        listen = "127.0.0.1:2"
        backend = "redis_1.internal:6379"
        auth.mode = "open"
        "#,
    )
    .unwrap();
    assert_eq!(config.process.workers, 16);
    assert_eq!(config.log.filter, "warn,weir::backend=debug");
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.admin.listen, None);
    let a = &config.routes[0];
    assert_eq!(a.listen.len(), 2);
    assert!(a.clients.idle_timeout.is_zero());
    assert_eq!(a.clients.output_max, 65_536);
    assert!(!a.clients.tcp_nodelay);
    assert_eq!(a.clients.max_clients, 1_000, "as many as the process");
    assert_eq!(a.backend.address, "[::1]:6379");
    assert_eq!(a.backend.on_loss, OnLoss::Close);
    assert_eq!(a.backend.password, Some(Secret::new("geheim")));
    assert_eq!(a.timeouts.request.as_secs(), 90);
    assert_eq!(config.routes[1].backend.address, "redis_1.internal:6379");
    assert_eq!(config.routes[1].auth.mode, AuthMode::Open);
}

#[test]
fn passwords_come_from_files_and_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("password"), "from-file\n").unwrap();
    let file = directory.path().join("weir.toml");
    let write = |password: &str| {
        let backend = "[route.main.backend]\naddress = \"127.0.0.1:6379\"\n";
        std::fs::write(&file, format!("{backend}{password}\n")).unwrap();
    };
    let check = || weir(&["check", "--config", file.to_str().unwrap()]);

    write("password_file = \"password\"");
    let config = Config::load(&file, &Flags::default()).unwrap();
    let password = config.routes[0].backend.password.clone().unwrap();
    assert_eq!(password.expose(), b"from-file");
    std::fs::write(directory.path().join("password"), "rotated").unwrap();
    assert_eq!(password.reread().unwrap().expose(), b"rotated");

    write("password_env = \"REDIS_PASSWORD\"");
    assert_eq!(check().status.code(), Some(0));
    for (line, problem) in [
        (
            "password_env = \"NO_SUCH_VARIABLE\"",
            "NO_SUCH_VARIABLE, which is not set",
        ),
        ("password_file = \"absent\"", "No such file or directory"),
        ("password = \"\"", "found an empty one"),
    ] {
        write(line);
        let output = check();
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(
            text(&output.stderr).contains(problem),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn flags_have_precedence_over_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("weir.toml");
    std::fs::write(
        &file,
        "process.workers = 7\nroute.main.backend = \"127.0.0.1:6379\"\n",
    )
    .unwrap();
    let flags = Flags {
        workers: Some("3".to_owned()),
        admin: Some("off".to_owned()),
        log: Some("debug".to_owned()),
        ..Flags::default()
    };
    let config = Config::load(&file, &flags).unwrap();
    assert_eq!(config.process.workers, 3);
    assert_eq!(config.admin.listen, None);
    assert_eq!(config.log.filter, "debug");
}
