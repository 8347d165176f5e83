//! A world of owners and waiters around a book, for its tests: does what the book
//! decides, and checks after everything that happens what must always be true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::book::{Book, Decision, Granted, MayYield, SharedAnswer, SlotId, Time, WaiterId};
use super::kind::{Kind, Partition, Phase};
use super::limits::{BudgetLimits, RefusedBecause};
use super::slot::SlotCell;
use super::yields::MIN_HOLD;
use crate::backend::credential::UserId;
use crate::resp::Version;

pub(super) const WORKERS: usize = 3;

pub(super) fn partition(db: u32) -> Partition {
    Partition {
        user: UserId::NOBODY,
        version: Version::Resp2,
        db,
        no_touch: false,
    }
}

pub(super) fn limits(max_connections: usize) -> BudgetLimits {
    BudgetLimits {
        max_connections,
        max_shared: 100,
        max_leases: 100,
        max_blocking: 100,
        max_subscriptions: 100,
        queue_max: 1000,
        cap: None,
    }
}

pub(super) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// What the book has promised to whom, kept independently of it.
pub(super) struct World {
    pub(super) book: Book,
    pub(super) now: Time,
    pub(super) holders: BTreeMap<SlotId, Holder>,
    pub(super) waiting: BTreeMap<WaiterId, Waiting>,
    /// How long those who were served had waited, in slots that came back meanwhile.
    pub(super) released: usize,
}

pub(super) struct Holder {
    pub(super) kind: Kind,
    pub(super) shared: Option<(Partition, usize)>,
    pub(super) cell: Arc<SlotCell>,
}

#[derive(Clone)]
pub(super) struct Waiting {
    pub(super) kind: Kind,
    pub(super) shared: Option<(Partition, usize)>,
}

pub(super) enum Served {
    Slot(SlotId),
    Link(usize),
}

impl World {
    pub(super) fn new(limits: BudgetLimits) -> World {
        World {
            book: Book::new(limits),
            now: ms(0),
            holders: BTreeMap::new(),
            waiting: BTreeMap::new(),
            released: 0,
        }
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.now += by;
    }

    pub(super) fn try_take(&mut self, kind: Kind) -> Option<SlotId> {
        let granted = self.book.try_take(kind, self.now);
        let id = granted.map(|granted| self.hold(granted, kind, None));
        self.follow();
        id
    }

    pub(super) fn enqueue(&mut self, kind: Kind) -> Option<WaiterId> {
        let in_line = self.book.lines[kind.index()].len();
        let admitted = self.book.counts.admit(kind, &self.book.limits);
        match self.book.enqueue(kind, self.now) {
            Ok(id) => {
                self.waiting.insert(id, Waiting { kind, shared: None });
                self.follow();
                Some(id)
            }
            Err(refused) => {
                assert_eq!(admitted, Err(refused.limit));
                match refused.because {
                    RefusedBecause::QueueFull => assert!(in_line >= self.book.limits.queue_max),
                    RefusedBecause::LimitIsZero => assert_eq!(refused.limit_value, 0),
                    RefusedBecause::TimedOut => panic!("nobody waited yet"),
                }
                None
            }
        }
    }

    /// Asks for a partition; what there was at once, if anything.
    pub(super) fn shared(&mut self, db: u32, worker: usize) -> Option<Served> {
        let partition = partition(db);
        let shared = Some((partition.clone(), worker));
        let served = match self.book.shared(&partition, worker, self.now) {
            SharedAnswer::Own(granted) => {
                Some(Served::Slot(self.hold(granted, Kind::Shared, shared)))
            }
            SharedAnswer::Link(owner, cell) => {
                self.check_link(&partition, owner, &cell);
                Some(Served::Link(owner))
            }
            SharedAnswer::Wait(id) => {
                self.waiting.insert(
                    id,
                    Waiting {
                        kind: Kind::Shared,
                        shared,
                    },
                );
                None
            }
            SharedAnswer::Refused(refused) => {
                assert_eq!(refused.because, RefusedBecause::QueueFull);
                None
            }
        };
        self.follow();
        served
    }

    pub(super) fn cancel(&mut self, id: WaiterId) {
        assert!(self.book.cancel(id, self.now).is_some());
        self.waiting.remove(&id).unwrap();
        self.follow();
    }

    pub(super) fn open(&mut self, id: SlotId) {
        self.set_phase(id, Phase::Open);
    }

    pub(super) fn set_phase(&mut self, id: SlotId, phase: Phase) {
        self.book.set_phase(id, phase, self.now);
        self.follow();
    }

    pub(super) fn retire(&mut self, id: SlotId) {
        self.book.retire(id, self.now);
        self.follow();
    }

    pub(super) fn release(&mut self, id: SlotId) {
        self.holders.remove(&id).unwrap();
        self.released += 1;
        self.book.release(id, self.now);
        self.follow();
    }

    pub(super) fn idle(&mut self, id: SlotId, is_idle: bool) {
        self.holders[&id]
            .cell
            .set_idle_since(is_idle.then_some(self.now));
    }

    pub(super) fn may_yield(&mut self, id: SlotId) -> MayYield {
        let answer = self.book.may_yield(id, self.now);
        self.follow();
        answer
    }

    pub(super) fn set_limits(&mut self, limits: BudgetLimits) {
        self.book.set_limits(limits, self.now);
        self.follow();
    }

    pub(super) fn asked(&self) -> Vec<SlotId> {
        let asked =
            |(id, holder): (&SlotId, &Holder)| holder.cell.asked.load(Relaxed).then_some(*id);
        self.holders.iter().filter_map(asked).collect()
    }

    pub(super) fn hold(
        &mut self,
        granted: Granted,
        kind: Kind,
        shared: Option<(Partition, usize)>,
    ) -> SlotId {
        assert_eq!(
            granted.partition.as_ref(),
            shared.as_ref().map(|(partition, _)| partition)
        );
        let total = self.book.slots.len();
        assert!(
            total <= self.book.limits.total_max(),
            "{total} slots were granted"
        );
        if let Some((partition, _)) = &shared {
            let owners = self.book.partitions[partition].owners.len();
            let waiting = self.book.demands(Kind::Shared);
            assert!(
                owners == 1 || waiting == 0,
                "two for one partition, none for {waiting}"
            );
        }
        let holder = Holder {
            kind,
            shared,
            cell: granted.cell,
        };
        assert!(
            self.holders.insert(granted.id, holder).is_none(),
            "granted twice"
        );
        granted.id
    }

    pub(super) fn check_link(&self, partition: &Partition, owner: usize, cell: &Arc<SlotCell>) {
        assert!(cell.live.load(Relaxed));
        let owns = |holder: &Holder| {
            Arc::ptr_eq(&holder.cell, cell) && holder.shared == Some((partition.clone(), owner))
        };
        assert!(
            self.holders.values().any(owns),
            "linked to who owns no connection"
        );
    }

    /// Does what the book has decided, then checks everything that is always true.
    pub(super) fn follow(&mut self) {
        for decision in self.book.take_decisions() {
            match decision {
                Decision::Nudge(_) => {}
                Decision::Grant(id, granted) => {
                    let waiting = self
                        .waiting
                        .remove(&id)
                        .expect("granted to who does not wait");
                    self.hold(granted, waiting.kind, waiting.shared);
                }
                Decision::Link(id, owner, cell) => {
                    let waiting = self.waiting.remove(&id).expect("linked who does not wait");
                    self.check_link(&waiting.shared.unwrap().0, owner, &cell);
                }
            }
        }
        self.check();
    }

    pub(super) fn check(&self) {
        let book = &self.book;
        let known: BTreeSet<_> = book.slots.keys().copied().collect();
        let held: BTreeSet<_> = self.holders.keys().copied().collect();
        assert_eq!(known, held, "slots that were lost or made up");
        for kind in Kind::ALL {
            let of_kind = |holder: &&Holder| holder.kind == kind;
            assert_eq!(
                book.counts.of(kind),
                self.holders.values().filter(of_kind).count()
            );
            let line = &book.lines[kind.index()];
            let waiting: BTreeSet<_> = self
                .waiting
                .iter()
                .filter(|(_, w)| w.kind == kind)
                .map(|(&id, _)| id)
                .collect();
            assert_eq!(*line, waiting, "waiters that were lost or made up");
            let admitted = book.counts.admit(kind, &book.limits).is_ok();
            assert!(
                line.is_empty() || !admitted,
                "{kind:?} waits though there is room"
            );
        }
        for (partition, standing) in &book.partitions {
            let workers: BTreeSet<_> = standing.owners.iter().map(|(worker, _)| worker).collect();
            assert_eq!(
                workers.len(),
                standing.owners.len(),
                "a worker owns two of a partition"
            );
            let is_waiting = self.waiting.values().any(|w| {
                w.shared
                    .as_ref()
                    .is_some_and(|(waiting, _)| waiting == partition)
            });
            assert_ne!(
                is_waiting,
                !standing.owners.is_empty(),
                "either owns or waits"
            );
        }
        for (id, entry) in &book.slots {
            assert_eq!(entry.asked, entry.cell.asked.load(Relaxed));
            assert!(
                !(entry.asked && entry.retiring),
                "{id:?} is asked for what it is doing"
            );
            assert_eq!(entry.retiring, !entry.cell.live.load(Relaxed));
        }
        let wanted = !self.waiting.is_empty()
            || Kind::ALL
                .iter()
                .any(|&kind| book.counts.is_too_many(kind, &book.limits))
            || book.hints.iter().flatten().count() > 0;
        assert!(
            wanted || self.asked().is_empty(),
            "asked though nobody wants anything"
        );
    }

    /// Lets every owner that is asked give its slot back, once: those who were asked
    /// during this may be asked again in the next round.
    pub(super) fn round_of_yields(&mut self) -> bool {
        self.advance(MIN_HOLD);
        let ids: Vec<_> = self.holders.keys().copied().collect();
        for &id in &ids {
            if self.book.slots[&id].phase == Phase::Dialling {
                self.open(id);
            }
        }
        self.advance(MIN_HOLD);
        let mut anybody = false;
        for id in ids {
            let retiring = self.book.slots[&id].retiring;
            if retiring || self.may_yield(id) == MayYield::Now {
                self.release(id);
                anybody = true;
            }
        }
        anybody
    }
}
