//! Numbers that one thread writes and any thread reads.
//!
//! # The single-writer rule
//!
//! A [`Counter`] or [`Gauge`] belongs to one thread, which alone may change it.
//! That is what lets a change be a plain load and a plain store (on x86-64 an
//! `add` without `lock`) instead of an atomic read-modify-write. Breaking the rule is not unsafe, but
//! loses counts: two writers that load the same value store the same sum.

use std::marker::PhantomData;
use std::ops::Index;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use super::reason::Reason;

/// A number that only grows. Obeys the single-writer rule of this module.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`; wraps after 2^64, which a rate survives. For the owner only.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Adds one. For the owner only.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// The value now, from any thread; it may lag the owner by an instant.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down. Obeys the single-writer rule of this module.
///
/// It is signed because what one worker opens another may close (a command that
/// is handed over): one worker's part may be negative, the sum of all is not.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds `n`. For the owner only.
    #[inline]
    pub fn add(&self, n: i64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Subtracts `n`. For the owner only.
    #[inline]
    pub fn sub(&self, n: i64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Adds one. For the owner only.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Subtracts one. For the owner only.
    #[inline]
    pub fn dec(&self) {
        self.sub(1);
    }

    /// Replaces the value. For the owner only.
    #[inline]
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// The value now, from any thread; it may lag the owner by an instant.
    #[inline]
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// One [`Counter`] for each value of a reason: `errors[ErrorCause::Protocol].inc()`.
///
/// `N` is the reason's `COUNT`; a smaller one does not compile.
#[derive(Debug)]
pub struct CountersBy<R, const N: usize> {
    counters: [Counter; N],
    reason: PhantomData<fn(R)>,
}

impl<R: Reason, const N: usize> CountersBy<R, N> {
    const COMPLETE: () = assert!(N == R::COUNT, "N must be the reason's COUNT");

    /// The values of all counters added up, from any thread.
    pub fn sum(&self) -> u64 {
        self.counters
            .iter()
            .map(Counter::get)
            .fold(0, u64::wrapping_add)
    }
}

impl<R: Reason, const N: usize> Default for CountersBy<R, N> {
    fn default() -> Self {
        let () = Self::COMPLETE;
        Self {
            counters: std::array::from_fn(|_| Counter::default()),
            reason: PhantomData,
        }
    }
}

impl<R: Reason, const N: usize> Index<R> for CountersBy<R, N> {
    type Output = Counter;

    #[inline]
    fn index(&self, reason: R) -> &Counter {
        &self.counters[reason.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::reason::RefusedReason;

    #[test]
    fn a_counter_adds_up_and_wraps_instead_of_panicking() {
        let counter = Counter::default();
        counter.inc();
        counter.add(41);
        assert_eq!(counter.get(), 42);
        counter.add(u64::MAX);
        assert_eq!(counter.get(), 41);
    }

    #[test]
    fn a_gauge_goes_below_zero_and_back() {
        let gauge = Gauge::default();
        gauge.dec();
        gauge.sub(2);
        assert_eq!(gauge.get(), -3);
        gauge.inc();
        gauge.add(4);
        assert_eq!(gauge.get(), 2);
        gauge.set(7);
        assert_eq!(gauge.get(), 7);
    }

    #[test]
    fn each_reason_has_its_own_counter() {
        let refused = CountersBy::<RefusedReason, { RefusedReason::COUNT }>::default();
        for (n, reason) in RefusedReason::ALL.iter().enumerate() {
            refused[*reason].add(n as u64 + 1);
        }
        for (n, reason) in RefusedReason::ALL.iter().enumerate() {
            assert_eq!(refused[*reason].get(), n as u64 + 1);
        }
        let n = RefusedReason::COUNT as u64;
        assert_eq!(refused.sum(), n * (n + 1) / 2);
    }

    /// What one thread writes, another reads whole and in order.
    #[test]
    fn a_reader_on_another_thread_never_sees_a_counter_go_down() {
        const COUNT: u64 = 200_000;
        let counter = Counter::default();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..COUNT).for_each(|_| counter.inc()));
            let mut seen = 0;
            while seen < COUNT {
                let now = counter.get();
                assert!(now >= seen, "went from {seen} to {now}");
                seen = now;
            }
        });
        assert_eq!(counter.get(), COUNT);
    }
}
