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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::discovery::Deployment;

    const SECOND: u64 = 1_000_000;
    const RAMP_TIME: Duration = Duration::from_secs(8);

    fn failover() -> Failover {
        Failover {
            replica_lag_max: Duration::from_secs(10),
            stale_reads_max: Duration::from_secs(60),
            ..config::Route::default().failover
        }
    }

    fn finding(node: &Node, health: Health, report: Option<Report>) -> Finding {
        Finding {
            node: node.id,
            asked_at: Instant::now(),
            took: Duration::from_millis(1),
            health,
            report,
            why: String::new(),
        }
    }

    fn replica(link_up: bool) -> Report {
        Report {
            role: Role::Replica,
            replid: Some("a".into()),
            replid2: None,
            run: Some("r".into()),
            offset: 100,
            link_up,
            source: Some("127.0.0.1:1".into()),
            loading: false,
            disk_error: false,
        }
    }

    /// A replica that has what its primary had after `covered` microseconds, as a probe has
    /// just found it.
    struct Told {
        watched: Watched,
        failover: Failover,
    }

    impl Told {
        fn follower(covered: u64) -> Told {
            let mut settings = config::Route::default();
            settings.backend.topology = config::TopologyKind::Replicated;
            let journal = Arc::default();
            let deployment = Deployment::new(&Arc::new(settings), 1, Instant::now(), &journal);
            let node = deployment.new_node("127.0.0.1:7001");
            let mut told = Told {
                watched: Watched::new(node, "127.0.0.1:7001".into(), Vec::new()),
                failover: failover(),
            };
            told.watched.standing = Standing::Follower;
            told.is(Health::Up, Some(replica(true)));
            told.watched.covered.store(covered, Relaxed);
            told
        }

        fn is(&mut self, health: Health, report: Option<Report>) {
            let finding = finding(&self.watched.node, health, report);
            self.watched.take(finding);
        }

        /// Its share of the reads after this moment's judgement.
        fn weight(&mut self, now: u64, outage: Option<u64>) -> f32 {
            self.watched.judge(&self.failover, now, outage);
            self.watched.read_weight(RAMP_TIME)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_serves_at_once_when_it_is_first_known() {
        let mut told = Told::follower(SECOND);
        assert_eq!(told.weight(SECOND, None), 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_away_comes_back_little_by_little() {
        let mut told = Told::follower(SECOND);
        assert_eq!(told.weight(SECOND, None), 1.0);
        for _ in 0..2 {
            told.is(Health::Down, None);
            assert_eq!(told.weight(SECOND, None), 0.0);
            assert_eq!(told.weight(SECOND, None), 0.0);
            // It loads its data, and then its primary's, before it may serve again.
            told.is(Health::Loading, Some(replica(false)));
            assert_eq!(told.weight(SECOND, None), 0.0);
            told.is(Health::Up, Some(replica(false)));
            assert_eq!(told.weight(SECOND, None), 0.0);
            told.is(Health::Up, Some(replica(true)));
            let mut shares = Vec::new();
            for _ in 0..=RAMP.len() {
                shares.push(told.weight(SECOND, None));
                tokio::time::advance(RAMP_TIME / RAMP.len() as u32).await;
            }
            assert_eq!(shares, [0.1, 0.25, 0.5, 0.75, 1.0]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_goes_again_while_it_comes_back_begins_anew() {
        let mut told = Told::follower(SECOND);
        told.weight(SECOND, None);
        told.is(Health::Hung, None);
        told.weight(SECOND, None);
        told.is(Health::Up, Some(replica(true)));
        assert_eq!(told.weight(SECOND, None), 0.1);
        tokio::time::advance(RAMP_TIME / 2).await;
        assert_eq!(told.weight(SECOND, None), 0.5);
        told.is(Health::Hung, None);
        assert_eq!(told.weight(SECOND, None), 0.0);
        told.is(Health::Up, Some(replica(true)));
        assert_eq!(told.weight(SECOND, None), 0.1);
    }

    /// What it has in memory is as warm as it was.
    #[tokio::test(start_paused = true)]
    async fn one_that_was_only_behind_comes_back_at_once() {
        let mut told = Told::follower(SECOND);
        assert_eq!(told.weight(SECOND, None), 1.0);
        assert_eq!(told.weight(20 * SECOND, None), 0.0);
        told.watched.covered.store(20 * SECOND, Relaxed);
        assert_eq!(told.weight(20 * SECOND, None), 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_ramp_of_no_time_is_none() {
        let mut told = Told::follower(SECOND);
        told.weight(SECOND, None);
        told.is(Health::Down, None);
        told.weight(SECOND, None);
        told.is(Health::Up, Some(replica(true)));
        told.watched.judge(&told.failover, SECOND, None);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(told.watched.read_weight(Duration::ZERO), 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn without_its_link_a_replica_serves_nothing_however_near_it_was() {
        let mut told = Told::follower(SECOND);
        told.is(Health::Up, Some(replica(false)));
        assert_eq!(told.weight(SECOND, None), 0.0);
        told.is(Health::Up, Some(replica(true)));
        assert_eq!(told.weight(SECOND, None), 1.0);
    }

    /// The link is up all the time: only the offset tells.
    #[tokio::test(start_paused = true)]
    async fn a_replica_that_is_farther_behind_than_it_may_serves_nothing() {
        let mut told = Told::follower(0);
        assert_eq!(told.weight(SECOND, None), 0.0, "nobody knows how far it is");
        told.watched.covered.store(SECOND, Relaxed);
        assert_eq!(told.weight(11 * SECOND, None), 1.0);
        assert_eq!(told.weight(11 * SECOND + 1, None), 0.0);
        told.failover.replica_lag_max = Duration::from_secs(11);
        assert_eq!(told.weight(11 * SECOND + 1, None), 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_primary_it_serves_for_as_long_as_that_may_last() {
        let outage = Some(5 * SECOND);
        let mut told = Told::follower(SECOND);
        // There is nobody that it could have a link to.
        told.is(Health::Up, Some(replica(false)));
        // How far it was when that began is what counts, and not how long ago it is.
        for now in [5, 20, 65] {
            assert_eq!(told.weight(now * SECOND, outage), 1.0, "after {now} s");
        }
        assert_eq!(told.weight(65 * SECOND + 1, outage), 0.0);
        told.failover.stale_reads_max = Duration::from_secs(120);
        assert_eq!(told.weight(65 * SECOND + 1, outage), 1.0);
        // It was too far behind already.
        let mut late = Told::follower(SECOND);
        assert_eq!(late.weight(12 * SECOND, Some(12 * SECOND)), 0.0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_replica_of_the_primary_serves_nothing() {
        for standing in [
            Standing::Silent,
            Standing::Primary,
            Standing::Unsynced,
            Standing::Rival,
        ] {
            let mut told = Told::follower(SECOND);
            told.watched.standing = standing;
            assert_eq!(told.weight(SECOND, None), 0.0, "{standing:?}");
        }
        let mut told = Told::follower(SECOND);
        let primary = Report {
            role: Role::Primary,
            ..replica(true)
        };
        told.is(Health::Up, Some(primary));
        assert_eq!(told.weight(SECOND, None), 0.0);
    }
}
