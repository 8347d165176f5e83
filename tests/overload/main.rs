//! More work than Redis can do: what waits, what is refused and how that reads, and that
//! nothing that was refused has run.

// Real sockets and processes are waited for, not a clock that tests stop.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod lines;
mod misses;
mod priority;
mod refusals;
mod replicas;
mod shedding;
mod slow;
#[path = "../support/mod.rs"]
mod support;

use support::{RedisServer, WeirProcess};

const TOO_MUCH: &str = "-BUSY weir: the backend has more to do than it can (overload.target), \
                        command not executed\r\n";
const TOO_MANY: &str = "-BUSY weir: too many commands wait for the backend (overload.queue_max), \
                        command not executed\r\n";
const BEHIND: &str = "-BUSY weir: a command before it in the same pipeline was refused, \
                      command not executed\r\n";

/// Weir with one worker, so that all clients stand in the same line. Nobody takes Redis for sick
/// because it stands still for a while.
fn weir(redis: &RedisServer, overload: &str) -> WeirProcess {
    weir_with(redis, overload, "")
}

/// The same with further sections.
fn weir_with(redis: &RedisServer, overload: &str, others: &str) -> WeirProcess {
    WeirProcess::with_config(
        redis,
        &format!(
            "[process]\nworkers = 1\n[admin]\nlisten = \"{{admin}}\"\n\
             [route.main]\nlisten = \"{{listen}}\"\nbackend.address = \"{{backend}}\"\n\
             health.silence_max = \"60s\"\n\
             {others}\n[route.main.overload]\n{overload}\n"
        ),
    )
}
