//! One budget for two processes: while one replaces the other, the connections to a node
//! are lent by the one to the other, and there are never more than `max_connections`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::Deployment;
use crate::backend::Node;

/// Whose the connections are to nodes that are found from now on.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// The process before this one has them.
    borrows: AtomicBool,
    /// The addresses of nodes that only the successor knows: they are its own.
    given_up: Mutex<Vec<String>>,
}

impl Share {
    /// Whether a new node at this address gets none but lent connections.
    pub(super) fn withholds(&self, address: &str) -> bool {
        let given_up = || self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        self.borrows.load(Relaxed) || given_up().iter().any(|other| other == address)
    }
}

impl Deployment {
    /// All connections are another process's from now on, but for those that it lends.
    /// To be called before anything has been opened.
    pub fn borrow_places(&self) {
        self.share.borrows.store(true, Relaxed);
        self.for_each_node(|node| node.ledger.set_cap(Some(0)));
    }

    /// All connections are this process's own.
    pub fn own_places(&self) {
        self.share.borrows.store(false, Relaxed);
        let given_up = self.share.given_up.lock();
        given_up.unwrap_or_else(PoisonError::into_inner).clear();
        self.for_each_node(|node| node.ledger.set_cap(None));
    }

    /// The node at this address, which this process does not know, is the successor's.
    pub fn give_up(&self, address: &str) {
        let given_up = self.share.given_up.lock();
        let mut given_up = given_up.unwrap_or_else(PoisonError::into_inner);
        given_up.push(address.to_owned());
    }

    /// The node at this address.
    pub fn node_at(&self, address: &str) -> Option<Arc<Node>> {
        let snapshot = self.snapshot();
        let mut nodes = snapshot.nodes.iter();
        nodes.find(|node| node.address == address).cloned()
    }

    fn for_each_node(&self, act: impl Fn(&Arc<Node>)) {
        self.snapshot().nodes.iter().for_each(act);
    }
}
