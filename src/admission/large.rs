//! Replies of many megabytes: which requests have them, told from those before.
//!
//! Redis builds a reply whole before it sends the first byte, so what it needs for large
//! replies is decided by how many such requests it is given at once. How large the reply to a
//! request will be is not known when it is sent. But large values are asked for again and
//! again by the same requests, byte by byte, and a string says in its first bytes how long it is.
//!
//! Pure: the caller says what time it is.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// From here on a reply counts as large, in bytes. It takes several milliseconds, besides which
/// a connection of its own costs little; and what a connection shared by many has in flight
/// of smaller ones fits into memory.
pub const LARGE_REPLY: u64 = 4 * 1024 * 1024;

/// Requests that are remembered, at most.
const KNOWN_MAX: usize = 1024;

/// For so long a request is remembered after its last large reply, in seconds.
const KNOWN_FOR: u64 = 60;

/// What is known is not written anew for the same news within this time, in seconds.
const FRESH_FOR: u64 = 5;

/// Longer requests are told from each other by so many bytes, and by their length.
const TOLD_BY: usize = 4096;

#[derive(Clone, Copy, Debug)]
struct Known {
    /// See [`length_bit`].
    length: u64,
    bytes: u64,
    /// In seconds.
    seen: u64,
}

/// Which of 64 a request's length counts as. Most requests are told by it not to be among
/// those that are known, without another look.
pub fn length_bit(length: usize) -> u64 {
    1 << (length % 64)
}

/// The requests whose replies were large of late.
#[derive(Clone, Debug, Default)]
pub struct LargeReplies {
    known: HashMap<u64, Known>,
}

impl LargeReplies {
    /// How large the reply to a request will be, if that is large; see [`request_name`].
    pub fn expect(&self, request: u64) -> Option<u64> {
        self.known.get(&request).map(|known| known.bytes)
    }

    /// Whether it is news that the reply to a request has at least `bytes`.
    pub fn is_news(&self, request: u64, bytes: u64, second: u64) -> bool {
        self.known
            .get(&request)
            .is_none_or(|known| bytes > known.bytes || second >= known.seen + FRESH_FOR)
    }

    /// The reply to a request of this [`length_bit`] has at least `bytes`.
    pub fn learn(&mut self, (request, length): (u64, u64), bytes: u64, second: u64) {
        if self.known.len() >= KNOWN_MAX && !self.known.contains_key(&request) {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.seen);
            if let Some(oldest) = oldest.map(|(request, _)| *request) {
                self.known.remove(&oldest);
            }
        }
        let known = self.known.entry(request).or_insert(Known {
            length,
            bytes,
            seen: 0,
        });
        known.bytes = known.bytes.max(bytes);
        known.seen = second;
    }

    /// Whether some were not seen for so long that they are to be forgotten.
    pub fn has_old(&self, second: u64) -> bool {
        let mut all = self.known.values();
        all.any(|known| known.seen + KNOWN_FOR < second)
    }

    /// Forgets those.
    pub fn forget_old(&mut self, second: u64) {
        self.known
            .retain(|_, known| known.seen + KNOWN_FOR >= second);
    }

    /// The [`length_bit`]s of all that are known.
    pub fn lengths(&self) -> u64 {
        let all = self.known.values();
        all.fold(0, |lengths, known| lengths | known.length)
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

/// Tells a request from others.
pub fn request_name(frame: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    frame.len().hash(&mut hasher);
    frame[..frame.len().min(TOLD_BY)].hash(&mut hasher);
    hasher.finish()
}

/// What may be under way of large replies at one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LargeLimits {
    /// Bytes. A reply that is larger goes alone.
    pub bytes: u64,
    /// Replies.
    pub count: usize,
    /// Requests that wait for others to end.
    pub queue: usize,
}

/// What is under way of large replies at one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UnderWay {
    /// Bytes, as far as known before.
    pub bytes: u64,
    /// Replies.
    pub count: usize,
}

impl UnderWay {
    /// Whether one more of `bytes` may be asked for.
    pub fn has_room(&self, bytes: u64, limits: &LargeLimits) -> bool {
        self.count == 0
            || self.count < limits.count && self.bytes.saturating_add(bytes) <= limits.bytes
    }

    /// It is asked for.
    pub fn begin(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// It is over.
    pub fn end(&mut self, bytes: u64) {
        self.count -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn what_was_large_is_expected_to_be_large_again_for_a_while() {
        let mut replies = LargeReplies::default();
        let (one, other) = (request_name(b"GET a"), request_name(b"GET b"));
        assert!(replies.is_news(one, 5 * MIB, 10));
        replies.learn((one, 2), 5 * MIB, 10);
        assert_eq!(replies.lengths(), 2);
        assert_eq!(replies.expect(one), Some(5 * MIB));
        assert_eq!(replies.expect(other), None);
        assert!(!replies.is_news(one, 5 * MIB, 11));
        assert!(replies.is_news(one, 6 * MIB, 11));
        assert!(replies.is_news(one, 5 * MIB, 10 + FRESH_FOR));
        replies.learn((one, 2), 4 * MIB, 20);
        assert_eq!(replies.expect(one), Some(5 * MIB));
        assert!(!replies.has_old(20 + KNOWN_FOR));
        assert!(replies.has_old(21 + KNOWN_FOR));
        replies.forget_old(21 + KNOWN_FOR);
        assert!(replies.is_empty());
        assert_eq!(replies.lengths(), 0);
    }

    #[test]
    fn the_longest_unseen_make_room() {
        let mut replies = LargeReplies::default();
        for request in 0..2 * KNOWN_MAX as u64 {
            replies.learn((request, 1), LARGE_REPLY, request);
        }
        assert_eq!(replies.len(), KNOWN_MAX);
        assert_eq!(replies.expect(0), None);
        assert!(replies.expect(2 * KNOWN_MAX as u64 - 1).is_some());
    }

    #[test]
    fn requests_are_told_by_all_of_their_bytes() {
        assert_ne!(request_name(b"LRANGE l 0 1"), request_name(b"LRANGE l 0 2"));
        let long = vec![b'x'; 2 * TOLD_BY];
        assert_ne!(request_name(&long), request_name(&long[1..]));
    }

    #[test]
    fn large_replies_fit_into_what_they_may_take_and_one_always_goes() {
        let limits = LargeLimits {
            bytes: 64 * MIB,
            count: 4,
            queue: 10,
        };
        let mut under_way = UnderWay::default();
        assert!(under_way.has_room(200 * MIB, &limits));
        under_way.begin(20 * MIB);
        assert!(!under_way.has_room(200 * MIB, &limits));
        under_way.begin(20 * MIB);
        under_way.begin(20 * MIB);
        assert!(!under_way.has_room(20 * MIB, &limits));
        assert!(under_way.has_room(4 * MIB, &limits));
        under_way.begin(4 * MIB);
        assert!(!under_way.has_room(0, &limits));
        under_way.end(20 * MIB);
        assert!(under_way.has_room(20 * MIB, &limits));
    }
}
