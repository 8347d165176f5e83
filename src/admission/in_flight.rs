//! How many commands a node may have in flight, found by watching it work.
//!
//! Redis takes all that a connection offers into its own buffers, where nothing can be
//! ordered or refused any more. So it gets about what it drains in [`WORTH`], and the rest
//! waits in Weir. Pure: the caller says what time it is, in microseconds.

/// What a node is given to do in advance, in microseconds: enough for it to be busy while
/// Weir deals with its replies, and little beside what a caller waits in all.
const WORTH: f64 = 5_000.0;

/// The same when it was seen without work although somebody waited: Weir's own turns, or the
/// machine's other work, take longer than [`WORTH`] then.
const WORTH_WHEN_STARVED: f64 = 20_000.0;

/// A window shorter than this is not judged, in microseconds.
const WINDOW_MIN: u64 = 10_000;

/// What a limit keeps to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bounds {
    /// Never fewer.
    pub floor: u32,
    /// Never more.
    pub ceiling: u32,
    /// What the way to the node and back takes by itself, in microseconds: what is on the way
    /// is not work in advance.
    pub round_trip: u64,
}

/// A limit that follows what the node drains.
#[derive(Clone, Debug)]
pub struct InFlightLimit {
    limit: f64,
    /// Replies a microsecond, as of the windows in which somebody waited.
    pace: f64,
    since: u64,
    drained: u64,
    waited: bool,
    starved: bool,
}

impl InFlightLimit {
    /// A limit of which nothing is known yet but where it begins.
    pub fn new(first: u32, now: u64) -> InFlightLimit {
        InFlightLimit {
            limit: first.into(),
            pace: 0.0,
            since: now,
            drained: 0,
            waited: false,
            starved: false,
        }
    }

    /// So many commands.
    pub fn get(&self) -> u32 {
        self.limit as u32
    }

    /// So many replies came.
    #[inline]
    pub fn drained(&mut self, count: u32) {
        self.drained += u64::from(count);
    }

    /// Somebody had to wait because of the limit.
    #[inline]
    pub fn held_back(&mut self) {
        self.waited = true;
    }

    /// The node had answered all that it was given while somebody waited.
    #[inline]
    pub fn starved(&mut self) {
        self.starved = true;
    }

    /// Looks at what happened since the last time, and sets the limit anew.
    pub fn adapt(&mut self, now: u64, bounds: Bounds) {
        let passed = now.saturating_sub(self.since);
        if passed < WINDOW_MIN {
            return;
        }
        if self.waited && self.drained > 0 {
            let pace = self.drained as f64 / passed as f64;
            // A faster node shows at once; a slow window may be somebody else's doing.
            self.pace = pace.max(0.7 * self.pace + 0.3 * pace);
            let enough = self.pace * (WORTH + bounds.round_trip as f64);
            let most = self.pace * (WORTH_WHEN_STARVED + bounds.round_trip as f64);
            let next = if self.starved {
                (self.limit * 1.5 + 1.0).min(most)
            } else {
                self.limit * 0.95
            };
            self.limit = next.max(enough);
        }
        let (floor, ceiling) = (f64::from(bounds.floor), f64::from(bounds.ceiling));
        self.limit = self.limit.max(floor).min(ceiling);
        (self.since, self.drained) = (now, 0);
        (self.waited, self.starved) = (false, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        floor: 64,
        ceiling: 100_000,
        round_trip: 0,
    };

    /// A node that takes `cost` for each command, all that it was given in one go, beside a
    /// Weir whose turns take `turn` (microseconds), with more work than it can do. Returns the
    /// limit and the share of the time in which the node had work.
    fn saturated(cost: f64, turn: f64, bounds: Bounds) -> (u32, f64) {
        let mut limit = InFlightLimit::new(bounds.floor, 0);
        let (mut now, mut busy) = (0.0, 0.0);
        let mut looked = 0.0;
        let mut last_second = (0.0, 0.0);
        while now < 4e6 {
            let batch = f64::from(limit.get());
            let works = batch * cost;
            // All of it is answered at once, and the next batch is there a turn later.
            now += works + turn + bounds.round_trip as f64;
            busy += works;
            limit.drained(batch as u32);
            limit.held_back();
            limit.starved();
            if now - looked > 25_000.0 {
                limit.adapt(now as u64, bounds);
                looked = now;
            }
            if now < 3e6 {
                last_second = (now, busy);
            }
        }
        let share = (busy - last_second.1) / (now - last_second.0);
        (limit.get(), share)
    }

    #[test]
    fn a_fast_node_is_kept_busy_whatever_weirs_turns_take() {
        for turn in [100.0, 1_000.0, 10_000.0] {
            let (limit, busy) = saturated(6.0, turn, BOUNDS);
            assert!(busy > 0.45, "{turn}: {limit} in flight, busy {busy}");
            assert!(f64::from(limit) * 6.0 <= 21_000.0, "{turn}: {limit}");
        }
    }

    #[test]
    fn a_slow_node_has_little_in_advance() {
        let bounds = Bounds { floor: 4, ..BOUNDS };
        let (limit, busy) = saturated(2_000.0, 200.0, bounds);
        assert!(limit <= 10 && busy > 0.9, "{limit} in flight, busy {busy}");
    }

    #[test]
    fn a_far_node_is_given_what_is_on_the_way_as_well() {
        let bounds = Bounds {
            round_trip: 50_000,
            ..BOUNDS
        };
        let (limit, _) = saturated(10.0, 200.0, bounds);
        assert!(limit > 1_000, "{limit}");
    }

    #[test]
    fn what_nobody_waits_for_changes_nothing() {
        let mut limit = InFlightLimit::new(64, 0);
        for tick in 1..100 {
            limit.drained(100_000);
            limit.adapt(tick * 25_000, BOUNDS);
        }
        assert_eq!(limit.get(), 64);
    }

    #[test]
    fn it_stays_within_its_bounds() {
        let bounds = Bounds {
            floor: 100,
            ceiling: 200,
            round_trip: 0,
        };
        let (limit, _) = saturated(1.0, 100.0, bounds);
        assert_eq!(limit, 200);
        let (limit, _) = saturated(100_000.0, 100.0, bounds);
        assert_eq!(limit, 100);
    }
}
