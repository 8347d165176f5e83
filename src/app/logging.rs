//! The log: to standard error, as text or JSON, with a level for each module.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

/// Starts the log of this process as `log` says. Events before are lost.
///
/// # Errors
///
/// When the process has a log already.
pub fn start(log: &Log) -> io::Result<()> {
    let filter: Targets = log.filter.parse().map_err(io::Error::other)?;
    let registry = tracing_subscriber::registry().with(filter);
    let lines = Layer::default().with_writer(io::stderr);
    match log.format {
        LogFormat::Text => {
            // Colours are for people, not for files and collectors.
            let colours = io::stderr().is_terminal();
            registry.with(lines.with_ansi(colours)).try_init()
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    }
    .map_err(io::Error::other)
}
