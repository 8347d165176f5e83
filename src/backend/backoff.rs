//! How long to pause before dialling again.

use std::time::Duration;

/// Pauses that double with each failure, with jitter, so that a node that comes back
/// is not met by all its clients in the same moment.
///
/// The n-th pause lies evenly between half of `min * 2^n` and all of it, at most
/// `max`. Half stays certain: with full jitter one dial in ten would come almost at once.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
    random: Xorshift,
}

impl Backoff {
    /// Pauses from about `min` to `max`; different seeds give different jitter.
    pub fn new(min: Duration, max: Duration, seed: u64) -> Backoff {
        Backoff {
            min,
            max: max.max(min),
            failures: 0,
            random: Xorshift::new(seed),
        }
    }

    /// Other pauses from now on; how many failures there were stays.
    pub fn set_range(&mut self, min: Duration, max: Duration) {
        self.min = min;
        self.max = max.max(min);
    }

    /// Another failure: how long to pause now.
    pub fn next_pause(&mut self) -> Duration {
        let doubled = 2u32
            .checked_pow(self.failures)
            .and_then(|factor| self.min.checked_mul(factor));
        self.failures = self.failures.saturating_add(1);
        let longest = doubled.unwrap_or(self.max).min(self.max);
        longest.mul_f64(0.5 + 0.5 * self.random.next_fraction())
    }

    /// It worked: the next failure begins with the shortest pause again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// How many failures there were since it last worked.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// Marsaglia's xorshift64*: enough to spread pauses, not for secrets. Ten lines
/// instead of a dependency.
#[derive(Debug, Clone)]
pub(super) struct Xorshift {
    state: u64,
}

impl Xorshift {
    pub(super) fn new(seed: u64) -> Xorshift {
        // Small seeds (0, 1, 2) would give small, similar first numbers: one step of
        // splitmix64 spreads them. Its result is 0 for a single seed; 0 never moves.
        let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Xorshift {
            state: (z ^ (z >> 31)).max(1),
        }
    }

    /// Evenly from 0 (included) to 1 (not).
    pub(super) fn next_fraction(&mut self) -> f64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let bits = self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11;
        bits as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(50);
    const MAX: Duration = Duration::from_secs(2);

    #[test]
    fn pauses_double_up_to_the_longest_and_start_over_when_it_worked() {
        for seed in 0..1000 {
            let mut backoff = Backoff::new(MIN, MAX, seed);
            for full in [50, 100, 200, 400, 800, 1600, 2000, 2000] {
                let full = Duration::from_millis(full);
                let pause = backoff.next_pause();
                assert!(
                    full / 2 <= pause && pause <= full,
                    "seed {seed}: {pause:?} of {full:?}"
                );
            }
            assert_eq!(backoff.failures(), 8);
            backoff.reset();
            assert!(backoff.next_pause() <= MIN);
        }
    }

    #[test]
    fn different_seeds_spread_over_the_whole_range() {
        let pauses: Vec<_> = (0..1000)
            .map(|s| Backoff::new(MIN, MAX, s).next_pause())
            .collect();
        for tenth in 0..10 {
            let from = MIN / 2 + MIN * tenth / 20;
            let in_it = pauses
                .iter()
                .filter(|&&p| from <= p && p < from + MIN / 20)
                .count();
            assert!(
                (50..200).contains(&in_it),
                "{in_it} of 1000 in tenth {tenth}"
            );
        }
    }

    #[test]
    fn years_of_failures_overflow_nothing() {
        let mut backoff = Backoff::new(MIN, Duration::MAX, 1);
        backoff.failures = u32::MAX;
        assert!(backoff.next_pause() >= Duration::MAX / 2);
        assert_eq!(backoff.failures(), u32::MAX);
    }
}
