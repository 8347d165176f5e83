//! Watching a deployment of several nodes: takes in what probes and sentinels find, holds
//! an election after each finding, and publishes what changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::deployment::{Deployment, Snapshot};
use super::members::Watched;
use super::names::Names;
use super::probe::{Finding, probe};
use super::resolve::resolve;
use super::sentinel::{SentinelSpec, View, Word, listen};
use crate::config::TopologyKind;
use crate::metrics::{Event, EventKind};
use crate::router::{Health, Lineage, NodeId, OffsetSamples, Role, Standing, Topology, elect};

/// How often what the clock decides is looked at: how far replicas are behind, shares of
/// nodes that are back.
const TICK: Duration = Duration::from_millis(100);

/// A doubt has every node asked at the urgent pace for this long.
const DOUBT_LASTS: Duration = Duration::from_secs(1);

/// While there is no primary every node is asked at least this often.
const URGENT: Duration = Duration::from_millis(50);

/// Nodes of one deployment, at most: a name may stand for anything.
const NODES_MAX: usize = 64;

/// Findings and words wait for their turn in lines of this length.
const LINE: usize = 256;

struct Watch {
    deployment: Arc<Deployment>,
    tell: Box<dyn Fn()>,
    members: Vec<Watched>,
    names: Names,
    incumbent: Option<NodeId>,
    /// Whom the sentinels named when another was found to have taken its place: it is not
    /// waited for while they still do.
    passed_over: Option<NodeId>,
    lineage: Lineage,
    samples: OffsetSamples,
    /// The sentinels that are listened to, and how.
    listeners: Vec<(SentinelSpec, AbortHandle)>,
    words: mpsc::Sender<Word>,
    /// What each sentinel says that answers.
    views: BTreeMap<String, View>,
    /// Sentinels that did not answer when they were asked last.
    silent: BTreeMap<String, String>,
    pace: watch::Sender<Duration>,
    urgent_until: Instant,
    findings: mpsc::Sender<Finding>,
    resolutions: mpsc::Sender<(String, Result<Vec<String>, String>)>,
    /// When the primary was found to be it; at first, when the watch began.
    followed_at: Instant,
    /// Since when all nodes can be asked: while one process replaces another, a node that
    /// has no connection yet cannot.
    asking_since: Instant,
    /// It was said that there is no primary.
    is_out: bool,
}

/// Watches for as long as the process runs.
pub async fn watch(deployment: Arc<Deployment>, tell: Box<dyn Fn()>) {
    let (findings, mut found) = mpsc::channel(LINE);
    let (resolutions, mut resolved) = mpsc::channel(LINE);
    let (words, mut heard) = mpsc::channel(LINE);
    let pace = watch::Sender::new(URGENT);
    let settings = deployment.settings();
    let mut names = Names::default();
    if settings.backend.topology == TopologyKind::Replicated {
        names.set(&settings.backend.nodes);
    }
    let mut watch = Watch {
        deployment: deployment.clone(),
        tell,
        members: Vec::new(),
        names,
        incumbent: None,
        passed_over: None,
        lineage: Lineage::default(),
        samples: OffsetSamples::default(),
        listeners: Vec::new(),
        words,
        views: BTreeMap::new(),
        silent: BTreeMap::new(),
        pace,
        urgent_until: Instant::now() + DOUBT_LASTS,
        findings,
        resolutions,
        followed_at: Instant::now(),
        asking_since: Instant::now(),
        is_out: false,
    };
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(finding) = found.recv() => watch.take_finding(finding),
            Some(word) = heard.recv() => watch.take_word(word),
            Some((name, addresses)) = resolved.recv() => watch.take_addresses(name, addresses),
            () = deployment.doubted.notified() => watch.hurry(),
            _ = tick.tick() => {}
        }
        watch.listen_to_sentinels();
        watch.look_up_names();
        watch.evaluate();
    }
}

impl Watch {
    fn take_finding(&mut self, finding: Finding) {
        let Some(place) = self.place(finding.node) else {
            return;
        };
        let asked_at = finding.asked_at;
        let watched = &mut self.members[place];
        let before = watched.health;
        let has_changed = watched.take(finding);
        if has_changed {
            self.note_health(place, before);
        }
        let watched = &self.members[place];
        let Some(report) = &watched.report else {
            return;
        };
        let asked_at = self.deployment.micros(asked_at);
        if self.incumbent == Some(watched.node.id) && report.role == Role::Primary {
            self.samples.note(asked_at, report.offset);
        } else if let Some(covered) = self.samples.covered_by(report.offset)
            && watched.standing == Standing::Follower
        {
            watched.covered.fetch_max(covered, Relaxed);
        }
    }

    fn note_health(&self, place: usize, before: Health) {
        let Watched {
            node, health, why, ..
        } = &self.members[place];
        let address = &node.address;
        let route = &self.deployment.route;
        match health {
            // Whoever dialled it has said so.
            Health::Down | Health::Unknown => {}
            Health::Up if matches!(before, Health::Hung | Health::Refused) => {
                tracing::info!(node = %address, %route, "node answers again");
                let event = Event::new(EventKind::NodeUp, &**address);
                self.deployment.journal.note(event.on(route));
            }
            Health::Up | Health::Loading => {
                tracing::info!(node = %address, %route, state = health.label(), "node answers");
            }
            Health::Hung | Health::Refused => {
                tracing::warn!(node = %address, %route, state = health.label(), "node cannot be used: {why}");
                let event = Event::new(EventKind::NodeDown, &**address);
                let event = event.with("state", health.label()).with("why", why);
                self.deployment.journal.note(event.on(route));
            }
        }
    }

    fn place(&self, id: NodeId) -> Option<usize> {
        self.members.iter().position(|it| it.node.id == id)
    }

    /// Listens to the sentinels of the settings in force and to no others. What those say
    /// that stay, or said last, holds.
    fn listen_to_sentinels(&mut self) {
        let settings = self.deployment.settings();
        let config = &settings.backend;
        let wanted = match config.topology {
            TopologyKind::Sentinel => &config.sentinels[..],
            _ => &[],
        };
        let spec = |address: &String| {
            SentinelSpec::new(address.clone(), config, settings.timeouts.connect)
        };
        let is_same = wanted.len() == self.listeners.len()
            && (wanted.iter().map(spec)).all(|it| self.listeners.iter().any(|(is, _)| *is == it));
        if is_same {
            return;
        }
        let wanted: Vec<SentinelSpec> = wanted.iter().map(spec).collect();
        let is_gone = |(spec, _): &mut (SentinelSpec, AbortHandle)| !wanted.contains(spec);
        for (spec, task) in self.listeners.extract_if(.., is_gone) {
            task.abort();
            self.views.remove(&spec.address);
            self.silent.remove(&spec.address);
        }
        for spec in wanted {
            if !self.listeners.iter().any(|(known, _)| *known == spec) {
                let listening = listen(spec.clone(), self.words.clone(), self.pace.subscribe());
                let task = tokio::task::spawn_local(listening).abort_handle();
                self.listeners.push((spec, task));
            }
        }
    }

    /// What a sentinel says. The view with the latest configuration names the nodes.
    fn take_word(&mut self, word: Word) {
        if !self.listeners.iter().any(|(it, _)| it.address == word.from) {
            // Its last word, from before it was taken off the list.
            return;
        }
        let route = &self.deployment.route;
        match word.view {
            Ok(view) => {
                if self.silent.remove(&word.from).is_some() {
                    tracing::info!(sentinel = %word.from, %route, "sentinel answers");
                }
                self.views.insert(word.from, view);
            }
            Err(why) => {
                let had = self.views.remove(&word.from).is_some();
                if self.silent.insert(word.from.clone(), why.clone()).is_none() || had {
                    tracing::warn!(sentinel = %word.from, %route, "sentinel cannot be asked: {why}");
                }
                if had && self.views.is_empty() {
                    let event = Event::new(EventKind::SentinelsDown, "sentinels");
                    self.deployment
                        .journal
                        .note(event.with("why", why).on(route));
                }
            }
        }
        let Some(view) = self.view() else { return };
        let told: Vec<String> = std::iter::once(&view.primary)
            .chain(&view.replicas)
            .cloned()
            .collect();
        self.names.set(&told);
    }

    fn view(&self) -> Option<&View> {
        self.views.values().max_by_key(|view| view.epoch)
    }

    /// The place of the node that the sentinels name, if one answers.
    fn appointed(&self) -> Option<usize> {
        let primary = &self.view()?.primary;
        let addresses = self.names.addresses(primary);
        let is_it = |it: &Watched| addresses.contains(&it.node.address);
        self.members.iter().position(is_it)
    }

    fn is_passed_over(&self, place: usize) -> bool {
        self.passed_over == Some(self.members[place].node.id)
    }

    fn look_up_names(&mut self) {
        let settings = self.deployment.settings();
        if settings.backend.topology == TopologyKind::Replicated {
            // They may have been changed while Weir runs.
            self.names.set(&settings.backend.nodes);
        }
        for name in self.names.due(settings.failover.resolve_interval) {
            let resolutions = self.resolutions.clone();
            tokio::task::spawn_local(async move {
                let addresses = resolve(&name).await;
                // Whoever asked may have gone.
                let _ = resolutions.send((name, addresses)).await;
            });
        }
    }

    fn take_addresses(&mut self, name: String, found: Result<Vec<String>, String>) {
        if !self.names.contains(&name) {
            return;
        }
        if self.names.take(&name, found.as_deref().ok()) {
            let addresses = self.names.addresses(&name);
            tracing::info!(route = %self.deployment.route, %name, ?addresses, "name resolved");
            self.reconcile();
        }
        if let Err(why) = found {
            tracing::warn!(route = %self.deployment.route, "{why}");
            // Nothing can be said of it sooner.
            if self.members.is_empty() {
                self.deployment.met.send_replace(true);
            }
        }
    }

    /// Watches the nodes that names stand for now, and no others that are silent.
    fn reconcile(&mut self) {
        for (name, address) in self.names.pairs() {
            let is_it = |it: &Watched| it.node.address == address;
            if self.members.len() < NODES_MAX && !self.members.iter().any(is_it) {
                let node = self.deployment.new_node(&address);
                let probe = probe(node.clone(), self.findings.clone(), self.pace.subscribe());
                let tasks = vec![
                    tokio::task::spawn_local(probe).abort_handle(),
                    tokio::task::spawn_local(node.clone().keep_learning()).abort_handle(),
                ];
                self.members.push(Watched::new(node, name, tasks));
            }
        }
        self.hurry();
    }

    /// A node that its name does not stand for any more stays as long as it answers: a name
    /// may leave out a node that is only not ready. One whose name is not given any more
    /// goes, but for the primary.
    fn drop_the_gone(&mut self) {
        let names = &self.names;
        let answers = |health| matches!(health, Health::Up | Health::Loading);
        let before = self.members.len();
        let incumbent = self.incumbent;
        self.members.retain(|it| {
            let is_named = names.contains(&it.name) || incumbent == Some(it.node.id);
            names.stand_for(&it.node.address) || is_named && answers(it.health)
        });
        if self.members.len() != before
            && let Some(incumbent) = self.incumbent
            && self.place(incumbent).is_none()
        {
            self.incumbent = None;
        }
    }

    /// Has everything asked now, and often for a while.
    fn hurry(&mut self) {
        self.urgent_until = Instant::now() + DOUBT_LASTS;
        let urgent = self.urgent_pace();
        // Wakes whoever waits, also if the pace is the same.
        self.pace.send_replace(urgent);
        if self.deployment.outage().is_some() {
            self.names.doubt();
        }
    }

    fn urgent_pace(&self) -> Duration {
        (self.deployment.settings().failover.probe_interval / 10).min(URGENT)
    }

    fn set_pace(&mut self) {
        let usual = self.deployment.settings().failover.probe_interval;
        let is_urgent = self.deployment.outage().is_some() || Instant::now() < self.urgent_until;
        let wanted = if is_urgent { self.urgent_pace() } else { usual };
        if *self.pace.borrow() != wanted {
            self.pace.send_replace(wanted);
        }
    }

    /// Holds an election and publishes what is new.
    fn evaluate(&mut self) {
        self.drop_the_gone();
        if self.members.is_empty() {
            return self.set_pace();
        }
        if self.is_early() {
            // The first that answers may be a stranger.
            return self.set_pace();
        }
        let candidates: Vec<_> = self.members.iter().map(Watched::candidate).collect();
        let incumbent = self.incumbent.and_then(|id| self.place(id));
        let named = self.appointed();
        if named.is_some_and(|it| !self.is_passed_over(it)) {
            // When they name the one from before again, they mean it.
            self.passed_over = None;
        }
        let appointed = named.filter(|&it| !self.is_passed_over(it));
        let verdict = elect(&candidates, incumbent, appointed, &self.lineage);
        for (watched, standing) in self.members.iter_mut().zip(&verdict.standings) {
            watched.standing = *standing;
        }
        if let Some(primary) = verdict.primary {
            self.follow(primary);
        }
        // What a node said before there was another primary may be over.
        for watched in &mut self.members {
            if watched.standing == Standing::Rival && watched.asked_at < self.followed_at {
                watched.standing = Standing::Silent;
            }
        }
        let place = self.incumbent.and_then(|id| self.place(id));
        let is_writable = verdict.primary.is_some_and(|primary| {
            let node = &self.members[primary].node;
            let is_up = self.members[primary].health == Health::Up && !node.is_sick();
            is_up && place == Some(primary)
        });
        let news;
        let mut answered_at = None;
        if is_writable {
            let primary = &self.members[verdict.primary.expect("it can be used")];
            answered_at = Some(primary.asked_at);
            news = self.deployment.would_end_outage(primary.asked_at);
            if std::mem::take(&mut self.is_out) {
                self.note(EventKind::PrimaryBack, place.unwrap_or(0), "");
            }
        } else {
            news = self.deployment.begin_outage();
        }
        if !is_writable && place.is_some() && !std::mem::replace(&mut self.is_out, true) {
            let why = place.map_or(String::new(), |it| self.members[it].why.clone());
            self.note(EventKind::NoPrimary, place.unwrap_or(0), &why);
        }
        self.judge();
        let has_changed = self.publish(place.unwrap_or(0), is_writable, news);
        // Not before the new primary is known: what waits would go to the old one.
        if let Some(asked_at) = answered_at {
            self.deployment.end_outage(asked_at);
        }
        if has_changed {
            (self.tell)();
        }
        self.set_pace();
        let asked = |it: &Watched| it.health != Health::Unknown;
        if is_writable || self.members.iter().all(asked) {
            self.deployment
                .met
                .send_if_modified(|met| !std::mem::replace(met, true));
        }
    }

    /// Whether there are nodes that may yet say what they are, and nobody was the primary
    /// so far.
    fn is_early(&mut self) -> bool {
        let patience = self.deployment.settings().timeouts.connect;
        let unasked = |it: &Watched| it.health == Health::Unknown;
        let is_withheld = |it: &Watched| it.node.ledger.limits().cap == Some(0);
        // This ends when the process before lends a place or has gone.
        if self.incumbent.is_none()
            && (self.members.iter()).any(|it| unasked(it) && is_withheld(it))
        {
            self.asking_since = Instant::now();
        }
        self.incumbent.is_none()
            && self.asking_since.elapsed() < patience
            && (self.members.iter().any(unasked) || self.names.has_untried())
    }

    /// The primary is this one. Followers are part of the deployment from now on.
    fn follow(&mut self, primary: usize) {
        let id = self.members[primary].node.id;
        if let Some(report) = &self.members[primary].report {
            self.lineage.note(report);
        }
        for (index, watched) in self.members.iter_mut().enumerate() {
            let follows = watched.standing == Standing::Follower && watched.report.is_some();
            watched.is_known |= index == primary || follows;
        }
        if self.incumbent == Some(id) {
            return;
        }
        let first = self.incumbent.replace(id).is_none();
        let appointed = self.appointed().map(|it| self.members[it].node.id);
        self.passed_over = appointed.filter(|&appointed| appointed != id);
        self.followed_at = Instant::now();
        self.hurry();
        // Offsets of one primary say nothing of those of another.
        self.samples = OffsetSamples::default();
        for watched in &mut self.members {
            watched.covered = Arc::default();
        }
        let address = &self.members[primary].node.address;
        tracing::warn!(route = %self.deployment.route, node = %address, "primary");
        if !first {
            self.deployment.failovers.fetch_add(1, Relaxed);
            self.note(EventKind::Failover, primary, "");
        }
    }

    fn note(&self, kind: EventKind, place: usize, why: &str) {
        let address = &*self.members[place].node.address;
        let mut event = Event::new(kind, address).on(&self.deployment.route);
        if !why.is_empty() {
            event = event.with("why", why);
        }
        self.deployment.journal.note(event);
    }

    fn judge(&mut self) {
        let now = self.deployment.micros(Instant::now());
        let outage = self.deployment.outage();
        let failover = &self.deployment.settings().failover;
        for watched in &mut self.members {
            watched.judge(failover, now, outage);
        }
    }

    /// Whether there was something to publish.
    fn publish(&mut self, primary: usize, is_writable: bool, news: bool) -> bool {
        let ramp = self.deployment.settings().failover.ramp;
        let current = self.deployment.snapshot();
        let topology = Topology {
            epoch: current.topology.epoch,
            members: self.members.iter_mut().map(|it| it.member(ramp)).collect(),
            primary,
            is_writable,
        };
        if !news && is_same(&topology, &current.topology) {
            return false;
        }
        self.alarm(&topology, &current.topology);
        let nodes = self.members.iter().map(|it| it.node.clone()).collect();
        let covered: Vec<Arc<AtomicU64>> =
            self.members.iter().map(|it| it.covered.clone()).collect();
        self.deployment.publish(Snapshot {
            topology: Topology {
                epoch: topology.epoch + 1,
                ..topology
            },
            nodes,
            covered,
        });
        true
    }

    /// Says aloud which nodes get nothing because of whose they are.
    fn alarm(&self, new: &Topology, old: &Topology) {
        for (place, member) in new.members.iter().enumerate() {
            let before = old.members.iter().find(|it| it.id == member.id);
            if before.is_some_and(|before| before.standing == member.standing) {
                continue;
            }
            let kind = match member.standing {
                Standing::Rival => EventKind::RivalPrimary,
                Standing::Foreign => EventKind::ForeignNode,
                _ => continue,
            };
            let route = &self.deployment.route;
            tracing::error!(node = %member.address, %route, "node {}", kind.words());
            self.note(kind, place, "");
        }
    }
}

/// Whether nobody has to be told: times that differ a little are the same.
fn is_same(new: &Topology, old: &Topology) -> bool {
    let is_near = |a: u64, b: u64| a.abs_diff(b) <= (a.max(b) / 4).max(100);
    new.primary == old.primary
        && new.is_writable == old.is_writable
        && new.members.len() == old.members.len()
        && new.members.iter().zip(&old.members).all(|(a, b)| {
            is_near(a.latency_us, b.latency_us)
                && a.id == b.id
                && a.role == b.role
                && a.health == b.health
                && a.standing == b.standing
                && a.disk_error == b.disk_error
                && a.read_weight == b.read_weight
        })
}
