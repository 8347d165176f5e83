//! `WEIR HOTKEYS`.

use super::show::{map, number, text};
use super::{Answer, Console};
use crate::admin::hot_keys::{age, hot_keys, rounded};
use crate::metrics::{HotKey, LargeReply};
use crate::resp::Value;

/// Of each list so many are shown if the caller does not say how many.
const SHOWN: usize = 10;

/// And so many at most: there are no more.
const SHOWN_MAX: usize = 1024;

impl Console {
    /// `HOTKEYS`.
    pub(super) fn hot_keys(&self, words: &[&str]) -> Answer {
        let count = words.first().map_or(Ok(SHOWN), |count| count.parse());
        let count = count.map_err(|_| "ERR value is not an integer or out of range")?;
        let view = hot_keys(&self.proxy, count.min(SHOWN_MAX));
        let keys =
            |keys: &[HotKey]| Value::array(keys.iter().map(|it| self.key(it)).collect::<Vec<_>>());
        let largest = view.largest.iter().map(|reply| self.large_reply(reply));
        Ok(map(vec![
            (
                "sampled_one_in",
                number(self.proxy.settings().process.hot_keys_sample),
            ),
            ("by_commands", keys(&view.by_commands)),
            ("by_bytes", keys(&view.by_bytes)),
            ("largest_replies", Value::array(largest.collect::<Vec<_>>())),
        ]))
    }

    fn key(&self, key: &HotKey) -> Value {
        // Shares in percent: doubles are text in RESP2.
        let percent = |share: f64| number((share * 100.0).round() as i64);
        let rate = |rate: f64| number(rounded(rate).round() as i64);
        map(vec![
            ("route", text(&*self.proxy.routes[key.route as usize].name)),
            ("db", number(key.db)),
            ("key", text(&*key.key)),
            ("command", text(&*key.command)),
            ("commands_per_second", rate(key.commands)),
            ("commands_percent", percent(key.commands_share)),
            ("bytes_per_second", rate(key.bytes)),
            ("bytes_percent", percent(key.bytes_share)),
        ])
    }

    fn large_reply(&self, reply: &LargeReply) -> Value {
        map(vec![
            (
                "route",
                text(&*self.proxy.routes[reply.route as usize].name),
            ),
            ("db", number(reply.db)),
            ("key", reply.key.as_deref().map_or(Value::null(), text)),
            ("command", text(&*reply.command)),
            ("bytes", number(reply.bytes)),
            ("address", text(&*reply.address)),
            ("user", text(&*reply.user)),
            ("name", text(&*reply.name)),
            ("age", number(age(&self.proxy, reply.at))),
        ])
    }
}
