//! The settings of limits that can be changed while Weir runs: their names and bounds.

use std::fmt;

use crate::config::{Clients, Config, Limit, ListenAddress};

/// The settings in force.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) process_max: usize,
    pub(super) identities_max: usize,
    pub(super) routes: Vec<RouteSettings>,
}

/// Those of one route.
#[derive(Clone, Debug)]
pub(super) struct RouteSettings {
    pub(super) clients: Clients,
    pub(super) limits: Vec<Limit>,
    pub(super) listen: Vec<ListenAddress>,
}

/// One number of one rule, as [`Limits::get`](super::Limits::get) tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// The route.
    pub route: String,
    /// The rule; `clients` for what holds for all clients of the route.
    pub rule: String,
    /// The setting's key, as in the configuration.
    pub key: &'static str,
    /// Its value.
    pub value: u64,
}

/// Why a limit can not be set so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SetError {
    /// There is no such route.
    Route,
    /// The route has no such rule.
    Rule,
    /// A rule has no such number; these are there.
    Key(&'static [&'static str]),
    /// The value is no whole number between these.
    Value {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// More would be kept for some than there are places.
    Shares {
        /// Places there are.
        max: usize,
        /// Places that would be kept.
        kept: usize,
    },
}

impl fmt::Display for SetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetError::Route => f.write_str("no such route"),
            SetError::Rule => f.write_str("no such rule"),
            SetError::Key(known) => write!(f, "no such limit; there are {}", known.join(", ")),
            SetError::Value { min, max } => {
                write!(f, "expected a whole number from {min} to {max}")
            }
            SetError::Shares { max, kept } => {
                write!(f, "{kept} places would be kept, of {max} that there are")
            }
        }
    }
}

impl std::error::Error for SetError {}

/// What can be set of a rule while Weir runs.
pub(super) const RULE_KEYS: &[&str] = &["max_clients", "guaranteed", "accept_rate", "accept_burst"];

/// What can be set of all clients of a route.
pub(super) const CLIENTS_KEYS: &[&str] = &["max_clients", "reserved_clients"];

/// The rule that stands for all clients of a route.
pub(super) const CLIENTS: &str = "clients";

/// The most that a number of clients may be set to, as in the configuration.
pub(super) const NUMBER_MAX: u64 = 1_000_000;

impl Settings {
    pub(super) fn of(config: &Config) -> Settings {
        let route = |route: &crate::config::Route| RouteSettings {
            clients: route.clients.clone(),
            limits: route.limits.clone(),
            listen: route.doors().map(|door| door.address).collect(),
        };
        Settings {
            process_max: config.process.max_clients,
            identities_max: config.process.identities_max,
            routes: config.routes.iter().map(route).collect(),
        }
    }
}

/// A number with its bounds.
pub(super) struct Number {
    pub(super) value: u64,
    pub(super) min: u64,
    pub(super) max: u64,
}

impl RouteSettings {
    pub(super) fn of_clients(&self, key: &str) -> Number {
        match key {
            "max_clients" => Number {
                value: self.clients.max_clients as u64,
                min: 1,
                max: NUMBER_MAX,
            },
            _ => Number {
                value: self.clients.reserved_clients as u64,
                min: 0,
                max: 10_000,
            },
        }
    }

    pub(super) fn set(
        &mut self,
        rule: &str,
        key: &str,
        text: &str,
        most: usize,
    ) -> Result<(), SetError> {
        let number = |min, max| {
            text.parse()
                .ok()
                .filter(|value| (min..=max).contains(value))
                .ok_or(SetError::Value { min, max })
        };
        if rule == CLIENTS {
            if !CLIENTS_KEYS.contains(&key) {
                return Err(SetError::Key(CLIENTS_KEYS));
            }
            let Number { min, max, .. } = self.of_clients(key);
            let value = number(min, max.min(most as u64))? as usize;
            match key {
                "max_clients" => self.clients.max_clients = value,
                _ => self.clients.reserved_clients = value,
            }
            return Ok(());
        }
        let limit = self.limits.iter_mut().find(|limit| limit.name == rule);
        let limit = limit.ok_or(SetError::Rule)?;
        if !RULE_KEYS.contains(&key) {
            return Err(SetError::Key(RULE_KEYS));
        }
        let value = number(0, NUMBER_MAX)?;
        match key {
            "max_clients" => limit.max_clients = value as usize,
            "guaranteed" => limit.guaranteed = value as usize,
            "accept_rate" => limit.accept_rate = value as u32,
            _ => limit.accept_burst = value as u32,
        }
        Ok(())
    }
}

pub(super) fn number_of(limit: &Limit, key: &str) -> u64 {
    match key {
        "max_clients" => limit.max_clients as u64,
        "guaranteed" => limit.guaranteed as u64,
        "accept_rate" => limit.accept_rate.into(),
        _ => limit.accept_burst.into(),
    }
}

pub(super) fn shares(route: &RouteSettings) -> usize {
    let guaranteed: usize = route.limits.iter().map(|limit| limit.guaranteed).sum();
    guaranteed + route.clients.reserved_clients
}
