//! Whether the node can be reached, and how many connections it has room for.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use tokio::time::Instant;

use super::{Health, Node, OpenError};
use crate::metrics::{Event, EventKind};

impl Node {
    pub(super) fn succeeded(&self) {
        if self.down.swap(false, Relaxed) {
            let mut health = self.health();
            health.backoff.reset();
            health.down = None;
            tracing::info!(node = %self.address, route = %self.route, "node is back");
            self.note(Event::new(EventKind::NodeUp, &*self.address));
        }
        let mut health = self.health();
        if !health.is_narrow {
            health.crowded.reset();
        }
    }

    /// The node takes no more clients: Weir goes on with the connections that it has,
    /// and after a pause tries whether there is room again.
    pub(super) fn narrow(self: &Arc<Self>) {
        // All but the one that was refused, which is closing. One that closes makes room.
        let others = self.ledger.snapshot().total().saturating_sub(1);
        if others == 0 {
            // Nothing to go on with.
            self.failed(&OpenError::Full);
            return;
        }
        self.ledger
            .set_max_connections(others.min(self.settings().backend.max_connections));
        let mut health = self.health();
        if std::mem::replace(&mut health.is_narrow, true) {
            return;
        }
        let pause = health.crowded.next_pause();
        drop(health);
        tracing::warn!(
            node = %self.address, route = %self.route, others,
            "the node's maxclients is reached: going on with the connections that are open"
        );
        let event = Event::new(EventKind::NodeFull, &*self.address);
        self.note(event.with("connections", others));
        let node = self.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(pause).await;
            node.widen();
        });
    }

    pub(super) fn widen(&self) {
        self.health().is_narrow = false;
        self.ledger
            .set_max_connections(self.settings().backend.max_connections);
    }

    pub(super) fn failed(&self, error: &OpenError) {
        let mut health = self.health();
        let pause = health.backoff.next_pause();
        let first = health.down.is_none();
        health.down = Some((Instant::now() + pause, error.clone()));
        drop(health);
        self.down.store(true, Relaxed);
        self.mark_stale();
        if first {
            tracing::warn!(
                node = %self.address, route = %self.route, "node cannot be used: {error}"
            );
            self.note(Event::new(EventKind::NodeDown, &*self.address).with("why", error));
        }
    }

    fn note(&self, event: Event) {
        self.journal.note(event.on(&self.route));
    }

    pub(super) fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
