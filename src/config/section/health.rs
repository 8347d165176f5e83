//! `[route.NAME.health]`: when a Redis counts as sick.

use std::time::Duration;

use crate::config::definition::section;
use crate::config::kind::{HOUR, MILLISECOND, Share, Time};

section! {
    /// When the Redis behind the route counts as sick. A sick one gets no work but
    /// probes, and whoever asks is answered at once instead of waiting for a
    /// deadline. That it cannot be reached, or says nothing for `stall` of the
    /// section `timeouts`, always counts.
    pub struct Health {
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
    }
}
