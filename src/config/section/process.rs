//! `[process]`: what all routes of one Weir share.

use std::time::Duration;

use crate::config::definition::section;
use crate::config::kind::{Count, DAY, GIB, HOUR, MIB, MILLISECOND, Size, Switch, Time};

section! {
    /// What all routes of one Weir share.
    pub struct Process {
        /// Worker threads, each with clients of its own. 0 means one for each core.
        /// One is enough for what one Redis can do with most commands; more help
        /// when clients are many and values large.
        workers: usize = Count::from_to(0, 1024),
            default 0, changes Restart;

        /// Client connections of all routes together. One that comes when there are
        /// as many gets Redis's own "-ERR max number of clients reached".
        /// The default is Redis's own. An idle client costs about 1 KiB of memory,
        /// every client a file descriptor.
        max_clients: usize = Count::from_to(1, 1_000_000),
            default 10_000, changes Live;

        /// Who is counted: so many source addresses, users and names have an account of their
        /// own at once, those who are connected before those who were. Who comes beyond shares
        /// one account for each rule. An account takes at most 400 bytes and the name. 0 means as
        /// many as `max_clients`, at most 65536.
        identities_max: usize = Count::from_to(0, 1_000_000),
            default 0, changes Live;

        /// Memory that requests on their way in and replies that clients have not
        /// read yet may take together, on all routes. At three quarters of it those who
        /// do not read are made to wait, at the limit the clients that hold the most
        /// are closed, instead of the kernel killing Weir for all; in a flood the
        /// process may take twice as much for a moment. It is no more than Redis lets
        /// a single client's request take, and in normal use Weir holds a few MiB.
        buffer_memory_max: u64 = Size::from_to(16 * MIB, 1024 * GIB),
            default "1GiB", changes Live;

        /// A command that took longer from its arrival to its reply is in the slow log, with
        /// who sent it, its first key, and how long it waited and how long Redis took (`WEIR
        /// SLOWLOG`, `/slowlog.json`). Of each worker 64 a second at most; the rest is counted.
        /// Blocking commands do not count. The default is that of Redis's own slow log.
        slow_log_threshold: Duration = Time::from_to(Duration::from_micros(100), HOUR).or_zero("off"),
            default "10ms", changes Live;

        /// Slow commands that are kept, the newest: as many as Redis keeps of its own. One
        /// takes about 400 bytes. Fewer hold from the next slow command on.
        slow_log_entries: usize = Count::from_to(0, 10_000),
            default 128, changes Live;

        /// One command in so many is looked at to tell which keys are asked for most, and which
        /// replies are the largest (`WEIR HOTKEYS`, `/hotkeys.json`). At 20,000 commands a second
        /// those are enough to tell a key with a hundredth of them, for less than ten instructions
        /// a command. With 100 a tenth of the traffic will do, for about 75. 0 is off.
        hot_keys_sample: u32 = Count::from_to(0, 1_000_000),
            default 1_000, changes Live;

        /// Keys are shown to operators: of slow commands, of hot keys, and of large replies. Off,
        /// where keys are secrets, such as session tokens: none is kept then, and a number stands for
        /// each.
        show_keys: bool = Switch,
            default true, changes Live;

        /// How often Weir looks whether a file of certificates has changed. Ten seconds are
        /// soon enough for what is renewed weeks before it expires, and looking
        /// costs a system call for each file.
        certificate_check: Duration = Time::from_to(MILLISECOND, DAY).or_zero("never"),
            default "10s", changes Restart;

        /// How long a shutdown waits for commands that are under way before it
        /// closes the rest. Ten seconds are within the 30 that Kubernetes gives.
        drain_timeout: Duration = Time::from_to(Duration::ZERO, HOUR),
            default "10s", changes Live;

        /// Read this file again when it has changed, as SIGHUP and WEIR RELOAD do. It is
        /// looked at every two seconds and taken once it has stayed the same between two
        /// looks. Off, since a file that is being edited should not take effect by surprise.
        watch_config: bool = Switch,
            default false, changes Live;
    }
}
