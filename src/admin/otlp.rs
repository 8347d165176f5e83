//! Spans as OpenTelemetry's protocol has them, in its JSON encoding
//! (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>): ids in hexadecimal, enums as
//! numbers, numbers of 64 bits as texts.
//!
//! Names of attributes are those of the semantic conventions for Redis
//! (<https://opentelemetry.io/docs/specs/semconv/db/redis/>), and `weir.…` for what these
//! have no name for.

use std::hash::{BuildHasher, RandomState};

use serde_json::{Value, json};

use crate::metrics::{Outcome, TracedSpan};

/// `SPAN_KIND_CLIENT`: what the conventions have for a call to a database, whose time it is.
const KIND_CLIENT: u8 = 3;

/// `STATUS_CODE_ERROR`.
const STATUS_ERROR: u8 = 2;

/// The span is of a sample, and a whole one by itself: the flag of W3C's trace context.
const FLAG_SAMPLED: u32 = 1;

/// Ids that no other span has, here or elsewhere, as far as chance goes.
#[derive(Debug)]
pub(super) struct Ids {
    random: RandomState,
    given: u64,
    instance: String,
}

impl Ids {
    pub(super) fn new() -> Ids {
        let mut ids = Ids {
            random: RandomState::new(),
            given: 0,
            instance: String::new(),
        };
        let (high, low) = (ids.next(), ids.next());
        // A UUID of version 4.
        ids.instance = format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            (low >> 48) & 0x3fff | 0x8000,
            low & 0xffff_ffff_ffff
        );
        ids
    }

    /// Never 0, which is no id.
    fn next(&mut self) -> u64 {
        self.given += 1;
        self.random.hash_one(self.given).max(1)
    }
}

/// An `ExportTraceServiceRequest`.
pub(super) fn request(spans: &[TracedSpan], service: &str, ids: &mut Ids) -> Vec<u8> {
    let resource = [
        text("service.name", service),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("service.instance.id", &ids.instance),
        number("process.pid", u64::from(std::process::id())),
    ];
    let spans: Vec<Value> = spans.iter().map(|it| span(it, ids)).collect();
    let scope = json!({"name": "weir", "version": env!("CARGO_PKG_VERSION")});
    let request = json!({"resourceSpans": [{
        "resource": {"attributes": resource},
        "scopeSpans": [{"scope": scope, "spans": spans}],
    }]});
    request.to_string().into_bytes()
}

fn span(span: &TracedSpan, ids: &mut Ids) -> Value {
    let error = match span.outcome {
        Outcome::Ok | Outcome::FailedOpen => None,
        Outcome::Error(what) | Outcome::Failed(what) | Outcome::Shed(what) => Some(what),
    };
    let status = match error {
        Some(what) => json!({"code": STATUS_ERROR, "message": what}),
        None => json!({}),
    };
    let nanos = |micros: u64| (u128::from(micros) * 1000).to_string();
    json!({
        "traceId": format!("{:016x}{:016x}", ids.next(), ids.next()),
        "spanId": format!("{:016x}", ids.next()),
        "flags": FLAG_SAMPLED,
        "name": span.command,
        "kind": KIND_CLIENT,
        "startTimeUnixNano": nanos(span.start),
        "endTimeUnixNano": nanos(span.start.saturating_add(span.duration)),
        "attributes": attributes(span, error),
        "status": status,
    })
}

fn attributes(span: &TracedSpan, error: Option<&str>) -> Vec<Value> {
    let mut all = vec![
        text("db.system.name", "redis"),
        text("db.operation.name", &span.command),
        text("db.namespace", &span.db.to_string()),
        text("weir.route", &span.route),
        text("weir.outcome", outcome(span.outcome)),
        number("weir.sampled_one_in", u64::from(span.one_in)),
    ];
    if let Some(node) = &span.node {
        let (host, port) = host_and_port(node);
        all.push(text("server.address", host));
        all.extend(port.map(|port| number("server.port", u64::from(port))));
    }
    if let Some(client) = &span.client {
        all.push(text("client.address", &client.address));
        if client.port > 0 {
            all.push(number("client.port", u64::from(client.port)));
        }
        all.push(number("weir.client.id", client.id));
        all.extend(client.user.iter().map(|user| text("weir.user", user)));
        if !client.name.is_empty() {
            all.push(text("weir.client.name", &client.name));
        }
    }
    all.extend(error.map(|what| text("error.type", what)));
    match span.outcome {
        Outcome::Error(word) => all.push(text("db.response.status_code", word)),
        Outcome::Shed(limit) => all.push(text("weir.shed.limit", limit)),
        _ => {}
    }
    let numbers = [
        ("weir.wait_us", span.waited),
        ("weir.backend_us", span.at_node),
        ("weir.request.bytes", span.request_bytes),
        ("weir.reply.bytes", span.reply_bytes),
    ];
    let known = numbers.into_iter();
    all.extend(known.filter_map(|(name, value)| Some(number(name, value?))));
    all
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Error(_) => "error",
        Outcome::Failed(_) => "failed",
        Outcome::Shed(_) => "shed",
        Outcome::FailedOpen => "fail_open",
    }
}

/// The two parts of a node's address; a Unix socket has a path only.
fn host_and_port(node: &str) -> (&str, Option<u16>) {
    let parts = node
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match parts {
        Some((host, port)) => (host.trim_matches(['[', ']']), Some(port)),
        None => (node, None),
    }
}

fn text(name: &str, value: &str) -> Value {
    json!({"key": name, "value": {"stringValue": value}})
}

fn number(name: &str, value: u64) -> Value {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    json!({"key": name, "value": {"intValue": value.to_string()}})
}

/// How many of the spans the collector says it has not taken, in its answer to a request
/// that it has understood.
pub(super) fn rejected(answer: &[u8]) -> usize {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    match &answer["partialSuccess"]["rejectedSpans"] {
        Value::String(count) => count.parse().unwrap_or(0),
        count => count.as_u64().unwrap_or(0) as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_of_their_length_and_never_the_same() {
        let mut ids = Ids::new();
        assert_eq!(ids.instance.len(), 36);
        let other = Ids::new().instance;
        assert_ne!(ids.instance, other);
        assert_ne!(ids.next(), ids.next());
    }

    #[test]
    fn a_node_is_a_host_and_a_port_or_a_path() {
        assert_eq!(host_and_port("10.0.0.1:6379"), ("10.0.0.1", Some(6379)));
        assert_eq!(host_and_port("[::1]:6379"), ("::1", Some(6379)));
        assert_eq!(
            host_and_port("unix:/run/redis.sock"),
            ("unix:/run/redis.sock", None)
        );
    }

    #[test]
    fn what_a_collector_rejects_is_read_from_its_answer() {
        let answer = br#"{"partialSuccess":{"rejectedSpans":"7","errorMessage":"x"}}"#;
        assert_eq!(rejected(answer), 7);
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedSpans":7}}"#), 7);
        assert_eq!(rejected(b"{\"partialSuccess\":{}}"), 0);
        assert_eq!(rejected(b"{}"), 0);
        assert_eq!(rejected(b""), 0);
        assert_eq!(rejected(b"\x0a\x00"), 0);
    }
}
