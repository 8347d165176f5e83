//! The book against owners and waiters that do anything at any time.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::book::{MayYield, SlotId, WaiterId};
use super::kind::{Group, Kind, Phase};
use super::limits::BudgetLimits;
use super::world::{WORKERS, World, limits, ms, partition};

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
                cap: None,
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
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

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
    /// again at once. Nobody waits longer than it takes until everybody before it in
    /// its line was served and, each time, every other kind had its turn.
    #[test]
    fn nobody_starves_while_all_keep_asking(
        max_connections in 1..10usize,
        partitions in 0..8u32,
        wanting in proptest::collection::vec(kind_but_shared(), 0..10),
    ) {
        let mut world = World::new(limits(max_connections));
        // By waiter: the round it came in, and the round by which it must be served.
        let mut due: BTreeMap<WaiterId, (usize, usize)> = BTreeMap::new();
        for round in 0..120 {
            all_ask(&mut world, partitions, &wanting);
            due.retain(|id, _| world.waiting.contains_key(id));
            for (&id, waiting) in &world.waiting {
                let in_line = world.book.demands(waiting.kind);
                due.entry(id).or_insert((round, round + (in_line + 1) * Kind::COUNT));
            }
            for (id, (since, until)) in &due {
                let kind = world.waiting[id].kind;
                prop_assert!(round <= *until, "{kind:?} waits since round {since}, now {round}");
            }
            let before: BTreeSet<_> = world.holders.keys().copied().collect();
            world.round_of_yields();
            // Held connections end by themselves, one round after they were opened.
            let held: Vec<_> = world
                .holders
                .iter()
                .filter(|(id, h)| before.contains(id) && h.kind.group() == Group::Held)
                .map(|(&id, _)| id)
                .collect();
            for id in held {
                world.release(id);
            }
        }
    }
}

fn all_ask(world: &mut World, partitions: u32, wanting: &[Kind]) {
    for kind in missing_kinds(world, wanting) {
        world.enqueue(kind);
    }
    for db in 0..partitions {
        for worker in 0..WORKERS {
            let asked = Some((partition(db), worker));
            if !world
                .waiting
                .values()
                .any(|waiting| waiting.shared == asked)
            {
                world.shared(db, worker);
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
