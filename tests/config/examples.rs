//! The examples load and mean what they say.

use weir::config::{Config, Flags};

use crate::{repository, text, weir};

#[test]
fn every_example_loads() {
    let directory = repository("config/examples");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let output = weir(&["check", "--config", path.to_str().unwrap()]);
        assert_eq!(text(&output.stderr), "", "{}", path.display());
        assert_eq!(output.status.code(), Some(0));
        names.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(
        names,
        [
            "managed-redis",
            "shared-tier",
            "sidecar",
            "two-routes",
            "weir-users"
        ]
    );
}

#[test]
fn an_example_means_what_it_says() {
    let path = repository("config/examples/two-routes.toml");
    let config = Config::load(&path, &Flags::default()).unwrap();
    let [cache, queues] = &config.routes[..] else {
        panic!("two routes");
    };
    assert_eq!(
        (cache.name.as_str(), queues.name.as_str()),
        ("cache", "queues")
    );
    assert_eq!(cache.listen, ["127.0.0.1:6380".parse().unwrap()]);
    assert_eq!(cache.backend.address, "cache.internal:6379");
    assert_eq!(cache.backend.max_connections, 16);
    assert_eq!(
        cache.backend.max_leases, 16,
        "its default of 32 gives way to the budget"
    );
    assert_eq!(cache.timeouts.connect, cache.timeouts.request);
    assert_eq!(queues.backend.max_blocking, 80);
    assert_eq!(queues.clients.max_clients, 2_000);
}
