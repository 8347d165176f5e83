//! One budget for two processes: while one replaces the other, the connections to a node
//! are lent by the one to the other, and there are never more than `max_connections`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use super::Deployment;
use crate::backend::Node;

/// Whose the connections are to nodes that are found from now on.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// The process before this one has them.
    borrows: AtomicBool,
    /// The addresses of nodes that only the successor knows: they are its own.
    given_up: Mutex<Vec<String>>,
    /// The nodes that exist, published or not, in the order in which they were made.
    nodes: Mutex<Vec<Weak<Node>>>,
}

impl Share {
    /// One more node, which may not be published yet: whoever changes whose the
    /// connections are reaches it from now on.
    pub(super) fn add(&self, node: &Arc<Node>) {
        let mut nodes = self.nodes();
        nodes.retain(|node| node.strong_count() > 0);
        nodes.push(Arc::downgrade(node));
        // Under the lock: who changes it next finds the node in the list.
        if self.withholds(&node.address) {
            node.ledger.set_cap(Some(0));
        }
    }

    /// Whether a new node at this address gets none but lent connections.
    fn withholds(&self, address: &str) -> bool {
        self.borrows.load(Relaxed) || self.given_up().iter().any(|other| other == address)
    }

    fn given_up(&self) -> MutexGuard<'_, Vec<String>> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nodes(&self) -> MutexGuard<'_, Vec<Weak<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deployment {
    /// All connections are another process's from now on, but for those that it lends.
    /// To be called before anything has been opened, or when all of that is closed.
    pub fn borrow_places(&self) {
        self.share.borrows.store(true, Relaxed);
        self.for_each_node(|node| node.ledger.set_cap(Some(0)));
    }

    /// All connections are this process's own.
    pub fn own_places(&self) {
        self.share.borrows.store(false, Relaxed);
        self.share.given_up().clear();
        self.for_each_node(|node| node.ledger.set_cap(None));
    }

    /// The node at this address, which this process does not know, is the successor's.
    pub fn give_up(&self, address: &str) {
        self.share.given_up().push(address.to_owned());
    }

    /// The nodes that exist, also those that nobody knows yet because it was not found out
    /// what they are. Where several have the same address the last is the one that is used.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.share
            .nodes()
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// The node at this address.
    pub fn node_at(&self, address: &str) -> Option<Arc<Node>> {
        let nodes = self.nodes().into_iter();
        nodes.rev().find(|node| node.address == address)
    }

    fn for_each_node(&self, act: impl Fn(&Arc<Node>)) {
        self.nodes().iter().for_each(act);
    }
}
