//! What is in docker/ speaks of metrics and settings that exist. `scripts/check-deploy`
//! checks the rest of it with the tools that each file is for.

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{RedisServer, WeirProcess};

fn docker() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docker")
}

fn read(path: &str) -> String {
    let path = docker().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every word in `text` that begins as Weir's metrics do.
fn metrics_in(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("weir_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

/// The names that a query or a text may use for what Weir exposes: a histogram's own is
/// of no use to a query, but what an alert says may name it.
fn queryable(metrics: &str) -> BTreeSet<String> {
    let families = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split_once(' '));
    families
        .flat_map(|(name, kind)| match kind {
            "histogram" => ["", "_bucket", "_sum", "_count"]
                .map(|part| format!("{name}{part}"))
                .to_vec(),
            _ => vec![name.to_owned()],
        })
        .collect()
}

#[test]
fn the_dashboard_and_the_alerts_use_metrics_that_weir_has() {
    let redis = RedisServer::start();
    let weir = WeirProcess::in_front_of(&redis);
    let exposed = queryable(&weir.metrics());
    for path in [
        "observability/grafana/dashboards/weir.json",
        "observability/weir.rules.yml",
        "observability/weir.rules.test.yml",
    ] {
        let used = metrics_in(&read(path));
        assert!(used.len() > 3, "{path} uses metrics");
        let unknown: Vec<_> = used.difference(&exposed).collect();
        assert!(unknown.is_empty(), "{path} uses {unknown:?}");
    }
}

#[test]
fn the_dashboard_is_json_whose_panels_do_not_overlap() {
    let text = read("observability/grafana/dashboards/weir.json");
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut taken = BTreeSet::new();
    for panel in panels {
        let of = |key: &str| panel["gridPos"][key].as_u64().expect("a place");
        for x in of("x")..of("x") + of("w") {
            for y in of("y")..of("y") + of("h") {
                assert!(x < 24, "{} is too wide", panel["title"]);
                assert!(taken.insert((x, y)), "{} lies on another", panel["title"]);
            }
        }
    }
}

fn check(config: &Path) {
    let weir = env!("CARGO_BIN_EXE_weir");
    let run = Command::new(weir)
        .args(["check", "--config"])
        .arg(config)
        .output()
        .expect("weir runs");
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{}: {said}", config.display());
}

#[test]
fn the_compose_files_configurations_have_no_mistakes() {
    let mut checked = 0;
    for folder in std::fs::read_dir(docker()).expect("docker/") {
        let config = folder.expect("an entry").path().join("weir.toml");
        if config.exists() {
            check(&config);
            checked += 1;
        }
    }
    assert!(checked > 0);
}

#[test]
fn the_kubernetes_objects_configurations_have_no_mistakes() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["sidecar.yaml", "shared-tier.yaml"] {
        let objects = read(&format!("kubernetes/{name}"));
        let (_, config) = objects.split_once("  weir.toml: |\n").expect("a config");
        let config: String = config
            .lines()
            .take_while(|line| line.is_empty() || line.starts_with("    "))
            .map(|line| format!("{}\n", line.trim()))
            .collect();
        assert!(config.contains("[route.main]"), "{name}");
        let path = folder.path().join(name);
        std::fs::write(&path, config).expect("written");
        check(&path);
    }
}

#[test]
fn health_is_told_by_the_exit_code() {
    let mut redis = RedisServer::start();
    let mut weir = WeirProcess::in_front_of(&redis);
    let admin = weir.admin_address().to_string();
    let ask = |more: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(["health", "--admin", &admin])
            .args(more)
            .output()
            .expect("weir runs")
    };
    support::wait_until("Redis is known", || ask(&["--ready"]).status.success());
    assert_eq!(ask(&[]).stdout, b"ok\n");
    redis.kill();
    weir.client().command(&["PING"]);
    support::wait_until("the loss is noticed", || {
        let said = ask(&["--ready"]);
        said.status.code() == Some(1)
            && String::from_utf8_lossy(&said.stderr).contains("route main: ")
    });
    assert!(ask(&[]).status.success(), "Weir itself is well");
    // Nobody else gets its port as long as there is `weir`.
    weir.signal(libc::SIGKILL);
    weir.wait();
    let said = ask(&[]);
    assert_eq!(said.status.code(), Some(1));
    assert!(said.stderr.starts_with(b"weir: http://"));
}
