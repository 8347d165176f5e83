//! What an operator sees: the admin server (HTTP) and what it tells.
//!
//! It runs beside the workers on the main thread, so a slow scrape costs no
//! client anything, and it only reads.

mod console;
pub mod doctor;
mod doors;
mod dump;
mod hot_keys;
mod http;
mod limits;
mod node_status;
mod otlp;
mod overview;
mod process;
mod reached;
mod recorder;
mod settings;
mod status;
mod top;
mod topology_status;
mod trace_export;

pub use console::{
    Console, ROWS as CONSOLE_ROWS, Server as ConsoleServer, Upgrade, markdown as console_markdown,
};
pub use doors::expose_doors;
pub use dump::{event_json, events_json, record_json, record_markdown, sample_json};
pub use hot_keys::hot_keys_json;
pub use http::{AdminServer, CONNECTIONS_MAX, Doctor, Handlers, Json, Overview, Ready, Source};
pub use limits::expose_limits;
pub use node_status::expose_nodes;
pub use overview::{Span, findings, overview};
pub use process::expose_process;
pub use reached::expose_reached;
pub use recorder::record;
pub use settings::{Keeper, Refused as SettingsRefused, SetFilter};
pub use status::{expose_backends, readiness};
pub use top::top_json;
pub use topology_status::expose_topology;
pub use trace_export::export_traces;
