//! What commands cost a node, by its own account: `INFO commandstats`, and of single
//! expensive ones its slow log. Not by the gaps between replies, which come in batches.
//!
//! Pure: the caller asks the node, once in a while, and says when.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Names that are kept: more than Redis and all its modules have.
const NAMES_MAX: usize = 2_048;

/// Single expensive commands that are remembered.
const MARKED_MAX: usize = 256;

/// How many questions long one is remembered: a minute at one a second.
const MARKED_FOR: u64 = 60;

/// From one question to the next, what a command took of the node weighs so much less.
const FADES: f64 = 0.8;

/// Of an argument so many bytes tell it from others: Redis cuts longer ones in its slow log
/// behind 128 bytes.
const TOLD_BY: usize = 100;

/// What is known of one name.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Account {
    calls: u64,
    micros: u64,
    /// Of one call, in microseconds, as of late.
    mean: Option<f64>,
    /// What all its calls took of late, in microseconds: older ones weigh less and less.
    lately: f64,
}

/// What a node's commands cost.
#[derive(Clone, Debug, Default)]
pub struct Costs {
    accounts: HashMap<Box<str>, Account>,
    /// By name and first argument: what it took, and since when that is known.
    marked: HashMap<(Box<str>, u64), (u64, u64)>,
    /// The last entry of the slow log that was looked at.
    slow_log_seen: Option<i64>,
    asked: u64,
    /// Of one call of a quick command, in microseconds, in the time between the last two
    /// questions.
    quick_mean: Option<f64>,
}

impl Costs {
    /// Takes in the answer to `INFO commandstats`. `slow_above` is what a slow command takes,
    /// in microseconds.
    pub fn learn_stats(&mut self, info: &str, slow_above: f64) {
        self.asked += 1;
        let asked = self.asked;
        for account in self.accounts.values_mut() {
            account.lately *= FADES;
        }
        self.marked.retain(|_, (_, at)| *at + MARKED_FOR > asked);
        let (mut calls_all, mut micros_all) = (0, 0);
        for (name, calls, micros) in info.lines().filter_map(stat) {
            if self.accounts.len() >= NAMES_MAX && !self.accounts.contains_key(name) {
                continue;
            }
            let account = self.accounts.entry(name.into()).or_default();
            // After a restart, or CONFIG RESETSTAT, it counts from 0 again.
            let is_anew = calls < account.calls || micros < account.micros;
            let (calls_new, micros_new) = match is_anew {
                true => (calls, micros),
                false => (calls - account.calls, micros - account.micros),
            };
            (account.calls, account.micros) = (calls, micros);
            if calls_new == 0 {
                continue;
            }
            if asked > 1 {
                // What was before the first question may be days old.
                account.lately += micros_new as f64;
            }
            let mean = micros_new as f64 / calls_new as f64;
            let mean = account.mean.map_or(mean, |before| (before + mean) / 2.0);
            account.mean = Some(mean);
            if mean < slow_above {
                calls_all += calls_new;
                micros_all += micros_new;
            }
        }
        self.quick_mean = (calls_all > 0).then(|| micros_all as f64 / calls_all as f64);
    }

    /// Takes in an entry of the slow log: its number, what it took in microseconds, and the
    /// command.
    pub fn learn_slow(&mut self, number: i64, micros: u64, name: &str, first: Option<&[u8]>) {
        // Entries from before the first question may be days old.
        if self.asked <= 1 || self.slow_log_seen.is_some_and(|seen| number <= seen) {
            return;
        }
        let Some(first) = first else { return };
        if self.marked.len() < MARKED_MAX {
            let name = name.to_ascii_lowercase().into_boxed_str();
            self.marked
                .insert((name, told_by(first)), (micros, self.asked));
        }
    }

    /// All entries of the slow log up to this one were looked at.
    pub fn slow_log_seen(&mut self, number: i64) {
        let seen = self.slow_log_seen.unwrap_or(number);
        // The log of a node that was restarted begins at 0.
        self.slow_log_seen = Some(if number < seen {
            number
        } else {
            seen.max(number)
        });
    }

    /// What one call takes, in microseconds, as of late; `None` if nobody has called it.
    pub fn mean(&self, name: &str) -> Option<f64> {
        self.accounts.get(name)?.mean
    }

    /// The part of the time of all commands that each took of late, from 0 to 1, the most
    /// first: at most `count` names.
    pub fn greediest(&self, count: usize) -> Vec<(&str, f64)> {
        let all: f64 = self.accounts.values().map(|account| account.lately).sum();
        if all <= 0.0 {
            return Vec::new();
        }
        let shares = self.accounts.iter();
        let mut shares: Vec<(&str, f64)> = shares
            .map(|(name, account)| (&**name, account.lately / all))
            .filter(|(_, share)| *share > 0.0)
            .collect();
        shares.sort_by(|one, other| other.1.total_cmp(&one.1));
        shares.truncate(count);
        shares
    }

    /// How often it was called since the node began to count.
    pub fn calls(&self, name: &str) -> u64 {
        self.accounts.get(name).map_or(0, |account| account.calls)
    }

    /// What one call of a quick command takes, in microseconds, all of them together.
    pub fn quick_mean(&self) -> Option<f64> {
        self.quick_mean
    }

    /// Single commands that were expensive of late: by name and by [`told_by`] of the first
    /// argument, and what they took in microseconds.
    pub fn marked(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        self.marked
            .iter()
            .map(|((name, told), (micros, _))| (&**name, *told, *micros))
    }
}

/// One line: `cmdstat_get:calls=21,usec=175,usec_per_call=8.33,…`.
fn stat(line: &str) -> Option<(&str, u64, u64)> {
    let (name, fields) = line.trim_end().strip_prefix("cmdstat_")?.split_once(':')?;
    let field = |key: &str| {
        let value = fields
            .split(',')
            .find_map(|field| field.strip_prefix(key))?;
        value.strip_prefix('=')?.parse().ok()
    };
    Some((name, field("calls")?, field("usec")?))
}

/// Tells an argument from others by its beginning.
pub fn told_by(argument: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    argument[..argument.len().min(TOLD_BY)].hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(get: (u64, u64), eval: (u64, u64)) -> String {
        format!(
            "# Commandstats\r\ncmdstat_get:calls={},usec={},usec_per_call=1.00,rejected_calls=0,failed_calls=0\r\n\
             cmdstat_eval:calls={},usec={},usec_per_call=1.00,rejected_calls=0,failed_calls=0\r\n\
             cmdstat_config|get:calls=1,usec=40,usec_per_call=40.00\r\ncmdstat_broken:calls=x\r\n",
            get.0, get.1, eval.0, eval.1
        )
    }

    #[test]
    fn a_cost_is_what_it_was_of_late() {
        let mut costs = Costs::default();
        costs.learn_stats(&stats((100, 200), (10, 100)), 1_000.0);
        assert_eq!(costs.mean("get"), Some(2.0));
        assert_eq!(costs.mean("config|get"), Some(40.0));
        assert_eq!(costs.mean("broken"), None);
        for round in 1..=10 {
            costs.learn_stats(
                &stats((100, 200), (10 + round, 100 + 2_000 * round)),
                1_000.0,
            );
        }
        let mean = costs.mean("eval").unwrap();
        assert!(mean > 1_990.0, "{mean}");
        // Counters that begin anew are no negative costs.
        costs.learn_stats(&stats((10, 50), (0, 0)), 1_000.0);
        assert_eq!(costs.mean("get"), Some(3.5));
        assert_eq!(costs.quick_mean(), Some(5.0));
    }

    #[test]
    fn the_greediest_are_those_of_late() {
        let mut costs = Costs::default();
        costs.learn_stats(&stats((1_000, 900_000), (0, 0)), 1_000.0);
        assert_eq!(costs.greediest(5), [], "of before the first question");
        costs.learn_stats(&stats((1_001, 901_000), (3, 3_000)), 1_000.0);
        assert_eq!(costs.greediest(5), [("eval", 0.75), ("get", 0.25)]);
        assert_eq!(costs.greediest(1).len(), 1);
        for round in 1..=20 {
            costs.learn_stats(
                &stats((1_001 + round, 901_000 + round * 1_000), (3, 3_000)),
                1_000.0,
            );
        }
        let greediest = costs.greediest(1);
        assert!(
            greediest[0].0 == "get" && greediest[0].1 > 0.9,
            "{greediest:?}"
        );
    }

    #[test]
    fn single_expensive_commands_are_remembered_for_a_while() {
        let mut costs = Costs::default();
        costs.learn_stats("", 1_000.0);
        costs.learn_slow(1, 50_000, "HGETALL", Some(b"long ago"));
        assert_eq!(costs.marked().count(), 0);
        costs.slow_log_seen(1);
        costs.learn_stats("", 1_000.0);
        costs.learn_slow(1, 50_000, "HGETALL", Some(b"long ago"));
        costs.learn_slow(2, 60_000, "HGETALL", Some(b"large"));
        let marked: Vec<_> = costs.marked().collect();
        assert_eq!(marked, [("hgetall", told_by(b"large"), 60_000)]);
        for _ in 0..MARKED_FOR {
            costs.learn_stats("", 1_000.0);
        }
        assert_eq!(costs.marked().count(), 0);
    }

    #[test]
    fn a_long_argument_is_told_by_what_the_slow_log_keeps_of_it() {
        let script = vec![b'x'; 500];
        let cut = [&script[..128], b"... (372 more bytes)"].concat();
        assert_eq!(told_by(&script), told_by(&cut));
        assert_ne!(told_by(b"a"), told_by(b"b"));
    }

    #[test]
    fn memory_has_a_bound() {
        let mut costs = Costs::default();
        let many: String = (0..5_000)
            .map(|n| format!("cmdstat_x{n}:calls=1,usec=1\r\n"))
            .collect();
        costs.learn_stats(&many, 1_000.0);
        costs.learn_stats(&many, 1_000.0);
        for n in 0..5_000 {
            costs.learn_slow(n, 1, "x", Some(&n.to_le_bytes()));
        }
        assert!(costs.accounts.len() <= NAMES_MAX && costs.marked.len() <= MARKED_MAX);
    }
}
