//! The limits on clients as workers share them: the book behind a lock that is taken when a
//! client comes, goes or says who it is, and the rules, which may change at any time.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};

use super::book::{Book, NoPlace, NoRoom, Place, Pool, Rate};
use super::identity::{Group, RuleTally, Who};
use super::room::{Board, Offer};
use super::rules::RuleSet;
use super::top::{self, IdleAges, TopIdentity};
use super::watch::{Notice, Watch};
use crate::config::{Clients, Config, Limit, ListenAddress};

/// The limits of one process. Everything in them can be changed while it runs.
#[derive(Debug)]
pub struct Limits {
    book: Mutex<Book>,
    process: Arc<Pool>,
    routes: Vec<Route>,
    /// What the rules are made from; whoever changes them holds it.
    settings: Mutex<Settings>,
    board: Mutex<Board>,
    watch: Mutex<Watch>,
    /// How long the connections of those who hold the most have been idle.
    ages: Mutex<Vec<(Arc<Group>, IdleAges)>>,
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
    pub fn new(config: &Config, workers: usize) -> Arc<Limits> {
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
            board: Mutex::new(Board::new(workers)),
            watch: Mutex::default(),
            ages: Mutex::default(),
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
        let rules = self.rules(route);
        let place = self.book().enter(route, &rules, who, Rate::Counts, now)?;
        Ok(ClientPermit::new(self, place))
    }

    /// The same for a client that asks again and whose coming has been counted.
    ///
    /// # Errors
    /// The limit that leaves no room.
    pub fn enter_again(
        self: &Arc<Self>,
        route: u16,
        who: &Who<'_>,
        now: u64,
    ) -> Result<ClientPermit, NoPlace> {
        let rules = self.rules(route);
        let entered = self
            .book()
            .enter(route, &rules, who, Rate::CountedBefore, now);
        Ok(ClientPermit::new(self, entered?))
    }

    /// Somebody for whom there was no place is refused.
    pub fn count_refused(&self, no_place: &NoPlace) {
        self.book().count_refused(no_place);
    }

    /// The share of the places that are taken: of the route's or of the process's, whatever
    /// is more.
    pub fn used(&self, route: u16) -> (usize, usize) {
        let own = &self.routes[route as usize].pool;
        let (process, own) = (
            (self.process.taken(), self.process.max()),
            (own.taken(), own.max()),
        );
        match process.0 * own.1 > own.0 * process.1 {
            true => process,
            false => own,
        }
    }

    /// Whether places are getting scarce, so that workers should make offers.
    pub fn wants_offers(&self, route: u16) -> bool {
        let (taken, max) = self.used(route);
        taken * 2 >= max
    }

    /// The clients of a worker that may be closed to make room, in place of those offered
    /// before.
    pub fn offer(&self, worker: usize, offers: Vec<Offer>) {
        lock(&self.board).offer(worker, offers);
    }

    /// Whom to close so that there is a place: which worker's, and which. `None` if nobody is
    /// to make room for this one.
    pub fn find_room(&self, route: u16, no_place: &NoPlace) -> Option<(usize, Offer)> {
        let on = match no_place.why {
            NoRoom::Process => None,
            NoRoom::Route | NoRoom::Kept => Some(route),
            NoRoom::Ceiling | NoRoom::Rate => return None,
        };
        lock(&self.board).take(on, &no_place.address)
    }

    /// What there is to tell operators. To be asked about once a second.
    pub fn watch(&self, now: u64) -> Vec<Notice> {
        let rules: Vec<_> = self.routes.iter().map(|of| of.rules.load_full()).collect();
        let mut watch = lock(&self.watch);
        watch.look(&mut self.book(), &rules, now)
    }

    /// Notes how many clients everybody has. To be called every ten seconds.
    pub fn sample_growth(&self) {
        for group in self.book().groups() {
            lock(&group.growth).sample(group.clients());
        }
    }

    /// The accounts of those who hold the most connections, at most `n`, and of those of whom
    /// the most were refused, at most `n`.
    pub fn top_groups(&self, n: usize) -> Vec<Arc<Group>> {
        top::of(self.book().groups(), n)
    }

    /// How long the connections of some have been idle, in place of what was told before.
    pub fn note_idle_ages(&self, ages: Vec<(Arc<Group>, IdleAges)>) {
        *lock(&self.ages) = ages;
    }

    /// Those who hold the most connections, at most `n`, and those of whom the most were
    /// refused, at most `n`. An address stands once for each route; users and names where a
    /// rule counts by them. Looks at every account: for an operator who asks, or a page
    /// that is fetched now and then.
    pub fn top(&self, n: usize) -> Vec<TopIdentity> {
        let groups = self.top_groups(n);
        let ages = lock(&self.ages).clone();
        groups
            .iter()
            .map(|group| {
                let route = &self.routes[group.rule.route as usize];
                let clients = group.clients();
                let known = ages.iter().find(|(known, _)| Arc::ptr_eq(known, group));
                TopIdentity {
                    route: route.name.clone(),
                    limit: group.rule.name.to_string(),
                    identity: group.key.to_string(),
                    clients,
                    max_clients: top::ceiling(group, &route.rules.load()),
                    admitted: group.admitted(),
                    refused: group.refused_all(),
                    grown: lock(&group.growth).until(clients),
                    idle: known.map(|(_, ages)| *ages),
                }
            })
            .collect()
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
        lock(&self.book)
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        lock(&self.settings)
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// The rule whose share the client takes from.
    pub fn share(&self) -> Option<&Arc<RuleTally>> {
        self.place().share.as_ref()
    }

    /// Gives the place to another client, which may be of another route.
    ///
    /// # Errors
    /// There is still no place for that one. This one has been given back.
    pub fn hand_over(
        mut self,
        route: u16,
        who: &Who<'_>,
        now: u64,
    ) -> Result<ClientPermit, NoPlace> {
        let place = self.0.place.take().expect("as above");
        let limits = self.0.limits.clone();
        let rules = limits.rules(route);
        let handed = limits.book().hand_over(&place, route, &rules, who, now);
        Ok(ClientPermit::new(&limits, handed?))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Arc<Limits> {
        let text = "process.max_clients = 100
            [route.main]
            backend = \"h:1\"
            [route.main.limits.each]
            max_clients = 1";
        Limits::new(
            &Config::parse("weir.toml", text).expect("a configuration"),
            1,
        )
    }

    fn who() -> Who<'static> {
        Who {
            address: "10.0.0.1".parse().expect("an address"),
            listener: 0,
            user: Some(b"default"),
            name: b"",
            certificate: &[],
        }
    }

    #[test]
    fn numbers_are_set_while_clients_are_there() {
        let limits = limits();
        let _first = limits.enter(0, &who(), 0).expect("room");
        assert_eq!(limits.enter(0, &who(), 0).unwrap_err().why, NoRoom::Ceiling);
        limits
            .set("main", "each", "max_clients", "2")
            .expect("can be set");
        let second = limits.enter(0, &who(), 0).expect("room");
        limits
            .set("main", "each", "max_clients", "1")
            .expect("can be set");
        // Nobody is cut off, and nobody comes in before there are fewer.
        assert_eq!(limits.taken(), 2);
        drop(second);
        assert_eq!(limits.enter(0, &who(), 0).unwrap_err().why, NoRoom::Ceiling);
        limits
            .set("main", "each", "max_clients", "0")
            .expect("can be set");
        limits
            .set("main", "clients", "max_clients", "1")
            .expect("can be set");
        assert_eq!(limits.enter(0, &who(), 0).unwrap_err().why, NoRoom::Route);
        let set = limits.get().into_iter();
        let values: Vec<_> = set
            .map(|setting| (setting.rule, setting.key, setting.value))
            .collect();
        assert_eq!(values[0], ("clients".to_owned(), "max_clients", 1));
        assert_eq!(values[2], ("each".to_owned(), "max_clients", 0));
    }

    #[test]
    fn what_can_not_be_set_so_changes_nothing() {
        let limits = limits();
        let before = limits.get();
        let set = |route, rule, key, value| limits.set(route, rule, key, value).unwrap_err();
        assert_eq!(set("x", "each", "max_clients", "1"), SetError::Route);
        assert_eq!(set("main", "x", "max_clients", "1"), SetError::Rule);
        assert_eq!(set("main", "each", "x", "1"), SetError::Key(RULE_KEYS));
        let value = SetError::Value {
            min: 0,
            max: NUMBER_MAX,
        };
        assert_eq!(set("main", "each", "guaranteed", "many"), value);
        let value = SetError::Value { min: 1, max: 100 };
        assert_eq!(set("main", "clients", "max_clients", "101"), value);
        let shares = SetError::Shares {
            max: 100,
            kept: 101,
        };
        assert_eq!(set("main", "each", "guaranteed", "101"), shares);
        assert_eq!(limits.get(), before);
    }

    #[test]
    fn a_permit_that_outlives_its_rules_is_counted_anew() {
        let limits = limits();
        let permit = limits.enter(0, &who(), 0).expect("room");
        assert!(!permit.is_outdated());
        limits
            .set("main", "each", "guaranteed", "10")
            .expect("can be set");
        assert!(permit.is_outdated());
        assert_eq!(limits.route_kept(0), 10);
        let permit = permit.become_who(&who(), 0).expect("it has a place");
        assert_eq!(limits.route_kept(0), 9);
        drop(permit);
        assert_eq!((limits.taken(), limits.route_kept(0)), (0, 10));
    }
}
