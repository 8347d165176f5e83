//! The requests of one connection: those not yet written, and behind them, in
//! the same buffer, those written whose reply is outstanding. Keeping the
//! latter costs nothing while traffic flows and makes it possible to send a
//! read again when its connection dies.

use std::collections::VecDeque;
use std::io::IoSlice;

/// A quiet connection gives back a buffer larger than this, in bytes.
const KEEP_MAX: usize = 256 * 1024;

/// Bytes in the order of the requests: `[written, unanswered | unwritten]`.
#[derive(Default, Debug)]
pub struct Ring {
    bytes: VecDeque<u8>,
    /// How many bytes at the front have been written to the node.
    written: usize,
}

impl Ring {
    /// Puts a request (or a part of one) behind the others.
    #[inline]
    pub fn append(&mut self, request: &[u8]) {
        self.bytes.extend(request);
    }

    /// Bytes kept, written or not.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of memory taken.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes that have still to be written.
    #[inline]
    pub fn unwritten(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Bytes that were written and are kept.
    pub fn written(&self) -> usize {
        self.written
    }

    /// What to write next, as two slices for one vectored write.
    pub fn slices(&self) -> [IoSlice<'_>; 2] {
        let (front, back) = self.bytes.as_slices();
        if self.written < front.len() {
            [IoSlice::new(&front[self.written..]), IoSlice::new(back)]
        } else {
            [
                IoSlice::new(&back[self.written - front.len()..]),
                IoSlice::new(&[]),
            ]
        }
    }

    /// Notes that `n` more bytes were written.
    pub fn advance(&mut self, n: usize) {
        self.written += n;
        debug_assert!(self.written <= self.bytes.len());
    }

    /// Drops the `n` bytes at the front: their replies have arrived.
    #[inline]
    pub fn acknowledge(&mut self, n: usize) {
        debug_assert!(
            n <= self.written,
            "a reply to bytes that were never written"
        );
        if n == self.bytes.len() {
            self.bytes.clear();
        } else {
            self.bytes.drain(..n);
        }
        self.written = self.written.saturating_sub(n);
    }

    /// Notes that `n` bytes at the end of the written ones were not written after
    /// all: the worker that was to do it has said so.
    pub fn take_back(&mut self, n: usize) {
        self.written = self.written.saturating_sub(n);
    }

    /// Gives back the memory of a burst. For a quiet connection, or when memory is
    /// tight: under load the buffer would have to grow again at once, copying as it goes.
    pub fn shrink(&mut self) {
        if self.bytes.capacity() > KEEP_MAX.max(4 * self.bytes.len()) {
            self.bytes.shrink_to(2 * self.bytes.len());
        }
    }

    /// Drops all that was written: for requests that are streamed, not kept.
    pub fn forget_written(&mut self) {
        self.acknowledge(self.written);
    }

    /// Copies `len` bytes that begin `start` bytes from the front.
    pub fn copy(&self, start: usize, len: usize) -> Vec<u8> {
        self.bytes.range(start..start + len).copied().collect()
    }

    /// Gives up all bytes.
    pub fn clear(&mut self) {
        *self = Ring::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(ring: &Ring) -> Vec<u8> {
        ring.slices().iter().flat_map(|s| s.to_vec()).collect()
    }

    #[test]
    fn what_is_written_is_kept_until_its_reply_arrives() {
        let mut ring = Ring::default();
        ring.append(b"first");
        ring.append(b"second");
        ring.advance(7);
        assert_eq!(pending(&ring), b"cond");
        assert_eq!(ring.copy(0, 5), b"first");
        ring.acknowledge(5);
        assert_eq!((ring.len(), ring.written(), ring.unwritten()), (6, 2, 4));
        ring.advance(4);
        ring.acknowledge(6);
        assert!(ring.is_empty());
    }

    #[test]
    fn the_bytes_stay_in_order_when_the_buffer_wraps() {
        let mut ring = Ring::default();
        let mut expected = VecDeque::new();
        for turn in 0..1000u32 {
            let request = turn.to_le_bytes();
            ring.append(&request);
            expected.extend(request);
            if turn % 3 == 0 {
                let n = ring.unwritten().min(5);
                ring.advance(n);
                ring.acknowledge(n);
                expected.drain(..n);
            }
            assert_eq!(pending(&ring), expected.iter().copied().collect::<Vec<_>>());
        }
    }
}
