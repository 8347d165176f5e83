//! The feed against a model: clients with a connection each to one server. Whatever is
//! asked, by whom, and whoever leaves when, each client gets the same in the same order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::backend::Ticket;

const CLIENTS: u32 = 4;
const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Step {
    /// A client asks, whatever it waits for.
    Subscribe(u32, Space, Vec<usize>),
    Unsubscribe(u32, Space, Vec<usize>),
    Ping(u32),
    /// The client leaves, and another takes its place.
    Leave(u32),
    /// From now on the node refuses subscriptions to one of the names, or does not.
    Deny(bool),
    /// Somebody publishes to a channel, or to a shard channel.
    Publish(bool, usize),
    /// The node reads one request of the feed.
    Node,
    /// The feed's home reads one frame of the node.
    Home,
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    let space = prop::sample::select(Space::ALL.to_vec());
    let names = prop::collection::vec(0..NAMES.len(), 1..4);
    prop_oneof![
        3 => (client.clone(), space.clone(), names.clone())
            .prop_map(|(client, space, names)| Step::Subscribe(client, space, names)),
        2 => (client.clone(), space, prop::collection::vec(0..NAMES.len(), 0..4))
            .prop_map(|(client, space, names)| Step::Unsubscribe(client, space, names)),
        1 => client.clone().prop_map(Step::Ping),
        1 => client.prop_map(Step::Leave),
        1 => any::<bool>().prop_map(Step::Deny),
        4 => (any::<bool>(), 0..NAMES.len()).prop_map(|(shard, name)| Step::Publish(shard, name)),
        6 => Just(Step::Node),
        6 => Just(Step::Home),
    ]
}

type Subscribed = BTreeMap<Name, ()>;

#[derive(Default)]
struct Client {
    /// What it is subscribed to, as far as it was told.
    has: [Subscribed; 3],
    /// Its own worker's ticket generation.
    generation: u32,
    /// Questions that are not answered.
    waits: usize,
    pending: Pending,
    got: Vec<String>,
    /// What it would have got of the server itself, decided when the node does it.
    due: VecDeque<String>,
}

impl Client {
    fn answered(&mut self, asker: Asker) {
        self.waits -= 1;
        self.pending.answered(asker.number);
    }
}

/// The client, its generation, and what it asks for; `None` for Weir itself.
type Who = Option<(u32, u32, Asked)>;

/// The whole: clients, each on a worker of its own; the home; a node.
#[derive(Default)]
struct World {
    clients: Vec<Client>,
    upstream: Upstream,
    locals: Vec<Local>,
    audience: Audience,
    /// Requests on their way to the node, with what the model's client gets then.
    requests: VecDeque<(Vec<u8>, Who)>,
    /// Frames on their way from the node.
    frames: VecDeque<Vec<u8>>,
    node: [BTreeSet<Vec<u8>>; 3],
    denies: bool,
    numbers: u32,
    ended_later: BTreeMap<u32, Vec<Name>>,
    /// Clients as the server would have them, had they connections of their own.
    model: BTreeMap<(u32, u32), [BTreeSet<Vec<u8>>; 3]>,
    published: u32,
}

#[derive(Clone)]
enum Asked {
    Subscribe(Space, Vec<Name>),
    Unsubscribe(Space, Vec<Name>),
    Ping,
}

impl World {
    fn new() -> World {
        let mut world = World::default();
        for _ in 0..CLIENTS {
            world.clients.push(Client::default());
            world.locals.push(Local::default());
        }
        world
    }

    fn asker(&self, client: u32) -> Asker {
        Asker {
            worker: client as u16,
            client: Ticket {
                slot: client,
                generation: self.clients[client as usize].generation,
            },
            number: self.numbers,
        }
    }

    fn flagged(
        &self,
        client: u32,
        space: Space,
        names: &[usize],
        begins: bool,
    ) -> Vec<(Name, bool)> {
        let client = &self.clients[client as usize];
        let mut seen = BTreeSet::new();
        let names = names
            .iter()
            .map(|&index| Name::from(NAMES[index].as_bytes()));
        names
            .map(|name| {
                let has = client.has[space.index()].contains_key(&name);
                let will_have = client.pending.will_have(space, &name, has);
                let changes = seen.insert(name.clone()) && will_have != begins;
                (name, changes)
            })
            .collect()
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Subscribe(client, space, names) => {
                let names = self.flagged(client, space, &names, true);
                let asked = names.iter().map(|(name, _)| name.clone()).collect();
                self.ask(
                    client,
                    Ask::Subscribe(space, names),
                    Asked::Subscribe(space, asked),
                );
            }
            Step::Unsubscribe(client, space, names) => {
                let state = &self.clients[client as usize];
                let nothing = state.has.iter().all(BTreeMap::is_empty);
                if nothing && state.pending.is_empty() {
                    return;
                }
                let names = match names.is_empty() {
                    true if !state.pending.is_empty() => return,
                    true => {
                        let all = state.has[space.index()].keys();
                        all.map(|name| (name.clone(), true)).collect()
                    }
                    false => self.flagged(client, space, &names, false),
                };
                let asked = names.iter().map(|(name, _)| name.clone()).collect();
                self.ask(
                    client,
                    Ask::Unsubscribe(space, names),
                    Asked::Unsubscribe(space, asked),
                );
            }
            Step::Deny(denies) => self.denies = denies,
            Step::Ping(client) if self.clients[client as usize].waits == 0 => {
                self.ask(client, Ask::Ping { by_client: true }, Asked::Ping);
            }
            Step::Leave(client) => self.leave(client),
            Step::Publish(shard, name) => self.publish(shard, NAMES[name]),
            Step::Node => self.node_reads(),
            Step::Home => self.home_reads(),
            _ => {}
        }
    }

    fn ask(&mut self, client: u32, ask: Ask, asked: Asked) {
        self.numbers += 1;
        let asker = self.asker(client);
        let state = &mut self.clients[client as usize];
        state.pending.asked(asker.number, &ask);
        state.waits += 1;
        let mut out = Vec::new();
        self.upstream.ask(asker, ask, &mut out);
        let who = (client, asker.client.generation, asked);
        self.requests.push_back((out, Some(who)));
    }

    fn leave(&mut self, client: u32) {
        let state = &mut self.clients[client as usize];
        let generation = state.generation;
        let pending = std::mem::take(&mut state.pending);
        let has = std::mem::take(&mut state.has);
        *state = Client {
            generation: generation + 1,
            ..Client::default()
        };
        self.model.remove(&(client, generation));
        self.ended_later.extend(pending.ended_later());
        for space in Space::ALL {
            let mut names: Vec<Name> = has[space.index()].keys().cloned().collect();
            for name in &names {
                self.locals[client as usize].remove(space, name, client);
                self.audience.change(space, name, -1);
            }
            names.retain(|name| !pending.ends(space, name));
            self.release(client, space, names);
        }
    }

    fn release(&mut self, client: u32, space: Space, names: Vec<Name>) {
        let mut out = Vec::new();
        self.upstream.release(client as u16, space, names, &mut out);
        if !out.is_empty() {
            self.requests.push_back((out, None));
        }
    }

    /// The node reads one request, and does what it says; so does the model.
    fn node_reads(&mut self) {
        let Some((request, who)) = self.requests.pop_front() else {
            return;
        };
        let (value, _) = crate::resp::decode(&request).unwrap().unwrap();
        let words: Vec<Vec<u8>> = value
            .as_array()
            .unwrap()
            .iter()
            .map(|word| word.as_bytes().unwrap().to_vec())
            .collect();
        let command = String::from_utf8(words[0].clone()).unwrap().to_lowercase();
        let (space, begins) = match &*command {
            "ping" => {
                self.frames.push_back(b"+PONG\r\n".to_vec());
                if let Some((client, generation, _)) = who {
                    self.due(client, generation, "pong".into());
                }
                return;
            }
            "subscribe" => (Space::Channel, true),
            "psubscribe" => (Space::Pattern, true),
            "ssubscribe" => (Space::Shard, true),
            "unsubscribe" => (Space::Channel, false),
            "punsubscribe" => (Space::Pattern, false),
            "sunsubscribe" => (Space::Shard, false),
            other => panic!("{other}"),
        };
        if begins && self.denies && words[1..].contains(&b"c".to_vec()) {
            self.frames.push_back(b"-NOPERM\r\n".to_vec());
            if let Some((client, generation, _)) = who {
                self.due(client, generation, "error".into());
            }
            return;
        }
        for name in &words[1..] {
            let subscribed = &mut self.node[space.index()];
            if begins {
                subscribed.insert(name.clone());
            } else {
                subscribed.remove(name);
            }
            let word = command.as_str();
            let mut frame = Vec::new();
            confirm(word, Some(name), 0, Version::Resp3, &mut frame);
            self.frames.push_back(frame);
        }
        if let Some((client, generation, asked)) = who {
            self.model_does(client, generation, asked);
        }
    }

    fn due(&mut self, client: u32, generation: u32, what: String) {
        let state = &mut self.clients[client as usize];
        if state.generation == generation {
            state.due.push_back(what);
        }
    }

    fn model_does(&mut self, client: u32, generation: u32, asked: Asked) {
        if self.clients[client as usize].generation != generation {
            return;
        }
        let (space, names, begins) = match asked {
            Asked::Ping => return,
            Asked::Subscribe(space, names) => (space, names, true),
            Asked::Unsubscribe(space, names) => (space, names, false),
        };
        for name in names {
            let own = self.model.entry((client, generation)).or_default();
            let word = if begins {
                own[space.index()].insert(name.to_vec());
                space.subscribed_word()
            } else {
                own[space.index()].remove(&*name);
                space.unsubscribed_word()
            };
            let name = String::from_utf8_lossy(&name).into_owned();
            self.due(client, generation, format!("{word} {name}"));
        }
    }

    fn publish(&mut self, shard: bool, channel: &str) {
        self.published += 1;
        let payload = self.published.to_string();
        let spaces: &[Space] = if shard {
            &[Space::Shard]
        } else {
            &[Space::Channel, Space::Pattern]
        };
        let mut direct = 0;
        let mut counted = 0;
        for &space in spaces {
            let clients: Vec<_> = self
                .model
                .iter()
                .map(|(who, own)| (*who, own[space.index()].contains(channel.as_bytes())))
                .collect();
            for ((client, generation), has) in clients {
                if has {
                    direct += 1;
                    self.due(client, generation, format!("{space:?} {channel} {payload}"));
                }
            }
            if self.node[space.index()].contains(channel.as_bytes()) {
                counted += 1;
                let (kind, second) = match space {
                    Space::Channel => ("message", None),
                    Space::Pattern => ("pmessage", Some(channel)),
                    Space::Shard => ("smessage", None),
                };
                let mut words = vec![kind, channel];
                words.extend(second);
                words.push(&payload);
                let mut frame = Vec::new();
                crate::resp::encode_command(&words, &mut frame);
                frame[0] = b'>';
                self.frames.push_back(frame);
            }
        }
        let quiet = self.requests.is_empty() && self.frames.len() <= counted as usize;
        if quiet {
            // No subscription is changing: the count is what it would be without Weir.
            let more = match shard {
                true => self.audience.of(Space::Shard, channel.as_bytes()),
                false => self.audience.of_publish(channel.as_bytes()),
            };
            assert_eq!(counted + more, direct);
        }
    }

    /// The home reads one frame, and what follows from it.
    fn home_reads(&mut self) {
        let Some(frame) = self.frames.pop_front() else {
            return;
        };
        let heard = self.upstream.hear(read(&frame), &self.audience);
        match heard.expect("in step") {
            Heard::Message(space, name) => {
                let text = crate::resp::decode(&frame).unwrap().unwrap().0;
                let payload = text
                    .as_array()
                    .unwrap()
                    .last()
                    .unwrap()
                    .as_str()
                    .unwrap()
                    .to_owned();
                let workers: Vec<u16> = self.upstream.routes(space, &name).collect();
                for worker in workers {
                    for client in self.locals[worker as usize].clients(space, &name) {
                        let name = String::from_utf8_lossy(&name);
                        self.clients[client as usize]
                            .got
                            .push(format!("{space:?} {name} {payload}"));
                    }
                }
            }
            Heard::Subscribed {
                asker,
                space,
                name,
                new,
                last,
            } => {
                let client = asker.client.slot;
                if self.clients[client as usize].generation != asker.client.generation {
                    let ended = self.ended_later.get(&asker.number);
                    let is_ended = ended.is_some_and(|names| names.contains(&name));
                    if new && !is_ended {
                        self.release(client, space, vec![name]);
                    }
                    return;
                }
                if self.locals[client as usize].add(space, &name, client) {
                    self.audience.change(space, &name, 1);
                }
                let state = &mut self.clients[client as usize];
                state.has[space.index()].insert(name.clone(), ());
                let text = String::from_utf8_lossy(&name);
                state
                    .got
                    .push(format!("{} {text}", space.subscribed_word()));
                if last {
                    state.answered(asker);
                }
            }
            Heard::Unsubscribed {
                asker,
                space,
                names,
            } => {
                let client = asker.client.slot;
                let state = &mut self.clients[client as usize];
                if state.generation != asker.client.generation {
                    return;
                }
                state.answered(asker);
                for (name, _) in names {
                    state.has[space.index()].remove(&name);
                    if self.locals[client as usize].remove(space, &name, client) {
                        self.audience.change(space, &name, -1);
                    }
                    let text = String::from_utf8_lossy(&name);
                    state
                        .got
                        .push(format!("{} {text}", space.unsubscribed_word()));
                }
            }
            Heard::Answered(asker) => {
                let mut out = Vec::new();
                self.upstream.tidy(&mut out);
                while let Ok(Some((_, end))) = crate::resp::decode(&out) {
                    self.requests.push_back((out.drain(..end).collect(), None));
                }
                let state = &mut self.clients[asker.client.slot as usize];
                if state.generation == asker.client.generation {
                    state.answered(asker);
                    let word = if frame[0] == b'-' { "error" } else { "pong" };
                    state.got.push(word.into());
                }
            }
            Heard::Revoked(..) => panic!("nothing is revoked here"),
            Heard::Nothing => {}
        }
    }

    fn settle(&mut self) {
        while !self.requests.is_empty() || !self.frames.is_empty() {
            self.node_reads();
            while !self.frames.is_empty() {
                self.home_reads();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn each_client_gets_what_a_connection_of_its_own_would_bring(
        steps in prop::collection::vec(step(), 1..120)
    ) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
            for state in &world.clients {
                let due: Vec<_> = state.due.iter().take(state.got.len()).cloned().collect();
                prop_assert_eq!(&state.got, &due);
            }
        }
        world.settle();
        for state in &world.clients {
            prop_assert_eq!(&state.got, &Vec::from_iter(state.due.clone()));
            prop_assert_eq!(state.waits, 0);
            prop_assert!(state.pending.is_empty());
        }
        for name in NAMES {
            world.publish(false, name);
            world.publish(true, name);
            world.settle();
        }
        for client in 0..CLIENTS {
            world.leave(client);
        }
        world.settle();
        prop_assert!(world.upstream.is_idle());
        prop_assert_eq!(world.upstream.names(), 0);
        prop_assert!(world.audience.is_exact());
        prop_assert!(world.node.iter().all(BTreeSet::is_empty));
    }
}
