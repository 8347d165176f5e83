//! `[route.NAME.overload]`: how much Redis is given to do at once, and when the rest is refused.

use std::time::Duration;

use crate::config::definition::section;
use crate::config::kind::{Count, HOUR, MILLISECOND, Time};

section! {
    /// How much Redis is given to do at once, and when what is more is refused. What Redis
    /// has been sent can neither be ordered nor refused any more, so it gets a few
    /// milliseconds of work and the rest waits in Weir. docs/LIMITS.md tells more.
    pub struct Overload {
        /// Commands in flight to Redis at once, all workers together. 0 lets Weir find out:
        /// about what Redis has been answering in 5 ms. A number is for a Redis
        /// that is known not to bear more.
        in_flight: u32 = Count::from_to(0, 1_000_000),
            default 0, changes Live;

        /// Where Weir finds out: at least so many for each shared connection. 64
        /// fill one packet with small commands; fewer would cost speed.
        in_flight_floor: u32 = Count::from_to(1, 100_000),
            default 64, changes Live;

        /// Where Weir finds out: at most so many, all workers together. Reached only when
        /// Redis is fast and far away.
        in_flight_ceiling: u32 = Count::from_to(1, 1_000_000),
            default 20_000, changes Live;

        /// From arrival to reply a command may take this long. When for a whole `interval` each
        /// one took longer, Weir refuses with "-BUSY" what could not be served within it, at
        /// once, and serves the others in time. 9,000 busy clients of one Redis wait 80 ms
        /// for each other, which is no overload; people notice 150. 0 never refuses.
        target: Duration = Time::from_to(MILLISECOND, Duration::from_secs(60)).or_zero("never refuses"),
            default "150ms", changes Live;

        /// For so long every command has to take longer than `target`. Shorter, and a moment's
        /// burst is taken for overload; longer, and callers wait for seconds before anybody
        /// is refused.
        interval: Duration = Time::from_to(10 * MILLISECOND, Duration::from_secs(60)),
            default "500ms", changes Live;

        /// Slow commands in flight to Redis at once, all workers together: fewer when 8 ms of
        /// Redis's time are fewer of them, and one for each worker at least. So others need
        /// not queue behind them.
        slow_in_flight: u32 = Count::from_to(1, 100_000),
            default 8, changes Live;

        /// A command is slow when one call takes Redis so long, by its own `INFO commandstats`,
        /// which Weir asks for every `watch_interval` in `health`. So is one whose like, by its name
        /// and first argument, was in Redis's slow log within the last minute, such as HGETALL of
        /// one large hash; and what is slow by its nature, such as EVAL, KEYS or SORT, until Redis
        /// has told what it takes.
        slow_above: Duration = Time::from_to(MILLISECOND, HOUR),
            default "1ms", changes Live;

        /// Commands that wait in Weir for Redis, all workers together. Not a measure of overload,
        /// for which there is `target`; it is there because every queue has an end.
        queue_max: usize = Count::from_to(1, 10_000_000),
            default 1_000_000, changes Live;
    }
}
