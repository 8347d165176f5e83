//! The slow log: the commands that took long from their arrival to their reply, seen from
//! Weir, so with the time that they waited there and with who sent them. (Redis's own log
//! knows neither: to it all commands are Weir's.)
//!
//! In bounded memory, the newest kept. No values of keys, and of what may hold a password
//! nothing but its name.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Of a key so many bytes are kept.
pub const KEY_MAX: usize = 128;

/// One slow command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlowEntry {
    /// Its number, from 1; a later one has a higher number. 0 until noted.
    pub number: u64,
    /// When its reply came, in milliseconds of Unix time.
    pub at: u64,
    /// From its last byte read to the last byte of its reply, in microseconds.
    pub total_us: u64,
    /// The node's share of it: from written to the node to answered. `None` if that was not
    /// seen here, because it went over another worker's connection.
    pub backend_us: Option<u64>,
    /// Bytes of the request.
    pub request_bytes: u64,
    /// Bytes of the reply.
    pub reply_bytes: u64,
    /// Its name in lower case, of a subcommand with its container's before it: `config|get`.
    pub command: String,
    /// Its first key, printable, at most [`KEY_MAX`] bytes of it.
    pub key: Option<String>,
    /// The route.
    pub route: String,
    /// The node's address.
    pub node: String,
    /// The client's id; 0 if it has gone meanwhile, and the three below are empty.
    pub client: u64,
    /// Its address.
    pub address: String,
    /// As whom it is logged in.
    pub user: String,
    /// What it calls itself.
    pub name: String,
}

impl SlowEntry {
    /// How long it waited in Weir, in microseconds, if that is known.
    pub fn waited_us(&self) -> Option<u64> {
        Some(self.total_us.saturating_sub(self.backend_us?))
    }
}

/// The slow commands of one process.
#[derive(Debug, Default)]
pub struct SlowLog {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    entries: VecDeque<SlowEntry>,
    noted: u64,
}

impl SlowLog {
    /// An empty one.
    pub fn new() -> SlowLog {
        SlowLog::default()
    }

    /// Adds one, and lets the oldest go that are more than `entries_max`. Takes a lock: for
    /// slow commands, and of those only so many a second.
    pub fn note(&self, entry: SlowEntry, entries_max: usize) {
        let mut kept = self.kept();
        kept.noted += 1;
        let number = kept.noted;
        kept.entries.push_back(SlowEntry { number, ..entry });
        let surplus = kept.entries.len().saturating_sub(entries_max);
        kept.entries.drain(..surplus);
    }

    /// The last `count`, newest first.
    pub fn last(&self, count: usize) -> Vec<SlowEntry> {
        let kept = self.kept();
        kept.entries.iter().rev().take(count).cloned().collect()
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.kept().entries.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all. Numbers go on.
    pub fn reset(&self) {
        self.kept().entries.clear();
    }

    /// Forgets the keys of what is kept.
    pub fn hide_keys(&self) {
        for entry in &mut self.kept().entries {
            entry.key = None;
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing in here can be left half done.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(total_us: u64) -> SlowEntry {
        SlowEntry {
            total_us,
            ..SlowEntry::default()
        }
    }

    #[test]
    fn the_newest_are_kept() {
        let log = SlowLog::new();
        for micros in 1..=10 {
            log.note(took(micros), 3);
        }
        let kept = log.last(100);
        let micros: Vec<u64> = kept.iter().map(|entry| entry.total_us).collect();
        assert_eq!(micros, [10, 9, 8]);
        assert_eq!(log.last(1)[0].number, 10);
        log.note(
            SlowEntry {
                key: Some("secret".into()),
                ..took(1)
            },
            3,
        );
        log.hide_keys();
        assert_eq!(log.last(1)[0].key, None);
        log.note(took(11), 1);
        assert_eq!(log.len(), 1, "a lower bound holds from the next one on");
        log.reset();
        assert!(log.is_empty());
        log.note(took(12), 3);
        assert_eq!(log.last(1)[0].number, 13, "numbers go on");
        log.note(took(13), 0);
        assert!(log.is_empty());
    }

    #[test]
    fn what_is_not_the_nodes_time_was_waited() {
        let mut entry = took(500);
        assert_eq!(entry.waited_us(), None);
        entry.backend_us = Some(200);
        assert_eq!(entry.waited_us(), Some(300));
        entry.backend_us = Some(501);
        assert_eq!(entry.waited_us(), Some(0));
    }
}
