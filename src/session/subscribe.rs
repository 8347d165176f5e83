//! `SUBSCRIBE` and its relatives, and `PING` of a subscriber (COMMANDS.md 1.4): what a
//! client says goes to the feed of its user. What follows goes there at once if it is more of
//! the kind, and else waits for the answers.

use std::collections::VecDeque;

use hashbrown::HashSet;

use super::client::{Answer, Extra, Flags, Until};
use super::dispatch::Row;
use super::failure::{self, Failure};
use super::feed::{FeedKey, ToFeed};
use super::input::{Request, Step};
use super::leases::{LeaseWish, Patience};
use super::publish::Correction;
use super::worker::State;
use crate::backend::Ticket;
use crate::command::{Class, Flags as CommandFlags, Sub};
use crate::metrics::{CloseReason, ErrorCause};
use crate::pubsub::{Ask, Asker, Name, Pending, Space};
use crate::resp::{self, Value, Version};

/// What a session asks of its feed, and what its messages wait for.
#[derive(Debug, Default)]
pub struct Subscriber {
    /// What it waits for, in the order of the answers.
    pub questions: VecDeque<Question>,
    /// What those change.
    pub pending: Pending,
    /// What is to be added to the replies that are due, oldest first.
    pub corrections: VecDeque<Correction>,
    /// A command is under way whose own message must not come before its reply.
    pub replies_first: bool,
    /// Since when more is unread than a subscriber may leave for long; 0 if it is not.
    /// Microseconds.
    pub over_soft_since: u64,
}

/// A question that the feed has not answered.
#[derive(Debug)]
pub struct Question {
    /// Tells its answer from that of an earlier one.
    pub number: u32,
    /// When it was asked, in microseconds.
    pub at: u64,
    /// What it is.
    pub about: About,
    /// The client does not want to see an answer that is a reply and no push.
    pub silent: bool,
}

/// What a question is about.
#[derive(Debug)]
pub enum About {
    /// Subscriptions to come, or to end.
    Subscriptions,
    /// A `PING`, and its argument.
    Ping(Option<Vec<u8>>),
    /// All messages from before this reply have come: it can be written.
    Reply(Vec<u8>),
}

impl State {
    /// Whether the session is subscribed over a feed.
    pub(super) fn is_fed(&self, ticket: Ticket) -> bool {
        let session = &self.sessions[ticket.slot as usize];
        session.flags.any(Flags::SPECIAL)
            && session
                .extra
                .as_deref()
                .is_some_and(|extra| extra.subscriptions.on_feed())
    }

    /// `SUBSCRIBE` and its relatives: one confirmation for each channel.
    pub(super) fn subscription(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        sub: Sub,
        row: Row,
        silent: bool,
    ) -> Step {
        let space = Space::of(sub);
        if space == Space::Shard && !self.node_of(ticket).server_version().like_redis(7, 0) {
            // Redis 6 does not know these; it says so itself.
            if self.must_wait_for_replies(ticket) {
                return Step::Wait;
            }
            return self.forward_on_path(ticket, request, row, silent);
        }
        let session = &mut self.sessions[ticket.slot as usize];
        if session.in_flight > 0 {
            session.flags.set(Flags::BARRIER);
            return Step::Wait;
        }
        if begins(sub) && self.may_wait_for_node(ticket) {
            if self.must_wait_for_replies(ticket) {
                return Step::Wait;
            }
            // Without a node to subscribe at it waits for one, as any command does.
            let lane = self.lane_of(ticket);
            let refusal = self.sessions[ticket.slot as usize].extra().answer.take();
            match refusal {
                Some(Answer::NoLease(reply)) => return self.answer(ticket, &reply, silent),
                other => self.sessions[ticket.slot as usize].extra().answer = other,
            }
            match self.wait_for_node(ticket, lane, Patience::InLine) {
                None | Some(LeaseWish::Held(_) | LeaseWish::NotAtOnce) => {}
                Some(LeaseWish::Waits) => return Step::Wait,
                Some(LeaseWish::Refused(reply)) => return self.answer(ticket, &reply, silent),
            }
        }
        let session = &mut self.sessions[ticket.slot as usize];
        let user = session.user.id();
        let clients = &self.fronts[session.route as usize].config.clients;
        let max = clients.subscriptions_max;
        let extra = session.extra();
        let named = request.count() - 1;
        let begins = begins(sub);
        let to_come = extra.subscriber.pending.to_come();
        if begins && extra.subscriptions.len() + to_come + named > max {
            return self.refuse(ticket, &Failure::Subscriptions { max }, silent);
        }
        let elsewhere = extra.lease.is_some_and(|lease| lease.until != Until::Reply);
        if elsewhere && !extra.subscriptions.on_feed() {
            // What is tracked or watched is on this connection, and so are the messages.
            return self.subscription_on_lease(ticket, request, sub, row);
        }
        let asks = !extra.subscriber.pending.is_empty();
        if !begins && extra.subscriptions.is_empty() && !asks {
            return self.unsubscribe_from_nothing(ticket, request, space);
        }
        if begins && extra.subscriptions.feed.is_some_and(|feed| feed != user) {
            let step = self.answer(ticket, failure::OTHER_USER, silent);
            if step != Step::Wait {
                self.count_error(ticket, ErrorCause::State);
            }
            return step;
        }
        let feed = *extra.subscriptions.feed.get_or_insert(user);
        let key = (session.route, feed);
        let ask = match begins {
            true => Ask::Subscribe(space, self.names_to_add(ticket, key, space, request)),
            false => Ask::Unsubscribe(space, self.names_to_end(ticket, key, space, request)),
        };
        self.ask_feed(ticket, row.id, ask, About::Subscriptions, silent)
    }

    /// The names in a request, each with whether the client is not subscribed to it yet.
    fn names_to_add(
        &self,
        ticket: Ticket,
        key: FeedKey,
        space: Space,
        request: &Request<'_>,
    ) -> Vec<(Name, bool)> {
        let local = self.pubsub.locals.get(&key);
        let mut seen = HashSet::new();
        (1..request.count())
            .map(|index| {
                let name = request.arg(index).unwrap_or_default();
                let shared = local.map_or_else(|| name.into(), |it| it.shared(space, name));
                let is_new = seen.insert(name) && !self.will_have(ticket, space, name);
                (shared, is_new)
            })
            .collect()
    }

    /// The names in a request, or all there are if it has none, each with whether the
    /// client is subscribed to it.
    fn names_to_end(
        &self,
        ticket: Ticket,
        key: FeedKey,
        space: Space,
        request: &Request<'_>,
    ) -> Vec<(Name, bool)> {
        if request.count() == 1 {
            let Some(extra) = self.sessions[ticket.slot as usize].extra.as_deref() else {
                return Vec::new();
            };
            // Nothing is under way that would change these.
            let all = extra.subscriptions.of(space).iter();
            return all.map(|name| (name.clone(), true)).collect();
        }
        let local = self.pubsub.locals.get(&key);
        let mut seen = HashSet::new();
        (1..request.count())
            .map(|index| {
                let name = request.arg(index).unwrap_or_default();
                let shared = local.map_or_else(|| name.into(), |it| it.shared(space, name));
                let is = seen.insert(name) && self.will_have(ticket, space, name);
                (shared, is)
            })
            .collect()
    }

    /// Whether a client is subscribed to a name when all that it has asked is answered.
    fn will_have(&self, ticket: Ticket, space: Space, name: &[u8]) -> bool {
        let extra = self.sessions[ticket.slot as usize].extra.as_deref();
        extra.is_some_and(|extra| {
            let has = extra.subscriptions.of(space).contains(name);
            extra.subscriber.pending.will_have(space, name, has)
        })
    }

    /// Whether a command of a class has to wait for answers of the feed: all but those about
    /// subscriptions to `names` names, which can be asked along with the others. Without names
    /// it is about what there is then.
    pub(super) fn must_wait_for_feed(
        &mut self,
        ticket: Ticket,
        class: Class,
        names: usize,
    ) -> bool {
        let session = &mut self.sessions[ticket.slot as usize];
        let Some(extra) = session.extra.as_deref() else {
            return false;
        };
        let subscriber = &extra.subscriber;
        // Everything under way is about subscriptions, for anything else is waited for.
        let asks_along =
            names > 0 && matches!(class, Class::Subscription(_)) && !subscriber.pending.is_full();
        let waits = !subscriber.questions.is_empty() && !asks_along;
        if waits {
            session.flags.set(Flags::WAITING);
        }
        waits
    }

    /// `PING` of a subscriber: the answer comes behind the messages from before.
    pub(super) fn ping_of_subscriber(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
        silent: bool,
    ) -> Step {
        if request.count() > 2 {
            // Redis words the error.
            return self.forward_on_path(ticket, request, row, silent);
        }
        if self.must_wait_for_replies(ticket) {
            return Step::Wait;
        }
        let about = About::Ping(request.arg(1).map(<[u8]>::to_vec));
        self.ask_feed(ticket, row.id, Ask::Ping { by_client: true }, about, silent)
    }

    /// Asks the session's feed.
    fn ask_feed(
        &mut self,
        ticket: Ticket,
        command: u16,
        ask: Ask,
        about: About,
        silent: bool,
    ) -> Step {
        let session = &mut self.sessions[ticket.slot as usize];
        session.command = command;
        let metrics = &self.fronts[session.route as usize].metrics;
        metrics.commands.inc();
        self.question(ticket, ask, about, silent);
        Step::Taken
    }

    /// Asks the session's feed, which it must have.
    pub(super) fn question(&mut self, ticket: Ticket, ask: Ask, about: About, silent: bool) {
        self.pubsub.questions = self.pubsub.questions.wrapping_add(1);
        let number = self.pubsub.questions;
        let at = self.clock.now();
        let session = &mut self.sessions[ticket.slot as usize];
        session.flags.set(Flags::SPECIAL);
        if !matches!(about, About::Subscriptions) {
            session.flags.set(Flags::WAITING);
        }
        let (route, user) = (session.route, session.user.clone());
        let extra = session.extra();
        extra.subscriber.pending.asked(number, &ask);
        extra.subscriber.questions.push_back(Question {
            number,
            at,
            about,
            silent,
        });
        let key = (route, extra.subscriptions.feed.unwrap_or(user.id()));
        let feed = self.pubsub.locals.get(&key).and_then(|local| local.meant());
        let asker = Asker {
            worker: self.index as u16,
            client: ticket,
            number,
        };
        self.tell_feed(
            key,
            ToFeed::Ask {
                asker,
                feed,
                user,
                ask,
            },
        );
    }

    /// `UNSUBSCRIBE` of a client that is not subscribed to anything: Redis confirms all the
    /// same, each with the count 0.
    fn unsubscribe_from_nothing(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        space: Space,
    ) -> Step {
        let version = self.version_of(ticket);
        let mut reply = Vec::new();
        let word = space.unsubscribed_word();
        if request.count() == 1 {
            crate::pubsub::confirm(word, None, 0, version, &mut reply);
        }
        for index in 1..request.count() {
            crate::pubsub::confirm(word, request.arg(index), 0, version, &mut reply);
        }
        // Confirmations are seen even under CLIENT REPLY OFF.
        self.answer(ticket, &reply, false)
    }

    /// The session's oldest question was answered, or will not be: it goes on.
    pub(super) fn question_over(&mut self, ticket: Ticket) -> Option<Question> {
        let session = self.session(ticket)?;
        // The next one may be held by a pause, which says itself when it is over.
        if !session.flags.any(Flags::PAUSED) {
            session.flags.clear(Flags::WAITING);
        }
        let extra = session.extra();
        let question = extra.subscriber.questions.pop_front();
        if let Some(question) = &question {
            extra.subscriber.pending.answered(question.number);
        }
        if extra.subscriber.questions.is_empty() {
            // Thousands of subscribers ask once.
            extra.subscriber.questions = VecDeque::new();
        }
        if extra.subscriptions.is_empty() && extra.subscriber.questions.is_empty() {
            extra.subscriptions.feed = None;
        }
        self.refresh_special(ticket);
        self.recount_memory(ticket);
        self.make_ready(ticket);
        question
    }

    /// Writes the answer to a `PING`, or the reply that waited for the messages from
    /// before.
    pub(super) fn answer_question(&mut self, ticket: Ticket, error: Option<&[u8]>) {
        if self.session(ticket).is_none() {
            return;
        }
        let version = self.version_of(ticket);
        let Some(question) = self.question_over(ticket) else {
            return;
        };
        let reply = match (question.about, error) {
            (About::Reply(reply), _) => reply,
            (_, Some(error)) => error.to_vec(),
            (About::Ping(word), None) => {
                let value = match (version, word) {
                    (Version::Resp2, word) => Value::array(vec![
                        Value::bulk("pong"),
                        Value::bulk(word.unwrap_or_default()),
                    ]),
                    (Version::Resp3, Some(word)) => Value::bulk(word),
                    (Version::Resp3, None) => Value::simple("PONG"),
                };
                let mut reply = Vec::new();
                resp::encode(&value, version, &mut reply);
                reply
            }
            (About::Subscriptions, None) => Vec::new(),
        };
        if !question.silent {
            self.write(ticket, &reply);
        }
    }

    /// A session goes, or starts anew: it is subscribed to nothing over a feed any more.
    pub(super) fn leave_feed(&mut self, slot: u32, route: u16, extra: &mut Extra) {
        let Some(user) = extra.subscriptions.feed.take() else {
            return;
        };
        extra.subscriber.questions.clear();
        let pending = std::mem::take(&mut extra.subscriber.pending);
        let key = (route, user);
        let subscriptions = std::mem::take(&mut extra.subscriptions);
        let audience = &self.fronts[key.0 as usize].route.audience;
        let local = self.pubsub.locals.entry(key).or_default();
        let feed = local.feed;
        let mut released = Vec::new();
        for space in Space::ALL {
            let mut names: Vec<Name> = subscriptions.of(space).iter().cloned().collect();
            for name in &names {
                if local.remove(space, name, slot) {
                    audience.change(space, name, -1);
                }
            }
            // Of those the feed was told already.
            names.retain(|name| !pending.ends(space, name));
            if !names.is_empty() {
                released.push((space, names));
            }
        }
        let ended = pending.ended_later();
        let ended = ended.map(|(number, names)| (number, (key, names)));
        self.pubsub.ended_later.extend(ended);
        if !released.is_empty() {
            let worker = self.index as u16;
            self.tell_feed(
                key,
                ToFeed::Release {
                    worker,
                    feed,
                    names: released,
                },
            );
        }
    }

    /// What a clock decides of a subscriber. Whether it was closed.
    pub(super) fn tick_subscriber(&mut self, ticket: Ticket) -> bool {
        let now = self.clock.now();
        let patience = self.sessions[ticket.slot as usize].route;
        let patience = self.feed_patience(patience).as_micros() as u64;
        let session = &mut self.sessions[ticket.slot as usize];
        let clients = &self.fronts[session.route as usize].config.clients;
        let (soft, time) = (
            clients.subscriber_output_soft,
            clients.subscriber_output_soft_time.as_micros() as u64,
        );
        let unread = session.output.len() as u64;
        let Some(extra) = session.extra.as_deref_mut() else {
            return false;
        };
        let unread = unread + extra.held_pushes.len() as u64;
        if extra.subscriptions.on_feed() && unread > soft {
            let since = &mut extra.subscriber.over_soft_since;
            if *since == 0 {
                *since = now;
            } else if now - *since > time {
                self.log_slow_subscriber(ticket, "clients.subscriber_output_soft");
                self.close(ticket.slot, CloseReason::SubscriberSoftLimit);
                return true;
            }
        } else {
            extra.subscriber.over_soft_since = 0;
        }
        let late = extra
            .subscriber
            .questions
            .front()
            .is_some_and(|question| now.saturating_sub(question.at) > patience);
        if late {
            return self.give_up_question(ticket);
        }
        false
    }

    /// No answer came. One who is subscribed can not be told what became of that.
    fn give_up_question(&mut self, ticket: Ticket) -> bool {
        let session = &mut self.sessions[ticket.slot as usize];
        let extra = session.extra();
        if !extra.subscriptions.is_empty() || extra.subscriber.questions.len() > 1 {
            self.close(ticket.slot, CloseReason::SubscriptionLost);
            return true;
        }
        self.count_error(ticket, ErrorCause::RequestTimeout);
        self.answer_question(ticket, Some(failure::TIMED_OUT));
        false
    }

    /// Has a fed session's next commands wait where the order of its replies and its own
    /// messages depends on it (`networking.c:_addReplyToBufferOrList`): since 7.2 the reply
    /// to a command comes before the messages that it causes.
    pub(super) fn order_own_messages(&mut self, ticket: Ticket, row: Row) {
        let may_publish = row.flags.contains(CommandFlags::MAY_REPLICATE)
            || row.class == crate::command::Class::Exec;
        if !may_publish || self.session(ticket).is_none() || !self.is_fed(ticket) {
            return;
        }
        let replies_first = self.node_of(ticket).server_version().like_redis(7, 2);
        let session = &mut self.sessions[ticket.slot as usize];
        if session.in_flight > 0 {
            session.flags.set(Flags::BARRIER);
            session.extra().subscriber.replies_first = replies_first;
        }
    }
}
/// Whether it subscribes, and does not end subscriptions.
fn begins(sub: Sub) -> bool {
    matches!(sub, Sub::Subscribe | Sub::PSubscribe | Sub::SSubscribe)
}
