//! How far a replica is behind, in time: from offsets that were looked at one after
//! another. The primary's offset, asked for at some moment, covers every write that was
//! acknowledged before that moment; a replica that is as far has all of those.

use std::collections::VecDeque;

/// Offsets of the primary that are remembered: a replica that is further behind than the
/// oldest is known to be behind by at least as much as that one is old.
const SAMPLES_MAX: usize = 256;

/// Offsets of one primary, each with the time before which it was asked for. Times are
/// microseconds of any one clock.
#[derive(Debug, Clone, Default)]
pub struct OffsetSamples(VecDeque<(u64, i64)>);

impl OffsetSamples {
    /// The primary was asked at `asked_at` and said that it is at `offset`.
    pub fn note(&mut self, asked_at: u64, offset: i64) {
        match self.0.back_mut() {
            // Nothing was written since: the same offset covers more.
            Some((at, known)) if *known == offset => *at = asked_at.max(*at),
            _ => self.0.push_back((asked_at, offset)),
        }
        if self.0.len() > SAMPLES_MAX {
            self.0.pop_front();
        }
    }

    /// A replica is at `offset`: up to which moment it has all that was acknowledged.
    pub fn covered_by(&self, offset: i64) -> Option<u64> {
        let reached = self.0.iter().rev().find(|(_, known)| *known <= offset);
        reached.map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_has_all_that_was_acknowledged_before_the_offset_it_has_reached() {
        let mut samples = OffsetSamples::default();
        for (at, offset) in [(10, 100), (20, 100), (30, 250), (40, 300)] {
            samples.note(at, offset);
        }
        assert_eq!(samples.covered_by(99), None);
        assert_eq!(samples.covered_by(100), Some(20));
        assert_eq!(samples.covered_by(299), Some(30));
        assert_eq!(samples.covered_by(300), Some(40));
        assert_eq!(samples.covered_by(i64::MAX), Some(40));
    }

    #[test]
    fn years_of_samples_take_no_more_room() {
        let mut samples = OffsetSamples::default();
        for at in 0..10_000 {
            samples.note(at, at as i64);
        }
        assert_eq!(samples.0.len(), SAMPLES_MAX);
        assert_eq!(samples.covered_by(1), None);
        assert_eq!(samples.covered_by(9_999), Some(9_999));
    }
}
