//! Commands of the sample that is traced, on their way from the workers to the exporter: a
//! line with a bound, and what became of those that were in it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::exposition::{Exposition, Kind};

/// So many are sent at once; the exporter is woken when as many are there.
pub const BATCH_MAX: usize = 512;

/// One command, as traced. Names no key and no value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// When its last byte had been read, in microseconds of Unix time.
    pub start: u64,
    /// From then to its reply, in microseconds.
    pub duration: u64,
    /// Its name in the command table.
    pub command: String,
    /// The name of its route.
    pub route: String,
    /// The database.
    pub db: u32,
    /// The node that answered, if one did: a host and a port, or the path of a socket.
    pub node: Option<String>,
    /// Who asked, unless it has gone since.
    pub client: Option<SpanClient>,
    /// What became of it.
    pub outcome: Outcome,
    /// How long it waited in Weir, in microseconds, if it was sent by the worker that
    /// has the client.
    pub waited: Option<u64>,
    /// How long it was at the node, the same.
    pub at_node: Option<u64>,
    /// Bytes of the request, if they are known.
    pub request_bytes: Option<u64>,
    /// Bytes of the node's reply.
    pub reply_bytes: Option<u64>,
    /// One command in so many is traced.
    pub one_in: u32,
}

/// Who asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpanClient {
    /// Its IP address, or the path of the Unix socket that it came over.
    pub address: String,
    /// Its port; 0 over a Unix socket.
    pub port: u16,
    /// Its id in Weir.
    pub id: u64,
    /// As whom it is logged in, if it is.
    pub user: Option<String>,
    /// What it calls itself.
    pub name: String,
}

/// What became of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// The node answered, not with an error.
    #[default]
    Ok,
    /// The node answered with an error of this first word.
    Error(&'static str),
    /// Weir answered with an error of this cause, as in `weir_errors_total`.
    Failed(&'static str),
    /// Weir refused it for this limit, as in `weir_shed_total`.
    Shed(&'static str),
    /// Weir answered as a cache that misses (`health.fail_open`).
    FailedOpen,
}

/// The line to the exporter.
#[derive(Debug, Default)]
pub struct Traces {
    waiting: Mutex<VecDeque<Span>>,
    max: AtomicUsize,
    exported: AtomicU64,
    dropped_full: AtomicU64,
    dropped_export: AtomicU64,
    wake: Notify,
}

impl Traces {
    /// A line that takes none before [`Traces::set_max`].
    pub fn new() -> Traces {
        Traces::default()
    }

    /// So many may wait from now on.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    /// One more, from any thread; dropped and counted if there is no room. Holds a lock for
    /// as long as it takes to move it.
    pub fn push(&self, span: Span) {
        let max = self.max.load(Relaxed);
        let mut waiting = self.lock();
        if waiting.len() >= max {
            self.dropped_full.fetch_add(1, Relaxed);
            return;
        }
        waiting.push_back(span);
        let count = waiting.len();
        drop(waiting);
        if count == BATCH_MAX.min(max.div_ceil(2)) {
            self.wake.notify_one();
        }
    }

    /// The oldest, at most [`BATCH_MAX`].
    pub fn take(&self) -> Vec<Span> {
        let mut waiting = self.lock();
        let count = waiting.len().min(BATCH_MAX);
        waiting.drain(..count).collect()
    }

    /// Resolves when many are waiting.
    pub async fn many(&self) {
        self.wake.notified().await;
    }

    /// So many were taken by the collector.
    pub fn count_exported(&self, spans: usize) {
        self.exported.fetch_add(spans as u64, Relaxed);
    }

    /// So many could not be sent.
    pub fn count_lost(&self, spans: usize) {
        self.dropped_export.fetch_add(spans as u64, Relaxed);
    }

    /// How many have been dropped for want of room.
    pub fn dropped_full(&self) -> u64 {
        self.dropped_full.load(Relaxed)
    }

    /// Writes its families.
    pub fn expose(&self, out: &mut Exposition) {
        let help = "Traced commands that wait to be sent to the collector.";
        out.family("weir_trace_spans_queued", help, Kind::Gauge);
        out.sample(&[], self.lock().len());
        let help = "Traced commands that may wait (traces.queue).";
        out.family("weir_trace_queue_max", help, Kind::Gauge);
        out.sample(&[], self.max.load(Relaxed));
        let help = "Traced commands that the collector has taken.";
        out.family("weir_trace_spans_exported_total", help, Kind::Counter);
        out.sample(&[], self.exported.load(Relaxed));
        let help = "Traced commands that were dropped, by why.";
        out.family("weir_trace_spans_dropped_total", help, Kind::Counter);
        out.sample(&[("reason", "queue")], self.dropped_full());
        let lost = self.dropped_export.load(Relaxed);
        out.sample(&[("reason", "export")], lost);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Span>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_no_room_for_is_dropped_and_counted() {
        let traces = Traces::new();
        traces.push(Span::default());
        assert_eq!(traces.dropped_full(), 1, "nobody wants any yet");
        traces.set_max(700);
        for start in 0..1_000 {
            traces.push(Span {
                start,
                ..Span::default()
            });
        }
        assert_eq!(traces.dropped_full(), 301);
        let first = traces.take();
        assert_eq!((first.len(), first[0].start), (BATCH_MAX, 0));
        assert_eq!(traces.take().len(), 700 - BATCH_MAX);
        assert!(traces.take().is_empty());
    }
}
