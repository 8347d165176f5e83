//! One worker: a thread's sessions, its connections to nodes, and the tasks
//! that move bytes between them.
//!
//! All state of a worker is in one [`State`] behind one `RefCell`, entered once
//! per poll of a task and never across an await. The hot path is a chain of
//! plain function calls: a client's task reads, frames, appends to a shared
//! connection; one flush task, woken by the first append, runs after the
//! clients that were ready and writes each connection once; the task that reads
//! replies writes them to the clients' sockets itself.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hashbrown::HashMap;
use slab::Slab;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use super::access::AccessRule;
use super::client::{Flags, HALTED, Session};
use super::drain::Drain;
use super::feed::Fanout;
use super::gate::NodeGate;
use super::lanes::Lane;
use super::links::Link;
use super::memory::Memory;
use super::proxy::{Proxy, Route};
use super::rates::Meters;
use crate::backend::{Broken, Conn, Node, Partition, Ticket};
use crate::command::Table;
use crate::config::{self, Config};
use crate::discovery::Snapshot;
use crate::metrics::{CloseReason, WorkerMetrics};
use crate::resp::Span;
use crate::router::NodeId;

/// One read takes at most this much from a client or a node, in bytes.
const SCRATCH: usize = 256 * 1024;

/// The same from a client with the first read: it may not be able to go on with all of
/// it, and what it can not go on with is kept.
const READ_AT_FIRST: usize = 64 * 1024;

/// The same when memory is tight, or when it is known that the client may not go on.
const READ_WHEN_TIGHT: usize = 16 * 1024;

/// How often a socket is read before others have their turn.
const READS_MAX: usize = 4;

/// A worker as its tasks see it.
pub struct Worker {
    state: RefCell<State>,
}

/// One route as one worker sees it.
pub struct Front {
    /// What all workers share of it.
    pub route: Arc<Route>,
    /// The node that commands go to: the primary, or the one that was it last.
    pub node: Arc<Node>,
    /// All nodes behind the route; refreshed when they change.
    pub snapshot: Arc<Snapshot>,
    /// Since when that is it, by the worker's clock.
    pub primary_since: u64,
    /// Commands or sessions wait for a primary.
    pub is_holding: bool,
    /// How many began to since the worker last told; see [`Front::tell_held`].
    pub held: u64,
    /// How many wait now.
    pub holds: usize,
    /// The sessions among those whose command is still in their input.
    pub waiting: Vec<Ticket>,
    /// The route's settings; refreshed when they change.
    pub config: Arc<config::Route>,
    /// The command table in force; refreshed when the node's changes.
    pub table: Arc<Table>,
    /// What its clients may not do.
    pub access: Vec<AccessRule>,
    /// What this worker counts on this route.
    pub metrics: Arc<WorkerMetrics>,
    /// How long a client may idle now, by how full it is.
    pub idle_timeout: Duration,
    /// Places are getting scarce: who could go is to be noted.
    pub wants_offers: bool,
    /// `CLIENT PAUSE` in force.
    pub pause: Option<super::pause::Pause>,
    /// Whose commands it holds.
    pub paused: super::pause::Paused,
    /// Commands that may need memory of the node are refused, of some clients at least, as of
    /// the last tick.
    pub refuses_growth: bool,
    /// Who logs in, one after the other.
    pub logins: Option<tokio::sync::mpsc::Sender<super::login::Login>>,
}

/// All state of one worker.
pub struct State {
    pub(super) me: Weak<Worker>,
    /// Which worker this is.
    pub index: usize,
    pub(super) proxy: Arc<Proxy>,
    /// The settings of the whole process; refreshed when they change.
    pub(super) settings: Arc<Config>,
    pub(super) fronts: Vec<Front>,
    pub(super) sessions: Slab<Session>,
    pub(super) conns: Slab<Conn>,
    pub(super) conn_generation: u32,
    pub(super) lanes: Slab<Lane>,
    pub(super) lane_index: HashMap<(u16, NodeId, Partition), u32>,
    pub(super) gates: Slab<NodeGate>,
    /// What clients have left of the rates that are about them.
    pub(super) meters: Meters,
    pub(super) links: Slab<Link>,
    pub(super) link_index: HashMap<(usize, u32, u32), u32>,
    /// Where clients wait on shared connections.
    pub(super) lobbies: super::lobby::Lobbies,
    /// Sessions that can go on with what is in their input.
    pub(super) ready: Vec<Ticket>,
    /// Sessions whose socket did not take all of their output.
    pub(super) blocked_writers: Vec<Ticket>,
    /// Connections with something to write.
    pub(super) dirty: Vec<u32>,
    /// Links with replies to hand back.
    pub(super) dirty_links: Vec<u32>,
    flush_waker: Option<Waker>,
    scratch: Box<[u8]>,
    pub(super) spans: Vec<Span>,
    pub(super) clock: Clock,
    pub(super) refused_now: usize,
    /// Who could be closed to make room.
    pub(super) found: super::room::Found,
    /// There are offers of this worker's.
    pub(super) has_offered: bool,
    /// What is kept of sessions whose commands a node has refused.
    pub(super) stashes: HashMap<(u32, u32), super::refused::Stash>,
    /// Ticks so far.
    pub(super) tick: usize,
    /// When the last one was, and whether this one is so late that the worker, or the
    /// machine, must have stood still.
    pub(super) ticked_at: u64,
    /// See `ticked_at`.
    pub(super) late_tick: bool,
    /// What is kept for clients.
    pub(super) memory: Memory,
    /// How many entries of the slow log it may make.
    pub(super) slow_pace: super::slow::SlowPace,
    /// Which reply is looked at next for the key that it is about.
    pub(super) sampler: crate::backend::Sampler,
    /// Which of Weir's own answers is traced next.
    pub(super) traced: super::trace::Traced,
    /// Feeds, and who is subscribed over them.
    pub(super) pubsub: Fanout,
    /// No new clients are taken; those that are idle are closed.
    pub(super) draining: Option<Drain>,
}

/// The worker's clock: read once per turn of the event loop.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    now: u64,
    fresh: bool,
}

impl Clock {
    fn new(start: Instant) -> Clock {
        Clock {
            start,
            now: 1,
            fresh: false,
        }
    }

    /// Microseconds since the process started, as of this turn; never 0.
    #[inline]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// The time right now and not as of this turn.
    pub fn exact(&self) -> u64 {
        self.start.elapsed().as_micros() as u64 + 1
    }

    fn read(&mut self) {
        self.now = self.start.elapsed().as_micros() as u64 + 1;
        self.fresh = true;
    }
}

impl Worker {
    /// A worker with nothing to do yet. Spawns its tasks: must be called on the
    /// worker's own runtime.
    pub fn start(index: usize, proxy: Arc<Proxy>) -> Rc<Worker> {
        let fronts = proxy
            .routes
            .iter()
            .map(|route| (route, route.deployment.snapshot()))
            .map(|(route, snapshot)| Front {
                access: AccessRule::all(&route.settings(), &snapshot.primary().table()),
                table: snapshot.primary().table(),
                config: route.settings(),
                node: snapshot.primary().clone(),
                snapshot,
                primary_since: 0,
                is_holding: false,
                held: 0,
                holds: 0,
                waiting: Vec::new(),
                metrics: route.metrics[index].clone(),
                route: route.clone(),
                idle_timeout: Duration::ZERO,
                wants_offers: false,
                pause: None,
                paused: Default::default(),
                refuses_growth: false,
                logins: None,
            })
            .collect();
        let start = proxy.started;
        let settings = proxy.settings();
        let buffer_max = settings.process.buffer_memory_max as usize;
        let memory = Memory::new(buffer_max, proxy.workers());
        let worker = Rc::new_cyclic(|me| Worker {
            state: RefCell::new(State {
                me: me.clone(),
                index,
                proxy,
                settings,
                fronts,
                sessions: Slab::new(),
                conns: Slab::new(),
                conn_generation: 0,
                lanes: Slab::new(),
                lane_index: HashMap::new(),
                gates: Slab::new(),
                meters: Meters::default(),
                links: Slab::new(),
                link_index: HashMap::new(),
                lobbies: super::lobby::Lobbies::default(),
                ready: Vec::new(),
                blocked_writers: Vec::new(),
                dirty: Vec::new(),
                dirty_links: Vec::new(),
                flush_waker: None,
                scratch: vec![0; SCRATCH].into_boxed_slice(),
                spans: Vec::new(),
                clock: Clock::new(start),
                refused_now: 0,
                found: Default::default(),
                has_offered: false,
                stashes: HashMap::new(),
                tick: 0,
                ticked_at: 0,
                late_tick: false,
                memory,
                slow_pace: Default::default(),
                sampler: Default::default(),
                traced: Default::default(),
                pubsub: Fanout::default(),
                draining: None,
            }),
        });
        worker.enter(State::take_sampling);
        tokio::task::spawn_local(unconstrained(FlushTask {
            worker: worker.clone(),
        }));
        tokio::task::spawn_local(tick(worker.clone()));
        worker
    }

    /// Goes into the worker's state, and settles what that set going.
    pub fn enter<R>(&self, visit: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.borrow_mut();
        state.begin_turn();
        let result = visit(&mut state);
        state.settle();
        result
    }
}

/// A future exempt from tokio's cooperative budget: it polls many sockets, and
/// every one of them is polled to its end.
fn unconstrained<F: Future>(future: F) -> impl Future<Output = F::Output> {
    tokio::task::coop::unconstrained(future)
}

impl State {
    /// The worker, for a task that is about to be spawned.
    pub(super) fn worker(&self) -> Rc<Worker> {
        self.me
            .upgrade()
            .expect("the state is reached only through its worker")
    }

    /// Reads the clock if this is the first step of a turn. The flush task ends
    /// the turn.
    #[inline]
    fn begin_turn(&mut self) {
        if !self.clock.fresh {
            self.clock.read();
            if let Some(waker) = self.flush_waker.take() {
                waker.wake();
            }
        }
    }

    /// The session that a ticket names, unless it has gone.
    pub(super) fn session(&mut self, ticket: Ticket) -> Option<&mut Session> {
        self.sessions
            .get_mut(ticket.slot as usize)
            .filter(|session| session.id as u32 == ticket.generation)
    }

    /// The connection that a ticket names, unless it has gone.
    pub(super) fn conn(&mut self, ticket: Ticket) -> Option<&mut Conn> {
        self.conns
            .get_mut(ticket.slot as usize)
            .filter(|conn| conn.generation == ticket.generation)
    }

    /// Has the connection flushed at the end of this turn.
    #[inline]
    pub(super) fn mark_dirty(&mut self, conn: u32) {
        let connection = &mut self.conns[conn as usize];
        if !connection.queued {
            connection.queued = true;
            if let Some(slot) = &connection.slot {
                slot.set_busy();
            }
            self.dirty.push(conn);
        }
    }

    /// A client's socket is readable.
    fn poll_session(&mut self, ticket: Ticket, cx: &mut Context<'_>) -> Poll<()> {
        for read in 0..READS_MAX {
            let is_tight = self.memory.is_tight();
            let mut scratch = std::mem::take(&mut self.scratch);
            let Some(session) = self.session(ticket) else {
                self.scratch = scratch;
                return Poll::Ready(());
            };
            if session.flags.any(Flags::READ_PAUSED) {
                session.extra().waker = Some(cx.waker().clone());
                self.scratch = scratch;
                return Poll::Pending;
            }
            let room = match read {
                _ if is_tight => READ_WHEN_TIGHT,
                _ if session.flags.any(HALTED) => READ_WHEN_TIGHT,
                0 => READ_AT_FIRST,
                _ => scratch.len(),
            };
            let mut buffer = ReadBuf::new(&mut scratch[..room]);
            let outcome = Pin::new(&mut session.socket).poll_read(cx, &mut buffer);
            let n = buffer.filled().len();
            match outcome {
                Poll::Pending => {
                    self.scratch = scratch;
                    return Poll::Pending;
                }
                Poll::Ready(Ok(())) if n > 0 => self.on_input(ticket, &scratch[..n]),
                Poll::Ready(Ok(())) => {
                    self.scratch = scratch;
                    self.on_end_of_input(ticket);
                    return Poll::Ready(());
                }
                Poll::Ready(Err(_)) => self.close(ticket.slot, CloseReason::ByClient),
            }
            self.scratch = scratch;
        }
        // There is more, and others have their turn first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// A connection to a node is readable.
    fn poll_conn(&mut self, ticket: Ticket, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let outcome = self.read_conn(ticket, cx, &mut scratch);
        self.scratch = scratch;
        outcome
    }

    fn read_conn(&mut self, ticket: Ticket, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<()> {
        for _ in 0..READS_MAX {
            self.make_room();
            let Some(conn) = self.conns.get(ticket.slot as usize) else {
                return Poll::Ready(());
            };
            if conn.generation != ticket.generation {
                return Poll::Ready(());
            }
            let full = self.owner_is_full(conn) || self.is_backlogged(ticket.slot);
            let conn = &mut self.conns[ticket.slot as usize];
            if full {
                // Only this client's own connection waits for it; or another worker is behind.
                conn.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            match conn.poll_read(cx, scratch) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => self.conn_lost(ticket.slot, &Broken::Closed),
                Poll::Ready(Ok(n)) => self.on_replies(ticket.slot, &scratch[..n]),
                Poll::Ready(Err(error)) => self.conn_lost(ticket.slot, &Broken::Io(error)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ends a turn: writes each connection that has something to write, once.
    fn poll_flush(&mut self, cx: &mut Context<'_>) {
        let now = self.clock.start.elapsed().as_micros() as u64 + 1;
        let mut blocked = Vec::new();
        // A flush can let a session go on that then has more to send.
        while !self.dirty.is_empty() {
            let mut dirty = std::mem::take(&mut self.dirty);
            for index in dirty.drain(..) {
                if self.flush_one(index, now, cx) {
                    blocked.push(index);
                }
            }
            if self.dirty.is_empty() {
                self.dirty = dirty;
            }
            self.settle();
        }
        self.dirty.append(&mut blocked);
        self.hand_back_replies();
        self.clock.fresh = false;
        self.flush_waker = Some(cx.waker().clone());
    }

    /// Whether the connection has still something to write.
    fn flush_one(&mut self, index: u32, now: u64, cx: &mut Context<'_>) -> bool {
        let Some(conn) = self.conns.get_mut(index as usize) else {
            return false;
        };
        if !conn.queued {
            return false;
        }
        let blocked = match conn.poll_flush(cx) {
            Poll::Ready(Ok(n)) => {
                let metrics = &self.fronts[self.lanes[conn.lane as usize].route as usize].metrics;
                metrics.backend_bytes_out.add(n as u64);
                metrics.flushes.add(1);
                false
            }
            Poll::Ready(Err(error)) => {
                conn.queued = false;
                self.conn_lost(index, &Broken::Io(error));
                return false;
            }
            Poll::Pending => true,
        };
        if !blocked {
            conn.queued = false;
            if let Some((count, arrived)) = conn.written_at(now) {
                let metrics = &self.fronts[conn.route as usize].metrics;
                metrics.backend_commands.add(u64::from(count));
                metrics
                    .own_time
                    .record_n(now.saturating_sub(arrived), u64::from(count));
            }
            self.after_flush(index);
        }
        self.recount_conn_memory(index);
        blocked
    }

    /// Lets sessions go on whose wait is over, until none is left.
    fn settle(&mut self) {
        while let Some(ticket) = self.ready.pop() {
            self.go_on(ticket);
        }
        while let Some(ticket) = self.blocked_writers.pop() {
            let worker = self.worker();
            tokio::task::spawn_local(WriterTask { worker, ticket });
        }
        self.make_room();
    }
}

/// Reads one client. Holds little more than an index: a thousand of these are
/// nothing beside their sockets.
pub(super) struct ClientTask {
    pub worker: Rc<Worker>,
    pub ticket: Ticket,
}

impl Future for ClientTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.worker
            .enter(|state| state.poll_session(self.ticket, cx))
    }
}

/// Reads one connection to a node.
pub(super) struct ConnTask {
    pub worker: Rc<Worker>,
    pub ticket: Ticket,
}

impl Future for ConnTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.worker.enter(|state| state.poll_conn(self.ticket, cx))
    }
}

/// Writes to the nodes, once per turn.
struct FlushTask {
    worker: Rc<Worker>,
}

impl Future for FlushTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.worker.state.borrow_mut().poll_flush(cx);
        Poll::Pending
    }
}

/// Writes to a client whose socket was full.
struct WriterTask {
    worker: Rc<Worker>,
    ticket: Ticket,
}

impl Future for WriterTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.worker.enter(|state| state.poll_write(self.ticket, cx))
    }
}

/// How often deadlines are looked at. Deadlines are seconds; a wake-up costs a
/// few microseconds.
const TICK: Duration = Duration::from_millis(25);

async fn tick(worker: Rc<Worker>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        worker.enter(State::on_tick);
    }
}
