//! What arrived on a feed, on its way to the clients of one worker: each gets what is for
//! it in one write, from bytes that all share.

use std::time::Duration;

use super::client::{Flags, Session};
use super::feed::{Event, FeedKey, LOST, ToFeed};
use super::output::Written;
use super::subscribe::About;
use super::worker::State;
use crate::backend::Ticket;
use crate::metrics::{CloseReason, Event as Noted, EventKind, Severity};
use crate::pubsub::{self, Asker, Name, Source, Space};
use crate::resp::Version;

/// The log says at most so often that subscribers were closed.
const LOG_EVERY: Duration = Duration::from_secs(1);

impl State {
    /// Takes what has happened on a feed, in order. Messages are in `bytes`, as RESP3.
    pub(super) fn take_batch_of_feed(
        &mut self,
        (key, feed): (FeedKey, u32),
        bytes: &[u8],
        events: Vec<Event>,
    ) {
        self.pubsub.locals.entry(key).or_default().feed = Some(feed);
        // Frames to be begun differently for RESP2.
        let mut starts = Vec::new();
        let mut messages_out = 0;
        for event in events {
            match event {
                Event::Message {
                    space,
                    name,
                    start,
                    end,
                } => {
                    starts.push(start);
                    let Some(local) = self.pubsub.locals.get(&key) else {
                        continue;
                    };
                    for client in local.clients(space, &name) {
                        messages_out += 1;
                        let outgoing = &mut self.pubsub.outgoing;
                        outgoing.push(client, Source::Feed, start, end);
                    }
                }
                Event::Subscribed {
                    asker,
                    space,
                    name,
                    new,
                    last,
                } => self.subscribed(key, asker, space, &name, (new, last)),
                Event::Unsubscribed {
                    asker,
                    space,
                    names,
                } => self.unsubscribed(key, asker, space, &names),
                Event::Answered { asker, error } => {
                    // What came before is written before the answer.
                    self.deliver(key, bytes, &starts);
                    self.pubsub.ended_later.remove(&asker.number);
                    if self.asks(asker) {
                        self.answer_question(asker.client, error.as_deref());
                    }
                }
                Event::Revoked { space, name } => self.revoked(key, space, &name),
                Event::TooLarge { space, name } => {
                    self.deliver(key, bytes, &starts);
                    self.too_large(key, space, &name);
                }
            }
        }
        self.deliver(key, bytes, &starts);
        let metrics = &self.fronts[key.0 as usize].metrics;
        metrics.pubsub_messages_out.add(messages_out);
    }

    /// Whether the client is there and waits for the answer to just this.
    fn asks(&self, asker: Asker) -> bool {
        let session = self.sessions.get(asker.client.slot as usize);
        session
            .filter(|session| session.id as u32 == asker.client.generation)
            .and_then(|session| session.extra.as_deref()?.subscriber.questions.front())
            .is_some_and(|question| question.number == asker.number)
    }

    fn subscribed(
        &mut self,
        key: FeedKey,
        asker: Asker,
        space: Space,
        name: &Name,
        (new, last): (bool, bool),
    ) {
        if !self.asks(asker) {
            // The client has gone. What it has ended since is ended.
            let ended = self.pubsub.ended_later.get(&asker.number);
            let is_ended = ended.is_some_and(|(_, names)| names.contains(name));
            if last {
                self.pubsub.ended_later.remove(&asker.number);
            }
            if new && !is_ended {
                let feed = self.pubsub.locals.entry(key).or_default().feed;
                let names = vec![(space, vec![name.clone()])];
                let worker = self.index as u16;
                self.tell_feed(
                    key,
                    ToFeed::Release {
                        worker,
                        feed,
                        names,
                    },
                );
            }
            return;
        }
        let local = self.pubsub.locals.entry(key).or_default();
        let name = local.shared(space, name);
        if local.add(space, &name, asker.client.slot) {
            let audience = &self.fronts[key.0 as usize].route.audience;
            audience.change(space, &name, 1);
        }
        let session = &mut self.sessions[asker.client.slot as usize];
        let subscriptions = &mut session.extra().subscriptions;
        subscriptions.add(space, name.clone());
        subscriptions.feed = Some(key.1);
        self.confirm(asker.client, space, space.subscribed_word(), Some(&name));
        if last {
            self.question_over(asker.client);
        }
    }

    fn unsubscribed(&mut self, key: FeedKey, asker: Asker, space: Space, names: &[(Name, bool)]) {
        if !self.asks(asker) {
            return;
        }
        let word = space.unsubscribed_word();
        if names.is_empty() {
            self.confirm(asker.client, space, word, None);
        }
        for (name, _) in names {
            self.end_subscription(key, asker.client.slot, space, name);
            self.confirm(asker.client, space, word, Some(name));
        }
        self.question_over(asker.client);
    }

    fn end_subscription(&mut self, key: FeedKey, slot: u32, space: Space, name: &Name) {
        let local = self.pubsub.locals.entry(key).or_default();
        if local.remove(space, name, slot) {
            let audience = &self.fronts[key.0 as usize].route.audience;
            audience.change(space, name, -1);
        }
        let session = &mut self.sessions[slot as usize];
        session.extra().subscriptions.remove(space, name);
    }

    /// The node has ended everybody's subscription by itself; so it tells each of them.
    fn revoked(&mut self, key: FeedKey, space: Space, name: &Name) {
        let Some(local) = self.pubsub.locals.get(&key) else {
            return;
        };
        let clients: Vec<u32> = local.clients(space, name).collect();
        for slot in clients {
            self.end_subscription(key, slot, space, name);
            let session = &mut self.sessions[slot as usize];
            let ticket = session.ticket(slot);
            let subscriptions = &mut session.extra().subscriptions;
            if subscriptions.is_empty() {
                subscriptions.feed = None;
            }
            self.confirm(ticket, space, space.unsubscribed_word(), Some(name));
            self.refresh_special(ticket);
            self.make_ready(ticket);
        }
    }

    /// Puts a confirmation among the client's messages.
    fn confirm(&mut self, ticket: Ticket, space: Space, word: &str, name: Option<&[u8]>) {
        let session = &self.sessions[ticket.slot as usize];
        let extra = session.extra.as_deref();
        let count = extra.map_or(0, |extra| extra.subscriptions.count(space));
        let own = &mut self.pubsub.own;
        let start = own.len() as u32;
        pubsub::confirm(word, name, count, session.partition.version, own);
        let end = own.len() as u32;
        let outgoing = &mut self.pubsub.outgoing;
        outgoing.push(ticket.slot, Source::Own, start, end);
    }

    /// Nobody may leave as much unread as a single message is long: Redis, too, closes
    /// everybody who was to get it.
    fn too_large(&mut self, key: FeedKey, space: Space, name: &Name) {
        let Some(local) = self.pubsub.locals.get(&key) else {
            return;
        };
        let clients: Vec<u32> = local.clients(space, name).collect();
        for slot in clients {
            let ticket = self.sessions[slot as usize].ticket(slot);
            self.log_slow_subscriber(ticket, "clients.subscriber_output_max");
            self.fail(ticket, CloseReason::SubscriberLimit);
        }
    }

    /// Writes to each client what has come for it.
    fn deliver(&mut self, key: FeedKey, bytes: &[u8], starts: &[u32]) {
        if self.pubsub.outgoing.clients() == 0 {
            return;
        }
        let outgoing = std::mem::take(&mut self.pubsub.outgoing);
        let own = std::mem::take(&mut self.pubsub.own);
        let mut resp2 = std::mem::take(&mut self.pubsub.resp2);
        let mut gathered = std::mem::take(&mut self.pubsub.gathered);
        resp2.clear();
        for index in 0..outgoing.clients() {
            let client = outgoing.client(index);
            let Some(session) = self.sessions.get(client as usize) else {
                continue;
            };
            let from_feed = match session.partition.version {
                Version::Resp3 => bytes,
                Version::Resp2 => {
                    if resp2.is_empty() && !starts.is_empty() {
                        // The two differ in how a message begins, and in nothing else.
                        resp2.extend_from_slice(bytes);
                        for start in starts {
                            resp2[*start as usize] = b'*';
                        }
                    }
                    &resp2
                }
            };
            let of = |piece: &pubsub::Piece| {
                let range = piece.start as usize..piece.end as usize;
                match piece.source {
                    Source::Feed => &from_feed[range],
                    Source::Own => &own[range],
                }
            };
            let mut pieces = outgoing.pieces(client);
            let (first, second) = (pieces.next(), pieces.next());
            match (first, second) {
                (Some(only), None) => self.deliver_to(key, client, of(&only)),
                _ => {
                    gathered.clear();
                    for piece in outgoing.pieces(client) {
                        gathered.extend_from_slice(of(&piece));
                    }
                    self.deliver_to(key, client, &gathered);
                }
            }
        }
        self.pubsub.outgoing = outgoing;
        self.pubsub.outgoing.clear();
        let keep = |mut buffer: Vec<u8>| {
            buffer.clear();
            buffer.shrink_to(KEPT_MAX);
            buffer
        };
        self.pubsub.own = keep(own);
        self.pubsub.resp2 = keep(resp2);
        self.pubsub.gathered = keep(gathered);
    }

    fn deliver_to(&mut self, key: FeedKey, client: u32, bytes: &[u8]) {
        let now = self.clock.now();
        let session = &mut self.sessions[client as usize];
        if session.flags.any(Flags::CLOSING) {
            return;
        }
        let ticket = session.ticket(client);
        let front = &self.fronts[key.0 as usize];
        let limit = front.config.clients.subscriber_output_max;
        session.active_at = now;
        let waiting = if must_wait(session, &self.conns) {
            let extra = session.extra();
            extra.held_pushes.extend_from_slice(bytes);
            let waiting = extra.held_pushes.len();
            session.flags.set(Flags::BARRIER);
            waiting + session.output.len()
        } else {
            let written = session.send(bytes);
            front.metrics.bytes_out.add(bytes.len() as u64);
            match written {
                Written::All => return,
                Written::Failed => return self.fail(ticket, CloseReason::ByClient),
                Written::Buffered(waiting) => {
                    if !session.flags.any(Flags::WRITING) {
                        session.flags.set(Flags::WRITING);
                        session.extra().stuck_since = now;
                        self.blocked_writers.push(ticket);
                    }
                    waiting
                }
            }
        };
        if waiting as u64 > limit {
            self.log_slow_subscriber(ticket, "clients.subscriber_output_max");
            return self.fail(ticket, CloseReason::SubscriberLimit);
        }
        self.recount_memory(ticket);
    }

    /// Says in the log that a subscriber is closed because it does not read.
    pub(super) fn log_slow_subscriber(&mut self, ticket: Ticket, limit: &str) {
        let now = self.clock.now();
        let since = Duration::from_micros(now.saturating_sub(self.pubsub.logged_at));
        if self.pubsub.logged_at != 0 && since < LOG_EVERY {
            return;
        }
        self.pubsub.logged_at = now;
        let session = &self.sessions[ticket.slot as usize];
        let event = Noted::new(EventKind::LimitReached, limit)
            .on(&self.fronts[session.route as usize].route.name)
            .with("client", &session.peer)
            .as_severe_as(Severity::Warning);
        self.proxy.journal.note(event);
        tracing::warn!(
            peer = %session.peer, id = session.id, unread = session.output.len(), limit,
            "closing a subscriber that does not read its messages"
        );
    }

    /// The feed's connection is gone: everybody who is subscribed over it is closed, and
    /// whoever was about to be is told.
    pub(super) fn feed_is_lost(&mut self, key: FeedKey) {
        self.pubsub.ended_later.retain(|_, (of, _)| *of != key);
        let concerned: Vec<Ticket> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.route == key.0)
            .filter(|(_, session)| {
                let extra = session.extra.as_deref();
                extra.is_some_and(|extra| extra.subscriptions.feed == Some(key.1))
            })
            .map(|(slot, session)| session.ticket(slot as u32))
            .collect();
        for ticket in concerned {
            self.forget_feed(ticket, key);
        }
    }

    fn forget_feed(&mut self, ticket: Ticket, key: FeedKey) {
        let subscriptions = &mut self.sessions[ticket.slot as usize].extra().subscriptions;
        if subscriptions.is_empty() {
            self.count_error(ticket, crate::metrics::ErrorCause::BackendLost);
            while !self.sessions[ticket.slot as usize]
                .extra()
                .subscriber
                .questions
                .is_empty()
            {
                self.answer_question(ticket, Some(LOST));
            }
            return;
        }
        let subscriptions = std::mem::take(subscriptions);
        let audience = &self.fronts[key.0 as usize].route.audience;
        let local = self.pubsub.locals.entry(key).or_default();
        for space in Space::ALL {
            for name in subscriptions.of(space) {
                if local.remove(space, name, ticket.slot) {
                    audience.change(space, name, -1);
                }
            }
        }
        let session = &mut self.sessions[ticket.slot as usize];
        let subscriber = &mut session.extra().subscriber;
        subscriber.pending = Default::default();
        let question = std::mem::take(&mut subscriber.questions).pop_front();
        session.flags.clear(Flags::WAITING);
        if let Some(About::Reply(reply)) = question.map(|question| question.about) {
            self.write(ticket, &reply);
        }
        self.close_after_output(ticket, CloseReason::SubscriptionLost);
    }
}

/// A quiet worker keeps at most this much of each of its buffers, in bytes.
const KEPT_MAX: usize = 256 * 1024;

/// Whether a message has to wait for a reply: one of which a part is written already, or
/// one that comes before the messages that its command has caused.
fn must_wait(session: &Session, conns: &slab::Slab<crate::backend::Conn>) -> bool {
    if session.in_flight == 0 {
        return false;
    }
    let replies_first = session
        .extra
        .as_deref()
        .is_some_and(|extra| extra.subscriber.replies_first || !extra.held_pushes.is_empty());
    replies_first
        || conns
            .get(session.conn as usize)
            .is_some_and(|conn| conn.head_started())
}
