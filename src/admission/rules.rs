//! The rules of one route, and which of them are about a client.

use std::sync::Arc;

use super::identity::{Key, RuleTally, Who};
use super::pattern;
use super::terms::{Metered, Terms};
use crate::config::{self, Limit, LimitFailOpen, LimitPriority, ListenAddress, Network, Per};

/// The rules in force on a route. Never changed: a change makes another.
#[derive(Debug)]
pub struct RuleSet {
    /// Rises when it may be about other clients than before, or says something else of their
    /// commands: then they are counted anew.
    pub shape: u64,
    /// The first counts every client by its address; the others are limits.
    pub rules: Vec<Rule>,
    ipv6_group: u8,
    /// Which rule stands for operators, if there are any.
    operators: Option<usize>,
    looks_at_names: bool,
    looks_at_users: bool,
    /// A rule says something of its clients' commands.
    has_terms: bool,
}

/// One rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// What it counts.
    pub tally: Arc<RuleTally>,
    /// Who is counted together.
    pub per: Per,
    /// Clients of each who is counted; 0 for no limit.
    pub max_clients: usize,
    /// Places kept for all its clients together.
    pub guaranteed: usize,
    /// New clients a second of each who is counted; 0 for no limit.
    pub accept_rate: f64,
    /// How many at once.
    pub accept_burst: f64,
    /// Who is served first.
    pub(super) priority: LimitPriority,
    /// Whether its clients are answered as by a cache that misses.
    pub(super) fail_open: LimitFailOpen,
    /// Above this share of the node's memory its clients' writes are refused; 0 as the route.
    pub(super) refuse_writes_above: f64,
    /// Which of its rates there are.
    is_metered: [bool; Metered::ALL.len()],
    networks: Vec<Network>,
    users: Vec<String>,
    names: Vec<String>,
    certificates: Vec<String>,
    listeners: Vec<u16>,
}

/// The name of what counts every client by its address.
pub const ADDRESS: &str = "address";

/// The name of what is kept for operators.
pub const OPERATORS: &str = "operators";

impl RuleSet {
    /// The rules that the settings of a route make; `tally` gives the account of a name.
    pub fn new(
        shape: u64,
        clients: &config::Clients,
        limits: &[Limit],
        listen: &[ListenAddress],
        mut tally: impl FnMut(&str) -> Arc<RuleTally>,
    ) -> RuleSet {
        let mut rules = vec![Rule {
            per: Per::Address,
            ..Rule::about_all(tally(ADDRESS))
        }];
        let has_operators =
            !clients.operator_networks.is_empty() || !clients.operator_users.is_empty();
        if has_operators {
            rules.push(Rule {
                guaranteed: clients.reserved_clients,
                // Whoever is to find out what is wrong is not to wait behind it.
                priority: LimitPriority::High,
                networks: clients.operator_networks.clone(),
                users: clients.operator_users.clone(),
                ..Rule::about_all(tally(OPERATORS))
            });
        }
        rules.extend(limits.iter().map(|limit| {
            let tally = tally(&limit.name);
            let (rate, burst) = (limit.commands_rate, limit.commands_burst);
            tally.set_rate(Metered::Commands, rate.into(), burst.into());
            tally.set_rate(Metered::Bytes, limit.bytes_rate, limit.bytes_burst);
            Rule {
                priority: limit.priority,
                fail_open: limit.fail_open,
                refuse_writes_above: limit.refuse_writes_above_memory,
                is_metered: [limit.commands_rate > 0, limit.bytes_rate > 0],
                per: limit.per,
                max_clients: limit.max_clients,
                guaranteed: limit.guaranteed,
                accept_rate: f64::from(limit.accept_rate),
                accept_burst: f64::from(match limit.accept_burst {
                    0 => limit.accept_rate,
                    burst => burst,
                }),
                networks: limit.networks.clone(),
                users: limit.users.clone(),
                names: limit.client_names.clone(),
                certificates: limit.certificates.clone(),
                listeners: listen
                    .iter()
                    .enumerate()
                    .filter(|(_, address)| limit.listeners.contains(address))
                    .map(|(index, _)| index as u16)
                    .collect(),
                ..Rule::about_all(tally)
            }
        }));
        RuleSet {
            shape,
            ipv6_group: clients.ipv6_group,
            operators: has_operators.then_some(1),
            looks_at_names: rules
                .iter()
                .any(|rule| rule.per == Per::Name || !rule.names.is_empty()),
            has_terms: rules.iter().any(Rule::has_terms),
            looks_at_users: rules
                .iter()
                .any(|rule| rule.per == Per::User || !rule.users.is_empty()),
            rules,
        }
    }

    /// Whether anything that a client says of itself decides how it is counted.
    pub fn looks_at_what_clients_say(&self) -> bool {
        self.looks_at_names || self.looks_at_users
    }

    /// Whether these rules are about the same clients as others, whatever they allow them.
    pub fn is_about_the_same(&self, other: &RuleSet) -> bool {
        self.ipv6_group == other.ipv6_group
            && self.operators == other.operators
            && self.rules.len() == other.rules.len()
            && self
                .rules
                .iter()
                .zip(&other.rules)
                .all(|(one, other)| one.is_about_the_same(other))
    }

    /// What the rules by which a client is counted say of its commands.
    pub fn terms(&self, counted_by: impl Fn(&RuleTally) -> bool) -> Terms {
        if !self.has_terms {
            return Terms::default();
        }
        Terms::of(self.rules.iter().filter(|rule| counted_by(&rule.tally)))
    }

    /// Whether a rule has its clients answered as by a cache that misses.
    pub fn fails_open(&self) -> bool {
        self.rules
            .iter()
            .any(|rule| rule.fail_open == LimitFailOpen::On)
    }

    /// Above which share of a node's memory writes of some of its clients are refused, by a
    /// rule; `None` if no rule says anything of it.
    pub fn refuse_writes_above(&self) -> Option<f64> {
        let shares = self.rules.iter().filter_map(Rule::says_refuse_writes_above);
        shares.min_by(f64::total_cmp)
    }

    /// Whether it is an operator's client.
    pub fn is_operator(&self, who: &Who<'_>) -> bool {
        self.operators
            .is_some_and(|index| self.rules[index].is_of_either(who))
    }

    /// The rules that are about a client, each with whom it is counted together. The first
    /// counts it by its address.
    pub fn about<'r>(&'r self, who: &Who<'_>) -> Vec<(&'r Rule, Key)> {
        let address = Key::Address(self.group_of(who));
        let mut about = vec![(&self.rules[0], address)];
        if self.is_operator(who) {
            about.push((&self.rules[1], Key::All));
            return about;
        }
        let first = 1 + usize::from(self.operators.is_some());
        let limits = self.rules[first..].iter();
        about.extend(
            limits
                .filter(|rule| rule.is_about(who))
                .filter_map(|rule| Some((rule, self.key(rule.per, who)?))),
        );
        about
    }

    /// Whether one of the rules that keep places is not about the client as far as is known,
    /// and could be once it has said more.
    pub fn may_be_kept_a_place(&self, who: &Who<'_>) -> bool {
        self.rules
            .iter()
            .enumerate()
            .filter(|(_, rule)| rule.tally.unmet() > 0)
            .any(|(index, rule)| {
                let by_user =
                    who.user.is_none() && (!rule.users.is_empty() || rule.per == Per::User);
                let by_name =
                    who.name.is_empty() && (!rule.names.is_empty() || rule.per == Per::Name);
                if self.operators == Some(index) {
                    return by_user && !rule.is_of_either(who);
                }
                (by_user || by_name)
                    && rule.is_from(who)
                    && (by_user || rule.is_user(who))
                    && (by_name || rule.is_named(who))
            })
    }

    fn group_of(&self, who: &Who<'_>) -> Network {
        match who.address.to_canonical().is_ipv4() {
            true => Network::around(who.address, 32),
            false => Network::around(who.address, self.ipv6_group),
        }
    }

    fn key(&self, per: Per, who: &Who<'_>) -> Option<Key> {
        Some(match per {
            Per::Address => Key::Address(self.group_of(who)),
            Per::User => Key::User(who.user?.into()),
            // Who has no name is not counted by it.
            Per::Name if who.name.is_empty() => return None,
            Per::Name => Key::Name(who.name.into()),
            // Nor is who has shown none by its certificate.
            Per::Certificate => Key::Certificate(who.certificate.first()?.as_bytes().into()),
            Per::Rule => Key::All,
        })
    }
}

impl Rule {
    fn about_all(tally: Arc<RuleTally>) -> Rule {
        Rule {
            tally,
            per: Per::Rule,
            max_clients: 0,
            guaranteed: 0,
            accept_rate: 0.0,
            accept_burst: 0.0,
            priority: LimitPriority::Normal,
            fail_open: LimitFailOpen::Route,
            refuse_writes_above: 0.0,
            is_metered: [false; Metered::ALL.len()],
            networks: Vec::new(),
            users: Vec::new(),
            names: Vec::new(),
            certificates: Vec::new(),
            listeners: Vec::new(),
        }
    }

    fn is_about(&self, who: &Who<'_>) -> bool {
        self.is_from(who) && self.is_user(who) && self.is_named(who)
    }

    /// Whether it counts the clients of this address by their address, whoever else they are.
    pub(super) fn is_about_all_of(&self, address: &Network) -> bool {
        self.per == Per::Address
            && self.users.is_empty()
            && self.names.is_empty()
            && self.listeners.is_empty()
            && (self.networks.is_empty()
                || self
                    .networks
                    .iter()
                    .any(|network| network.contains(address.first())))
    }

    /// Whether it sets a rate of any kind.
    pub fn is_metered(&self) -> bool {
        self.is_metered.contains(&true)
    }

    fn has_terms(&self) -> bool {
        self.priority != LimitPriority::Normal
            || self.fail_open != LimitFailOpen::Route
            || self.refuse_writes_above > 0.0
    }

    /// Operators are told by one or the other.
    fn is_of_either(&self, who: &Who<'_>) -> bool {
        let user = |user| self.users.iter().any(|name| matches(name, user));
        self.networks
            .iter()
            .any(|network| network.contains(who.address))
            || who.user.is_some_and(user)
    }

    fn is_from(&self, who: &Who<'_>) -> bool {
        let network = |network: &Network| network.contains(who.address);
        (self.networks.is_empty() || self.networks.iter().any(network))
            && (self.listeners.is_empty() || self.listeners.contains(&who.listener))
            && self.is_certified(who)
    }

    fn is_certified(&self, who: &Who<'_>) -> bool {
        let is_of = |pattern: &String| {
            let mut names = who.certificate.iter();
            names.any(|name| matches(pattern, name.as_bytes()))
        };
        self.certificates.is_empty() || self.certificates.iter().any(is_of)
    }

    fn is_user(&self, who: &Who<'_>) -> bool {
        let user = |user| self.users.iter().any(|name| matches(name, user));
        self.users.is_empty() || who.user.is_some_and(user)
    }

    fn is_named(&self, who: &Who<'_>) -> bool {
        self.names.is_empty() || self.names.iter().any(|name| matches(name, who.name))
    }

    fn is_about_the_same(&self, other: &Rule) -> bool {
        Arc::ptr_eq(&self.tally, &other.tally)
            && self.per == other.per
            && (self.guaranteed > 0) == (other.guaranteed > 0)
            && self.priority == other.priority
            && self.fail_open == other.fail_open
            && self.refuse_writes_above == other.refuse_writes_above
            && self.is_metered == other.is_metered
            && self.networks == other.networks
            && self.users == other.users
            && self.names == other.names
            && self.certificates == other.certificates
            && self.listeners == other.listeners
    }
}

fn matches(pattern: &str, text: &[u8]) -> bool {
    pattern::matches(pattern.as_bytes(), text)
}
