//! Clients that count: each increments a key of its own, reads it back, and keeps account
//! of what it was told.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::error;
use super::support::{RawClient, RedisServer, wait_until};

/// What one client was told.
#[derive(Debug, Default, Clone)]
pub struct Told {
    /// Increments that were answered with a value.
    pub acknowledged: u64,
    /// Increments of which nobody knows whether they ran.
    pub unknown: u64,
    /// Commands that did not run, by the error.
    pub refused: u64,
    /// Reads that were answered with a value.
    pub reads: u64,
    /// Reads that were answered with an error.
    pub reads_failed: u64,
    /// The longest that a command took.
    pub longest: Duration,
    /// The errors, each once.
    pub errors: Vec<String>,
}

/// What runs beside the clients looks at how far they are.
pub struct Progress {
    stop: AtomicBool,
    acknowledged: Vec<AtomicU64>,
}

impl Progress {
    /// Waits until every client has had so many more increments acknowledged.
    pub fn wait_for(&self, more: u64) {
        let now = || -> Vec<u64> {
            self.acknowledged
                .iter()
                .map(|it| it.load(Relaxed))
                .collect()
        };
        let goals: Vec<u64> = now().into_iter().map(|it| it + more).collect();
        wait_until("every client's increments go on", || {
            now().iter().zip(&goals).all(|(now, goal)| now >= goal)
        });
    }
}

/// Has the clients end, also when what runs beside them panics: they are waited for.
struct Stops<'a>(&'a Progress);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Relaxed);
    }
}

/// Runs clients while `disturb` does its worst.
pub fn run(address: SocketAddr, clients: usize, disturb: impl FnOnce(&Progress)) -> Vec<Told> {
    let progress = Progress {
        stop: AtomicBool::new(false),
        acknowledged: (0..clients).map(|_| AtomicU64::new(0)).collect(),
    };
    std::thread::scope(|scope| {
        let progress = &progress;
        let threads: Vec<_> = (0..clients)
            .map(|id| scope.spawn(move || count(address, id, progress)))
            .collect();
        let ends = Stops(progress);
        disturb(progress);
        drop(ends);
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a client does not panic"))
            .collect()
    })
}

fn count(address: SocketAddr, id: usize, progress: &Progress) -> Told {
    let mut told = Told::default();
    let mut client = RawClient::connect(address);
    let key = format!("count:{id}");
    while !progress.stop.load(Relaxed) {
        let began = Instant::now();
        let reply = client.command(&["INCR", &key]);
        told.longest = told.longest.max(began.elapsed());
        match error(&reply) {
            None => {
                told.acknowledged += 1;
                progress.acknowledged[id].fetch_add(1, Relaxed);
            }
            Some(text) if text.ends_with("outcome unknown") => {
                told.unknown += 1;
                note(&mut told, text);
            }
            Some(text) => {
                assert!(
                    text.ends_with("command not executed") || text.starts_with("LOADING "),
                    "client {id}: {text}"
                );
                told.refused += 1;
                note(&mut told, text);
                // As an application would.
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let payload = format!("{id}:{}", told.acknowledged);
        let began = Instant::now();
        let reply = client.command(&["ECHO", &payload]);
        told.longest = told.longest.max(began.elapsed());
        match error(&reply) {
            None => {
                let expected = format!("${}\r\n{payload}\r\n", payload.len());
                assert_eq!(String::from_utf8_lossy(&reply), expected, "client {id}");
                told.reads += 1;
            }
            Some(text) => {
                told.reads_failed += 1;
                note(&mut told, text);
            }
        }
    }
    told
}

fn note(told: &mut Told, text: &str) {
    if !told.errors.iter().any(|known| known == text) {
        told.errors.push(text.to_owned());
    }
}

/// What the primary has must be what was acknowledged, and at most what is unknown besides.
pub fn check(primary: &RedisServer, told: &[Told]) {
    for (id, told) in told.iter().enumerate() {
        let count = counted(primary, id);
        assert!(count >= told.acknowledged, "client {id}: {count}, {told:?}");
    }
    nothing_twice(primary, told);
}

/// What the primary has is at most what was acknowledged and what is unknown. It may be
/// less by what Redis had acknowledged and not yet sent to its replica when it died.
pub fn nothing_twice(primary: &RedisServer, told: &[Told]) {
    for (id, told) in told.iter().enumerate() {
        let count = counted(primary, id);
        let most = told.acknowledged + told.unknown;
        assert!(count <= most, "client {id}: {count}, {told:?}");
    }
}

fn counted(primary: &RedisServer, id: usize) -> u64 {
    let reply = primary.command(&["GET", &format!("count:{id}")]);
    let text = String::from_utf8_lossy(&reply).into_owned();
    text.split("\r\n")
        .nth(1)
        .and_then(|it| it.parse().ok())
        .unwrap_or(0)
}
