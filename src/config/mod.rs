//! Settings as plain, validated data.
//!
//! Read once at start (and again by a reload) and then passed to the parts that
//! need them, each its own section. What is here has been checked: numbers are
//! within their bounds, zeros that stand for "as many as" are resolved, and
//! sections agree with each other.

mod definition;
mod kind;
mod secret;
mod section;
pub mod units;

pub use secret::{Origin, Secret};
pub use section::{
    Admin, Auth, AuthMode, Backend, Clients, Log, LogFormat, OnLoss, Process, Route, Timeouts, User,
};

/// All settings of one Weir.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What all routes share.
    pub process: Process,
    /// What is logged.
    pub log: Log,
    /// Where operators look.
    pub admin: Admin,
    /// The fronts, in the order of the file; at least one.
    pub routes: Vec<Route>,
}

impl Config {
    /// One route named `main` with this backend; every other setting has its default.
    pub fn for_backend(address: impl Into<String>) -> Config {
        let mut route = Route {
            name: "main".to_owned(),
            ..Route::default()
        };
        route.backend.address = address.into();
        Config {
            process: Process::default(),
            log: Log::default(),
            admin: Admin::default(),
            routes: vec![route],
        }
    }
}
