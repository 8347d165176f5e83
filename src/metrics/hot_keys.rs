//! Which keys are asked for most, and which replies are the largest, told from a sample of
//! all commands: about the last minute, in bounded memory, each worker for itself.
//!
//! Keys are told from each other by a hash of all their bytes, with a seed of this process's
//! own; of those that are shown [`KEY_MAX`] bytes are kept. If keys are not to be
//! shown, none is kept at all, and the hash stands for it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use super::heavy_hitters::{Fading, HeavyHitters, seconds_counted};
use super::slow_log::KEY_MAX;

/// Counters of each worker, for commands and for bytes: a key with a hundredth of all is
/// found for certain. One takes about 200 bytes.
const COUNTERS: usize = 128;

/// Commands that are told apart for one key.
const COMMANDS_MAX: usize = 3;

/// Largest replies that each worker keeps.
const LARGEST_MAX: usize = 16;

/// For so long they are kept, in microseconds.
const LARGEST_FOR: u64 = 3_600_000_000;

/// Smaller replies are not worth telling, in bytes.
const LARGEST_FROM: u64 = 4096;

/// What is sampled, and how it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// One command in so many; 0 for none.
    pub one_in: u32,
    /// Keys are shown.
    pub shows_keys: bool,
}

/// One command of the sample: what all its keys have in common.
#[derive(Clone, Copy, Debug)]
pub struct Sampled<'a> {
    /// The index of its route.
    pub route: u16,
    /// The database.
    pub db: u32,
    /// Its name.
    pub command: &'a str,
    /// Bytes of its reply.
    pub reply_bytes: u64,
    /// When, in microseconds since the process started.
    pub now: u64,
}

/// A reply that is among the largest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LargeReply {
    /// The index of its route.
    pub route: u16,
    /// The database.
    pub db: u32,
    /// The first key of its command, printable, or what stands for it.
    pub key: Option<String>,
    /// The command.
    pub command: String,
    /// Its bytes: of those with the same key and command the most.
    pub bytes: u64,
    /// The address of the client that asked last.
    pub address: String,
    /// As whom that was logged in.
    pub user: String,
    /// What it calls itself.
    pub name: String,
    /// When it asked, in microseconds since the process started.
    pub at: u64,
}

/// One key, as estimated. Of a command with several keys each gets an equal part of the bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HotKey {
    /// The index of its route.
    pub route: u16,
    /// The database.
    pub db: u32,
    /// Printable, or what stands for it.
    pub key: String,
    /// The command that it is named by most.
    pub command: String,
    /// Commands in a second that name it.
    pub commands: f64,
    /// Which part of all commands of the route that is.
    pub commands_share: f64,
    /// Bytes of their replies in a second.
    pub bytes: f64,
    /// Which part of all bytes of the route's replies that is.
    pub bytes_share: f64,
}

/// What is told of all workers together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HotView {
    /// Those that most commands name, most first.
    pub by_commands: Vec<HotKey>,
    /// Those whose replies are the most bytes, most first.
    pub by_bytes: Vec<HotKey>,
    /// The largest replies of the last hour, the largest first.
    pub largest: Vec<LargeReply>,
}

/// The hot keys of one process.
#[derive(Debug)]
pub struct HotKeys {
    workers: Vec<Mutex<Watch>>,
    seed: RandomState,
}

/// What one worker has seen.
#[derive(Debug)]
struct Watch {
    sampling: Sampling,
    since: u64,
    by_commands: HeavyHitters<KeyUse>,
    by_bytes: HeavyHitters<KeyUse>,
    /// Commands and bytes of each route, of the sample.
    totals: Vec<(Fading, Fading)>,
    largest: Vec<(u64, LargeReply)>,
}

#[derive(Debug)]
struct KeyUse {
    route: u16,
    db: u32,
    key: Option<Box<[u8]>>,
    commands: [(Box<str>, Fading); COMMANDS_MAX],
    count: Fading,
    bytes: Fading,
}

impl HotKeys {
    /// For so many workers. Nothing is kept before [`HotKeys::configure`].
    pub fn new(workers: usize) -> HotKeys {
        let off = Sampling {
            one_in: 0,
            shows_keys: true,
        };
        let watch = |_| Mutex::new(Watch::new(off, 0));
        HotKeys {
            workers: (0..workers).map(watch).collect(),
            seed: RandomState::new(),
        }
    }

    /// A worker samples in this way from now on. What was kept in another way is forgotten:
    /// it would be counted wrongly, or is not to be shown.
    pub fn configure(&self, worker: usize, sampling: Sampling, now: u64) {
        let mut watch = lock(&self.workers[worker]);
        if watch.sampling != sampling {
            *watch = Watch::new(sampling, now);
        }
    }

    /// A command of a worker's sample, with some of the `count` keys that it has. Never waits:
    /// what comes while somebody reads is left out.
    pub fn note(&self, worker: usize, sampled: Sampled<'_>, keys: &[&[u8]], count: usize) {
        let Some(mut watch) = try_lock(&self.workers[worker]) else {
            return;
        };
        let names = keys.iter().map(|key| (self.name(&sampled, key), *key));
        watch.note(sampled, count, names);
    }

    /// A reply that may be among the largest: `whose` adds who asked for it.
    pub fn note_large(
        &self,
        worker: usize,
        sampled: Sampled<'_>,
        key: Option<&[u8]>,
        whose: impl FnOnce(&mut LargeReply),
    ) {
        if sampled.reply_bytes < LARGEST_FROM {
            return;
        }
        let Some(mut watch) = try_lock(&self.workers[worker]) else {
            return;
        };
        let name = self.seed.hash_one((
            self.name(&sampled, key.unwrap_or_default()),
            sampled.command,
        ));
        watch.note_large(name, sampled, key, whose);
    }

    /// At most `count` of each list.
    pub fn view(&self, count: usize, now: u64) -> HotView {
        let mut keys: HashMap<u64, HotKey> = HashMap::new();
        let mut by_bytes: HashMap<u64, HotKey> = HashMap::new();
        let mut totals: Vec<(f64, f64)> = Vec::new();
        let mut largest: HashMap<u64, LargeReply> = HashMap::new();
        for worker in &self.workers {
            let watch = lock(worker);
            watch.add_up(&mut keys, &mut by_bytes, &mut totals, now);
            for (name, reply) in &watch.largest {
                let known = largest.get(name);
                if reply.at + LARGEST_FOR > now
                    && known.is_none_or(|known| known.bytes < reply.bytes)
                {
                    largest.insert(*name, reply.clone());
                }
            }
        }
        let top = |keys: HashMap<u64, HotKey>, by: fn(&HotKey) -> f64| {
            let mut keys: Vec<HotKey> = keys.into_values().collect();
            for key in &mut keys {
                let (commands, bytes) = totals[key.route as usize];
                key.commands_share = part(key.commands, commands);
                key.bytes_share = part(key.bytes, bytes);
            }
            keys.sort_by(|one, other| by(other).total_cmp(&by(one)));
            keys.truncate(count);
            keys
        };
        let mut largest: Vec<LargeReply> = largest.into_values().collect();
        largest.sort_by_key(|reply| Reverse(reply.bytes));
        largest.truncate(count);
        HotView {
            by_commands: top(keys, |key| key.commands),
            by_bytes: top(by_bytes, |key| key.bytes),
            largest,
        }
    }

    fn name(&self, sampled: &Sampled<'_>, key: &[u8]) -> u64 {
        self.seed.hash_one((sampled.route, sampled.db, key))
    }
}

impl Watch {
    fn new(sampling: Sampling, now: u64) -> Watch {
        Watch {
            sampling,
            since: now,
            by_commands: HeavyHitters::new(COUNTERS),
            by_bytes: HeavyHitters::new(COUNTERS),
            totals: Vec::new(),
            largest: Vec::new(),
        }
    }

    fn note<'k>(
        &mut self,
        sampled: Sampled<'_>,
        count: usize,
        keys: impl Iterator<Item = (u64, &'k [u8])>,
    ) {
        let route = sampled.route as usize;
        if self.totals.len() <= route {
            self.totals.resize_with(route + 1, Default::default);
        }
        let now = sampled.now;
        let bytes = sampled.reply_bytes as f64;
        let (commands, total_bytes) = &mut self.totals[route];
        commands.add(1.0, now);
        total_bytes.add(bytes, now);
        let bytes = bytes / count.max(1) as f64;
        let shows_keys = self.sampling.shows_keys;
        for (name, key) in keys {
            let make = || KeyUse::new(&sampled, shows_keys.then_some(key));
            let counted = self.by_commands.note(name, 1.0, now, make);
            counted.add(&sampled, bytes);
            let counted = self.by_bytes.note(name, bytes, now, make);
            counted.add(&sampled, bytes);
        }
    }

    fn note_large(
        &mut self,
        name: u64,
        sampled: Sampled<'_>,
        key: Option<&[u8]>,
        whose: impl FnOnce(&mut LargeReply),
    ) {
        let (bytes, now) = (sampled.reply_bytes, sampled.now);
        self.largest
            .retain(|(_, reply)| reply.at + LARGEST_FOR > now);
        let known = self.largest.iter_mut().find(|(known, _)| *known == name);
        if let Some((_, reply)) = known {
            reply.bytes = reply.bytes.max(bytes);
            reply.at = now;
            return whose(reply);
        }
        if self.largest.len() == LARGEST_MAX {
            let all = self.largest.iter().enumerate();
            let least = all.min_by_key(|(_, (_, reply))| reply.bytes);
            let (least, (_, reply)) = least.expect("there are some");
            if reply.bytes >= bytes {
                return;
            }
            self.largest.swap_remove(least);
        }
        let shows_keys = self.sampling.shows_keys;
        let key = key.map(|key| shown(shows_keys.then_some(key), name));
        let mut reply = LargeReply {
            route: sampled.route,
            db: sampled.db,
            key,
            command: sampled.command.to_owned(),
            bytes,
            at: now,
            ..LargeReply::default()
        };
        whose(&mut reply);
        self.largest.push((name, reply));
    }

    /// What this worker has seen, as rates, on top of what others have.
    fn add_up(
        &self,
        by_commands: &mut HashMap<u64, HotKey>,
        by_bytes: &mut HashMap<u64, HotKey>,
        totals: &mut Vec<(f64, f64)>,
        now: u64,
    ) {
        let seconds = seconds_counted(now.saturating_sub(self.since)).max(1.0);
        let each = f64::from(self.sampling.one_in) / seconds;
        if totals.len() < self.totals.len() {
            totals.resize_with(self.totals.len(), Default::default);
        }
        for (sum, (commands, bytes)) in totals.iter_mut().zip(&self.totals) {
            sum.0 += commands.at(now) * each;
            sum.1 += bytes.at(now) * each;
        }
        // Less than half a command is what is left of one that came long ago.
        for hitter in self.by_commands.all(now) {
            if hitter.weight_min > 0.5 {
                let bytes = hitter.kept.bytes.at(now);
                let told = (hitter.weight_min * each, bytes * each);
                hitter.kept.tell(hitter.name, by_commands, told, now);
            }
        }
        for hitter in self.by_bytes.all(now) {
            let count = hitter.kept.count.at(now);
            if hitter.weight_min > 0.0 && count > 0.5 {
                let told = (count * each, hitter.weight_min * each);
                hitter.kept.tell(hitter.name, by_bytes, told, now);
            }
        }
    }
}

impl KeyUse {
    fn new(sampled: &Sampled<'_>, key: Option<&[u8]>) -> KeyUse {
        KeyUse {
            route: sampled.route,
            db: sampled.db,
            key: key.map(|key| key[..key.len().min(KEY_MAX)].into()),
            commands: Default::default(),
            count: Fading::default(),
            bytes: Fading::default(),
        }
    }

    fn add(&mut self, sampled: &Sampled<'_>, bytes: f64) {
        let now = sampled.now;
        self.count.add(1.0, now);
        self.bytes.add(bytes, now);
        let known = self.commands.iter();
        let known = known.map(|(command, _)| &**command == sampled.command);
        if let Some(index) = known.into_iter().position(|is_it| is_it) {
            self.commands[index].1.add(1.0, now);
            return;
        }
        let by_weight = |(_, weight): &&mut (Box<str>, Fading)| weight.at(now);
        let mut all = self.commands.iter_mut();
        let first = all.next().expect("there are some");
        let least = all.fold(first, |least, it| {
            if by_weight(&&mut *it) < by_weight(&&mut *least) {
                it
            } else {
                least
            }
        });
        // As with the keys themselves, the new one takes over what the old one had.
        least.0 = sampled.command.into();
        least.1.add(1.0, now);
    }

    fn tell(&self, name: u64, to: &mut HashMap<u64, HotKey>, told: (f64, f64), now: u64) {
        let most = self.commands.iter();
        let most = most.max_by(|one, other| one.1.at(now).total_cmp(&other.1.at(now)));
        let key = to.entry(name).or_insert_with(|| HotKey {
            route: self.route,
            db: self.db,
            key: shown(self.key.as_deref(), name),
            command: most.map_or(String::new(), |(command, _)| command.to_string()),
            ..HotKey::default()
        });
        key.commands += told.0;
        key.bytes += told.1;
    }
}

/// A key, printable and cut; what stands for it if it is not to be shown.
fn shown(key: Option<&[u8]>, name: u64) -> String {
    match key {
        Some(key) => key[..key.len().min(KEY_MAX)].escape_ascii().to_string(),
        None => format!("(hidden {:08x})", name as u32),
    }
}

fn part(of: f64, all: f64) -> f64 {
    if all > 0.0 { (of / all).min(1.0) } else { 0.0 }
}

fn lock(watch: &Mutex<Watch>) -> MutexGuard<'_, Watch> {
    // What is half done after a panic is an estimate that is a little off.
    watch.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_lock(watch: &Mutex<Watch>) -> Option<MutexGuard<'_, Watch>> {
    match watch.try_lock() {
        Ok(watch) => Some(watch),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn all_of(shows_keys: bool) -> Sampling {
        Sampling {
            one_in: 10,
            shows_keys,
        }
    }

    fn get(reply_bytes: u64, now: u64) -> Sampled<'static> {
        Sampled {
            route: 0,
            db: 0,
            command: "get",
            reply_bytes,
            now,
        }
    }

    #[test]
    fn rates_and_shares_are_those_of_all_workers_together() {
        let hot = HotKeys::new(2);
        for worker in 0..2 {
            hot.configure(worker, all_of(true), 0);
            for number in 0..6_000u64 {
                let now = number * SECOND / 100;
                let own = format!("other:{number}");
                let key = if number % 4 == 0 { "hot" } else { &own };
                hot.note(worker, get(100, now), &[key.as_bytes()], 1);
            }
        }
        let view = hot.view(5, 60 * SECOND);
        let hottest = &view.by_commands[0];
        assert_eq!((&*hottest.key, &*hottest.command), ("hot", "get"));
        // 100 samples a second and worker, each of ten commands, every fourth of them.
        assert!((hottest.commands - 500.0).abs() < 25.0, "{hottest:?}");
        assert!((hottest.commands_share - 0.25).abs() < 0.02, "{hottest:?}");
        assert!((hottest.bytes - 50_000.0).abs() < 2_500.0, "{hottest:?}");
        assert!((hottest.bytes_share - 0.25).abs() < 0.02, "{hottest:?}");
        assert_eq!(hot.view(0, 60 * SECOND).by_commands, []);
        assert_eq!(hot.view(5, 7_200 * SECOND).by_commands, [], "it has faded");
    }

    #[test]
    fn a_key_with_few_large_replies_is_told_by_its_bytes() {
        let hot = HotKeys::new(1);
        hot.configure(0, all_of(true), 0);
        for number in 0..3_000u64 {
            let now = number * SECOND / 100;
            hot.note(
                0,
                get(10, now),
                &[format!("small:{}", number % 5).as_bytes()],
                1,
            );
            if number % 100 == 0 {
                hot.note(0, get(1 << 20, now), &[b"large"], 1);
            }
        }
        let view = hot.view(10, 30 * SECOND);
        assert_eq!(view.by_bytes[0].key, "large");
        assert!(view.by_bytes[0].bytes_share > 0.9);
        assert!(view.by_commands[0].key.starts_with("small:"));
    }

    #[test]
    fn the_command_that_is_used_most_is_told() {
        let hot = HotKeys::new(1);
        hot.configure(0, all_of(true), 0);
        for number in 0..100u64 {
            let command = ["set", "get", "get", "del", "ttl", "get"][number as usize % 6];
            let sampled = Sampled {
                command,
                ..get(5, number)
            };
            hot.note(0, sampled, &[b"k", b"\x00\xff"], 2);
        }
        let view = hot.view(10, SECOND);
        assert_eq!(view.by_commands[0].command, "get");
        assert!(view.by_commands.iter().any(|key| key.key == "\\x00\\xff"));
    }

    #[test]
    fn a_database_and_a_route_have_their_own_keys() {
        let hot = HotKeys::new(1);
        hot.configure(0, all_of(true), 0);
        for (route, db) in [(0, 0), (0, 1), (3, 0)] {
            let sampled = Sampled {
                route,
                db,
                ..get(5, 1)
            };
            hot.note(0, sampled, &[b"k"], 1);
        }
        let view = hot.view(10, 2);
        assert_eq!(view.by_commands.len(), 3);
        let of_third = view.by_commands.iter().find(|key| key.route == 3);
        assert_eq!(of_third.map(|key| key.commands_share), Some(1.0));
    }

    #[test]
    fn keys_that_are_not_to_be_shown_are_not_kept() {
        let hot = HotKeys::new(1);
        hot.configure(0, all_of(true), 0);
        hot.note(0, get(9_000, 1), &[b"secret"], 1);
        hot.note_large(0, get(9_000, 1), Some(b"secret"), |_| {});
        hot.configure(0, all_of(false), 2);
        assert_eq!(hot.view(10, 3), HotView::default(), "forgotten");
        for key in [&b"secret"[..], b"secret", b"another"] {
            hot.note(0, get(9_000, 3), &[key], 1);
            hot.note_large(0, get(9_000, 3), Some(key), |_| {});
        }
        let view = hot.view(10, 4);
        assert!(!format!("{view:?} {hot:?}").contains("secret"), "{view:?}");
        assert_eq!(view.by_commands.len(), 2, "and still told apart");
        assert!(view.by_commands[0].key.starts_with("(hidden "));
        assert_eq!(view.largest.len(), 2);
    }

    #[test]
    fn the_largest_replies_are_kept_for_an_hour_each_once() {
        let hot = HotKeys::new(1);
        hot.configure(0, all_of(true), 0);
        for number in 0..100u64 {
            let key = format!("k{number}");
            hot.note_large(0, get(10_000 + number, 1), Some(key.as_bytes()), |_| {});
        }
        hot.note_large(0, get(50_000, 2), Some(b"k99"), |reply| {
            reply.user = "a".into()
        });
        hot.note_large(0, get(20_000, 3), Some(b"k99"), |reply| {
            reply.user = "b".into()
        });
        hot.note_large(0, get(100, 3), Some(b"small"), |_| {
            unreachable!("too small")
        });
        hot.note_large(0, get(15_000, 3), None, |_| {});
        let largest = hot.view(LARGEST_MAX + 1, 4).largest;
        assert_eq!(largest.len(), LARGEST_MAX);
        assert_eq!(largest[0].key.as_deref(), Some("k99"));
        assert_eq!((largest[0].bytes, &*largest[0].user), (50_000, "b"));
        assert_eq!(largest[1].key, None);
        assert_eq!(largest[2].bytes, 10_098);
        assert_eq!(hot.view(9, LARGEST_FOR + 10).largest, []);
    }
}
