//! Latencies in, a few figures out.

use std::time::Duration;

use serde_json::{Value, json};

/// Every latency that was measured. A minute of the largest loads here is a few tens of
/// megabytes, so nothing is put into classes and no figure is rounded.
#[derive(Debug, Default)]
pub struct Latencies {
    nanoseconds: Vec<u64>,
}

impl Latencies {
    pub fn add(&mut self, latency: Duration) {
        self.nanoseconds
            .push(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    pub fn add_all(&mut self, others: &Latencies) {
        self.nanoseconds.extend_from_slice(&others.nanoseconds);
    }

    pub fn count(&self) -> usize {
        self.nanoseconds.len()
    }

    /// Count, and in microseconds: median, 99th and 99.9th percentile, greatest.
    pub fn summary(&mut self) -> Value {
        self.nanoseconds.sort_unstable();
        json!({
            "count": self.nanoseconds.len(),
            "p50_us": self.at(0.5),
            "p99_us": self.at(0.99),
            "p999_us": self.at(0.999),
            "max_us": self.at(1.0),
        })
    }

    fn at(&self, share: f64) -> f64 {
        let Some(last) = self.nanoseconds.len().checked_sub(1) else {
            return f64::NAN;
        };
        let index = (share * last as f64).round() as usize;
        self.nanoseconds[index.min(last)] as f64 / 1_000.0
    }
}

/// What went wrong: how often, and the first few in words.
#[derive(Debug, Default)]
pub struct Faults {
    pub count: u64,
    examples: Vec<String>,
}

impl Faults {
    pub fn add(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < 3 {
            self.examples.push(what());
        }
    }

    pub fn summary(&self) -> Value {
        json!({ "count": self.count, "examples": self.examples })
    }
}
