//! The nodes behind one route, as the whole process knows them.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::backend::{Credential, Credentials, Node, NodeSpec, NodeTls};
use crate::config::{self, Backend};
use crate::metrics::Journal;
use crate::router::{NodeId, Topology};

/// The nodes of a deployment at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// What each is; in the order of [`Snapshot::nodes`].
    pub topology: Topology,
    /// The nodes themselves.
    pub nodes: Vec<Arc<Node>>,
}

impl Snapshot {
    /// The node that commands go to: the primary, or the one that was it last.
    pub fn primary(&self) -> &Arc<Node> {
        &self.nodes[self.topology.primary]
    }

    /// The node with this id, if it is still there.
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.iter().find(|node| node.id == id)
    }
}

/// The nodes behind one route.
#[derive(Debug)]
pub struct Deployment {
    /// The route's settings that are in force.
    settings: ArcSwap<config::Route>,
    credentials: Arc<Credentials>,
    current: ArcSwap<Snapshot>,
    /// TLS to the nodes, if it is spoken.
    pub tls: Option<Arc<NodeTls>>,
}

impl Deployment {
    /// What stands behind the route with these settings; nothing is asked yet.
    pub fn new(
        settings: &Arc<config::Route>,
        workers: usize,
        journal: &Arc<Journal>,
    ) -> Arc<Deployment> {
        let credentials = Arc::new(Credentials::new(own_credential(&settings.backend)));
        let tls = settings.backend.tls.as_ref();
        let tls = tls.map(|tls| Arc::new(NodeTls::new(&settings.name, tls)));
        let node = Node::new(
            NodeSpec {
                id: 0,
                address: settings.backend.address.clone(),
                route: settings.name.clone(),
                workers,
                journal: journal.clone(),
                tls: tls.clone(),
            },
            settings,
            credentials.clone(),
        );
        Arc::new(Deployment {
            settings: ArcSwap::new(settings.clone()),
            credentials,
            tls,
            current: ArcSwap::from_pointee(Snapshot {
                topology: Topology::standalone(node.id, node.address.clone()),
                nodes: vec![node],
            }),
        })
    }

    /// Puts other settings of the route into force; connections that are open stay.
    pub fn apply(&self, settings: &Arc<config::Route>) {
        let before = self.settings.swap(settings.clone());
        let (before, backend) = (&before.backend, &settings.backend);
        let snapshot = self.snapshot();
        snapshot.nodes.iter().for_each(|node| node.apply(settings));
        if (&before.username, &before.password) != (&backend.username, &backend.password) {
            self.credentials.set_backend(own_credential(backend));
            snapshot.nodes.iter().for_each(|node| node.mark_stale());
        }
    }

    /// The nodes as of now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The node that commands go to: the primary, or the one that was it last.
    pub fn primary(&self) -> Arc<Node> {
        self.current.load().primary().clone()
    }

    /// Keeps what is known of the nodes true, for as long as the process runs. Must be
    /// called on a local runtime.
    pub async fn run(self: Arc<Self>) {
        self.primary().keep_learning().await;
    }
}

/// As whom Weir itself connects.
fn own_credential(backend: &Backend) -> Option<Credential> {
    let username = backend.username.as_deref().map(str::as_bytes);
    let password = backend.password.clone()?;
    Some(Credential::new(username, password))
}
