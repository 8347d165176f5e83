//! Clients that keep account of what they were told while connections are lost, and
//! compare it with what is in Redis afterwards.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::support::{RawClient, RedisServer, encode, wait_until};
use super::{error, is_not_executed, is_unknown};

/// What became of one client's increments.
#[derive(Default, Debug, Clone)]
pub struct Account {
    /// Answered with the new value.
    pub acknowledged: u64,
    /// The outcome is unknown, or the connection was closed before the answer.
    pub unknown: u64,
    /// Answered with an error that says that nothing ran.
    pub refused: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Reads that got an error instead.
    pub reads_failed: u64,
}

/// What a client may be answered with besides values.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tolerance {
    /// Redis is there all the time: reads never fail, only writes that were on a lost
    /// connection.
    ReadsNeverFail,
    /// Redis is away for a while.
    Outage,
}

/// One client until `stop`: increments and reads a key of its own, alone and in pipelines
/// and blocks, and checks every reply. Connects again if it is closed.
pub fn keep_account(
    address: SocketAddr,
    id: usize,
    progress: &Progress,
    tolerance: Tolerance,
) -> Account {
    let mut keeper = Keeper {
        id,
        client: RawClient::connect(address),
        account: Account::default(),
        tolerance,
        round: 0,
    };
    while !progress.stop.load(Ordering::Relaxed) {
        keeper.round += 1;
        let done = match (keeper.round + id as u64) % 4 {
            0 => keeper.increments(1),
            1 => keeper.increments(7),
            2 => keeper.reads(3),
            _ => keeper.block(),
        };
        if done.is_err() {
            // Closed: what was on its way is unknown, and was counted so.
            keeper.client = RawClient::connect(address);
        }
        progress.rounds[id].fetch_add(1, Ordering::Relaxed);
    }
    keeper.account
}

/// How far the clients are.
pub struct Progress {
    stop: AtomicBool,
    rounds: Vec<AtomicU64>,
}

impl Progress {
    /// Waits until every client has been answered for so many more pipelines.
    pub fn wait_for_rounds(&self, more: u64) {
        let now = |rounds: &AtomicU64| rounds.load(Ordering::Relaxed);
        let goals: Vec<u64> = self
            .rounds
            .iter()
            .map(|rounds| now(rounds) + more)
            .collect();
        wait_until("every client makes progress", || {
            let mut pairs = self.rounds.iter().zip(&goals);
            pairs.all(|(rounds, goal)| now(rounds) >= *goal)
        });
    }
}

/// What Redis has must be what was acknowledged, and at most what is unknown besides.
pub fn check(redis: &RedisServer, accounts: &[Account]) {
    for (id, account) in accounts.iter().enumerate() {
        let count = value(redis, &format!("count:{id}"));
        let (least, most) = (account.acknowledged, account.acknowledged + account.unknown);
        assert!(
            (least..=most).contains(&count),
            "client {id}: {count} in Redis, not in {least}..={most}: {account:?}"
        );
        // Both halves of a block run or neither does.
        assert_eq!(
            value(redis, &format!("left:{id}")),
            value(redis, &format!("right:{id}")),
            "client {id}: half a block ran"
        );
    }
}

fn value(redis: &RedisServer, key: &str) -> u64 {
    let reply = redis.command(&["GET", key]);
    let text = String::from_utf8_lossy(&reply).into_owned();
    text.split("\r\n")
        .nth(1)
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

struct Keeper {
    id: usize,
    client: RawClient,
    account: Account,
    tolerance: Tolerance,
    round: u64,
}

impl Keeper {
    fn increments(&mut self, count: u64) -> std::io::Result<()> {
        let key = format!("count:{}", self.id);
        let mut left = count;
        let outcome = (|| {
            for _ in 0..count {
                self.client.try_send(encode(&["INCR", &key]))?;
            }
            for _ in 0..count {
                let reply = self.client.try_read_reply()?;
                left -= 1;
                self.note_increment(&reply);
            }
            Ok(())
        })();
        self.account.unknown += left;
        outcome
    }

    fn note_increment(&mut self, reply: &[u8]) {
        match error(reply) {
            None => {
                let value = number(reply);
                let (least, most) = (
                    self.account.acknowledged + 1,
                    self.account.acknowledged + self.account.unknown + 1,
                );
                // Increments behind it in the pipeline may have run as well, but not be
                // counted in its reply.
                assert!(
                    (least..=most).contains(&value),
                    "client {}: INCR said {value}, not in {least}..={most}",
                    self.id
                );
                self.account.acknowledged += 1;
            }
            Some(text) if is_unknown(text) => self.account.unknown += 1,
            Some(text) => {
                assert!(is_not_executed(text), "client {}: {text}", self.id);
                self.account.refused += 1;
            }
        }
    }

    /// Reads of what it wrote and payloads of its own, in one pipeline.
    fn reads(&mut self, count: u64) -> std::io::Result<()> {
        let key = format!("count:{}", self.id);
        for index in 0..count {
            let payload = format!("{}:{}:{index}", self.id, self.round);
            self.client.try_send(encode(&["GET", &key]))?;
            self.client.try_send(encode(&["ECHO", &payload]))?;
        }
        for index in 0..count {
            let payload = format!("{}:{}:{index}", self.id, self.round);
            let (least, most) = (
                self.account.acknowledged,
                self.account.acknowledged + self.account.unknown,
            );
            let reply = self.client.try_read_reply()?;
            if self.is_answered(&reply) {
                let text = String::from_utf8_lossy(&reply).into_owned();
                let digits = text.split("\r\n").nth(1).unwrap_or_default();
                let value = digits.parse().unwrap_or(0);
                assert!(
                    (least..=most).contains(&value),
                    "client {}: GET said {text:?}, not in {least}..={most}",
                    self.id
                );
            }
            let reply = self.client.try_read_reply()?;
            if self.is_answered(&reply) {
                let expected = format!("${}\r\n{payload}\r\n", payload.len());
                assert_eq!(
                    String::from_utf8_lossy(&reply),
                    expected,
                    "client {}: somebody else's reply",
                    self.id
                );
            }
        }
        Ok(())
    }

    fn is_answered(&mut self, reply: &[u8]) -> bool {
        let Some(text) = error(reply) else {
            self.account.reads += 1;
            return true;
        };
        self.account.reads_failed += 1;
        assert!(
            self.tolerance == Tolerance::Outage,
            "client {}: a read failed: {text}",
            self.id
        );
        assert!(
            is_unknown(text) || is_not_executed(text),
            "client {}: {text}",
            self.id
        );
        false
    }

    /// Two keys in one transaction.
    fn block(&mut self) -> std::io::Result<()> {
        let (left, right) = (format!("left:{}", self.id), format!("right:{}", self.id));
        for command in [
            &["MULTI"][..],
            &["INCR", &left],
            &["INCR", &right],
            &["EXEC"],
        ] {
            self.client.try_send(encode(command))?;
        }
        let mut replies = Vec::new();
        for _ in 0..4 {
            replies.push(self.client.try_read_reply()?);
        }
        if let Some(text) = error(&replies[3]) {
            assert!(
                is_unknown(text) || is_not_executed(text) || text.starts_with("EXECABORT"),
                "client {}: {text}",
                self.id
            );
        } else {
            assert!(
                replies[3].starts_with(b"*2\r\n:"),
                "client {}: {}",
                self.id,
                replies[3].escape_ascii()
            );
        }
        Ok(())
    }
}

fn number(reply: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(reply).into_owned();
    text.strip_prefix(':')
        .and_then(|text| text.trim_end().parse().ok())
        .unwrap_or_else(|| panic!("not a count: {text:?}"))
}

/// Runs `clients` clients while `disturb` does its worst, and a few rounds longer.
pub fn run(
    address: SocketAddr,
    clients: usize,
    tolerance: Tolerance,
    disturb: impl FnOnce(&Progress),
) -> Vec<Account> {
    let progress = Progress {
        stop: AtomicBool::new(false),
        rounds: (0..clients).map(|_| AtomicU64::new(0)).collect(),
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|id| {
                let progress = &progress;
                scope.spawn(move || keep_account(address, id, progress, tolerance))
            })
            .collect();
        disturb(&progress);
        progress.wait_for_rounds(4);
        progress.stop.store(true, Ordering::Relaxed);
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a client does not panic"))
            .collect()
    })
}
