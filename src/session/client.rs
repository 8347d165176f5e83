//! What Weir remembers of one client. A quiet client costs little more than
//! this struct: buffers are empty and everything uncommon is behind one box.

use std::sync::Arc;
use std::task::Waker;

use hashbrown::HashSet;
use tokio::task::AbortHandle;

use super::effect::Effect;
use super::misses::Misses;
use super::outbox::Outbox;
use super::pause::AskedPause;
use super::redirect::Redirect;
use super::registry::Census;
use super::reply_size::ReplySize;
use super::subscribe::Subscriber;
use super::waiting::{Elsewhere, SharedWait};
use crate::admission::{ClientPermit, Priority, Terms};
use crate::backend::{Partition, Ticket, User, UserId};
use crate::blocking::OwnPlace;
use crate::config::ReadFrom;
use crate::metrics::CloseReason;
use crate::net::tls::TlsIdentity;
use crate::net::{Peer, Stream};
use crate::pubsub::{Name, Space};
use crate::resp::PartialRequest;

/// A client is quiet when nothing came or went for this long, in microseconds:
/// longer than between two large replies, much shorter than a visit.
const QUIET_AFTER: u64 = 200_000;

/// "No connection" in a field that usually names one.
pub const NONE: u32 = u32::MAX;

/// Facts about a session that are asked for with every command, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(u32);

impl Flags {
    /// The client has sent its last byte; replies that are due still go out.
    pub const EOF: Flags = Flags(1);
    /// Closes as soon as the output is written.
    pub const CLOSING: Flags = Flags(1 << 1);
    /// Something asynchronous decides how the next command goes on.
    pub const WAITING: Flags = Flags(1 << 2);
    /// The next command waits until every earlier reply has arrived.
    pub const BARRIER: Flags = Flags(1 << 3);
    /// `CLIENT REPLY OFF`.
    pub const REPLY_OFF: Flags = Flags(1 << 4);
    /// `CLIENT REPLY SKIP` was the last request.
    pub const SKIP_NEXT: Flags = Flags(1 << 5);
    /// Over the client limit: the first real command is answered with the refusal.
    pub const REFUSED: Flags = Flags(1 << 6);
    /// A task waits for the socket to take more output.
    pub const WRITING: Flags = Flags(1 << 7);
    /// The socket is not read until something has drained.
    pub const READ_PAUSED: Flags = Flags(1 << 8);
    /// Has a lease, a transaction, subscriptions: not on the straight path.
    pub const SPECIAL: Flags = Flags(1 << 9);
    /// In the worker's list of sessions to go on with.
    pub const READY: Flags = Flags(1 << 10);
    /// Must log in before anything else.
    pub const LOCKED_OUT: Flags = Flags(1 << 11);
    /// The rest of a large request is streamed through to the lease.
    pub const UPLOADING: Flags = Flags(1 << 12);
    /// Everything is passed through to the lease as it is.
    pub const TUNNEL: Flags = Flags(1 << 13);
    /// The identity may have changed: the lane has to be looked up again.
    pub const MOVED: Flags = Flags(1 << 14);
    /// Held by `CLIENT PAUSE`.
    pub const PAUSED: Flags = Flags(1 << 15);
    /// Access rules are about it: each command is looked at.
    pub const GUARDED: Flags = Flags(1 << 20);
    /// A command was refused; so is what its client had sent behind it at once.
    pub const REFUSING: Flags = Flags(1 << 16);
    /// A rate by rule is about it.
    pub const METERED: Flags = Flags(1 << 23);
    /// The command at the front of its input was paid for.
    pub const PAID: Flags = Flags(1 << 24);
    /// Not all of its reads go to the primary.
    pub const BALANCED: Flags = Flags(1 << 22);
    /// Its barrier is a drain's as well: what is in its input when that falls has waited for
    /// nothing but replies.
    pub const LEAVING: Flags = Flags(1 << 25);
    /// Waits for a primary.
    pub const HELD: Flags = Flags(1 << 17);
    /// The node has refused commands of it; they are looked at when all that is under way
    /// was answered.
    pub const STASHED: Flags = Flags(1 << 18);

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Without those of `other`.
    #[must_use]
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }

    /// Whether any of `other` is set.
    #[inline]
    pub const fn any(self, other: Flags) -> bool {
        self.0 & other.0 != 0
    }

    /// Sets those of `other`.
    #[inline]
    pub fn set(&mut self, other: Flags) {
        self.0 |= other.0;
    }

    /// Clears those of `other`.
    #[inline]
    pub fn clear(&mut self, other: Flags) {
        self.0 &= !other.0;
    }
}

/// While one of these is set, no further command is taken from the input.
pub const HALTED: Flags = Flags::CLOSING.with(Flags::WAITING).with(Flags::BARRIER);

/// While none of these is set, a plain command goes straight to the lane.
pub const OFF_THE_STRAIGHT_PATH: Flags = Flags::REPLY_OFF
    .with(Flags::SKIP_NEXT)
    .with(Flags::REFUSED)
    .with(Flags::SPECIAL)
    .with(Flags::LOCKED_OUT)
    .with(Flags::UPLOADING)
    .with(Flags::TUNNEL)
    .with(Flags::MOVED)
    .with(Flags::GUARDED)
    .with(Flags::REFUSING)
    .with(Flags::BALANCED)
    .with(Flags::METERED)
    .with(HALTED);

/// The same for a session that a rate is about.
pub const OFF_THE_METERED_PATH: Flags = OFF_THE_STRAIGHT_PATH.without(Flags::METERED);

/// The same for a session whose reads do not all go to the primary.
pub const OFF_ANY_STRAIGHT_PATH: Flags = OFF_THE_STRAIGHT_PATH
    .without(Flags::BALANCED)
    .without(Flags::MOVED);

/// One client connection.
#[derive(Debug)]
pub struct Session {
    /// The client's socket.
    pub socket: Stream,
    /// The id that `CLIENT ID` tells; never given twice in a process.
    pub id: u64,
    /// The client's address.
    pub peer: Peer,
    /// Index of its route.
    pub route: u16,
    /// Which of the route's listeners it came in through, by their order.
    pub listener: u16,
    /// See [`Flags`].
    pub flags: Flags,
    /// The access rules that are about it, by their numbers, as bits.
    pub guards: u32,
    /// Commands taken whose replies have not arrived.
    pub in_flight: u32,
    /// Bytes of its commands since none was under way.
    pub under_way: u64,
    /// Of its commands, the ones that wait in a lane's lines and are on no connection yet.
    pub queued: u32,
    /// The lane in whose lines they wait, if there are any: all in one.
    pub line: u32,
    /// Who is served first when the node has too much to do.
    pub priority: Priority,
    /// Where those were sent that do not wait; [`NONE`] if there are none.
    pub conn: u32,
    /// The lane that plain commands take; [`NONE`] before the first one.
    pub lane: u32,
    /// The lane that its reads take, if not the same; [`NONE`] before the first one.
    pub reader: u32,
    /// When it had written last and was answered, in microseconds; 0 if what it reads
    /// does not depend on that.
    pub wrote_at: u64,
    /// User, protocol version, database: what Redis keeps for a connection.
    pub partition: Partition,
    /// As whom its commands run; keeps the credential known.
    pub user: User,
    /// The last command, for `CLIENT LIST`: a row of the table.
    pub command: u16,
    /// When it last sent or was sent something, in microseconds.
    pub active_at: u64,
    /// When it was accepted, in microseconds.
    pub accepted_at: u64,
    /// Bytes received and not yet taken as commands.
    pub input: Vec<u8>,
    /// Bytes that the socket has not taken yet.
    pub output: Outbox,
    /// Bytes of memory that it is known to hold.
    pub charged: usize,
    /// How large its replies are, so that no more of its commands are under way than
    /// the output can take the replies of.
    pub replies: ReplySize,
    /// Everything uncommon.
    pub extra: Option<Box<Extra>>,
    /// Its place among the clients; `None` for one that is being refused.
    pub permit: Option<ClientPermit>,
    /// The task that reads it.
    pub task: AbortHandle,
}

impl Session {
    /// How others name this session.
    pub fn ticket(&self, slot: u32) -> Ticket {
        Ticket {
            slot,
            generation: self.id as u32,
        }
    }

    /// A command of so many bytes is under way.
    #[inline]
    pub fn took(&mut self, bytes: usize) {
        let before = if self.in_flight == 0 {
            0
        } else {
            self.under_way
        };
        self.under_way = before + bytes as u64;
        self.in_flight += 1;
    }

    /// The uncommon part, made when first needed.
    pub fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// The request at the front has to be looked at from its beginning again.
    pub fn forget_partial(&mut self) {
        if let Some(extra) = &mut self.extra {
            extra.partial = None;
            if !extra.collected.is_empty() {
                extra.collected.move_to(&mut self.input);
            }
        }
    }

    /// A request that was taken is the next one again.
    pub fn put_back(&mut self, request: Vec<u8>) {
        self.flags.clear(Flags::LEAVING);
        self.forget_partial();
        self.input.splice(0..0, request);
    }

    /// Whether a connection is this session's own.
    pub fn holds(&self, conn: u32) -> bool {
        self.extra.as_deref().is_some_and(|extra| {
            extra.receiver == Some(conn) || extra.lease.is_some_and(|lease| lease.conn == conn)
        })
    }

    /// Its own connection to a node, if it has one.
    pub fn lease(&self) -> Option<u32> {
        self.extra
            .as_ref()
            .and_then(|extra| extra.lease)
            .map(|lease| lease.conn)
    }

    /// A client that has been quiet for a moment owns no buffer.
    pub fn shrink_if_quiet(&mut self, now: u64) {
        if now.saturating_sub(self.active_at) > QUIET_AFTER {
            self.shrink();
        }
    }

    /// Gives back what its buffers do not need.
    pub fn shrink(&mut self) {
        self.input.shrink_to_fit();
    }

    /// Whether it is being refused, but could be somebody for whom a place is kept.
    pub fn may_be_kept_a_place(&self) -> bool {
        self.flags.any(Flags::REFUSED)
            && self
                .extra
                .as_deref()
                .is_some_and(|extra| extra.may_be_kept_a_place)
    }

    /// Whether it may be closed for being idle. As in Redis, a client that is
    /// blocked, subscribed or in a transaction is not idle.
    pub fn may_be_reaped(&self) -> bool {
        self.in_flight == 0
            && self.output.is_empty()
            && !self.flags.any(
                Flags::WAITING
                    .with(Flags::SPECIAL)
                    .with(Flags::TUNNEL)
                    .with(Flags::UPLOADING),
            )
    }
}

/// The uncommon part of a session.
#[derive(Debug, Default)]
pub struct Extra {
    /// What the rules about it say of its commands.
    pub terms: Terms,
    /// The accounts of this worker by which its rate is kept.
    pub meters: Box<[u32]>,
    /// `CLIENT SETNAME`.
    pub name: Vec<u8>,
    /// `CLIENT SETINFO lib-name`.
    pub lib_name: Vec<u8>,
    /// `CLIENT SETINFO lib-ver`.
    pub lib_version: Vec<u8>,
    /// Who it is by the certificate that it has shown and that was found good.
    pub tls_identity: Option<Arc<TlsIdentity>>,
    /// `READONLY` or `READWRITE`: where it wants its reads to go.
    pub reads: Option<ReadFrom>,
    /// `CLIENT NO-EVICT on`.
    pub no_evict: bool,
    /// The user it logged in as, as the client wrote it; empty for `default`.
    pub user: Vec<u8>,
    /// The connection that it holds alone.
    pub lease: Option<Lease>,
    /// Since when it waits, or has waited, for a lease, in microseconds; 0 if the
    /// command at the front did not have to.
    pub lease_asked_at: u64,
    /// While it waits for a lease: dropped, it loses its place in line.
    pub keeps_place: Option<tokio::sync::oneshot::Sender<()>>,
    /// Its place among those that block on a connection of their own.
    pub own_place: Option<OwnPlace>,
    /// It waits in a lobby.
    pub shared_wait: Option<SharedWait>,
    /// It waits in line for a place; sent whether `CLIENT UNBLOCK` wants an error.
    pub in_line: Option<tokio::sync::oneshot::Sender<bool>>,
    /// Since when it has waited in line for its place, in microseconds; 0 if it did not.
    pub line_since: u64,
    /// The blocking command at the front was sent back from the lobby.
    pub elsewhere: Elsewhere,
    /// It may ask for a large reply, and waits for a connection.
    pub large: Option<crate::backend::LargePermit>,
    /// Where it is in a transaction.
    pub transaction: Transaction,
    /// What it is subscribed to.
    pub subscriptions: Subscriptions,
    /// What it asks of its feed, and what its messages wait for.
    pub subscriber: Subscriber,
    /// Client-side caching is on.
    pub tracking: bool,
    /// Whom its invalidations go to, if not itself.
    pub redirect: Option<Redirect>,
    /// The connection that they come over; see [`super::redirect`].
    pub receiver: Option<u32>,
    /// The `CLIENT PAUSE` that Redis has not answered.
    pub asked_pause: Option<Box<AskedPause>>,
    /// The redirection at the front of the input can go ahead.
    pub redirect_checked: bool,
    /// What is to be written once the reply under way is over.
    pub held_pushes: Vec<u8>,
    /// Answers that were made up for commands which had waited in line behind others of
    /// its own: one for each place among its replies that is kept for one, in order.
    pub misses: Misses,
    /// `MONITOR` is on.
    pub monitoring: bool,
    /// Woken to read again after [`Flags::READ_PAUSED`].
    pub waker: Option<Waker>,
    /// Progress through the request at the front whose bytes are still coming: what
    /// has been looked at is not looked at again with every piece that arrives.
    pub partial: Option<PartialRequest>,
    /// It is refused with what came before it.
    pub cut_is_refused: bool,
    /// That request is large and can not be streamed.
    pub collecting: bool,
    /// Of such a request, what is behind the input.
    pub collected: Outbox,
    /// Since when the first request in the input is incomplete, or the output
    /// does not drain; 0 for neither. Microseconds.
    pub stuck_since: u64,
    /// Which of the counted states it is in.
    pub census: Census,
    /// The arguments of a command whose reply is looked at.
    pub asked: Vec<Vec<u8>>,
    /// The answer to the command at the front of the input, found asynchronously.
    pub answer: Option<Answer>,
    /// Why it will be closed, when that is already known.
    pub close_reason: Option<CloseReason>,
    /// It has killed itself: closes behind the reply.
    pub closes_when_answered: bool,
    /// Database to go back to if the server refuses the `SELECT` under way.
    pub previous_db: Option<u32>,
    /// When the socket of a client that was refused, or told that this was all, is closed;
    /// microseconds.
    pub close_at: u64,
    /// It was told that this was all: what it sends still is thrown away.
    pub takes_leave: bool,
    /// How many were asked to make room for it.
    pub rooms_asked: u8,
    /// It is refused because what is left is kept for others, and may be one of those.
    pub may_be_kept_a_place: bool,
}

/// What an asynchronous step found out for the command at the front.
#[derive(Debug)]
pub enum Answer {
    /// The command is done: this is its reply.
    Reply(Vec<u8>),
    /// The login is right.
    LoggedIn(User),
    /// Redis lets this client's user do what was asked.
    Permitted,
    /// No lease was to be had: these bytes say why.
    NoLease(Vec<u8>),
}

/// A connection that the client holds alone.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    /// Index in the worker's connections.
    pub conn: u32,
    /// Until when it is held.
    pub until: Until,
    /// It has just been opened; what it is for has still to be sent.
    pub fresh: bool,
    /// Since when its client has left it idle, in microseconds.
    pub idle_since: u64,
}

/// What ends a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// The reply to the command it was taken for.
    Reply,
    /// `EXEC`, `DISCARD` or `UNWATCH`.
    Transaction,
    /// The client has no subscription left.
    Unsubscribed,
    /// Only `RESET` or the client's end: tracking, `MONITOR`, tunnels.
    Closed,
}

/// Where a session is between `MULTI` and `EXEC`.
#[derive(Debug, Default)]
pub enum Transaction {
    /// Nowhere.
    #[default]
    None,
    /// Keys are watched, or `MULTI` was sent, on the lease.
    OnLease {
        /// `MULTI` was sent.
        open: bool,
        /// Keys are watched.
        watching: bool,
        /// Commands queued since `MULTI`.
        queued: u32,
        /// The commands in the block that are about the client, by their index.
        effects: Vec<(u32, Effect)>,
        /// It may write: a pause holds its `EXEC`.
        writes: bool,
        /// A command was queued that makes the reply to `EXEC` one whose end cannot
        /// be told from its bytes.
        unframed: bool,
    },
    /// No lease was free: the block is kept here and sent in one piece.
    Queued {
        /// The block so far, from `MULTI` on.
        block: Vec<u8>,
        /// Length and table row of each command in it.
        commands: Vec<(u32, u16)>,
        /// A command was refused: `EXEC` will fail.
        aborted: bool,
        /// Why there is no connection to be had: the next command's reply.
        refusal: Option<Vec<u8>>,
        /// It may write: a pause holds its `EXEC`.
        writes: bool,
    },
    /// The lease was lost or expired before `EXEC` was sent.
    Broken {
        /// `MULTI` was seen: further commands are "queued".
        open: bool,
        /// Keys were watched: `EXEC` answers null, which means "try again".
        watching: bool,
    },
}

/// What a session is subscribed to.
#[derive(Debug, Default)]
pub struct Subscriptions {
    /// `SUBSCRIBE`.
    pub channels: HashSet<Name>,
    /// `PSUBSCRIBE`.
    pub patterns: HashSet<Name>,
    /// `SSUBSCRIBE`.
    pub shards: HashSet<Name>,
    /// The user whose feed they come over; `None` if they are on the session's lease.
    pub feed: Option<UserId>,
    bytes: usize,
}

/// What a set needs for one subscription besides its name, in bytes.
const SUBSCRIPTION_BYTES: usize = 40;

impl Subscriptions {
    /// Takes in a confirmation as the server sent it.
    pub fn note(&mut self, frame: &[u8]) {
        match crate::pubsub::read(frame) {
            crate::pubsub::Frame::Subscribed(space, name) => {
                self.add(space, name.into());
            }
            crate::pubsub::Frame::Unsubscribed(space, name) => self.remove(space, name),
            _ => {}
        }
    }

    /// It is subscribed to this.
    pub fn add(&mut self, space: Space, name: Name) {
        let bytes = name.len() + SUBSCRIPTION_BYTES;
        if self.set(space).insert(name) {
            self.bytes += bytes;
        }
    }

    /// It is not subscribed to this any more.
    pub fn remove(&mut self, space: Space, name: &[u8]) {
        let bytes = name.len() + SUBSCRIPTION_BYTES;
        let set = self.set(space);
        if set.remove(name) {
            if set.is_empty() {
                *set = HashSet::new();
            }
            self.bytes -= bytes;
        }
    }

    fn set(&mut self, space: Space) -> &mut HashSet<Name> {
        match space {
            Space::Channel => &mut self.channels,
            Space::Pattern => &mut self.patterns,
            Space::Shard => &mut self.shards,
        }
    }

    /// Those of one kind.
    pub fn of(&self, space: Space) -> &HashSet<Name> {
        match space {
            Space::Channel => &self.channels,
            Space::Pattern => &self.patterns,
            Space::Shard => &self.shards,
        }
    }

    /// The count that Redis puts into a confirmation.
    pub fn count(&self, space: Space) -> usize {
        match space {
            Space::Shard => self.shards.len(),
            _ => self.channels.len() + self.patterns.len(),
        }
    }

    /// Memory that they take, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Subscriptions of any kind.
    pub fn len(&self) -> usize {
        self.channels.len() + self.patterns.len() + self.shards.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there are any on a lease of the session's own.
    pub fn on_lease(&self) -> bool {
        self.feed.is_none() && !self.is_empty()
    }

    /// Whether there are any that come over a feed.
    pub fn on_feed(&self) -> bool {
        self.feed.is_some() && !self.is_empty()
    }
}
