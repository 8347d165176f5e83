//! Those who wait for the same queue, in the order in which they came.

use std::collections::{BTreeMap, BTreeSet};

use super::act::{CarrierId, WaiterId};
use super::wish::Queue;

/// Why somebody leaves a line without an element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leaving {
    /// The time is over.
    TimedOut,
    /// `CLIENT UNBLOCK`.
    Unblocked {
        /// With an error instead of a null.
        error: bool,
        /// Whose question is to be answered.
        token: u64,
    },
}

/// Where a line is watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Watch {
    /// Nowhere yet: the node is being asked whether there is something.
    Asking,
    /// On a carrier.
    On(CarrierId),
    /// Nowhere: the key is not a queue at the moment. Asked again at this time.
    Parked(u64),
}

/// One line.
#[derive(Debug)]
pub(super) struct Line {
    pub queue: Queue,
    /// Oldest first; those who are leaving included.
    pub waiters: BTreeSet<WaiterId>,
    /// Those of them who leave as soon as nothing can be on its way to them.
    pub leaving: BTreeMap<WaiterId, Leaving>,
    /// Those of them who came while nobody knew whether the node would refuse them.
    pub unproven: BTreeSet<WaiterId>,
    /// Those of them who do not count as blocked yet.
    pub unregistered: Vec<WaiterId>,
    pub watch: Watch,
    /// The node is being asked for it alone.
    pub probing: bool,
    /// The most elements that can arrive for it from what is outstanding.
    pub at_stake: usize,
    /// When something last arrived for it, in microseconds.
    pub served_at: u64,
    /// There is probably more in it.
    pub hot: bool,
}

impl Line {
    pub fn new(queue: Queue) -> Line {
        Line {
            queue,
            waiters: BTreeSet::new(),
            leaving: BTreeMap::new(),
            unproven: BTreeSet::new(),
            unregistered: Vec::new(),
            watch: Watch::Asking,
            probing: false,
            at_stake: 0,
            served_at: 0,
            hot: false,
        }
    }

    /// Those who are not leaving.
    pub fn staying(&self) -> usize {
        self.waiters.len() - self.leaving.len()
    }

    /// Takes somebody out of all books of the line.
    pub fn forget(&mut self, waiter: WaiterId) -> Option<Leaving> {
        self.waiters.remove(&waiter);
        self.unproven.remove(&waiter);
        self.leaving.remove(&waiter)
    }
}
