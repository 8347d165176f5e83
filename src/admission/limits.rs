//! The limits on clients as workers share them: the book behind a lock that is taken when a
//! client comes, goes or says who it is, and the rules, which may change at any time.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};

use super::book::{Book, NoPlace, Place, Pool};
use super::identity::{Group, Who};
use super::rules::RuleSet;
use crate::config::{Clients, Config, Limit, ListenAddress};

/// The limits of one process. Everything in them can be changed while it runs.
#[derive(Debug)]
pub struct Limits {
    book: Mutex<Book>,
    process: Arc<Pool>,
    routes: Vec<Route>,
    /// What the rules are made from; whoever changes them holds it.
    settings: Mutex<Settings>,
}

#[derive(Debug)]
struct Route {
    name: String,
    pool: Arc<Pool>,
    rules: ArcSwap<RuleSet>,
}

/// The settings in force.
#[derive(Debug)]
struct Settings {
    process_max: usize,
    routes: Vec<RouteSettings>,
}

#[derive(Clone, Debug)]
struct RouteSettings {
    clients: Clients,
    limits: Vec<Limit>,
    listen: Vec<ListenAddress>,
}

/// One number of one rule, as [`Limits::get`] tells it.
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
const RULE_KEYS: &[&str] = &["max_clients", "guaranteed", "accept_rate", "accept_burst"];

/// What can be set of all clients of a route.
const CLIENTS_KEYS: &[&str] = &["max_clients", "reserved_clients"];

/// The rule that stands for all clients of a route.
const CLIENTS: &str = "clients";

/// The most that a number of clients may be set to, as in the configuration.
const NUMBER_MAX: u64 = 1_000_000;

impl Limits {
    /// The limits that the configuration sets.
    pub fn new(config: &Config) -> Arc<Limits> {
        let settings = Settings::of(config);
        let maxes = settings
            .routes
            .iter()
            .map(|route| route.clients.max_clients);
        let mut book = Book::new(
            config.process.max_clients,
            maxes,
            config.process.identities_max,
        );
        let routes = config
            .routes
            .iter()
            .enumerate()
            .map(|(index, route)| {
                let rules = rules(&mut book, index as u16, 0, &settings.routes[index]);
                Route {
                    name: route.name.clone(),
                    pool: book.route(index as u16).clone(),
                    rules: ArcSwap::from_pointee(rules),
                }
            })
            .collect();
        Arc::new(Limits {
            process: book.process().clone(),
            book: Mutex::new(book),
            routes,
            settings: Mutex::new(settings),
        })
    }

    /// Clients of all routes now.
    pub fn taken(&self) -> usize {
        self.process.taken()
    }

    /// Clients of all routes that there may be.
    pub fn max(&self) -> usize {
        self.process.max()
    }

    /// Clients of a route now.
    pub fn route_taken(&self, route: u16) -> usize {
        self.routes[route as usize].pool.taken()
    }

    /// Clients of a route that there may be.
    pub fn route_max(&self, route: u16) -> usize {
        self.routes[route as usize].pool.max()
    }

    /// Whether anything that clients of the route say of themselves decides how they are
    /// counted.
    pub fn looks_at_what_clients_say(&self, route: u16) -> bool {
        self.rules(route).looks_at_what_clients_say()
    }

    /// The rules in force on a route.
    pub fn rules(&self, route: u16) -> Guard<Arc<RuleSet>> {
        self.routes[route as usize].rules.load()
    }

    /// The routes' names, in their order.
    pub fn routes(&self) -> impl Iterator<Item = (u16, &str)> {
        let routes = self.routes.iter().enumerate();
        routes.map(|(index, route)| (index as u16, route.name.as_str()))
    }

    /// Places of a route that are kept for the clients of rules and not taken.
    pub fn route_kept(&self, route: u16) -> usize {
        self.routes[route as usize].pool.kept()
    }

    /// Gives a client a place.
    ///
    /// # Errors
    /// The limit that leaves no room.
    pub fn enter(
        self: &Arc<Self>,
        route: u16,
        who: &Who<'_>,
        now: u64,
    ) -> Result<ClientPermit, NoPlace> {
        let place = self.book().enter(route, &self.rules(route), who, now)?;
        Ok(ClientPermit::new(self, place))
    }

    /// Every limit that can be set, with its value.
    pub fn get(&self) -> Vec<Setting> {
        let settings = self.settings();
        let mut all = Vec::new();
        for (route, of) in self.routes.iter().zip(&settings.routes) {
            let mut push = |rule: &str, key, value| {
                all.push(Setting {
                    route: route.name.clone(),
                    rule: rule.to_owned(),
                    key,
                    value,
                });
            };
            for key in CLIENTS_KEYS {
                push(CLIENTS, key, of.of_clients(key).value);
            }
            for limit in &of.limits {
                for key in RULE_KEYS {
                    push(&limit.name, key, number_of(limit, key));
                }
            }
        }
        all
    }

    /// Sets one number of one rule: `clients` stands for all clients of the route. It holds at
    /// once for whoever comes; nobody who is there is cut off.
    ///
    /// # Errors
    /// What is wrong with it; nothing has changed then.
    pub fn set(&self, route: &str, rule: &str, key: &str, value: &str) -> Result<(), SetError> {
        let index = self
            .routes
            .iter()
            .position(|known| known.name == route)
            .ok_or(SetError::Route)?;
        let mut settings = self.settings();
        let mut changed = settings.routes[index].clone();
        changed.set(rule, key, value, settings.process_max)?;
        let kept: usize = shares(&changed);
        if kept > changed.clients.max_clients {
            return Err(SetError::Shares {
                max: changed.clients.max_clients,
                kept,
            });
        }
        let others = settings.routes.iter().enumerate();
        let others = others.filter(|(other, _)| *other != index);
        let all = kept + others.map(|(_, other)| shares(other)).sum::<usize>();
        if all > settings.process_max {
            return Err(SetError::Shares {
                max: settings.process_max,
                kept: all,
            });
        }
        settings.routes[index] = changed;
        self.apply(&settings);
        Ok(())
    }

    /// Takes over the limits of a configuration that was read anew. It has to have the same
    /// routes with the same listeners: those change by a restart only.
    pub fn reload(&self, config: &Config) {
        let mut settings = self.settings();
        *settings = Settings::of(config);
        self.apply(&settings);
    }

    fn apply(&self, settings: &Settings) {
        let mut book = self.book();
        let maxes = settings
            .routes
            .iter()
            .map(|route| route.clients.max_clients);
        book.set_max(settings.process_max, maxes);
        for (index, (route, of)) in self.routes.iter().zip(&settings.routes).enumerate() {
            let before = route.rules.load();
            let mut now = rules(&mut book, index as u16, before.shape, of);
            if !now.is_about_the_same(&before) {
                now.shape += 1;
            }
            book.forget_rules(index as u16, &now);
            route.rules.store(Arc::new(now));
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Settings {
    fn of(config: &Config) -> Settings {
        let route = |route: &crate::config::Route| RouteSettings {
            clients: route.clients.clone(),
            limits: route.limits.clone(),
            listen: route.doors().map(|door| door.address).collect(),
        };
        Settings {
            process_max: config.process.max_clients,
            routes: config.routes.iter().map(route).collect(),
        }
    }
}

/// A number with its bounds.
struct Number {
    value: u64,
    min: u64,
    max: u64,
}

impl RouteSettings {
    fn of_clients(&self, key: &str) -> Number {
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

    fn set(&mut self, rule: &str, key: &str, text: &str, most: usize) -> Result<(), SetError> {
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

fn number_of(limit: &Limit, key: &str) -> u64 {
    match key {
        "max_clients" => limit.max_clients as u64,
        "guaranteed" => limit.guaranteed as u64,
        "accept_rate" => limit.accept_rate.into(),
        _ => limit.accept_burst.into(),
    }
}

fn shares(route: &RouteSettings) -> usize {
    let guaranteed: usize = route.limits.iter().map(|limit| limit.guaranteed).sum();
    guaranteed + route.clients.reserved_clients
}

fn rules(book: &mut Book, route: u16, shape: u64, settings: &RouteSettings) -> RuleSet {
    let RouteSettings {
        clients,
        limits,
        listen,
    } = settings;
    let rules = RuleSet::new(shape, clients, limits, listen, |name| {
        book.tally(route, name)
    });
    book.keep_places(route, &rules);
    rules
}

/// A client's place; given back on drop. One pointer, since every session has one.
#[derive(Debug)]
pub struct ClientPermit(Box<Held>);

#[derive(Debug)]
struct Held {
    limits: Arc<Limits>,
    /// Taken out when there is no place for who the client has turned out to be.
    place: Option<Place>,
}

impl ClientPermit {
    fn new(limits: &Arc<Limits>, place: Place) -> ClientPermit {
        ClientPermit(Box::new(Held {
            limits: limits.clone(),
            place: Some(place),
        }))
    }

    fn place(&self) -> &Place {
        self.0
            .place
            .as_ref()
            .expect("taken out only by what consumes the permit")
    }

    /// With whom the client is counted: by its address first, then by each rule about it.
    pub fn groups(&self) -> &[Arc<Group>] {
        &self.place().groups
    }

    /// Whether the client is an operator's.
    pub fn is_operator(&self) -> bool {
        self.place().is_operator
    }

    /// Whether it was counted by rules that have become others since.
    pub fn is_outdated(&self) -> bool {
        let place = self.place();
        self.0.limits.rules(place.route).shape != place.shape
    }

    /// Counts the client anew, by who it is now.
    ///
    /// # Errors
    /// There is no place for who it has turned out to be; its old one is given back.
    pub fn become_who(mut self, who: &Who<'_>, now: u64) -> Result<ClientPermit, NoPlace> {
        let mut place = self.0.place.take().expect("as above");
        let limits = &self.0.limits;
        let rules = limits.rules(place.route);
        limits.book().change(&mut place, &rules, who, now)?;
        self.0.place = Some(place);
        Ok(self)
    }
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        if let Some(place) = &self.0.place {
            self.0.limits.book().leave(place);
        }
    }
}
