//! `XREAD BLOCK`: one reader for all who wait for new entries of streams. Reading takes
//! nothing, so each gets its own, and whoever leaves just goes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::act::{Act, Batch, CarrierId, Question, Tell, WaiterId};
use super::carrier::{Carries, Interrupt, Stage};
use super::lobby::{Asked, Lobby, is_passing};
use super::reply::{RepliesIn, bulk, is_error, is_null};
use super::stream::StreamId;
use super::wish::StreamWish;
use crate::command::integer;
use crate::resp::{self, Version};

/// The timeout of the reader's command, in milliseconds, if it can be interrupted.
const WAIT: &str = "10000";

/// The same if it can not.
const SLICE: &str = "100";

/// A key that is no stream is asked again after this time. Microseconds.
const PARKED: u64 = 100_000;

/// Everybody who reads.
#[derive(Debug, Default)]
pub(super) struct Reader {
    carrier: Option<CarrierId>,
    reads: HashMap<WaiterId, Read>,
    /// Who waits for a stream's entries.
    by_stream: BTreeMap<Vec<u8>, BTreeSet<WaiterId>>,
    /// What the command that is outstanding reads behind.
    issued: HashMap<Vec<u8>, StreamId>,
    /// Keys that are no streams at the moment.
    parked: BTreeSet<Vec<u8>>,
    unregistered: Vec<WaiterId>,
}

#[derive(Debug)]
struct Read {
    wish: StreamWish,
    /// Its own read has found nothing.
    waits: bool,
}

impl Reader {
    /// Whether nobody waits for entries.
    pub fn is_empty(&self) -> bool {
        self.by_stream.is_empty()
    }

    /// Its connection is used for something else.
    pub fn lose(&mut self, carrier: CarrierId) {
        self.carrier = self.carrier.filter(|own| *own != carrier);
    }

    pub fn forget(&mut self, id: WaiterId) {
        let Some(read) = self.reads.remove(&id) else {
            return;
        };
        for (stream, _) in &read.wish.streams {
            if let Some(waiters) = self.by_stream.get_mut(stream) {
                waiters.remove(&id);
                if waiters.is_empty() {
                    self.by_stream.remove(stream);
                    self.parked.remove(stream);
                }
            }
        }
    }

    /// The least id that anybody reads a stream behind.
    fn least(&self, stream: &[u8]) -> Option<StreamId> {
        let waiters = self.by_stream.get(stream)?;
        let of = |id: &WaiterId| {
            let streams = &self.reads.get(id)?.wish.streams;
            let own = streams.iter().filter(|(name, _)| name == stream);
            own.filter_map(|(_, after)| *after).min()
        };
        waiters.iter().filter_map(of).min()
    }
}

impl Lobby {
    /// The client's own read, without waiting: what is there, or its error, is its reply.
    /// In the same moment `$` becomes an id.
    pub(super) fn read_first(&mut self, id: WaiterId, wish: StreamWish) {
        let mut batch = Batch::default();
        batch.push(&["MULTI"]);
        for (stream, after) in &wish.streams {
            if after.is_none() {
                batch.push(&[b"XINFO".as_slice(), b"STREAM", stream]);
            }
        }
        let mut args: Vec<&[u8]> = vec![b"XREAD"];
        if let Some(count) = &wish.count {
            args.extend([b"COUNT".as_slice(), count]);
        }
        args.push(b"STREAMS");
        args.extend(wish.streams.iter().map(|(stream, _)| stream.as_slice()));
        args.extend(wish.ids.iter().map(Vec::as_slice));
        batch.push(&args);
        batch.push(&["EXEC"]);
        self.reader.reads.insert(id, Read { wish, waits: false });
        self.ask(Asked::Read(id), Question::Try(batch));
    }

    /// The question was lost: nothing was taken, so it is put again.
    pub(super) fn read_again(&mut self, id: WaiterId) {
        if let Some(read) = self.reader.reads.remove(&id) {
            self.read_first(id, read.wish);
        }
    }

    pub(super) fn read_answered(&mut self, id: WaiterId, frames: &[Vec<u8>]) {
        if !self.waiters.contains_key(&id) {
            return;
        }
        let [multi, pins @ .., own, exec] = frames else {
            return;
        };
        let reply = |bytes: &[u8]| Tell::Reply {
            bytes: bytes.to_vec(),
            popped: None,
        };
        if is_error(own) {
            return self.tell(id, reply(own));
        }
        if is_error(multi) || pins.iter().any(|pin| is_error(pin)) {
            // Without `MULTI` or `XINFO` there is no telling what is new.
            return self.tell(id, Tell::Alone);
        }
        let Some(results) = RepliesIn::array(exec) else {
            return self.tell(id, reply(exec));
        };
        let results: Vec<&[u8]> = results.collect();
        let Some((result, pins)) = results.split_last() else {
            return self.tell(id, Tell::Alone);
        };
        if !is_null(result) {
            let version = self.waiters[&id].version;
            return self.tell(id, reply(&read_in_version(result, version)));
        }
        let read = self.reader.reads.get_mut(&id).expect("a waiter that reads");
        let mut pins = pins.iter();
        for (_, after) in &mut read.wish.streams {
            if after.is_none() {
                *after = Some(pins.next().and_then(|pin| last_id(pin)).unwrap_or_default());
            }
        }
        read.waits = true;
        self.join_readers(id);
    }

    fn join_readers(&mut self, id: WaiterId) {
        let streams = self.reader.reads[&id].wish.streams.clone();
        let mut is_covered = true;
        for (stream, after) in streams {
            let issued = self.reader.issued.get(&stream);
            is_covered &= issued.is_some_and(|issued| Some(*issued) <= after);
            self.reader.by_stream.entry(stream).or_default().insert(id);
        }
        let carrier = self.reader.carrier;
        let Some(carrier) = carrier.filter(|carrier| self.carriers.contains_key(carrier)) else {
            self.reader.unregistered.push(id);
            let carrier = self.open(Carries::Streams, false);
            self.reader.carrier = Some(carrier);
            return self.go_on(carrier);
        };
        let blocked = matches!(self.carriers[&carrier].stage, Stage::Blocked { .. });
        if blocked && is_covered {
            return self.acts.push(Act::Registered(id));
        }
        self.reader.unregistered.push(id);
        self.interrupt(carrier);
        self.go_on(carrier);
    }

    /// Somebody who read has left.
    pub(super) fn reader_left(&mut self) {
        if self.reader.is_empty()
            && let Some(carrier) = self.reader.carrier
        {
            self.interrupt(carrier);
        }
    }

    /// The reader has nothing outstanding.
    pub(super) fn read_on(&mut self, carrier: CarrierId) {
        self.reader.issued.clear();
        let streams: Vec<(Vec<u8>, StreamId)> = self
            .reader
            .by_stream
            .keys()
            .filter(|stream| !self.reader.parked.contains(*stream))
            .filter_map(|stream| Some((stream.clone(), self.reader.least(stream)?)))
            .collect();
        for id in std::mem::take(&mut self.reader.unregistered) {
            if self.waiters.contains_key(&id) {
                self.acts.push(Act::Registered(id));
            }
        }
        if streams.is_empty() {
            return self.rest(carrier);
        }
        let timeout = if self.slices { SLICE } else { WAIT };
        let mut args: Vec<Vec<u8>> = [
            b"XREAD".as_slice(),
            b"BLOCK",
            timeout.as_bytes(),
            b"STREAMS",
        ]
        .map(<[u8]>::to_vec)
        .into();
        args.extend(streams.iter().map(|(stream, _)| stream.clone()));
        args.extend(streams.iter().map(|(_, id)| id.to_string().into_bytes()));
        let mut batch = Batch::default();
        batch.push(&args);
        self.reader.issued = streams.into_iter().collect();
        let reads = self.carriers.get_mut(&carrier).expect("it reads");
        reads.issue += 1;
        reads.stage = Stage::Blocked {
            lines: Vec::new(),
            wish: Interrupt::No,
        };
        self.acts.push(Act::Send(carrier, batch));
    }

    /// New entries, or the end of a wait.
    pub(super) fn stream_replied(&mut self, carrier: CarrierId, frame: &[u8]) {
        if is_null(frame) {
            return self.acts.push(Act::Reissued);
        }
        if is_error(frame) {
            return self.reader_refused(carrier, frame);
        }
        let Some(streams) = RepliesIn::array(frame) else {
            return;
        };
        // Per stream, its entries with their ids.
        let mut news: HashMap<Vec<u8>, Vec<(StreamId, &[u8])>> = HashMap::new();
        for stream in streams {
            let parts: Vec<&[u8]> = RepliesIn::array(stream).into_iter().flatten().collect();
            let [name, entries] = parts.as_slice() else {
                continue;
            };
            let entries = RepliesIn::array(entries).into_iter().flatten();
            let entries = entries.filter_map(|entry| {
                let id = RepliesIn::array(entry)?.next().and_then(bulk)?;
                Some((StreamId::parse(id)?, entry))
            });
            if let Some(name) = bulk(name) {
                news.insert(name.to_vec(), entries.collect());
            }
        }
        let interested: BTreeSet<WaiterId> = news
            .keys()
            .filter_map(|stream| self.reader.by_stream.get(stream))
            .flatten()
            .copied()
            .collect();
        for id in interested {
            let (read, version) = (&self.reader.reads[&id], self.waiters[&id].version);
            if let Some(bytes) = reply_to(&read.wish, &news, version) {
                let popped = None;
                self.tell(id, Tell::Reply { bytes, popped });
            }
        }
    }

    /// One key that is no stream spoils the read of all: each is asked alone.
    fn reader_refused(&mut self, carrier: CarrierId, error: &[u8]) {
        if is_passing(error) {
            self.acts.push(Act::Close(carrier));
            // As if lost, but nothing is: it only reads.
            let at = self.now + PARKED;
            self.rest_until(carrier, at);
            return;
        }
        let streams: Vec<Vec<u8>> = self.reader.issued.keys().cloned().collect();
        let mut batch = Batch::default();
        for stream in &streams {
            let id = self.reader.issued[stream].to_string();
            let args: [&[u8]; 6] = [b"XREAD", b"COUNT", b"1", b"STREAMS", stream, id.as_bytes()];
            batch.push(&args);
            self.reader.parked.insert(stream.clone());
        }
        self.ask(Asked::Audit(streams), Question::Try(batch));
    }

    /// Which streams can be read: the others' waiters wait on, as at Redis.
    pub(super) fn audited(&mut self, streams: &[Vec<u8>], frames: &[Vec<u8>]) {
        let mut still_parked = false;
        for (stream, frame) in streams.iter().zip(frames) {
            if !is_error(frame) {
                self.reader.parked.remove(stream);
            } else if frame.starts_with(b"-WRONGTYPE") || is_passing(frame) {
                still_parked |= self.reader.parked.contains(stream);
            } else {
                self.reader.parked.remove(stream);
                let waiters = self.reader.by_stream.get(stream).cloned();
                for id in waiters.unwrap_or_default() {
                    let (bytes, popped) = (frame.clone(), None);
                    self.tell(id, Tell::Reply { bytes, popped });
                }
            }
        }
        if still_parked {
            self.wake_streams_at(self.now + PARKED);
        }
        self.read_anew();
    }

    pub(super) fn audit_lost(&mut self, streams: &[Vec<u8>]) {
        for stream in streams {
            self.reader.parked.remove(stream);
        }
        self.read_anew();
    }

    fn read_anew(&mut self) {
        if let Some(carrier) = self.reader.carrier {
            self.interrupt(carrier);
            self.go_on(carrier);
        }
    }

    /// Looks again at keys that were no streams.
    pub(super) fn streams_alarm(&mut self) {
        let streams: Vec<Vec<u8>> = self.reader.parked.iter().cloned().collect();
        if streams.is_empty() {
            return;
        }
        let mut batch = Batch::default();
        for stream in &streams {
            let id = self.reader.least(stream).unwrap_or_default().to_string();
            let args: [&[u8]; 6] = [b"XREAD", b"COUNT", b"1", b"STREAMS", stream, id.as_bytes()];
            batch.push(&args);
        }
        self.ask(Asked::Audit(streams), Question::Try(batch));
    }

    /// No connection is to be had for those who read.
    pub(super) fn fail_readers(&mut self, reply: &[u8]) {
        self.reader.carrier = None;
        let waiting = self.reader.reads.iter().filter(|(_, read)| read.waits);
        let waiting: Vec<WaiterId> = waiting.map(|(&id, _)| id).collect();
        for id in waiting {
            self.tell(id, Tell::Failed(reply.to_vec()));
        }
    }
}

/// `last-generated-id` of `XINFO STREAM`; `None` for an error: there is no stream.
fn last_id(info: &[u8]) -> Option<StreamId> {
    let (value, _) = resp::decode(info).ok()??;
    StreamId::parse(value.get("last-generated-id")?.as_bytes()?)
}

/// What a waiter reads of the news, in the order of its own streams.
fn reply_to(
    wish: &StreamWish,
    news: &HashMap<Vec<u8>, Vec<(StreamId, &[u8])>>,
    version: Version,
) -> Option<Vec<u8>> {
    let count = wish.count.as_deref().and_then(integer).unwrap_or(0);
    let count = usize::try_from(count).ok().filter(|&count| count > 0);
    let mut streams = 0;
    let mut body = Vec::new();
    for (stream, after) in &wish.streams {
        let Some(entries) = news.get(stream) else {
            continue;
        };
        let new = entries.iter().filter(|(id, _)| Some(*id) > *after);
        let new: Vec<_> = new.take(count.unwrap_or(usize::MAX)).collect();
        if new.is_empty() {
            continue;
        }
        streams += 1;
        if version == Version::Resp2 {
            body.extend_from_slice(b"*2\r\n");
        }
        body.extend_from_slice(format!("${}\r\n", stream.len()).as_bytes());
        body.extend_from_slice(stream);
        body.extend_from_slice(format!("\r\n*{}\r\n", new.len()).as_bytes());
        for (_, entry) in new {
            body.extend_from_slice(entry);
        }
    }
    (streams > 0).then(|| with_head(streams, &body, version))
}

fn with_head(streams: usize, body: &[u8], version: Version) -> Vec<u8> {
    let kind = match version {
        Version::Resp2 => '*',
        Version::Resp3 => '%',
    };
    [format!("{kind}{streams}\r\n").as_bytes(), body].concat()
}

/// An `XREAD`'s reply, which came in RESP2, in the waiter's version: a map there.
fn read_in_version(frame: &[u8], version: Version) -> Vec<u8> {
    let streams = RepliesIn::array(frame).filter(|_| version == Version::Resp3);
    let Some(streams) = streams else {
        return frame.to_vec();
    };
    let (mut count, mut body) = (0, Vec::new());
    for stream in streams {
        count += 1;
        for part in RepliesIn::array(stream).into_iter().flatten() {
            body.extend_from_slice(part);
        }
    }
    with_head(count, &body, version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiter_gets_what_is_behind_its_id_and_no_more_than_it_asked_for() {
        let entries: Vec<(StreamId, &[u8])> = vec![
            (StreamId { ms: 1, seq: 0 }, b"*2\r\n$3\r\n1-0\r\n*0\r\n"),
            (StreamId { ms: 2, seq: 0 }, b"*2\r\n$3\r\n2-0\r\n*0\r\n"),
            (StreamId { ms: 3, seq: 0 }, b"*2\r\n$3\r\n3-0\r\n*0\r\n"),
        ];
        let news = HashMap::from([(b"s".to_vec(), entries)]);
        let wish = |after: u64, count: Option<&str>| StreamWish {
            streams: vec![
                (b"t".to_vec(), Some(StreamId::default())),
                (b"s".to_vec(), Some(StreamId { ms: after, seq: 0 })),
            ],
            ids: Vec::new(),
            count: count.map(|count| count.as_bytes().to_vec()),
        };
        let reply = |after, count, version| {
            reply_to(&wish(after, count), &news, version).map(|it| String::from_utf8(it).unwrap())
        };
        assert_eq!(
            reply(2, None, Version::Resp2).as_deref(),
            Some("*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n3-0\r\n*0\r\n")
        );
        assert_eq!(
            reply(0, Some("1"), Version::Resp3).as_deref(),
            Some("%1\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*0\r\n")
        );
        assert!(reply(0, Some("0"), Version::Resp2).is_some_and(|it| it.contains("*3\r\n")));
        assert_eq!(reply(3, None, Version::Resp2), None);
    }

    #[test]
    fn a_map_is_what_resp3_has_in_place_of_pairs() {
        let frame = b"*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*0\r\n";
        assert_eq!(read_in_version(frame, Version::Resp2), frame);
        assert_eq!(
            read_in_version(frame, Version::Resp3),
            b"%1\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*0\r\n"
        );
    }
}
