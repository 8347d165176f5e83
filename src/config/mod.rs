//! Settings as plain, validated data.
//!
//! Read once at start (and again by a reload) and then passed to the parts that
//! need them, each its own section. What is here has been checked: numbers are
//! within their bounds, zeros that stand for "as many as" are resolved, and
//! sections agree with each other.
//!
//! Each setting is defined once, in its file under `section/`; the parser, the
//! checks, `config/weir.toml` and `docs/CONFIGURATION.md` are made from that.

mod agree;
pub mod certificate;
mod definition;
mod file;
mod flags;
mod kind;
mod listing;
mod mistake;
mod network;
mod reader;
pub mod reference;
mod secret;
mod section;
mod source;
pub mod units;
mod unknown;

use std::path::Path;

pub use definition::Reload;
pub use flags::Flags;
pub use listing::{Change, Item};
pub use mistake::{Mistake, Mistakes};
pub use network::Network;
pub use secret::{Origin, Secret};
pub use section::{
    Access, Admin, Auth, AuthMode, Backend, BackendTls, ClientCertificate, Clients, FailOpenWrites,
    Failover, Health, Limit, LimitFailOpen, LimitPriority, Listener, Log, LogFormat, OnLoss,
    Overload, Per, Process, ReadFrom, Route, Timeouts, TlsVersion, TopologyKind, Traces, User,
};
pub use source::{Override, Source, worst};

pub use kind::{HttpUrl, ListenAddress, Owner, UNIX_PREFIX};

use kind::Sources;

/// All settings of one Weir.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What all routes share.
    pub process: Process,
    /// What is logged.
    pub log: Log,
    /// Where operators look.
    pub admin: Admin,
    /// Which commands are traced.
    pub traces: Traces,
    /// The fronts, in the order of the file; at least one.
    pub routes: Vec<Route>,
    /// What is allowed and yet hardly meant, such as a certificate that expires soon.
    pub warnings: Vec<Mistake>,
}

impl Config {
    /// Reads and checks the file at `path`. What `flags` name has precedence over
    /// it; passwords named by `password_env` come from the process's environment.
    ///
    /// # Errors
    ///
    /// Every mistake in the file and the flags, or that the file can not be read.
    pub fn load(path: &Path, flags: &Flags) -> Result<Config, Mistakes> {
        let environment = |name: &str| std::env::var(name).ok();
        let directory = path.parent().unwrap_or(Path::new(""));
        file::load(
            path,
            flags,
            Sources {
                environment: &environment,
                directory,
            },
        )
    }

    /// Checks a text as if it were a file called `name`; it refers to no
    /// environment, and to files relative to the working directory.
    ///
    /// # Errors
    ///
    /// Every mistake in it.
    pub fn parse(name: &str, text: &str) -> Result<Config, Mistakes> {
        file::parse(name, text, &Flags::default(), Sources::none(), &[])
    }

    /// A Weir without a file: one route named `main`, every setting that is not
    /// in `flags` at its default.
    ///
    /// # Errors
    ///
    /// Every mistake in the flags, and a missing backend.
    pub fn from_flags(flags: &Flags) -> Result<Config, Mistakes> {
        flags.config(Sources::none(), &[])
    }

    /// A Weir with one route named `main` to this backend, taken as it is, and
    /// every other setting at its default.
    pub fn for_backend(address: impl Into<String>) -> Config {
        let mut config = Config::empty();
        let mut route = Route {
            name: "main".to_owned(),
            ..Route::default()
        };
        route.backend.address = address.into();
        config.routes = vec![route];
        agree::agree(
            &mut config,
            &mut reader::Reader::new("", "", Sources::none()),
        );
        config
    }

    fn empty() -> Config {
        Config {
            process: Process::default(),
            log: Log::default(),
            admin: Admin::default(),
            traces: Traces::default(),
            routes: Vec::new(),
            warnings: Vec::new(),
        }
    }
}
