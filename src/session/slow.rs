//! Commands that took long: who sent them, about which key, and where the time went, for
//! the slow log.

use std::time::SystemTime;

use super::console::shown;
use super::worker::State;
use crate::admission::TokenBucket;
use crate::backend::{SlowReplies, SlowReply};
use crate::command::{self, Args, Command, CommandId};
use crate::metrics::{KEY_MAX, SlowEntry, utc};

/// Entries of one worker in a second, and at once. Under overload every command may be slow:
/// the rest is only counted.
const A_SECOND: f64 = 64.0;

/// Commands that may hold a password: nothing but the name is told.
const SECRETIVE: &[&str] = &["auth", "hello", "config|set", "acl|setuser", "migrate"];

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
            key: first_key(command, &reply.request),
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
    if SECRETIVE.contains(&&*command.name) {
        return None;
    }
    let head = Head::of(request)?;
    let index = command::keys(command, &head).next()?;
    let key = head.arg(index)?;
    Some(key[..key.len().min(KEY_MAX)].escape_ascii().to_string())
}

/// The arguments at the beginning of a request, of which the end may be missing.
struct Head<'a> {
    count: usize,
    args: Vec<&'a [u8]>,
}

impl<'a> Head<'a> {
    /// Of a request as Weir sends it.
    fn of(request: &'a [u8]) -> Option<Head<'a>> {
        let (count, mut rest) = header(b'*', request)?;
        let mut args = Vec::new();
        while args.len() < count
            && let Some((len, from)) = header(b'$', rest)
        {
            let whole = len.min(from.len());
            args.push(&from[..whole]);
            // Behind it stands a line break.
            rest = from.get(whole + 2..).unwrap_or_default();
        }
        Some(Head { count, args })
    }
}

impl Args for Head<'_> {
    fn count(&self) -> usize {
        self.count
    }

    fn arg(&self, index: usize) -> Option<&[u8]> {
        self.args.get(index).copied()
    }
}

/// A number behind `kind`, and what follows its line.
fn header(kind: u8, bytes: &[u8]) -> Option<(usize, &[u8])> {
    let bytes = bytes.strip_prefix(&[kind])?;
    let end = memchr::memchr(b'\r', bytes)?;
    let number = std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()?;
    Some((number, bytes.get(end + 2..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Table;

    fn key_of(words: &[&str], cut_to: usize) -> Option<String> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        let table = Table::builtin();
        let sub = words.get(1).map(|word| word.as_bytes());
        let command = table.find(words[0].as_bytes(), sub);
        first_key(command, &request.as_bytes()[..request.len().min(cut_to)])
    }

    #[test]
    fn the_first_key_is_told_wherever_it_stands() {
        let whole = usize::MAX;
        assert_eq!(key_of(&["GET", "a\tb"], whole).as_deref(), Some("a\\tb"));
        assert_eq!(
            key_of(&["EVAL", "return 1", "1", "k"], whole).as_deref(),
            Some("k")
        );
        assert_eq!(key_of(&["EVAL", "return 1", "0", "k"], whole), None);
        assert_eq!(key_of(&["PING"], whole), None);
        assert_eq!(
            key_of(&["MSET", "a", "1", "b", "2"], 24).as_deref(),
            Some("a")
        );
        let long = "x".repeat(1_000);
        assert_eq!(
            key_of(&["GET", &long], whole).map(|key| key.len()),
            Some(KEY_MAX)
        );
    }

    #[test]
    fn a_request_cut_anywhere_is_looked_at_as_far_as_it_goes() {
        for cut in 0..60 {
            key_of(&["EVAL", "return 1", "1", "key", "value"], cut);
        }
        let table = Table::builtin();
        let get = table.find(b"get", None);
        assert_eq!(
            first_key(get, b"*99999999999999\r\n$3\r\nGET\r\n$0\r\n\r\n"),
            Some(String::new())
        );
        assert_eq!(first_key(get, b"*2\r\n$-1\r\n"), None);
    }

    #[test]
    fn what_may_hold_a_password_is_told_by_name_only() {
        for words in [
            &["MIGRATE", "host", "1", "key", "0", "1", "AUTH", "hunter2"][..],
            &["AUTH", "hunter2"],
            &["CONFIG", "SET", "requirepass", "hunter2"],
        ] {
            assert_eq!(key_of(words, usize::MAX), None, "{words:?}");
        }
        let table = Table::builtin();
        for name in SECRETIVE {
            let (name, sub) = name.split_once('|').unwrap_or((name, ""));
            assert!(
                table.find(name.as_bytes(), Some(sub.as_bytes())).exists(),
                "{name}"
            );
        }
    }
}
