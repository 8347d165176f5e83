//! Whether the node can be used, and how many connections it has room for.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::limits::Watch;
use super::{Node, OpenError};
use crate::admission::{Breaker, BreakerLimits, BreakerState, Change, Tally, Trip};
use crate::backend::backoff::Backoff;
use crate::backend::pace::DialPace;
use crate::config;
use crate::metrics::{Event, EventKind};

/// Dials are paced for so long after the last failure.
const UNWELL: Duration = Duration::from_secs(10);

/// What is known of a node's health, under one lock that is taken when connections are
/// opened and lost.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) breaker: Breaker,
    /// What it met last, while it is sick.
    error: Option<OpenError>,
    /// Paces the probes.
    pub(super) backoff: Backoff,
    pace: DialPace,
    /// Dials are paced until then.
    unwell_until: Option<Instant>,
    /// Paces attempts while the node has as many clients as it takes.
    crowded: Backoff,
    /// The budget is narrowed to what was open when the node took no more clients, until
    /// somebody tries for more.
    narrow: Option<usize>,
    /// How near the node is to its own limits.
    pub(super) watch: Watch,
}

impl Condition {
    /// Of a node that nobody has talked to yet.
    pub(super) fn new(settings: &config::Route, seed: u64) -> Mutex<Condition> {
        let config = &settings.backend;
        let (min, max) = (config.reconnect_min, config.reconnect_max);
        Mutex::new(Condition {
            breaker: Breaker::new(breaker_limits(&settings.health)),
            error: None,
            backoff: Backoff::new(min, max, seed),
            pace: DialPace::new(
                config.reconnect_rate,
                config.reconnect_burst,
                seed.rotate_left(17),
                Instant::now(),
            ),
            unwell_until: None,
            crowded: Backoff::new(min, max, !seed),
            narrow: None,
            watch: Watch::default(),
        })
    }

    /// Other settings are in force from now on.
    pub(super) fn apply(&mut self, settings: &config::Route) {
        let config = &settings.backend;
        let (min, max) = (config.reconnect_min, config.reconnect_max);
        self.backoff.set_range(min, max);
        self.crowded.set_range(min, max);
        self.pace.set(config.reconnect_rate, config.reconnect_burst);
        self.breaker.set_limits(breaker_limits(&settings.health));
    }

    /// How many connections there may be, where the settings allow `max`.
    pub(super) fn budget(&self, max: usize) -> usize {
        let room = self.watch.room.limit().unwrap_or(max);
        max.min(room).min(self.narrow.unwrap_or(max)).max(1)
    }
}

fn breaker_limits(health: &config::Health) -> BreakerLimits {
    BreakerLimits {
        errors_max: health.errors_max,
        latency_max: health.latency_max,
    }
}

impl Node {
    /// Why no connection is even tried now; `None` if one may be. While the node is
    /// sick only probes go to it, and it gets work again when one is answered.
    #[inline]
    pub fn unavailable(&self) -> Option<OpenError> {
        if !self.is_sick() {
            return None;
        }
        let condition = self.condition();
        condition.breaker.trip()?;
        condition.error.clone()
    }

    /// What the last attempt met, if the node is sick.
    pub fn last_error(&self) -> Option<OpenError> {
        let condition = self.condition();
        condition.breaker.trip()?;
        condition.error.clone()
    }

    /// Where the node's breaker stands, and why it is not healthy.
    pub fn breaker(&self) -> (BreakerState, Option<Trip>) {
        let condition = self.condition();
        (condition.breaker.state(), condition.breaker.trip())
    }

    /// A connection was opened, or a probe was answered.
    pub(super) fn reached(&self) {
        self.heard_at.store(self.age(), Relaxed);
        if self.is_sick() {
            let change = self.condition().breaker.reached(Instant::now());
            self.note(change);
        }
    }

    /// A connection has shaken hands: the node does not only answer, it serves.
    pub(super) fn succeeded(&self) {
        self.serves.store(true, Relaxed);
        self.reached();
        let mut condition = self.condition();
        if condition.narrow.is_none() {
            condition.crowded.reset();
        }
    }

    /// No connection could be opened, for a reason that has to do with the node.
    pub(super) fn failed(&self, error: &OpenError) {
        let now = Instant::now();
        let mut condition = self.condition();
        condition.unwell_until = Some(now + UNWELL);
        let change = condition.breaker.unreachable(now);
        // Of one that is silent it is known already what it does.
        if condition.breaker.trip() == Some(Trip::Unreachable) {
            condition.error = Some(error.clone());
        }
        drop(condition);
        self.note(change);
        self.mark_stale();
    }

    /// Bytes came from the node so long ago, over a connection that was open before.
    pub fn heard(&self, ago: Duration) {
        let at = self.age().saturating_sub(ago.as_micros() as u64);
        self.heard_at.fetch_max(at, Relaxed);
    }

    /// Bytes came over a connection that gets no commands now: the node is there again.
    pub fn heard_while_sick(&self) {
        self.heard(Duration::ZERO);
        let change = self.condition().breaker.heard(Instant::now());
        self.note(change);
    }

    /// A connection has waited for a reply for so long, and the node was asked over
    /// another as well. If nothing has come from it anywhere for that long, it hangs.
    pub fn hears_nothing(&self, limit: Duration) {
        // Another thread may hear it in this very moment.
        let heard_ago = self.age().saturating_sub(self.heard_at.load(Relaxed));
        let heard_ago = Duration::from_micros(heard_ago);
        if heard_ago <= limit {
            return;
        }
        let mut condition = self.condition();
        let change = condition.breaker.silent(Instant::now());
        if change.is_some() {
            let why = "it does not answer (health.silence_max)";
            condition.error = Some(self.unreachable(why));
        }
        drop(condition);
        self.note(change);
    }

    /// A connection to the node was lost.
    pub fn lost(&self) {
        self.condition().unwell_until = Some(Instant::now() + UNWELL);
        self.mark_stale();
    }

    /// Commands were answered by the node, which took so long for them together, or
    /// met their deadline.
    pub fn count(&self, tally: Tally) {
        self.answers.fetch_add(tally.answers, Relaxed);
        self.answer_micros.fetch_add(tally.micros, Relaxed);
        self.deadlines_met.fetch_add(tally.timeouts, Relaxed);
    }

    /// Has the breaker judge by what commands have met since the last time.
    pub(super) fn judge(&self) {
        let tally = Tally {
            answers: self.answers.swap(0, Relaxed),
            timeouts: self.deadlines_met.swap(0, Relaxed),
            micros: self.answer_micros.swap(0, Relaxed),
        };
        let mut condition = self.condition();
        let change = condition.breaker.observe(tally, Instant::now());
        if let Some(Change::Tripped(trip)) = change {
            let why = match trip {
                Trip::Slow => "it is too slow (health.latency_max)",
                _ => "too many commands met their deadline (health.errors_max)",
            };
            condition.error = Some(self.unreachable(why));
        }
        drop(condition);
        self.note(change);
    }

    /// Tells everybody who looks, and the log, what has changed.
    pub(super) fn note(&self, change: Option<Change>) {
        let Some(change) = change else { return };
        let (node, route) = (&self.address, &self.route);
        match change {
            Change::Tripped(trip) | Change::Worse(trip) => {
                self.serves.store(false, Relaxed);
                self.gate.set(trip);
                self.trips[trip as usize].fetch_add(1, Relaxed);
                let why = self.last_error().map(|error| error.to_string());
                let why = why.unwrap_or_default();
                tracing::warn!(%node, %route, trip = trip.name(), "node cannot be used: {why}");
                let event = Event::new(EventKind::NodeDown, &**node).on(route);
                self.journal.note(event.with("why", why));
            }
            Change::Healed(trip, after) => {
                self.gate.open();
                self.condition().backoff.reset();
                self.mark_stale();
                tracing::info!(%node, %route, was = trip.name(), ?after, "node is back");
                let event = Event::new(EventKind::NodeUp, &**node).on(route);
                self.journal.note(event.with("after", format!("{after:?}")));
            }
        }
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// Waits until a dial may begin; how long it took. Nobody waits while the node is well.
    pub(super) async fn turn_to_dial(&self) -> Duration {
        let wait = {
            let now = Instant::now();
            let mut condition = self.condition();
            match condition.unwell_until {
                Some(until) if now < until => condition.pace.take(now),
                _ => return Duration::ZERO,
            }
        };
        if !wait.is_zero() {
            self.dials_delayed.fetch_add(1, Relaxed);
            tokio::time::sleep(wait).await;
        }
        wait
    }

    /// The node takes no more clients: Weir goes on with the connections that it has,
    /// and after a pause tries whether there is room again.
    pub(super) fn narrow(self: &Arc<Self>) {
        // All but the one that was refused, which is closing. One that closes makes room.
        let others = self.ledger.snapshot().total().saturating_sub(1);
        if others == 0 {
            // Nothing to go on with.
            self.failed(&OpenError::Full);
            return;
        }
        let max = self.settings().backend.max_connections;
        let mut condition = self.condition();
        let was_narrow = condition.narrow.replace(others).is_some();
        let allowed = condition.budget(max);
        if was_narrow {
            drop(condition);
            self.ledger.set_max_connections(allowed);
            return;
        }
        let pause = condition.crowded.next_pause();
        drop(condition);
        self.ledger.set_max_connections(allowed);
        tracing::warn!(
            node = %self.address, route = %self.route, others,
            "the node's maxclients is reached: going on with the connections that are open"
        );
        let event = Event::new(EventKind::NodeFull, &*self.address).on(&self.route);
        self.journal.note(event.with("connections", others));
        let node = self.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(pause).await;
            node.widen();
        });
    }

    pub(super) fn widen(&self) {
        let max = self.settings().backend.max_connections;
        let mut condition = self.condition();
        condition.narrow = None;
        let allowed = condition.budget(max);
        drop(condition);
        self.ledger.set_max_connections(allowed);
    }

    pub(super) fn condition(&self) -> std::sync::MutexGuard<'_, Condition> {
        self.condition
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Microseconds that this node is known.
    fn age(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::credential::Credentials;
    use crate::backend::node::NodeSpec;

    #[test]
    fn what_another_thread_has_just_heard_is_no_silence() {
        let spec = NodeSpec {
            id: 0,
            address: "127.0.0.1:1".into(),
            route: "main".into(),
            workers: 1,
            journal: Arc::default(),
            tls: None,
            ledger: None,
        };
        let credentials = Arc::new(Credentials::new(None));
        let node = Node::new(spec, &Arc::default(), credentials);
        // It looked at the clock a moment later than this one has.
        node.heard_at.store(node.age() + 1_000_000, Relaxed);
        node.hears_nothing(Duration::from_millis(1));
        assert!(!node.is_sick());
        node.heard_at.store(0, Relaxed);
        while node.age() < 2 {}
        node.hears_nothing(Duration::from_micros(1));
        assert!(node.is_sick());
    }
}
