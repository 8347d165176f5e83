//! The sections of the file, one per file, each setting defined once.

mod access;
mod admin;
mod auth;
mod backend;
mod backend_tls;
mod clients;
mod failover;
mod health;
mod limit;
mod listener;
mod log;
mod overload;
mod process;
mod route;
mod timeouts;
mod traces;

pub use access::Access;
pub use admin::Admin;
pub use auth::{Auth, AuthMode, User};
pub use backend::{Backend, OnLoss, TopologyKind};
pub use backend_tls::BackendTls;
pub use clients::Clients;
pub use failover::{Failover, ReadFrom};
pub use health::{FailOpenWrites, Health};
pub use limit::{Limit, LimitFailOpen, LimitPriority, Per};
pub use listener::{ClientCertificate, Listener, TlsVersion};
pub use log::{Log, LogFormat};
pub use overload::Overload;
pub use process::Process;
pub use route::Route;
pub use timeouts::Timeouts;
pub use traces::Traces;
