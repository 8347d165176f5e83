//! The limits on clients as workers share them: the book behind a lock that is taken when a
//! client comes, goes or says who it is, and the rules, which may change at any time.

mod permit;
mod settings;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};

use self::settings::{
    CLIENTS, CLIENTS_KEYS, RULE_KEYS, RouteSettings, Settings, number_of, shares,
};
use super::book::Book;
use super::identity::{Group, Who};
use super::place::{NoPlace, NoRoom, Pool, Rate};
use super::rate_watch::RateWatch;
use super::room::{Board, Offer};
use super::rules::RuleSet;
use super::terms::Metered;
use super::top::{self, IdleAges, TopIdentity};
use super::watch::{Notice, Watch};
use crate::config::Config;

pub use self::permit::ClientPermit;
pub use self::settings::{SetError, Setting};

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
    rates: Mutex<RateWatch>,
    /// How long the connections of those who hold the most have been idle.
    ages: Mutex<Vec<(Arc<Group>, IdleAges)>>,
}

#[derive(Debug)]
struct Route {
    name: String,
    pool: Arc<Pool>,
    rules: ArcSwap<RuleSet>,
}

impl Limits {
    /// The limits that the configuration sets.
    pub fn new(config: &Config, workers: usize) -> Arc<Limits> {
        let settings = Settings::of(config);
        let maxes = settings
            .routes
            .iter()
            .map(|route| route.clients.max_clients);
        let mut book = Book::new(settings.process_max, maxes, settings.identities_max);
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
            rates: Mutex::default(),
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
        let mut notices = watch.look(&mut self.book(), &rules, now);
        drop(watch);
        notices.append(&mut lock(&self.rates).look(now));
        notices
    }

    /// A command is refused since those who are counted together ask for too much.
    pub fn count_over_rate(&self, group: &Arc<Group>, of: Metered, now: u64) {
        group.count_over_rate(of);
        if group.is_over_rate.set() {
            lock(&self.rates).reached(group.clone(), of, now);
        }
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
                    commands_refused: group.commands_refused(),
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
        book.set_groups_max(settings.identities_max);
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests;
