//! Watching the node's own limits: how many clients and how much memory it has, how much
//! of both is used, and how fast that grows.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::{Node, OpenError, Opened, close_politely};
use crate::admission::Costs;
use crate::backend::budget::{Kind, Partition};
use crate::backend::credential::UserId;
use crate::backend::vitals::{Growth, Room, Vitals};
use crate::metrics::{Event, EventKind, Latch};
use crate::resp::{Value, Version};

/// While nothing is to be watched, it is looked so often whether that has changed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A node that is not there is looked for so often: before the first look nobody knows
/// how many connections it has room for.
const NOT_YET: Duration = Duration::from_millis(50);

/// A node that tells nothing is asked again after so many periods.
const REFUSED_PERIODS: u32 = 30;

/// Memory is said to run out when this share of it is used, and no longer below the other.
const MEMORY_LOW: f64 = 0.9;
const MEMORY_FINE: f64 = 0.85;

/// How near the node is to its limits.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) vitals: Vitals,
    pub(super) growth: Growth,
    pub(super) room: Room,
    narrowed: Latch,
    memory_low: Latch,
    refusing: Latch,
}

/// What was found at the last look, for metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// What the node says.
    pub vitals: Vitals,
    /// Bytes by which its memory grows in a second, if that is known.
    pub memory_growth: Option<f64>,
    /// How long the memory lasts, if it has an end and grows, as of the last looks.
    pub memory_full_in: Option<Duration>,
    /// The same, if it has grown for long enough to tell.
    pub memory_lasts: Option<Duration>,
    /// Connections that the budget allows now.
    pub connections_allowed: usize,
}

impl Node {
    /// Looks for as long as the process runs.
    pub(super) async fn keep_watching(self: &Arc<Self>) {
        loop {
            let period = self.settings().health.watch_interval;
            if period.is_zero() {
                self.forget_limits();
                sleep(LOOK_AGAIN).await;
                continue;
            }
            if !self.is_ready() || self.facts().version == (0, 0, 0) {
                sleep(NOT_YET.min(period)).await;
                continue;
            }
            let refused = matches!(self.look().await, Err(OpenError::Refused(_)));
            let looked_at = Instant::now();
            let periods = if refused { REFUSED_PERIODS } else { 1 };
            loop {
                // Another interval holds at once, and the longest is of hours.
                let period = self.settings().health.watch_interval * periods;
                let left = period.saturating_sub(looked_at.elapsed());
                if left.is_zero() {
                    break;
                }
                sleep(left.min(LOOK_AGAIN)).await;
            }
        }
    }

    /// What the last look has found.
    pub fn limits(&self) -> Limits {
        let condition = self.condition();
        let watch = &condition.watch;
        let max = watch.vitals.memory_max;
        Limits {
            vitals: watch.vitals,
            memory_growth: watch.growth.slope(),
            memory_full_in: max.and_then(|max| watch.growth.full_in(max)),
            memory_lasts: max.and_then(|max| watch.growth.lasts(max)),
            connections_allowed: condition.budget(self.settings().backend.max_connections),
        }
    }

    /// The share of its `maxmemory` that was in use at the last look; 0 if it has none, or
    /// does not tell.
    pub fn memory_share(&self) -> f64 {
        f64::from_bits(self.memory_share.load(Relaxed))
    }

    async fn look(self: &Arc<Self>) -> Result<(), OpenError> {
        let Some(slot) = self.ledger.try_take(Kind::Control) else {
            // There are more urgent things to do with the connections that there are.
            return Ok(());
        };
        let key = Partition {
            user: UserId::BACKEND,
            version: Version::Resp2,
            db: 0,
            no_touch: false,
        };
        let Opened {
            mut socket, slot, ..
        } = self.open(&key, slot).await?;
        let own = self.ledger.snapshot().total();
        let deadline = Instant::now() + self.settings().timeouts.connect;
        let questions: [&[&str]; 8] = [
            &["iNFO", "clients"],
            &["iNFO", "memory"],
            &["iNFO", "stats"],
            &["iNFO", "replication"],
            &["cONFIG", "GET", "maxclients"],
            &["cONFIG", "GET", "maxmemory"],
            &["iNFO", "commandstats"],
            &["sLOWLOG", "GET", "32"],
        ];
        let answers = timeout_at(deadline, super::learn::ask(&mut socket, &questions)).await;
        // One that was opened meanwhile may not have been counted by the node: taken for
        // somebody else's, it makes the room smaller, not larger.
        let own = own.min(self.ledger.snapshot().total());
        close_politely(socket, Some(slot));
        let Ok(Ok(answers)) = answers else {
            return Ok(());
        };
        let mut vitals = Vitals::default();
        let (answers, costs) = answers.split_at(6);
        self.take_in_costs(&costs[0], &costs[1]);
        let (info, config) = answers.split_at(4);
        info.iter().for_each(|reply| vitals.learn_info(reply));
        config.iter().for_each(|reply| vitals.learn_config(reply));
        self.take_in_vitals(&vitals, own);
        Ok(())
    }

    fn take_in_costs(&self, stats: &Value, slow_log: &Value) {
        let (false, Some(stats)) = (stats.is_error(), stats.as_str()) else {
            return;
        };
        let slow_above = self.settings().overload.slow_above;
        let mut costs = Costs::clone(&self.costs());
        costs.learn_stats(stats, slow_above.as_micros() as f64);
        let mut newest = None;
        for entry in slow_log.as_array().unwrap_or_default() {
            // Number, time, duration, command, and who it was.
            let Some([number, _, micros, command, ..]) = entry.as_array() else {
                continue;
            };
            let (Some(number), Some(micros)) = (number.as_i64(), micros.as_i64()) else {
                continue;
            };
            newest = newest.max(Some(number));
            let words = command.as_array().unwrap_or_default();
            if let Some(name) = words.first().and_then(Value::as_str) {
                let first = words.get(1).and_then(Value::as_bytes);
                costs.learn_slow(number, micros.unsigned_abs(), name, first);
            }
        }
        if let Some(newest) = newest {
            costs.slow_log_seen(newest);
        }
        self.costs.store(Arc::new(costs));
    }

    fn take_in_vitals(&self, vitals: &Vitals, own: usize) {
        let settings = self.settings();
        let (max, share) = (
            settings.backend.max_connections,
            settings.health.clients_share,
        );
        let mut condition = self.condition();
        let before = condition.watch.vitals;
        condition.watch.vitals = *vitals;
        if let Some(bytes) = vitals.memory {
            condition.watch.growth.sample(Instant::now(), bytes);
        }
        let has_changed = condition.watch.room.adjust(vitals, own, share, max);
        let allowed = condition.budget(max);
        drop(condition);
        if has_changed {
            self.ledger.set_max_connections(allowed);
            self.tell_narrowed(vitals, max);
        }
        self.tell_memory(vitals, settings.health.refuse_writes_above_memory);
        if let (Some(was), Some(is)) = (before.rejected, vitals.rejected)
            && is > was
        {
            tracing::warn!(
                node = %self.address, route = %self.route, connections = is - was,
                "the node has rejected connections: its maxclients was reached"
            );
            let event = Event::new(EventKind::NodeRejects, &*self.address).on(&self.route);
            self.journal.note(event.with("connections", is - was));
        }
        if let (Some(was), Some(is)) = (before.evicted, vitals.evicted)
            && is > was
        {
            let event = Event::new(EventKind::NodeEvicts, &*self.address).on(&self.route);
            self.journal.note(event.with("keys", is - was));
        }
    }

    /// The budget is not narrowed any more: nobody looks whether it has to be.
    fn forget_limits(&self) {
        let max = self.settings().backend.max_connections;
        let mut condition = self.condition();
        let was_narrow = condition.watch.room.limit().is_some();
        condition.watch = Watch::default();
        let allowed = condition.budget(max);
        drop(condition);
        self.memory_share.store(0, Relaxed);
        if was_narrow {
            self.ledger.set_max_connections(allowed);
        }
    }

    fn tell_narrowed(&self, vitals: &Vitals, max: usize) {
        let condition = self.condition();
        let room = condition.watch.room.limit();
        let is_news = match room {
            Some(_) => condition.watch.narrowed.set(),
            None => condition.watch.narrowed.clear(),
        };
        drop(condition);
        if !is_news {
            return;
        }
        let (node, route) = (&self.address, &self.route);
        let clients = vitals.clients.unwrap_or_default();
        let clients_max = vitals.clients_max.unwrap_or_default();
        let kind = match room {
            Some(allowed) => {
                tracing::info!(
                    %node, %route, allowed, max_connections = max, clients, maxclients = clients_max,
                    "budget narrowed, so that the node stays under health.clients_share"
                );
                EventKind::BudgetNarrowed
            }
            None => {
                tracing::info!(%node, %route, max_connections = max, "budget as wide as it was");
                EventKind::BudgetWidened
            }
        };
        let event = Event::new(kind, &**node).on(route);
        let event = event.with("allowed", room.unwrap_or(max));
        let event = event.with("clients", clients);
        self.journal.note(event.with("maxclients", clients_max));
    }

    fn tell_memory(&self, vitals: &Vitals, refuse_above: f64) {
        let share = vitals.memory_share().unwrap_or(0.0);
        let (node, route) = (&self.address, &self.route);
        let condition = self.condition();
        let watch = &condition.watch;
        let full_in = vitals
            .memory_max
            .and_then(|max| watch.growth.full_in(max))
            .map_or("unknown".to_owned(), |time| format!("{}s", time.as_secs()));
        let percent = (share * 100.0).round();
        let has_become_low = share >= MEMORY_LOW && watch.memory_low.set();
        let has_become_fine = share < MEMORY_FINE && watch.memory_low.clear();
        let refuses = refuse_above < 1.0 && share > refuse_above;
        let begins = refuses && watch.refusing.set();
        let ends = !refuses && watch.refusing.clear();
        drop(condition);
        self.memory_share.store(share.to_bits(), Relaxed);
        let note = |kind| {
            let event = Event::new(kind, &**node).on(route);
            self.journal
                .note(event.with("percent", percent).with("full_in", &full_in));
        };
        if has_become_low {
            tracing::warn!(%node, %route, percent, full_in, "the node's memory is nearly used up");
            note(EventKind::MemoryLow);
        }
        if has_become_fine {
            tracing::info!(%node, %route, percent, "the node has memory again");
            note(EventKind::MemoryFine);
        }
        if begins {
            tracing::warn!(
                %node, %route, percent,
                "writes are refused (health.refuse_writes_above_memory)"
            );
            let event = Event::new(EventKind::LimitReached, "health.refuse_writes_above_memory");
            self.journal.note(event.on(route).with("percent", percent));
        }
        if ends {
            tracing::info!(%node, %route, percent, "writes are taken again");
            let event = Event::new(EventKind::LimitCleared, "health.refuse_writes_above_memory");
            self.journal.note(event.on(route).with("percent", percent));
        }
    }
}
