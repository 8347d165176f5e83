//! How long things take: a histogram with fixed, log-linear buckets.
//!
//! A time is counted in whole microseconds, rounded down. 0 to 3 µs have a
//! bucket each; from there on every power of two is cut into four equal buckets
//! (4, 5, 6, 7, 8-9, 10-11, 12-13, 14-15, 16-19, …), so a bucket is never wider
//! than a quarter of its lower bound. The last one, from 56 × 2^20 µs (58.7 s),
//! has no end. 100 buckets of 8 bytes: small enough for one per worker and
//! route, exact enough for a p99.
//!
//! Prometheus is given a coarser fixed set, one bucket for each power of two
//! from 8 µs to 33.6 s, whose bounds are bounds here too, so nothing is
//! interpolated.

use super::counter::Counter;

/// Number of buckets.
pub const BUCKETS: usize = 100;

/// Buckets in each power of two, as a power of two.
const SUB_BITS: u32 = 2;

/// Powers of two (of microseconds) that bound the buckets given to Prometheus.
const EXPOSED_POWERS: std::ops::RangeInclusive<u32> = 3..=25;

/// Counts times. Obeys the single-writer rule of [`Counter`].
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    sum_micros: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| Counter::default()),
            sum_micros: Counter::default(),
        }
    }
}

impl Histogram {
    /// Counts one time of `micros` µs. For the owner only.
    #[inline]
    pub fn record(&self, micros: u64) {
        self.record_n(micros, 1);
    }

    /// Counts `n` times of `micros` µs each (a batch that was answered together)
    /// at the price of one. For the owner only.
    #[inline]
    pub fn record_n(&self, micros: u64, n: u64) {
        self.buckets[bucket_of(micros)].add(n);
        self.sum_micros.add(micros.wrapping_mul(n));
    }

    /// Adds what was counted so far to `snapshot`, from any thread.
    ///
    /// The buckets are read one after another while the owner goes on, so the
    /// sum may be ahead of the counts by what was recorded meanwhile.
    pub fn add_to(&self, snapshot: &mut HistogramSnapshot) {
        for (total, bucket) in snapshot.counts.iter_mut().zip(&self.buckets) {
            *total = total.wrapping_add(bucket.get());
        }
        snapshot.sum_micros = snapshot.sum_micros.wrapping_add(self.sum_micros.get());
    }

    /// What was counted so far, from any thread.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let mut snapshot = HistogramSnapshot::default();
        self.add_to(&mut snapshot);
        snapshot
    }
}

/// A histogram at one moment, of one worker or of several added up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramSnapshot {
    counts: [u64; BUCKETS],
    sum_micros: u64,
}

impl Default for HistogramSnapshot {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS],
            sum_micros: 0,
        }
    }
}

impl HistogramSnapshot {
    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What was counted after `earlier`, a snapshot of the same histogram.
    #[must_use]
    pub fn since(&self, earlier: &HistogramSnapshot) -> HistogramSnapshot {
        HistogramSnapshot {
            counts: std::array::from_fn(|bucket| {
                self.counts[bucket].wrapping_sub(earlier.counts[bucket])
            }),
            sum_micros: self.sum_micros.wrapping_sub(earlier.sum_micros),
        }
    }

    /// All times added up, in microseconds.
    pub fn sum_micros(&self) -> u64 {
        self.sum_micros
    }

    /// The mean in microseconds; `None` when nothing was counted.
    pub fn mean_micros(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum_micros as f64 / count as f64)
    }

    /// The time in microseconds that the share `q` of all times did not exceed:
    /// the largest value of the bucket it lies in, so at most a quarter too
    /// high. In the last bucket it is the bucket's start. `q` is held to 0..=1;
    /// `None` when nothing was counted.
    pub fn quantile_micros(&self, q: f64) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = ((q.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(1, count);
        let mut seen = 0;
        let bucket = self.counts.iter().position(|n| {
            seen += n;
            seen >= rank
        })?;
        Some(largest_of(bucket))
    }

    /// Cumulative counts for Prometheus: `(bound in microseconds, times below it)`,
    /// bounds rising. A time is rounded down when it is counted, so "below
    /// 16 whole microseconds" is "at most 16 µs" to the precision of the clock.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut next = 0;
        let mut below = 0;
        EXPOSED_POWERS.map(move |power| {
            let bound = 1_u64 << power;
            while largest_of(next) < bound {
                below += self.counts[next];
                next += 1;
            }
            (bound, below)
        })
    }

    /// How many bounds [`HistogramSnapshot::cumulative`] yields.
    pub fn cumulative_len() -> usize {
        EXPOSED_POWERS.count()
    }
}

/// The bucket that counts `micros`.
#[inline]
fn bucket_of(micros: u64) -> usize {
    if micros < 1 << SUB_BITS {
        return micros as usize;
    }
    let power = micros.ilog2();
    let quarter = (micros >> (power - SUB_BITS)) as usize & ((1 << SUB_BITS) - 1);
    let bucket = (((power - SUB_BITS + 1) as usize) << SUB_BITS) + quarter;
    bucket.min(BUCKETS - 1)
}

/// The smallest time in microseconds that `bucket` counts.
fn smallest_of(bucket: usize) -> u64 {
    if bucket < 1 << SUB_BITS {
        return bucket as u64;
    }
    let shift = (bucket >> SUB_BITS) as u32 - 1;
    let quarter = bucket as u64 & ((1 << SUB_BITS) - 1);
    ((1 << SUB_BITS) + quarter) << shift
}

/// The largest time in microseconds that `bucket` counts; of the endless last
/// one its smallest.
fn largest_of(bucket: usize) -> u64 {
    if bucket == BUCKETS - 1 {
        smallest_of(bucket)
    } else {
        smallest_of(bucket + 1) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_are_contiguous_and_cover_every_time() {
        assert_eq!(smallest_of(0), 0);
        for bucket in 0..BUCKETS {
            assert_eq!(bucket_of(smallest_of(bucket)), bucket);
            assert_eq!(bucket_of(largest_of(bucket)), bucket);
            if bucket > 0 {
                assert_eq!(bucket_of(smallest_of(bucket) - 1), bucket - 1);
            }
        }
        assert_eq!(smallest_of(BUCKETS - 1), 56 << 20);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_mean_and_the_quantiles_of_what_was_recorded() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot().quantile_micros(0.5), None);
        assert_eq!(histogram.snapshot().mean_micros(), None);
        histogram.record_n(10, 98);
        histogram.record(100);
        histogram.record(u64::from(u32::MAX));
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.count(), 100);
        assert_eq!(snapshot.sum_micros(), 980 + 100 + u64::from(u32::MAX));
        assert_eq!(snapshot.quantile_micros(0.0), Some(11));
        assert_eq!(snapshot.quantile_micros(0.98), Some(11));
        assert_eq!(snapshot.quantile_micros(0.99), Some(111));
        assert_eq!(snapshot.quantile_micros(1.0), Some(56 << 20));
        assert_eq!(
            snapshot.quantile_micros(f64::NAN),
            Some(11),
            "NaN is the lowest rank"
        );
    }

    #[test]
    fn the_last_bound_given_to_prometheus_leaves_out_what_has_no_bound() {
        let histogram = Histogram::default();
        histogram.record(7);
        histogram.record(8);
        histogram.record(u64::MAX >> 8);
        let exposed: Vec<_> = histogram.snapshot().cumulative().collect();
        assert_eq!(exposed.len(), HistogramSnapshot::cumulative_len());
        assert_eq!(exposed[0], (8, 1));
        assert_eq!(exposed[1], (16, 2));
        assert_eq!(exposed.last(), Some(&(1 << 25, 2)));
    }

    proptest! {
        #[test]
        fn a_quantile_is_at_most_a_quarter_too_high(times in prop::collection::vec(0_u64..50_000_000, 1..200), q in 0.0..=1.0_f64) {
            let histogram = Histogram::default();
            times.iter().for_each(|micros| histogram.record(*micros));
            let mut sorted = times;
            sorted.sort_unstable();
            let rank = ((q * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len());
            let exact = sorted[rank - 1];
            let estimate = histogram.snapshot().quantile_micros(q).unwrap();
            prop_assert!(estimate >= exact && estimate <= exact + exact / 4, "{} for {}", estimate, exact);
        }

        #[test]
        fn workers_added_up_are_one_worker_that_saw_it_all(
            times in prop::collection::vec((0_u64..1 << 40, 1_u64..5, 0_usize..3), 0..100)
        ) {
            let workers: [Histogram; 3] = Default::default();
            let all = Histogram::default();
            for (micros, n, worker) in times {
                workers[worker].record_n(micros, n);
                (0..n).for_each(|_| all.record(micros));
            }
            let mut merged = HistogramSnapshot::default();
            workers.iter().for_each(|worker| worker.add_to(&mut merged));
            prop_assert_eq!(merged, all.snapshot());
        }

        #[test]
        fn cumulative_counts_are_exact_at_each_bound(times in prop::collection::vec(0_u64..50_000_000, 0..100)) {
            let histogram = Histogram::default();
            times.iter().for_each(|micros| histogram.record(*micros));
            for (bound, below) in histogram.snapshot().cumulative() {
                prop_assert_eq!(below, times.iter().filter(|micros| **micros < bound).count() as u64);
            }
        }
    }
}
