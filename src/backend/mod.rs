//! Connections to Redis nodes, and the ledger that counts them.

pub mod backoff;
pub mod budget;
pub mod credential;
pub mod handshake;
pub mod server;
