//! Who a client is, and with whom it is counted.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::allowance::{Allowance, Rate};
use super::growth::Growth;
use super::place::NoRoom;
use super::terms::Metered;
use super::token_bucket::TokenBucket;
use crate::config::Network;
use crate::metrics::Latch;

/// What is known of a client. User and name come late: a client says them, or never does.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// Where it calls from.
    pub address: IpAddr,
    /// Which of its route's listeners it came in through, by their order.
    pub listener: u16,
    /// The user as whom it runs commands; `None` before a login that it has to make.
    pub user: Option<&'a [u8]>,
    /// The name that it gave itself; empty for none.
    pub name: &'a [u8],
    /// The names in the certificate that it has shown and that was found good, the one that
    /// stands for it first; none without one. Known from the start, and for certain.
    pub certificate: &'a [Box<str>],
}

/// What those have in common who are counted together under one rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A source address, or the network that stands for it.
    Address(Network),
    /// A user.
    User(Box<[u8]>),
    /// A client name.
    Name(Box<[u8]>),
    /// The name in a certificate.
    Certificate(Box<[u8]>),
    /// That the rule is about them.
    All,
    /// That there was no room for an account of their own.
    Others,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Address(network) => network.fmt(f),
            Key::User(name) | Key::Name(name) | Key::Certificate(name) => shown(name).fmt(f),
            Key::All => f.write_str("all"),
            Key::Others => f.write_str("others"),
        }
    }
}

/// A name from outside, for logs and labels: printable and short.
fn shown(name: &[u8]) -> String {
    const SHOWN_MAX: usize = 64;
    let cut = &name[..name.len().min(SHOWN_MAX)];
    cut.escape_ascii().to_string()
}

/// The clients that are counted together under one rule, and what became of those who asked
/// to be. The numbers change under the book's lock only and are read by anybody.
#[derive(Debug)]
pub struct Group {
    /// The rule.
    pub rule: Arc<RuleTally>,
    /// What its clients have in common.
    pub key: Key,
    clients: AtomicU32,
    admitted: AtomicU64,
    refused: Refused,
    accepts: Mutex<TokenBucket>,
    /// What its clients may ask for a second, by what is counted.
    allowances: [Allowance; Metered::ALL.len()],
    /// Commands of its clients that were refused because there was too much to do, or because they
    /// were too many.
    commands_refused: AtomicU64,
    /// Of these, the ones that a rate of its rule refused.
    over_rate: AtomicU64,
    /// A rate of the rule refuses its commands, and that has been told or is about to be.
    pub(super) is_over_rate: Latch,
    /// It stands in the book's queue of accounts that were found empty.
    pub(super) queued: AtomicBool,
    /// That a limit of the rule refuses its clients has been told, or is about to be.
    pub(super) is_told: Latch,
    /// How many clients it had before.
    pub(super) growth: Mutex<Growth>,
}

impl Group {
    pub(super) fn new(rule: Arc<RuleTally>, key: Key, accepts: TokenBucket) -> Arc<Group> {
        Arc::new(Group {
            rule,
            key,
            clients: AtomicU32::new(0),
            admitted: AtomicU64::new(0),
            refused: Refused::default(),
            accepts: Mutex::new(accepts),
            allowances: Default::default(),
            commands_refused: AtomicU64::new(0),
            over_rate: AtomicU64::new(0),
            is_over_rate: Latch::default(),
            queued: AtomicBool::new(false),
            is_told: Latch::default(),
            growth: Mutex::default(),
        })
    }

    /// Its clients now.
    pub fn clients(&self) -> usize {
        self.clients.load(Relaxed) as usize
    }

    /// Clients that it ever had.
    pub fn admitted(&self) -> u64 {
        self.admitted.load(Relaxed)
    }

    /// Clients refused, by why.
    pub fn refused(&self, why: NoRoom) -> u64 {
        self.refused.get(why)
    }

    /// Clients refused, for whatever reason.
    pub fn refused_all(&self) -> u64 {
        self.refused.sum()
    }

    /// Commands of its clients that were refused, for whatever reason.
    pub fn commands_refused(&self) -> u64 {
        self.commands_refused.load(Relaxed)
    }

    /// So many of its clients' commands are refused.
    pub fn count_commands_refused(&self, count: u64) {
        self.commands_refused.fetch_add(count, Relaxed);
    }

    /// Commands of its clients that a rate of its rule has refused.
    pub fn over_rate(&self) -> u64 {
        self.over_rate.load(Relaxed)
    }

    /// A command is refused by this rate of its rule.
    pub(super) fn count_over_rate(&self, of: Metered) {
        self.over_rate.fetch_add(1, Relaxed);
        self.rule.count_over_rate(of);
    }

    /// What its clients may still ask for.
    pub fn allowance(&self, of: Metered) -> &Allowance {
        &self.allowances[of as usize]
    }

    /// One client more; `is_new` if it has not been counted here before.
    pub(super) fn enter(&self, is_new: bool) {
        self.clients.fetch_add(1, Relaxed);
        self.admitted.fetch_add(u64::from(is_new), Relaxed);
    }

    pub(super) fn leave(&self) {
        self.clients.fetch_sub(1, Relaxed);
    }

    pub(super) fn count_refused(&self, why: NoRoom) {
        self.refused.count(why);
    }

    /// Takes one accept out of the group's rate.
    pub(super) fn take_accept(&self, rate: f64, burst: f64, now: u64) -> bool {
        let mut accepts = self.accepts.lock().unwrap_or_else(PoisonError::into_inner);
        accepts.take(1.0, rate, burst, now)
    }
}

/// What one rule counts, of all its clients. Outlives changes of the rule.
#[derive(Debug)]
pub struct RuleTally {
    /// Its own number in this process.
    pub(super) id: u32,
    /// The route that the rule is of.
    pub route: u16,
    /// The rule's name.
    pub name: Box<str>,
    clients: AtomicU32,
    /// Places kept for its clients.
    guaranteed: AtomicUsize,
    /// Those of its clients that have one of these places.
    sharers: AtomicUsize,
    refused: Refused,
    /// What each who is counted may ask for, by what is counted: a second, and at once.
    rates: [[AtomicU64; 2]; Metered::ALL.len()],
    /// What was asked for, and how many commands were refused for that.
    metered: [[AtomicU64; 2]; Metered::ALL.len()],
    /// Writes of its clients are refused, and that has been told.
    pub refuses_writes: Latch,
}

impl RuleTally {
    pub(super) fn new(id: u32, route: u16, name: &str) -> Arc<RuleTally> {
        Arc::new(RuleTally {
            id,
            route,
            name: name.into(),
            clients: AtomicU32::new(0),
            guaranteed: AtomicUsize::new(0),
            sharers: AtomicUsize::new(0),
            refused: Refused::default(),
            rates: Default::default(),
            metered: Default::default(),
            refuses_writes: Latch::default(),
        })
    }

    /// Clients that the rule is about now.
    pub fn clients(&self) -> usize {
        self.clients.load(Relaxed) as usize
    }

    /// Clients that the rule refused, by why.
    pub fn refused(&self, why: NoRoom) -> u64 {
        self.refused.get(why)
    }

    /// What each who is counted may ask for.
    pub fn rate(&self, of: Metered) -> Rate {
        let [per_second, burst] = &self.rates[of as usize];
        Rate::of(per_second.load(Relaxed), burst.load(Relaxed))
    }

    pub(super) fn set_rate(&self, of: Metered, per_second: u64, burst: u64) {
        let rate = &self.rates[of as usize];
        rate[0].store(per_second, Relaxed);
        rate[1].store(burst, Relaxed);
    }

    /// What all its clients have asked for, to within what workers have taken for the next
    /// moment; 0 without a limit.
    pub fn used(&self, of: Metered) -> u64 {
        self.metered[of as usize][0].load(Relaxed)
    }

    /// So much was taken out of the allowances of its clients.
    pub fn count_used(&self, of: Metered, tokens: u64) {
        self.metered[of as usize][0].fetch_add(tokens, Relaxed);
    }

    /// Commands of its clients that this rate has refused.
    pub fn over_rate(&self, of: Metered) -> u64 {
        self.metered[of as usize][1].load(Relaxed)
    }

    fn count_over_rate(&self, of: Metered) {
        self.metered[of as usize][1].fetch_add(1, Relaxed);
    }

    /// Of the places kept for its clients, those that nobody has taken.
    pub fn unmet(&self) -> usize {
        let sharers = self.sharers.load(Relaxed);
        self.guaranteed.load(Relaxed).saturating_sub(sharers)
    }

    /// Whether one of its clients can go without the rule's share being asked for.
    pub fn can_spare(&self) -> bool {
        self.sharers.load(Relaxed) > self.guaranteed.load(Relaxed)
    }

    pub(super) fn enter(&self) {
        self.clients.fetch_add(1, Relaxed);
    }

    pub(super) fn leave(&self) {
        self.clients.fetch_sub(1, Relaxed);
    }

    pub(super) fn change_sharers(&self, change: impl FnOnce(usize) -> usize) {
        self.sharers
            .store(change(self.sharers.load(Relaxed)), Relaxed);
    }

    pub(super) fn set_guaranteed(&self, guaranteed: usize) {
        self.guaranteed.store(guaranteed, Relaxed);
    }

    pub(super) fn count_refused(&self, why: NoRoom) {
        self.refused.count(why);
    }
}

/// Clients refused, by why.
#[derive(Debug, Default)]
struct Refused([AtomicU64; NoRoom::ALL.len()]);

impl Refused {
    fn get(&self, why: NoRoom) -> u64 {
        self.0[why as usize].load(Relaxed)
    }

    fn sum(&self) -> u64 {
        self.0.iter().map(|count| count.load(Relaxed)).sum()
    }

    fn count(&self, why: NoRoom) {
        self.0[why as usize].fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the documentation tells of the memory that accounts take.
    #[test]
    fn an_account_takes_as_much_as_is_said() {
        let counts = 2 * size_of::<usize>();
        // A table is at least 7/16 full, and each place has a byte of its own.
        let place = (size_of::<((u32, Key), Arc<Group>)>() + 1) * 16 / 7;
        let account = size_of::<Group>() + counts;
        let bytes = account + place + size_of::<Arc<Group>>();
        assert!((300..=400).contains(&bytes), "{bytes}");
    }
}
