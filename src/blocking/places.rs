//! How many clients may block on a connection of their own, and the line of those who
//! can not share and wait for such a place.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// One route's places, for all workers.
#[derive(Debug)]
pub struct Places {
    free: Arc<Semaphore>,
    limits: Mutex<Limits>,
    in_line: AtomicUsize,
    /// Clients that wait on shared connections.
    sharing: AtomicUsize,
    shared_max: AtomicUsize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    /// Places there are to be.
    places: usize,
    /// Places there are more than that, to be taken away when they come back.
    too_many: usize,
    line_max: usize,
}

/// One client's place; given back when dropped.
#[derive(Debug)]
pub struct OwnPlace {
    permit: Option<OwnedSemaphorePermit>,
    places: Arc<Places>,
}

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
    /// most half of them, but one even of one.
    pub fn new(max_blocking: usize, shared_max: usize, line_max: usize) -> Arc<Places> {
        let places = Places {
            free: Arc::new(Semaphore::new(0)),
            limits: Mutex::default(),
            in_line: AtomicUsize::new(0),
            sharing: AtomicUsize::new(0),
            shared_max: AtomicUsize::new(0),
        };
        places.set_limits(max_blocking, shared_max, line_max);
        Arc::new(places)
    }

    /// Other limits, as [`Places::new`]. Clients that have a place keep it.
    pub fn set_limits(&self, max_blocking: usize, shared_max: usize, line_max: usize) {
        let kept = shared_max.min((max_blocking / 2).max(1)).min(max_blocking);
        self.shared_max.store(kept, Relaxed);
        let wanted = max_blocking - kept;
        let mut limits = self.limits();
        limits.line_max = line_max;
        let there = limits.places + limits.too_many;
        limits.places = wanted;
        if wanted >= there {
            limits.too_many = 0;
            self.free.add_permits(wanted - there);
        } else {
            let taken = self.free.forget_permits(there - wanted);
            limits.too_many = there - wanted - taken;
        }
    }

    fn limits(&self) -> std::sync::MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place at once, or not.
    pub fn try_take(self: &Arc<Self>) -> Option<OwnPlace> {
        let permit = self.free.clone().try_acquire_owned().ok()?;
        Some(self.place(permit))
    }

    fn place(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> OwnPlace {
        OwnPlace {
            permit: Some(permit),
            places: self.clone(),
        }
    }

    /// A place, in line until the deadline. Dropping the future leaves the line.
    ///
    /// # Errors
    /// [`NoPlace`]: at once if the line is full, else at the deadline.
    pub async fn take(self: &Arc<Self>, deadline: Instant) -> Result<OwnPlace, NoPlace> {
        let line_max = self.limits().line_max;
        if self.in_line.fetch_add(1, Relaxed) >= line_max {
            self.in_line.fetch_sub(1, Relaxed);
            return Err(NoPlace::LineFull);
        }
        let _in_line = InLine(&self.in_line);
        match tokio::time::timeout_at(deadline, self.free.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(self.place(permit)),
            Ok(Err(_)) | Err(_) => Err(NoPlace::TimedOut),
        }
    }

    /// How many connections one group of waiters may share; 0 for none.
    pub fn shared_max(&self) -> usize {
        self.shared_max.load(Relaxed)
    }

    /// Whether there is any place for a client of its own.
    pub fn has_own(&self) -> bool {
        self.limits().places > 0
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

impl Drop for OwnPlace {
    fn drop(&mut self) {
        let mut limits = self.places.limits();
        if limits.too_many > 0
            && let Some(permit) = self.permit.take()
        {
            limits.too_many -= 1;
            permit.forget();
        }
    }
}

struct InLine<'a>(&'a AtomicUsize);

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(places: &Arc<Places>) -> Vec<OwnPlace> {
        std::iter::from_fn(|| places.try_take()).collect()
    }

    #[test]
    fn half_at_most_is_kept_for_sharing_and_one_even_of_one() {
        for (max, shared, own, kept) in [
            (32, 4, 28, 4),
            (4, 4, 2, 2),
            (2, 4, 1, 1),
            (1, 4, 0, 1),
            (0, 4, 0, 0),
            (8, 0, 8, 0),
        ] {
            let places = Places::new(max, shared, 10);
            let taken = all(&places);
            assert_eq!(
                (taken.len(), places.shared_max()),
                (own, kept),
                "{max} {shared}"
            );
        }
    }

    #[test]
    fn fewer_places_are_there_when_those_too_many_have_come_back() {
        let places = Places::new(10, 2, 10);
        let mut taken = all(&places);
        assert_eq!(taken.len(), 8);
        places.set_limits(6, 2, 10);
        taken.truncate(5);
        assert!(places.try_take().is_none());
        taken.truncate(3);
        assert_eq!(all(&places).len(), 1);
        places.set_limits(10, 2, 10);
        assert_eq!(all(&places).len(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_has_a_length_and_an_end() {
        let places = Places::new(2, 1, 1);
        let place = places.try_take().expect("one");
        let soon = Instant::now() + std::time::Duration::from_secs(1);
        let (first, second) = tokio::join!(places.take(soon), places.take(soon));
        assert_eq!(first.err(), Some(NoPlace::TimedOut));
        assert_eq!(second.err(), Some(NoPlace::LineFull));
        drop(place);
        assert!(places.take(soon).await.is_ok());
    }
}
