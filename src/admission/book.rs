//! The account of all clients: who holds a place, and whether there is one more.
//!
//! Pure: it is told what happens and when, and says what may be. What is always true:
//!
//! - Places taken are never more than there are, of a route or of the process.
//! - No group of clients has more than its rule's ceiling, but for those who were there when
//!   the ceiling was lowered or the rules became others: nobody is cut off by a change.
//! - Places that are kept for the clients of a rule are taken by nobody else.
//! - The number of accounts is bounded, whoever comes from wherever.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use hashbrown::{DefaultHashBuilder, HashMap};

use super::identity::{Group, Key, RuleTally, Who};
use super::place::{NoPlace, NoRoom, Place, Pool, Rate};
use super::rules::{Rule, RuleSet};
use super::token_bucket::TokenBucket;

/// Of more who reach a limit of a rule at once, the others are told later, or not.
const TO_TELL_MAX: usize = 64;

/// The account.
#[derive(Debug)]
pub struct Book {
    process: Arc<Pool>,
    routes: Vec<Arc<Pool>>,
    groups: HashMap<(u32, Key), Arc<Group>>,
    groups_max: usize,
    /// Accounts that had no client when they were put here, the first to be given up first.
    empty: VecDeque<Arc<Group>>,
    /// Those that a rule refused somebody of, and nobody has been told yet.
    pub(super) to_tell: Vec<(Arc<Group>, NoRoom)>,
    tallies: Vec<Arc<RuleTally>>,
    next_tally: u32,
}

impl Book {
    /// An account without clients. `routes` are the places of each route.
    pub fn new(process: usize, routes: impl IntoIterator<Item = usize>, groups_max: usize) -> Book {
        Book {
            process: Pool::new(process),
            routes: routes.into_iter().map(Pool::new).collect(),
            groups: HashMap::with_hasher(DefaultHashBuilder::default()),
            groups_max: groups_max.max(1),
            empty: VecDeque::new(),
            to_tell: Vec::new(),
            tallies: Vec::new(),
            next_tally: 0,
        }
    }

    /// The places of the process.
    pub fn process(&self) -> &Arc<Pool> {
        &self.process
    }

    /// The places of a route.
    pub fn route(&self, route: u16) -> &Arc<Pool> {
        &self.routes[route as usize]
    }

    /// How many places there are, from now on. Those who are there stay.
    pub fn set_max(&mut self, process: usize, routes: impl IntoIterator<Item = usize>) {
        self.process.set_max(process);
        for (pool, max) in self.routes.iter().zip(routes) {
            pool.set_max(max);
        }
    }

    /// How many accounts there are at once, from now on. Those that have clients stay.
    pub fn set_groups_max(&mut self, max: usize) {
        self.groups_max = max.max(1);
    }

    /// What counts for a rule of this name; the same for as long as there is one.
    pub fn tally(&mut self, route: u16, name: &str) -> Arc<RuleTally> {
        let is_it = |tally: &&Arc<RuleTally>| tally.route == route && &*tally.name == name;
        if let Some(tally) = self.tallies.iter().find(is_it) {
            return tally.clone();
        }
        let tally = RuleTally::new(self.next_tally, route, name);
        self.next_tally += 1;
        self.tallies.push(tally.clone());
        tally
    }

    /// Takes over what a route's rules keep for their clients; rules that are gone keep
    /// nothing.
    pub fn keep_places(&mut self, route: u16, rules: &RuleSet) {
        let pool = &self.routes[route as usize];
        let before = pool.kept();
        let mut now = 0;
        for tally in self.tallies.iter().filter(|tally| tally.route == route) {
            let is_its = |rule: &&Rule| Arc::ptr_eq(&rule.tally, tally);
            let rule = rules.rules.iter().find(is_its);
            tally.set_guaranteed(rule.map_or(0, |rule| rule.guaranteed));
            now += tally.unmet();
        }
        pool.add(0, before, now);
        self.process.add(0, before, now);
    }

    /// Forgets rules that are not in force and that no client is counted by.
    pub fn forget_rules(&mut self, route: u16, rules: &RuleSet) {
        self.tallies.retain(|tally| {
            let is_its = |rule: &Rule| Arc::ptr_eq(&rule.tally, tally);
            tally.route != route || tally.clients() > 0 || rules.rules.iter().any(is_its)
        });
        let known: Vec<u32> = self.tallies.iter().map(|tally| tally.id).collect();
        self.groups.retain(|(id, _), _| known.contains(id));
        self.empty.retain(|group| known.contains(&group.rule.id));
    }

    /// Gives a client a place, or says why there is none.
    ///
    /// # Errors
    /// The first limit that leaves no room.
    pub fn enter(
        &mut self,
        route: u16,
        rules: &RuleSet,
        who: &Who<'_>,
        rate: Rate,
        now: u64,
    ) -> Result<Place, NoPlace> {
        let about = rules.about(who);
        let groups = self.groups_of(&about, now);
        self.look_for_room(route, &about, &groups, (&[], rate), now)
            .map_err(|(why, at)| self.refuse(rules, who, &groups, why, at))?;
        Ok(self.take(route, rules, (who, &about), groups, &[]))
    }

    /// Counts a client anew, by who it is now. What it was counted by already does not
    /// refuse it, and nothing does when it is the rules that became others.
    ///
    /// # Errors
    /// The first limit that leaves no room; its place has been taken back then.
    pub fn change(
        &mut self,
        place: &mut Place,
        rules: &RuleSet,
        who: &Who<'_>,
        now: u64,
    ) -> Result<(), NoPlace> {
        let about = rules.about(who);
        let groups = self.groups_of(&about, now);
        let is_same = |(one, other)| Arc::ptr_eq(one, other);
        if place.shape == rules.shape
            && groups.len() == place.groups.len()
            && groups.iter().zip(&place.groups).all(is_same)
        {
            return Ok(());
        }
        self.leave(place);
        if place.shape == rules.shape {
            self.look_for_room(
                place.route,
                &about,
                &groups,
                (&place.groups, Rate::Counts),
                now,
            )
            .map_err(|(why, at)| self.refuse(rules, who, &groups, why, at))?;
        }
        *place = self.take(place.route, rules, (who, &about), groups, &place.groups);
        Ok(())
    }

    fn refuse(
        &mut self,
        rules: &RuleSet,
        who: &Who<'_>,
        groups: &[Arc<Group>],
        why: NoRoom,
        at: Option<usize>,
    ) -> NoPlace {
        let group = &groups[at.unwrap_or(0)];
        groups.iter().for_each(|group| self.note_if_empty(group));
        NoPlace {
            why,
            address: groups[0].clone(),
            group: group.clone(),
            may_be_kept_a_place: why == NoRoom::Kept && rules.may_be_kept_a_place(who),
        }
    }

    fn take(
        &mut self,
        route: u16,
        rules: &RuleSet,
        (who, about): (&Who<'_>, &[(&Rule, Key)]),
        groups: Box<[Arc<Group>]>,
        had: &[Arc<Group>],
    ) -> Place {
        for group in &groups {
            group.enter(!contains(had, group));
            group.rule.enter();
        }
        let share = share_of(about).cloned();
        if let Some(share) = &share {
            self.change_sharers(route, share, |sharers| sharers + 1);
        }
        self.routes[route as usize].add(1, 0, 0);
        self.process.add(1, 0, 0);
        Place {
            route,
            is_operator: rules.is_operator(who),
            shape: rules.shape,
            groups,
            share,
        }
    }

    /// Somebody is refused: counted where it was refused and for its address.
    pub fn count_refused(&mut self, no_place: &NoPlace) {
        let NoPlace {
            why,
            address,
            group,
            ..
        } = no_place;
        group.rule.count_refused(*why);
        group.count_refused(*why);
        if !Arc::ptr_eq(group, address) {
            address.count_refused(*why);
            if self.to_tell.len() < TO_TELL_MAX && group.is_told.set() {
                self.to_tell.push((group.clone(), *why));
            }
        }
    }

    /// A client gives its place to another, which may be of another route.
    ///
    /// # Errors
    /// There is still no place for that one. The first one's has been given back.
    pub fn hand_over(
        &mut self,
        place: &Place,
        route: u16,
        rules: &RuleSet,
        who: &Who<'_>,
        now: u64,
    ) -> Result<Place, NoPlace> {
        self.leave(place);
        self.enter(route, rules, who, Rate::CountedBefore, now)
    }

    /// Every account.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.groups.values()
    }

    /// Takes a client's place back.
    pub fn leave(&mut self, place: &Place) {
        for group in &place.groups {
            group.leave();
            group.rule.leave();
            self.note_if_empty(group);
        }
        if let Some(share) = &place.share {
            self.change_sharers(place.route, share, |sharers| sharers - 1);
        }
        self.routes[place.route as usize].give_back();
        self.process.give_back();
    }

    /// `had` is what the client was counted by before, for one that has just left that.
    fn look_for_room(
        &self,
        route: u16,
        about: &[(&Rule, Key)],
        groups: &[Arc<Group>],
        (had, counts): (&[Arc<Group>], Rate),
        now: u64,
    ) -> Result<(), (NoRoom, Option<usize>)> {
        let rules = about.iter().map(|(rule, _)| *rule).zip(groups);
        let news: Vec<_> = rules
            .enumerate()
            .filter(|(_, (_, group))| !contains(had, group))
            .collect();
        for (at, (rule, group)) in &news {
            if rule.max_clients > 0 && group.clients() >= rule.max_clients {
                return Err((NoRoom::Ceiling, Some(*at)));
            }
        }
        for (at, (rule, group)) in &news {
            let (rate, burst) = (rule.accept_rate, rule.accept_burst);
            if counts == Rate::Counts && rate > 0.0 && !group.take_accept(rate, burst, now) {
                return Err((NoRoom::Rate, Some(*at)));
            }
        }
        let own = share_of(about).map_or(0, |share| share.unmet());
        let pool = &self.routes[route as usize];
        let is_full = pool.is_full() || self.process.is_full();
        if is_full && !had.is_empty() {
            // There are fewer places than when it came; that cuts nobody off.
            return Ok(());
        }
        // A route without a limit of its own has that of the process.
        if pool.is_full() && pool.max() < self.process.max() {
            return Err((NoRoom::Route, None));
        }
        if is_full {
            return Err((NoRoom::Process, None));
        }
        if !pool.has_room(own) || !self.process.has_room(own) {
            return Err((NoRoom::Kept, None));
        }
        Ok(())
    }

    fn change_sharers(&self, route: u16, tally: &RuleTally, change: impl Fn(usize) -> usize) {
        let before = tally.unmet();
        tally.change_sharers(change);
        let now = tally.unmet();
        if before != now {
            self.routes[route as usize].add(0, before, now);
            self.process.add(0, before, now);
        }
    }

    fn groups_of(&mut self, about: &[(&Rule, Key)], now: u64) -> Box<[Arc<Group>]> {
        about
            .iter()
            .map(|(rule, key)| self.group(rule, key, now))
            .collect()
    }

    /// The account of those who are counted together, or that of all others when there are
    /// too many accounts.
    fn group(&mut self, rule: &Rule, key: &Key, now: u64) -> Arc<Group> {
        let id = rule.tally.id;
        if let Some(group) = self.groups.get(&(id, key.clone())) {
            return group.clone();
        }
        while self.groups.len() >= self.groups_max {
            let Some(oldest) = self.empty.pop_front() else {
                break;
            };
            oldest.queued.store(false, Relaxed);
            if oldest.clients() == 0 {
                self.groups.remove(&(oldest.rule.id, oldest.key.clone()));
            }
        }
        // One for all of a rule, and one for its others, there are as many of as rules.
        let is_bounded = matches!(key, Key::All) || self.groups.len() < self.groups_max;
        let key = if is_bounded { key } else { &Key::Others };
        let accepts = TokenBucket::full(rule.accept_burst, now);
        self.groups
            .entry((id, key.clone()))
            .or_insert_with(|| Group::new(rule.tally.clone(), key.clone(), accepts))
            .clone()
    }

    /// An account without clients is kept for what it remembers until its place is needed.
    fn note_if_empty(&mut self, group: &Arc<Group>) {
        let is_anybodys = matches!(group.key, Key::All | Key::Others);
        if group.clients() == 0 && !is_anybodys && !group.queued.swap(true, Relaxed) {
            self.empty.push_back(group.clone());
        }
    }
}

/// The rule whose share a client takes from. It is one only, so that its going frees one
/// place and asks for one to be kept.
fn share_of<'r>(about: &[(&'r Rule, Key)]) -> Option<&'r Arc<RuleTally>> {
    let mut rules = about.iter().map(|(rule, _)| *rule);
    rules
        .find(|rule| rule.guaranteed > 0)
        .map(|rule| &rule.tally)
}

fn contains(groups: &[Arc<Group>], group: &Arc<Group>) -> bool {
    groups.iter().any(|known| Arc::ptr_eq(known, group))
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "book_properties.rs"]
mod properties;
