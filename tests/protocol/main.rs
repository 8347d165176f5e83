//! What a client sees through Weir is what it sees at Redis, byte for byte.
//!
//! Most tests here are differential: the same bytes go to a Redis and to a Weir in
//! front of another Redis that was started the same way, and what comes back, with
//! whether the connection was closed, has to be the same. Where Weir differs on
//! purpose (COMMANDS.md 1.10), the test says so and names its own answer.

#[path = "../support/mod.rs"]
mod support;

mod auth;
mod compare;
mod inline;
mod malformed;
mod pipelines;
mod resp3;
mod sizes;
mod splits;
mod state;
