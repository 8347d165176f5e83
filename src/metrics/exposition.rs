//! Writes the Prometheus text format, version 0.0.4.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>
//!
//! The writer keeps the format's rules so that its callers cannot break them:
//! names come from the source code (`&'static str`) and are checked where they
//! are written, label values and help are escaped, a family is written in one
//! piece, and the whole is bounded: beyond [`SERIES_MAX`] series the rest is
//! left out and counted in `weir_exposition_series_dropped`.

use std::collections::HashSet;
use std::fmt::Write;

use super::histogram::HistogramSnapshot;

/// The content type to serve the text with.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// At most this many series are written. A route has about 160, which leaves
/// room for a hundred of them with their nodes; a scrape stays below 3 MB.
pub const SERIES_MAX: usize = 20_000;

/// What kind of number a family holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Times in buckets; written with [`Exposition::histogram`].
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The value of one series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A count.
    Unsigned(u64),
    /// A gauge.
    Signed(i64),
    /// Seconds, shares.
    Float(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Unsigned(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Unsigned(value.into())
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Unsigned(value as u64)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Signed(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Unsigned(value.into())
    }
}

/// A text in the making: families, each followed by its samples.
#[derive(Debug)]
pub struct Exposition {
    text: String,
    family: Option<&'static str>,
    families: HashSet<&'static str>,
    series: usize,
    dropped: usize,
    series_max: usize,
}

impl Default for Exposition {
    fn default() -> Self {
        Self::new()
    }
}

impl Exposition {
    /// An empty text that takes up to [`SERIES_MAX`] series.
    pub fn new() -> Self {
        Self::with_series_max(SERIES_MAX)
    }

    fn with_series_max(series_max: usize) -> Self {
        Self {
            text: String::with_capacity(16 << 10),
            family: None,
            families: HashSet::new(),
            series: 0,
            dropped: 0,
            series_max,
        }
    }

    /// Begins the family `name`; what [`sample`](Self::sample) writes next belongs to it.
    ///
    /// A name begun a second time would make the whole scrape invalid, so its
    /// samples are dropped (and a debug build panics).
    pub fn family(&mut self, name: &'static str, help: &'static str, kind: Kind) {
        debug_assert!(is_name(name), "metric name {name:?}");
        debug_assert_eq!(kind == Kind::Counter, name.ends_with("_total"), "{name}");
        let new = self.families.insert(name);
        debug_assert!(new, "family {name} begun twice");
        if !new {
            self.family = None;
            return;
        }
        self.family = Some(name);
        self.text.push_str("# HELP ");
        self.text.push_str(name);
        self.text.push(' ');
        push_escaped(&mut self.text, help, Quote::No);
        self.text.push_str("\n# TYPE ");
        self.text.push_str(name);
        self.text.push(' ');
        self.text.push_str(kind.name());
        self.text.push('\n');
    }

    /// One series of the family begun last. `labels` are (name, value) pairs
    /// that no other sample of the family has; a value may be any text.
    pub fn sample(&mut self, labels: &[(&'static str, &str)], value: impl Into<Value>) {
        if let Some(name) = self.admit(1) {
            self.line(name, "", labels, None, value.into());
        }
    }

    /// One histogram of the family begun last: its buckets in seconds, sum and
    /// count. Left out as a whole if there is no room for all of it.
    pub fn histogram(&mut self, labels: &[(&'static str, &str)], times: &HistogramSnapshot) {
        let Some(name) = self.admit(HistogramSnapshot::cumulative_len() + 3) else {
            return;
        };
        let count = times.count();
        for (bound_micros, below) in times.cumulative() {
            let bound = Bound::Seconds(seconds(bound_micros));
            self.line(name, "_bucket", labels, Some(bound), below.into());
        }
        self.line(name, "_bucket", labels, Some(Bound::Infinity), count.into());
        self.line(
            name,
            "_sum",
            labels,
            None,
            seconds(times.sum_micros()).into(),
        );
        self.line(name, "_count", labels, None, count.into());
    }

    /// The finished text.
    pub fn finish(mut self) -> String {
        let dropped = self.dropped;
        self.series_max = usize::MAX;
        let help = "Series left out of this answer because there were too many.";
        self.family("weir_exposition_series_dropped", help, Kind::Gauge);
        self.sample(&[], dropped);
        self.text
    }

    /// The family's name if it may have `series` more, which are counted.
    fn admit(&mut self, series: usize) -> Option<&'static str> {
        debug_assert!(
            !self.families.is_empty(),
            "a sample before the first family"
        );
        let fits = series <= self.series_max.saturating_sub(self.series);
        if let (Some(name), true) = (self.family, fits) {
            self.series += series;
            return Some(name);
        }
        self.dropped += series;
        None
    }

    fn line(
        &mut self,
        name: &str,
        suffix: &str,
        labels: &[(&'static str, &str)],
        bound: Option<Bound>,
        value: Value,
    ) {
        self.text.push_str(name);
        self.text.push_str(suffix);
        let mut separator = '{';
        for (label, value) in labels {
            debug_assert!(
                is_name(label) && !label.contains(':'),
                "label name {label:?}"
            );
            self.text.push(separator);
            self.text.push_str(label);
            self.text.push_str("=\"");
            push_escaped(&mut self.text, value, Quote::Yes);
            self.text.push('"');
            separator = ',';
        }
        if let Some(bound) = bound {
            self.text.push(separator);
            self.text.push_str("le=\"");
            match bound {
                Bound::Seconds(seconds) => push_float(&mut self.text, seconds),
                Bound::Infinity => self.text.push_str("+Inf"),
            }
            self.text.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        self.text.push(' ');
        push_value(&mut self.text, value);
        self.text.push('\n');
    }
}

/// The upper bound of a bucket.
enum Bound {
    Seconds(f64),
    Infinity,
}

/// Whether the text stands between quotes, where a quote is escaped too.
#[derive(PartialEq)]
enum Quote {
    Yes,
    No,
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn push_escaped(text: &mut String, value: &str, quoted: Quote) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quoted == Quote::Yes => text.push_str("\\\""),
            other => text.push(other),
        }
    }
}

fn push_value(text: &mut String, value: Value) {
    match value {
        Value::Unsigned(value) => text.push_str(itoa::Buffer::new().format(value)),
        Value::Signed(value) => text.push_str(itoa::Buffer::new().format(value)),
        Value::Float(value) => push_float(text, value),
    }
}

fn push_float(text: &mut String, value: f64) {
    if value.is_infinite() {
        text.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        write!(text, "{value}").expect("writing to a String cannot fail");
    }
}

/// `[a-zA-Z_:][a-zA-Z0-9_:]*`, the rule for metric names; labels have no colon.
fn is_name(name: &str) -> bool {
    let is_start = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b':';
    let mut bytes = name.bytes();
    bytes.next().is_some_and(is_start) && bytes.all(|byte| is_start(byte) || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
