//! The shell around the book: its lock, its clock, and those who wait.
//!
//! The lock is held for the time of one decision and never across an await. Slots
//! that could not be delivered are dropped after it is released, since dropping a
//! slot takes it again.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::book::{Book, Decision, SharedAnswer, Time, WaiterId};
use super::kind::{Kind, Partition};
use super::limits::{BudgetLimits, Refused, RefusedBecause};
use super::slot::{Link, Slot};
use super::snapshot::LedgerSnapshot;
use super::wait::{Place, SharedReady, SharedWait};

/// Counts every connection to one node, and decides who may open one.
///
/// The [module](super) says by which rules.
pub struct Ledger {
    state: Mutex<State>,
    /// When time began for the book.
    epoch: Instant,
    workers: usize,
}

struct State {
    book: Book,
    /// How to reach those who stand in line. The same ones as in the book's lines.
    turns: HashMap<WaiterId, Turn>,
}

enum Turn {
    Slot(oneshot::Sender<Slot>),
    Shared(oneshot::Sender<SharedReady>),
}

/// What a worker that wants to send plain commands gets.
#[derive(Debug)]
pub enum SharedGrant {
    /// Open a connection of your own.
    Own(Slot),
    /// Use that worker's connection: hand commands over to it in batches. Ask again
    /// when the link is no longer live, and now and then while there is much to
    /// hand over: there may be room for a connection of your own by then.
    Link(Link),
    /// Nothing was free; somebody was asked to make room.
    Wait(SharedWait),
    /// Nothing was free and `queue_max` are waiting already.
    QueueFull(Refused),
}

impl Ledger {
    /// The ledger of one node, for workers `0..workers`.
    pub fn new(limits: BudgetLimits, workers: usize) -> Arc<Ledger> {
        Arc::new(Ledger {
            state: Mutex::new(State {
                book: Book::new(limits),
                turns: HashMap::new(),
            }),
            epoch: Instant::now(),
            workers,
        })
    }

    /// A slot at once or not at all. Not for `Shared`: see [`Ledger::shared`].
    ///
    /// Being refused makes the ledger look for a connection that has been idle for
    /// long, so the next try may succeed.
    pub fn try_take(self: &Arc<Self>, kind: Kind) -> Option<Slot> {
        let granted = self.with_book(|book, now| book.try_take(kind, now))?;
        Some(Slot::new(self.clone(), granted))
    }

    /// A slot, waited for in line until `deadline`. Not for `Shared`: see
    /// [`Ledger::shared`]. Dropping the future leaves the line.
    ///
    /// # Errors
    ///
    /// [`Refused`] at once if the line is full or the kind's limit is zero, and at
    /// the deadline.
    pub async fn take(self: &Arc<Self>, kind: Kind, deadline: Instant) -> Result<Slot, Refused> {
        let (sender, turn) = oneshot::channel();
        let id = self.with_state(|state, now| {
            let id = state.book.enqueue(kind, now)?;
            state.turns.insert(id, Turn::Slot(sender));
            Ok(id)
        })?;
        let mut place = Place::new(self.clone(), id, turn);
        match tokio::time::timeout_at(deadline, &mut place).await {
            Ok(slot) => Ok(slot),
            Err(_) => place.give_up(),
        }
    }

    /// A worker wants to send plain commands of a partition.
    ///
    /// A worker that owns a live connection of the partition gets a link to itself;
    /// it owns at most one at a time ([`Slot::retire`] makes room for a successor).
    pub fn shared(self: &Arc<Self>, partition: &Partition, worker: usize) -> SharedGrant {
        debug_assert!(worker < self.workers, "worker {worker} of {}", self.workers);
        self.with_state(
            |state, now| match state.book.shared(partition, worker, now) {
                SharedAnswer::Own(granted) => SharedGrant::Own(Slot::new(self.clone(), granted)),
                SharedAnswer::Link(worker, cell) => SharedGrant::Link(Link { worker, cell }),
                SharedAnswer::Refused(refused) => SharedGrant::QueueFull(refused),
                SharedAnswer::Wait(id) => {
                    let (sender, turn) = oneshot::channel();
                    state.turns.insert(id, Turn::Shared(sender));
                    SharedGrant::Wait(SharedWait::new(Place::new(self.clone(), id, turn)))
                }
            },
        )
    }

    /// The limits in force.
    pub fn limits(&self) -> BudgetLimits {
        self.lock().book.limits.clone()
    }

    /// Replaces the limits. Slots above the new ones are asked to yield and come back
    /// as their connections finish; none is closed by force. Until then nothing new is
    /// granted.
    pub fn set_limits(self: &Arc<Self>, limits: BudgetLimits) {
        self.with_book(|book, now| book.set_limits(limits, now));
    }

    /// Replaces `max_connections` alone, as [`Ledger::set_limits`].
    pub fn set_max_connections(self: &Arc<Self>, max_connections: usize) {
        self.with_book(|book, now| {
            let limits = BudgetLimits {
                max_connections,
                ..book.limits.clone()
            };
            book.set_limits(limits, now);
        });
    }

    /// How many of `max_connections` are this process's, while it shares them with the one
    /// that it replaces or is replaced by; `None`: all. What is above it is asked to yield.
    pub fn set_cap(self: &Arc<Self>, cap: Option<usize>) {
        self.with_book(|book, now| book.set_cap(cap, now));
    }

    /// Slots that are taken, and how many more there would be a use for if the cap were
    /// higher.
    pub fn use_and_wants(&self) -> (usize, usize) {
        let now = self.now();
        let state = self.lock();
        (state.book.counts.total(), state.book.wants(now))
    }

    /// The numbers of this moment.
    pub fn snapshot(&self) -> LedgerSnapshot {
        let now = self.now();
        self.lock().book.snapshot(now)
    }

    /// What somebody who wants this kind would be told now.
    pub(super) fn refusal(&self, kind: Kind) -> Refused {
        self.lock().book.refusal(kind, RefusedBecause::TimedOut)
    }

    /// Says which limit was waited for, or nothing if the turn had come already: then
    /// it is in the waiter's channel, because both happen under the same lock.
    pub(super) fn leave_line(self: &Arc<Self>, id: WaiterId) -> Option<Refused> {
        self.with_state(|state, now| {
            state.turns.remove(&id);
            state.book.cancel(id, now)
        })
    }

    /// One event for the book, and what follows from it.
    pub(super) fn with_book<R>(self: &Arc<Self>, event: impl FnOnce(&mut Book, Time) -> R) -> R {
        self.with_state(|state, now| event(&mut state.book, now))
    }

    fn with_state<R>(self: &Arc<Self>, event: impl FnOnce(&mut State, Time) -> R) -> R {
        let now = self.now();
        let mut state = self.lock();
        let result = event(&mut state, now);
        let undelivered = self.deliver(&mut state);
        drop(state);
        drop(undelivered);
        result
    }

    /// Hands out what the book has decided, while the lock is held: whoever is no
    /// longer in line then finds its turn in its channel. Returns what nobody took.
    fn deliver(self: &Arc<Self>, state: &mut State) -> Vec<SharedReady> {
        let mut undelivered = Vec::new();
        for decision in state.book.take_decisions() {
            match decision {
                Decision::Nudge(cell) => cell.nudge.notify_one(),
                Decision::Grant(id, granted) => {
                    let slot = Slot::new(self.clone(), granted);
                    undelivered.extend(send_turn(&mut state.turns, id, SharedReady::Own(slot)));
                }
                Decision::Link(id, worker, cell) => {
                    let link = Link { worker, cell };
                    undelivered.extend(send_turn(&mut state.turns, id, SharedReady::Link(link)));
                }
            }
        }
        undelivered
    }

    pub(super) fn time_of(&self, instant: Instant) -> Time {
        instant.saturating_duration_since(self.epoch)
    }

    pub(super) fn instant_of(&self, time: Time) -> Instant {
        self.epoch + time
    }

    fn now(&self) -> Time {
        self.time_of(Instant::now())
    }

    /// A panic while the lock was held left the book in a state that its methods had
    /// finished with; going on serves everybody, stopping would serve nobody.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns what could not be delivered: the waiter has gone.
fn send_turn(
    turns: &mut HashMap<WaiterId, Turn>,
    id: WaiterId,
    ready: SharedReady,
) -> Option<SharedReady> {
    match (turns.remove(&id), ready) {
        (Some(Turn::Shared(sender)), ready) => sender.send(ready).err(),
        (Some(Turn::Slot(sender)), SharedReady::Own(slot)) => {
            sender.send(slot).err().map(SharedReady::Own)
        }
        (_, ready) => Some(ready),
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}
