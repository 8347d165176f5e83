//! The reference is complete and true.

use weir::config::{
    Access, AuthMode, BackendTls, Config, Flags, Limit, Listener, Secret, User, reference,
};

use crate::repository;

#[test]
fn the_reference_is_as_the_definitions_say() {
    let files = [
        ("config/weir.toml", reference::file()),
        ("docs/CONFIGURATION.md", reference::page()),
    ];
    for (path, wanted) in files {
        let path = repository(path);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &wanted).expect("the reference can be written");
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == wanted,
            "{} differs from the definitions; `UPDATE=1 cargo test --test config` writes it",
            path.display()
        );
    }
}

#[test]
fn the_reference_runs_as_it_is_and_changes_no_default() {
    let config = Config::parse("weir.toml", &reference::file()).unwrap();
    assert_eq!(config, Config::for_backend("127.0.0.1:6379"));
    let flags = Flags {
        backend: Some("127.0.0.1:6379".to_owned()),
        ..Flags::default()
    };
    assert_eq!(config, Config::from_flags(&flags).unwrap());
}

/// Settings that are a mistake beside the one address that the reference has.
fn of_other_topologies(line: &str) -> bool {
    let name = line.split(" = ").next().unwrap_or_default();
    [
        "nodes",
        "sentinels",
        "sentinel_master",
        "sentinel_username",
        "sentinel_password",
    ]
    .contains(&name)
}

#[test]
fn every_line_of_the_reference_can_be_uncommented() {
    let is_setting = |line: &str| {
        let name: String = line
            .chars()
            .take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_')
            .collect();
        !name.is_empty() && line[name.len()..].starts_with(" = ")
    };
    // A password is given in one of its forms, and users have to be asked for.
    let file = reference::file().replace("mode = \"redis\"", "mode = \"weir\"");
    let uncommented = file.lines().map(|line| match line.strip_prefix("# ") {
        Some(rest) if rest.starts_with("password_") || rest.starts_with("resp_password_") => "",
        // The example listens at a port.
        Some(rest) if rest.starts_with("unix_") => "",
        Some(rest) if rest.starts_with("sentinel_password_") => "",
        Some(rest) if of_other_topologies(rest) => "",
        Some(rest) if rest.starts_with("[route.") || is_setting(rest) => rest,
        _ => line,
    });
    let uncommented: String = uncommented.flat_map(|line| [line, "\n"]).collect();
    // Certificates are read when they are named.
    let directory = certificates();
    let path = |name: &str| directory.path().join(name);
    let uncommented = uncommented.replace("/etc/weir", directory.path().to_str().unwrap());

    let config = Config::parse("weir.toml", &uncommented).unwrap();
    let mut expected = Config::for_backend("127.0.0.1:6379");
    expected.admin.resp_password = Some(Secret::new("..."));
    let route = &mut expected.routes[0];
    route.backend.username = Some("weir".to_owned());
    route.backend.password = Some(Secret::new("..."));
    route.clients.operator_networks = vec!["10.9.0.0/24".parse().unwrap()];
    route.clients.operator_users = vec!["admin".to_owned()];
    route.limits = vec![Limit {
        name: "batch".to_owned(),
        networks: vec![
            "10.1.0.0/16".parse().unwrap(),
            "2001:db8::/32".parse().unwrap(),
        ],
        users: vec!["batch*".to_owned()],
        client_names: vec!["batch-*".to_owned(), "report-?".to_owned()],
        certificates: vec!["*.batch.internal".to_owned()],
        listeners: route.listen.clone(),
        ..Limit::default()
    }];
    route.access = vec![Access {
        name: "reports".to_owned(),
        networks: vec![
            "10.1.0.0/16".parse().unwrap(),
            "2001:db8::/32".parse().unwrap(),
        ],
        users: vec!["report*".to_owned()],
        refuse: vec!["@shared".to_owned(), "keys".to_owned()],
        key_prefixes: vec!["orders:".to_owned()],
        ..Access::default()
    }];
    route.auth.mode = AuthMode::Weir;
    route.auth.users = vec![User {
        name: "alice".to_owned(),
        password: Secret::new("..."),
    }];
    route.backend.tls = Some(BackendTls {
        ca: Some(path("redis-ca.crt")),
        certificate: Some(path("weir.crt")),
        key: Some(path("weir.key")),
        server_name: Some("redis.internal".to_owned()),
        ..BackendTls::default()
    });
    route.listeners = vec![Listener {
        name: "public".to_owned(),
        tls_certificate: vec![path("tls.crt")],
        tls_key: vec![path("tls.key")],
        tls_client_ca: Some(path("clients-ca.crt")),
        proxy_protocol_from: vec!["10.0.0.0/8".parse().unwrap()],
        ..Listener::at("0.0.0.0:6391".parse().unwrap())
    }];
    route.failover.replica_clients = vec!["report-*".to_owned()];
    route.failover.primary_clients = vec!["checkout-*".to_owned()];
    assert_eq!(config, expected);

    let unix: usize = 2;
    let settings: usize = reference::chapters()
        .iter()
        .map(|chapter| chapter.settings.len())
        .sum();
    let shown = uncommented.lines().filter(|line| is_setting(line)).count();
    let others = file.lines().filter_map(|line| line.strip_prefix("# "));
    let others = others.filter(|line| of_other_topologies(line)).count();
    assert_eq!(
        shown + unix + others,
        settings,
        "every setting stands in the reference once"
    );
}

/// A directory with every file of a certificate that the reference names.
fn certificates() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["weir".to_owned()]).unwrap();
    for name in ["tls.crt", "weir.crt", "clients-ca.crt", "redis-ca.crt"] {
        std::fs::write(directory.path().join(name), made.cert.pem()).unwrap();
    }
    for name in ["tls.key", "weir.key"] {
        std::fs::write(
            directory.path().join(name),
            made.signing_key.serialize_pem(),
        )
        .unwrap();
    }
    directory
}

#[test]
fn every_setting_says_what_it_is_for() {
    for chapter in reference::chapters() {
        assert!(!chapter.about.is_empty(), "{}", chapter.path);
        for facts in chapter.settings {
            let words: usize = facts
                .doc
                .iter()
                .map(|line| line.split_whitespace().count())
                .sum();
            assert!(
                words >= 8,
                "{}.{} says too little",
                chapter.path,
                facts.name
            );
        }
    }
}
