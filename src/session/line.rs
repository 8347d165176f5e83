//! Commands of one lane that wait in Weir because the node has enough to do: whole requests,
//! in order of arrival, by class and priority.

use std::collections::VecDeque;

use crate::admission::{Priority, Work};
use crate::backend::{Entry, Held};

/// Bytes in front that are gone are given back from here on, in bytes.
const COMPACT_FROM: usize = 64 * 1024;

/// An empty line keeps a buffer of at most so much, in bytes.
const KEEP_MAX: usize = 1024 * 1024;

/// One line: first come, first served.
#[derive(Debug, Default)]
pub struct Line {
    /// Their requests, one behind the other.
    bytes: Vec<u8>,
    /// How much at the front is gone.
    gone: usize,
    entries: VecDeque<Entry>,
}

impl Line {
    /// Puts a command at the end. An entry of no bytes stands for one that was refused and
    /// whose answer has to wait for its turn.
    pub fn push(&mut self, entry: Entry, request: &[u8]) {
        debug_assert_eq!(entry.len as usize, request.len());
        self.bytes.extend_from_slice(request);
        self.entries.push_back(entry);
    }

    /// All that wait, in order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The command at the front.
    pub fn front(&self) -> Option<&Entry> {
        self.entries.front()
    }

    /// Takes the command at the front, handing its request to `take`.
    pub fn pop<R>(&mut self, take: impl FnOnce(Entry, &[u8]) -> R) -> Option<R> {
        let entry = self.entries.pop_front()?;
        let end = self.gone + entry.len as usize;
        let result = take(entry, &self.bytes[self.gone..end]);
        self.gone = end;
        if self.entries.is_empty() {
            self.bytes.clear();
            self.gone = 0;
            if self.bytes.capacity() > KEEP_MAX {
                self.bytes = Vec::new();
            }
        } else if self.gone > COMPACT_FROM.max(self.bytes.len() / 2) {
            self.bytes.drain(..self.gone);
            self.gone = 0;
        }
        Some(result)
    }

    /// Takes out every command that `leaves`, in order, and returns them. Their requests
    /// are lost, and stand there as empty.
    pub fn take_out(&mut self, leaves: impl FnMut(&Entry) -> bool) -> Vec<(Entry, Vec<u8>)> {
        self.take(leaves, |_| Vec::new())
    }

    /// The same with their requests.
    pub fn take_whole(&mut self, leaves: impl FnMut(&Entry) -> bool) -> Vec<(Entry, Vec<u8>)> {
        self.take(leaves, <[u8]>::to_vec)
    }

    fn take(
        &mut self,
        mut leaves: impl FnMut(&Entry) -> bool,
        keep: impl Fn(&[u8]) -> Vec<u8>,
    ) -> Vec<(Entry, Vec<u8>)> {
        let mut taken = Vec::new();
        let mut kept = Line::default();
        for _ in 0..self.entries.len() {
            self.pop(|entry, request| {
                if leaves(&entry) {
                    taken.push((entry, keep(request)));
                } else {
                    kept.push(entry, request);
                }
            });
        }
        *self = kept;
        taken
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Every class and priority, those that are served first before the others.
pub fn every_line() -> impl Iterator<Item = (Work, Priority)> {
    Work::ALL
        .into_iter()
        .flat_map(|work| Priority::ALL.map(|priority| (work, priority)))
}

/// All lines of one lane.
#[derive(Debug, Default)]
pub struct Lines {
    lines: [[Line; Priority::ALL.len()]; Work::ALL.len()],
    /// What they are known to hold.
    pub charged: Held,
}

impl Lines {
    /// The line of a class and priority.
    pub fn of(&mut self, work: Work, priority: Priority) -> &mut Line {
        &mut self.lines[work as usize][priority as usize]
    }

    /// All that wait, those of one line in order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.lines.iter().flatten().flat_map(Line::entries)
    }

    /// How many of a class wait.
    pub fn waiting(&self, work: Work) -> usize {
        self.lines[work as usize].iter().map(Line::len).sum()
    }

    /// How many of a class and priority wait.
    pub fn waiting_at(&self, work: Work, priority: Priority) -> usize {
        self.lines[work as usize][priority as usize].len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        Work::ALL.iter().all(|work| self.waiting(*work) == 0)
    }

    /// What they hold.
    pub fn held(&self) -> Held {
        let lines = self.lines.iter().flatten();
        Held {
            requests: lines.clone().map(|line| line.bytes.len() - line.gone).sum(),
            memory: lines.map(|line| line.bytes.capacity()).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Marks, Ticket};

    fn entry(slot: u32, len: usize) -> Entry {
        Entry {
            to: Ticket {
                slot,
                generation: 1,
            },
            at: 1,
            len: len as u32,
            command: 0,
            marks: Marks::NONE,
        }
    }

    #[test]
    fn requests_come_out_as_they_went_in() {
        let mut line = Line::default();
        let (mut next, mut expected) = (0_u32, 0_u32);
        for round in 0..2_000_u32 {
            for _ in 0..round % 7 {
                let request = vec![next as u8; (next % 300) as usize];
                line.push(entry(next, request.len()), &request);
                next += 1;
            }
            for _ in 0..round % 5 {
                line.pop(|entry, request| {
                    assert_eq!(entry.to.slot, expected);
                    assert_eq!(request, vec![expected as u8; (expected % 300) as usize]);
                    expected += 1;
                });
            }
            assert!(line.bytes.len() - line.gone <= 300 * line.len());
        }
        assert!(expected > 1_000);
    }

    #[test]
    fn some_are_taken_out_of_the_middle() {
        let mut line = Line::default();
        for slot in 0..10_u8 {
            line.push(entry(slot.into(), 3), &[slot; 3]);
        }
        let taken = line.take_out(|entry| entry.to.slot % 2 == 0);
        assert_eq!(taken.len(), 5);
        for slot in [1, 3, 5, 7, 9_u8] {
            line.pop(|entry, request| {
                assert_eq!(
                    (entry.to.slot, request),
                    (slot.into(), [slot; 3].as_slice())
                );
            })
            .expect("it was kept");
        }
        assert_eq!(line.len(), 0);
    }
}
