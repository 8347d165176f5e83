//! The lobbies whose home is this worker: their connections, their clock, and what is
//! said between them and the workers whose clients wait.
//!
//! The decisions are in [`crate::blocking`]; this is its input and output, the connections in
//! `conns`.

mod conns;

use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::client::NONE;
use super::proxy::Message;
use super::worker::{State, Worker};
use crate::backend::{Node, Partition, Ticket, User};
use crate::blocking::{
    Act, Arrival, CarrierId, Lobby, LobbySettings, Popped, Question, QuestionId, Tell, WaiterId,
};

/// In place of the client of an exclusive connection: a lobby.
const NO_CLIENT: Ticket = Ticket {
    slot: NONE - 1,
    generation: 0,
};

/// The connection for questions among a lobby's connections; carriers have other names.
const DOORMAN: CarrierId = 0;

/// A client that waits: which worker's, and its session there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Caller {
    /// The worker.
    pub worker: usize,
    /// Its session's slot.
    pub slot: u32,
    /// Its session's generation.
    pub generation: u32,
}

/// What a lobby is told.
#[derive(Debug)]
pub enum ToLobby {
    /// A client begins to wait.
    Arrive {
        /// Who.
        caller: Caller,
        /// Keeps the credential known.
        user: User,
        /// For what.
        arrival: Arrival,
        /// It could wait elsewhere, if nobody is in line before it.
        may_decline: bool,
    },
    /// A client that waits has gone.
    Leave(Caller),
    /// `CLIENT UNBLOCK` of one that waits.
    Unblock {
        /// Who.
        caller: Caller,
        /// With an error.
        error: bool,
        /// Whether it was blocked.
        answer: oneshot::Sender<bool>,
    },
    /// What was popped for a client that had gone.
    Returned(Popped),
}

/// What a lobby says to a client's worker.
#[derive(Debug)]
pub enum FromLobby {
    /// The wait is over.
    Told {
        /// How it ended.
        tell: Tell,
        /// Which lobby says so: its route and partition.
        from: (u16, Partition),
    },
    /// It counts as blocked from here on.
    Registered,
    /// Nobody is in line: the client may have a connection of its own.
    Decline,
}

/// The lobbies of one worker.
#[derive(Default)]
pub struct Lobbies {
    index: HashMap<(u16, Partition), u32>,
    halls: Slab<Hall>,
    generation: u32,
    clock: Option<Rc<Notify>>,
    /// When the clock rings, if it is set; microseconds.
    armed: Option<u64>,
    next_token: u64,
}

/// One lobby and what it needs to act.
struct Hall {
    lobby: Lobby,
    generation: u32,
    route: u16,
    key: Partition,
    #[allow(dead_code, reason = "keeps the credential known")]
    user: User,
    /// The node that its connections are to.
    node: Arc<Node>,
    callers: HashMap<WaiterId, Caller>,
    waiters: HashMap<Caller, WaiterId>,
    conns: HashMap<CarrierId, Ticket>,
    /// What was sent on carriers: replies expected, and those that came.
    sent: HashMap<CarrierId, Replies>,
    /// Questions that were put, in order; `None` is the lobby's own first one.
    asked: VecDeque<(Option<QuestionId>, Replies)>,
    /// Questions that wait for the connection.
    unasked: VecDeque<(QuestionId, Question)>,
    opening_doorman: bool,
    unblocks: HashMap<u64, oneshot::Sender<bool>>,
    /// What follows from something is being carried out.
    settling: bool,
}

#[derive(Debug)]
struct Replies {
    expected: usize,
    frames: Vec<Vec<u8>>,
}

impl Replies {
    fn new(expected: usize) -> Replies {
        Replies {
            expected,
            frames: Vec::new(),
        }
    }
}

impl State {
    /// The worker at which the clients of a partition wait.
    pub(super) fn lobby_home(&self, route: u16, key: &Partition) -> usize {
        let mut hasher = std::hash::DefaultHasher::new();
        (route, key).hash(&mut hasher);
        (hasher.finish() % self.proxy.workers() as u64) as usize
    }

    /// Tells a lobby something, wherever it is.
    pub(super) fn tell_lobby(&mut self, home: usize, route: u16, key: &Partition, what: ToLobby) {
        if home == self.index {
            return self.take_lobby_message(route, key.clone(), what);
        }
        let key = key.clone();
        self.proxy.send(home, Message::Lobby { route, key, what });
    }

    fn tell_caller(&mut self, caller: Caller, what: FromLobby) {
        let to = Ticket {
            slot: caller.slot,
            generation: caller.generation,
        };
        if caller.worker == self.index {
            return self.take_from_lobby(to, what);
        }
        self.proxy
            .send(caller.worker, Message::FromLobby { to, what });
    }

    /// A lobby of this worker is told something.
    pub(super) fn take_lobby_message(&mut self, route: u16, key: Partition, what: ToLobby) {
        let now = self.clock.now();
        let found = self.lobbies.index.get(&(route, key.clone())).copied();
        match what {
            ToLobby::Arrive {
                caller,
                user,
                arrival,
                may_decline,
            } => {
                let declines = may_decline
                    && match (&arrival.wish, found) {
                        (crate::blocking::Wish::Pop(queue), Some(hall)) => {
                            !self.lobbies.halls[hall as usize].lobby.has_line(queue)
                        }
                        _ => true,
                    };
                if declines {
                    return self.tell_caller(caller, FromLobby::Decline);
                }
                let index = found.unwrap_or_else(|| self.open_hall(route, key, user));
                let hall = &mut self.lobbies.halls[index as usize];
                let waiter = hall.lobby.arrive(now, arrival);
                hall.callers.insert(waiter, caller);
                hall.waiters.insert(caller, waiter);
                self.settle_hall(index);
            }
            ToLobby::Leave(caller) => {
                let Some(index) = found else { return };
                let hall = &mut self.lobbies.halls[index as usize];
                if let Some(waiter) = hall.waiters.remove(&caller) {
                    hall.callers.remove(&waiter);
                    hall.lobby.leave(now, waiter);
                    self.settle_hall(index);
                }
            }
            ToLobby::Unblock {
                caller,
                error,
                answer,
            } => {
                self.lobbies.next_token += 1;
                let token = self.lobbies.next_token;
                let hall = found.map(|index| &mut self.lobbies.halls[index as usize]);
                let waiter = hall
                    .as_ref()
                    .and_then(|hall| hall.waiters.get(&caller).copied());
                let (Some(index), Some(waiter), Some(hall)) = (found, waiter, hall) else {
                    // Its end is on its way to it.
                    let _ = answer.send(false);
                    return;
                };
                hall.unblocks.insert(token, answer);
                hall.lobby.unblock(now, waiter, error, token);
                self.settle_hall(index);
            }
            ToLobby::Returned(popped) => match found {
                Some(index) => {
                    let hall = &mut self.lobbies.halls[index as usize];
                    hall.lobby.returned(now, &popped.queue, &popped.frame);
                    self.settle_hall(index);
                }
                None => self.orphan(route),
            },
        }
    }

    fn orphan(&mut self, route: u16) {
        let front = &self.fronts[route as usize];
        front.metrics.blocked_orphans.inc();
        tracing::debug!(
            route = %front.route.name,
            "an element was popped for a client that has gone, and nobody else waits for it"
        );
    }

    fn open_hall(&mut self, route: u16, key: Partition, user: User) -> u32 {
        let front = &self.fronts[route as usize];
        let settings = LobbySettings {
            carriers_max: front.route.places.shared_max().max(1),
        };
        let mut lobby = Lobby::new(settings);
        lobby.set_paused(self.clock.now(), front.pause.is_some());
        self.lobbies.generation = self.lobbies.generation.wrapping_add(1);
        let hall = Hall {
            lobby,
            generation: self.lobbies.generation,
            route,
            key: key.clone(),
            user,
            node: front.node.clone(),
            callers: HashMap::new(),
            waiters: HashMap::new(),
            conns: HashMap::new(),
            sent: HashMap::new(),
            asked: VecDeque::new(),
            unasked: VecDeque::new(),
            opening_doorman: false,
            unblocks: HashMap::new(),
            settling: false,
        };
        let index = self.lobbies.halls.insert(hall) as u32;
        self.lobbies.index.insert((route, key), index);
        if self.lobbies.clock.is_none() {
            let notify = Rc::new(Notify::new());
            self.lobbies.clock = Some(notify.clone());
            let (worker, start) = (self.worker(), self.proxy.started);
            tokio::task::spawn_local(lobby_clock(worker, start, notify));
        }
        index
    }

    /// Carries out what follows, until nothing more does.
    fn settle_hall(&mut self, index: u32) {
        let Some(hall) = self.lobbies.halls.get_mut(index as usize) else {
            return;
        };
        if std::mem::replace(&mut hall.settling, true) {
            // A client here has gone and its element has come back: whoever is telling the
            // clients sees to what follows when all of them are told.
            return;
        }
        loop {
            let acts = self.lobbies.halls[index as usize].lobby.take_acts();
            if acts.is_empty() {
                break;
            }
            for act in acts {
                self.carry_out(index, act);
            }
        }
        let hall = &mut self.lobbies.halls[index as usize];
        hall.settling = false;
        if hall.lobby.is_empty() && hall.asked.is_empty() && hall.unasked.is_empty() {
            return self.close_hall(index);
        }
        if let Some(at) = hall.lobby.next_alarm()
            && self.lobbies.armed.is_none_or(|armed| at < armed)
        {
            self.lobbies.armed = Some(at);
            if let Some(clock) = &self.lobbies.clock {
                clock.notify_one();
            }
        }
    }

    fn close_hall(&mut self, index: u32) {
        let hall = self.lobbies.halls.remove(index as usize);
        self.lobbies.index.remove(&(hall.route, hall.key));
        for (_, conn) in hall.conns {
            if self.conn(conn).is_some() {
                self.close_conn(conn.slot);
            }
        }
    }

    fn carry_out(&mut self, index: u32, act: Act) {
        let hall = &mut self.lobbies.halls[index as usize];
        let route = hall.route;
        match act {
            Act::Open { carrier, optional } => self.open_for_lobby(index, carrier, optional),
            Act::Close(carrier) => {
                hall.sent.remove(&carrier);
                if let Some(conn) = hall.conns.remove(&carrier)
                    && self.conn(conn).is_some()
                {
                    self.close_conn(conn.slot);
                }
            }
            Act::Send(carrier, batch) => self.send_for_lobby(index, carrier, &batch),
            Act::Ask(id, question) => {
                hall.unasked.push_back((id, question));
                self.put_questions(index);
            }
            Act::Tell(waiter, tell) => {
                let Some(caller) = hall.callers.remove(&waiter) else {
                    return;
                };
                hall.waiters.remove(&caller);
                if matches!(
                    tell,
                    Tell::Reply {
                        popped: Some(_),
                        ..
                    }
                ) {
                    self.fronts[route as usize].metrics.blocked_handed.inc();
                }
                let from = (route, self.lobbies.halls[index as usize].key.clone());
                self.tell_caller(caller, FromLobby::Told { tell, from });
            }
            Act::Registered(waiter) => {
                if let Some(&caller) = hall.callers.get(&waiter) {
                    self.tell_caller(caller, FromLobby::Registered);
                }
            }
            Act::UnblockAnswer { token, done } => {
                if let Some(answer) = hall.unblocks.remove(&token) {
                    let _ = answer.send(done);
                }
            }
            Act::Orphan => self.orphan(route),
            Act::Reissued => self.fronts[route as usize].metrics.blocked_reissued.inc(),
        }
    }

    // Time, pauses, failovers.

    /// Rings for whom it is time; when to ring next.
    fn ring(&mut self) -> Option<u64> {
        let now = self.clock.now();
        let due: Vec<u32> = self
            .lobbies
            .halls
            .iter()
            .filter(|(_, hall)| hall.lobby.next_alarm().is_some_and(|at| at <= now))
            .map(|(index, _)| index as u32)
            .collect();
        self.lobbies.armed = Some(0);
        for index in due {
            if let Some(hall) = self.lobbies.halls.get_mut(index as usize) {
                hall.lobby.clock(now);
                self.settle_hall(index);
            }
        }
        let halls = self.lobbies.halls.iter();
        self.lobbies.armed = halls.filter_map(|(_, hall)| hall.lobby.next_alarm()).min();
        self.lobbies.armed
    }

    /// A pause begins or ends.
    pub(super) fn lobbies_paused(&mut self, route: u16) {
        let (now, paused) = (
            self.clock.now(),
            self.fronts[route as usize].pause.is_some(),
        );
        for index in self.hall_indices() {
            let hall = &mut self.lobbies.halls[index as usize];
            if hall.route == route {
                hall.lobby.set_paused(now, paused);
                self.settle_hall(index);
            }
        }
    }

    fn hall_indices(&self) -> Vec<u32> {
        let halls = self.lobbies.halls.iter();
        halls.map(|(index, _)| index as u32).collect()
    }

    /// Has lobbies follow when commands go to another node. Called with every tick.
    pub(super) fn lobbies_follow_the_primary(&mut self) {
        for index in self.hall_indices() {
            let hall = &self.lobbies.halls[index as usize];
            let node = &self.fronts[hall.route as usize].node;
            if Arc::ptr_eq(node, &hall.node) {
                continue;
            }
            self.lobbies.halls[index as usize].node = node.clone();
            let conns: Vec<Ticket> = hall_conns(&self.lobbies.halls[index as usize]);
            for conn in conns {
                if self.conn(conn).is_some() {
                    self.conn_lost(conn.slot, &crate::backend::Broken::Stalled);
                }
            }
        }
    }
}

fn hall_conns(hall: &Hall) -> Vec<Ticket> {
    hall.conns.values().copied().collect()
}

/// Deadlines of those who wait, to the millisecond as in Redis. The tick of the worker is
/// too coarse for them.
async fn lobby_clock(worker: Rc<Worker>, start: Instant, changed: Rc<Notify>) {
    loop {
        match worker.enter(State::ring) {
            Some(at) => {
                let at = start + Duration::from_micros(at);
                tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = changed.notified() => {}
                }
            }
            None => changed.notified().await,
        }
    }
}
