//! A counted slot, as its owner holds it, and a link to somebody else's.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::book::{Granted, MayYield, SlotId};
use super::kind::{Kind, Partition, Phase};
use super::ledger::Ledger;
use super::limits::Limit;

/// Permission for one connection to the node, given back on drop.
///
/// Take it before dialling; drop it when the peer's end of the connection was seen
/// closed, or when dialling failed, and not before: until then Redis counts the
/// connection too. Every owner waits on [`Slot::asked_to_yield`].
pub struct Slot {
    ledger: Arc<Ledger>,
    id: SlotId,
    cell: Arc<SlotCell>,
    partition: Option<Partition>,
}

impl Slot {
    pub(super) fn new(ledger: Arc<Ledger>, granted: Granted) -> Slot {
        Slot {
            ledger,
            id: granted.id,
            cell: granted.cell,
            partition: granted.partition,
        }
    }

    /// What the connection is for.
    pub fn kind(&self) -> Kind {
        Kind::ALL[usize::from(self.cell.kind.load(Relaxed))]
    }

    /// How far the connection is.
    pub fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.cell.phase.load(Relaxed))]
    }

    /// The partition of a shared connection; `None` for every other kind.
    pub fn partition(&self) -> Option<&Partition> {
        self.partition.as_ref()
    }

    /// Tells the ledger how far the connection is. From `Closing` on, nobody is
    /// linked to it any more. Takes the ledger's lock.
    pub fn set_phase(&self, phase: Phase) {
        self.ledger
            .with_book(|book, now| book.set_phase(self.id, phase, now));
    }

    /// Nothing is in flight and nothing is waiting to be sent since `now`. A plain
    /// store: cheap enough for every turn in which this changes.
    pub fn set_idle(&self, now: Instant) {
        let since = self.ledger.time_of(now).as_micros() as u64;
        self.cell.idle_since.store(since + 1, Relaxed);
    }

    /// As [`Slot::set_idle`], for a connection that one client held for itself: as
    /// long as it did nobody asked for it, so whoever stands in line does now. Takes
    /// the ledger's lock.
    pub fn set_free(&self, now: Instant) {
        self.set_idle(now);
        self.ledger.with_book(|book, now| book.settle(now));
    }

    /// The connection has work. A plain store, as [`Slot::set_idle`].
    pub fn set_busy(&self) {
        self.cell.idle_since.store(0, Relaxed);
    }

    /// Stops linking others to this connection, because its owner is going to
    /// replace it (too old, stalled). The slot is counted until it is dropped; its
    /// owner may call [`Ledger::shared`] for a successor right away.
    pub fn retire(&self) {
        self.ledger.with_book(|book, now| book.retire(self.id, now));
    }

    /// Uses the connection for another kind from now on, for example a lease that
    /// turns into a tunnel. Not to or from `Shared`, whose slots belong to a partition.
    ///
    /// # Errors
    ///
    /// The limit that leaves no room; the slot then stays what it was.
    pub fn retag(&self, kind: Kind) -> Result<(), Limit> {
        self.ledger
            .with_book(|book, now| book.retag(self.id, kind, now))
    }

    /// Whether the ledger would like this slot back. One atomic load.
    pub fn is_asked_to_yield(&self) -> bool {
        self.cell.asked.load(Relaxed)
    }

    /// Resolves when this slot is to be given back: let what is in flight finish,
    /// send nothing new, close, drop the slot. From then on nobody is linked to it.
    ///
    /// A connection in use is asked no earlier than [`MIN_HOLD`](super::MIN_HOLD)
    /// after it was opened, and a request that became needless is withdrawn before
    /// this resolves. Create it once for a connection and keep it: each new one takes
    /// the ledger's lock when first polled.
    pub fn asked_to_yield(&self) -> impl Future<Output = ()> + Send + use<> {
        let (ledger, id, cell) = (self.ledger.clone(), self.id, self.cell.clone());
        async move {
            loop {
                match ledger.with_book(|book, now| book.may_yield(id, now)) {
                    MayYield::Now => return,
                    MayYield::NotBefore(time) => {
                        // A nudge may bring good news earlier, so both are waited for.
                        let at = ledger.instant_of(time);
                        let _ = tokio::time::timeout_at(at, cell.nudge.notified()).await;
                    }
                    MayYield::NotYet => cell.nudge.notified().await,
                }
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.ledger
            .with_book(|book, now| book.release(self.id, now));
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("id", &self.id)
            .field("kind", &self.kind())
            .field("phase", &self.phase())
            .field("partition", &self.partition)
            .finish_non_exhaustive()
    }
}

/// Another worker's shared connection of the same partition.
#[derive(Clone)]
pub struct Link {
    pub(super) worker: usize,
    pub(super) cell: Arc<SlotCell>,
}

impl Link {
    /// The worker that owns the connection; may be the one that asked.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// Whether commands may still be handed over: the connection is not retiring.
    /// One atomic load; when false, ask [`Ledger::shared`] again. The owner decides in
    /// the end: it may have begun to retire the connection at this very moment.
    pub fn is_live(&self) -> bool {
        self.cell.live.load(Relaxed)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("worker", &self.worker)
            .field("is_live", &self.is_live())
            .finish_non_exhaustive()
    }
}

/// What the ledger and the owner of a slot tell each other without a lock. None of
/// it decides whether a slot exists, so no ordering stronger than relaxed is needed.
#[derive(Debug)]
pub(super) struct SlotCell {
    /// 0 while in use, else microseconds of the ledger's time plus one.
    idle_since: AtomicU64,
    pub(super) asked: AtomicBool,
    pub(super) live: AtomicBool,
    pub(super) kind: AtomicU8,
    pub(super) phase: AtomicU8,
    /// Wakes the owner's `asked_to_yield`; one owner, so `notify_one`, which is
    /// remembered if nobody is waiting yet.
    pub(super) nudge: Notify,
}

impl SlotCell {
    pub(super) fn new(kind: Kind) -> SlotCell {
        SlotCell {
            idle_since: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            live: AtomicBool::new(true),
            kind: AtomicU8::new(kind.index() as u8),
            phase: AtomicU8::new(Phase::Dialling.index() as u8),
            nudge: Notify::new(),
        }
    }

    pub(super) fn idle_since(&self) -> Option<Duration> {
        self.idle_since
            .load(Relaxed)
            .checked_sub(1)
            .map(Duration::from_micros)
    }

    #[cfg(test)]
    pub(super) fn set_idle_since(&self, since: Option<Duration>) {
        self.idle_since.store(
            since.map_or(0, |since| since.as_micros() as u64 + 1),
            Relaxed,
        );
    }
}
