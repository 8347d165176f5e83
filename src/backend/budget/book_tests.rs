//! What the book decides, case by case.

use super::book::MayYield;
use super::kind::{Group, Kind, Phase};
use super::limits::{BudgetLimits, Limit, RefusedBecause};
use super::world::{Served, World, limits, ms, partition};
use super::yields::{LONG_IDLE, MIN_HOLD, QUIET};

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
        for kind in [Kind::Lease, Kind::Blocking, Kind::Subscription] {
            while world.try_take(kind).is_some() {}
        }
        assert_eq!(world.book.counts.group(Group::Held), limits(max).held_max());
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
fn blocked_clients_leave_a_held_connection_for_leases() {
    let mut world = World::new(limits(8));
    while world.try_take(Kind::Blocking).is_some() {}
    assert_eq!(world.book.counts.of(Kind::Blocking), 4);
    assert!(world.try_take(Kind::Lease).is_some());
    assert!(world.try_take(Kind::Subscription).is_some());
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
    for _ in 0..4 {
        world.enqueue(Kind::Lease);
        world.enqueue(Kind::Blocking);
    }
    assert_eq!(world.asked().len(), 4);
    for _ in 0..20 {
        world.round_of_yields();
    }
    assert_eq!(world.book.counts.group(Group::Held), 4);
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
    // What was refused is forgotten after a while.
    world.idle(slots[0], true);
    world.advance(LONG_IDLE);
    assert!(world.try_take(Kind::Probe).is_none());
    assert_eq!(world.asked(), [slots[0]]);
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
fn whom_only_an_upgrade_keeps_waiting_needs_no_place_in_a_line() {
    let none_may_wait = BudgetLimits {
        max_leases: 2,
        queue_max: 0,
        ..limits(4)
    };
    // The new process, which has nothing yet.
    let mut world = World::new(none_may_wait.clone());
    world.book.set_cap(Some(0), world.now);
    for _ in 0..4 {
        assert!(world.enqueue(Kind::Probe).is_some());
    }
    let refused = world.book.enqueue(Kind::Probe, world.now).unwrap_err();
    assert_eq!(refused.because, RefusedBecause::QueueFull);
    assert!(world.shared(0, 0).is_none());
    assert_eq!(world.book.wants(world.now), 4);
    // The old one, which has used up everything and is asked for all of it.
    let mut world = World::new(none_may_wait);
    for db in 0..4 {
        world.shared(db, 0);
    }
    // One comes at once, from what is kept for service.
    for _ in 0..1 + 4 {
        assert!(world.enqueue(Kind::Lent).is_some());
    }
    assert!(world.book.enqueue(Kind::Lent, world.now).is_err());
    assert!(world.book.enqueue(Kind::Probe, world.now).is_err());
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

#[test]
fn who_was_asked_stays_asked_unless_another_has_been_idle_for_long() {
    let mut world = World::new(limits(2));
    let mut slots = Vec::new();
    for db in 0..2 {
        let Some(Served::Slot(id)) = world.shared(db, 0) else {
            panic!("there was room")
        };
        world.open(id);
        slots.push(id);
        world.advance(ms(1));
    }
    world.shared(2, 0);
    assert_eq!(world.asked(), [slots[0]], "who held it longest");
    world.idle(slots[1], true);
    world.advance(QUIET);
    world.may_yield(slots[0]);
    assert_eq!(world.asked(), [slots[0]]);
    world.advance(LONG_IDLE);
    assert_eq!(world.may_yield(slots[0]), MayYield::NotYet);
    assert_eq!(world.asked(), [slots[1]]);
}

#[test]
fn leases_may_have_what_a_partition_has_to_spare() {
    let mut world = World::new(limits(8));
    for kind in [Kind::Lease, Kind::Blocking] {
        world.try_take(kind);
        world.try_take(kind);
    }
    let mut slots = Vec::new();
    for (db, worker) in [(0, 0), (1, 0), (1, 1)] {
        let Some(Served::Slot(id)) = world.shared(db, worker) else {
            panic!("there was room")
        };
        world.open(id);
        slots.push(id);
    }
    // They have their half, so only a spare one is asked, not the last of a partition.
    world.enqueue(Kind::Lease);
    world.enqueue(Kind::Blocking);
    assert_eq!(world.asked(), [slots[1]]);
}

#[test]
fn nobody_is_asked_for_a_waiter_whose_slot_is_on_its_way() {
    let mut world = World::new(limits(2));
    let mut slots = Vec::new();
    for db in 0..2 {
        let Some(Served::Slot(id)) = world.shared(db, 0) else {
            panic!("there was room")
        };
        world.open(id);
        slots.push(id);
    }
    world.set_phase(slots[1], Phase::Closing);
    world.shared(2, 0);
    assert!(world.asked().is_empty());
    world.shared(3, 0);
    assert_eq!(world.asked(), [slots[0]]);
}
