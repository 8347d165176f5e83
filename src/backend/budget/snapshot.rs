//! The ledger's numbers, for metrics and operators.

use std::time::Duration;

use super::book::{Book, Time};
use super::kind::{Kind, Phase};
use super::limits::BudgetLimits;

/// What the ledger has done since it was made; all only grow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerCounters {
    /// Slots granted, by kind.
    pub granted: [u64; Kind::COUNT],
    /// Requests for a slot that had to stand in line, by kind.
    pub waited: [u64; Kind::COUNT],
    /// Requests refused since they did not want to wait, by kind.
    pub refused_at_once: [u64; Kind::COUNT],
    /// Requests refused since the line was full, by kind.
    pub refused_queue_full: [u64; Kind::COUNT],
    /// Requests that left the line without a slot, by kind: their deadline passed, or
    /// whoever waited went away.
    pub gave_up: [u64; Kind::COUNT],
    /// Workers that were given a link to another worker's shared connection.
    pub linked: u64,
    /// Owners that were asked for their slot. Some of these requests are withdrawn.
    pub asked_to_yield: u64,
    /// Owners that began to give their slot back because they were asked.
    pub yielded: u64,
}

/// The ledger at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerSnapshot {
    /// The limits in force.
    pub limits: BudgetLimits,
    /// Slots by kind ([`Kind::index`]) and phase ([`Phase::index`]).
    pub slots: [[usize; Phase::COUNT]; Kind::COUNT],
    /// Slots that will be given back without being asked again.
    pub retiring: usize,
    /// How many stand in line, by kind.
    pub waiting: [usize; Kind::COUNT],
    /// How long the one who has waited longest has waited, by kind.
    pub longest_wait: [Duration; Kind::COUNT],
    /// Partitions that have a shared connection or wait for one.
    pub partitions: usize,
    /// Partitions that wait for their first connection.
    pub partitions_waiting: usize,
    /// What has happened so far.
    pub counters: LedgerCounters,
}

impl LedgerSnapshot {
    /// Slots in all; never above the limit, unless that was lowered meanwhile.
    pub fn total(&self) -> usize {
        self.slots.iter().flatten().sum()
    }

    /// Slots of one kind, whatever their phase.
    pub fn of(&self, kind: Kind) -> usize {
        self.slots[kind.index()].iter().sum()
    }
}

impl Book {
    pub(super) fn snapshot(&self, now: Time) -> LedgerSnapshot {
        let mut slots = [[0; Phase::COUNT]; Kind::COUNT];
        for entry in self.slots.values() {
            slots[entry.kind.index()][entry.phase.index()] += 1;
        }
        LedgerSnapshot {
            limits: self.limits.clone(),
            slots,
            retiring: self.slots.values().filter(|entry| entry.retiring).count(),
            waiting: std::array::from_fn(|kind| self.lines[kind].len()),
            longest_wait: self.longest_wait(now),
            partitions: self.partitions.len(),
            partitions_waiting: self.demands(Kind::Shared),
            counters: self.counters.clone(),
        }
    }
}
