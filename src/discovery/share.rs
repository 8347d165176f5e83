//! One budget for two processes: while one replaces the other, the connections to a node
//! are lent by the one to the other, and there are never more than `max_connections`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

use super::Deployment;
use crate::backend::{Ledger, Node};

/// Whose the connections are to nodes that are found from now on.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// The process before this one has them.
    borrows: AtomicBool,
    /// The addresses of nodes that only the successor knows: they are its own.
    given_up: Mutex<Vec<String>>,
    /// The nodes that exist, published or not, in the order in which they were made.
    nodes: Mutex<Vec<Known>>,
}

/// A node, for as long as anybody has it or a connection to it.
#[derive(Debug)]
struct Known {
    address: String,
    node: Weak<Node>,
    ledger: Weak<Ledger>,
}

impl Share {
    /// One more node, which may not be published yet: whoever changes whose the
    /// connections are reaches it from now on.
    pub(super) fn add(&self, node: &Arc<Node>) {
        let mut nodes = self.nodes();
        nodes.retain(|known| known.ledger.strong_count() > 0);
        let ledger = Arc::downgrade(&node.ledger);
        let is_counted = nodes.iter().any(|known| known.ledger.ptr_eq(&ledger));
        nodes.push(Known {
            address: node.address.clone(),
            node: Arc::downgrade(node),
            ledger,
        });
        // Under the lock: who changes it next finds the node in the list.
        if !is_counted && self.withholds(&node.address) {
            node.ledger.set_cap(Some(0));
        }
    }

    /// What counts the connections to this address, if a node that was there before has not
    /// lost them all: one that comes back has the places that these leave.
    pub(super) fn ledger_at(&self, address: &str) -> Option<Arc<Ledger>> {
        let nodes = self.nodes();
        let mut there = nodes.iter().rev().filter(|known| known.address == address);
        there.find_map(|known| known.ledger.upgrade())
    }

    /// All of them, in the order in which they were made.
    pub(super) fn all(&self) -> Vec<Arc<Node>> {
        let nodes = self.nodes();
        nodes
            .iter()
            .filter_map(|known| known.node.upgrade())
            .collect()
    }

    /// Whether a new node at this address gets none but lent connections.
    fn withholds(&self, address: &str) -> bool {
        self.borrows.load(Relaxed) || self.given_up().iter().any(|other| other == address)
    }

    fn given_up(&self) -> MutexGuard<'_, Vec<String>> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nodes(&self) -> MutexGuard<'_, Vec<Known>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deployment {
    /// All connections are another process's from now on, but for those that it lends.
    /// To be called before anything has been opened, or when all of that is closed.
    pub fn borrow_places(&self) {
        self.share.borrows.store(true, Relaxed);
        self.for_each_ledger(|ledger| ledger.set_cap(Some(0)));
    }

    /// All connections are this process's own.
    pub fn own_places(&self) {
        self.share.borrows.store(false, Relaxed);
        self.share.given_up().clear();
        self.for_each_ledger(|ledger| ledger.set_cap(None));
    }

    /// The node at this address, which this process does not know, is the successor's.
    pub fn give_up(&self, address: &str) {
        self.share.given_up().push(address.to_owned());
    }

    /// The nodes that exist, also those that nobody knows yet because it was not found out
    /// what they are. Of several at one address, whose connections are counted together, only
    /// the last, which is the one that is used.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        let nodes = self.share.nodes();
        let mut last: Vec<Arc<Node>> = Vec::new();
        for node in nodes.iter().rev().filter_map(|known| known.node.upgrade()) {
            if !last.iter().any(|later| later.address == node.address) {
                last.push(node);
            }
        }
        last.reverse();
        last
    }

    /// The node at this address.
    pub fn node_at(&self, address: &str) -> Option<Arc<Node>> {
        let mut nodes = self.nodes().into_iter();
        nodes.find(|node| node.address == address)
    }

    fn for_each_ledger(&self, act: impl Fn(&Arc<Ledger>)) {
        let known = self.share.nodes();
        let ledgers = known.iter().filter_map(|known| known.ledger.upgrade());
        ledgers.for_each(|ledger| act(&ledger));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Kind;
    use crate::config;
    use tokio::time::Instant;

    const ADDRESS: &str = "127.0.0.1:7001";

    fn deployment(max_connections: usize) -> Arc<Deployment> {
        let mut settings = config::Route::default();
        settings.backend.topology = config::TopologyKind::Replicated;
        settings.backend.max_connections = max_connections;
        Deployment::new(&Arc::new(settings), 1, Instant::now(), &Arc::default())
    }

    /// Its name was taken off the list and put there again, say.
    #[test]
    fn a_node_that_comes_back_has_only_the_places_that_are_left() {
        let deployment = deployment(2);
        let node = deployment.new_node(ADDRESS);
        let open: Vec<_> = std::iter::from_fn(|| node.ledger.try_take(Kind::Probe)).collect();
        drop(node);
        let back = deployment.new_node(ADDRESS);
        assert!(!open.is_empty() && back.ledger.try_take(Kind::Probe).is_none());
        assert_eq!(back.ledger.snapshot().total(), open.len());
        drop(open);
        assert!(back.ledger.try_take(Kind::Probe).is_some());
    }

    /// They are published when they have said what they are.
    #[test]
    fn settings_hold_for_nodes_that_nobody_knows_yet() {
        let deployment = deployment(2);
        let found = deployment.new_node(ADDRESS);
        let mut settings = (*deployment.settings()).clone();
        settings.backend.max_connections = 3;
        deployment.apply(&Arc::new(settings));
        assert_eq!(found.ledger.limits().max_connections, 3);
        assert_eq!(found.settings().backend.max_connections, 3);
    }

    #[test]
    fn the_nodes_at_one_address_are_counted_once() {
        let deployment = deployment(2);
        let before = deployment.new_node(ADDRESS);
        let after = deployment.new_node(ADDRESS);
        let of_address = || {
            let nodes = deployment.nodes().into_iter();
            nodes
                .filter(|it| it.address == ADDRESS)
                .map(|it| it.id)
                .collect::<Vec<_>>()
        };
        assert_eq!(of_address(), [after.id]);
        drop(after);
        assert_eq!(of_address(), [before.id]);
    }
}
