//! Whether a node's connections get commands: what the hot path looks at.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::admission::Trip;

/// Shared by a node and all connections to it; one relaxed load to ask, and written only
/// when the node falls sick or is well again.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<AtomicU8>);

const OPEN: u8 = 0;
/// No new connections.
const NO_DIALS: u8 = 1;
/// No new connections, and nothing on those that are open.
const CLOSED: u8 = 2;

impl Gate {
    /// Whether commands may not even go to connections that are open.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.0.load(Relaxed) == CLOSED
    }

    /// Whether no connection is to be opened.
    #[inline]
    pub fn is_shut_to_dials(&self) -> bool {
        self.0.load(Relaxed) != OPEN
    }

    pub(super) fn set(&self, trip: Trip) {
        let state = if trip.holds_all() { CLOSED } else { NO_DIALS };
        self.0.store(state, Relaxed);
    }

    pub(super) fn open(&self) {
        self.0.store(OPEN, Relaxed);
    }
}
