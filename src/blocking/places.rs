//! How many clients may block on a connection of their own, and the line of those who
//! can not share and wait for such a place.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// One route's places, for all workers.
#[derive(Debug)]
pub struct Places {
    free: Arc<Semaphore>,
    in_line: AtomicUsize,
    line_max: usize,
    /// Clients that wait on shared connections.
    sharing: AtomicUsize,
    /// Connections that may be shared for each group.
    shared_max: usize,
}

/// One client's place; given back when dropped.
#[derive(Debug)]
pub struct OwnPlace(#[allow(dead_code, reason = "held for its end")] OwnedSemaphorePermit);

/// Why there was no place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoPlace {
    /// Too many are in line already.
    LineFull,
    /// None became free in time.
    TimedOut,
}

impl Places {
    /// `max_blocking` connections in all, of which `shared_max` are kept for sharing: at
    /// most half of them, but one even of one. If none may be shared, all are for clients
    /// of their own.
    pub fn new(max_blocking: usize, shared_max: usize, line_max: usize) -> Places {
        let kept = shared_max.min((max_blocking / 2).max(1)).min(max_blocking);
        Places {
            // One that can not share takes the only connection if nobody shares it.
            free: Arc::new(Semaphore::new(max_blocking - kept)),
            in_line: AtomicUsize::new(0),
            line_max,
            sharing: AtomicUsize::new(0),
            shared_max: kept,
        }
    }

    /// A place at once, or not.
    pub fn try_take(&self) -> Option<OwnPlace> {
        self.free.clone().try_acquire_owned().ok().map(OwnPlace)
    }

    /// A place, in line until the deadline. Dropping the future leaves the line.
    ///
    /// # Errors
    /// [`NoPlace`]: at once if the line is full, else at the deadline.
    pub async fn take(&self, deadline: Instant) -> Result<OwnPlace, NoPlace> {
        if self.in_line.fetch_add(1, Relaxed) >= self.line_max {
            self.in_line.fetch_sub(1, Relaxed);
            return Err(NoPlace::LineFull);
        }
        let _in_line = InLine(&self.in_line);
        match tokio::time::timeout_at(deadline, self.free.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(OwnPlace(permit)),
            Ok(Err(_)) | Err(_) => Err(NoPlace::TimedOut),
        }
    }

    /// Whether blocked clients may share connections.
    pub fn may_share(&self) -> bool {
        self.shared_max > 0
    }

    /// How many connections one group of waiters may share.
    pub fn shared_max(&self) -> usize {
        self.shared_max
    }

    /// Whether some client waits on a shared connection.
    pub fn anyone_shares(&self) -> bool {
        self.sharing.load(Relaxed) > 0
    }

    /// A client begins to wait on a shared connection.
    pub fn begins_to_share(&self) {
        self.sharing.fetch_add(1, Relaxed);
    }

    /// A client's wait on a shared connection is over.
    pub fn ends_to_share(&self) {
        self.sharing.fetch_sub(1, Relaxed);
    }
}

struct InLine<'a>(&'a AtomicUsize);

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
