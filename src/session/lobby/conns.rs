//! The connections of a lobby: carriers, on which its clients wait together, and the doorman, over
//! which questions are put that do not wait.

use std::sync::Arc;

use tokio::time::Instant;

use super::{DOORMAN, NO_CLIENT, Replies};
use crate::backend::{
    Conn, Entry, Kind, Marks, Mode, Node, OpenError, Opened, Ticket, close_politely,
};
use crate::blocking::{Batch, CarrierId, Question};
use crate::session::failure::Failure;
use crate::session::lanes::refusal;
use crate::session::worker::State;

impl State {
    pub(super) fn open_for_lobby(&mut self, index: u32, carrier: CarrierId, optional: bool) {
        let node = {
            let hall = &mut self.lobbies.halls[index as usize];
            hall.node = self.fronts[hall.route as usize].node.clone();
            hall.node.clone()
        };
        let hall = &self.lobbies.halls[index as usize];
        let (generation, key) = (hall.generation, hall.key.clone());
        let deadline = match optional {
            true => Instant::now(),
            false => Instant::now() + node.settings().backend.lease_wait,
        };
        let kind = match carrier {
            DOORMAN => Kind::Control,
            _ => Kind::Blocking,
        };
        let worker = self.worker();
        tokio::task::spawn_local(async move {
            let slot = match node.ledger.try_take(kind) {
                Some(slot) => Ok(slot),
                None => node.ledger.take(kind, deadline).await,
            };
            let outcome = match slot {
                Ok(slot) => node.open(&key, slot).await.map_err(Failure::Open),
                Err(refused) => Err(refusal(&refused)),
            };
            worker.enter(|state| {
                let hall = state.lobbies.halls.get(index as usize);
                if hall.is_some_and(|hall| hall.generation == generation) {
                    state.opened_for_lobby(index, &node, carrier, outcome);
                } else if let Ok(opened) = outcome {
                    close_politely(opened.socket, Some(opened.slot));
                }
            });
        });
    }

    fn opened_for_lobby(
        &mut self,
        index: u32,
        node: &Arc<Node>,
        carrier: CarrierId,
        outcome: Result<Opened, Failure>,
    ) {
        let now = self.clock.now();
        let hall = &mut self.lobbies.halls[index as usize];
        match outcome {
            Ok(opened) => {
                let (route, key) = (hall.route, hall.key.clone());
                let kind = opened.slot.kind();
                let lane = self.find_lane(route, node, key);
                let conn = self.add_conn(kind, lane);
                let place = Ticket {
                    slot: index,
                    generation: carrier,
                };
                let connection = &mut self.conns[conn.slot as usize];
                connection.mode = Mode::Exclusive(NO_CLIENT);
                connection.lobby = Some(place);
                self.opened(conn, Ok(opened));
                let hall = &mut self.lobbies.halls[index as usize];
                hall.conns.insert(carrier, conn);
                if carrier == DOORMAN {
                    hall.opening_doorman = false;
                    self.ask_whether_unblocking_is_allowed(index);
                    self.put_questions(index);
                } else {
                    hall.lobby.opened(now, carrier);
                }
            }
            Err(failure) => {
                let reply = failure.reply();
                let route = hall.route;
                self.tell_reached(route, &failure);
                let hall = &mut self.lobbies.halls[index as usize];
                if carrier == DOORMAN {
                    hall.opening_doorman = false;
                    for (id, _) in std::mem::take(&mut hall.unasked) {
                        hall.lobby.question_failed(now, id, &reply);
                    }
                } else {
                    // A node that is away may come back; a limit or a wrong password stays.
                    let again = matches!(
                        failure,
                        Failure::Open(OpenError::Unreachable(_) | OpenError::Full)
                    );
                    hall.lobby.open_failed(now, carrier, &reply, again);
                }
            }
        }
        self.settle_hall(index);
    }

    /// Managed servers may not let anybody: then waits are put in slices.
    fn ask_whether_unblocking_is_allowed(&mut self, index: u32) {
        let mut batch = Batch::default();
        batch.push(&["cLIENT", "UNBLOCK", "0"]);
        let hall = &mut self.lobbies.halls[index as usize];
        hall.asked.push_back((None, Replies::new(1)));
        let conn = hall.conns[&DOORMAN];
        self.append_for_lobby(index, DOORMAN, conn, &batch);
    }

    fn append_for_lobby(&mut self, index: u32, carrier: CarrierId, conn: Ticket, batch: &Batch) {
        let at = self.clock.now();
        let to = Ticket {
            slot: index,
            generation: carrier,
        };
        let mut start = 0;
        for &len in &batch.lengths {
            let end = start + len as usize;
            let marks = Marks::LOBBY.with(Marks::WHOLE).with(Marks::UNTIMED);
            let entry = Entry {
                to,
                at,
                len,
                command: 0,
                marks,
            };
            self.conns[conn.slot as usize].append(&batch.bytes[start..end], entry);
            start = end;
        }
        self.mark_dirty(conn.slot);
    }

    /// The connection of a carrier, if it can be used.
    fn conn_of_lobby(&mut self, index: u32, carrier: CarrierId) -> Option<Ticket> {
        let conn = *self.lobbies.halls[index as usize].conns.get(&carrier)?;
        let usable = self
            .conn(conn)
            .is_some_and(|conn| !(conn.retiring && conn.is_quiet()));
        if !usable {
            self.lobbies.halls[index as usize].conns.remove(&carrier);
            if self.conn(conn).is_some() {
                self.close_conn(conn.slot);
            }
        }
        usable.then_some(conn)
    }

    pub(super) fn send_for_lobby(&mut self, index: u32, carrier: CarrierId, batch: &Batch) {
        let Some(conn) = self.conn_of_lobby(index, carrier) else {
            // It was closed while it was idle.
            let now = self.clock.now();
            let hall = &mut self.lobbies.halls[index as usize];
            return hall.lobby.lost(now, carrier, false);
        };
        let hall = &mut self.lobbies.halls[index as usize];
        hall.sent.insert(carrier, Replies::new(batch.lengths.len()));
        self.append_for_lobby(index, carrier, conn, batch);
    }

    pub(super) fn put_questions(&mut self, index: u32) {
        let hall = &self.lobbies.halls[index as usize];
        if hall.unasked.is_empty() || hall.opening_doorman {
            return;
        }
        let Some(conn) = self.conn_of_lobby(index, DOORMAN) else {
            self.lobbies.halls[index as usize].opening_doorman = true;
            return self.open_for_lobby(index, DOORMAN, false);
        };
        while let Some((id, question)) = self.lobbies.halls[index as usize].unasked.pop_front() {
            let batch = match question {
                Question::Try(batch) => batch,
                Question::Interrupt(carrier, mut batch) => {
                    let backend_id = self.lobbies.halls[index as usize]
                        .conns
                        .get(&carrier)
                        .copied()
                        .and_then(|conn| self.conn(conn)?.backend_id);
                    let id = backend_id.unwrap_or(0).to_string();
                    batch.push(&["cLIENT", "UNBLOCK", &id]);
                    if batch.lengths.len() > 1 {
                        batch.push(&["EXEC"]);
                    }
                    batch
                }
            };
            let replies = Replies::new(batch.lengths.len());
            let hall = &mut self.lobbies.halls[index as usize];
            hall.asked.push_back((Some(id), replies));
            self.append_for_lobby(index, DOORMAN, conn, &batch);
        }
    }

    /// A reply came for a lobby.
    pub(in crate::session) fn lobby_replied(&mut self, place: Ticket, frame: &[u8]) {
        let now = self.clock.now();
        let carrier = place.generation;
        let Some(hall) = self.lobbies.halls.get_mut(place.slot as usize) else {
            return;
        };
        if carrier == DOORMAN {
            let Some((_, replies)) = hall.asked.front_mut() else {
                return;
            };
            replies.frames.push(frame.to_vec());
            if replies.frames.len() < replies.expected {
                return;
            }
            match hall.asked.pop_front() {
                Some((Some(id), replies)) => hall.lobby.answered(now, id, &replies.frames),
                _ => hall.lobby.set_slices(frame.first() == Some(&b'-')),
            }
        } else {
            let Some(replies) = hall.sent.get_mut(&carrier) else {
                return;
            };
            replies.frames.push(frame.to_vec());
            if replies.frames.len() < replies.expected {
                return;
            }
            let replies = hall.sent.remove(&carrier).expect("just seen");
            hall.lobby.replied(now, carrier, &replies.frames);
        }
        self.settle_hall(place.slot);
    }

    /// A lobby's connection was lost.
    pub(in crate::session) fn lobby_conn_lost(&mut self, place: Ticket, conn: &Conn) {
        let now = self.clock.now();
        let carrier = place.generation;
        let Some(hall) = self.lobbies.halls.get_mut(place.slot as usize) else {
            return;
        };
        hall.conns.remove(&carrier);
        let written = conn.ring.written();
        if carrier != DOORMAN {
            hall.sent.remove(&carrier);
            hall.lobby.lost(now, carrier, written > 0);
            return self.settle_hall(place.slot);
        }
        let mut start = 0;
        let mut lengths = conn.in_flight.iter().map(|entry| entry.len as usize);
        for (id, replies) in std::mem::take(&mut hall.asked) {
            let left = replies.expected - replies.frames.len();
            let ran = start < written || !replies.frames.is_empty();
            start += lengths.by_ref().take(left).sum::<usize>();
            if let Some(id) = id {
                hall.lobby.question_lost(now, id, ran);
            }
        }
        self.settle_hall(place.slot);
    }
}
