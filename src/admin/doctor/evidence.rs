//! What a diagnosis rests on, as plain numbers.

use std::time::Duration;

/// What is known of one route.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Its name.
    pub route: String,
    /// How busy it is: the last ten seconds.
    pub now: Rates,
    /// How busy it was before, as a rule; `None` as long as too little is recorded.
    pub usual: Option<Rates>,
    /// Clients connected.
    pub clients: u64,
    /// Clients that there may be.
    pub clients_max: u64,
    /// Clients ten minutes ago, if that is recorded.
    pub clients_before: Option<u64>,
    /// Those who hold the most connections, most first.
    pub identities: Vec<IdentityEvidence>,
    /// Connections that blocked clients hold alone, over all nodes.
    pub blocking: u64,
    /// How many they may hold (`backend.max_blocking`).
    pub blocking_max: u64,
    /// Blocked clients that wait for a connection.
    pub blocking_waiting: u64,
    /// Connections of all kinds, over all nodes.
    pub connections: u64,
    /// How many there may be.
    pub budget: u64,
    /// Who waits for a connection of whatever kind.
    pub connections_waiting: u64,
    /// The nodes, the primary first.
    pub nodes: Vec<NodeEvidence>,
    /// Commands that took the most of Redis's time lately, most first.
    pub slow: Vec<SlowCommand>,
    /// The key that most commands name, if any is known.
    pub hottest: Option<KeyEvidence>,
    /// The key whose replies are the most bytes.
    pub heaviest: Option<KeyEvidence>,
}

/// A key that is asked for much.
#[derive(Clone, Debug, Default)]
pub struct KeyEvidence {
    /// The key, printable.
    pub key: String,
    /// The command that it is named by most.
    pub command: String,
    /// Commands in a second that name it.
    pub commands: f64,
    /// Which part of the route's commands that is, from 0 to 1.
    pub commands_share: f64,
    /// Bytes of their replies in a second.
    pub bytes: f64,
    /// Which part of the bytes of all replies that is.
    pub bytes_share: f64,
}

/// What happened in a second, on average.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Commands that arrived.
    pub commands: f64,
    /// Clients that connected.
    pub accepted: f64,
    /// Clients that were turned away.
    pub refused: f64,
    /// Commands that a limit refused.
    pub shed: f64,
    /// The time that all but one in a hundred commands stayed below at Redis, in
    /// microseconds; 0 if nothing was asked.
    pub p99_us: f64,
}

/// One of those who hold the most connections.
#[derive(Clone, Debug, Default)]
pub struct IdentityEvidence {
    /// An address, user or client name.
    pub who: String,
    /// Its connections.
    pub clients: u64,
    /// How many more than a minute ago.
    pub grown_1m: i64,
    /// How many more than ten minutes ago.
    pub grown_10m: i64,
    /// How many more than an hour ago.
    pub grown_1h: i64,
    /// How long half of its connections have been idle, if that is known.
    pub idle_median: Option<Duration>,
    /// How long the longest.
    pub idle_oldest: Option<Duration>,
}

/// What is known of a node.
#[derive(Clone, Debug, Default)]
pub struct NodeEvidence {
    /// Its address.
    pub node: String,
    /// It takes the writes.
    pub is_primary: bool,
    /// It can be used.
    pub up: bool,
    /// Why not.
    pub why: String,
    /// Connections that count against its `maxclients`, if it tells.
    pub clients: Option<u64>,
    /// Of these, Weir's own.
    pub own: u64,
    /// Its `maxclients`.
    pub clients_max: Option<u64>,
    /// The part of its memory that is in use, from 0 to 1, if it has a bound.
    pub memory_share: Option<f64>,
    /// How long the memory lasts, if it has grown for long enough to tell.
    pub memory_lasts: Option<Duration>,
    /// It throws out keys of any kind when its memory is full, as a cache is meant to.
    pub makes_room: bool,
}

/// One kind of command that is slow.
#[derive(Clone, Debug, Default)]
pub struct SlowCommand {
    /// Its name.
    pub name: String,
    /// The part of Redis's time that it took, from 0 to 1.
    pub share: f64,
    /// How long one takes on average.
    pub each: Duration,
}
