//! `[log]`: what Weir writes to its standard error.

use crate::config::definition::section;
use crate::config::kind::{Choice, Filter};

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

section! {
    /// What Weir writes to its standard error. Nothing is logged per command at
    /// the default level, and never a password or the value of a key.
    pub struct Log {
        /// How much: error, warn, info, debug or trace, for all of Weir or for a
        /// module, as in "info,weir::backend=debug". The environment variable
        /// WEIR_LOG has precedence, so that a container can be asked for more
        /// without touching the file.
        filter: String = Filter,
            default "info", changes Live;

        /// "text" for people, "json" with one object a line for machines.
        format: LogFormat = Choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]),
            default "text", changes Restart;
    }
}
