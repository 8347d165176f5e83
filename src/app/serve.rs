//! Runs the routes of a configuration until told to stop.

use std::io;

use crate::config::Config;

/// Serves all routes until a signal asks to stop.
///
/// # Errors
///
/// When something that is needed to begin can not be had, such as an address to listen on.
pub fn run(config: Config) -> io::Result<()> {
    tracing::info!(
        routes = config.routes.len(),
        workers = config.process.workers,
        "starting"
    );
    Err(io::Error::other("serving is not built yet"))
}
