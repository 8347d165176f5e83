//! Who holds the most connections, and of whom the most connections or commands were refused.

use std::sync::Arc;
use std::time::Duration;

use super::growth::Grown;
use super::identity::{Group, Key};
use super::rules::RuleSet;

/// One of those who hold the most.
#[derive(Clone, Debug)]
pub struct TopIdentity {
    /// The route.
    pub route: String,
    /// The rule by which it is counted; `address` where it is by its address, without a rule.
    pub limit: String,
    /// An address, a user or a client name, by the rule.
    pub identity: String,
    /// Connections now.
    pub clients: usize,
    /// How many it may have by the rules about its address, user or name; 0 for no ceiling.
    pub max_clients: usize,
    /// Connections that it ever made and got.
    pub admitted: u64,
    /// Connections that it was refused.
    pub refused: u64,
    /// Commands that were refused to its clients: by a rate, or because there was too much to do.
    pub commands_refused: u64,
    /// How its connections have grown.
    pub grown: Grown,
    /// How long they have been idle, as of at most some ten seconds ago; `None` if it was not
    /// among those who held the most then.
    pub idle: Option<IdleAges>,
}

/// How long connections have been idle.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IdleAges {
    /// The longest.
    pub oldest: Duration,
    /// Half of them longer, half of them less long.
    pub median: Duration,
}

impl IdleAges {
    /// Of ages in seconds; `None` without any.
    pub fn of(mut seconds: Vec<u32>) -> Option<IdleAges> {
        seconds.sort_unstable();
        let age = |seconds: &u32| Duration::from_secs(u64::from(*seconds));
        Some(IdleAges {
            oldest: age(seconds.last()?),
            median: age(&seconds[seconds.len() / 2]),
        })
    }
}

/// Those with the most connections, those who were refused the most of them, and those of whom
/// the most commands were refused, each at most `n`. An address stands once, by the account that every client has.
pub(super) fn of<'g>(groups: impl Iterator<Item = &'g Arc<Group>>, n: usize) -> Vec<Arc<Group>> {
    let mut all: Vec<&Arc<Group>> = groups
        .filter(|group| &*group.rule.name == super::rules::ADDRESS || is_said(&group.key))
        .filter(|group| {
            group.clients() > 0 || group.refused_all() > 0 || group.commands_refused() > 0
        })
        .collect();
    let mut top = best(&mut all, n, |group| group.clients() as u64);
    for by in [Group::refused_all, Group::commands_refused] {
        for group in best(&mut all, n, by) {
            if !top.iter().any(|known| Arc::ptr_eq(known, &group)) {
                top.push(group);
            }
        }
    }
    top
}

/// What a client says of itself is no address.
fn is_said(key: &Key) -> bool {
    matches!(key, Key::User(_) | Key::Name(_) | Key::Certificate(_))
}

fn best(all: &mut [&Arc<Group>], n: usize, by: impl Fn(&Group) -> u64) -> Vec<Arc<Group>> {
    let key = |group: &&Arc<Group>| std::cmp::Reverse(by(group));
    let n = n.min(all.len());
    if n == 0 {
        return Vec::new();
    }
    all.select_nth_unstable_by_key(n - 1, key);
    let best = &mut all[..n];
    best.sort_by_key(key);
    best.iter()
        .filter(|group| by(group) > 0)
        .map(|group| (*group).clone())
        .collect()
}

/// The lowest ceiling that a rule sets for these; 0 for none. Rules that are about some of an
/// address's clients only, by their user, name or listener, are left out.
pub(super) fn ceiling(group: &Group, rules: &RuleSet) -> usize {
    let own = rules.rules.iter().filter(|rule| match &group.key {
        Key::Address(address) => rule.is_about_all_of(address),
        _ => Arc::ptr_eq(&rule.tally, &group.rule),
    });
    own.map(|rule| rule.max_clients)
        .filter(|max| *max > 0)
        .min()
        .unwrap_or(0)
}
