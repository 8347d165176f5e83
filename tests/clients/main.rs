//! Client libraries and Redis's own tools, unchanged and with their default
//! settings, through Weir against a real server. Every reply is checked.

#[path = "../support/mod.rs"]
mod support;

mod ioredis;
mod redis_benchmark;
mod redis_cli;
mod redis_crate;
mod redis_py;
mod refusal;
