//! A rate that several threads share, and each one's part of it.
//!
//! The whole is an [`Allowance`]: one atomic number, without a lock. A thread takes some
//! milliseconds' worth at a time into its [`Purse`] and spends that by itself, so that most
//! commands touch nothing that is shared. What lies in purses was taken before, so all
//! together never spend more than the rate and its burst, but for what is owed: what
//! a reply costs is known when it has come. A debt is paid before anything else is bought.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A thread takes so much of a second's worth at a time: a two hundredth.
const PART: f64 = 1.0 / 200.0;

/// How much there is a second, and at most at once.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rate {
    /// Tokens a second; 0 for no limit.
    pub per_second: f64,
    /// Tokens after a quiet time.
    pub burst: f64,
}

impl Rate {
    /// A rate as settings say it: without a burst it is one second's worth.
    pub fn of(per_second: u64, burst: u64) -> Rate {
        let burst = if burst == 0 { per_second } else { burst };
        Rate {
            per_second: per_second as f64,
            burst: burst as f64,
        }
    }

    /// Whether there is a limit at all.
    pub fn is_limit(&self) -> bool {
        self.per_second > 0.0
    }

    fn shape(&self) -> u64 {
        self.per_second.to_bits() ^ self.burst.to_bits().rotate_left(32)
    }

    fn nanos(&self, tokens: f64) -> f64 {
        tokens * 1e9 / self.per_second
    }
}

/// Tokens that come in at a rate. What is kept is the moment until which the rate is used up:
/// each token that is taken moves it on, and it is never further ahead than the burst.
#[derive(Debug, Default)]
pub struct Allowance {
    /// In nanoseconds.
    used_until: AtomicU64,
    /// Tells the rate that this was used up at from others.
    shape: AtomicU64,
}

impl Allowance {
    /// Takes up to `wanted` tokens and says how many there were. `now` is in microseconds.
    pub fn take(&self, wanted: u64, rate: Rate, now: u64) -> u64 {
        let now = now.saturating_mul(1000);
        let ahead_max = rate.nanos(rate.burst);
        let shape = rate.shape();
        if self.shape.swap(shape, Relaxed) != shape {
            // So many tokens were as many seconds at another rate.
            let latest = now.saturating_add(ahead_max as u64);
            self.used_until.fetch_min(latest, Relaxed);
        }
        let mut taken = 0;
        let _ = self.used_until.fetch_update(Relaxed, Relaxed, |until| {
            let until = until.max(now);
            let left = ahead_max - (until - now) as f64;
            // A burst of three is three, whatever is lost in rounding.
            let there = (left * rate.per_second / 1e9 + 1e-6).max(0.0) as u64;
            taken = wanted.min(there);
            (taken > 0).then(|| until + (rate.nanos(taken as f64) as u64).max(1))
        });
        taken
    }

    /// Takes back what a purse has not spent, or is paid what it owes: what comes next then
    /// comes later. `now` is in microseconds.
    fn settle(&self, tokens: i64, rate: Rate, now: u64) {
        if tokens == 0 || !rate.is_limit() {
            return;
        }
        let now = now.saturating_mul(1000);
        let nanos = rate.nanos(tokens.unsigned_abs() as f64) as u64;
        let _ = self.used_until.fetch_update(Relaxed, Relaxed, |until| {
            Some(match tokens > 0 {
                true => until.saturating_sub(nanos),
                false => until.max(now).saturating_add(nanos),
            })
        });
    }
}

/// One thread's part of an allowance.
#[derive(Clone, Copy, Debug, Default)]
pub struct Purse {
    /// Below 0: what is owed.
    tokens: i64,
}

impl Purse {
    /// Whether there is anything left to spend, here or in the allowance. Second, how many
    /// were taken from there.
    #[inline]
    pub fn has_some(&mut self, from: &Allowance, rate: impl Fn() -> Rate, now: u64) -> (bool, u64) {
        if self.tokens > 0 {
            return (true, 0);
        }
        self.fill(from, rate(), now)
    }

    fn fill(&mut self, from: &Allowance, rate: Rate, now: u64) -> (bool, u64) {
        if !rate.is_limit() {
            self.tokens = 0;
            return (true, 0);
        }
        let part = (rate.per_second * PART).min(rate.burst).max(1.0) as u64;
        let taken = from.take(part + self.tokens.unsigned_abs(), rate, now);
        self.tokens += taken as i64;
        (self.tokens > 0, taken)
    }

    /// Nobody spends from it any more: the allowance has the rest, or the debt.
    pub fn close(self, to: &Allowance, rate: Rate, now: u64) {
        to.settle(self.tokens, rate, now);
    }

    /// Spends so many, whether they are there or not.
    #[inline]
    pub fn spend(&mut self, tokens: u64) {
        self.tokens = self
            .tokens
            .saturating_sub(i64::try_from(tokens).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    /// How many a thread may spend one by one at this moment.
    fn spent(purse: &mut Purse, from: &Allowance, rate: Rate, now: u64) -> u64 {
        let mut count = 0;
        while purse.has_some(from, || rate, now).0 {
            purse.spend(1);
            count += 1;
        }
        count
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        for (rate, burst) in [(1, 3), (3, 3), (10, 3), (7, 2), (100_000, 5_000)] {
            let (from, rate) = (Allowance::default(), Rate::of(rate, burst));
            let mut purse = Purse::default();
            assert_eq!(spent(&mut purse, &from, rate, 7 * SECOND), burst);
            assert_eq!(spent(&mut purse, &from, rate, 7 * SECOND), 0);
            let mut later = 0;
            for tick in 1..=1_000 {
                later += spent(&mut purse, &from, rate, 7 * SECOND + tick * 10_000);
            }
            let expected = 10 * rate.per_second as u64;
            assert!(
                (expected.saturating_sub(1)..=expected + 1).contains(&later),
                "{rate:?}: {later}"
            );
            // A long quiet time is worth one burst.
            assert_eq!(spent(&mut purse, &from, rate, 90 * SECOND), burst);
        }
    }

    #[test]
    fn threads_together_have_no_more_than_the_rate() {
        let (from, rate) = (Allowance::default(), Rate::of(2_000, 100));
        let mut purses = [Purse::default(); 4];
        let mut all = 0;
        for tick in 0..=5_000 {
            let purse = &mut purses[tick as usize % 4];
            all += spent(purse, &from, rate, SECOND + tick * 1_000);
        }
        assert!((10_000..=10_101).contains(&all), "{all}");
    }

    #[test]
    fn what_is_owed_is_paid_first() {
        let (from, rate) = (Allowance::default(), Rate::of(1_000, 1_000));
        let mut purse = Purse::default();
        assert!(purse.has_some(&from, || rate, SECOND).0);
        // A reply of three seconds' worth, of which one was there.
        purse.spend(3_000);
        assert!(!purse.has_some(&from, || rate, SECOND).0);
        assert!(!purse.has_some(&from, || rate, 2 * SECOND).0);
        assert!(!purse.has_some(&from, || rate, 3 * SECOND - 2_000).0);
        assert!(purse.has_some(&from, || rate, 3 * SECOND + 2_000).0);
    }

    #[test]
    fn a_limit_that_is_lifted_leaves_no_debt() {
        let (from, rate) = (Allowance::default(), Rate::of(10, 10));
        let mut purse = Purse::default();
        purse.spend(1_000_000);
        assert!(!purse.has_some(&from, || rate, SECOND).0);
        assert!(purse.has_some(&from, || Rate::of(0, 0), SECOND).0);
        assert!(purse.has_some(&from, || rate, 2 * SECOND).0);
    }

    #[test]
    fn a_purse_that_is_closed_gives_back_what_is_left_and_passes_on_its_debt() {
        let (from, rate) = (Allowance::default(), Rate::of(1_000, 1_000));
        // One command for each of many short visits.
        let mut visits = 0;
        for _ in 0..2_000 {
            let mut purse = Purse::default();
            if purse.has_some(&from, || rate, SECOND).0 {
                purse.spend(1);
                visits += 1;
            }
            purse.close(&from, rate, SECOND);
        }
        assert_eq!(visits, 1_000);
        // And a large reply for one.
        let mut purse = Purse::default();
        assert!(purse.has_some(&from, || rate, 2 * SECOND).0);
        purse.spend(3_000);
        purse.close(&from, rate, 2 * SECOND);
        let mut next = Purse::default();
        assert!(!next.has_some(&from, || rate, 4 * SECOND - 10_000).0);
        assert!(next.has_some(&from, || rate, 4 * SECOND + 10_000).0);
    }

    #[test]
    fn a_new_rate_does_not_pay_for_the_burst_of_the_old_one() {
        let from = Allowance::default();
        let rate = Rate::of(100, 6_000);
        assert_eq!(from.take(6_000, rate, SECOND), 6_000);
        assert_eq!(from.take(1, rate, SECOND), 0);
        let rate = Rate::of(1_000, 0);
        assert_eq!(from.take(1, rate, SECOND), 0);
        assert_eq!(from.take(500, rate, SECOND + 500_000), 500);
    }

    #[test]
    fn a_clock_that_seems_to_go_back_gives_nothing() {
        let (from, rate) = (Allowance::default(), Rate::of(1_000, 10));
        assert_eq!(from.take(10, rate, 2 * SECOND), 10);
        assert_eq!(from.take(10, rate, SECOND), 0);
        assert_eq!(from.take(1, rate, 2 * SECOND + 1_000), 1);
    }
}
