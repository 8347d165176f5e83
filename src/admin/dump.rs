//! The record written out for a post-mortem: everything as JSON, and a page for people
//! in Markdown. All times are UTC.

use std::fmt::Write;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use crate::metrics::{Event, Journal, RouteSample, Sample, SlowEntry, SlowLog, utc};

/// In Markdown: steps of ten seconds that are shown, the last ten minutes.
const TENS_SHOWN: usize = 60;

/// In Markdown: steps of a minute before those that are shown, two hours.
const MINUTES_SHOWN: usize = 120;

/// In Markdown: of those who hold the most connections.
const TOP_SHOWN: usize = 3;

/// Everything that is kept, as one JSON object.
///
/// `events` and `samples` are in the order of time. A sample covers `seconds` that end at
/// `at`; what its routes count is counted in them, other numbers are the highest of them.
pub fn record_json(journal: &Journal) -> String {
    let mut text = format!(
        "{{\"version\":{},\"written_at\":{},\"events_noted\":{},\n\"events\":[",
        json!(env!("CARGO_PKG_VERSION")),
        json!(utc::rfc3339(SystemTime::now())),
        journal.noted(),
    );
    list(
        &mut text,
        journal.last(usize::MAX, |_| true).iter().map(event_json),
    );
    text += "],\n\"samples\":[";
    // Copied first: whoever takes samples does not wait for the writing.
    let timeline = journal.samples().timeline();
    list(&mut text, timeline.iter().map(sample_json));
    text += "]}\n";
    text
}

/// The last `count` events, oldest first, as a JSON array.
pub fn events_json(journal: &Journal, count: usize) -> String {
    let mut text = String::from("[");
    list(
        &mut text,
        journal.last(count, |_| true).iter().map(event_json),
    );
    text += "]\n";
    text
}

/// The slow log, newest first, as a JSON array.
pub fn slow_log_json(log: &SlowLog) -> String {
    let mut text = String::from("[");
    list(&mut text, log.last(usize::MAX).iter().map(slow_entry_json));
    text += "]\n";
    text
}

fn slow_entry_json(entry: &SlowEntry) -> Value {
    json!({
        "number": entry.number,
        "at": utc::rfc3339(utc::from_unix_millis(entry.at)),
        "total_us": entry.total_us,
        "waited_us": entry.waited_us(),
        "backend_us": entry.backend_us,
        "command": entry.command,
        "key": entry.key,
        "request_bytes": entry.request_bytes,
        "reply_bytes": entry.reply_bytes,
        "route": entry.route,
        "node": entry.node,
        "client": entry.client,
        "address": entry.address,
        "user": entry.user,
        "name": entry.name,
    })
}

/// One value a line: such a file can be searched by line.
fn list(text: &mut String, values: impl Iterator<Item = Value>) {
    for (number, value) in values.enumerate() {
        let comma = if number == 0 { "" } else { "," };
        put(text, format_args!("{comma}\n{value}"));
    }
}

/// One event as a JSON object.
pub fn event_json(event: &Event) -> Value {
    let facts = event.facts.iter();
    let facts: Map<String, Value> = facts
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect();
    json!({
        "number": event.number,
        "at": moment(event.at),
        "last_at": moment(event.last_at),
        "times": event.times,
        "kind": event.kind.label(),
        "severity": event.severity.label(),
        "what": event.kind.words(),
        "route": event.route,
        "subject": event.subject,
        "facts": facts,
    })
}

/// One sample as a JSON object.
pub fn sample_json(sample: &Sample) -> Value {
    let routes: Vec<Value> = sample.routes.iter().map(route_json).collect();
    json!({
        "at": moment(sample.at),
        "seconds": sample.over as f64 / 1000.0,
        "routes": routes,
    })
}

fn route_json(route: &RouteSample) -> Value {
    let nodes: Vec<Value> = route
        .nodes
        .iter()
        .map(|node| {
            json!({"node": &*node.node, "up": node.up, "p50_us": node.p50_us, "p99_us": node.p99_us})
        })
        .collect();
    let top: Vec<Value> = route
        .top
        .iter()
        .map(|(who, clients)| json!({"identity": &**who, "clients": clients}))
        .collect();
    json!({
        "route": &*route.route,
        "clients": route.clients, "clients_max": route.clients_max,
        "connections": route.connections, "budget": route.budget,
        "in_flight": route.in_flight, "waiting": route.waiting,
        "accepted": route.accepted, "refused": route.refused,
        "commands": route.commands, "shed": route.shed, "errors": route.errors,
        "nodes": nodes, "top": top,
    })
}

/// A page for people: the events, then the numbers of each route, newest last. The last
/// ten minutes in steps of ten seconds, two hours before them by the minute; what is
/// older is in the JSON.
pub fn record_markdown(journal: &Journal) -> String {
    let mut text = format!(
        "# Weir: record\n\nWritten {} by Weir {}. All times are UTC.\n\n## Events\n\n",
        utc::rfc3339(SystemTime::now()),
        env!("CARGO_PKG_VERSION"),
    );
    events_markdown(&mut text, &journal.last(usize::MAX, |_| true));
    let samples = shown(journal);
    let mut names: Vec<&str> = Vec::new();
    for route in samples.iter().flat_map(|sample| &sample.routes) {
        if !names.contains(&&*route.route) {
            names.push(&route.route);
        }
    }
    for name in names {
        put(&mut text, format_args!("\n## Route {}\n\n", cell(name)));
        numbers_markdown(&mut text, name, &samples);
    }
    text
}

fn shown(journal: &Journal) -> Vec<Sample> {
    let samples = journal.samples();
    let tens: Vec<&Sample> = samples.of(1).rev().take(TENS_SHOWN).collect();
    let before = tens
        .last()
        .map_or(u64::MAX, |ten| ten.at - ten.over.min(ten.at));
    let minutes = samples.of(2).rev();
    let minutes: Vec<&Sample> = minutes
        .filter(|minute| minute.at <= before)
        .take(MINUTES_SHOWN)
        .collect();
    minutes
        .into_iter()
        .rev()
        .chain(tens.into_iter().rev())
        .cloned()
        .collect()
}

fn events_markdown(text: &mut String, events: &[Event]) {
    if events.is_empty() {
        *text += "None.\n";
        return;
    }
    *text += "| when | severity | route | what | subject | details |\n|---|---|---|---|---|---|\n";
    for event in events {
        let mut when = moment(event.at);
        if event.times > 1 {
            let last = moment(event.last_at);
            put(
                &mut when,
                format_args!(" ({} times until {last})", event.times),
            );
        }
        let facts = event.facts.iter();
        let facts: Vec<String> = facts
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        put(
            text,
            format_args!(
                "| {when} | {} | {} | {} | {} | {} |\n",
                event.severity.label(),
                cell(&event.route),
                event.kind.words(),
                cell(&event.subject),
                cell(&facts.join(", ")),
            ),
        );
    }
}

fn numbers_markdown(text: &mut String, name: &str, samples: &[Sample]) {
    *text += "| until | clients | of | connections | of | in flight | waiting | commands/s | \
              refused clients | shed | errors | node p99 | most connections |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n";
    for sample in samples {
        let Some(route) = sample.routes.iter().find(|route| &*route.route == name) else {
            continue;
        };
        let rate = RouteSample::per_second(route.commands, sample.over);
        let nodes: Vec<String> = route
            .nodes
            .iter()
            .map(|node| match (node.up, node.p99_us) {
                (false, _) => format!("{} down", node.node),
                (true, None) => "-".to_owned(),
                (true, Some(micros)) => format!("{:.1} ms", f64::from(micros) / 1000.0),
            })
            .collect();
        let top = route.top.iter().take(TOP_SHOWN);
        let top: Vec<String> = top
            .map(|(who, clients)| format!("{who}: {clients}"))
            .collect();
        put(
            text,
            format_args!(
                "| {} | {} | {} | {} | {} | {} | {} | {rate:.0} | {} | {} | {} | {} | {} |\n",
                moment(sample.at),
                route.clients,
                route.clients_max,
                route.connections,
                route.budget,
                route.in_flight,
                route.waiting,
                route.refused,
                route.shed,
                route.errors,
                cell(&nodes.join(", ")),
                cell(&top.join(", ")),
            ),
        );
    }
}

fn moment(millis: u64) -> String {
    utc::rfc3339(utc::from_unix_millis(millis))
}

/// A text that stays within its cell.
fn cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' => cell.push_str("\\|"),
            c if c.is_control() => cell.push(' '),
            c => cell.push(c),
        }
    }
    cell
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what)
        .expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{EventKind, NodeSample};

    fn journal() -> Journal {
        let journal = Journal::new();
        journal.note(
            Event::new(EventKind::NodeDown, "a|b\n:1")
                .on("main")
                .with("why", "\"refused\""),
        );
        for second in 1..=1200 {
            journal.samples().add(Sample {
                at: second * 1000,
                over: 1000,
                routes: vec![RouteSample {
                    route: "main".into(),
                    clients: second as u32,
                    commands: 20,
                    top: vec![("10.0.0.1".into(), 7), ("al|ice".into(), 2)],
                    nodes: vec![NodeSample {
                        node: "n:1".into(),
                        up: second != 1195,
                        ..NodeSample::default()
                    }],
                    ..RouteSample::default()
                }],
            });
        }
        journal
    }

    #[test]
    fn the_json_holds_everything_in_the_order_of_time() {
        let text = record_json(&journal());
        let record: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(record["events"][0]["kind"], "node_down");
        assert_eq!(record["events"][0]["facts"]["why"], "\"refused\"");
        let samples = record["samples"].as_array().expect("samples");
        assert_eq!(
            samples.len(),
            600 + 60,
            "ten minutes of each of two resolutions"
        );
        assert_eq!(samples[0]["seconds"], 10.0);
        assert_eq!(samples[0]["routes"][0]["commands"], 200);
        assert_eq!(samples[659]["at"], "1970-01-01T00:20:00.000Z");
    }

    #[test]
    fn the_page_has_a_row_for_each_event_and_step() {
        let page = record_markdown(&journal());
        assert!(
            page.contains("| critical | main | node went down | a\\|b :1 | why: \"refused\" |")
        );
        let rows: Vec<&str> = page
            .lines()
            .filter(|line| line.starts_with("| 1970"))
            .collect();
        assert_eq!(rows.len(), 60 + 10, "{page}");
        assert!(rows.iter().any(|row| row.contains("n:1 down")));
        assert!(
            rows[69].contains("| 1200 |")
                && rows[69].contains("| 20 |")
                && rows[69].ends_with("| 10.0.0.1: 7, al\\|ice: 2 |"),
            "{}",
            rows[69]
        );
    }
}
