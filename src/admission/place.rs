//! A client's place, the places of a route or of the process, and why there may be none.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::identity::{Group, RuleTally};

/// Why there is no place for a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum NoRoom {
    /// `max_clients` of the process.
    Process,
    /// `max_clients` of the route.
    Route,
    /// What is left is kept for others.
    Kept,
    /// `max_clients` of a rule.
    Ceiling,
    /// `accept_rate` of a rule.
    Rate,
}

impl NoRoom {
    /// Every reason, in their order.
    pub const ALL: [NoRoom; 5] = [
        NoRoom::Process,
        NoRoom::Route,
        NoRoom::Kept,
        NoRoom::Ceiling,
        NoRoom::Rate,
    ];

    /// The stable label of metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            NoRoom::Process => "max_clients",
            NoRoom::Route => "route_max_clients",
            NoRoom::Kept => "kept_for_others",
            NoRoom::Ceiling => "limit_max_clients",
            NoRoom::Rate => "limit_accept_rate",
        }
    }
}

/// There is no place for a client. It is a refusal only if nobody makes room.
#[derive(Clone, Debug)]
pub struct NoPlace {
    /// Why.
    pub why: NoRoom,
    /// The account of its address.
    pub address: Arc<Group>,
    /// The clients that it would have been counted with by the limit that was reached; by
    /// its address where that is no rule's.
    pub group: Arc<Group>,
    /// A place is kept for somebody who it may yet turn out to be.
    pub may_be_kept_a_place: bool,
}

/// Whether a client that asks for a place counts for the rate at which clients come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rate {
    /// It has just come.
    Counts,
    /// It asks again.
    CountedBefore,
}

/// One client's place in the account.
#[derive(Debug)]
pub struct Place {
    /// The route that it is on.
    pub route: u16,
    /// It is an operator's.
    pub is_operator: bool,
    /// The shape of the rules by which it was counted.
    pub shape: u64,
    /// With whom it is counted: by its address first, then by each rule about it.
    pub groups: Box<[Arc<Group>]>,
    /// The rule whose share it takes from: the first about it that has one.
    pub share: Option<Arc<RuleTally>>,
}

/// Places of the process or of one route. Written under the book's lock, read by anybody.
#[derive(Debug)]
pub struct Pool {
    max: AtomicUsize,
    taken: AtomicUsize,
    /// Places that are kept for the clients of rules and not taken.
    kept: AtomicUsize,
}

impl Pool {
    pub(super) fn new(max: usize) -> Arc<Pool> {
        Arc::new(Pool {
            max: AtomicUsize::new(max),
            taken: AtomicUsize::new(0),
            kept: AtomicUsize::new(0),
        })
    }

    /// Places there are.
    pub fn max(&self) -> usize {
        self.max.load(Relaxed)
    }

    /// Places taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }

    /// Places that nobody has taken and that are not for everybody.
    pub fn kept(&self) -> usize {
        self.kept.load(Relaxed)
    }

    pub(super) fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    pub(super) fn give_back(&self) {
        self.taken.fetch_sub(1, Relaxed);
    }

    pub(super) fn is_full(&self) -> bool {
        self.taken() >= self.max()
    }

    /// Whether there is a place for one for whom `own` of the kept ones are.
    pub(super) fn has_room(&self, own: usize) -> bool {
        let free = self.max().saturating_sub(self.taken());
        free > self.kept().saturating_sub(own)
    }

    pub(super) fn add(&self, count: usize, kept_before: usize, kept_now: usize) {
        self.taken.fetch_add(count, Relaxed);
        self.kept.fetch_add(kept_now, Relaxed);
        self.kept.fetch_sub(kept_before, Relaxed);
    }
}
