//! What operators see and do: the record, and the console through any Redis client.

// Real sockets and processes are waited for, not a clock that tests stop.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod commands;
mod hot_keys;
mod libraries;
mod pause;
mod record;
mod slow_log;
#[path = "../support/mod.rs"]
mod support;
mod top;
