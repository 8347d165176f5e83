//! The nodes that are watched: what each has said, and which of them may serve reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::probe::Finding;
use crate::backend::Node;
use crate::config::Failover;
use crate::router::{Candidate, Health, Member, Report, Role, Standing};

/// Of the shares that a node which is back gets, one after the other.
const RAMP: [f32; 4] = [0.1, 0.25, 0.5, 0.75];

/// One node that is watched.
#[derive(Debug)]
pub struct Watched {
    /// The node.
    pub node: Arc<Node>,
    /// By which name it was found.
    pub name: String,
    /// Whether it serves.
    pub health: Health,
    /// What it said last.
    pub report: Option<Report>,
    /// Why it cannot be used, for people.
    pub why: String,
    /// When it was last found as it is.
    pub asked_at: Instant,
    /// How it stands.
    pub standing: Standing,
    /// It has been part of the deployment.
    pub is_known: bool,
    /// The process that was a replica when it was last asked as one.
    replica_run: Option<String>,
    /// How fast it answers, in microseconds, smoothed.
    pub latency_us: u64,
    /// Up to which moment it has what the primary had.
    pub covered: Arc<AtomicU64>,
    /// It was away: since when it may serve again.
    ramping_since: Option<Instant>,
    /// It may serve reads.
    serves: bool,
    /// It has served reads before.
    has_served: bool,
    tasks: Vec<AbortHandle>,
}

impl Watched {
    /// A node that has said nothing yet, and the tasks that end with it.
    pub fn new(node: Arc<Node>, name: String, tasks: Vec<AbortHandle>) -> Watched {
        Watched {
            node,
            name,
            health: Health::Unknown,
            report: None,
            why: String::new(),
            asked_at: Instant::now(),
            standing: Standing::Silent,
            is_known: false,
            replica_run: None,
            latency_us: 0,
            covered: Arc::default(),
            ramping_since: None,
            serves: false,
            has_served: false,
            tasks,
        }
    }

    /// Takes in what a probe found. Whether its health has changed.
    pub fn take(&mut self, finding: Finding) -> bool {
        if finding.health == Health::Up || finding.health == Health::Loading {
            let took = finding.took.as_micros() as u64;
            self.latency_us = match self.latency_us {
                0 => took,
                known => (known * 7 + took) / 8,
            };
            // Busy with a script, it says nothing new of itself.
            if let Some(report) = &finding.report {
                if report.role == Role::Replica {
                    self.replica_run.clone_from(&report.run);
                }
                self.report = finding.report;
            }
        } else {
            self.report = None;
        }
        self.why = finding.why;
        self.asked_at = finding.asked_at;
        std::mem::replace(&mut self.health, finding.health) != finding.health
    }

    /// As it stands for election.
    pub fn candidate(&self) -> Candidate<'_> {
        Candidate {
            health: self.health,
            report: self.report.as_ref(),
            is_known: self.is_known,
            was_restarted: self.was_restarted(),
        }
    }

    fn was_restarted(&self) -> bool {
        let run = self.report.as_ref().and_then(|report| report.run.as_ref());
        self.replica_run.is_some() && run.is_some() && run != self.replica_run.as_ref()
    }

    /// Sees whether it may serve reads. `outage` is since when there is no primary, all in
    /// microseconds since the process started.
    pub fn judge(&mut self, failover: &Failover, now: u64, outage: Option<u64>) {
        let report = self.report.as_ref();
        let may = self.health == Health::Up
            && !self.node.is_sick()
            && self.standing == Standing::Follower
            && report.is_some_and(|report| report.role == Role::Replica);
        let covered = self.covered.load(Relaxed);
        let max = failover.replica_lag_max.as_micros() as u64;
        let is_near = |at: u64| covered != 0 && at.saturating_sub(covered) <= max;
        let in_time = match outage {
            // Nothing can be known of how far a primary is that is away: it is as far
            // as it was, and for a while that is good enough.
            Some(since) => {
                let longest = failover.stale_reads_max.as_micros() as u64;
                is_near(since) && now.saturating_sub(since) <= longest
            }
            None => is_near(now) && report.is_some_and(|report| report.link_up),
        };
        let serves = may && in_time;
        if serves && !self.serves && self.has_served {
            self.ramping_since = Some(Instant::now());
        }
        // Only a node that was away comes back slowly, not one that was behind.
        if !matches!(self.health, Health::Up | Health::Loading) {
            self.has_served |= self.serves;
        } else if self.serves && !serves {
            self.has_served = false;
        }
        self.serves = serves;
    }

    /// Its share of the reads, from 0 to 1.
    pub fn read_weight(&mut self, ramp: Duration) -> f32 {
        if !self.serves {
            return 0.0;
        }
        let Some(since) = self.ramping_since else {
            return 1.0;
        };
        let step = since.elapsed().as_secs_f64() / ramp.as_secs_f64().max(0.001);
        let share = RAMP.get((step * RAMP.len() as f64) as usize).copied();
        if share.is_none() {
            self.ramping_since = None;
        }
        share.unwrap_or(1.0)
    }

    /// As others see it.
    pub fn member(&mut self, ramp: Duration) -> Member {
        Member {
            id: self.node.id,
            address: self.node.address.clone(),
            role: match self.report.as_ref() {
                Some(report) => report.role,
                None => Role::Unknown,
            },
            health: self.health,
            standing: self.standing,
            disk_error: self.report.as_ref().is_some_and(|it| it.disk_error),
            read_weight: self.read_weight(ramp),
            latency_us: self.latency_us,
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
