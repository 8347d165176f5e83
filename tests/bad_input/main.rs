//! Clients that are broken, hostile or in the way: each gets what Redis gives it or what
//! the limits say, Weir's memory stays bounded, and nobody else notices.

#[path = "../support/mod.rs"]
mod support;

mod bystander;
mod deadlines;
mod garbage;
mod limits;
mod memory;
mod slow;

use support::{RedisServer, WeirProcess};

/// Bytes.
pub const KIB: usize = 1024;
/// Bytes.
pub const MIB: usize = 1024 * KIB;

/// Weir in front of a server: settings of its route, and of the process.
pub fn weir(redis: &RedisServer, process: &str, route: &str) -> WeirProcess {
    WeirProcess::with_config(
        redis,
        &format!(
            "[admin]\nlisten = \"{{admin}}\"\n[process]\n{process}\n[route.main]\n\
             listen = \"{{listen}}\"\nbackend.address = \"{{backend}}\"\n{route}\n"
        ),
    )
}

/// Clients that were closed for this reason.
pub fn closed(weir: &WeirProcess, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    weir.metric("weir_clients_closed_total", &[&label])
}
