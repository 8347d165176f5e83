//! What is counted, and how it is read.
//!
//! Every (worker, route) pair owns one [`WorkerMetrics`]. The worker writes it
//! without a lock and without an atomic read-modify-write; whoever answers a
//! scrape reads it from another thread and adds the workers up. [`Metrics`]
//! hands the parts out, [`Exposition`] writes the Prometheus text format.
//!
//! Always true: a counter never goes down, a series is never added while the
//! process runs (labels are the configured routes and the reasons of
//! [`reason`]), and the cost of counting does not depend on who reads.
//!
//! What happens now and then is in the [`Journal`], with numbers over time beside it; single
//! commands that took long are in the [`SlowLog`]; which keys are asked for most, in [`HotKeys`];
//! a sample of all commands, on its way to a trace collector, in [`Traces`].

mod counter;
mod exposition;
mod families;
mod heavy_hitters;
mod histogram;
mod hot_keys;
mod journal;
pub mod reason;
pub mod record;
mod registry;
mod slow_log;
mod tally;
mod traces;
pub mod utc;
mod worker;

pub use counter::{Counter, CountersBy, Gauge};
pub use exposition::{CONTENT_TYPE, Exposition, Kind, SERIES_MAX, Value};
pub use heavy_hitters::{Fading, HeavyHitters, Hitter, seconds_counted};
pub use histogram::{BUCKETS, Histogram, HistogramSnapshot};
pub use hot_keys::{HotKey, HotKeys, HotView, LargeReply, Sampled, Sampling};
pub use journal::{EVENTS_MAX, Event, EventKind, Journal, Latch, Severity};
pub use reason::{
    CloseReason, ErrorCause, HandshakeResult, HeaderResult, Reason, RefusedReason, ShedLimit,
};
pub use record::{NodeSample, RESOLUTIONS, RouteSample, Sample, Samples};
pub use registry::Metrics;
pub use slow_log::{KEY_MAX, SlowEntry, SlowLog};
pub use tally::Tally;
pub use traces::{BATCH_MAX as TRACES_BATCH_MAX, Outcome, Span as TracedSpan, SpanClient, Traces};
pub use worker::WorkerMetrics;
