//! Numbers that any thread writes: for what is rare.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::reason::Reason;

/// One counter for each value of a reason. Unlike [`super::CountersBy`] it has no owner:
/// it costs an atomic read-modify-write each time.
#[derive(Debug)]
pub struct Tally<R> {
    counts: Box<[AtomicU64]>,
    reason: PhantomData<fn(R)>,
}

impl<R: Reason> Default for Tally<R> {
    fn default() -> Self {
        Self {
            counts: R::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            reason: PhantomData,
        }
    }
}

impl<R: Reason> Tally<R> {
    /// Counts one.
    pub fn count(&self, reason: R) {
        self.counts[reason.index()].fetch_add(1, Relaxed);
    }

    /// How many were counted.
    pub fn get(&self, reason: R) -> u64 {
        self.counts[reason.index()].load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::HeaderResult;

    #[test]
    fn many_threads_count_together() {
        let tally = Tally::<HeaderResult>::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| tally.count(HeaderResult::Malformed)));
            }
        });
        assert_eq!(tally.get(HeaderResult::Malformed), 4000);
        assert_eq!(tally.get(HeaderResult::Ok), 0);
    }
}
