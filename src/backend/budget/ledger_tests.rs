//! The shell: futures that are dropped, deadlines, many threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::*;
use crate::backend::credential::UserId;
use crate::resp::Version;

fn limits(max_connections: usize) -> BudgetLimits {
    BudgetLimits {
        max_connections,
        max_shared: 100,
        max_leases: 100,
        max_blocking: 100,
        max_subscriptions: 100,
        queue_max: 10_000,
        cap: None,
    }
}

fn partition(db: u32) -> Partition {
    Partition {
        user: UserId::NOBODY,
        version: Version::Resp3,
        db,
        no_touch: false,
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(1)
}

#[tokio::test(start_paused = true)]
async fn a_slot_comes_back_when_it_is_dropped() {
    let ledger = Ledger::new(limits(1), 1);
    let slot = ledger.try_take(Kind::Lease).unwrap();
    assert!(ledger.try_take(Kind::Probe).is_none());
    assert_eq!((slot.kind(), slot.phase()), (Kind::Lease, Phase::Dialling));
    slot.set_phase(Phase::Closing);
    assert_eq!(slot.phase(), Phase::Closing);
    assert!(
        ledger.try_take(Kind::Probe).is_none(),
        "closing still counts"
    );
    drop(slot);
    assert!(ledger.try_take(Kind::Probe).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_its_deadline_and_names_the_limit() {
    let ledger = Ledger::new(
        BudgetLimits {
            max_leases: 2,
            ..limits(8)
        },
        1,
    );
    let _held = (ledger.try_take(Kind::Lease), ledger.try_take(Kind::Tunnel));
    let began = Instant::now();
    let refused = ledger.take(Kind::Lease, soon()).await.unwrap_err();
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    assert_eq!(
        refused,
        Refused {
            kind: Kind::Lease,
            limit: Limit::Leases,
            limit_value: 2,
            because: RefusedBecause::TimedOut
        }
    );
    let snapshot = ledger.snapshot();
    assert_eq!(snapshot.waiting[Kind::Lease.index()], 0);
    assert_eq!(snapshot.counters.gave_up[Kind::Lease.index()], 1);
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_in_the_moment_of_its_turn_gives_the_slot_on() {
    let ledger = Ledger::new(limits(1), 1);
    let slot = ledger.try_take(Kind::Lease).unwrap();
    let mut first = Box::pin(ledger.take(Kind::Lease, soon()));
    let mut second = Box::pin(ledger.take(Kind::Lease, soon()));
    assert!(timeout(Duration::ZERO, &mut first).await.is_err());
    assert!(timeout(Duration::ZERO, &mut second).await.is_err());
    drop(slot);
    // The slot lies in the first one's channel, and it never looks.
    drop(first);
    assert!(second.await.is_ok());
    assert!(ledger.try_take(Kind::Lease).is_some(), "nothing was lost");
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_leaves_the_line_and_its_request_is_withdrawn() {
    let ledger = Ledger::new(limits(1), 1);
    let SharedGrant::Own(slot) = ledger.shared(&partition(0), 0) else {
        panic!("there was room")
    };
    slot.set_phase(Phase::Open);
    let mut waiting = Box::pin(ledger.take(Kind::Lease, soon()));
    assert!(timeout(Duration::ZERO, &mut waiting).await.is_err());
    let wait = ledger.shared(&partition(1), 0);
    assert!(slot.is_asked_to_yield());
    drop(waiting);
    assert!(slot.is_asked_to_yield());
    drop(wait);
    assert!(!slot.is_asked_to_yield());
    assert_eq!(ledger.snapshot().waiting, [0; Kind::COUNT]);
    assert_eq!(ledger.snapshot().partitions, 1);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_comes_with_the_deadline_counts() {
    let ledger = Ledger::new(limits(1), 1);
    let slot = ledger.try_take(Kind::Lease).unwrap();
    let mut waiting = Box::pin(ledger.take(Kind::Lease, soon()));
    assert!(timeout(Duration::ZERO, &mut waiting).await.is_err());
    drop(slot);
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!(waiting.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_owner_is_asked_after_its_minimum_hold_and_the_next_one_is_served() {
    let ledger = Ledger::new(limits(1), 2);
    let SharedGrant::Own(slot) = ledger.shared(&partition(0), 0) else {
        panic!("room for one")
    };
    let mut asked = Box::pin(slot.asked_to_yield());
    assert!(
        timeout(Duration::from_secs(5), &mut asked).await.is_err(),
        "nobody wants it"
    );
    slot.set_phase(Phase::Open);
    let SharedGrant::Link(link) = ledger.shared(&partition(0), 1) else {
        panic!("one there is")
    };
    assert_eq!((link.worker(), link.is_live()), (0, true));
    let SharedGrant::Wait(wait) = ledger.shared(&partition(1), 1) else {
        panic!("it is full")
    };
    assert_eq!(wait.limit().limit, Limit::Connections);
    assert!(slot.is_asked_to_yield());
    let began = Instant::now();
    asked.await;
    assert!(began.elapsed() >= MIN_HOLD);
    assert!(!link.is_live());
    drop(slot);
    assert!(
        matches!(wait.await, SharedReady::Own(slot) if slot.partition() == Some(&partition(1)))
    );
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_waits_to_be_asked_is_not_left_waiting_when_its_slot_is_gone() {
    let ledger = Ledger::new(limits(1), 1);
    let slot = ledger.try_take(Kind::Control).unwrap();
    let asked = slot.asked_to_yield();
    drop(slot);
    asked.await;
}

#[tokio::test(start_paused = true)]
async fn a_waiting_partition_is_linked_on_all_its_workers() {
    let ledger = Ledger::new(limits(1), 4);
    let slot = ledger.try_take(Kind::Lease).unwrap();
    let waits: Vec<_> = (0..4)
        .map(|worker| match ledger.shared(&partition(0), worker) {
            SharedGrant::Wait(wait) => wait,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ledger.snapshot().partitions_waiting, 1);
    drop(slot);
    let mut own = Vec::new();
    for (worker, wait) in waits.into_iter().enumerate() {
        match wait.await {
            SharedReady::Own(slot) => own.push((worker, slot)),
            SharedReady::Link(link) => assert_eq!((link.worker(), link.is_live()), (0, true)),
        }
    }
    assert_eq!(own.len(), 1);
    assert_eq!(own[0].0, 0);
}

#[tokio::test(start_paused = true)]
async fn the_limit_changes_while_running() {
    let ledger = Ledger::new(limits(1), 1);
    let _slot = ledger.try_take(Kind::Lease).unwrap();
    let mut waiting = Box::pin(ledger.take(Kind::Probe, soon()));
    assert!(timeout(Duration::ZERO, &mut waiting).await.is_err());
    ledger.set_max_connections(4);
    let _probe = waiting.await.unwrap();
    ledger.set_max_connections(1);
    assert_eq!(ledger.limits().max_connections, 1);
    assert!(ledger.try_take(Kind::Probe).is_none());
    assert_eq!(ledger.snapshot().total(), 2, "nothing is closed by force");
}

/// Connections are counted by the threads themselves, as Redis would.
struct Connections {
    open: AtomicUsize,
    most: AtomicUsize,
    max: usize,
}

impl Connections {
    fn opened(&self) {
        let open = self.open.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(open, SeqCst);
        assert!(open <= self.max, "{open} connections of {}", self.max);
    }

    fn closed(&self) {
        self.open.fetch_sub(1, SeqCst);
    }
}

/// Many workers, each with a runtime of its own, want many partitions and leases all
/// the time and cancel now and then. All of them get somewhere, the budget holds, and
/// in the end every slot is back.
#[test]
fn many_threads_share_a_few_connections() {
    for max in [1, 2, 5] {
        stress(max);
    }
}

const THREADS: usize = 4;
const PARTITIONS: u32 = 4;
const TURNS: usize = 3;

fn stress(max: usize) {
    let ledger = Ledger::new(limits(max), THREADS);
    let connections = Arc::new(Connections {
        open: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
        max,
    });
    std::thread::scope(|scope| {
        for worker in 0..THREADS {
            let (ledger, connections) = (ledger.clone(), connections.clone());
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                let tasks = tokio::task::LocalSet::new();
                for db in 0..PARTITIONS {
                    tasks.spawn_local(plain_traffic(
                        ledger.clone(),
                        connections.clone(),
                        worker,
                        partition(db),
                    ));
                }
                for kind in [Kind::Lease, Kind::Blocking, Kind::Control, Kind::Probe] {
                    tasks.spawn_local(held_traffic(ledger.clone(), connections.clone(), kind));
                }
                tasks.spawn_local(impatient_traffic(ledger.clone()));
                runtime.block_on(tasks);
            });
        }
    });
    let snapshot = ledger.snapshot();
    assert_eq!(snapshot.total(), 0, "{snapshot:?}");
    assert_eq!(
        (snapshot.partitions, snapshot.waiting),
        (0, [0; Kind::COUNT])
    );
    assert_eq!(connections.open.load(SeqCst), 0);
    assert_eq!(connections.most.load(SeqCst), max);
}

/// One worker's traffic of one partition: by its own connection or another's.
async fn plain_traffic(
    ledger: Arc<Ledger>,
    connections: Arc<Connections>,
    worker: usize,
    partition: Partition,
) {
    for _ in 0..TURNS {
        let ready = match ledger.shared(&partition, worker) {
            SharedGrant::Own(slot) => SharedReady::Own(slot),
            SharedGrant::Link(link) => SharedReady::Link(link),
            SharedGrant::Wait(wait) => wait.await,
            SharedGrant::QueueFull(refused) => panic!("{refused:?}"),
        };
        match ready {
            SharedReady::Link(link) => {
                // Its owner serves us for as long as it has it.
                while link.is_live() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            SharedReady::Own(slot) => {
                connections.opened();
                slot.set_phase(Phase::Open);
                // A connection that nobody wants is idle in the end and is closed.
                let idle = Duration::from_millis(60);
                let _ = timeout(idle, slot.asked_to_yield()).await;
                slot.set_phase(Phase::Closing);
                tokio::task::yield_now().await;
                connections.closed();
            }
        }
    }
}

async fn held_traffic(ledger: Arc<Ledger>, connections: Arc<Connections>, kind: Kind) {
    for _ in 0..TURNS {
        let deadline = Instant::now() + Duration::from_secs(60);
        let slot = ledger.take(kind, deadline).await.expect("its turn comes");
        connections.opened();
        slot.set_phase(Phase::Open);
        tokio::time::sleep(Duration::from_millis(1)).await;
        connections.closed();
    }
}

/// Gives up at once, at any moment of its wait.
async fn impatient_traffic(ledger: Arc<Ledger>) {
    for round in 0..50 {
        let patience = Duration::from_micros(round * 37 % 2000);
        let _ = timeout(patience, ledger.take(Kind::Subscription, soon())).await;
        if let SharedGrant::Wait(wait) = ledger.shared(&partition(99), 0) {
            let _ = timeout(patience, wait).await;
        }
        drop(ledger.try_take(Kind::Tunnel));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Two ledgers of one budget: what one lends the other may use, and never both.
#[tokio::test(start_paused = true)]
async fn two_processes_share_one_budget() {
    let (old, new) = (Ledger::new(limits(2), 1), Ledger::new(limits(2), 1));
    new.set_cap(Some(0));
    let SharedGrant::Wait(waits) = new.shared(&partition(0), 0) else {
        panic!("there is no place");
    };
    assert_eq!(new.use_and_wants(), (0, 1));
    let lent = old.take(Kind::Lent, soon()).await.unwrap();
    lent.set_phase(Phase::Open);
    assert!(old.try_take(Kind::Lent).is_none(), "one stays");
    // Who was served first is asked first.
    tokio::time::advance(Duration::from_millis(1)).await;
    let SharedGrant::Own(mine) = old.shared(&partition(0), 0) else {
        panic!("the other one");
    };
    mine.set_phase(Phase::Open);
    new.set_cap(Some(1));
    let SharedReady::Own(theirs) = waits.await else {
        panic!("a place of its own");
    };
    // The old one needs a second, and asks for what it has lent.
    let SharedGrant::Wait(second) = old.shared(&partition(1), 0) else {
        panic!("the budget is used up");
    };
    lent.asked_to_yield().await;
    new.set_cap(Some(0));
    theirs.set_phase(Phase::Open);
    theirs.asked_to_yield().await;
    drop(theirs);
    assert_eq!(new.use_and_wants().0, 0);
    drop(lent);
    let second = second.await;
    assert_eq!(old.snapshot().of(Kind::Shared), 2);
    // In the end all places are the new one's.
    drop((mine, second));
    old.set_cap(Some(0));
    new.set_cap(None);
    assert_eq!(new.limits().total_max(), 2);
}
