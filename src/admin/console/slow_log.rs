//! `WEIR SLOWLOG`.

use super::show::{map, number, text};
use super::{Answer, Console};
use crate::metrics::{SlowEntry, utc};
use crate::resp::Value;

/// Entries shown if the caller does not say how many: as many as Redis shows of its own.
const SHOWN: usize = 10;

impl Console {
    /// `SLOWLOG`.
    pub(super) fn slow_log(&self, words: &[&str]) -> Answer {
        let log = &self.proxy.slow_log;
        let command = words.first().unwrap_or(&"GET").to_ascii_uppercase();
        match (command.as_str(), words.get(1)) {
            ("GET", count) => {
                let count = count.map_or(Ok(SHOWN), |count| count.parse());
                let count = count.map_err(|_| "ERR value is not an integer or out of range")?;
                let entries = log.last(count);
                Ok(Value::array(entries.iter().map(entry).collect::<Vec<_>>()))
            }
            ("LEN", None) => Ok(number(log.len())),
            ("RESET", None) => {
                log.reset();
                Ok(Value::simple("OK"))
            }
            _ => Err("ERR syntax error".to_owned()),
        }
    }
}

fn entry(entry: &SlowEntry) -> Value {
    let known = |micros: Option<u64>| micros.map_or(Value::null(), number);
    let key = entry.key.as_deref();
    map(vec![
        ("number", number(entry.number)),
        ("at", text(utc::rfc3339(utc::from_unix_millis(entry.at)))),
        ("total_us", number(entry.total_us)),
        ("waited_us", known(entry.waited_us())),
        ("backend_us", known(entry.backend_us)),
        ("command", text(&*entry.command)),
        ("key", key.map_or(Value::null(), text)),
        ("request_bytes", number(entry.request_bytes)),
        ("reply_bytes", number(entry.reply_bytes)),
        ("route", text(&*entry.route)),
        ("node", text(&*entry.node)),
        ("client", number(entry.client)),
        ("address", text(&*entry.address)),
        ("user", text(&*entry.user)),
        ("name", text(&*entry.name)),
    ])
}
