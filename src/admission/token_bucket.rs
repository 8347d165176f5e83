//! A rate with room for bursts.

/// Tokens that come in at a rate and are taken one by one; so many at most are kept. Pure:
/// the caller says what time it is, in microseconds that never go back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenBucket {
    tokens: f64,
    filled_at: u64,
}

impl TokenBucket {
    /// A full bucket.
    pub fn full(burst: f64, now: u64) -> TokenBucket {
        TokenBucket {
            tokens: burst,
            filled_at: now,
        }
    }

    /// Takes `wanted` tokens if there are as many. `rate` is tokens a second, `burst` how
    /// many are kept; both may be others than last time.
    pub fn take(&mut self, wanted: f64, rate: f64, burst: f64, now: u64) -> bool {
        self.fill(rate, burst, now);
        let there = self.tokens >= wanted;
        if there {
            self.tokens -= wanted;
        }
        there
    }

    /// How long until there are `wanted` tokens, in microseconds; 0 if there are. More than
    /// `burst` there will never be: asks for that many instead.
    pub fn wait(&mut self, wanted: f64, rate: f64, burst: f64, now: u64) -> u64 {
        self.fill(rate, burst, now);
        let missing = wanted.min(burst) - self.tokens;
        if missing <= 0.0 || rate <= 0.0 {
            return 0;
        }
        (missing / rate * 1e6).ceil() as u64
    }

    fn fill(&mut self, rate: f64, burst: f64, now: u64) {
        let passed = now.saturating_sub(self.filled_at);
        self.tokens = (self.tokens + passed as f64 * rate / 1e6).min(burst);
        self.filled_at = self.filled_at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut bucket = TokenBucket::full(3.0, 0);
        let taken = (0..10).filter(|_| bucket.take(1.0, 10.0, 3.0, 0)).count();
        assert_eq!(taken, 3);
        assert_eq!(bucket.wait(1.0, 10.0, 3.0, 0), 100_000);
        assert!(!bucket.take(1.0, 10.0, 3.0, 99_000));
        assert!(bucket.take(1.0, 10.0, 3.0, 100_000));
        // A long quiet time is worth one burst.
        let taken = (0..10)
            .filter(|_| bucket.take(1.0, 10.0, 3.0, 60_000_000))
            .count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn over_a_long_time_no_more_than_the_rate() {
        let mut bucket = TokenBucket::full(1.0, 0);
        let taken = (0..10_000_000_u64)
            .step_by(1_000)
            .filter(|now| bucket.take(1.0, 50.0, 1.0, *now))
            .count();
        assert!((499..=501).contains(&taken), "{taken}");
    }

    #[test]
    fn a_clock_that_seems_to_go_back_gives_nothing() {
        let mut bucket = TokenBucket::full(0.0, 1_000_000);
        assert!(!bucket.take(1.0, 1000.0, 10.0, 500_000));
        assert!(bucket.take(1.0, 1000.0, 10.0, 1_001_000));
    }
}
