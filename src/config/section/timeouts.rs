//! `[route.NAME.timeouts]`: how long things may take.

use std::time::Duration;

use crate::config::definition::section;
use crate::config::kind::{DAY, HOUR, MILLISECOND, Time};

section! {
    /// How long things may take. None can be turned off: a wait without an end
    /// is how one slow server takes everything down.
    pub struct Timeouts {
        /// To connect to Redis and to be greeted by it. Within a network it takes
        /// milliseconds; a lost packet costs the kernel one second.
        connect: Duration = Time::from_to(MILLISECOND, HOUR),
            default "2s", changes Live;

        /// From the arrival of a plain command to its reply. Then its caller, and only
        /// it, gets an error that says that the outcome is unknown. Twice the 5 s
        /// after which Redis answers "-BUSY" while a script runs, so that this
        /// comes first.
        request: Duration = Time::from_to(MILLISECOND, DAY),
            default "10s", changes Live;

        /// The same for commands that are slow by nature, such as EVAL, SAVE,
        /// KEYS, SORT or FLUSHALL.
        slow_request: Duration = Time::from_to(MILLISECOND, DAY),
            default "5m", changes Live;

        /// For Redis to check a client's credentials. Longer than a plain command
        /// takes, since Redis may ask a directory elsewhere.
        auth: Duration = Time::from_to(MILLISECOND, HOUR),
            default "10s", changes Live;

        /// When the oldest reply of a shared connection makes no progress for so
        /// long, the connection is stalled and is replaced, or Redis hangs. Above
        /// the pauses that a healthy Redis makes to fork, expire and delete.
        stall: Duration = Time::from_to(MILLISECOND, HOUR),
            default "3s", changes Live;

        /// For the next bytes of a request that has begun. Then the client is closed:
        /// its network is gone, or it sends slowly to tie Weir down.
        read: Duration = Time::from_to(MILLISECOND, DAY),
            default "60s", changes Live;

        /// For a client to read any of the replies that wait for it. Then it is closed,
        /// and the memory that they take is free.
        write: Duration = Time::from_to(MILLISECOND, DAY),
            default "60s", changes Live;
    }
}
