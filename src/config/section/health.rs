//! `[route.NAME.health]`: when a Redis counts as sick.

use std::time::Duration;

use crate::config::definition::section;
use crate::config::kind::{Choice, HOUR, MILLISECOND, Share, Switch, Time};

/// What a plain write is answered on a route that fails open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailOpenWrites {
    /// That it was not done.
    Error,
    /// As if it had been.
    Ok,
}

section! {
    /// When the Redis behind the route counts as sick. A sick one gets no work but
    /// probes, and whoever asks is answered at once instead of waiting for a
    /// deadline. One that cannot be reached always counts.
    pub struct Health {
        /// Redis was asked, and nothing has come from it on any connection for so long:
        /// it hangs. Above the pauses that a healthy Redis makes to fork, to delete
        /// what is large or to run a script, since commands that come towards the
        /// end of such a pause would still have been served.
        silence_max: Duration = Time::from_to(Duration::from_millis(100), HOUR),
            default "2s", changes Live;

        /// More than this share of the commands of ten seconds met their deadline
        /// (`request` of `timeouts`): Redis then rests for a second, longer if it
        /// happens again. 1 never counts. A half, since a Redis that answers every
        /// second caller in time is still of use.
        errors_max: f64 = Share,
            default 0.5, changes Live;

        /// The mean time that Redis took for the commands of ten seconds is longer.
        /// Off, since a busy Redis that is slow still does its work; set it where
        /// an answer that comes late is worth nothing.
        latency_max: Duration = Time::from_to(MILLISECOND, HOUR).or_zero("any will do"),
            default "0s", changes Live;

        /// Weir asks Redis so often how near it is to its own limits: clients, memory,
        /// keys thrown out, connections turned away (INFO, and CONFIG GET where it is
        /// allowed). A second, so that others who connect are noticed in time.
        watch_interval: Duration = Time::from_to(Duration::from_millis(100), HOUR).or_zero("never"),
            default "1s", changes Live;

        /// Weir makes its budget smaller so that Redis has no more connections than
        /// this share of its own `maxclients`, whoever else is connected, and larger
        /// again when they have gone. What is left is for those who come to repair.
        clients_share: f64 = Share,
            default 0.8, changes Live;

        /// Above this share of Redis's `maxmemory`, commands of the route that may need
        /// more are refused with "-BUSY"; what only reads or deletes is not. 1 never
        /// refuses, and leaves it to Redis, which says "-OOM" when it is full.
        refuse_writes_above_memory: f64 = Share,
            default 1, changes Live;

        /// For a route that is only a cache: while Redis cannot be used or takes no more
        /// work, commands that read are answered as if nothing were there, and so
        /// the application goes to its database: at once, where others wait for a
        /// primary. Never what decides something (SET with NX, INCR, scripts,
        /// transactions).
        fail_open: bool = Switch,
            default false, changes Live;

        /// What plain writes (SET, SETEX, MSET, HSET, DEL, EXPIRE and their like) are
        /// answered then, where `fail_open` is on. "ok" answers as if they were done,
        /// which they are not: what Redis has is then older than the application
        /// thinks, also where it meant to delete it.
        fail_open_writes: FailOpenWrites = Choice(&[
            ("error", FailOpenWrites::Error),
            ("ok", FailOpenWrites::Ok),
        ]),
            default "error", changes Live;
    }
}
