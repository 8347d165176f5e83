//! One connection to a node: requests go in at one end, replies come out in
//! the same order at the other, and each is handed to whoever asked.
//!
//! The connection is passive: a worker appends requests to it, flushes it once
//! per turn of its event loop, and gives it the bytes that were read. What
//! happens to a reply is the business of the [`Sink`] that the caller brings.

mod exclusive;
mod facts;
mod monitor;
mod sample;
mod shared;
mod sink;
mod slow;

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::AsyncWrite;
use tokio::task::AbortHandle;

use super::budget::{Kind, Link, Slot};
use super::credential::UserId;
use super::entry::{Entry, Marks, Ticket};
use super::node::{Gate, LargePermit};
use super::ring::Ring;
use crate::admission::LARGE_REPLY;
use crate::net::Stream;
use crate::resp::{ReplyScanner, Version};
pub use exclusive::first_bulk;
pub use facts::{is_about_node, is_demoted};
pub use sample::{Due, OneIn, SampledReply, Sampler};
pub use sink::{Broken, Sink};
pub use slow::{SlowReplies, SlowReply};

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
    Socket(Stream),
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
    /// The subscriptions of all clients of this user: what arrives is framed by whoever
    /// reads it.
    Feed(UserId),
}

/// What a connection keeps, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Held {
    /// Requests that have no reply yet.
    pub requests: usize,
    /// Memory taken by them and by the beginning of the next reply.
    pub memory: usize,
}

/// Replies that came since they were last counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Answered {
    /// How many.
    pub count: u32,
    /// Of these, to commands of the slow class.
    pub heavy: u32,
    /// When the last of the other commands had arrived, in microseconds; 0 if there is none.
    pub newest: u64,
}

/// A connection, or the promise of one.
#[derive(Debug)]
pub struct Conn {
    /// What carries the bytes.
    pub io: Io,
    /// Its worker's gate in front of the node: an index.
    pub admission: u16,
    /// Replies to be counted.
    pub answered: Answered,
    /// Replies that came late.
    pub slow: SlowReplies,
    /// Which replies are looked at; its worker's, for [`Conn::receive`].
    pub sampler: Sampler,
    /// Those that were.
    pub sampled: Vec<SampledReply>,
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
    /// When the node last sent something over it; 0 if it never did.
    pub heard_at: u64,
    /// Whether its node gets commands.
    pub gate: Gate,
    /// Replies that came over it since somebody counted, and the time they took.
    pub answers: u64,
    /// Microseconds that the node took for those.
    pub answer_micros: u64,
    /// No new commands: closes when the last reply has arrived.
    pub retiring: bool,
    /// Errors that say what the node is are looked at: there may be another node.
    pub heeds: bool,
    /// Its state may have changed: closes instead of being used again.
    pub dirty: bool,
    /// In the worker's list of connections to flush.
    pub queued: bool,
    /// Its client has half-closed: so does Weir once all is written.
    pub half_closing: bool,
    /// A subscription command was sent on it: in RESP2, arrays may be messages.
    pub confirms: bool,
    /// It is a `MONITOR`'s: Weir's own commands are left out of what it says.
    pub monitors: bool,
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
    /// What it is known to hold.
    pub charged: Held,
    /// Woken when its client has read enough for the node to be read again.
    pub reader: Option<Waker>,
    /// Whose it is, if it carries clients that wait: the lobby, and which of its
    /// connections.
    pub lobby: Option<Ticket>,
    /// The id that the node knows it by, if it told.
    pub backend_id: Option<i64>,
    /// The large reply that it carries may be asked for.
    pub large: Option<LargePermit>,
    /// Over it come replies for a worker that is behind: what is on its way there, in bytes.
    pub backlog: Option<Arc<AtomicUsize>>,
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
    /// How many bytes those had.
    streamed: usize,
    /// How many bytes it has at least: those that have come, or what its header says; 0 if it
    /// came in one piece so far.
    head_bytes: u64,
    /// From so many on somebody is to be told.
    head_told_from: u64,
    /// How many commands had no reply when the last read began.
    before_read: usize,
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
            admission: 0,
            answered: Answered::default(),
            slow: SlowReplies::default(),
            sampler: Sampler::default(),
            sampled: Vec::new(),
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
            heard_at: 0,
            gate: Gate::default(),
            answers: 0,
            answer_micros: 0,
            retiring: false,
            heeds: false,
            dirty: false,
            queued: false,
            half_closing: false,
            confirms: false,
            monitors: false,
            streaming: false,
            mid_request: false,
            probing: false,
            charged: Held::default(),
            probed_at_progress: 0,
            probe_again_at: 0,
            reader: None,
            lobby: None,
            backend_id: None,
            large: None,
            backlog: None,
            tasks: Vec::new(),
            whole_max: 64 * 1024 * 1024,
            scanner: ReplyScanner::default(),
            batches: VecDeque::new(),
            unwritten: 0,
            carry: Vec::new(),
            head_started: false,
            head_bytes: 0,
            head_told_from: LARGE_REPLY,
            streamed: 0,
            before_read: 0,
        }
    }

    /// What it holds.
    #[inline]
    pub fn held(&self) -> Held {
        Held {
            requests: self.ring.len(),
            memory: self.ring.capacity() + self.carry.capacity(),
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

    /// Whether the oldest reply is large, and this was not noted yet or it has become twice
    /// as large since.
    #[inline]
    pub fn has_large_head(&self) -> bool {
        self.head_bytes >= self.head_told_from
    }

    /// Notes it. How many bytes it has at least.
    pub fn note_head(&mut self) -> u64 {
        self.head_told_from = self.head_bytes.saturating_mul(2).max(LARGE_REPLY);
        self.head_bytes
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
            let micros = now.saturating_sub(batch.at);
            sink.took(micros, of_batch);
            self.answers += u64::from(of_batch);
            self.answer_micros += micros * u64::from(of_batch);
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

    /// Passes bytes of a streamed request on: straight to the socket if nothing is
    /// waiting before them. What the socket does not take is flushed later, and so is
    /// its error met.
    pub fn stream(&mut self, bytes: &[u8]) {
        let mut taken = 0;
        if self.ring.is_empty()
            && let Io::Socket(socket) = &mut self.io
        {
            taken = socket.try_write(bytes).unwrap_or(0);
        }
        self.ring.append(&bytes[taken..]);
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
            if self.streaming {
                self.ring.forget_written();
            }
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
        self.heard_at = now;
        let (before, counted) = (self.in_flight.len(), self.answered.count);
        self.before_read = before;
        let outcome = match self.mode {
            Mode::Shared => self.receive_shared(input, sink),
            Mode::Exclusive(owner) => self.receive_exclusive(owner, input, sink),
            Mode::Raw(owner) if self.monitors => self.receive_monitor(owner, input, sink),
            Mode::Raw(owner) => {
                sink.pushed(owner, input);
                Ok(())
            }
            Mode::Feed(_) => unreachable!("a feed's bytes are not replies"),
        };
        let count = match self.mode {
            // Commands that were only to be told what became of them had no reply.
            Mode::Shared => self.answered.count - counted,
            _ => (before - self.in_flight.len()) as u32,
        };
        self.measure(count, now, sink);
        outcome
    }
}
