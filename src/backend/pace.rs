//! How fast connections to a node are opened while it is unwell: a token bucket, so
//! that a Redis that comes back is not killed by its clients.

use std::time::Duration;

use tokio::time::Instant;

use super::backoff::Xorshift;

/// Dials to one node, of all workers together.
///
/// Each takes a token; one that finds none waits for its own, and a random part of the
/// time that a token takes, so that many Weirs that lost the same Redis in the same moment
/// do not dial in step.
#[derive(Debug)]
pub struct DialPace {
    /// Tokens a second.
    rate: f64,
    /// Tokens that may be saved up.
    burst: f64,
    /// May be below zero: promised to dials that wait.
    tokens: f64,
    counted_at: Instant,
    random: Xorshift,
}

impl DialPace {
    /// A full bucket.
    pub fn new(rate: u32, burst: u32, seed: u64, now: Instant) -> DialPace {
        DialPace {
            rate: f64::from(rate.max(1)),
            burst: f64::from(burst.max(1)),
            tokens: f64::from(burst.max(1)),
            counted_at: now,
            random: Xorshift::new(seed),
        }
    }

    /// Other numbers from now on.
    pub fn set(&mut self, rate: u32, burst: u32) {
        self.rate = f64::from(rate.max(1));
        self.burst = f64::from(burst.max(1));
    }

    /// Takes a token: how long to wait before dialling. Who waits is bounded by who
    /// holds a slot of the budget.
    pub fn take(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.counted_at);
        self.counted_at = now;
        self.tokens = (self.tokens + passed.as_secs_f64() * self.rate).min(self.burst) - 1.0;
        if self.tokens >= 0.0 {
            return Duration::ZERO;
        }
        // Whoever has the next token has it for the time that it takes to become one.
        let turns = -self.tokens + self.random.next_fraction();
        Duration::from_secs_f64(turns / self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When each of these dials begins, all asked for at the same moment.
    fn starts(dials: usize, rate: u32, burst: u32, seed: u64) -> Vec<Duration> {
        let now = Instant::now();
        let mut pace = DialPace::new(rate, burst, seed, now);
        let mut starts: Vec<_> = (0..dials).map(|_| pace.take(now)).collect();
        starts.sort_unstable();
        starts
    }

    #[test]
    fn no_stretch_of_time_has_more_dials_than_the_bucket_allows() {
        for seed in 0..100 {
            let starts = starts(200, 100, 16, seed);
            for (first, from) in starts.iter().enumerate() {
                for (last, to) in starts.iter().enumerate().skip(first) {
                    let dials = (last - first + 1) as f64;
                    let allowed = 16.0 + 1.0 + (*to - *from).as_secs_f64() * 100.0;
                    assert!(dials <= allowed + 1e-6, "seed {seed}: {dials} > {allowed}");
                }
            }
            assert_eq!(starts[15], Duration::ZERO);
            assert!(starts[199] <= Duration::from_millis(1860), "seed {seed}");
        }
    }

    #[test]
    fn two_that_lose_the_same_node_do_not_dial_in_step() {
        let (one, two) = (starts(50, 10, 1, 1), starts(50, 10, 1, 2));
        let apart = one.iter().zip(&two).skip(1);
        let together = apart
            .filter(|(a, b)| a.abs_diff(**b) < Duration::from_micros(100))
            .count();
        assert!(together < 5, "{together} of 49");
    }

    #[test]
    fn what_is_not_used_is_saved_up_to_the_burst() {
        let now = Instant::now();
        let mut pace = DialPace::new(10, 3, 7, now);
        for _ in 0..3 {
            assert!(pace.take(now).is_zero());
        }
        assert!(!pace.take(now).is_zero());
        let later = now + Duration::from_secs(3600);
        for _ in 0..3 {
            assert!(pace.take(later).is_zero());
        }
        assert!(!pace.take(later).is_zero());
    }
}
