//! A lobby against a small model of Redis, in random order: who comes, who leaves, what
//! is pushed, which connection is lost, which of two things happens first.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::*;
use crate::resp::{self, Version};

/// xorshift: the seed is printed by the test.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

/// What a connection of the model waits with.
#[derive(Default)]
struct Wire {
    /// Sent and not looked at by the node.
    inbox: VecDeque<Vec<Vec<u8>>>,
    /// Answered and not read by Weir.
    outbox: VecDeque<Vec<u8>>,
    /// Blocked in this command.
    blocked: Option<Vec<Vec<u8>>>,
    blocked_since: u64,
    /// Held by a pause.
    postponed: bool,
    block: Option<Vec<Vec<Vec<u8>>>>,
}

#[derive(Default)]
struct Redis {
    lists: BTreeMap<Vec<u8>, VecDeque<u64>>,
    texts: BTreeSet<Vec<u8>>,
    /// 0 is the one that never blocks; the others are carriers.
    wires: BTreeMap<u32, Wire>,
    paused: bool,
    turn: u64,
    unblocks: u64,
}

const EMPTY: &[u8] = b"*-1\r\n";

fn keys_of(command: &[Vec<u8>]) -> &[Vec<u8>] {
    &command[1..command.len() - 1]
}

impl Redis {
    fn pop(&mut self, command: &[Vec<u8>]) -> Option<Vec<u8>> {
        for key in keys_of(command) {
            if self.texts.contains(key) {
                return Some(b"-WRONGTYPE no\r\n".to_vec());
            }
            let list = self.lists.get_mut(key);
            let element = list.and_then(|list| match command[0].as_slice() {
                b"BLPOP" => list.pop_front(),
                _ => list.pop_back(),
            });
            if let Some(element) = element {
                let mut frame = Vec::new();
                resp::encode_command(
                    &[key.as_slice(), element.to_string().as_bytes()],
                    &mut frame,
                );
                return Some(frame);
            }
        }
        None
    }

    /// The node looks at one command of a connection.
    fn step(&mut self, name: u32) {
        self.turn += 1;
        let turn = self.turn;
        let Some(wire) = self.wires.get_mut(&name) else {
            return;
        };
        if wire.blocked.is_some() {
            return;
        }
        let Some(command) = wire.inbox.front().cloned() else {
            return;
        };
        let writes = matches!(command[0].as_slice(), b"BLPOP" | b"BRPOP" | b"EXEC");
        wire.postponed = self.paused && writes;
        if wire.postponed {
            return;
        }
        wire.inbox.pop_front();
        let reply: Vec<u8> = match command[0].as_slice() {
            b"MULTI" => {
                wire.block = Some(Vec::new());
                b"+OK\r\n".to_vec()
            }
            b"EXEC" => {
                let block = wire.block.take().expect("MULTI");
                let mut reply = format!("*{}\r\n", block.len()).into_bytes();
                for command in block {
                    reply.extend(match command[0].as_slice() {
                        b"UNBLOCK" => self.unblock(&command),
                        _ => self.pop(&command).unwrap_or(EMPTY.to_vec()),
                    });
                }
                reply
            }
            b"BLPOP" | b"BRPOP" | b"UNBLOCK" if wire.block.is_some() => {
                wire.block.as_mut().expect("MULTI").push(command);
                b"+QUEUED\r\n".to_vec()
            }
            b"BLPOP" | b"BRPOP" => match self.pop(&command) {
                Some(reply) => reply,
                None => {
                    let wire = self.wires.get_mut(&name).expect("there");
                    wire.blocked = Some(command);
                    wire.blocked_since = turn;
                    return;
                }
            },
            b"UNBLOCK" => self.unblock(&command),
            other => panic!("{other:?}"),
        };
        let wire = self.wires.get_mut(&name).expect("there");
        wire.outbox.push_back(reply);
    }

    fn unblock(&mut self, command: &[Vec<u8>]) -> Vec<u8> {
        self.unblocks += 1;
        let target: u32 = String::from_utf8_lossy(&command[1]).parse().expect("id");
        let Some(target) = self.wires.get_mut(&target) else {
            return b":0\r\n".to_vec();
        };
        assert!(!target.postponed, "Redis has crashed");
        if target.blocked.take().is_none() {
            return b":0\r\n".to_vec();
        }
        target.outbox.push_back(EMPTY.to_vec());
        b":1\r\n".to_vec()
    }

    fn push(&mut self, key: &[u8], element: u64) {
        if self.texts.contains(key) || self.paused {
            return;
        }
        self.lists
            .entry(key.to_vec())
            .or_default()
            .push_back(element);
        self.serve(key);
    }

    fn serve(&mut self, key: &[u8]) {
        loop {
            let waiting = self.wires.iter().filter(|(_, wire)| {
                wire.blocked
                    .as_ref()
                    .is_some_and(|command| keys_of(command).iter().any(|it| it == key))
            });
            let Some((&first, _)) = waiting.min_by_key(|(_, wire)| wire.blocked_since) else {
                return;
            };
            if self.lists.get(key).is_none_or(VecDeque::is_empty) {
                return;
            }
            let command = self.wires.get_mut(&first).expect("there").blocked.take();
            let mut alone = command.expect("blocked");
            alone = vec![alone[0].clone(), key.to_vec(), b"0".to_vec()];
            let reply = self.pop(&alone).expect("there is something");
            let wire = self.wires.get_mut(&first).expect("there");
            wire.outbox.push_back(reply);
        }
    }

    fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
        if !paused {
            let held: Vec<u32> = self
                .wires
                .iter()
                .filter(|(_, wire)| wire.postponed)
                .map(|(&name, _)| name)
                .collect();
            for wire in self.wires.values_mut() {
                wire.postponed = false;
            }
            for name in held {
                self.step(name);
            }
        }
    }
}

struct Client {
    queue: Queue,
    /// Has asked to leave without an element, or its time was over.
    may_leave: bool,
}

struct World {
    dice: Dice,
    lobby: Lobby,
    redis: Redis,
    now: u64,
    clients: BTreeMap<WaiterId, Client>,
    questions: VecDeque<(QuestionId, usize, Vec<Vec<u8>>)>,
    sent: HashMap<u32, (usize, Vec<Vec<u8>>)>,
    opening: Vec<u32>,
    pushed: u64,
    delivered: HashSet<u64>,
    orphans: u64,
    unknown: u64,
    lost: u64,
    served: u64,
    log: VecDeque<String>,
}

fn queue(shape: &'static str, keys: &[&str]) -> Queue {
    Queue {
        shape: Arc::new(Shape::Last(shape)),
        keys: keys.iter().map(|key| key.as_bytes().to_vec()).collect(),
    }
}

fn queues() -> Vec<Queue> {
    let mut all: Vec<Queue> = ["a", "b", "c", "d", "e"]
        .iter()
        .map(|key| queue("BLPOP", &[key]))
        .collect();
    all.push(queue("BRPOP", &["a"]));
    all.push(queue("BLPOP", &["b", "c"]));
    all
}

fn elements_in(frame: &[u8]) -> Vec<u64> {
    let mut parts: Vec<&[u8]> = RepliesIn::array(frame).expect("an array").collect();
    let last = parts.pop().expect("an element");
    let (value, _) = resp::decode(last).expect("valid").expect("whole");
    vec![value.as_i64().expect("a number") as u64]
}

impl World {
    fn new(seed: u64) -> World {
        let mut redis = Redis::default();
        redis.wires.insert(0, Wire::default());
        World {
            dice: Dice(seed),
            lobby: Lobby::new(LobbySettings { carriers_max: 2 }),
            redis,
            now: 1_000_000,
            clients: BTreeMap::new(),
            questions: VecDeque::new(),
            sent: HashMap::new(),
            opening: Vec::new(),
            pushed: 0,
            delivered: HashSet::new(),
            orphans: 0,
            unknown: 0,
            lost: 0,
            served: 0,
            log: VecDeque::new(),
        }
    }

    fn note(&mut self, text: String) {
        self.log.push_back(text);
        if self.log.len() > 60 {
            self.log.pop_front();
        }
    }

    fn commands(batch: &Batch) -> Vec<Vec<Vec<u8>>> {
        let mut start = 0;
        let cut = batch.lengths.iter().map(|len| {
            let bytes = &batch.bytes[start..start + *len as usize];
            start += *len as usize;
            let (value, _) = resp::decode(bytes).expect("valid").expect("whole");
            let words = value.as_array().expect("a command").iter();
            words
                .map(|word| word.as_bytes().expect("a word").to_vec())
                .collect()
        });
        cut.collect()
    }

    fn act(&mut self) {
        loop {
            let acts = self.lobby.take_acts();
            if acts.is_empty() {
                break;
            }
            self.carry_out(acts);
        }
        self.lobby.check();
    }

    fn carry_out(&mut self, acts: Vec<Act>) {
        for act in acts {
            self.note(format!("   {act:?}"));
            match act {
                Act::Open { carrier, .. } => self.opening.push(carrier),
                Act::Close(carrier) => {
                    self.redis.wires.remove(&carrier);
                    self.sent.remove(&carrier);
                }
                Act::Send(carrier, batch) => {
                    let commands = Self::commands(&batch);
                    assert!(!self.sent.contains_key(&carrier), "one at a time");
                    self.sent.insert(carrier, (commands.len(), Vec::new()));
                    let wire = self.redis.wires.get_mut(&carrier).expect("it is open");
                    wire.inbox.extend(commands);
                }
                Act::Ask(id, question) => {
                    let mut commands = match &question {
                        Question::Try(batch) | Question::Interrupt(_, batch) => {
                            Self::commands(batch)
                        }
                    };
                    if let Question::Interrupt(carrier, _) = question {
                        commands.push(vec![b"UNBLOCK".to_vec(), carrier.to_string().into_bytes()]);
                        if commands.len() > 1 {
                            commands.push(vec![b"EXEC".to_vec()]);
                        }
                    }
                    self.questions.push_back((id, commands.len(), Vec::new()));
                    let wire = self.redis.wires.get_mut(&0).expect("always");
                    wire.inbox.extend(commands);
                }
                Act::Tell(id, tell) => self.told(id, tell),
                Act::Orphan => self.orphans += 1,
                Act::Registered(_) | Act::Reissued | Act::UnblockAnswer { .. } => {}
            }
        }
    }

    fn told(&mut self, id: WaiterId, tell: Tell) {
        let client = self.clients.remove(&id).expect("it waited");
        match tell {
            Tell::Reply {
                popped: Some(Popped { frame, .. }),
                ..
            } => {
                let earlier = self
                    .clients
                    .iter()
                    .find(|(other, waiting)| **other < id && waiting.queue == client.queue);
                assert!(
                    earlier.is_none(),
                    "{id} was served before {:?}",
                    earlier.map(|it| it.0)
                );
                if self.dice.below(20) == 0 {
                    // It has gone, and the element comes back.
                    return self.lobby.returned(self.now, &client.queue, &frame);
                }
                for element in elements_in(&frame) {
                    assert!(self.delivered.insert(element), "{element} twice");
                }
                self.served += 1;
            }
            Tell::Reply { bytes, .. } => assert!(bytes.starts_with(b"-WRONGTYPE")),
            Tell::Null | Tell::Unblocked => assert!(client.may_leave, "nobody asked it to leave"),
            Tell::Unknown => self.unknown += 1,
            Tell::Alone | Tell::Failed(_) => panic!("{tell:?}"),
        }
    }

    fn any_client(&mut self) -> Option<WaiterId> {
        let count = self.clients.len() as u64;
        let place = self.dice.below(count.max(1)) as usize;
        self.clients.keys().nth(place).copied()
    }

    fn arrive(&mut self) {
        let all = queues();
        let queue = all[self.dice.below(all.len() as u64) as usize].clone();
        let deadline = (self.dice.below(2) == 0).then(|| self.now + self.dice.below(20_000));
        let arrival = Arrival {
            wish: Wish::Pop(queue.clone()),
            version: Version::Resp2,
            deadline,
        };
        let id = self.lobby.arrive(self.now, arrival);
        self.note(format!("{id} arrives at {queue:?}"));
        let client = Client {
            queue,
            may_leave: deadline.is_some(),
        };
        self.clients.insert(id, client);
    }

    fn push(&mut self) {
        let key = [b"a", b"b", b"c", b"d", b"e"][self.dice.below(5) as usize];
        if self.redis.texts.contains(key.as_slice()) || self.redis.paused {
            return;
        }
        self.pushed += 1;
        let element = self.pushed;
        self.redis.push(key, element);
    }

    /// Something that was on its way arrives.
    fn deliver(&mut self) {
        let names: Vec<u32> = self.redis.wires.keys().copied().collect();
        let name = names[self.dice.below(names.len() as u64) as usize];
        let wire = self.redis.wires.get_mut(&name).expect("there");
        let Some(frame) = wire.outbox.pop_front() else {
            return;
        };
        if name == 0 {
            let (_, expected, frames) = self.questions.front_mut().expect("asked");
            frames.push(frame);
            if frames.len() == *expected {
                let (id, _, frames) = self.questions.pop_front().expect("asked");
                self.note(format!("question {id} is answered"));
                self.lobby.answered(self.now, id, &frames);
            }
        } else {
            let (expected, frames) = self.sent.get_mut(&name).expect("sent");
            frames.push(frame);
            if frames.len() == *expected {
                let (_, frames) = self.sent.remove(&name).expect("sent");
                self.note(format!("carrier {name} is answered"));
                self.lobby.replied(self.now, name, &frames);
            }
        }
    }

    /// Elements that were in replies nobody will read.
    fn count_lost(&mut self, wire: &Wire, frames: &[Vec<u8>]) {
        for frame in wire.outbox.iter().chain(frames) {
            let replies: Vec<&[u8]> = match RepliesIn::array(frame) {
                Some(replies) => replies.collect(),
                None => continue,
            };
            let is_pop = replies
                .first()
                .is_some_and(|first| first.first() == Some(&b'$'));
            let pops = replies
                .iter()
                .filter(|reply| reply.first() == Some(&b'*') && !is_null(reply));
            self.lost += if is_pop { 1 } else { pops.count() as u64 };
        }
    }

    fn lose(&mut self) {
        let names: Vec<u32> = self.redis.wires.keys().copied().collect();
        let name = names[self.dice.below(names.len() as u64) as usize];
        let wire = self.redis.wires.remove(&name).expect("there");
        self.note(format!("{name} is lost"));
        if name == 0 {
            self.redis.wires.insert(0, Wire::default());
            let questions = std::mem::take(&mut self.questions);
            let first: Vec<Vec<u8>> = questions
                .front()
                .map(|(_, _, frames)| frames.clone())
                .unwrap_or_default();
            self.count_lost(&wire, &first);
            for (id, ..) in questions {
                self.lobby.question_lost(self.now, id, true);
            }
        } else {
            let sent = self.sent.remove(&name).map(|(_, frames)| frames);
            self.count_lost(&wire, &sent.unwrap_or_default());
            self.lobby.lost(self.now, name, true);
        }
    }

    fn open_one(&mut self) {
        if let Some(carrier) = self.opening.pop() {
            self.redis.wires.insert(carrier, Wire::default());
            self.lobby.opened(self.now, carrier);
        }
    }

    fn step(&mut self, losses: bool) {
        match self.dice.below(100) {
            0..12 => self.arrive(),
            12..22 => self.push(),
            22..26 => {
                if let Some(id) = self.any_client() {
                    self.note(format!("{id} leaves"));
                    self.clients.remove(&id);
                    self.lobby.leave(self.now, id);
                }
            }
            26..29 => {
                if let Some(id) = self.any_client() {
                    self.note(format!("{id} is unblocked"));
                    self.clients.get_mut(&id).expect("it waits").may_leave = true;
                    self.lobby.unblock(self.now, id, false, id);
                }
            }
            29..32 => {
                self.now += self.dice.below(3_000);
                self.lobby.clock(self.now);
            }
            32 => {
                let key = [b"a", b"b", b"c", b"d", b"e"][self.dice.below(5) as usize];
                let is_empty = self
                    .redis
                    .lists
                    .get(key.as_slice())
                    .is_none_or(VecDeque::is_empty);
                if !self.redis.texts.remove(key.as_slice()) && is_empty && !self.redis.paused {
                    self.redis.texts.insert(key.to_vec());
                }
            }
            33 => {
                // A pause, of which Weir knows or not.
                let known = self.dice.below(2) == 0;
                self.redis.set_paused(!self.redis.paused);
                if known || !self.redis.paused {
                    self.lobby.set_paused(self.now, self.redis.paused);
                }
            }
            34 if losses => self.lose(),
            34..38 => self.open_one(),
            38..70 => {
                let names: Vec<u32> = self.redis.wires.keys().copied().collect();
                let name = names[self.dice.below(names.len() as u64) as usize];
                self.redis.step(name);
            }
            _ => self.deliver(),
        }
        self.act();
    }

    /// Lets everything that is under way come to an end.
    fn come_to_rest(&mut self) {
        for _ in 0..20_000 {
            let is_quiet = self.questions.is_empty()
                && self.opening.is_empty()
                && self.redis.wires.values().all(|wire| {
                    wire.outbox.is_empty() && (wire.inbox.is_empty() || wire.blocked.is_some())
                });
            if is_quiet {
                match self.lobby.next_alarm() {
                    // What is left is nothing but the end of an idle connection.
                    Some(at) if at < self.now + 1_000_000 => self.now = self.now.max(at),
                    _ => return,
                }
                self.lobby.clock(self.now);
            }
            self.open_one();
            self.act();
            let names: Vec<u32> = self.redis.wires.keys().copied().collect();
            for name in names {
                self.redis.step(name);
            }
            for _ in 0..8 {
                self.deliver();
                self.act();
            }
        }
        panic!("it never comes to rest: {:#?}", self.log);
    }

    fn accounts(&self) -> u64 {
        let left: usize = self.redis.lists.values().map(VecDeque::len).sum();
        self.delivered.len() as u64 + left as u64 + self.orphans + self.lost
    }
}

fn run(seed: u64, losses: bool) -> (u64, u64) {
    let mut world = World::new(seed);
    for _ in 0..3_000 {
        world.step(losses);
    }
    world.redis.set_paused(false);
    world.lobby.set_paused(world.now, false);
    world.redis.texts.clear();
    world.come_to_rest();
    assert_eq!(world.accounts(), world.pushed, "every element is somewhere");
    if !losses {
        assert_eq!((world.lost, world.unknown), (0, 0));
    }
    // Enough for everybody: nobody is forgotten.
    for _ in 0..world.clients.len() + 1 {
        for key in [b"a", b"b", b"c", b"d", b"e"] {
            world.pushed += 1;
            let element = world.pushed;
            world.redis.push(key, element);
        }
    }
    world.come_to_rest();
    assert!(world.clients.is_empty(), "{:?} wait", world.clients.keys());
    assert_eq!(world.accounts(), world.pushed);
    (world.served, world.redis.unblocks)
}

#[test]
fn no_element_is_lost_or_given_twice_and_nobody_is_forgotten() {
    let first: u64 = std::env::var("WEIR_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(1);
    let (mut served, mut unblocks) = (0, 0);
    for seed in first..first + 40 {
        for losses in [false, true] {
            println!("seed {seed}, losses {losses}");
            let result = run(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, losses);
            served += result.0;
            unblocks += result.1;
        }
    }
    assert!(served > 1_000 && unblocks > 100, "{served} {unblocks}");
}
