//! The nodes behind one route, as the whole process knows them.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::backend::{Credential, Credentials, Node, NodeSpec};
use crate::config::{Backend, Timeouts};
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
    current: ArcSwap<Snapshot>,
}

impl Deployment {
    /// What stands behind the route of this name; nothing is asked yet.
    pub fn new(
        route: &str,
        config: &Backend,
        timeouts: &Timeouts,
        workers: usize,
        journal: &Arc<Journal>,
    ) -> Arc<Deployment> {
        let own = config.password.clone().map(|password| {
            Credential::new(config.username.as_deref().map(str::as_bytes), password)
        });
        let credentials = Arc::new(Credentials::new(own));
        let node = Node::new(
            NodeSpec {
                id: 0,
                address: config.address.clone(),
                route: route.to_owned(),
                workers,
                journal: journal.clone(),
            },
            config,
            timeouts,
            credentials,
        );
        Arc::new(Deployment {
            current: ArcSwap::from_pointee(Snapshot {
                topology: Topology::standalone(node.id, node.config.address.clone()),
                nodes: vec![node],
            }),
        })
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
