//! Limits that refuse commands: the first refusal of each is told and the end of them, in the
//! log and the journal, by the name of the setting. Not so each refusal.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::failure::{Busy, Failure};
use super::worker::State;
use crate::metrics::{Event, EventKind, Latch};

/// A limit counts as cleared when it has refused nothing for so long, in microseconds.
pub(super) const CLEARED_AFTER: u64 = 5_000_000;

/// The same for those whose refusals come in bursts by nature: with too much to do.
pub(super) const OVERLOAD_CLEARED_AFTER: u64 = 1_000_000;

/// When a limit last refused is noted as exactly as this, in microseconds, so that workers
/// that refuse much do not write to the same place all the time.
const NOTED_EVERY: u64 = 100_000;

/// The limit on memory for the clients of all routes.
const MEMORY: &str = "process.buffer_memory_max";

/// Declares the settings: each with its name, and the two lines that are logged.
macro_rules! settings {
    ($($(#[$doc:meta])+ $setting:ident => $name:literal;)+) => {
        /// A setting of a route that refuses commands when it is reached.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Setting { $($(#[$doc])+ $setting,)+ }

        impl Setting {
            /// Every one, in the order of their numbers.
            pub const ALL: &'static [Setting] = &[$(Setting::$setting,)+];

            /// Its name in the configuration, with its section.
            pub const fn name(self) -> &'static str {
                match self { $(Setting::$setting => $name,)+ }
            }
        }
    };
}

settings! {
    /// How long commands may wait for the node.
    Target => "overload.target";
    /// How many may.
    QueueMax => "overload.queue_max";
    /// Clients that wait for a primary.
    HoldClients => "failover.hold_clients";
    /// Bytes of what they sent.
    HoldMemory => "failover.hold_memory";
    /// Large replies under way.
    LargeReplies => "backend.large_replies_max";
    /// Connections in all.
    MaxConnections => "backend.max_connections";
    /// Shared ones.
    MaxShared => "backend.max_shared";
    /// Leases and tunnels.
    MaxLeases => "backend.max_leases";
    /// Those of blocked clients.
    MaxBlocking => "backend.max_blocking";
    /// Those that subscribe.
    MaxSubscriptions => "backend.max_subscriptions";
}

/// Why a connection was not to be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// As many as may waited for one already (`backend.lease_queue`).
    Queue,
    /// None became free in time (`backend.lease_wait`).
    Wait,
}

impl Why {
    /// Both, in the order of their numbers.
    pub const ALL: &'static [Why] = &[Why::Queue, Why::Wait];

    /// The stable label of metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Why::Queue => "queue",
            Why::Wait => "wait",
        }
    }

    /// The setting that bounds the wait.
    const fn setting(self) -> &'static str {
        match self {
            Why::Queue => "backend.lease_queue",
            Why::Wait => "backend.lease_wait",
        }
    }
}

impl Setting {
    /// Those that say how many connections there may be.
    pub fn of_connections() -> impl Iterator<Item = Setting> {
        let all = Setting::ALL.iter().copied();
        all.filter(|setting| *setting as usize >= Setting::MaxConnections as usize)
    }

    /// For how long it has to refuse nothing to count as cleared, in microseconds.
    const fn cleared_after(self) -> u64 {
        match self {
            Setting::Target | Setting::QueueMax => OVERLOAD_CLEARED_AFTER,
            _ => CLEARED_AFTER,
        }
    }

    /// The setting of the section `backend` with this name.
    fn of_backend(key: &str) -> Option<Setting> {
        Setting::of_connections()
            .find(|setting| setting.name().strip_prefix("backend.") == Some(key))
    }

    /// The setting that made Weir refuse, if it is one that is told here; and of a
    /// connection, why it was not to be had.
    fn behind(failure: &Failure) -> Option<(Setting, Option<Why>)> {
        match failure {
            Failure::Busy(Busy::QueueTime) => Some((Setting::Target, None)),
            Failure::Busy(Busy::QueueLength) => Some((Setting::QueueMax, None)),
            Failure::LargeReplies => Some((Setting::LargeReplies, None)),
            Failure::HoldFull { limit } => {
                let name = |setting: &&Setting| setting.name() == *limit;
                Some((*Setting::ALL.iter().find(name)?, None))
            }
            Failure::QueueFull { limit } => Some((Setting::of_backend(limit)?, Some(Why::Queue))),
            Failure::WaitedTooLong { limit } => {
                Some((Setting::of_backend(limit)?, Some(Why::Wait)))
            }
            _ => None,
        }
    }
}

/// Whether something is so now that is told once when it begins and once when it has not been
/// so for a while: that a limit refuses, that a route answers without Redis.
#[derive(Debug, Default)]
pub struct Once {
    /// It is, and it was told.
    latch: Latch,
    /// When it last was, in microseconds of the workers' clock.
    last_at: AtomicU64,
}

impl Once {
    /// It is so; true for the first.
    pub(super) fn begin(&self, now: u64) -> bool {
        if now.saturating_sub(self.last_at.load(Relaxed)) >= NOTED_EVERY {
            self.last_at.store(now, Relaxed);
        }
        self.latch.set()
    }

    /// Whether it has not been so for `after`; true once.
    pub(super) fn end(&self, now: u64, after: u64) -> bool {
        self.latch.is_set()
            && now.saturating_sub(self.last_at.load(Relaxed)) > after
            && self.latch.clear()
    }
}

/// The limits of one route that refuse commands.
#[derive(Debug, Default)]
pub struct Reached {
    told: [Once; Setting::ALL.len()],
    /// Commands that got no connection.
    refused: [[AtomicU64; Why::ALL.len()]; Setting::ALL.len()],
}

impl Reached {
    /// Whether commands are refused because of a setting now.
    pub fn is_reached(&self, setting: Setting) -> bool {
        self.told[setting as usize].latch.is_set()
    }

    /// How many commands got no connection because of a setting.
    pub fn refused(&self, setting: Setting, why: Why) -> u64 {
        self.refused[setting as usize][why as usize].load(Relaxed)
    }
}

impl State {
    /// Counts a command that is refused, and tells of the limit behind it if that has just
    /// been reached.
    pub(super) fn count_failure(&self, route: u16, failure: &Failure) {
        let front = &self.fronts[route as usize];
        match failure.shed() {
            Some(limit) => front.metrics.shed(failure.cause(), limit),
            None => return front.metrics.error(failure.cause()),
        }
        if let Some((setting, Some(why))) = Setting::behind(failure) {
            front.route.reached.refused[setting as usize][why as usize].fetch_add(1, Relaxed);
        }
        self.tell_reached(route, failure);
    }

    /// Tells of the limit behind a failure if that has just been reached.
    pub(super) fn tell_reached(&self, route: u16, failure: &Failure) {
        if *failure == Failure::Memory && self.begin_memory_full() {
            tracing::warn!("{MEMORY} is reached: requests are refused");
        }
        let Some((setting, why)) = Setting::behind(failure) else {
            return;
        };
        let front = &self.fronts[route as usize];
        let reached = &front.route.reached;
        if !reached.told[setting as usize].begin(self.clock.now()) {
            return;
        }
        let (route, name) = (&front.route.name, setting.name());
        let mut event = Event::new(EventKind::LimitReached, name);
        match (setting, why) {
            (Setting::Target, _) => tracing::warn!(
                %route, target = ?front.config.overload.target,
                "Redis has more to do than it can: commands are refused ({name})"
            ),
            (_, Some(why)) => {
                let by = why.setting();
                tracing::warn!(%route, by, "{name} is reached: commands are refused");
                event = event.with("by", by);
            }
            _ => tracing::warn!(%route, "{name} is reached: commands are refused"),
        }
        self.proxy.journal.note(event.on(route));
    }

    /// Memory for clients is used up: notes it, if that is new, and returns whether it is.
    pub(super) fn begin_memory_full(&self) -> bool {
        let is_new = self.proxy.memory_full.begin(self.clock.now());
        if is_new {
            let event = Event::new(EventKind::LimitReached, MEMORY);
            let max = self.settings.process.buffer_memory_max;
            self.proxy.journal.note(event.with("max", max));
        }
        is_new
    }

    /// Tells of limits that refuse nothing any more. One worker does it for all.
    pub(super) fn look_what_is_cleared(&self) {
        if self.index != 0 {
            return;
        }
        let now = self.clock.now();
        if self.proxy.memory_full.end(now, CLEARED_AFTER) {
            tracing::info!("{MEMORY} is no longer reached");
            let event = Event::new(EventKind::LimitCleared, MEMORY);
            self.proxy.journal.note(event);
        }
        for front in &self.fronts {
            for &setting in Setting::ALL {
                let told = &front.route.reached.told[setting as usize];
                if !told.end(now, setting.cleared_after()) {
                    continue;
                }
                let (route, name) = (&front.route.name, setting.name());
                match setting {
                    Setting::Target => {
                        tracing::info!(%route, "no command is refused any more ({name})");
                    }
                    _ => tracing::info!(%route, "{name} is no longer reached"),
                }
                let event = Event::new(EventKind::LimitCleared, name);
                self.proxy.journal.note(event.on(route));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Limit;

    #[test]
    fn every_limit_on_connections_is_told_by_its_name() {
        for limit in [
            Limit::Connections,
            Limit::Shared,
            Limit::Leases,
            Limit::Blocking,
            Limit::Subscriptions,
            Limit::Reserve,
        ] {
            let limit = limit.setting();
            let behind = Setting::behind(&Failure::QueueFull { limit });
            let (setting, why) = behind.expect("it is known");
            assert_eq!(setting.name(), format!("backend.{limit}"));
            assert_eq!(why, Some(Why::Queue));
            let behind = Setting::behind(&Failure::WaitedTooLong { limit });
            assert_eq!(behind, Some((setting, Some(Why::Wait))));
        }
        // Not a setting.
        let limit = "logins";
        assert_eq!(Setting::behind(&Failure::QueueFull { limit }), None);
    }

    #[test]
    fn the_beginning_and_the_end_are_told_once() {
        let once = Once::default();
        assert!(!once.end(9 * CLEARED_AFTER, CLEARED_AFTER), "never reached");
        assert!(once.begin(1_000_000));
        assert!(!once.begin(1_500_000));
        assert!(!once.end(1_500_000 + CLEARED_AFTER, CLEARED_AFTER));
        assert!(once.end(1_500_001 + CLEARED_AFTER, CLEARED_AFTER));
        assert!(!once.end(1_500_002 + CLEARED_AFTER, CLEARED_AFTER));
        assert!(once.begin(9_000_000), "again");
    }
}
