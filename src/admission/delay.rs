//! Whether commands take too long, by the measure of CoDel (RFC 8289): not how many wait and
//! not how long the unlucky one does, but whether over a whole interval not even one got
//! through quickly while the line never ended.

/// Judges one line. Pure: the caller says what time it is, in microseconds.
#[derive(Clone, Debug)]
pub struct DelayJudge {
    /// When the interval began; 0 while nobody waits.
    since: u64,
    /// The shortest time in it.
    shortest: u64,
}

impl Default for DelayJudge {
    fn default() -> DelayJudge {
        DelayJudge {
            since: 0,
            shortest: u64::MAX,
        }
    }
}

impl DelayJudge {
    /// A command took so long.
    #[inline]
    pub fn note(&mut self, took: u64) {
        self.shortest = self.shortest.min(took);
    }

    /// Nobody waits any more.
    pub fn line_ended(&mut self) {
        *self = DelayJudge::default();
    }

    /// Whether an interval is over in which every command took more than `target`. An
    /// interval in which none ended says nothing and goes on. To be asked while somebody
    /// waits.
    pub fn is_too_long(&mut self, now: u64, interval: u64, target: u64) -> bool {
        if self.since == 0 {
            self.since = now;
            self.shortest = u64::MAX;
        }
        if now.saturating_sub(self.since) < interval || self.shortest == u64::MAX {
            return false;
        }
        let too_long = self.shortest > target;
        self.since = now;
        self.shortest = u64::MAX;
        too_long
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: u64 = 500_000;
    const TARGET: u64 = 150_000;

    fn judged(times: impl Iterator<Item = (u64, u64)>) -> Option<u64> {
        let mut judge = DelayJudge::default();
        for (now, took) in times {
            judge.note(took);
            if judge.is_too_long(now, INTERVAL, TARGET) {
                return Some(now);
            }
        }
        None
    }

    #[test]
    fn one_quick_reply_in_each_interval_is_enough() {
        let times =
            (1..1_000).map(|step| (step * 10_000, if step % 40 == 0 { 9 } else { 900_000 }));
        assert_eq!(judged(times), None);
    }

    #[test]
    fn an_interval_of_slow_replies_is_too_long() {
        let at = judged((1..1_000).map(|step| (step * 10_000, 200_000)));
        assert_eq!(at, Some(510_000));
    }

    #[test]
    fn silence_says_nothing() {
        let mut judge = DelayJudge::default();
        for now in 1..10_000 {
            assert!(!judge.is_too_long(now * 1_000, INTERVAL, TARGET));
        }
    }

    #[test]
    fn a_line_that_ends_begins_anew() {
        let mut judge = DelayJudge::default();
        for now in 1..100_u64 {
            judge.note(400_000);
            if now % 40 == 0 {
                judge.line_ended();
            }
            assert!(!judge.is_too_long(now * 10_000, INTERVAL, TARGET));
        }
    }
}
