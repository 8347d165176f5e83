//! What operators are told of limits on clients: that one is near, that it refuses, that it
//! does so no more. Each once, not for every client.

use std::sync::Arc;

use super::book::Book;
use super::identity::Group;
use super::idle::NEARLY_FULL;
use super::place::{NoRoom, Pool};
use super::rules::RuleSet;

/// Below this share of the places it is no longer nearly full.
const NOT_NEARLY_FULL: f64 = 0.7;

/// A limit counts as cleared when this part of it is free again, so that one client that
/// leaves and the next that comes are not told as its end and beginning.
const CLEARED_PART: usize = 10;

/// A rate counts as cleared when it has refused nobody for so long, in microseconds.
const QUIET: u64 = 10_000_000;

/// Accounts whose limit is reached that are watched at once; of others nothing is told.
const WATCHED_MAX: usize = 256;

/// What limits on places refuse.
const CLIENTS: &str = "new clients";

/// Something to tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// What about it.
    pub what: What,
    /// The route; `None` for the whole process.
    pub route: Option<u16>,
    /// The setting, such as `clients.max_clients` or `limits.each.max_clients`.
    pub setting: String,
    /// Whom the limit is about, where it is a rule's: the account that reached it.
    pub identity: Option<String>,
    /// Clients now.
    pub clients: usize,
    /// The limit.
    pub max: usize,
    /// What it refuses when it is reached.
    pub refuses: &'static str,
}

/// What there is to tell of a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Four fifths of it are used.
    Near,
    /// It is no longer near.
    Eased,
    /// It refuses clients.
    Reached,
    /// It does not any more.
    Cleared,
}

/// What has been told.
#[derive(Debug, Default)]
pub struct Watch {
    /// Of the process, then of each route.
    near: Vec<bool>,
    /// Of each route: of the process, of the route, that the rest is kept.
    full: Vec<[Told; 3]>,
    groups: Vec<Watched>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Told {
    is_told: bool,
    refused: u64,
}

#[derive(Debug)]
struct Watched {
    group: Arc<Group>,
    why: NoRoom,
    refused: u64,
    refused_at: u64,
}

impl Watch {
    /// What there is to tell now. To be called about once a second; `rules` are those of each
    /// route.
    pub fn look(&mut self, book: &mut Book, rules: &[Arc<RuleSet>], now: u64) -> Vec<Notice> {
        self.near.resize(rules.len() + 1, false);
        self.full.resize(rules.len(), Default::default());
        let mut notices = Vec::new();
        self.look_at_use(book, rules, &mut notices);
        for (route, rules) in rules.iter().enumerate() {
            self.look_at_places(book, route as u16, rules, &mut notices);
        }
        self.look_at_groups(book, rules, now, &mut notices);
        notices
    }

    fn look_at_use(&mut self, book: &Book, rules: &[Arc<RuleSet>], notices: &mut Vec<Notice>) {
        let routes = (0..rules.len()).map(|route| {
            let pool = book.route(route as u16);
            (Some(route as u16), pool)
        });
        let process = book.process();
        for (index, (route, pool)) in std::iter::once((None, process)).chain(routes).enumerate() {
            // A route that may take all there are is told of as the process.
            if route.is_some() && pool.max() >= process.max() {
                continue;
            }
            let used = pool.taken() as f64 / pool.max() as f64;
            let what = match self.near[index] {
                false if used >= NEARLY_FULL => What::Near,
                true if used < NOT_NEARLY_FULL => What::Eased,
                _ => continue,
            };
            self.near[index] = what == What::Near;
            let setting = match route {
                None => "process.max_clients",
                Some(_) => "clients.max_clients",
            };
            notices.push(of_pool(what, route, setting, pool));
        }
    }

    fn look_at_places(
        &mut self,
        book: &Book,
        route: u16,
        rules: &RuleSet,
        notices: &mut Vec<Notice>,
    ) {
        let (process, own) = (book.process(), book.route(route));
        let free = |pool: &Pool| pool.max().saturating_sub(pool.taken());
        let for_anybody = free(process)
            .saturating_sub(process.kept())
            .min(free(own).saturating_sub(own.kept()));
        let limits = [
            (
                NoRoom::Process,
                "process.max_clients",
                process,
                free(process),
            ),
            (NoRoom::Route, "clients.max_clients", own, free(own)),
            (
                NoRoom::Kept,
                "guaranteed and reserved_clients",
                own,
                for_anybody,
            ),
        ];
        for (index, (why, setting, pool, free)) in limits.into_iter().enumerate() {
            let told = &mut self.full[route as usize][index];
            let refused = rules.rules[0].tally.refused(why);
            let more = refused > told.refused;
            told.refused = refused;
            let what = match told.is_told {
                false if more => What::Reached,
                true if !more && free > 0 && free >= pool.max() / CLEARED_PART => What::Cleared,
                _ => continue,
            };
            told.is_told = what == What::Reached;
            notices.push(of_pool(what, Some(route), setting, pool));
        }
    }

    fn look_at_groups(
        &mut self,
        book: &mut Book,
        rules: &[Arc<RuleSet>],
        now: u64,
        notices: &mut Vec<Notice>,
    ) {
        self.groups.retain_mut(|watched| {
            let refused = watched.group.refused_all();
            let more = refused > watched.refused;
            watched.refused = refused;
            if more {
                watched.refused_at = now;
                return true;
            }
            let max = limit_of(watched, rules);
            let clients = watched.group.clients();
            let is_over = match watched.why {
                NoRoom::Rate => now.saturating_sub(watched.refused_at) >= QUIET,
                _ => max == 0 || clients < max && max - clients >= max / CLEARED_PART,
            };
            if is_over {
                watched.group.is_told.clear();
                notices.push(of_group(What::Cleared, watched, max));
            }
            !is_over
        });
        for (group, why) in book.to_tell.drain(..) {
            if self.groups.len() >= WATCHED_MAX {
                group.is_told.clear();
                continue;
            }
            let watched = Watched {
                refused: group.refused_all(),
                refused_at: now,
                group,
                why,
            };
            notices.push(of_group(What::Reached, &watched, limit_of(&watched, rules)));
            self.groups.push(watched);
        }
    }
}

fn of_pool(what: What, route: Option<u16>, setting: &str, pool: &Pool) -> Notice {
    Notice {
        what,
        route,
        setting: setting.to_owned(),
        identity: None,
        clients: pool.taken(),
        max: pool.max(),
        refuses: CLIENTS,
    }
}

fn of_group(what: What, watched: &Watched, max: usize) -> Notice {
    let group = &watched.group;
    let key = match watched.why {
        NoRoom::Rate => "accept_rate",
        _ => "max_clients",
    };
    Notice {
        what,
        route: Some(group.rule.route),
        setting: format!("limits.{}.{key}", group.rule.name),
        identity: Some(group.key.to_string()),
        clients: group.clients(),
        max,
        refuses: CLIENTS,
    }
}

/// What the rule allows now; 0 if there is no such limit any more.
fn limit_of(watched: &Watched, rules: &[Arc<RuleSet>]) -> usize {
    let rules = &rules[watched.group.rule.route as usize].rules;
    let is_its = |rule: &&super::rules::Rule| Arc::ptr_eq(&rule.tally, &watched.group.rule);
    rules
        .iter()
        .find(is_its)
        .map_or(0, |rule| match watched.why {
            NoRoom::Rate => rule.accept_rate as usize,
            _ => rule.max_clients,
        })
}
