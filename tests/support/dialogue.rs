//! What several clients say, line by line, and what they hear.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddr};

use super::{RawClient, RedisServer, encode, wait_until};

/// How the lines of one client that follow each other are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// Each when the one before has been answered.
    LineByLine,
    /// In one write.
    AtOnce,
}

/// Sends the lines of a dialogue to `address` and returns what was heard, one entry per
/// reply; `server` is the Redis that answers in the end.
///
/// A line is the name of a client and a command: `a SET k v`. A client connects with its
/// first line. `a:3 SUBSCRIBE x y z` waits for three replies, `a:0` for none; without a
/// number it is one. `a:close` waits until the server closes. A line without a command
/// (`a:1`) sends nothing. `@blocked 2` waits until so many clients of the server are
/// blocked, `@gone a` has a client leave.
pub fn hear(address: SocketAddr, server: &RedisServer, lines: &[&str], pace: Pace) -> Vec<String> {
    let blocked = || server.info("clients", "blocked_clients");
    hear_and_ask(address, &blocked, lines, pace)
}

/// The same; `blocked` says how many clients are blocked.
pub fn hear_and_ask(
    address: SocketAddr,
    blocked: &dyn Fn() -> String,
    lines: &[&str],
    pace: Pace,
) -> Vec<String> {
    let mut clients: BTreeMap<&str, RawClient> = BTreeMap::new();
    let mut heard = Vec::new();
    let lines: Vec<Line<'_>> = lines.iter().map(|line| Line::of(line)).collect();
    let mut rest = lines.as_slice();
    while let Some(first) = rest.first() {
        let together = match pace {
            Pace::LineByLine => 1,
            Pace::AtOnce if first.text.starts_with('@') => 1,
            Pace::AtOnce => rest
                .iter()
                .take_while(|line| line.client == first.client)
                .count(),
        };
        let (now, later) = rest.split_at(together);
        rest = later;
        if let Some(stage) = first.text.strip_prefix('@') {
            match stage.split_once(' ') {
                Some(("blocked", count)) => wait_until(first.text, || blocked() == count),
                Some(("since", _)) => {}
                Some(("gone", client)) => clients.remove(client).into_iter().for_each(leave),
                _ => panic!("what is {:?}?", first.text),
            }
            continue;
        }
        let client = clients
            .entry(first.client)
            .or_insert_with(|| RawClient::connect(address));
        let bytes: Vec<u8> = now.iter().flat_map(|line| line.bytes.clone()).collect();
        // A server that has closed already takes no more bytes.
        let _ = client.try_send(bytes);
        for line in now {
            line.listen(client, &mut heard);
        }
    }
    clients.into_values().for_each(leave);
    heard
}

/// Has a client leave; the server knows that it has gone when this returns.
fn leave(mut client: RawClient) {
    // Fails only when the server was faster.
    let _ = client.stream().shutdown(Shutdown::Write);
    while client.read_some().is_ok_and(|some| !some.is_empty()) {}
}

struct Line<'a> {
    client: &'a str,
    replies: Option<usize>,
    bytes: Vec<u8>,
    text: &'a str,
}

impl<'a> Line<'a> {
    fn of(text: &'a str) -> Line<'a> {
        let mut words = text.split(' ');
        let who = words.next().expect("a line begins with a client");
        let (client, replies) = match who.split_once(':') {
            None => (who, Some(1)),
            Some((client, "close")) => (client, None),
            Some((client, count)) => (client, Some(count.parse().expect("a number of replies"))),
        };
        let words: Vec<&str> = words.collect();
        let bytes = if words.is_empty() {
            Vec::new()
        } else {
            encode(&words)
        };
        Line {
            client,
            replies,
            bytes,
            text,
        }
    }

    fn listen(&self, client: &mut RawClient, heard: &mut Vec<String>) {
        let mut left = self.replies.unwrap_or(usize::MAX);
        while left > 0 {
            left -= 1;
            match client.try_read_reply() {
                Ok(reply) => {
                    let shown = &reply[..reply.len().min(300)];
                    heard.push(format!("{}: {}", self.text, without_id(shown)));
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
                    ) =>
                {
                    heard.push(format!("{}: closed", self.text));
                    return;
                }
                Err(error) => panic!("no answer to {:?} ({error}); heard {heard:#?}", self.text),
            }
        }
    }
}

/// A greeting names the client's id, which differs.
fn without_id(reply: &[u8]) -> String {
    let text = reply.escape_ascii().to_string();
    match text.split_once(r"$2\r\nid\r\n:") {
        Some((before, id)) => {
            before.to_owned() + id.trim_start_matches(|c: char| c.is_ascii_digit())
        }
        None => text,
    }
}

/// Says each of the dialogues to a Redis and, through a Weir in front of another one that
/// was started alike, line by line and at once, and panics if anything is heard
/// differently. The data is flushed before each. A dialogue that begins with `@since 7.0`
/// is left out if the servers are older; Valkey counts as what it is compatible with.
pub fn compare(redis: &RedisServer, behind: &RedisServer, weir: SocketAddr, all: &[&[&str]]) {
    let blocked = || behind.info("clients", "blocked_clients");
    compare_and_ask(redis, behind, (weir, &blocked), all);
}

/// The same; what is behind Weir's address says how many of its clients are blocked.
pub fn compare_and_ask(
    redis: &RedisServer,
    behind: &RedisServer,
    (weir, blocked): (SocketAddr, &dyn Fn() -> String),
    all: &[&[&str]],
) {
    let version = redis.compatible_version();
    for lines in all {
        let since = lines[0].strip_prefix("@since ");
        if since.is_some_and(|since| version < parse_version(since)) {
            continue;
        }
        for pace in [Pace::LineByLine, Pace::AtOnce] {
            for server in [redis, behind] {
                server.command(&["FLUSHALL"]);
            }
            let direct = hear(redis.address(), redis, lines, pace);
            let through = hear_and_ask(weir, blocked, lines, pace);
            assert_eq!(
                through, direct,
                "Weir (left) and Redis (right) differ, {pace:?}"
            );
        }
    }
}

fn parse_version(text: &str) -> (u32, u32) {
    let (major, minor) = text.split_once('.').expect("major.minor");
    let number = |text: &str| text.parse().expect("a number");
    (number(major), number(minor))
}
