//! The book against a world of owners and waiters that do anything at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use proptest::prelude::*;

use super::book::{Book, Decision, Granted, MayYield, SharedAnswer, SlotId, Time, WaiterId};
use super::kind::{Group, Kind, Partition, Phase};
use super::limits::{BudgetLimits, Limit, RefusedBecause};
use super::slot::SlotCell;
use super::yields::{LONG_IDLE, MIN_HOLD, QUIET};
use crate::backend::credential::UserId;
use crate::resp::Version;

const WORKERS: usize = 3;

fn partition(db: u32) -> Partition {
    Partition {
        user: UserId::NOBODY,
        version: Version::Resp2,
        db,
        no_touch: false,
    }
}

fn limits(max_connections: usize) -> BudgetLimits {
    BudgetLimits {
        max_connections,
        max_shared: 100,
        max_leases: 100,
        max_blocking: 100,
        max_subscriptions: 100,
        queue_max: 1000,
    }
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// What the book has promised to whom, kept independently of it.
struct World {
    book: Book,
    now: Time,
    holders: BTreeMap<SlotId, Holder>,
    waiting: BTreeMap<WaiterId, Waiting>,
    /// How long those who were served had waited, in slots that came back meanwhile.
    released: usize,
}

struct Holder {
    kind: Kind,
    shared: Option<(Partition, usize)>,
    cell: Arc<SlotCell>,
}

#[derive(Clone)]
struct Waiting {
    kind: Kind,
    shared: Option<(Partition, usize)>,
}

enum Served {
    Slot(SlotId),
    Link(usize),
}

impl World {
    fn new(limits: BudgetLimits) -> World {
        World {
            book: Book::new(limits),
            now: ms(0),
            holders: BTreeMap::new(),
            waiting: BTreeMap::new(),
            released: 0,
        }
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
    }

    fn try_take(&mut self, kind: Kind) -> Option<SlotId> {
        let granted = self.book.try_take(kind, self.now);
        let id = granted.map(|granted| self.hold(granted, kind, None));
        self.follow();
        id
    }

    fn enqueue(&mut self, kind: Kind) -> Option<WaiterId> {
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
    fn shared(&mut self, db: u32, worker: usize) -> Option<Served> {
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

    fn cancel(&mut self, id: WaiterId) {
        assert!(self.book.cancel(id, self.now).is_some());
        self.waiting.remove(&id).unwrap();
        self.follow();
    }

    fn open(&mut self, id: SlotId) {
        self.set_phase(id, Phase::Open);
    }

    fn set_phase(&mut self, id: SlotId, phase: Phase) {
        self.book.set_phase(id, phase, self.now);
        self.follow();
    }

    fn retire(&mut self, id: SlotId) {
        self.book.retire(id, self.now);
        self.follow();
    }

    fn release(&mut self, id: SlotId) {
        self.holders.remove(&id).unwrap();
        self.released += 1;
        self.book.release(id, self.now);
        self.follow();
    }

    fn idle(&mut self, id: SlotId, is_idle: bool) {
        self.holders[&id]
            .cell
            .set_idle_since(is_idle.then_some(self.now));
    }

    fn may_yield(&mut self, id: SlotId) -> MayYield {
        let answer = self.book.may_yield(id, self.now);
        self.follow();
        answer
    }

    fn set_limits(&mut self, limits: BudgetLimits) {
        self.book.set_limits(limits, self.now);
        self.follow();
    }

    fn asked(&self) -> Vec<SlotId> {
        let asked =
            |(id, holder): (&SlotId, &Holder)| holder.cell.asked.load(Relaxed).then_some(*id);
        self.holders.iter().filter_map(asked).collect()
    }

    fn hold(&mut self, granted: Granted, kind: Kind, shared: Option<(Partition, usize)>) -> SlotId {
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

    fn check_link(&self, partition: &Partition, owner: usize, cell: &Arc<SlotCell>) {
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
    fn follow(&mut self) {
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

    fn check(&self) {
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
    fn round_of_yields(&mut self) -> bool {
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

/// One thing that happens. Numbers choose among those who are there.
#[derive(Debug, Clone)]
enum Event {
    TryTake(Kind),
    Enqueue(Kind),
    Shared(u32, usize),
    Cancel(usize),
    Phase(usize, Phase),
    Release(usize),
    Retire(usize),
    Retag(usize, Kind),
    Idle(usize, bool),
    MayYield(usize),
    YieldAll,
    SetLimits(BudgetLimits),
    Advance(u64),
}

fn kind_but_shared() -> impl Strategy<Value = Kind> {
    (1..Kind::COUNT).prop_map(|index| Kind::ALL[index])
}

fn any_limits() -> impl Strategy<Value = BudgetLimits> {
    let small = || prop_oneof![4 => 1..6usize, 1 => Just(100), 1 => Just(0)];
    (0..9usize, small(), small(), small(), small(), 0..12usize).prop_map(
        |(max_connections, max_shared, max_leases, max_blocking, max_subscriptions, queue_max)| {
            BudgetLimits {
                max_connections,
                max_shared,
                max_leases,
                max_blocking,
                max_subscriptions,
                queue_max,
            }
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let any = || 0..1000usize;
    prop_oneof![
        4 => kind_but_shared().prop_map(Event::TryTake),
        6 => kind_but_shared().prop_map(Event::Enqueue),
        12 => (0..6u32, 0..WORKERS).prop_map(|(db, worker)| Event::Shared(db, worker)),
        3 => any().prop_map(Event::Cancel),
        8 => any().prop_map(|i| Event::Phase(i, Phase::Open)),
        2 => any().prop_map(|i| Event::Phase(i, Phase::Closing)),
        6 => any().prop_map(Event::Release),
        2 => any().prop_map(Event::Retire),
        2 => (any(), kind_but_shared()).prop_map(|(i, kind)| Event::Retag(i, kind)),
        6 => (any(), proptest::bool::ANY).prop_map(|(i, is_idle)| Event::Idle(i, is_idle)),
        6 => any().prop_map(Event::MayYield),
        2 => Just(Event::YieldAll),
        1 => any_limits().prop_map(Event::SetLimits),
        8 => prop_oneof![0..30u64, 0..2000u64].prop_map(Event::Advance),
    ]
}

fn happen(world: &mut World, event: &Event) {
    let slot = |world: &World, i: usize| {
        let count = world.holders.len().max(1);
        world.holders.keys().nth(i % count).copied()
    };
    let with_slot = |world: &mut World, i: usize, act: &dyn Fn(&mut World, SlotId)| {
        if let Some(id) = slot(world, i) {
            act(world, id);
        }
    };
    match event {
        Event::TryTake(kind) => drop(world.try_take(*kind)),
        Event::Enqueue(kind) => drop(world.enqueue(*kind)),
        Event::Shared(db, worker) => drop(world.shared(*db, *worker)),
        Event::Cancel(i) => {
            let count = world.waiting.len().max(1);
            if let Some(&id) = world.waiting.keys().nth(i % count) {
                world.cancel(id);
            }
        }
        Event::Phase(i, phase) => with_slot(world, *i, &|world, id| {
            if world.book.slots[&id].phase.index() < phase.index() {
                world.set_phase(id, *phase);
            }
        }),
        Event::Release(i) => with_slot(world, *i, &|world, id| world.release(id)),
        Event::Retire(i) => with_slot(world, *i, &|world, id| world.retire(id)),
        Event::Retag(i, kind) => with_slot(world, *i, &|world, id| {
            if world.holders[&id].kind != Kind::Shared {
                let counts = world.book.counts.clone();
                if world.book.retag(id, *kind, world.now).is_ok() {
                    world.holders.get_mut(&id).unwrap().kind = *kind;
                } else {
                    assert_eq!(world.book.counts, counts);
                }
                world.follow();
            }
        }),
        Event::Idle(i, is_idle) => with_slot(world, *i, &|world, id| world.idle(id, *is_idle)),
        Event::MayYield(i) => with_slot(world, *i, &|world, id| {
            if world.may_yield(id) == MayYield::Now {
                world.release(id);
            }
        }),
        Event::YieldAll => drop(world.round_of_yields()),
        Event::SetLimits(limits) => world.set_limits(limits.clone()),
        Event::Advance(by) => world.advance(ms(*by)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens: never above the limit, nothing lost, nobody waits in vain
    /// (see `World::check`).
    #[test]
    fn the_book_is_always_in_order(
        limits in any_limits(),
        events in proptest::collection::vec(event(), 1..150),
    ) {
        let mut world = World::new(limits);
        for event in &events {
            happen(&mut world, event);
        }
    }

    /// Once owners do as they are asked and held connections come to their end,
    /// everybody in line is served, and no slot has to come back more often than
    /// there are waiters and slots.
    #[test]
    fn everybody_in_line_is_served_in_the_end(
        limits in any_limits(),
        events in proptest::collection::vec(event(), 1..150),
    ) {
        let mut world = World::new(limits);
        for event in &events {
            happen(&mut world, event);
        }
        // Limits may have been set to zero after somebody began to wait.
        let kinds_max = world.book.limits.queue_max.max(1);
        world.set_limits(BudgetLimits {
            max_leases: kinds_max,
            max_blocking: kinds_max,
            max_subscriptions: kinds_max,
            ..world.book.limits.clone()
        });
        let bound = world.released + world.waiting.len() + world.holders.len();
        while !world.waiting.is_empty() {
            if !world.round_of_yields() {
                let mut held = world.holders.iter().filter(|(_, h)| h.kind.group() == Group::Held);
                let Some((&id, _)) = held.next() else {
                    let lines: Vec<_> = world.waiting.values().map(|w| w.kind).collect();
                    panic!("{lines:?} wait, {:?} hold and are not asked", world.book.counts);
                };
                world.release(id);
            }
            prop_assert!(world.released <= bound, "more slots came back than should be needed");
        }
    }

    /// As many as want to, all the time: whoever gave a slot back stands in line
    /// again at once. Nobody waits longer than everybody's turn takes.
    #[test]
    fn nobody_starves_while_all_keep_asking(
        max_connections in 1..10usize,
        partitions in 0..12u32,
        wanting in proptest::collection::vec(kind_but_shared(), 0..24),
    ) {
        let mut world = World::new(limits(max_connections));
        let asking = partitions as usize * WORKERS + wanting.len();
        for kind in &wanting {
            world.enqueue(*kind);
        }
        for db in 0..partitions {
            for worker in 0..WORKERS {
                world.shared(db, worker);
            }
        }
        let mut seen: BTreeMap<WaiterId, usize> = BTreeMap::new();
        for round in 0..60 {
            let before: BTreeSet<_> = world.holders.keys().copied().collect();
            world.round_of_yields();
            // Held connections end by themselves; they stood in line like everybody.
            let held: Vec<_> = world
                .holders
                .iter()
                .filter(|(id, h)| before.contains(id) && h.kind.group() == Group::Held)
                .map(|(&id, h)| (id, h.kind))
                .collect();
            for (id, _) in &held {
                world.release(*id);
            }
            // All who are not served ask again.
            for kind in missing_kinds(&world, &wanting) {
                world.enqueue(kind);
            }
            for db in 0..partitions {
                for worker in 0..WORKERS {
                    let waits = world.waiting.values().any(|w| w.shared == Some((partition(db), worker)));
                    if !waits {
                        world.shared(db, worker);
                    }
                }
            }
            seen.retain(|id, _| world.waiting.contains_key(id));
            for &id in world.waiting.keys() {
                let since = *seen.entry(id).or_insert(round);
                let kind = world.waiting[&id].kind;
                // One round moves at least one slot, and of what moves each kind that
                // waits gets its turn: at most everybody else's turns in between.
                prop_assert!(
                    round - since <= 8 * (asking + 1),
                    "{kind:?} waits since round {since}, now {round}"
                );
            }
        }
    }
}

/// Which of those who want a slot neither hold one nor wait.
fn missing_kinds(world: &World, wanting: &[Kind]) -> Vec<Kind> {
    let mut missing = wanting.to_vec();
    let holding = world.holders.values().map(|holder| holder.kind);
    let waiting = world.waiting.values().map(|waiting| waiting.kind);
    for kind in holding.chain(waiting) {
        if let Some(at) = missing.iter().position(|&wanted| wanted == kind) {
            missing.swap_remove(at);
        }
    }
    missing
}

#[test]
fn one_connection_serves_partitions_and_kinds_in_turn() {
    let mut world = World::new(limits(1));
    let Some(Served::Slot(first)) = world.shared(0, 0) else {
        panic!("there was room")
    };
    world.open(first);
    assert!(world.shared(1, 0).is_none());
    assert!(world.shared(2, 1).is_none());
    world.enqueue(Kind::Lease);
    assert_eq!(world.asked(), [first]);
    assert_eq!(world.may_yield(first), MayYield::NotBefore(MIN_HOLD));
    let mut order = Vec::new();
    for _ in 0..4 {
        world.advance(MIN_HOLD);
        let (&id, holder) = world.holders.iter().next().unwrap();
        order.push((holder.kind, holder.shared.as_ref().map(|(p, _)| p.db)));
        if holder.kind == Kind::Lease {
            world.release(id);
            continue;
        }
        world.open(id);
        world.advance(MIN_HOLD);
        if world.may_yield(id) == MayYield::Now {
            world.release(id);
        }
    }
    let expected = [
        (Kind::Shared, Some(0)),
        (Kind::Lease, None),
        (Kind::Shared, Some(1)),
        (Kind::Shared, Some(2)),
    ];
    assert_eq!(order, expected);
    assert!(world.asked().is_empty(), "nobody waits any more");
}

#[test]
fn workers_of_a_partition_that_waits_get_its_connection_together() {
    let mut world = World::new(limits(1));
    let Some(Served::Slot(first)) = world.shared(0, 0) else {
        panic!("there was room")
    };
    world.open(first);
    for worker in [2, 0, 1] {
        assert!(world.shared(1, worker).is_none());
    }
    world.advance(MIN_HOLD);
    assert_eq!(world.may_yield(first), MayYield::Now);
    assert!(
        world.shared(0, 1).is_none(),
        "nobody is linked to what is about to close"
    );
    world.release(first);
    // Worker 2 came first and owns it now; the others do not wait any more.
    let holder = world.holders.values().next().unwrap();
    assert_eq!(holder.shared, Some((partition(1), 2)));
    assert_eq!(world.waiting.len(), 1);
    assert!(matches!(world.shared(1, 0), Some(Served::Link(2))));
}

#[test]
fn an_idle_connection_yields_at_once_and_a_pause_between_commands_is_not_idle() {
    let mut world = World::new(limits(1));
    let Some(Served::Slot(id)) = world.shared(0, 0) else {
        panic!("there was room")
    };
    world.open(id);
    world.advance(ms(1));
    world.idle(id, true);
    assert!(world.shared(1, 0).is_none());
    assert_eq!(world.may_yield(id), MayYield::NotBefore(ms(1) + QUIET));
    world.advance(ms(1));
    world.idle(id, false);
    assert_eq!(world.may_yield(id), MayYield::NotBefore(MIN_HOLD));
    world.idle(id, true);
    world.advance(QUIET);
    assert_eq!(world.may_yield(id), MayYield::Now);
}

#[test]
fn a_request_to_yield_is_withdrawn_when_the_waiter_goes() {
    let mut world = World::new(limits(1));
    let Some(Served::Slot(id)) = world.shared(0, 0) else {
        panic!("there was room")
    };
    world.open(id);
    world.shared(1, 0);
    assert_eq!(world.asked(), [id]);
    let (&waiter, _) = world.waiting.iter().next().unwrap();
    world.cancel(waiter);
    assert!(world.asked().is_empty());
    world.advance(MIN_HOLD);
    assert_eq!(world.may_yield(id), MayYield::NotYet);
}

#[test]
fn a_partition_with_two_gives_one_before_another_gives_its_only_one() {
    let mut world = World::new(limits(3));
    let mut slots = Vec::new();
    for (db, worker) in [(0, 0), (1, 0), (1, 1)] {
        let Some(Served::Slot(id)) = world.shared(db, worker) else {
            panic!("there was room")
        };
        world.open(id);
        slots.push(id);
    }
    assert!(world.shared(2, 0).is_none());
    let asked = world.asked();
    assert_eq!(asked.len(), 1);
    assert!(
        slots[1..].contains(&asked[0]),
        "the only one of partition 0 is asked"
    );
    // A second waiter has only single ones left to choose from: who held it longest.
    world.shared(3, 0);
    assert_eq!(world.asked().len(), 2);
}

#[test]
fn idle_for_long_goes_first_whoever_owns_it() {
    let mut world = World::new(limits(3));
    let mut slots = Vec::new();
    for (db, worker) in [(0, 0), (1, 0), (1, 1)] {
        let Some(Served::Slot(id)) = world.shared(db, worker) else {
            panic!("there was room")
        };
        world.open(id);
        slots.push(id);
    }
    world.idle(slots[0], true);
    world.advance(LONG_IDLE);
    world.enqueue(Kind::Lease);
    assert_eq!(world.asked(), [slots[0]]);
}

#[test]
fn leases_leave_room_for_plain_traffic_and_for_probes() {
    for max in 2..20 {
        let mut world = World::new(limits(max));
        while world.try_take(Kind::Lease).is_some() {}
        assert!(
            matches!(world.shared(0, 0), Some(Served::Slot(_))),
            "max_connections = {max}"
        );
        if max >= 4 {
            assert!(world.shared(1, 0).is_none());
            assert!(
                world.try_take(Kind::Probe).is_some(),
                "max_connections = {max}"
            );
        }
    }
}

#[test]
fn leases_make_plain_traffic_rotate_only_up_to_their_half() {
    let mut world = World::new(limits(8));
    for db in 0..7 {
        let Some(Served::Slot(id)) = world.shared(db, 0) else {
            panic!("there was room")
        };
        world.open(id);
    }
    for _ in 0..8 {
        world.enqueue(Kind::Blocking);
    }
    assert_eq!(world.asked().len(), 4);
    for _ in 0..20 {
        world.round_of_yields();
    }
    assert_eq!(world.book.counts.of(Kind::Blocking), 4);
    // But an idle connection is theirs.
    let (&id, _) = world
        .holders
        .iter()
        .find(|(_, h)| h.kind == Kind::Shared)
        .unwrap();
    world.idle(id, true);
    world.advance(QUIET);
    world.enqueue(Kind::Blocking);
    assert_eq!(world.asked(), [id]);
}

#[test]
fn a_refused_try_gets_an_idle_connection_closed_for_the_next_one() {
    let mut world = World::new(BudgetLimits {
        max_leases: 1,
        ..limits(2)
    });
    let mut slots = Vec::new();
    for worker in 0..2 {
        let Some(Served::Slot(id)) = world.shared(0, worker) else {
            panic!("there was room")
        };
        world.open(id);
        slots.push(id);
    }
    assert!(world.try_take(Kind::Lease).is_none());
    assert!(world.asked().is_empty(), "busy ones are left alone");
    world.idle(slots[1], true);
    world.advance(LONG_IDLE);
    assert!(world.try_take(Kind::Lease).is_none());
    assert_eq!(world.asked(), [slots[1]]);
    assert_eq!(world.may_yield(slots[1]), MayYield::Now);
    world.release(slots[1]);
    assert!(world.try_take(Kind::Lease).is_some());
    // The hint is forgotten after a while.
    world.idle(slots[0], true);
    assert!(world.try_take(Kind::Lease).is_none());
    world.advance(LONG_IDLE * 3);
    assert_eq!(world.may_yield(slots[0]), MayYield::NotYet);
}

#[test]
fn a_narrower_limit_asks_for_what_is_too_much_and_leaves_plain_traffic_one() {
    let mut world = World::new(limits(8));
    for _ in 0..4 {
        world.try_take(Kind::Lease);
    }
    for db in 0..3 {
        let Some(Served::Slot(id)) = world.shared(db, 0) else {
            panic!("there was room")
        };
        world.open(id);
    }
    world.set_limits(limits(2));
    assert_eq!(
        world.asked().len(),
        2,
        "leases are not asked, the last shared one neither"
    );
    world.round_of_yields();
    assert_eq!(world.book.counts.total(), 5);
    assert!(world.try_take(Kind::Control).is_none());
    // When the leases are done, the partitions that lost theirs get their turn again.
    world.shared(7, 0);
    let leases: Vec<_> = world
        .holders
        .iter()
        .filter(|(_, h)| h.kind == Kind::Lease)
        .map(|(&id, _)| id)
        .collect();
    for id in leases {
        world.release(id);
    }
    assert_eq!(world.book.counts.of(Kind::Shared), 2);
}

#[test]
fn a_narrower_limit_of_one_kind_asks_that_kind() {
    let mut world = World::new(limits(8));
    for worker in 0..3 {
        let Some(Served::Slot(id)) = world.shared(0, worker) else {
            panic!("there was room")
        };
        world.open(id);
    }
    world.set_limits(BudgetLimits {
        max_shared: 1,
        ..limits(8)
    });
    assert_eq!(world.asked().len(), 2);
    assert!(world.shared(1, 0).is_none());
    assert_eq!(world.asked().len(), 3);
    world.round_of_yields();
    assert!(matches!(world.shared(1, 0), Some(Served::Link(0))));
}

#[test]
fn a_limit_of_zero_is_said_at_once() {
    let mut world = World::new(BudgetLimits {
        max_blocking: 0,
        ..limits(8)
    });
    assert!(world.enqueue(Kind::Blocking).is_none());
    let refused = world.book.enqueue(Kind::Blocking, world.now).unwrap_err();
    assert_eq!(refused.because, RefusedBecause::LimitIsZero);
    assert_eq!(refused.limit.setting(), "max_blocking");
}

#[test]
fn the_line_is_bounded_and_names_its_limit() {
    let mut world = World::new(BudgetLimits {
        max_leases: 1,
        queue_max: 2,
        ..limits(8)
    });
    for _ in 0..3 {
        assert!(world.enqueue(Kind::Lease).is_some());
    }
    let refused = world.book.enqueue(Kind::Lease, world.now).unwrap_err();
    assert_eq!(
        (refused.because, refused.limit),
        (RefusedBecause::QueueFull, Limit::Leases)
    );
    assert_eq!(refused.limit_value, 1);
}

#[test]
fn a_worker_that_replaces_its_connection_gets_a_second_one_while_the_first_ends() {
    let mut world = World::new(limits(2));
    let Some(Served::Slot(old)) = world.shared(0, 0) else {
        panic!("there was room")
    };
    world.open(old);
    assert!(
        matches!(world.shared(0, 0), Some(Served::Link(0))),
        "one for each worker"
    );
    world.retire(old);
    assert!(matches!(world.shared(0, 0), Some(Served::Slot(new)) if new != old));
    assert!(matches!(world.shared(0, 1), Some(Served::Link(0))));
}
