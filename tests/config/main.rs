//! What Weir promises about its configuration: the reference is complete and
//! true, the examples load, every mistake is named at once, secrets stay hidden.

mod binary;
mod examples;
mod mistakes;
mod reading;
mod reference;
mod secrets;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use weir::config::Config;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The real binary, with an environment in which all passwords of the examples are set.
fn weir(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(arguments)
        .env_remove("WEIR_LOG")
        .env("REDIS_PASSWORD", "of-redis")
        .env("ORDERS_PASSWORD", "of-orders")
        .env("SEARCH_PASSWORD", "of-search")
        .env("DEFAULT_PASSWORD", "of-default")
        .output()
        .expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("Weir writes UTF-8")
}

fn mistakes(config: &str) -> Vec<String> {
    let mistakes = Config::parse("weir.toml", config).expect_err("the file has mistakes");
    mistakes.0.iter().map(ToString::to_string).collect()
}
