//! Standing in line.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

use super::book::WaiterId;
use super::kind::Kind;
use super::ledger::Ledger;
use super::limits::Refused;
use super::slot::{Link, Slot};

/// How a partition's wait ended.
#[derive(Debug)]
pub enum SharedReady {
    /// The worker may open a connection of its own.
    Own(Slot),
    /// Another worker got the slot for this partition; its connection can be used.
    Link(Link),
}

/// A place in line. Dropping it leaves the line; a slot that was granted in that
/// moment is given back.
pub(super) struct Place<T> {
    ledger: Arc<Ledger>,
    id: WaiterId,
    turn: oneshot::Receiver<T>,
    is_over: bool,
}

impl<T> Place<T> {
    pub(super) fn new(ledger: Arc<Ledger>, id: WaiterId, turn: oneshot::Receiver<T>) -> Place<T> {
        Place {
            ledger,
            id,
            turn,
            is_over: false,
        }
    }

    /// Leaves the line at the deadline: a turn that came just before counts.
    pub(super) fn give_up(mut self) -> Result<T, Refused> {
        self.is_over = true;
        match self.ledger.leave_line(self.id) {
            Some(refused) => Err(refused),
            None => Ok(self
                .turn
                .try_recv()
                .expect("who is not in line has got a turn")),
        }
    }
}

impl<T> Future for Place<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let turn = ready!(Pin::new(&mut self.turn).poll(cx));
        self.is_over = true;
        Poll::Ready(turn.expect("the ledger, which this keeps alive, never drops a waiter"))
    }
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        if !self.is_over {
            let _ = self.ledger.leave_line(self.id);
        }
    }
}

/// Waits until the partition has a connection on some worker.
///
/// The wait ends by itself only with success. Give it the deadline of what it is for
/// (`tokio::time::timeout_at`); dropping it leaves the line.
#[must_use = "dropping it leaves the line"]
pub struct SharedWait {
    place: Place<SharedReady>,
}

impl SharedWait {
    pub(super) fn new(place: Place<SharedReady>) -> SharedWait {
        SharedWait { place }
    }

    /// Which limit is waited for, to say so to whoever gives up.
    pub fn limit(&self) -> Refused {
        self.place.ledger.refusal(Kind::Shared)
    }
}

impl Future for SharedWait {
    type Output = SharedReady;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<SharedReady> {
        Pin::new(&mut self.place).poll(cx)
    }
}

impl std::fmt::Debug for SharedWait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedWait")
            .field("id", &self.place.id)
            .finish_non_exhaustive()
    }
}
