//! The nodes behind one route, as the whole process knows them.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::backend::{Credential, Credentials, Node, NodeSpec, NodeTls};
use crate::config::{self, Backend, TopologyKind};
use crate::metrics::Journal;
use crate::router::{Health, Member, NodeId, Topology};

/// The nodes of a deployment at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// What each is; in the order of [`Snapshot::nodes`].
    pub topology: Topology,
    /// The nodes themselves.
    pub nodes: Vec<Arc<Node>>,
    /// Of each, up to which moment it has all that the primary had acknowledged, in
    /// microseconds since the process started; 0 if that is not known.
    pub covered: Vec<Arc<AtomicU64>>,
}

impl Snapshot {
    /// The node that commands go to: the primary, or the one that was it last.
    pub fn primary(&self) -> &Arc<Node> {
        &self.nodes[self.topology.primary]
    }

    /// The place of the node with this id, if it is still there.
    pub fn place(&self, id: NodeId) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id)
    }
}

/// The nodes behind one route.
#[derive(Debug)]
pub struct Deployment {
    /// The route's name.
    pub route: String,
    /// Times the primary changed.
    pub failovers: AtomicU64,
    /// Commands that waited for a primary.
    pub held: AtomicU64,
    pub(super) journal: Arc<Journal>,
    /// The route's settings that are in force.
    settings: ArcSwap<config::Route>,
    is_standalone: bool,
    started: Instant,
    workers: usize,
    credentials: Arc<Credentials>,
    current: ArcSwap<Snapshot>,
    /// TLS to the nodes, if it is spoken.
    pub tls: Option<Arc<NodeTls>>,
    next_id: AtomicU32,
    /// Whose the connections to new nodes are, while one process replaces another.
    pub(super) share: super::share::Share,
    /// Since when there is no primary that can be used, in microseconds since the
    /// process started; 0 if there is one.
    outage_since: AtomicU64,
    /// Told when a worker doubts what is known.
    pub(super) doubted: Notify,
    pub(super) met: watch::Sender<bool>,
}

impl Deployment {
    /// What stands behind the route with these settings; nothing is asked yet. `started`
    /// is when the process did.
    pub fn new(
        settings: &Arc<config::Route>,
        workers: usize,
        started: Instant,
        journal: &Arc<Journal>,
    ) -> Arc<Deployment> {
        let backend = &settings.backend;
        let credentials = Arc::new(Credentials::new(own_credential(backend)));
        let tls = backend.tls.as_ref();
        let tls = tls.map(|tls| Arc::new(NodeTls::new(&settings.name, tls)));
        let spec = NodeSpec {
            id: 0,
            address: backend.first_address().to_owned(),
            route: settings.name.clone(),
            workers,
            journal: journal.clone(),
            tls: tls.clone(),
            ledger: None,
        };
        let node = Node::new(spec, settings, credentials.clone());
        let share = super::share::Share::default();
        share.add(&node);
        let is_standalone = backend.topology == TopologyKind::Standalone;
        let mut topology = Topology::standalone(node.id, node.address.clone());
        topology.is_writable = is_standalone;
        Arc::new(Deployment {
            route: settings.name.clone(),
            failovers: AtomicU64::new(0),
            held: AtomicU64::new(0),
            journal: journal.clone(),
            settings: ArcSwap::new(settings.clone()),
            is_standalone,
            started,
            workers,
            credentials,
            tls,
            current: ArcSwap::from_pointee(Snapshot {
                topology,
                nodes: vec![node],
                covered: vec![Arc::default()],
            }),
            next_id: AtomicU32::new(1),
            share,
            outage_since: AtomicU64::new(u64::from(!is_standalone)),
            doubted: Notify::new(),
            met: watch::Sender::new(false),
        })
    }

    /// The settings of the route that are in force.
    pub fn settings(&self) -> Arc<config::Route> {
        self.settings.load_full()
    }

    /// Puts other settings of the route into force; connections that are open stay.
    pub fn apply(&self, settings: &Arc<config::Route>) {
        let before = self.settings.swap(settings.clone());
        let (before, backend) = (&before.backend, &settings.backend);
        // Also those that are not published yet, or not any more: they count connections
        // together with the one at their address, which is the last.
        let nodes = self.share.all();
        nodes.iter().for_each(|node| node.apply(settings));
        if (&before.username, &before.password) != (&backend.username, &backend.password) {
            self.credentials.set_backend(own_credential(backend));
            nodes.iter().for_each(|node| node.mark_stale());
        }
    }

    /// Whether there is only one node, so that nothing can take its place.
    pub fn is_standalone(&self) -> bool {
        self.is_standalone
    }

    /// The nodes as of now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The node that commands go to: the primary, or the one that was it last.
    pub fn primary(&self) -> Arc<Node> {
        self.current.load().primary().clone()
    }

    /// Since when there is no primary that can be used, in microseconds since the process
    /// started. Always `None` for a single node: that it is away is seen by dialling it.
    pub fn outage(&self) -> Option<u64> {
        // Who sees its end sees who is the primary.
        match self.outage_since.load(Acquire) {
            0 => None,
            since => Some(since),
        }
    }

    /// Until when what needs a primary waits for it, by the same clock. `None` while
    /// there is one.
    pub fn hold_until(&self) -> Option<u64> {
        let hold = self.settings.load().failover.hold.as_micros() as u64;
        self.outage().map(|since| since.saturating_add(hold))
    }

    /// A node could not be reached, or says that it is not what it was taken for: have it
    /// looked at now. While the primary is doubted nothing new goes to it.
    pub fn doubt(&self, node: NodeId) {
        if self.is_standalone() {
            return;
        }
        let snapshot = self.current.load();
        if snapshot.topology.is_writable && snapshot.primary().id == node {
            self.begin_outage();
        }
        self.doubted.notify_one();
    }

    /// A connection to a node was lost: have it looked at now.
    pub fn look(&self) {
        if !self.is_standalone() {
            self.doubted.notify_one();
        }
    }

    /// Waits until it is known for the first time what the deployment is, or that it
    /// cannot be known yet.
    pub async fn first_met(&self) {
        if !self.is_standalone() {
            // An error would mean that the deployment is gone, and Weir with it.
            let _ = self.met.subscribe().wait_for(|met| *met).await;
        }
        self.primary().first_met().await;
    }

    /// Where a client's login can be checked: at the primary, or while there is none at a
    /// node that is there.
    pub fn login_node(&self) -> Arc<Node> {
        let snapshot = self.current.load();
        let up = |member: &Member| member.health == Health::Up;
        let other = match self.outage() {
            Some(_) => snapshot.topology.members.iter().position(up),
            None => None,
        };
        snapshot.nodes[other.unwrap_or(snapshot.topology.primary)].clone()
    }

    /// Keeps what is known of the nodes true, for as long as the process runs. `tell` is
    /// called after each change. Must be called on a local runtime.
    pub async fn run(self: Arc<Self>, tell: impl Fn() + 'static) {
        if self.is_standalone() {
            self.primary().keep_learning().await;
        } else {
            super::watch::watch(self, Box::new(tell)).await;
        }
    }

    /// So many more commands wait for a primary.
    pub fn count_held(&self, count: u64) {
        self.held.fetch_add(count, Relaxed);
    }

    pub(super) fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.started).as_micros() as u64 + 1
    }

    pub(super) fn begin_outage(&self) -> bool {
        let now = self.micros(Instant::now());
        self.outage_since
            .compare_exchange(0, now, Relaxed, Relaxed)
            .is_ok()
    }

    /// There is a primary: so it said when it was asked at `asked_at`. Whether that is
    /// news.
    pub(super) fn end_outage(&self, asked_at: Instant) -> bool {
        let since = self.outage_since.load(Relaxed);
        // A doubt that has come meanwhile stands.
        let exchange = || {
            self.outage_since
                .compare_exchange(since, 0, Release, Relaxed)
        };
        self.would_end_outage(asked_at) && exchange().is_ok()
    }

    /// Whether there was no primary until a node said that it is one, when it was asked at
    /// this moment.
    pub(super) fn would_end_outage(&self, asked_at: Instant) -> bool {
        let since = self.outage_since.load(Relaxed);
        since != 0 && self.micros(asked_at) > since
    }

    pub(super) fn publish(&self, snapshot: Snapshot) {
        self.current.store(Arc::new(snapshot));
    }

    /// A node that nobody has talked to yet.
    pub(super) fn new_node(&self, address: &str) -> Arc<Node> {
        let spec = NodeSpec {
            id: self.next_id.fetch_add(1, Relaxed),
            address: address.to_owned(),
            route: self.route.clone(),
            workers: self.workers,
            journal: self.journal.clone(),
            tls: self.tls.clone(),
            ledger: self.share.ledger_at(address),
        };
        let credentials = self.credentials.clone();
        let node = Node::new(spec, &self.settings.load(), credentials);
        self.share.add(&node);
        node
    }
}

/// As whom Weir itself connects.
fn own_credential(backend: &Backend) -> Option<Credential> {
    let username = backend.username.as_deref().map(str::as_bytes);
    let password = backend.password.clone()?;
    Some(Credential::new(username, password))
}
