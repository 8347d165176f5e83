//! The pure core: who holds what; `lines.rs` and `yields.rs` are parts of it.
//!
//! Events come in as method calls that carry the time; what is to be done comes
//! out of [`Book::take_decisions`]. After every event two things are true:
//! nobody stands in line whom the limits would admit, and every partition that
//! stands in line has no connection that it could be linked to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::kind::{Kind, Partition, Phase};
use super::limits::{BudgetLimits, Counts, Limit, Refused};
use super::lines::Waiter;
use super::slot::SlotCell;
use super::snapshot::LedgerCounters;

/// Time since the ledger was made.
pub(super) type Time = Duration;

/// Names a slot for as long as the ledger lives; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SlotId(pub(super) u64);

/// Names one who stands in line; smaller ones came earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WaiterId(pub(super) u64);

/// A slot that now belongs to whoever receives this.
#[derive(Debug)]
#[must_use = "a slot that nobody holds is never given back"]
pub(super) struct Granted {
    pub(super) id: SlotId,
    pub(super) cell: Arc<SlotCell>,
    pub(super) partition: Option<Partition>,
}

/// What the shell has to do.
#[derive(Debug)]
pub(super) enum Decision {
    /// This waiter's turn has come.
    Grant(WaiterId, Granted),
    /// This waiter can use that worker's connection.
    Link(WaiterId, usize, Arc<SlotCell>),
    /// Let the owner of this slot ask [`Book::may_yield`].
    Nudge(Arc<SlotCell>),
}

/// The answer to a worker that wants to send plain commands.
#[derive(Debug)]
pub(super) enum SharedAnswer {
    Own(Granted),
    Link(usize, Arc<SlotCell>),
    Wait(WaiterId),
    Refused(Refused),
}

/// The answer to an owner that wants to know whether to give its slot back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MayYield {
    /// Yes; the slot counts as retiring from now on.
    Now,
    /// It is wanted, but its minimum hold lasts until then.
    NotBefore(Time),
    /// Nobody wants it.
    NotYet,
}

pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) phase: Phase,
    /// Shared slots only: what it serves, and the worker that owns it.
    pub(super) shared: Option<(Partition, usize)>,
    /// It will be given back without being asked again.
    pub(super) retiring: bool,
    pub(super) asked: bool,
    /// When it was granted, then when it was opened: the minimum hold counts from here.
    pub(super) held_since: Time,
    pub(super) cell: Arc<SlotCell>,
}

/// A partition that has connections, or waits for its first one; never both.
#[derive(Default)]
pub(super) struct Standing {
    /// Connections that can be linked to: not retiring; at most one for each worker.
    pub(super) owners: Vec<(usize, SlotId)>,
    pub(super) waiters: BTreeSet<WaiterId>,
}

/// A kind that was refused at once: worth an idle connection, until then.
pub(super) struct Hint {
    pub(super) until: Time,
    /// Whose own connections would be the wrong ones to close for it.
    pub(super) partition: Option<Partition>,
}

/// For how long a refused [`Book::try_take`] counts as demand. Long enough for an
/// idle connection to be closed meanwhile, short enough to be forgotten if the
/// caller did not come back.
const HINT_LASTS: Duration = Duration::from_secs(1);

pub(super) struct Book {
    pub(super) limits: BudgetLimits,
    pub(super) counts: Counts,
    pub(super) slots: BTreeMap<SlotId, Entry>,
    pub(super) partitions: HashMap<Partition, Standing>,
    pub(super) waiters: HashMap<WaiterId, Waiter>,
    /// By kind, in order of arrival. Each has at most `queue_max` in it, but
    /// for an upgrade (`line_max`).
    pub(super) lines: [BTreeSet<WaiterId>; Kind::COUNT],
    /// By kind: the number of the grant that it got last, for taking turns.
    pub(super) served: [u64; Kind::COUNT],
    pub(super) hints: [Option<Hint>; Kind::COUNT],
    pub(super) decisions: Vec<Decision>,
    pub(super) counters: LedgerCounters,
    last_id: u64,
    last_grant: u64,
}

impl Book {
    pub(super) fn new(limits: BudgetLimits) -> Book {
        Book {
            limits,
            counts: Counts::default(),
            slots: BTreeMap::new(),
            partitions: HashMap::new(),
            waiters: HashMap::new(),
            lines: Default::default(),
            served: [0; Kind::COUNT],
            hints: Default::default(),
            decisions: Vec::new(),
            counters: LedgerCounters::default(),
            last_id: 0,
            last_grant: 0,
        }
    }

    /// What is to be done after the events so far.
    pub(super) fn take_decisions(&mut self) -> Vec<Decision> {
        std::mem::take(&mut self.decisions)
    }

    /// A slot at once or not at all.
    pub(super) fn try_take(&mut self, kind: Kind, now: Time) -> Option<Granted> {
        debug_assert!(
            kind != Kind::Shared,
            "shared slots are asked for by partition"
        );
        if self.counts.admit(kind, &self.limits).is_err() {
            self.counters.refused_at_once[kind.index()] += 1;
            self.hint(kind, None, now);
            return None;
        }
        let granted = self.open(kind, None, now);
        self.settle(now);
        Some(granted)
    }

    /// Stands in line for a slot; a [`Decision::Grant`] may follow at once.
    pub(super) fn enqueue(&mut self, kind: Kind, now: Time) -> Result<WaiterId, Refused> {
        debug_assert!(
            kind != Kind::Shared,
            "shared slots are asked for by partition"
        );
        self.check_line(kind)?;
        let id = self.add_waiter(Waiter {
            kind,
            shared: None,
            since: now,
        });
        self.settle(now);
        Ok(id)
    }

    /// A worker wants to send plain commands of a partition.
    pub(super) fn shared(
        &mut self,
        partition: &Partition,
        worker: usize,
        now: Time,
    ) -> SharedAnswer {
        let owner = self.owner_for(partition, worker);
        let owns = matches!(owner, Some((owner, _)) if owner == worker);
        let shared = Some((partition.clone(), worker));
        if !owns && self.counts.admit(Kind::Shared, &self.limits).is_ok() {
            let granted = self.open(Kind::Shared, shared, now);
            self.settle(now);
            return SharedAnswer::Own(granted);
        }
        if let Some((owner, cell)) = owner {
            self.counters.linked += 1;
            if !owns {
                self.hint(Kind::Shared, Some(partition), now);
            }
            return SharedAnswer::Link(owner, cell);
        }
        if let Err(refused) = self.check_line(Kind::Shared) {
            return SharedAnswer::Refused(refused);
        }
        let id = self.add_waiter(Waiter {
            kind: Kind::Shared,
            shared,
            since: now,
        });
        self.settle(now);
        SharedAnswer::Wait(id)
    }

    /// The slot is given back.
    pub(super) fn release(&mut self, id: SlotId, now: Time) {
        self.unlink(id);
        let entry = self.slots.remove(&id).expect("a slot is given back once");
        self.counts.remove(entry.kind);
        // Whoever still waits for `may_yield` learns that there is nothing to wait for.
        self.decisions.push(Decision::Nudge(entry.cell));
        self.settle(now);
    }

    pub(super) fn set_phase(&mut self, id: SlotId, phase: Phase, now: Time) {
        let entry = self.slots.get_mut(&id).expect("its owner holds the slot");
        if phase == Phase::Open && entry.phase == Phase::Dialling {
            entry.held_since = now;
        }
        entry.phase = phase;
        entry.cell.phase.store(phase.index() as u8, Relaxed);
        match phase {
            Phase::Closing => self.retire(id, now),
            Phase::Dialling | Phase::Open => {
                self.decisions.push(Decision::Nudge(entry.cell.clone()));
                self.settle(now);
            }
        }
    }

    /// Nobody is linked to the slot any more; it will come back by itself.
    pub(super) fn retire(&mut self, id: SlotId, now: Time) {
        self.unlink(id);
        self.settle(now);
    }

    pub(super) fn retag(&mut self, id: SlotId, kind: Kind, now: Time) -> Result<(), Limit> {
        let entry = self.slots.get_mut(&id).expect("its owner holds the slot");
        debug_assert!(
            entry.kind != Kind::Shared && kind != Kind::Shared,
            "a shared slot belongs to a partition and keeps its kind"
        );
        self.counts.admit_instead(entry.kind, kind, &self.limits)?;
        self.counts.remove(entry.kind);
        self.counts.add(kind);
        entry.kind = kind;
        entry.cell.kind.store(kind.index() as u8, Relaxed);
        self.settle(now);
        Ok(())
    }

    /// New limits. What is above them is asked to yield, never closed by force.
    /// The cap stays.
    pub(super) fn set_limits(&mut self, limits: BudgetLimits, now: Time) {
        self.limits = BudgetLimits {
            cap: self.limits.cap,
            ..limits
        };
        self.settle(now);
    }

    /// How many of the connections are this process's; `None` for all.
    pub(super) fn set_cap(&mut self, cap: Option<usize>, now: Time) {
        self.limits.cap = cap;
        self.settle(now);
    }

    /// How many more slots there is a use for now, if only the cap is in the way.
    pub(super) fn wants(&self, now: Time) -> usize {
        let lines = Kind::ALL.into_iter().map(|kind| self.demands(kind));
        let hints = self.hints.iter().flatten();
        let hints = hints.filter(|hint| hint.until > now).count();
        let room = self.limits.max_connections.max(1);
        let room = room.saturating_sub(self.limits.cap.unwrap_or(room));
        (lines.sum::<usize>() + hints).min(room)
    }

    /// The one way in which a slot stops being linked to.
    pub(super) fn unlink(&mut self, id: SlotId) {
        let Some(entry) = self.slots.get_mut(&id) else {
            return;
        };
        entry.retiring = true;
        entry.asked = false;
        entry.cell.asked.store(false, Relaxed);
        entry.cell.live.store(false, Relaxed);
        if let Some((partition, _)) = entry.shared.clone() {
            if let Some(standing) = self.partitions.get_mut(&partition) {
                standing.owners.retain(|(_, owned)| *owned != id);
            }
            self.forget_if_empty(&partition);
        }
    }

    /// Serves the lines until the limits admit nobody in them, then asks for more.
    pub(super) fn settle(&mut self, now: Time) {
        while let Some(kind) = self.next_kind() {
            self.serve(kind, now);
        }
        self.plan_yields(now);
    }

    /// The one way in which a slot comes into being.
    pub(super) fn open(
        &mut self,
        kind: Kind,
        shared: Option<(Partition, usize)>,
        now: Time,
    ) -> Granted {
        debug_assert_eq!(self.counts.admit(kind, &self.limits), Ok(()));
        let id = SlotId(self.next_id());
        let cell = Arc::new(SlotCell::new(kind));
        let partition = shared.as_ref().map(|(partition, _)| partition.clone());
        if let Some((partition, worker)) = &shared {
            let standing = self.partitions.entry(partition.clone()).or_default();
            standing.owners.push((*worker, id));
        }
        self.counts.add(kind);
        self.last_grant += 1;
        self.served[kind.index()] = self.last_grant;
        self.hints[kind.index()] = None;
        self.counters.granted[kind.index()] += 1;
        let entry = Entry {
            kind,
            phase: Phase::Dialling,
            shared,
            retiring: false,
            asked: false,
            held_since: now,
            cell: cell.clone(),
        };
        self.slots.insert(id, entry);
        Granted {
            id,
            cell,
            partition,
        }
    }

    /// The connection a worker should use: its own, else one of the others', spread
    /// evenly and always the same one while nothing changes.
    fn owner_for(&self, partition: &Partition, worker: usize) -> Option<(usize, Arc<SlotCell>)> {
        let owners = &self.partitions.get(partition)?.owners;
        let own = owners.iter().find(|(owner, _)| *owner == worker);
        let (owner, id) = own.or_else(|| owners.get(worker % owners.len().max(1)))?;
        Some((*owner, self.slots[id].cell.clone()))
    }

    /// Remembers that a kind could use a slot. Such a refusal can come for every
    /// transaction, so who holds what is looked through at most every tenth of the
    /// time that a hint lasts.
    fn hint(&mut self, kind: Kind, partition: Option<&Partition>, now: Time) {
        let hint = &mut self.hints[kind.index()];
        let until = now + HINT_LASTS;
        if hint
            .as_ref()
            .is_none_or(|hint| until >= hint.until + HINT_LASTS / 10)
        {
            *hint = Some(Hint {
                until,
                partition: partition.cloned(),
            });
            self.settle(now);
        }
    }

    pub(super) fn forget_if_empty(&mut self, partition: &Partition) {
        if self
            .partitions
            .get(partition)
            .is_some_and(|standing| standing.owners.is_empty() && standing.waiters.is_empty())
        {
            self.partitions.remove(partition);
        }
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}
