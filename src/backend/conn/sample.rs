//! A sample of all replies, and each one that is too large to come at once: what is needed of
//! them to tell which keys are hot, taken from the request while it is still kept. All other
//! commands pay a counter that goes down.

use super::Conn;
use crate::backend::entry::{Entry, Marks};

/// Of a request so much is kept: enough for the keys of most.
const REQUEST_MAX: usize = 1024;

/// Of one read so many are kept.
const KEPT_MAX: usize = 256;

/// Replies that come in parts are told from here on, in bytes: others are too many.
const LARGE_FROM: u64 = 64 * 1024;

/// Commands that are not a client's, or another worker's, which sees to them itself.
const NOT_SAMPLED: Marks = Marks::LINK
    .with(Marks::LOBBY)
    .with(Marks::SUBSCRIBE)
    .with(Marks::LOST);

/// Which reply is the next of the sample. Lent to a connection for [`Conn::receive`].
#[derive(Clone, Copy, Debug)]
pub struct Sampler {
    /// It is so many replies away; never 0.
    left: u32,
    /// On average one in so many is taken; 0 for none.
    one_in: u32,
    random: u32,
}

impl Default for Sampler {
    fn default() -> Sampler {
        Sampler::new(0, 1)
    }
}

impl Sampler {
    /// One that takes one in so many, in an order of its own.
    pub fn new(one_in: u32, seed: u32) -> Sampler {
        let mut sampler = Sampler {
            left: 1,
            one_in,
            random: seed | 1,
        };
        sampler.next();
        sampler
    }

    /// One in how many it takes; 0 for none.
    pub fn one_in(&self) -> u32 {
        self.one_in
    }

    #[inline]
    pub(super) fn is_due(&mut self) -> bool {
        self.left -= 1;
        self.left == 0
    }

    /// Not every so many: clients that repeat a pattern would always show the same of it.
    fn next(&mut self) {
        // Marsaglia's xorshift.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.left = match self.one_in {
            0 => u32::MAX,
            one_in => self.random % (one_in.saturating_mul(2) - 1) + 1,
        };
    }
}

/// A reply that was looked at.
#[derive(Debug)]
pub struct SampledReply {
    /// Whose, and which command.
    pub entry: Entry,
    /// The beginning of the request.
    pub request: Vec<u8>,
    /// Bytes of the reply.
    pub reply_bytes: u64,
    /// It is one of the sample, and not only large.
    pub is_due: bool,
}

impl Conn {
    /// `start` is where its request begins in the ring.
    #[cold]
    pub(super) fn note_sample(
        &mut self,
        entry: &Entry,
        start: usize,
        reply_bytes: usize,
        is_due: bool,
    ) {
        if is_due {
            self.sampler.next();
        }
        let reply_bytes = (self.streamed + self.carry.len() + reply_bytes) as u64;
        if self.sampler.one_in == 0
            || entry.marks.any(NOT_SAMPLED)
            || (!is_due && reply_bytes < LARGE_FROM)
            || self.sampled.len() == KEPT_MAX
        {
            return;
        }
        let start = start.min(self.ring.len());
        let kept = self.ring.len() - start;
        let len = (entry.len as usize).min(REQUEST_MAX).min(kept);
        self.sampled.push(SampledReply {
            entry: *entry,
            request: self.ring.copy(start, len),
            reply_bytes,
            is_due,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_average_one_in_so_many_is_due() {
        for one_in in [1u32, 2, 100] {
            let mut sampler = Sampler::new(one_in, 42);
            let mut due = 0;
            for _ in 0..one_in * 10_000 {
                if sampler.is_due() {
                    due += 1;
                    sampler.next();
                }
            }
            assert!((9_700..=10_300).contains(&due), "{due} of one in {one_in}");
        }
    }

    #[test]
    fn none_is_due_if_none_is_wanted() {
        let mut sampler = Sampler::new(0, 42);
        assert!((0..100_000).all(|_| !sampler.is_due()));
    }
}
