//! One connection to a node: requests go in at one end, replies come out in
//! the same order at the other, and each is handed to whoever asked.
//!
//! The connection is passive: a worker appends requests to it, flushes it once
//! per turn of its event loop, and gives it the bytes that were read. What
//! happens to a reply is the business of the [`Sink`] that the caller brings.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use super::budget::{Kind, Link, Slot};
use super::entry::{Entry, Marks, Ticket};
use super::ring::Ring;
use crate::resp::{ReplyScanner, Version};

/// A reply of which this much has arrived and more is to come is passed on in
/// parts. Smaller ones wait for their end, which saves a write to the client.
const STREAM_FROM: usize = 16 * 1024;

/// Where replies go. One call per run of replies to the same caller.
pub trait Sink {
    /// `count` whole replies for a session, contiguous in `bytes`.
    fn replies(&mut self, to: Ticket, bytes: &[u8], count: u32);
    /// Bytes for another worker that has lent its commands to this connection.
    fn link(&mut self, to: Ticket, bytes: &[u8]);
    /// `count` replies came `micros` microseconds after their requests were written.
    fn took(&mut self, micros: u64, count: u32);
    /// A part of a large reply; `replies` with the rest ends it.
    fn part(&mut self, to: Ticket, bytes: &[u8]);
    /// A reply that the session wants to look at ([`Marks::WHOLE`]) or that its
    /// client is not to see ([`Marks::SILENT`]).
    fn whole(&mut self, entry: &Entry, bytes: &[u8]);
    /// Something the node said without being asked, on an exclusive connection.
    fn pushed(&mut self, owner: Ticket, bytes: &[u8]);
    /// A command whose connection was lost earlier and whose turn has come.
    fn lost(&mut self, entry: &Entry);
}

/// Why a connection cannot go on.
#[derive(Debug)]
pub enum Broken {
    /// The node closed it.
    Closed,
    /// The socket failed.
    Io(io::Error),
    /// The node sent what is not a reply.
    Malformed(crate::resp::ReplyError),
    /// The node sent a reply that nobody had asked for.
    Unasked,
    /// It made no progress while the node answered elsewhere.
    Stalled,
    /// A reply that had to be looked at as a whole was larger than allowed.
    TooLarge,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Broken::Closed => f.write_str("closed by the node"),
            Broken::Io(error) => write!(f, "{error}"),
            Broken::Malformed(error) => write!(f, "malformed reply: {error}"),
            Broken::Unasked => f.write_str("a reply that nobody asked for"),
            Broken::Stalled => f.write_str("stalled while the node answers elsewhere"),
            Broken::TooLarge => f.write_str("a reply too large to look at"),
        }
    }
}

/// Commands that were written together.
#[derive(Debug)]
struct Batch {
    count: u32,
    at: u64,
}

/// What carries the bytes.
#[derive(Debug)]
pub enum Io {
    /// No socket yet: waiting for a slot, or dialling. Requests pile up.
    Opening,
    /// A socket to the node.
    Socket(TcpStream),
    /// Another worker's connection; see the worker's mailbox.
    Link(Link),
}

/// How the node is listened to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Many clients; nothing unasked may arrive.
    Shared,
    /// One client, whose subscriptions and invalidations may arrive unasked.
    Exclusive(Ticket),
    /// One client; bytes are passed on as they are and never framed.
    Raw(Ticket),
}

/// A connection, or the promise of one.
#[derive(Debug)]
pub struct Conn {
    /// What carries the bytes.
    pub io: Io,
    /// Its place in the budget; `None` while waiting, and for a link.
    pub slot: Option<Slot>,
    /// What it is used for.
    pub kind: Kind,
    /// The worker's lane that it serves.
    pub lane: u32,
    /// The route that it serves.
    pub route: u16,
    /// Tells it from an earlier one in the same place.
    pub generation: u32,
    /// Who is listened to.
    pub mode: Mode,
    /// Protocol spoken on it.
    pub version: Version,
    /// Requests unwritten or unanswered.
    pub ring: Ring,
    /// Over a link: bytes of requests handed to the other worker, in all.
    pub handed: u64,
    /// The commands whose replies are outstanding, oldest first.
    pub in_flight: VecDeque<Entry>,
    /// When it could first be used.
    pub opened_at: u64,
    /// When the node last sent something, or the first command was appended to
    /// an empty queue: what stall detection measures from.
    pub progress_at: u64,
    /// No new commands: closes when the last reply has arrived.
    pub retiring: bool,
    /// Its state may have changed: closes instead of being used again.
    pub dirty: bool,
    /// In the worker's list of connections to flush.
    pub queued: bool,
    /// Its client has half-closed: so does Weir once all is written.
    pub half_closing: bool,
    /// A subscription command was sent on it: in RESP2, arrays may be messages.
    pub confirms: bool,
    /// A request is being streamed through: what is written is not kept.
    pub streaming: bool,
    /// Part of a request was sent, and its end was not: it can serve nothing else.
    pub mid_request: bool,
    /// A check of whether the node answers elsewhere is under way.
    pub probing: bool,
    /// The progress that it had made when the node was last asked elsewhere.
    pub probed_at_progress: u64,
    /// Without further progress the node is asked again at this time.
    pub probe_again_at: u64,
    /// Woken when its client has read enough for the node to be read again.
    pub reader: Option<Waker>,
    /// The id that the node knows it by, if it told.
    pub backend_id: Option<i64>,
    /// The tasks that serve it; ended with it.
    pub tasks: Vec<AbortHandle>,
    /// Frames of the largest reply that is looked at as a whole, in bytes.
    whole_max: usize,
    scanner: ReplyScanner,
    /// The commands written together, oldest first, and when: what the node's time
    /// is measured from.
    batches: VecDeque<Batch>,
    /// Commands appended and not yet written.
    unwritten: u32,
    /// The beginning of a reply whose end has not arrived.
    carry: Vec<u8>,
    /// Parts of the oldest reply have been passed on (or thrown away).
    head_started: bool,
}

impl Conn {
    /// A connection that has no socket yet.
    pub fn opening(
        kind: Kind,
        route: u16,
        lane: u32,
        generation: u32,
        version: Version,
        now: u64,
    ) -> Conn {
        Conn {
            io: Io::Opening,
            slot: None,
            kind,
            lane,
            route,
            generation,
            mode: Mode::Shared,
            version,
            ring: Ring::default(),
            handed: 0,
            in_flight: VecDeque::new(),
            opened_at: now,
            progress_at: now,
            retiring: false,
            dirty: false,
            queued: false,
            half_closing: false,
            confirms: false,
            streaming: false,
            mid_request: false,
            probing: false,
            probed_at_progress: 0,
            probe_again_at: 0,
            reader: None,
            backend_id: None,
            tasks: Vec::new(),
            whole_max: 64 * 1024 * 1024,
            scanner: ReplyScanner::default(),
            batches: VecDeque::new(),
            unwritten: 0,
            carry: Vec::new(),
            head_started: false,
        }
    }

    /// Whether no reply is outstanding.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.in_flight.is_empty() && self.ring.unwritten() == 0
    }

    /// Whether parts of the oldest outstanding reply have reached its client.
    pub fn head_started(&self) -> bool {
        self.head_started
    }

    /// Puts a whole request in line.
    #[inline]
    pub fn append(&mut self, request: &[u8], entry: Entry) {
        if self.in_flight.is_empty() {
            // A request that comes from a lost connection is older than this one.
            self.progress_at = self.progress_at.max(entry.at);
        }
        self.ring.append(request);
        self.in_flight.push_back(entry);
        self.unwritten += 1;
    }

    /// Notes that all that was appended is written, at `now`. How many commands
    /// that were, and when the oldest of them had arrived.
    pub fn written_at(&mut self, now: u64) -> Option<(u32, u64)> {
        let count = std::mem::take(&mut self.unwritten);
        let oldest = self.in_flight.len().checked_sub(count as usize)?;
        let arrived = self.in_flight.get(oldest)?.at;
        self.batches.push_back(Batch { count, at: now });
        Some((count, arrived))
    }

    /// Tells how long the node took for the oldest `count` commands.
    fn measure<S: Sink>(&mut self, mut count: u32, now: u64, sink: &mut S) {
        while count > 0 {
            let Some(batch) = self.batches.front_mut() else {
                return;
            };
            let of_batch = batch.count.min(count);
            sink.took(now.saturating_sub(batch.at), of_batch);
            batch.count -= of_batch;
            count -= of_batch;
            if batch.count == 0 {
                self.batches.pop_front();
            }
        }
    }

    /// The last bytes of the request that was streamed are in the ring: from here on
    /// it is a command like any other, with the deadline of a slow one.
    pub fn end_stream(&mut self, now: u64) {
        self.streaming = false;
        self.mid_request = false;
        if let Some(entry) = self.in_flight.back_mut() {
            entry.marks = entry.marks.without(Marks::UNTIMED).with(Marks::SLOW);
            entry.at = now;
            // Nothing else is in the ring: a stream begins when all is answered.
            entry.len = self.ring.len() as u32;
        }
    }

    /// Forgets the commands that were answered before any byte was written: they
    /// must not reach the node any more.
    pub fn drop_answered(&mut self) {
        debug_assert_eq!(
            self.ring.written(),
            0,
            "only what was not written can be taken back"
        );
        let mut kept = Ring::default();
        let mut start = 0;
        self.in_flight.retain(|entry| {
            let len = entry.len as usize;
            let keep = !entry.marks.any(Marks::ANSWERED);
            if keep {
                kept.append(&self.ring.copy(start, len));
            }
            start += len;
            keep
        });
        self.ring = kept;
    }

    /// Writes what is unwritten, as far as the socket takes it.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Io::Socket(socket) = &mut self.io else {
            return Poll::Ready(Ok(0));
        };
        let mut total = 0;
        while self.ring.unwritten() > 0 {
            let slices = self.ring.slices();
            let n = match Pin::new(&mut *socket).poll_write_vectored(cx, &slices) {
                Poll::Ready(result) => result?,
                Poll::Pending => return Poll::Pending,
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.ring.advance(n);
            total += n;
        }
        if self.streaming {
            self.ring.forget_written();
        }
        if self.half_closing {
            ready!(Pin::new(socket).poll_shutdown(cx))?;
        }
        Poll::Ready(Ok(total))
    }

    /// Reads once into `scratch`. `Ok(0)` is the end of the stream.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Io::Socket(socket) = &mut self.io else {
            return Poll::Pending;
        };
        let mut buffer = tokio::io::ReadBuf::new(scratch);
        ready!(tokio::io::AsyncRead::poll_read(
            Pin::new(socket),
            cx,
            &mut buffer
        ))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Hands the replies in `input` to those who asked.
    ///
    /// # Errors
    /// When the bytes cannot be the replies to what was sent.
    pub fn receive<S: Sink>(&mut self, input: &[u8], now: u64, sink: &mut S) -> Result<(), Broken> {
        self.progress_at = now;
        let before = self.in_flight.len();
        let outcome = match self.mode {
            Mode::Shared => self.receive_shared(input, sink),
            Mode::Exclusive(owner) => self.receive_exclusive(owner, input, sink),
            Mode::Raw(owner) => {
                sink.pushed(owner, input);
                Ok(())
            }
        };
        self.measure((before - self.in_flight.len()) as u32, now, sink);
        outcome
    }

    fn receive_shared<S: Sink>(&mut self, input: &[u8], sink: &mut S) -> Result<(), Broken> {
        let mut acknowledged = 0;
        let result = self.receive_runs(input, sink, &mut acknowledged);
        self.ring.acknowledge(acknowledged);
        result
    }

    /// The hot loop: neighbouring replies to the same caller become one run.
    fn receive_runs<S: Sink>(
        &mut self,
        input: &[u8],
        sink: &mut S,
        acknowledged: &mut usize,
    ) -> Result<(), Broken> {
        let mut position = 0;
        let mut run = Run::default();
        while position < input.len() {
            let fed = self
                .scanner
                .feed(&input[position..])
                .map_err(Broken::Malformed)?;
            let end = position + fed.consumed;
            if !fed.complete {
                run.end(input, sink);
                return self.keep_part(&input[position..end], sink);
            }
            let Some(entry) = self.in_flight.pop_front() else {
                return Err(Broken::Unasked);
            };
            *acknowledged += entry.len as usize;
            if entry.marks.any(SPECIAL) || self.head_started || !self.carry.is_empty() {
                run.end(input, sink);
                self.deliver_special(&entry, &input[position..end], sink);
            } else {
                run.extend(&entry, position, end, input, sink);
            }
            position = end;
            if self
                .in_flight
                .front()
                .is_some_and(|next| next.marks.any(Marks::LOST))
            {
                run.end(input, sink);
                self.settle_lost(sink);
            }
        }
        run.end(input, sink);
        Ok(())
    }

    /// Tells the callers at the front whose commands were lost with an earlier
    /// connection; no reply will come for them.
    pub fn settle_lost<S: Sink>(&mut self, sink: &mut S) {
        while let Some(next) = self.in_flight.front() {
            if !next.marks.any(Marks::LOST) {
                break;
            }
            sink.lost(next);
            self.in_flight.pop_front();
        }
    }

    fn deliver_special<S: Sink>(&mut self, entry: &Entry, last: &[u8], sink: &mut S) {
        let carry = std::mem::take(&mut self.carry);
        let started = std::mem::take(&mut self.head_started);
        let joined;
        let bytes = if carry.is_empty() {
            last
        } else {
            joined = [carry.as_slice(), last].concat();
            &joined
        };
        if entry.marks.any(Marks::ANSWERED) {
            // The late reply of a request that was answered at its deadline.
        } else if entry.marks.any(Marks::LINK) {
            sink.link(entry.to, bytes);
        } else if entry.marks.any(Marks::WHOLE.with(Marks::SILENT)) && !started {
            sink.whole(entry, bytes);
        } else if entry.marks.any(Marks::SILENT) {
            sink.whole(entry, &[]);
        } else {
            sink.replies(entry.to, bytes, 1);
        }
    }

    /// The beginning of a reply: passed on if it is large, kept if it is small.
    fn keep_part<S: Sink>(&mut self, part: &[u8], sink: &mut S) -> Result<(), Broken> {
        let Some(head) = self.in_flight.front() else {
            return Err(Broken::Unasked);
        };
        let kept = self.carry.len() + part.len();
        if head.marks.any(Marks::ANSWERED.with(Marks::SILENT)) {
            self.carry.clear();
            self.head_started = true;
        } else if head.marks.any(Marks::WHOLE) {
            if kept > self.whole_max {
                return Err(Broken::TooLarge);
            }
            self.carry.extend_from_slice(part);
        } else if self.head_started || kept >= STREAM_FROM {
            let (to, link) = (head.to, head.marks.any(Marks::LINK));
            self.head_started = true;
            let carry = std::mem::take(&mut self.carry);
            for piece in [carry.as_slice(), part] {
                if link {
                    sink.link(to, piece);
                } else if !piece.is_empty() {
                    sink.part(to, piece);
                }
            }
        } else {
            self.carry.extend_from_slice(part);
        }
        Ok(())
    }

    /// One client's own connection: frames that answer a command are told from
    /// those that the node sends by itself.
    fn receive_exclusive<S: Sink>(
        &mut self,
        owner: Ticket,
        input: &[u8],
        sink: &mut S,
    ) -> Result<(), Broken> {
        let mut position = 0;
        while position < input.len() {
            let fed = self
                .scanner
                .feed(&input[position..])
                .map_err(Broken::Malformed)?;
            let piece = &input[position..position + fed.consumed];
            position += fed.consumed;
            if !fed.complete {
                // Whether it is a reply or a push is known from its first bytes,
                // but only a plain reply may be passed on in parts.
                let first = self.carry.first().or(piece.first()).copied();
                let plain = self.head_started
                    || (first.is_some_and(|byte| matches!(byte, b'$' | b'*' | b'%' | b'~'))
                        && !self.confirms
                        && self.carry.len() + piece.len() >= STREAM_FROM);
                if plain && !self.in_flight.is_empty() {
                    return self.keep_part(piece, sink);
                }
                if self.carry.len() + piece.len() > self.whole_max {
                    return Err(Broken::TooLarge);
                }
                self.carry.extend_from_slice(piece);
                return Ok(());
            }
            let joined;
            let frame = if self.carry.is_empty() {
                piece
            } else {
                joined = [std::mem::take(&mut self.carry).as_slice(), piece].concat();
                &joined
            };
            self.take_frame(owner, frame, sink)?;
        }
        Ok(())
    }

    fn take_frame<S: Sink>(
        &mut self,
        owner: Ticket,
        frame: &[u8],
        sink: &mut S,
    ) -> Result<(), Broken> {
        if self.head_started {
            let entry = self.in_flight.pop_front().ok_or(Broken::Unasked)?;
            self.ring.acknowledge(entry.len as usize);
            self.deliver_special(&entry, frame, sink);
            return Ok(());
        }
        let head = self.in_flight.front().copied();
        match Frame::of(frame, self.version, self.confirms) {
            Frame::Unasked => {
                sink.pushed(owner, frame);
                return Ok(());
            }
            Frame::Confirmation => {
                // A confirmation that nobody asked for: the server ended a
                // shard subscription by itself.
                if !head.is_some_and(|head| head.marks.any(Marks::SUBSCRIBE)) {
                    sink.pushed(owner, frame);
                    return Ok(());
                }
            }
            Frame::Reply => {}
        }
        let Some(entry) = self.in_flight.pop_front() else {
            return Err(Broken::Unasked);
        };
        self.ring.acknowledge(entry.len as usize);
        if entry.marks.any(Marks::EXEC) && frame.first() == Some(&b'-') {
            // The end of the transaction was refused: it may still be open.
            self.dirty = true;
        }
        if entry.marks.any(Marks::SUBSCRIBE) && frame.first() == Some(&b'-') {
            // One error answers all the channels that the command named.
            while self
                .in_flight
                .front()
                .is_some_and(|next| next.marks.any(Marks::SUBSCRIBE) && next.len == 0)
            {
                self.in_flight.pop_front();
                sink.whole(
                    &Entry {
                        marks: Marks::SILENT,
                        ..entry
                    },
                    &[],
                );
            }
        }
        if entry.marks.any(SPECIAL) {
            self.deliver_special(&entry, frame, sink);
        } else {
            sink.replies(entry.to, frame, 1);
        }
        Ok(())
    }
}

/// Marks that keep a reply out of a run.
const SPECIAL: Marks = Marks::ANSWERED
    .with(Marks::LINK)
    .with(Marks::WHOLE)
    .with(Marks::SILENT)
    .with(Marks::SUBSCRIBE);

/// Neighbouring replies to one session.
#[derive(Default)]
struct Run {
    to: Option<Ticket>,
    start: usize,
    stop: usize,
    count: u32,
}

impl Run {
    #[inline]
    fn extend<S: Sink>(
        &mut self,
        entry: &Entry,
        start: usize,
        stop: usize,
        input: &[u8],
        sink: &mut S,
    ) {
        if self.to == Some(entry.to) {
            self.stop = stop;
            self.count += 1;
            return;
        }
        self.end(input, sink);
        *self = Run {
            to: Some(entry.to),
            start,
            stop,
            count: 1,
        };
    }

    #[inline]
    fn end<S: Sink>(&mut self, input: &[u8], sink: &mut S) {
        if let Some(to) = self.to.take() {
            sink.replies(to, &input[self.start..self.stop], self.count);
        }
    }
}

/// What a whole frame on an exclusive connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Frame {
    /// Answers the oldest command.
    Reply,
    /// Confirms one channel of a `SUBSCRIBE` or its relatives.
    Confirmation,
    /// A message, an invalidation: belongs to no command.
    Unasked,
}

impl Frame {
    /// In RESP3 the type byte tells. In RESP2 only a subscribed client gets
    /// arrays that answer nothing, and it can ask for nothing else then.
    fn of(frame: &[u8], version: Version, confirms: bool) -> Frame {
        let is_push = frame.first() == Some(&b'>');
        let may_be_message = version == Version::Resp2 && confirms && frame.first() == Some(&b'*');
        if !is_push && !may_be_message {
            return Frame::Reply;
        }
        match first_bulk(frame) {
            Some(
                b"subscribe" | b"unsubscribe" | b"psubscribe" | b"punsubscribe" | b"ssubscribe"
                | b"sunsubscribe",
            ) => Frame::Confirmation,
            Some(b"message" | b"pmessage" | b"smessage") => Frame::Unasked,
            _ if is_push => Frame::Unasked,
            _ => Frame::Reply,
        }
    }
}

/// The first element of an aggregate of bulk strings.
pub fn first_bulk(frame: &[u8]) -> Option<&[u8]> {
    let header = memchr::memchr(b'\n', frame)? + 1;
    let rest = frame.get(header..)?;
    if rest.first() != Some(&b'$') {
        return None;
    }
    let line = memchr::memchr(b'\n', rest)? + 1;
    let len: usize = std::str::from_utf8(rest.get(1..line - 2)?)
        .ok()?
        .parse()
        .ok()?;
    rest.get(line..line + len)
}
