//! Bytes for a client that its socket has not taken yet, or of a request of its whose
//! end has not come.
//!
//! They are kept in blocks, so that much of it is neither copied when more comes nor
//! kept in memory until the last byte is gone, and what it takes is what it needs.

use std::collections::VecDeque;
use std::io::IoSlice;

/// The largest block, in bytes: large enough that a gigabyte is not many of them.
const BLOCK_MAX: usize = 64 * 1024;

/// The smallest block, in bytes: a client that is slow with one small reply takes little.
const BLOCK_MIN: usize = 512;

/// How many blocks are written with one system call.
const SLICES: usize = 16;

/// A queue of bytes.
#[derive(Debug, Default)]
pub struct Outbox {
    /// None of them is empty.
    blocks: VecDeque<Vec<u8>>,
    /// How much of the first block is gone.
    gone: usize,
    /// Bytes in the queue.
    len: usize,
    /// Bytes of memory that the blocks take.
    memory: usize,
}

impl Outbox {
    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory that it takes.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// Puts bytes behind the others.
    pub fn push(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len();
        if let Some(last) = self.blocks.back_mut() {
            let room = (last.capacity() - last.len()).min(bytes.len());
            last.extend_from_slice(&bytes[..room]);
            bytes = &bytes[room..];
        }
        while !bytes.is_empty() {
            let size = bytes.len().next_power_of_two().clamp(BLOCK_MIN, BLOCK_MAX);
            let taken = size.min(bytes.len());
            let mut block = Vec::with_capacity(size);
            block.extend_from_slice(&bytes[..taken]);
            self.memory += block.capacity();
            self.blocks.push_back(block);
            bytes = &bytes[taken..];
        }
    }

    /// The first bytes, for one vectored write; how many of the slices are used.
    pub fn slices(&self) -> ([IoSlice<'_>; SLICES], usize) {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let used = self.blocks.len().min(SLICES);
        for (index, (slice, block)) in slices.iter_mut().zip(&self.blocks).enumerate() {
            let start = if index == 0 { self.gone } else { 0 };
            *slice = IoSlice::new(&block[start..]);
        }
        (slices, used)
    }

    /// Drops the first `n` bytes: they are written.
    pub fn advance(&mut self, n: usize) {
        debug_assert!(n <= self.len, "more was written than there was");
        self.len -= n;
        self.gone += n;
        while let Some(first) = self.blocks.front()
            && self.gone >= first.len()
        {
            self.gone -= first.len();
            self.memory -= first.capacity();
            self.blocks.pop_front();
        }
        if self.blocks.is_empty() {
            self.blocks = VecDeque::new();
        }
    }

    /// Puts everything behind what is in `into`, giving back each block at once.
    pub fn move_to(&mut self, into: &mut Vec<u8>) {
        let mut from = std::mem::take(self);
        into.reserve_exact(from.len);
        while let Some(block) = from.blocks.pop_front() {
            into.extend_from_slice(&block[from.gone..]);
            from.gone = 0;
        }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        *self = Outbox::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(outbox: &Outbox) -> Vec<u8> {
        let (slices, used) = outbox.slices();
        slices[..used]
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect()
    }

    #[test]
    fn what_goes_in_comes_out() {
        let mut outbox = Outbox::default();
        outbox.push(b"first ");
        outbox.push(b"second");
        assert_eq!(content(&outbox), b"first second");
        outbox.advance(3);
        assert_eq!((content(&outbox), outbox.len()), (b"st second".to_vec(), 9));
        outbox.push(&[b'x'; 1000]);
        outbox.advance(9);
        assert_eq!(content(&outbox), [b'x'; 1000]);
        outbox.advance(1000);
        assert!(outbox.is_empty());
        assert_eq!(outbox.memory(), 0);
    }

    #[test]
    fn any_sizes_in_any_steps() {
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n / 3) as u8).collect();
        let mut outbox = Outbox::default();
        let (mut pushed, mut taken, mut step) = (0, 0, 1);
        while taken < bytes.len() {
            step = step * 7 % 150_001;
            let end = (pushed + step).min(bytes.len());
            outbox.push(&bytes[pushed..end]);
            pushed = end;
            let some = content(&outbox);
            assert!(!some.is_empty());
            assert_eq!(some, bytes[taken..taken + some.len()]);
            assert!(outbox.memory() >= outbox.len());
            let n = (step * 13 % 90_001).min(some.len()).max(1);
            outbox.advance(n);
            taken += n;
        }
        assert_eq!((outbox.len(), outbox.memory()), (0, 0));
    }

    #[test]
    fn it_can_be_put_together() {
        let mut outbox = Outbox::default();
        let bytes: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
        bytes.chunks(1000).for_each(|chunk| outbox.push(chunk));
        outbox.advance(10);
        let mut whole = b"before".to_vec();
        outbox.move_to(&mut whole);
        assert_eq!(whole, [b"before", &bytes[10..]].concat());
        assert_eq!((outbox.len(), outbox.memory()), (0, 0));
    }

    #[test]
    fn it_takes_little_more_than_is_in_it() {
        let mut outbox = Outbox::default();
        outbox.push(b"+OK\r\n");
        assert!(outbox.memory() <= 1024);
        outbox.push(&vec![0; 10 << 20]);
        assert!(outbox.memory() < (10 << 20) + 2 * BLOCK_MAX);
        outbox.advance(9 << 20);
        assert!(outbox.memory() < (1 << 20) + 2 * BLOCK_MAX);
        outbox.clear();
        assert_eq!((outbox.len(), outbox.memory()), (0, 0));
    }
}
