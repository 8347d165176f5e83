//! Hot keys and large replies, for whoever asks.

use serde_json::{Value, json};

use crate::metrics::{HotKey, HotView, LargeReply};
use crate::session::Proxy;

/// Of each list so many are told over HTTP: a worker keeps no more of most of them.
const TOLD: usize = 100;

/// What is known now, at most `count` of each list.
pub(super) fn hot_keys(proxy: &Proxy, count: usize) -> HotView {
    let now = proxy.started.elapsed().as_micros() as u64;
    proxy.hot_keys.view(count, now)
}

/// How long ago that was, in seconds; `at` in microseconds since the process started.
pub(super) fn age(proxy: &Proxy, at: u64) -> u64 {
    let now = proxy.started.elapsed().as_micros() as u64;
    now.saturating_sub(at) / 1_000_000
}

/// A number for people: as precise as an estimate is.
pub(super) fn rounded(number: f64) -> f64 {
    match number {
        number if number >= 100.0 => number.round(),
        number => (number * 100.0).round() / 100.0,
    }
}

/// `/hotkeys.json`.
pub fn hot_keys_json(proxy: &Proxy) -> String {
    let mut told = lists_json(proxy, &hot_keys(proxy, TOLD), None);
    told["sampled_one_in"] = json!(proxy.settings().process.hot_keys_sample);
    format!("{told:#}\n")
}

/// The lists, of all routes or of one.
pub(super) fn lists_json(proxy: &Proxy, view: &HotView, route: Option<u16>) -> Value {
    let is_asked = |of: u16| route.is_none_or(|route| route == of);
    let keys = |keys: &[HotKey]| -> Vec<Value> {
        let keys = keys.iter().filter(|key| is_asked(key.route));
        keys.map(|key| key_json(proxy, key)).collect()
    };
    let largest = view.largest.iter().filter(|reply| is_asked(reply.route));
    let largest: Vec<Value> = largest.map(|reply| reply_json(proxy, reply)).collect();
    json!({
        "by_commands": keys(&view.by_commands),
        "by_bytes": keys(&view.by_bytes),
        "largest_replies": largest,
    })
}

/// One key.
pub(super) fn key_json(proxy: &Proxy, key: &HotKey) -> Value {
    json!({
        "route": proxy.routes[key.route as usize].name,
        "db": key.db,
        "key": key.key,
        "command": key.command,
        "commands_per_second": rounded(key.commands),
        "commands_share": rounded(key.commands_share),
        "bytes_per_second": rounded(key.bytes),
        "bytes_share": rounded(key.bytes_share),
    })
}

fn reply_json(proxy: &Proxy, reply: &LargeReply) -> Value {
    json!({
        "route": proxy.routes[reply.route as usize].name,
        "db": reply.db,
        "key": reply.key,
        "command": reply.command,
        "bytes": reply.bytes,
        "address": reply.address,
        "user": reply.user,
        "name": reply.name,
        "age_seconds": age(proxy, reply.at),
    })
}

#[cfg(test)]
mod tests {
    use super::rounded;

    #[test]
    fn numbers_are_as_precise_as_they_are_known() {
        assert_eq!(rounded(1234.56), 1235.0);
        assert_eq!(rounded(0.12345), 0.12);
        assert_eq!(rounded(0.0), 0.0);
    }
}
