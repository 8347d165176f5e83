//! Commands that took long: who sent them, about which key, and where the time went, for
//! the slow log.

use std::time::SystemTime;

use super::console::shown;
use super::worker::State;
use crate::admission::TokenBucket;
use crate::backend::{SlowReplies, SlowReply};
use crate::command::{Command, CommandId};
use crate::metrics::{KEY_MAX, SlowEntry, utc};

/// Entries of one worker in a second, and at once. Under overload every command may be slow:
/// the rest is only counted.
const A_SECOND: f64 = 64.0;

/// How many entries this worker may make.
#[derive(Debug)]
pub(super) struct SlowPace(TokenBucket);

impl Default for SlowPace {
    fn default() -> SlowPace {
        SlowPace(TokenBucket::full(A_SECOND, 0))
    }
}

impl State {
    /// A command that arrived before this is slow when it is answered now; 0 if none is.
    #[inline]
    pub(super) fn slow_before(&self) -> u64 {
        let threshold = self.settings.process.slow_log_threshold;
        match threshold.is_zero() {
            true => 0,
            false => self
                .clock
                .now()
                .saturating_sub(threshold.as_micros() as u64),
        }
    }

    /// Replies came late over a connection.
    #[cold]
    pub(super) fn note_slow(&mut self, index: u32, slow: SlowReplies) {
        let lane = &self.lanes[self.conns[index as usize].lane as usize];
        let (route, node) = (lane.route as usize, lane.node.address.to_string());
        let metrics = &self.fronts[route].metrics;
        metrics.commands_slow.add(u64::from(slow.count));
        let now = self.clock.now();
        for reply in slow.kept {
            if !self.slow_pace.0.take(1.0, A_SECOND, A_SECOND, now) {
                return;
            }
            let entry = self.slow_entry(route, &node, &reply);
            let entries_max = self.settings.process.slow_log_entries;
            self.proxy.slow_log.note(entry, entries_max);
        }
    }

    fn slow_entry(&mut self, route: usize, node: &str, reply: &SlowReply) -> SlowEntry {
        let now = self.clock.now();
        let front = &self.fronts[route];
        let command = front.table.by_id(CommandId(reply.entry.command));
        let mut entry = SlowEntry {
            number: 0,
            at: utc::unix_millis(SystemTime::now()),
            total_us: now.saturating_sub(reply.entry.at),
            backend_us: reply.written_at.map(|at| now.saturating_sub(at)),
            request_bytes: u64::from(reply.entry.len),
            reply_bytes: reply.reply_bytes,
            command: command.name.clone().into_owned(),
            key: first_key(command, &reply.request).filter(|_| self.settings.process.show_keys),
            route: front.route.name.clone(),
            node: node.to_owned(),
            ..SlowEntry::default()
        };
        if let Some(session) = self.session(reply.entry.to) {
            let who = session.who();
            entry.client = session.id;
            entry.address = session.peer.to_string();
            entry.user = who.user.map_or(String::new(), shown);
            entry.name = shown(who.name);
        }
        entry
    }
}

/// The first key, printable and cut, if the beginning of the request has it.
fn first_key(command: &Command, request: &[u8]) -> Option<String> {
    let keys = super::request_head::keys(command, request);
    let key = keys.known.first()?;
    Some(key[..key.len().min(KEY_MAX)].escape_ascii().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Table;

    #[test]
    fn a_long_key_is_cut() {
        let key = "x".repeat(1_000);
        let request = format!("*2\r\n$3\r\nGET\r\n$1000\r\n{key}\r\n");
        let table = Table::builtin();
        let shown = first_key(table.find(b"get", None), request.as_bytes());
        assert_eq!(shown.map(|key| key.len()), Some(KEY_MAX));
    }
}
