//! What operators are told of limits on clients, and who holds how much.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::proxy::{Message, Proxy};
use super::worker::State;
use crate::admission::{Group, IdleAges, Notice, What};
use crate::metrics::{Event, EventKind};

/// Of so many of those who hold the most it is known how long their connections have been
/// idle.
const AGES_OF: usize = 32;

/// Workers tell the ages of their clients within this time, or nobody learns them this time.
const AGES_WITHIN: Duration = Duration::from_secs(2);

impl Proxy {
    /// Tells what there is to tell of limits, in the log and the journal. To be called about
    /// once a second.
    pub fn watch_limits(&self) {
        let now = self.started.elapsed().as_micros() as u64;
        for notice in self.limits.watch(now) {
            self.tell_limit(&notice);
        }
        self.tell_refused_writes();
    }

    fn tell_limit(&self, notice: &Notice) {
        let Notice {
            setting,
            clients,
            max,
            refuses,
            ..
        } = notice;
        let route = notice
            .route
            .map_or("", |route| &*self.routes[route as usize].name);
        let identity = notice.identity.as_deref().unwrap_or("");
        let kind = match notice.what {
            What::Near => {
                tracing::warn!(route, clients, max, "{setting} is nearly reached");
                EventKind::LimitNear
            }
            What::Eased => {
                tracing::info!(route, clients, max, "{setting} is no longer nearly reached");
                EventKind::LimitEased
            }
            What::Reached => {
                tracing::warn!(
                    route,
                    identity,
                    clients,
                    max,
                    "{setting} is reached: {refuses} are refused"
                );
                EventKind::LimitReached
            }
            What::Cleared => {
                tracing::info!(
                    route,
                    identity,
                    clients,
                    max,
                    "{setting} is no longer reached"
                );
                EventKind::LimitCleared
            }
        };
        let mut event = Event::new(kind, setting.as_str())
            .with("clients", clients)
            .with("max", max);
        if !identity.is_empty() {
            event = event.with("identity", identity);
        }
        self.journal.note(event.on(route));
    }

    /// Notes how many connections everybody has, and of those who have the most how long they
    /// have been idle. To be called every ten seconds.
    pub async fn look_at_identities(&self) {
        self.limits.sample_growth();
        let groups: Arc<[Arc<Group>]> = self.limits.top_groups(AGES_OF).into();
        let mut ages = vec![Vec::new(); groups.len()];
        let answers: Vec<_> = (0..self.workers())
            .map(|worker| {
                let (answer, told) = oneshot::channel();
                let groups = groups.clone();
                self.send(worker, Message::IdleAges { groups, answer });
                told
            })
            .collect();
        for told in answers {
            let Ok(Ok(of_worker)) = timeout(AGES_WITHIN, told).await else {
                // A worker that has ended, or that is stuck.
                return;
            };
            for (all, some) in ages.iter_mut().zip(of_worker) {
                all.extend(some);
            }
        }
        let ages = groups.iter().zip(ages);
        let ages = ages.filter_map(|(group, ages)| Some((group.clone(), IdleAges::of(ages)?)));
        self.limits.note_idle_ages(ages.collect());
    }
}

impl State {
    /// How long this worker's clients of each group have been idle, in seconds.
    pub(super) fn idle_ages(&self, groups: &[Arc<Group>]) -> Vec<Vec<u32>> {
        let mut ages = vec![Vec::new(); groups.len()];
        let place: hashbrown::HashMap<*const Group, usize> = groups
            .iter()
            .enumerate()
            .map(|(place, group)| (Arc::as_ptr(group), place))
            .collect();
        for (_, session) in &self.sessions {
            let idle = self.clock.now().saturating_sub(session.active_at) / 1_000_000;
            let of = session
                .permit
                .as_ref()
                .map_or(&[][..], |permit| permit.groups());
            for group in of {
                if let Some(place) = place.get(&Arc::as_ptr(group)) {
                    ages[*place].push(idle as u32);
                }
            }
        }
        ages
    }
}
