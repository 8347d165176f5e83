//! The lines: who waits for what, and whose turn it is.
//!
//! Each kind has one, in order of arrival. What stands in the line of shared slots
//! are the workers of partitions without a connection; when the first of a partition
//! is served, the others of it are linked and leave.

use std::sync::Arc;
use std::time::Duration;

use super::book::{Book, Decision, Time, WaiterId};
use super::kind::{Kind, Partition};
use super::limits::{BudgetLimits, Limit, Refused, RefusedBecause};
use super::slot::SlotCell;

/// One who stands in line.
pub(super) struct Waiter {
    pub(super) kind: Kind,
    /// Shared slots only: for which partition, and the worker that waits.
    pub(super) shared: Option<(Partition, usize)>,
    pub(super) since: Time,
}

impl Book {
    /// Whether one more may stand in this line, or need not since there is room.
    pub(super) fn check_line(&mut self, kind: Kind) -> Result<(), Refused> {
        let because = match self.counts.admit(kind, &self.limits) {
            Ok(()) => return Ok(()),
            Err(limit) if self.limits.value(limit) == 0 => RefusedBecause::LimitIsZero,
            _ if self.lines[kind.index()].len() >= self.line_max(kind) => RefusedBecause::QueueFull,
            _ => return Ok(()),
        };
        self.counters.refused_queue_full[kind.index()] += 1;
        Err(self.refusal(kind, because))
    }

    /// How many may stand in this line. Who would not have to wait but for the other
    /// process of an upgrade does not count as waiting, and that process asks for no more
    /// places at once than there can be.
    fn line_max(&self, kind: Kind) -> usize {
        let limits = &self.limits;
        let all = BudgetLimits {
            cap: None,
            ..limits.clone()
        };
        let lent = match kind {
            Kind::Lent => all.total_max(),
            _ if self.counts.admit(kind, &all).is_ok() => all.total_max() - limits.total_max(),
            _ => 0,
        };
        limits.queue_max.saturating_add(lent)
    }

    /// Joins the line at its end.
    pub(super) fn add_waiter(&mut self, waiter: Waiter) -> WaiterId {
        let id = WaiterId(self.next_id());
        if let Some((partition, _)) = &waiter.shared {
            self.partitions
                .entry(partition.clone())
                .or_default()
                .waiters
                .insert(id);
        }
        if self.counts.admit(waiter.kind, &self.limits).is_err() {
            self.counters.waited[waiter.kind.index()] += 1;
        }
        self.lines[waiter.kind.index()].insert(id);
        self.waiters.insert(id, waiter);
        id
    }

    /// Leaves the line. What was granted already stays granted. Returns the limit
    /// that was waited for, if this waiter was still in line.
    pub(super) fn cancel(&mut self, id: WaiterId, now: Time) -> Option<Refused> {
        let waiter = self.waiters.remove(&id)?;
        self.lines[waiter.kind.index()].remove(&id);
        if let Some((partition, _)) = &waiter.shared {
            let standing = self
                .partitions
                .get_mut(partition)
                .expect("a waiter's partition stands");
            standing.waiters.remove(&id);
            self.forget_if_empty(partition);
        }
        self.counters.gave_up[waiter.kind.index()] += 1;
        let refused = self.refusal(waiter.kind, RefusedBecause::TimedOut);
        self.settle(now);
        Some(refused)
    }

    /// Among the kinds whose line could be served, the one served longest ago.
    pub(super) fn next_kind(&self) -> Option<Kind> {
        Kind::ALL
            .into_iter()
            .filter(|kind| !self.lines[kind.index()].is_empty())
            .filter(|&kind| self.counts.admit(kind, &self.limits).is_ok())
            .min_by_key(|kind| self.served[kind.index()])
    }

    /// The first of a line gets its slot.
    pub(super) fn serve(&mut self, kind: Kind, now: Time) {
        let id = self.lines[kind.index()]
            .pop_first()
            .expect("somebody is in this line");
        let waiter = self.waiters.remove(&id).expect("who is in line is known");
        let granted = self.open(kind, waiter.shared.clone(), now);
        let cell = granted.cell.clone();
        self.decisions.push(Decision::Grant(id, granted));
        if let Some((partition, worker)) = waiter.shared {
            self.link_the_others(&partition, worker, &cell);
        }
    }

    /// The partition has its connection: its other workers need not wait for one.
    fn link_the_others(&mut self, partition: &Partition, worker: usize, cell: &Arc<SlotCell>) {
        let standing = self
            .partitions
            .get_mut(partition)
            .expect("it just got a slot");
        for id in std::mem::take(&mut standing.waiters) {
            // The one that got the slot is in here too, but no longer in line.
            if self.waiters.remove(&id).is_some() {
                self.lines[Kind::Shared.index()].remove(&id);
                self.counters.linked += 1;
                self.decisions
                    .push(Decision::Link(id, worker, cell.clone()));
            }
        }
    }

    /// What somebody who wants this kind is told now.
    pub(super) fn refusal(&self, kind: Kind, because: RefusedBecause) -> Refused {
        // Whoever is served in this very moment was kept waiting by the total.
        let limit = self
            .counts
            .admit(kind, &self.limits)
            .err()
            .unwrap_or(Limit::Connections);
        Refused {
            kind,
            limit,
            limit_value: self.limits.value(limit),
            because,
        }
    }

    /// How many demands the line of a kind stands for: a partition is one demand,
    /// however many workers of it wait.
    pub(super) fn demands(&self, kind: Kind) -> usize {
        match kind {
            Kind::Shared => self
                .partitions
                .values()
                .filter(|standing| !standing.waiters.is_empty())
                .count(),
            _ => self.lines[kind.index()].len(),
        }
    }

    /// How long the one who has waited longest has waited, for each kind.
    pub(super) fn longest_wait(&self, now: Time) -> [Duration; Kind::COUNT] {
        std::array::from_fn(|kind| {
            let first = self.lines[kind].first();
            first.map_or(Duration::ZERO, |id| {
                now.saturating_sub(self.waiters[id].since)
            })
        })
    }
}
