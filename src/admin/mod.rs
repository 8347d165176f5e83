//! What an operator sees: the admin server (HTTP) and what it tells.
//!
//! It runs beside the workers on the main thread, so a slow scrape costs no
//! client anything, and it only reads.

mod http;
mod process;
mod status;

pub use http::{AdminServer, CONNECTIONS_MAX, Handlers, Ready, Source};
pub use process::expose_process;
pub use status::{expose_backends, readiness};
