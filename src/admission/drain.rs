//! How fast a line moves, and so how long somebody who joins it will wait.

/// A rate is taken anew after so long, in microseconds.
const PERIOD: u64 = 500_000;

/// Nothing is said of a line that has been moving for less, in microseconds.
const KNOWN_AFTER: u64 = 100_000;

/// Of a pause without any reply so much counts, in microseconds. A longer one is not how
/// fast the node works; it is a node that does not work, which is somebody else's business.
const PAUSE_COUNTED: u64 = 100_000;

/// Replies while somebody waits. Only then do they tell what the node can do; at other times
/// they tell what it was asked. Pure: the caller says what time it is, in microseconds.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    /// When time was last counted; 0 while nobody waits.
    seen: u64,
    /// Time counted in this period.
    passed: u64,
    count: u64,
    /// Replies a microsecond in the period before.
    before: Option<f64>,
}

impl Drain {
    /// Somebody waits from now on.
    pub fn begin(&mut self, now: u64) {
        if self.seen == 0 {
            *self = Drain {
                seen: now,
                ..Drain::default()
            };
        }
    }

    /// Nobody waits any more: what comes now says nothing.
    pub fn end(&mut self) {
        self.seen = 0;
    }

    /// So many replies came. `pause` is what one command may take by itself, in microseconds.
    pub fn note(&mut self, count: u32, now: u64, pause: u64) {
        if self.seen == 0 || count == 0 {
            return;
        }
        // A pause is counted with the reply that ends it, and only a part of it.
        self.passed += now.saturating_sub(self.seen).min(PAUSE_COUNTED + pause);
        self.seen = now;
        self.count += u64::from(count);
        if self.passed >= PERIOD + 2 * pause {
            self.before = Some(self.count as f64 / self.passed as f64);
            (self.passed, self.count) = (0, 0);
        }
    }

    /// Replies a microsecond; `None` if that is not known.
    pub fn pace(&self) -> Option<f64> {
        if self.seen == 0 {
            return None;
        }
        match self.before {
            Some(before) => {
                let weight = PERIOD as f64 / 2.0;
                Some((self.count as f64 + before * weight) / (self.passed as f64 + weight))
            }
            None if self.passed >= KNOWN_AFTER && self.count > 0 => {
                Some(self.count as f64 / self.passed as f64)
            }
            None => None,
        }
    }

    /// How long somebody waits behind so many others, in microseconds.
    pub fn wait_behind(&self, others: usize) -> Option<u64> {
        let pace = self.pace()?;
        (pace > 0.0).then(|| (others as f64 / pace) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moving_line_tells_how_long_it_takes() {
        let mut drain = Drain::default();
        drain.begin(1);
        for step in 1..=40_u64 {
            drain.note(5, 1 + step * 10_000, 0);
        }
        let wait = drain.wait_behind(100).expect("known by now");
        assert!((190_000..=210_000).contains(&wait), "{wait}");
    }

    #[test]
    fn nothing_is_said_at_first_and_when_nobody_waits() {
        let mut drain = Drain::default();
        drain.note(1_000, 10, 0);
        assert_eq!(drain.pace(), None);
        drain.begin(1);
        drain.note(10, 50_000, 0);
        assert_eq!(drain.pace(), None);
        drain.note(10, 150_000, 0);
        assert!(drain.pace().is_some());
        drain.end();
        assert_eq!(drain.pace(), None);
    }

    #[test]
    fn a_node_that_stands_still_is_not_taken_for_a_slow_one() {
        let mut drain = Drain::default();
        drain.begin(1);
        for step in 1..=200_u64 {
            drain.note(1_000, 1 + step * 10_000, 0);
        }
        let before = drain.pace().unwrap();
        // Two seconds without a word.
        drain.note(1_000, 4_000_000, 0);
        assert!(drain.pace().unwrap() > before / 2.0);
    }

    #[test]
    fn a_change_is_followed_within_a_second() {
        let mut drain = Drain::default();
        drain.begin(1);
        let mut now = 1;
        for _ in 0..100 {
            now += 10_000;
            drain.note(100, now, 0);
        }
        for _ in 0..100 {
            now += 10_000;
            drain.note(10, now, 0);
        }
        let pace = drain.pace().unwrap() * 1e6;
        assert!((900.0..=2_000.0).contains(&pace), "{pace}");
    }
}
