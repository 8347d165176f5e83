//! A client that sends pipelines of random commands and knows every reply.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::memory::{Memory, array, bulk, integer};
use crate::rng::Rng;
use crate::support::{RawClient, encode};
use crate::{COUNTERS, DATABASES, Shared, USERS};

/// What clients of a run do.
#[derive(Clone, Copy)]
pub struct Habits {
    /// Values larger than what shared connections carry.
    pub large_values: bool,
}

/// What a reply must be.
enum Expected {
    /// These bytes.
    Exactly(Vec<u8>),
    /// An integer larger than any that this client has seen of the counter.
    Count(usize),
    /// A map that begins so (`HELLO`).
    Beginning(&'static [u8]),
    /// The reply to `EXEC`: these elements.
    Block(Vec<Expected>),
}

/// One client and all it knows.
pub struct Actor {
    id: usize,
    client: RawClient,
    address: SocketAddr,
    rng: Rng,
    habits: Habits,
    memory: Memory,
    shared: Arc<Shared>,
    /// What the last reply of each counter was.
    seen: [u64; COUNTERS],
    db: u64,
    resp3: bool,
    /// Makes every payload another one.
    sequence: u64,
}

/// A pipeline that is being built.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    expected: Vec<Expected>,
}

impl Batch {
    fn add(&mut self, command: &[&[u8]], expected: Expected) {
        self.bytes.extend_from_slice(&encode(command));
        self.expected.push(expected);
    }
}

impl Actor {
    /// A client of its own.
    pub fn connect(
        address: SocketAddr,
        id: usize,
        seed: u64,
        habits: Habits,
        shared: Arc<Shared>,
    ) -> Actor {
        Actor {
            id,
            client: RawClient::connect(address),
            address,
            rng: Rng::new(seed),
            habits,
            memory: Memory::default(),
            shared,
            seen: [0; COUNTERS],
            db: 0,
            resp3: false,
            sequence: 0,
        }
    }

    /// Sends `rounds` pipelines; panics at the first wrong byte.
    pub fn run(mut self, rounds: usize) {
        for _ in 0..rounds {
            match self.rng.below(16) {
                0 => self.block_command_by_command(),
                1 => self.reconnect(),
                _ => self.pipeline(),
            }
        }
    }

    fn pipeline(&mut self) {
        let depth = match self.rng.below(8) {
            0 => 60 + self.rng.below(200),
            1..=3 => 1,
            _ => 1 + self.rng.below(16),
        };
        let mut batch = Batch::default();
        while batch.expected.len() < depth {
            match self.rng.below(26) {
                0 => self.select(&mut batch),
                5 if self.rng.once_in(3) => self.login(&mut batch),
                1 => self.hello(&mut batch),
                2 => self.block(&mut batch),
                3 => self.pass_through_errors(&mut batch),
                4 if self.habits.large_values && self.rng.once_in(6) => self.large(&mut batch),
                _ => {
                    let (command, expected) = self.plain();
                    let command: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
                    batch.add(&command, expected);
                }
            }
        }
        self.send_in_pieces(&batch.bytes);
        for expected in batch.expected {
            self.check(expected);
        }
    }

    /// Now and then cut anywhere, as a network does.
    fn send_in_pieces(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while self.rng.once_in(3) && rest.len() > 1 {
            let (piece, behind) = rest.split_at(1 + self.rng.below(rest.len() - 1));
            self.client.send(piece);
            rest = behind;
        }
        self.client.send(rest);
    }

    fn payload(&mut self) -> Vec<u8> {
        self.sequence += 1;
        let mut payload = format!("{}:{}:", self.id, self.sequence).into_bytes();
        let length = match self.rng.below(20) {
            0 => self.rng.below(20_000),
            _ => self.rng.below(40),
        };
        payload.extend((0..length).map(|at| b'a' + (at % 26) as u8));
        payload
    }

    fn key(&mut self) -> String {
        format!("own:{}:{}", self.id, self.rng.below(5))
    }

    /// A plain command with its reply.
    fn plain(&mut self) -> (Vec<Vec<u8>>, Expected) {
        let key = self.key();
        let (db, resp3) = (self.db, self.resp3);
        let name = key.as_bytes().to_vec();
        let (command, reply) = match self.rng.below(10) {
            0 | 1 => {
                let value = self.payload();
                let reply = self.memory.set(db, &key, &value);
                (vec![b"SET".to_vec(), name, value], reply)
            }
            2 | 3 => (
                vec![b"GET".to_vec(), name],
                self.memory.get(db, &key, resp3),
            ),
            4 => {
                let value = self.payload();
                let reply = self.memory.append(db, &key, &value);
                (vec![b"APPEND".to_vec(), name, value], reply)
            }
            5 => {
                let value = self.payload();
                let reply = self.memory.push(db, &key, &value);
                (vec![b"RPUSH".to_vec(), name, value], reply)
            }
            6 => {
                let reply = match self.rng.below(3) {
                    0 => (
                        vec![b"LPOP".to_vec(), name],
                        self.memory.pop(db, &key, resp3),
                    ),
                    1 => (vec![b"DEL".to_vec(), name], self.memory.del(db, &key)),
                    _ => (
                        vec![b"LRANGE".to_vec(), name, b"0".to_vec(), b"-1".to_vec()],
                        self.memory.range(db, &key),
                    ),
                };
                (reply.0, reply.1)
            }
            7 if db == 0 => {
                let counter = self.rng.below(COUNTERS);
                let command = vec![b"INCR".to_vec(), format!("counter:{counter}").into_bytes()];
                return (command, Expected::Count(counter));
            }
            8 => {
                let value = self.payload();
                let script = b"return {ARGV[1], tonumber(ARGV[2])}".to_vec();
                let number = self.rng.below(1000);
                let reply = array(&[bulk(&value), integer(number)]);
                let number = number.to_string().into_bytes();
                (
                    vec![b"EVAL".to_vec(), script, b"0".to_vec(), value, number],
                    reply,
                )
            }
            _ => {
                let value = self.payload();
                let reply = bulk(&value);
                (vec![b"ECHO".to_vec(), value], reply)
            }
        };
        (command, Expected::Exactly(reply))
    }

    fn select(&mut self, batch: &mut Batch) {
        if self.rng.once_in(5) {
            let error = b"-ERR DB index is out of range\r\n".to_vec();
            return batch.add(&[b"SELECT", b"77"], Expected::Exactly(error));
        }
        self.db = self.rng.next() % DATABASES;
        let db = self.db.to_string();
        batch.add(
            &[b"SELECT", db.as_bytes()],
            Expected::Exactly(b"+OK\r\n".to_vec()),
        );
    }

    fn hello(&mut self, batch: &mut Batch) {
        self.resp3 = self.rng.once_in(2);
        if self.resp3 {
            batch.add(&[b"HELLO", b"3"], Expected::Beginning(b"%7\r\n"));
        } else {
            batch.add(&[b"HELLO", b"2"], Expected::Beginning(b"*14\r\n"));
        }
    }

    fn login(&mut self, batch: &mut Batch) {
        let user = self.rng.pick(USERS);
        if self.rng.once_in(4) {
            let error = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n";
            return batch.add(
                &[b"AUTH", user.as_bytes(), b"wrong"],
                Expected::Exactly(error.to_vec()),
            );
        }
        batch.add(
            &[b"AUTH", user.as_bytes(), b"secret"],
            Expected::Exactly(b"+OK\r\n".to_vec()),
        );
        batch.add(
            &[b"ACL", b"WHOAMI"],
            Expected::Exactly(bulk(user.as_bytes())),
        );
    }

    fn pass_through_errors(&mut self, batch: &mut Batch) {
        let (command, error): (&[&[u8]], &str) = match self.rng.below(3) {
            0 => (
                &[b"GET"],
                "-ERR wrong number of arguments for 'get' command\r\n",
            ),
            1 => (&[b"EXEC"], "-ERR EXEC without MULTI\r\n"),
            _ => (&[b"DISCARD"], "-ERR DISCARD without MULTI\r\n"),
        };
        batch.add(command, Expected::Exactly(error.as_bytes().to_vec()));
    }

    /// A whole transaction in the pipeline.
    fn block(&mut self, batch: &mut Batch) {
        let simple = |text: &[u8]| Expected::Exactly(text.to_vec());
        batch.add(&[b"MULTI"], simple(b"+OK\r\n"));
        let mut elements = Vec::new();
        for _ in 0..self.rng.below(6) {
            let (command, expected) = self.plain();
            let command: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
            batch.add(&command, simple(b"+QUEUED\r\n"));
            elements.push(expected);
        }
        batch.add(&[b"EXEC"], Expected::Block(elements));
    }

    /// A transaction whose replies are waited for one by one.
    fn block_command_by_command(&mut self) {
        self.client.expect_command(&["MULTI"], "+OK\r\n");
        let mut elements = Vec::new();
        for _ in 0..self.rng.below(5) {
            let (command, expected) = self.plain();
            self.client.expect_command(&command, "+QUEUED\r\n");
            elements.push(expected);
        }
        self.client.send(encode(&["EXEC"]));
        self.check(Expected::Block(elements));
    }

    /// A value that streams over a connection of its own, and back.
    fn large(&mut self, batch: &mut Batch) {
        let key = format!("own:{}:large", self.id);
        self.sequence += 1;
        let mut value = format!("{}:{}:", self.id, self.sequence).into_bytes();
        let length = 66_000 + self.rng.below(400_000);
        value.extend((0..length).map(|at| b'A' + (at % 23) as u8));
        let stored = self.memory.set(self.db, &key, &value);
        batch.add(&[b"SET", key.as_bytes(), &value], Expected::Exactly(stored));
        let reply = self.memory.get(self.db, &key, self.resp3);
        batch.add(&[b"GET", key.as_bytes()], Expected::Exactly(reply));
        let gone = self.memory.del(self.db, &key);
        batch.add(&[b"DEL", key.as_bytes()], Expected::Exactly(gone));
    }

    /// Leaves, with or without saying goodbye, and comes back.
    fn reconnect(&mut self) {
        match self.rng.below(3) {
            0 => {
                self.client.expect_command(&["QUIT"], "+OK\r\n");
                self.client.expect_closed();
            }
            // What it asked for last it will not hear; it changes nothing.
            1 => self.client.send(encode(&["ECHO", "nobody hears"])),
            _ => {}
        }
        self.client = RawClient::connect(self.address);
        self.db = 0;
        self.resp3 = false;
    }

    fn check(&mut self, expected: Expected) {
        match expected {
            Expected::Exactly(bytes) => self.client.expect(bytes),
            Expected::Beginning(bytes) => {
                let reply = self.client.read_reply();
                assert!(
                    reply.starts_with(bytes),
                    "client {}: expected {}…, got {}",
                    self.id,
                    bytes.escape_ascii(),
                    reply.escape_ascii()
                );
            }
            Expected::Count(counter) => {
                let reply = self.client.read_reply();
                let count = std::str::from_utf8(&reply)
                    .ok()
                    .and_then(|text| text.strip_prefix(':')?.trim_end().parse::<u64>().ok());
                let Some(count) = count else {
                    panic!("client {}: not a count: {}", self.id, reply.escape_ascii());
                };
                assert!(
                    count > self.seen[counter],
                    "client {}: counter {counter} went from {} to {count}",
                    self.id,
                    self.seen[counter]
                );
                self.seen[counter] = count;
                self.shared.counters[counter].fetch_add(1, Ordering::Relaxed);
            }
            Expected::Block(elements) => {
                self.client.expect(format!("*{}\r\n", elements.len()));
                for element in elements {
                    self.check(element);
                }
            }
        }
    }
}
