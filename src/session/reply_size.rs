//! How large one client's replies are.
//!
//! A shared connection is read whatever its clients do, so the replies of all
//! commands that a client has under way may have to be kept for it. How many
//! commands that may be depends on their size, which is known only from the
//! replies before.

/// What is assumed of a client's replies before there were any, in bytes: few commands
/// for the first round, twice as many for each one that follows.
const AT_FIRST: u32 = 2 * 1024 * 1024;

/// Runs of replies below this are not looked at: they cost no memory worth a thought.
const WORTH_A_LOOK: usize = 4096;

/// An estimate that rises at once and falls by half with each round of replies.
#[derive(Clone, Copy, Debug)]
pub struct ReplySize {
    /// The size of one reply, in bytes.
    estimate: u32,
    /// Bytes so far of a reply that comes in parts.
    part: u32,
    /// The next command waits because of the estimate.
    holds: bool,
}

impl Default for ReplySize {
    fn default() -> ReplySize {
        ReplySize {
            estimate: AT_FIRST,
            part: 0,
            holds: false,
        }
    }
}

impl ReplySize {
    /// `bytes` came that end `count` replies; 0 for a part of one.
    #[inline]
    pub fn note(&mut self, bytes: usize, count: u32) {
        // The end of a large reply may come alone, and be a few bytes.
        if bytes >= WORTH_A_LOOK || self.part > 0 {
            self.note_large(bytes, count);
        }
    }

    fn note_large(&mut self, bytes: usize, count: u32) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.part = self.part.saturating_add(bytes);
        if let Some(average) = self.part.checked_div(count) {
            self.estimate = self.estimate.max(average);
            self.part = 0;
        }
    }

    /// The largest reply of late, as far as it has come, in bytes.
    pub fn largest(&self) -> u64 {
        self.estimate.max(self.part).into()
    }

    /// All replies that were due are there. If more commands could have been sent, the
    /// next round is one of twice as many.
    pub fn end_round(&mut self) {
        if std::mem::take(&mut self.holds) {
            self.estimate /= 2;
        }
    }

    /// Whether the next command has to wait for the replies to `in_flight` others, since
    /// all together may be more than `max` bytes.
    #[inline]
    pub fn hold(&mut self, in_flight: u32, max: u64) -> bool {
        self.holds = u64::from(in_flight) * u64::from(self.estimate) >= max && in_flight > 0;
        self.holds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 64 * 1024 * 1024;

    /// How many commands may be under way.
    fn room(size: &mut ReplySize) -> u32 {
        (0..100_000)
            .find(|&in_flight| size.hold(in_flight, MAX))
            .unwrap_or(100_000)
    }

    #[test]
    fn small_replies_soon_allow_any_number() {
        let mut size = ReplySize::default();
        let mut rounds = Vec::new();
        for _ in 0..7 {
            rounds.push(room(&mut size));
            size.end_round();
        }
        assert_eq!(rounds, [32, 64, 128, 256, 512, 1024, 2048]);
        for _ in 0..30 {
            room(&mut size);
            size.end_round();
        }
        assert_eq!(room(&mut size), 100_000);
    }

    #[test]
    fn large_replies_allow_few() {
        let mut size = ReplySize::default();
        size.note(16 << 20, 1);
        assert_eq!(room(&mut size), 4);
        size.note(100_000, 100);
        assert_eq!(room(&mut size), 4);
        size.end_round();
        assert_eq!(room(&mut size), 8);
    }

    #[test]
    fn only_a_round_that_was_full_allows_more() {
        let mut size = ReplySize::default();
        size.note(16 << 20, 1);
        (0..10).for_each(|_| size.end_round());
        assert_eq!(room(&mut size), 4);
        assert!(!size.hold(3, MAX));
        size.end_round();
        assert_eq!(room(&mut size), 4);
    }

    #[test]
    fn a_reply_counts_with_all_its_parts() {
        let mut size = ReplySize::default();
        for _ in 0..100 {
            size.note(1 << 20, 0);
        }
        assert_eq!(size.largest(), 100 << 20);
        size.note(10, 1);
        assert_eq!(room(&mut size), 1);
        assert_eq!(size.part, 0);
    }

    #[test]
    fn one_command_may_always_be_under_way() {
        let mut size = ReplySize::default();
        for _ in 0..10 {
            size.note(usize::MAX, 0);
        }
        size.note(1, 1);
        assert_eq!(room(&mut size), 1);
    }
}
