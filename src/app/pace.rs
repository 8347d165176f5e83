//! How fast clients are taken in.

use std::time::Duration;

use crate::admission::TokenBucket;
use crate::config::Clients;

/// Without a burst of its own a rate lets in so much of a second's worth at once: few
/// enough not to be felt by those who are in, often enough not to wake for each client.
const BURST_PART: u32 = 10;

/// A listener counts as keeping up when it has not had to wait for so long, in microseconds.
const QUIET: u64 = 10_000_000;

/// The pace of one listener. Who comes faster waits in the kernel's queue, in the order in
/// which they came, and is refused by the kernel when that is full. Pure: it is told what
/// time it is, in microseconds.
#[derive(Debug)]
pub struct Pace {
    bucket: TokenBucket,
    /// When it last had to wait, if operators have been told that it has to.
    behind_since: Option<u64>,
}

impl Pace {
    /// A listener that nobody has come to.
    pub fn new(now: u64) -> Pace {
        Pace {
            bucket: TokenBucket::full(f64::MAX, now),
            behind_since: None,
        }
    }

    /// How long to wait before the next client is taken in; `None` if it can be now.
    pub fn wait(&mut self, settings: &Clients, now: u64) -> Option<Duration> {
        let (rate, burst) = rate_of(settings)?;
        let wait = self.bucket.wait(1.0, rate, burst, now);
        (wait > 0).then(|| Duration::from_micros(wait))
    }

    /// A client was taken in.
    pub fn count(&mut self, settings: &Clients, now: u64) {
        if let Some((rate, burst)) = rate_of(settings) {
            self.bucket.take(1.0, rate, burst, now);
        }
    }

    /// It has to wait; whether that is to be told.
    pub fn falls_behind(&mut self, now: u64) -> bool {
        self.behind_since.replace(now).is_none()
    }

    /// Whether it is to be told that it keeps up again.
    pub fn has_caught_up(&mut self, now: u64) -> bool {
        let is_over = self
            .behind_since
            .is_some_and(|since| now.saturating_sub(since) >= QUIET);
        if is_over {
            self.behind_since = None;
        }
        is_over
    }

    /// Whether it has been told that it has to wait.
    pub fn is_behind(&self) -> bool {
        self.behind_since.is_some()
    }
}

/// Clients a second, and at once; `None` without a limit.
fn rate_of(settings: &Clients) -> Option<(f64, f64)> {
    let rate = settings.accept_rate;
    let burst = match settings.accept_burst {
        0 => (rate / BURST_PART).max(1),
        burst => burst,
    };
    (rate > 0).then(|| (f64::from(rate), f64::from(burst)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_taken_in_at_the_rate() {
        let settings = Clients {
            accept_rate: 100,
            ..Clients::default()
        };
        let mut pace = Pace::new(0);
        let mut taken = 0;
        let mut now = 0;
        while now < 1_000_000 {
            match pace.wait(&settings, now) {
                None => {
                    pace.count(&settings, now);
                    taken += 1;
                }
                Some(wait) => now += wait.as_micros() as u64,
            }
        }
        assert!((105..=115).contains(&taken), "{taken}");
        let unlimited = Clients::default();
        assert!((0..1000).all(|_| pace.wait(&unlimited, now).is_none()));
    }

    #[test]
    fn falling_behind_and_catching_up_are_told_once() {
        let mut pace = Pace::new(0);
        assert!(pace.falls_behind(0) && !pace.falls_behind(5_000_000));
        assert!(!pace.has_caught_up(14_000_000) && pace.is_behind());
        assert!(pace.has_caught_up(15_000_000) && !pace.has_caught_up(15_000_000));
    }
}
