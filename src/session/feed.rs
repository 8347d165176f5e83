//! The home of a feed: its connection to the node, and what arrives there on its way to
//! the workers whose clients it is for. Which worker that is follows from the user, so
//! that all workers agree without asking.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::failure::{self, Failure};
use super::lanes::refusal;
use super::proxy::Message;
use super::worker::{Front, State};
use crate::backend::{
    Broken, Conn, Kind, Mode, Node, Opened, Partition, Ticket, User, UserId, close_politely,
};
use crate::metrics::{Event as Noted, EventKind};
use crate::pubsub::{self, Ask, Asker, Frame, Heard, Local, Name, Outgoing, Space, Upstream};
use crate::resp::{ReplyScanner, Version};

/// A feed that nobody needs is kept this long for the next who does, in microseconds.
const KEPT: u64 = 2_000_000;

/// Bytes of messages on their way to a worker that has yet to deal with them, beyond which
/// the node is read no further. Only a worker that has no time for anything gets there;
/// what its clients do not read is theirs to answer for.
const BACKLOG_MAX: usize = 16 * 1024 * 1024;

/// A longer message is thrown away, and those who were to get it are closed, whatever
/// they may leave unread. Redis makes none that is longer than this, in bytes.
const FRAME_MAX: u64 = 1 << 30;

/// Whose feed: the route, and the user as whom it is subscribed.
pub type FeedKey = (u16, UserId);

/// What workers tell the home of a feed.
#[derive(Debug)]
pub enum ToFeed {
    /// A client asks.
    Ask {
        /// Who.
        asker: Asker,
        /// Which feed it means.
        feed: Option<u32>,
        /// As whom to subscribe.
        user: User,
        /// What.
        ask: Ask,
    },
    /// A client has gone.
    Release {
        /// From which worker.
        worker: u16,
        /// Which feed is meant.
        feed: Option<u32>,
        /// What it was subscribed to.
        names: Vec<(Space, Vec<Name>)>,
    },
    /// A worker has caught up.
    CaughtUp,
}

/// What the home of a feed tells the workers.
#[derive(Debug)]
pub enum FromFeed {
    /// Messages and answers, in the order in which the node sent them.
    Batch {
        /// The feed's number.
        feed: u32,
        /// What the messages are in, as RESP3.
        bytes: Bytes,
        /// What is in there and what else happened.
        events: Vec<Event>,
        /// What is on its way to the worker, in bytes.
        backlog: Arc<AtomicUsize>,
    },
    /// The connection is gone, and all subscriptions with it.
    Lost,
}

/// Something that happened on a feed.
#[derive(Debug)]
pub enum Event {
    /// A message to everybody who is subscribed to the name.
    Message {
        /// What the name is.
        space: Space,
        /// The channel, or the pattern.
        name: Name,
        /// Where the frame begins in the bytes.
        start: u32,
        /// Where it ends.
        end: u32,
    },
    /// A subscription begins.
    Subscribed {
        /// Whose.
        asker: Asker,
        /// What the name is.
        space: Space,
        /// To what.
        name: Name,
        /// The client was not subscribed to it when it asked.
        new: bool,
        /// All that it has asked for is done.
        last: bool,
    },
    /// Subscriptions end.
    Unsubscribed {
        /// Whose.
        asker: Asker,
        /// What the names are.
        space: Space,
        /// As the client asked.
        names: Vec<(Name, bool)>,
    },
    /// Anything else is answered: by an error, or by what needs no words.
    Answered {
        /// Who asked.
        asker: Asker,
        /// The error, if it is one.
        error: Option<Vec<u8>>,
    },
    /// The node has ended everybody's subscription to this name.
    Revoked {
        /// What the name is.
        space: Space,
        /// The name.
        name: Name,
    },
    /// A message to this name is larger than anybody may leave unread.
    TooLarge {
        /// What the name is.
        space: Space,
        /// The name.
        name: Name,
    },
}

/// What a worker keeps of feeds: those that it is the home of, and its own clients of any.
#[derive(Debug, Default)]
pub struct Fanout {
    /// Whose home this worker is.
    feeds: HashMap<FeedKey, Feed>,
    /// This worker's clients.
    pub(super) locals: HashMap<FeedKey, Local>,
    /// What the clients get in this turn.
    pub(super) outgoing: Outgoing,
    /// What came from the feed, as RESP2.
    pub(super) resp2: Vec<u8>,
    /// What was written for single clients.
    pub(super) own: Vec<u8>,
    /// The pieces for one client, put together.
    pub(super) gathered: Vec<u8>,
    /// Questions asked so far.
    pub(super) questions: u32,
    /// Of clients that have gone, by their questions: what began by that and has ended by
    /// another since.
    pub(super) ended_later: HashMap<u32, (FeedKey, Vec<Name>)>,
    /// Feeds that this worker was the home of so far.
    numbers: u32,
    /// When the log last said that a subscriber was closed, in microseconds.
    pub(super) logged_at: u64,
}

#[derive(Debug)]
enum Link {
    Opening,
    Open(Ticket),
}

/// One feed, at home.
#[derive(Debug)]
struct Feed {
    /// Tells it from earlier ones of the same user.
    number: u32,
    link: Link,
    /// Keeps the credential known while it is needed.
    _user: User,
    upstream: Upstream,
    /// What is to be sent once the connection is open.
    unsent: Vec<u8>,
    scanner: ReplyScanner,
    /// The beginning of a frame whose end has not come.
    carry: Vec<u8>,
    /// That frame is larger than anybody may leave unread, and is thrown away.
    discarding: bool,
    /// By worker, what is on its way to it in bytes.
    backlogs: Vec<Arc<AtomicUsize>>,
    /// Since when nobody needs it, in microseconds; 0 while somebody does.
    idle_since: u64,
    /// Names it has, as the gauge knows.
    counted: usize,
}

impl Feed {
    fn new(number: u32, user: User, workers: usize) -> Feed {
        Feed {
            number,
            link: Link::Opening,
            _user: user,
            upstream: Upstream::default(),
            unsent: Vec::new(),
            scanner: ReplyScanner::default(),
            carry: Vec::new(),
            discarding: false,
            backlogs: (0..workers).map(|_| Arc::default()).collect(),
            idle_since: 0,
            counted: 0,
        }
    }
}

impl State {
    /// The worker that has the connection of this feed.
    fn home_of(&self, (route, user): FeedKey) -> usize {
        (user.number() as usize + route as usize) % self.proxy.workers()
    }

    /// Tells the home of a feed, wherever that is.
    pub(super) fn tell_feed(&mut self, key: FeedKey, message: ToFeed) {
        let home = self.home_of(key);
        if home == self.index {
            self.at_home(key, message);
        } else {
            self.proxy.send(home, Message::ToFeed { key, message });
        }
    }

    /// A worker, or this one, tells a feed of this worker.
    pub(super) fn at_home(&mut self, key: FeedKey, message: ToFeed) {
        let workers = self.proxy.workers();
        match message {
            ToFeed::Ask {
                asker,
                feed: meant,
                user,
                ask,
            } => {
                let fanout = &mut self.pubsub;
                let known = fanout.feeds.get(&key).map(|feed| feed.number);
                if meant.is_some() && known.is_some() && meant != known {
                    // The worker is about to learn that the feed was lost.
                    return;
                }
                if known.is_none() {
                    fanout.numbers = fanout.numbers.wrapping_add(1);
                    let feed = Feed::new(fanout.numbers, user, workers);
                    fanout.feeds.insert(key, feed);
                    self.open_feed(key);
                }
                if let Some(feed) = self.pubsub.feeds.get_mut(&key) {
                    feed.idle_since = 0;
                    feed.upstream.ask(asker, ask, &mut feed.unsent);
                }
            }
            ToFeed::Release {
                worker,
                feed: meant,
                names,
            } => {
                let feed = self.pubsub.feeds.get_mut(&key);
                let Some(feed) = feed.filter(|feed| Some(feed.number) == meant) else {
                    return;
                };
                for (space, names) in names {
                    let out = &mut feed.unsent;
                    feed.upstream.release(worker, space, names, out);
                }
            }
            ToFeed::CaughtUp => {
                let conn = self.feed_conn(key);
                if let Some(waker) = conn.and_then(|conn| self.conn(conn)?.reader.take()) {
                    waker.wake();
                }
            }
        }
        self.send_to_feed(key);
    }

    fn feed_conn(&self, key: FeedKey) -> Option<Ticket> {
        match self.pubsub.feeds.get(&key)?.link {
            Link::Open(conn) => Some(conn),
            _ => None,
        }
    }

    /// Sends what a feed has to say to the node at the end of the turn.
    fn send_to_feed(&mut self, key: FeedKey) {
        let Some(feed) = self.pubsub.feeds.get_mut(&key) else {
            return;
        };
        if let Link::Open(conn) = feed.link
            && !feed.unsent.is_empty()
        {
            self.conns[conn.slot as usize].ring.append(&feed.unsent);
            feed.unsent.clear();
            feed.unsent.shrink_to(4096);
            self.mark_dirty(conn.slot);
        }
    }

    fn open_feed(&mut self, key: FeedKey) {
        let node = self.fronts[key.0 as usize].node.clone();
        let version = match node.server_version().like_redis(6, 0) {
            true => Version::Resp3,
            false => Version::Resp2,
        };
        let partition = Partition {
            user: key.1,
            version,
            db: 0,
            no_touch: false,
        };
        let deadline = Instant::now() + node.settings().backend.lease_wait;
        self.fronts[key.0 as usize].metrics.leases_waiting.inc();
        let worker = self.worker();
        tokio::task::spawn_local(async move {
            let opened = match node.unavailable() {
                Some(error) => Err(Failure::Open(error)),
                None => match node.ledger.take(Kind::Subscription, deadline).await {
                    Ok(slot) => node.open(&partition, slot).await.map_err(Failure::Open),
                    Err(refused) => Err(refusal(&refused)),
                },
            };
            worker.enter(|state| {
                state.fronts[key.0 as usize].metrics.leases_waiting.dec();
                state.feed_opened(key, &node, partition, opened);
            });
        });
    }

    fn feed_opened(
        &mut self,
        key: FeedKey,
        node: &Arc<Node>,
        lane: Partition,
        opened: Result<Opened, Failure>,
    ) {
        let opened = match opened {
            Ok(opened) => opened,
            Err(failure) => return self.feed_not_opened(key, &failure),
        };
        if !self.pubsub.feeds.contains_key(&key) {
            return close_politely(opened.socket, Some(opened.slot));
        }
        let lane = self.find_lane(key.0, node, lane);
        let conn = self.add_conn(Kind::Subscription, lane);
        self.conns[conn.slot as usize].mode = Mode::Feed(key.1);
        // What is written is not kept: no reply says where a request ends.
        self.conns[conn.slot as usize].streaming = true;
        self.opened(conn, Ok(opened));
        if let Some(slot) = &self.conns[conn.slot as usize].slot {
            slot.set_busy();
        }
        if let Some(feed) = self.pubsub.feeds.get_mut(&key) {
            feed.link = Link::Open(conn);
        }
        self.send_to_feed(key);
    }

    /// There is no connection to be had: whoever has asked is told, and nobody is
    /// subscribed to anything.
    fn feed_not_opened(&mut self, key: FeedKey, failure: &Failure) {
        let front = &self.fronts[key.0 as usize];
        let audience = front.route.audience.clone();
        let Some(feed) = self.pubsub.feeds.get_mut(&key) else {
            return;
        };
        let askers = feed.upstream.lost(&audience);
        self.count_failure(key.0, failure);
        let reply = failure.reply();
        let mut events: Vec<Vec<Event>> = (0..self.proxy.workers()).map(|_| Vec::new()).collect();
        for asker in askers {
            events[asker.worker as usize].push(Event::Answered {
                asker,
                error: Some(reply.clone()),
            });
        }
        self.hand_out(key, &[], events);
        self.pubsub.feeds.remove(&key);
    }

    /// Bytes came from the node.
    pub(super) fn on_feed(&mut self, index: u32, bytes: &[u8]) {
        let conn = &mut self.conns[index as usize];
        conn.progress_at = self.clock.now();
        let (route, Mode::Feed(user)) = (conn.route, conn.mode) else {
            return;
        };
        let key = (route, user);
        let Some(mut feed) = self.pubsub.feeds.remove(&key) else {
            return;
        };
        let front = &self.fronts[route as usize];
        front.metrics.backend_bytes_in.add(bytes.len() as u64);
        let mut joined = std::mem::take(&mut feed.carry);
        let scanned = joined.len();
        let whole = if joined.is_empty() {
            bytes
        } else {
            joined.extend_from_slice(bytes);
            &joined
        };
        let mut events: Vec<Vec<Event>> = (0..self.proxy.workers()).map(|_| Vec::new()).collect();
        let outcome = feed.take(whole, scanned, front, &mut events);
        let front = &self.fronts[route as usize];
        let names = feed.upstream.names();
        let more = names as i64 - feed.counted as i64;
        front.metrics.pubsub_channels.add(more);
        feed.counted = names;
        let rest = match &outcome {
            Ok(start) => &whole[*start..],
            Err(_) => &[],
        };
        // A long beginning is moved, not copied, as long as it is all there is.
        let keeps = !joined.is_empty() && rest.len() == joined.len();
        let beginning = if keeps { Vec::new() } else { rest.to_vec() };
        self.pubsub.feeds.insert(key, feed);
        self.hand_out(key, if joined.is_empty() { bytes } else { &joined }, events);
        let beginning = if keeps { joined } else { beginning };
        if let Some(feed) = self.pubsub.feeds.get_mut(&key) {
            feed.carry = beginning;
        }
        self.send_to_feed(key);
        if let Err(broken) = outcome {
            self.conn_lost(index, &broken);
        }
    }

    /// Gives each worker what is for its clients.
    fn hand_out(&mut self, key: FeedKey, bytes: &[u8], mut events: Vec<Vec<Event>>) {
        let own = std::mem::take(&mut events[self.index]);
        let Some(number) = self.pubsub.feeds.get(&key).map(|feed| feed.number) else {
            return;
        };
        let mut shared: Option<Bytes> = None;
        for (worker, events) in events.into_iter().enumerate() {
            if events.is_empty() {
                continue;
            }
            let Some(feed) = self.pubsub.feeds.get(&key) else {
                return;
            };
            // One copy for all workers, and none if there is no message in it for them.
            let has_message = |event: &Event| matches!(event, Event::Message { .. });
            let bytes = match events.iter().any(has_message) {
                true => shared
                    .get_or_insert_with(|| Bytes::copy_from_slice(bytes))
                    .clone(),
                false => Bytes::new(),
            };
            let backlog = feed.backlogs[worker].clone();
            backlog.fetch_add(bytes.len(), Relaxed);
            let message = FromFeed::Batch {
                feed: number,
                bytes,
                events,
                backlog,
            };
            self.proxy.send(worker, Message::FromFeed { key, message });
        }
        if !own.is_empty() {
            self.take_batch_of_feed((key, number), bytes, own);
        }
    }

    /// What the home of a feed tells this worker.
    pub(super) fn told_by_feed(&mut self, key: FeedKey, message: FromFeed) {
        match message {
            FromFeed::Batch {
                feed,
                bytes,
                events,
                backlog,
            } => {
                self.take_batch_of_feed((key, feed), &bytes, events);
                let before = backlog.fetch_sub(bytes.len(), Relaxed);
                if before > BACKLOG_MAX && before - bytes.len() <= BACKLOG_MAX {
                    self.tell_feed(key, ToFeed::CaughtUp);
                }
            }
            FromFeed::Lost => self.feed_is_lost(key),
        }
    }

    /// Whether a worker is so far behind that the node is read no further.
    pub(super) fn feed_is_backlogged(&self, conn: &Conn) -> bool {
        let Mode::Feed(user) = conn.mode else {
            return false;
        };
        let feed = self.pubsub.feeds.get(&(conn.route, user));
        feed.is_some_and(|feed| {
            let mut backlogs = feed.backlogs.iter();
            backlogs.any(|backlog| backlog.load(Relaxed) > BACKLOG_MAX)
        })
    }

    /// The connection of a feed was lost. Messages may be lost with it, so everybody
    /// who is subscribed over it has to know.
    pub(super) fn feed_lost(&mut self, key: FeedKey, node: &Node, broken: &Broken) {
        let front = &self.fronts[key.0 as usize];
        let audience = front.route.audience.clone();
        let Some(mut feed) = self.pubsub.feeds.remove(&key) else {
            return;
        };
        if !feed.upstream.is_idle() {
            tracing::warn!(
                node = %node.address, route = %front.route.name, user = key.1.number(),
                names = feed.upstream.names(),
                "subscription connection lost, closing those who are subscribed over it: {broken}"
            );
            let event = Noted::new(EventKind::SubscribersClosed, node.address.as_str())
                .on(&front.route.name)
                .with("why", broken);
            self.proxy.journal.note(event);
        }
        front.metrics.pubsub_channels.add(-(feed.counted as i64));
        feed.upstream.lost(&audience);
        for worker in 0..self.proxy.workers() {
            if worker != self.index {
                let message = FromFeed::Lost;
                self.proxy.send(worker, Message::FromFeed { key, message });
            }
        }
        self.feed_is_lost(key);
    }

    /// Closes the connections of feeds that nobody needs.
    pub(super) fn tick_feeds(&mut self) {
        let now = self.clock.now();
        let (mut unused, mut moved) = (Vec::new(), Vec::new());
        for (key, feed) in &mut self.pubsub.feeds {
            let Link::Open(conn) = feed.link else {
                continue;
            };
            let connection = &self.conns[conn.slot as usize];
            let node = &self.lanes[connection.lane as usize].node;
            if node.id != self.fronts[key.0 as usize].node.id {
                // What is published reaches the node that commands go to now.
                moved.push(conn);
            } else if !feed.upstream.is_idle() {
                feed.idle_since = 0;
            } else if feed.idle_since == 0 {
                feed.idle_since = now;
                if let Some(slot) = &connection.slot {
                    slot.set_free(Instant::now());
                }
            } else if connection.retiring || now - feed.idle_since > KEPT {
                unused.push((*key, conn));
            }
        }
        for conn in moved {
            self.conn_lost(conn.slot, &Broken::Moved);
        }
        for (key, conn) in unused {
            if let Some(feed) = self.pubsub.feeds.remove(&key) {
                let metrics = &self.fronts[key.0 as usize].metrics;
                metrics.pubsub_channels.add(-(feed.counted as i64));
            }
            self.close_conn(conn.slot);
        }
        self.pubsub.locals.retain(|_, local| !local.is_empty());
    }

    /// How long a client waits for its feed before it is told that nothing came.
    pub(super) fn feed_patience(&self, route: u16) -> Duration {
        let config = &self.fronts[route as usize].config;
        config.backend.lease_wait + config.timeouts.connect + config.timeouts.request
    }
}

impl Feed {
    /// Takes in bytes of which the first `scanned` were looked at before. Returns where
    /// the frame begins whose end is missing.
    fn take(
        &mut self,
        bytes: &[u8],
        scanned: usize,
        front: &Front,
        events: &mut [Vec<Event>],
    ) -> Result<usize, Broken> {
        let (mut start, mut position) = (0, scanned);
        while position < bytes.len() {
            let fed = self
                .scanner
                .feed(&bytes[position..])
                .map_err(Broken::Malformed)?;
            position += fed.consumed;
            if fed.complete {
                let end = position;
                if !std::mem::take(&mut self.discarding) {
                    self.take_frame(&bytes[start..end], start, front, events)?;
                }
                start = end;
            }
        }
        let kept = (bytes.len() - start) as u64;
        let limit = front.config.clients.subscriber_output_max;
        if kept > limit.min(FRAME_MAX) && !self.discarding {
            // Whoever is to get this could not keep it.
            self.discarding = true;
            if let Some(Frame::Message(space, name)) = pubsub::beginning(&bytes[start..]) {
                let name: Name = name.into();
                for worker in self.upstream.routes(space, &name) {
                    let name = name.clone();
                    events[worker as usize].push(Event::TooLarge { space, name });
                }
            }
        }
        Ok(if self.discarding { bytes.len() } else { start })
    }

    fn take_frame(
        &mut self,
        frame: &[u8],
        start: usize,
        front: &Front,
        events: &mut [Vec<Event>],
    ) -> Result<(), Broken> {
        let audience = &front.route.audience;
        let heard = self.upstream.hear(pubsub::read(frame), audience);
        match heard.map_err(|_| Broken::Unasked)? {
            Heard::Nothing => {}
            Heard::Message(space, name) => {
                front.metrics.pubsub_messages_in.inc();
                for worker in self.upstream.routes(space, &name) {
                    events[worker as usize].push(Event::Message {
                        space,
                        name: name.clone(),
                        start: start as u32,
                        end: (start + frame.len()) as u32,
                    });
                }
            }
            Heard::Subscribed {
                asker,
                space,
                name,
                new,
                last,
            } => events[asker.worker as usize].push(Event::Subscribed {
                asker,
                space,
                name,
                new,
                last,
            }),
            Heard::Unsubscribed {
                asker,
                space,
                names,
            } => events[asker.worker as usize].push(Event::Unsubscribed {
                asker,
                space,
                names,
            }),
            Heard::Answered(asker) => {
                let error = (frame.first() == Some(&b'-')).then(|| frame.to_vec());
                events[asker.worker as usize].push(Event::Answered { asker, error });
                self.upstream.tidy(&mut self.unsent);
            }
            Heard::Revoked(space, name) => {
                for worker in self.upstream.routes(space, &name) {
                    let name = name.clone();
                    events[worker as usize].push(Event::Revoked { space, name });
                }
                self.upstream.forget(space, &name);
            }
        }
        Ok(())
    }
}

/// What a client reads whose question was under way when the feed was lost.
pub(super) const LOST: &[u8] = failure::OUTCOME_UNKNOWN;
