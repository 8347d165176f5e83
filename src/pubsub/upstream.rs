//! The home's side of a feed: what the node is asked, what it has confirmed, and which
//! workers a message goes to.
//!
//! Every `SUBSCRIBE` of every client is sent, also of a name that the feed has already:
//! where the node confirms it is where the client's subscription begins. An `UNSUBSCRIBE`
//! takes effect where the node confirms one of the same kind: of the names that nobody
//! else wants, and of one that the feed has never had, so that there is always a
//! confirmation to wait for and the node says if the user may not do this.

use std::collections::{HashMap, VecDeque};

use super::{Audience, Frame, Name, Space};
use crate::backend::Ticket;
use crate::resp;

/// Ends of subscriptions that the node has refused, before the feed is given up: it would
/// collect names without an end.
const REFUSED_MAX: u32 = 1024;

/// Who asked, and for what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asker {
    /// On which worker.
    pub worker: u16,
    /// Which client.
    pub client: Ticket,
    /// Which of its questions: one that has been given up is told from the next.
    pub number: u32,
}

/// What a client asks of the feed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ask {
    /// To be subscribed to these names, each with whether it is not so already.
    Subscribe(Space, Vec<(Name, bool)>),
    /// Not to be subscribed to these any more, each with whether it is so now. None at all
    /// for a client that is subscribed to nothing of the kind.
    Unsubscribe(Space, Vec<(Name, bool)>),
    /// An answer that comes behind all messages from before.
    Ping {
        /// The client itself has asked, and not Weir.
        by_client: bool,
    },
}

/// What a frame of the node means.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Every worker that [`Upstream::routes`] names gets the message.
    Message(Space, Name),
    /// A client's subscription begins here.
    Subscribed {
        /// Whose.
        asker: Asker,
        /// What it is.
        space: Space,
        /// To what.
        name: Name,
        /// The client was not subscribed to it when it asked.
        new: bool,
        /// All that it has asked for is done.
        last: bool,
    },
    /// A client's subscriptions end here.
    Unsubscribed {
        /// Whose.
        asker: Asker,
        /// What they are.
        space: Space,
        /// As it asked.
        names: Vec<(Name, bool)>,
    },
    /// The frame itself answers: it is a `PING`'s, or an error, after which nothing of
    /// what was asked has happened.
    Answered(Asker),
    /// The node has ended everybody's subscription to this name by itself.
    Revoked(Space, Name),
    /// Nobody has to know.
    Nothing,
}

/// The node said what can not be the answer to what it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfStep;

/// One name that somebody wants, or wanted.
#[derive(Debug, Default)]
struct Held {
    /// Clients that are subscribed, or will be, if the node agrees.
    wanted: u32,
    /// The node says that the feed is subscribed.
    confirmed: bool,
    /// How many clients of which workers may get its messages.
    routes: Vec<(u16, u32)>,
}

#[derive(Debug)]
enum Expected {
    Subscribe {
        asker: Asker,
        space: Space,
        names: Vec<(Name, bool)>,
        confirmed: usize,
    },
    Unsubscribe {
        asker: Option<Asker>,
        space: Space,
        names: Vec<(Name, bool)>,
        /// What was named to the node, in order, as far as it is not confirmed.
        words: VecDeque<Name>,
    },
    Ping {
        asker: Asker,
    },
}

/// What a feed is asked, has, and owes its clients.
#[derive(Debug, Default)]
pub struct Upstream {
    held: [HashMap<Name, Held>; 3],
    expected: VecDeque<Expected>,
    /// The sum of what is wanted of all names.
    wanted: usize,
    refused: u32,
    /// What nobody wants any more because a question failed, and the node was not told.
    unwanted: Vec<(Space, Name)>,
}

impl Upstream {
    /// A client asks; what to send to the node for it goes behind `out`.
    pub fn ask(&mut self, asker: Asker, ask: Ask, out: &mut Vec<u8>) {
        match ask {
            Ask::Subscribe(space, names) => {
                for (name, new) in &names {
                    if *new {
                        let held = self.held[space.index()].entry(name.clone()).or_default();
                        held.wanted += 1;
                        self.wanted += 1;
                        held.route(asker.worker, 1);
                    }
                }
                let words = names.iter().map(|(name, _)| &**name);
                send(&space.subscribed_word().to_uppercase(), words, out);
                self.expected.push_back(Expected::Subscribe {
                    asker,
                    space,
                    names,
                    confirmed: 0,
                });
            }
            Ask::Unsubscribe(space, names) => {
                self.leave(Some(asker), space, names, out);
            }
            Ask::Ping { by_client } => {
                let word = if by_client { "PING" } else { "pING" };
                send(word, std::iter::empty(), out);
                self.expected.push_back(Expected::Ping { asker });
            }
        }
    }

    /// A client of this worker has gone, and with it its subscriptions to these names.
    pub fn release(&mut self, worker: u16, space: Space, names: Vec<Name>, out: &mut Vec<u8>) {
        for name in &names {
            if let Some(held) = self.held[space.index()].get_mut(&**name) {
                held.route(worker, -1);
            }
        }
        let names: Vec<_> = names.into_iter().map(|name| (name, true)).collect();
        self.leave(None, space, names, out);
    }

    /// Sends the end of those names that nobody wants any more.
    fn leave(
        &mut self,
        asker: Option<Asker>,
        space: Space,
        names: Vec<(Name, bool)>,
        out: &mut Vec<u8>,
    ) {
        let mut words = VecDeque::new();
        for (name, _) in names.iter().filter(|(_, was)| *was) {
            if self.want_less(space, name) {
                words.push_back(name.clone());
            }
        }
        if asker.is_some() {
            words.push_back(self.free_name(space));
        }
        if words.is_empty() {
            return;
        }
        self.unsubscribe(asker, space, names, words, out);
    }

    /// Tells the node what nobody wants any more since a question has failed. To be called
    /// after [`Heard::Answered`].
    pub fn tidy(&mut self, out: &mut Vec<u8>) {
        for (space, name) in std::mem::take(&mut self.unwanted) {
            // It may be on its way by another question, which was ended since.
            let held = self.held[space.index()].get(&name);
            if held.is_some_and(|held| held.wanted == 0) {
                self.unsubscribe(None, space, Vec::new(), VecDeque::from([name]), out);
            }
        }
    }

    fn unsubscribe(
        &mut self,
        asker: Option<Asker>,
        space: Space,
        names: Vec<(Name, bool)>,
        words: VecDeque<Name>,
        out: &mut Vec<u8>,
    ) {
        // Its own spelling: what a client has asked for is not what is sent.
        let word = space.unsubscribed_word().to_uppercase();
        let word = [&word[..1].to_lowercase(), &word[1..]].concat();
        send(&word, words.iter().map(|word| &**word), out);
        self.expected.push_back(Expected::Unsubscribe {
            asker,
            space,
            names,
            words,
        });
    }

    /// One client less wants a name. Whether nobody does now.
    fn want_less(&mut self, space: Space, name: &[u8]) -> bool {
        match self.held[space.index()].get_mut(name) {
            Some(held) if held.wanted > 0 => {
                held.wanted -= 1;
                self.wanted -= 1;
                held.wanted == 0
            }
            _ => false,
        }
    }

    /// A name that the feed does not have.
    fn free_name(&self, space: Space) -> Name {
        let mut name = b"weir:fence".to_vec();
        while self.held[space.index()].contains_key(&*name) {
            name.push(b'\'');
        }
        name.into()
    }

    /// Takes in one frame of the node.
    ///
    /// # Errors
    /// When it does not answer what was asked.
    pub fn hear(&mut self, frame: Frame<'_>, audience: &Audience) -> Result<Heard, OutOfStep> {
        match frame {
            Frame::Message(space, name) => {
                let held = self.held[space.index()].get_key_value(name);
                Ok(match held {
                    Some((name, held)) if !held.routes.is_empty() => {
                        Heard::Message(space, name.clone())
                    }
                    _ => Heard::Nothing,
                })
            }
            Frame::Subscribed(space, name) => self.subscribed(space, name, audience),
            Frame::Unsubscribed(space, name) => self.unsubscribed(space, name, audience),
            Frame::Reply => self.replied(),
        }
    }

    fn subscribed(
        &mut self,
        space: Space,
        name: &[u8],
        audience: &Audience,
    ) -> Result<Heard, OutOfStep> {
        let Some(Expected::Subscribe {
            asker,
            space: asked,
            names,
            confirmed,
        }) = self.expected.front_mut()
        else {
            return Err(OutOfStep);
        };
        let Some((own, new)) = names.get(*confirmed).cloned() else {
            return Err(OutOfStep);
        };
        if *asked != space || *own != *name {
            return Err(OutOfStep);
        }
        *confirmed += 1;
        let (asker, last) = (*asker, *confirmed == names.len());
        if last {
            self.expected.pop_front();
        }
        // Gone if its client has left in the meantime and this is the last to know.
        let held = self.held[space.index()].entry(own.clone()).or_default();
        if !held.confirmed {
            held.confirmed = true;
            audience.change(space, &own, -1);
        }
        Ok(Heard::Subscribed {
            asker,
            space,
            name: own,
            new,
            last,
        })
    }

    fn unsubscribed(
        &mut self,
        space: Space,
        name: &[u8],
        audience: &Audience,
    ) -> Result<Heard, OutOfStep> {
        let mut is_asked = false;
        let mut is_done = false;
        if let Some(Expected::Unsubscribe {
            space: asked,
            words,
            ..
        }) = self.expected.front_mut()
            && *asked == space
            && words.front().is_some_and(|word| **word == *name)
        {
            is_asked = true;
            words.pop_front();
            is_done = words.is_empty();
        }
        let known = self.held[space.index()].get_key_value(name);
        let known = known.map(|(name, _)| name.clone());
        if let Some(own) = &known {
            let held = self.held[space.index()].get_mut(own).expect("just found");
            if std::mem::take(&mut held.confirmed) {
                audience.change(space, own, 1);
            }
            if !is_asked && space == Space::Shard {
                // The node ends subscriptions to shard channels by itself, when their
                // slot moves to another.
                self.wanted -= std::mem::take(&mut held.wanted) as usize;
                return Ok(Heard::Revoked(space, own.clone()));
            }
            self.forget_if_unused(space, own);
        }
        if !is_asked && space != Space::Shard {
            return Err(OutOfStep);
        }
        if !is_done {
            return Ok(Heard::Nothing);
        }
        let Some(Expected::Unsubscribe { asker, names, .. }) = self.expected.pop_front() else {
            unreachable!("it was at the front");
        };
        let Some(asker) = asker else {
            return Ok(Heard::Nothing);
        };
        for (name, was) in &names {
            if *was {
                if let Some(held) = self.held[space.index()].get_mut(&**name) {
                    held.route(asker.worker, -1);
                }
                self.forget_if_unused(space, name);
            }
        }
        Ok(Heard::Unsubscribed {
            asker,
            space,
            names,
        })
    }

    /// The answer to a `PING`, or an error that answers everything the command named.
    fn replied(&mut self) -> Result<Heard, OutOfStep> {
        match self.expected.pop_front() {
            None => Err(OutOfStep),
            Some(Expected::Ping { asker }) => Ok(Heard::Answered(asker)),
            Some(Expected::Subscribe {
                asker,
                space,
                names,
                confirmed,
            }) => {
                if confirmed > 0 {
                    return Err(OutOfStep);
                }
                for (name, _) in names.iter().filter(|(_, new)| *new) {
                    match self.next_of(&asker, space, name) {
                        // Begins it in its place.
                        Some((true, flag)) => {
                            *flag = true;
                            continue;
                        }
                        // Ends nothing: it is not wanted any more already.
                        Some((false, flag)) => *flag = false,
                        None => {
                            if self.want_less(space, name) {
                                self.unwanted.push((space, name.clone()));
                            }
                        }
                    }
                    if let Some(held) = self.held[space.index()].get_mut(&**name) {
                        held.route(asker.worker, -1);
                    }
                    self.forget_if_unused(space, name);
                }
                Ok(Heard::Answered(asker))
            }
            Some(Expected::Unsubscribe {
                asker,
                space,
                names,
                ..
            }) => {
                let Some(asker) = asker else {
                    self.refused += 1;
                    return match self.refused > REFUSED_MAX {
                        true => Err(OutOfStep),
                        false => Ok(Heard::Nothing),
                    };
                };
                // The client stays what it was.
                for (name, _) in names.iter().filter(|(_, was)| *was) {
                    let next = self.next_of(&asker, space, name).map(|(begins, flag)| {
                        *flag = !begins;
                        begins
                    });
                    let held = self.held[space.index()].entry(name.clone()).or_default();
                    match next {
                        // Begins nothing: it is wanted by that, and has its route.
                        Some(true) => held.route(asker.worker, -1),
                        // Ends it in its place.
                        Some(false) => {}
                        None => {
                            held.wanted += 1;
                            self.wanted += 1;
                        }
                    }
                }
                Ok(Heard::Answered(asker))
            }
        }
    }

    /// What a client has asked next about a name, while an earlier question fails: whether
    /// its subscription begins by that, and whether anything changes.
    fn next_of(&mut self, of: &Asker, space: Space, name: &[u8]) -> Option<(bool, &mut bool)> {
        let is_same = |asker: &Asker| asker.worker == of.worker && asker.client == of.client;
        self.expected.iter_mut().find_map(|expected| {
            let (begins, names) = match expected {
                Expected::Subscribe {
                    asker,
                    space: about,
                    names,
                    ..
                } if is_same(asker) && *about == space => (true, names),
                Expected::Unsubscribe {
                    asker: Some(asker),
                    space: about,
                    names,
                    ..
                } if is_same(asker) && *about == space => (false, names),
                _ => return None,
            };
            let found = names.iter_mut().find(|(known, _)| **known == *name);
            found.map(|(_, flag)| (begins, flag))
        })
    }

    /// The workers that messages to a name go to.
    pub fn routes(&self, space: Space, name: &[u8]) -> impl Iterator<Item = u16> + '_ {
        let held = self.held[space.index()].get(name);
        let routes = held.map_or(&[][..], |held| &held.routes);
        routes.iter().map(|(worker, _)| *worker)
    }

    /// Everybody's subscription to a name was ended by the node, and they have been told.
    pub fn forget(&mut self, space: Space, name: &[u8]) {
        if let Some(held) = self.held[space.index()].get_mut(name) {
            held.routes.clear();
        }
        self.forget_if_unused(space, name);
    }

    fn forget_if_unused(&mut self, space: Space, name: &[u8]) {
        let of_space = &mut self.held[space.index()];
        if of_space
            .get(name)
            .is_some_and(|held| held.wanted == 0 && !held.confirmed && held.routes.is_empty())
        {
            of_space.remove(name);
        }
    }

    /// Nobody is subscribed and nothing is to be answered.
    pub fn is_idle(&self) -> bool {
        self.expected.is_empty() && self.wanted == 0
    }

    /// Names that the node is subscribed to for this feed.
    pub fn names(&self) -> usize {
        self.held.iter().map(HashMap::len).sum()
    }

    /// The connection is gone: forgets everything, and says who waits for an answer.
    pub fn lost(&mut self, audience: &Audience) -> Vec<Asker> {
        for space in Space::ALL {
            for (name, held) in self.held[space.index()].drain() {
                if held.confirmed {
                    audience.change(space, &name, 1);
                }
            }
        }
        (self.refused, self.wanted) = (0, 0);
        self.unwanted.clear();
        let askers = self
            .expected
            .drain(..)
            .filter_map(|expected| match expected {
                Expected::Subscribe { asker, .. } | Expected::Ping { asker } => Some(asker),
                Expected::Unsubscribe { asker, .. } => asker,
            });
        askers.collect()
    }
}

impl Held {
    fn route(&mut self, worker: u16, by: i32) {
        let place = self.routes.iter().position(|(known, _)| *known == worker);
        match place {
            Some(place) => {
                let count = &mut self.routes[place].1;
                *count = count.saturating_add_signed(by);
                if *count == 0 {
                    self.routes.swap_remove(place);
                }
            }
            None if by > 0 => self.routes.push((worker, by as u32)),
            None => {}
        }
    }
}

fn send<'a>(word: &'a str, args: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    let words: Vec<&[u8]> = std::iter::once(word.as_bytes()).chain(args).collect();
    resp::encode_command(&words, out);
}
