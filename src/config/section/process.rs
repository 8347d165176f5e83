//! `[process]`: what all routes of one Weir share.

use std::time::Duration;

use crate::config::definition::section;
use crate::config::kind::{Count, GIB, HOUR, MIB, Size, Time};

section! {
    /// What all routes of one Weir share.
    pub struct Process {
        /// Worker threads. Each has clients and connections to Redis of its own.
        /// 0 means one for each core. One is enough for what one Redis can do with
        /// most commands; more help when clients are many and values large.
        workers: usize = Count::from_to(0, 1024),
            default 0, changes Restart;

        /// Client connections of all routes together. One that comes when there are
        /// as many gets Redis's own "-ERR max number of clients reached".
        /// The default is Redis's own. An idle client costs about 1 KiB of memory,
        /// every client a file descriptor.
        max_clients: usize = Count::from_to(1, 1_000_000),
            default 10_000, changes Live;

        /// Memory that requests on their way in and replies that clients have not
        /// read yet may take together, on all routes. At the limit Weir stops reading
        /// from those that hold the most and closes those that do not read, instead
        /// of being killed by the kernel. 1 GiB is what one Redis request may
        /// take at most, so that no single one is refused for it.
        buffer_memory_max: u64 = Size::from_to(16 * MIB, 1024 * GIB),
            default "1GiB", changes Live;

        /// How long a shutdown waits for commands that are under way before it
        /// closes the rest. Kubernetes and systemd kill after 30 s and 90 s.
        drain_timeout: Duration = Time::from_to(Duration::ZERO, HOUR),
            default "10s", changes Live;
    }
}
