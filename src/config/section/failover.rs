//! `[route.NAME.failover]`: which node a command goes to, and what happens when one fails.

use std::time::Duration;

use crate::config::definition::section;
use crate::config::kind::{
    Choice, Count, DAY, GIB, HOUR, MILLISECOND, Patterns, Size, Switch, Time,
};

/// Where a session's reads go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// To the primary, like everything else.
    Primary,
    /// To replicas while one may serve, else to the primary.
    PreferReplica,
    /// To replicas only.
    Replica,
    /// To the node that answers fastest.
    Nearest,
}

section! {
    /// Which node commands go to, and what happens when one fails. Of use where `topology`
    /// in `backend` is not "standalone".
    pub struct Failover {
        /// Where commands that only read go: "primary", "prefer_replica" (the primary if no
        /// replica may serve), "replica" (never the primary) or "nearest" (whichever
        /// answers fastest). What replicas serve may be older than what was written, so
        /// "primary" is the default. Scans, scripts, transactions, blocking commands and
        /// subscriptions go to the primary, whatever is set here.
        read_from: ReadFrom = Choice(&[
                ("primary", ReadFrom::Primary),
                ("prefer_replica", ReadFrom::PreferReplica),
                ("replica", ReadFrom::Replica),
                ("nearest", ReadFrom::Nearest),
            ]),
            default "primary", changes Live;

        /// Clients that read from replicas whatever `read_from` says: patterns of their names
        /// (`CLIENT SETNAME`), with `*` and `?`. A client can also say `READONLY`.
        replica_clients: Vec<String> = Patterns,
            default none, example ["report-*"], changes Live;

        /// Clients that read from the primary whatever `read_from` says, in the same way. A
        /// client can also say `READWRITE`.
        primary_clients: Vec<String> = Patterns,
            default none, example ["checkout-*"], changes Live;

        /// A replica serves reads only while it is known to have had, within so long, all
        /// that the primary had: by its offset, looked at every `probe_interval`.
        replica_lag_max: Duration = Time::from_to(MILLISECOND, DAY),
            default "10s", changes Live;

        /// Whether a client that has written reads from the primary until its replica has
        /// what it wrote: for up to `probe_interval` after each write, and longer while there
        /// is no primary.
        read_your_writes: bool = Switch,
            default false, changes Live;

        /// Whether reads that belong to the primary go to a replica while there is no
        /// primary. What they read may lack the last writes, hence the default.
        stale_reads_on_failure: bool = Switch,
            default false, changes Live;

        /// How long replicas serve reads while there is no primary: then they say so
        /// instead.
        stale_reads_max: Duration = Time::from_to(MILLISECOND, 365 * DAY),
            default "10m", changes Live;

        /// Without a primary, what needs one waits for so long from the beginning of the
        /// outage, so that a short failover is seen as a pause and not as errors. After
        /// that it fails at once with "-MASTERDOWN", until there is a primary. 0 never
        /// waits.
        hold: Duration = Time::from_to(MILLISECOND, HOUR).or_zero("never"),
            default "2s", changes Live;

        /// Clients of the route that may wait so at once; the next is refused without
        /// waiting.
        hold_clients: usize = Count::from_to(0, 1_000_000),
            default 10_000, changes Live;

        /// Bytes of memory that what waits so may take at once.
        hold_memory: u64 = Size::from_to(0, GIB),
            default "64MiB", changes Live;

        /// Every node is asked for its role and offset so often, over a connection of its own
        /// within the budget; ten times as often, and at least every 50 ms, while there is no
        /// primary.
        probe_interval: Duration = Time::from_to(MILLISECOND, HOUR),
            default "1s", changes Live;

        /// A node that was away gets its share of the reads step by step over so long: what
        /// it has in memory is cold, and it may go away again.
        ramp: Duration = Time::from_to(MILLISECOND, HOUR).or_zero("at once"),
            default "10s", changes Live;

        /// Names of nodes and sentinels are looked up again so often, and whenever a
        /// connection fails.
        resolve_interval: Duration = Time::from_to(MILLISECOND, DAY),
            default "5s", changes Live;
    }
}
