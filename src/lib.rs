//! Weir: the connection-limiting proxy for Redis and Valkey.
//!
//! The modules are the floors of one house. A module imports only from the
//! floors below it, never from a neighbour and never upward; `make map` prints
//! the imports and `tests/import_map.rs` fails on one that points the wrong way.
//! `docs/ARCHITECTURE.md` tells the journey of one command through them.

// Floor 0: bytes, settings as plain data, what is counted.
pub mod config;
pub mod metrics;
pub mod resp;

// Floor 1: what a command means, sockets, may this go ahead.
pub mod admission;
pub mod command;
pub mod net;

// Floor 2: connections to nodes, and which of them a command goes to.
pub mod backend;
pub mod router;

// Floor 3: keeps the topology true.
pub mod discovery;

// Floor 3: one subscription for many clients.
pub mod pubsub;

// Floor 3: waiting queues.
pub mod blocking;

// Floor 4: one client: read, plan, act, answer in order.
pub mod session;

// Floor 5: what an operator sees and does.
pub mod admin;

// Floor 6: builds the parts in floor order and runs them.
pub mod app;
