//! Asks Redis itself, again and again, how many connections it has.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{DIRECT_SOURCE, RawClient, RedisServer};

/// A thread that reads `CLIENT LIST` without pause on a connection of its own and
/// remembers the most connections it saw, so that a test can say that a budget held at
/// every moment and not only at the end. Connections from [`DIRECT_SOURCE`], its own
/// among them, do not count.
#[derive(Debug)]
pub struct ConnectionWatch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Sightings>>,
}

/// What a [`ConnectionWatch`] saw.
#[derive(Debug, Default, Clone)]
pub struct Sightings {
    /// The most connections that Redis had at once.
    pub max: usize,
    /// How often Redis answered.
    pub samples: usize,
    /// `CLIENT LIST` at the time of `max`, to see what they were.
    pub list_at_max: String,
}

impl ConnectionWatch {
    /// Starts to watch. The first look has been taken when this returns.
    pub fn start(redis: &RedisServer) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let mut watch = Watch {
            address: redis.address(),
            password: redis.password().map(str::to_owned),
            client: Some(redis.client()),
            seen: Sightings::default(),
        };
        watch.look();
        let thread = std::thread::spawn(move || {
            // The last look is after the end: a test may be over before the thread has begun.
            while !stopping.load(Ordering::Relaxed) {
                watch.look();
            }
            watch.look();
            watch.seen
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Ends the watch and says what it saw.
    pub fn finish(mut self) -> Sightings {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("only finish and drop take it");
        thread.join().expect("the watch does not panic")
    }

    /// Ends the watch; panics if Redis ever had more than `budget` connections.
    pub fn assert_at_most(self, budget: usize) -> Sightings {
        let seen = self.finish();
        assert!(seen.samples > 1, "Redis never answered the watch");
        assert!(
            seen.max <= budget,
            "Redis saw {} connections, the budget is {budget}:\n{}",
            seen.max,
            seen.list_at_max
        );
        seen
    }
}

impl Drop for ConnectionWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Watch {
    address: SocketAddr,
    password: Option<String>,
    client: Option<RawClient>,
    seen: Sightings,
}

impl Watch {
    /// One look. While Redis is down, hangs, or refuses, there is nothing to see; the next
    /// look dials again.
    fn look(&mut self) {
        if let Some(list) = self.client.as_mut().and_then(client_list) {
            let ours = format!(" addr={DIRECT_SOURCE}:");
            let is_other = |line: &&str| line.contains(" addr=") && !line.contains(&ours);
            let count = list.lines().filter(is_other).count();
            self.seen.samples += 1;
            if count > self.seen.max {
                self.seen.max = count;
                self.seen.list_at_max = list;
            }
        } else {
            self.client = self.dial();
            if self.client.is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn dial(&self) -> Option<RawClient> {
        let mut client = RawClient::try_connect(Some(DIRECT_SOURCE), self.address).ok()?;
        if let Some(password) = &self.password {
            client.try_command(&["AUTH", password]).ok()?;
        }
        Some(client)
    }
}

/// The text of `CLIENT LIST`, or `None` if there is no such answer.
fn client_list(client: &mut RawClient) -> Option<String> {
    let reply = client.try_command(&["CLIENT", "LIST"]).ok()?;
    reply
        .starts_with(b"$")
        .then(|| String::from_utf8_lossy(&reply).into_owned())
}
