//! What one worker counts for one route.

use super::counter::{Counter, CountersBy, Gauge};
use super::histogram::Histogram;
use super::reason::{CloseReason, ErrorCause, RefusedReason, ShedLimit};

/// The counters of one worker for one route.
///
/// The worker alone writes them (see [`Counter`]), anybody may read them. The
/// alignment keeps two workers' counters off one cache line, and off the pair
/// of lines that a processor fetches together.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerMetrics {
    /// Commands that arrived whole, answered by Redis or by Weir.
    pub commands: Counter,
    /// Replies written to clients that came from Redis.
    pub replies: Counter,
    /// Replies written to clients that Weir made itself, errors included.
    pub local_replies: Counter,
    /// Bytes read from clients.
    pub bytes_in: Counter,
    /// Bytes written to clients.
    pub bytes_out: Counter,
    /// Bytes read from nodes.
    pub backend_bytes_in: Counter,
    /// Bytes written to nodes.
    pub backend_bytes_out: Counter,
    /// Times a worker's write buffer for a node was flushed; commands sent to
    /// nodes divided by this is the depth of batching.
    pub flushes: Counter,
    /// Commands sent to nodes, repeated ones included.
    pub backend_commands: Counter,
    /// Commands answered by a node that took longer than the slow log's threshold.
    pub commands_slow: Counter,
    /// Commands sent over another worker's connection.
    pub handed_over: Counter,
    /// Commands sent to a node again after their connection was lost.
    pub retries: Counter,

    /// Commands that read and were answered as if nothing were there.
    pub misses_made_up: Counter,
    /// Plain writes that were answered as if they were done.
    pub writes_made_up: Counter,

    /// Commands sent to nodes whose reply has not come.
    pub commands_in_flight: Gauge,
    /// Commands that wait in front of a node.
    pub commands_waiting: Gauge,
    /// Commands that may be in flight to nodes, as of now.
    pub in_flight_limit: Gauge,
    /// Nodes in front of which commands are being refused, or were a moment ago.
    pub shedding: Gauge,
    /// Commands that wait for a primary.
    pub commands_held: Gauge,
    /// Bytes of memory that those take.
    pub held_bytes: Gauge,
    /// Commands that wait for the end of a pause.
    pub commands_paused: Gauge,
    /// Bytes of those and of what was sent behind them.
    pub paused_bytes: Gauge,
    /// Bytes of requests and replies held in memory for clients.
    pub buffered_bytes: Gauge,
    /// Clients that hold a lease.
    pub leases_held: Gauge,
    /// Clients that wait for a lease.
    pub leases_waiting: Gauge,
    /// Clients that wait in a blocking command on shared connections.
    pub blocked_sharing: Gauge,
    /// Clients that wait for a connection of their own to block on.
    pub blocked_in_line: Gauge,
    /// Elements that were popped on shared connections and handed to a client.
    pub blocked_handed: Counter,
    /// Elements that were popped on shared connections for clients that had gone.
    pub blocked_orphans: Counter,
    /// Waits on shared connections that were ended and begun anew.
    pub blocked_reissued: Counter,
    /// Leases given out.
    pub leases_granted: Counter,

    /// Times a listener waited because clients came faster than its rate.
    pub accepts_delayed: Counter,
    /// Clients that connected, refused ones included.
    pub clients_accepted: Counter,
    /// Clients connected now, refused ones that have not left included.
    pub clients_connected: Gauge,
    /// Clients that wait in a blocking command, or are held by a pause.
    pub clients_blocked: Gauge,
    /// Clients that have subscriptions.
    pub clients_subscribed: Gauge,
    /// Channels and patterns that nodes are subscribed to for all clients together.
    pub pubsub_channels: Gauge,
    /// Messages that arrived from nodes.
    pub pubsub_messages_in: Counter,
    /// Messages handed to clients.
    pub pubsub_messages_out: Counter,
    /// Clients that have client-side caching on.
    pub clients_tracking: Gauge,
    /// Clients that watch keys.
    pub clients_watching: Gauge,
    /// Clients not taken in, by why.
    pub clients_refused: CountersBy<RefusedReason, { RefusedReason::COUNT }>,
    /// Clients whose connection ended, by why.
    pub clients_closed: CountersBy<CloseReason, { CloseReason::COUNT }>,
    /// Errors that Weir itself answered with, by cause.
    pub errors: CountersBy<ErrorCause, { ErrorCause::COUNT }>,
    /// Commands refused because of a limit, by limit. Each is also one of [`errors`](Self::errors).
    pub shed: CountersBy<ShedLimit, { ShedLimit::COUNT }>,

    /// Weir's own share of a command's time: from its last byte read to its
    /// reply written, without the node's share.
    pub own_time: Histogram,
    /// The node's share: from the command written to its reply read.
    pub backend_time: Histogram,
    /// How long commands waited in front of a node that could not be sent at once.
    pub queue_time: Histogram,
    /// How long clients waited for a lease that they got.
    pub lease_wait: Histogram,
}

impl WorkerMetrics {
    /// A client connected. For the owner only.
    pub fn client_opened(&self) {
        self.clients_accepted.inc();
        self.clients_connected.inc();
    }

    /// A client's connection ended. For the owner only.
    pub fn client_closed(&self, reason: CloseReason) {
        self.clients_connected.dec();
        self.clients_closed[reason].inc();
    }

    /// A command was answered with an error of Weir's own. For the owner only.
    pub fn error(&self, cause: ErrorCause) {
        self.errors[cause].inc();
    }

    /// A command was answered with an error because of a limit; counts both.
    /// For the owner only.
    pub fn shed(&self, cause: ErrorCause, limit: ShedLimit) {
        self.errors[cause].inc();
        self.shed[limit].inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_workers_share_no_cache_line() {
        assert_eq!(align_of::<WorkerMetrics>(), 128);
        assert_eq!(size_of::<WorkerMetrics>() % 128, 0);
    }

    #[test]
    fn a_closed_client_is_no_longer_connected() {
        let metrics = WorkerMetrics::default();
        metrics.client_opened();
        metrics.client_opened();
        metrics.client_closed(CloseReason::Idle);
        assert_eq!(metrics.clients_accepted.get(), 2);
        assert_eq!(metrics.clients_connected.get(), 1);
        assert_eq!(metrics.clients_closed[CloseReason::Idle].get(), 1);
        assert_eq!(metrics.clients_closed.sum(), 1);
    }

    #[test]
    fn what_is_shed_is_also_an_error() {
        let metrics = WorkerMetrics::default();
        metrics.shed(ErrorCause::LeaseQueue, ShedLimit::LeaseQueue);
        metrics.error(ErrorCause::Protocol);
        assert_eq!(metrics.errors.sum(), 2);
        assert_eq!(metrics.shed.sum(), 1);
    }
}
