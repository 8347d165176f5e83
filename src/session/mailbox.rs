//! What reaches a worker from outside: new clients, other workers' commands and
//! questions.

use std::rc::Rc;

use tokio::sync::mpsc::UnboundedReceiver;

use super::client::{Extra, Flags, NONE, Session};
use super::failure;
use super::local::{default_user, starts_locked_out};
use super::newcomer::Arrival;
use super::outbox::Outbox;
use super::proxy::Message;
use super::reply_size::ReplySize;
use super::worker::{ClientTask, State, Worker};
use crate::admission::Priority;
use crate::backend::{Partition, Ticket};
use crate::net;
use crate::resp::Version;

/// How many messages are taken in one turn.
const BATCH: usize = 256;

/// Takes messages for as long as the process runs.
pub async fn receive(worker: Rc<Worker>, mut mailbox: UnboundedReceiver<Message>) {
    let mut batch = Vec::with_capacity(BATCH);
    while mailbox.recv_many(&mut batch, BATCH).await > 0 {
        worker.enter(|state| {
            for message in batch.drain(..) {
                state.take_message(message);
            }
        });
    }
}

impl State {
    fn take_message(&mut self, message: Message) {
        match message {
            Message::Client(newcomer) => self.admit(newcomer),
            Message::Commands(batch) => self.take_batch(batch),
            Message::Replies { conn, bytes, way } => self.take_replies(conn, &bytes, &way),
            Message::CaughtUp { conn } => self.link_caught_up(conn),
            Message::LinkLost {
                conn,
                taken,
                unwritten,
            } => self.take_link_loss(conn, taken, unwritten),
            Message::LinkFailed { conn, failure } => self.opening_failed(conn, &failure),
            Message::LinkStuck { conn, by_head } => self.link_stuck(conn, by_head),
            Message::LinkClosed { from, conn } => self.forget_link(from, conn),
            Message::ListClients { route, answer } => {
                // Whoever asked may have gone.
                let _ = answer.send(self.views(route));
            }
            Message::Identities { by, answer } => {
                let _ = answer.send(self.identities(by));
            }
            Message::KillClients {
                route,
                kill,
                answer,
            } => {
                let _ = answer.send(self.kill(route, &kill));
            }
            Message::Topology { route } => self.take_topology(route),
            Message::Pause { route, pause } => self.set_pause(route, pause),
            Message::PauseRefused { route, refused } => self.take_back_pause(route, refused),
            Message::Invalidate {
                route,
                target,
                keys,
                answer,
            } => {
                let _ = answer.send(self.take_invalidation(route, target, keys.as_deref()));
            }
            Message::Unblock { id, error, answer } => self.unblock(id, error, answer),
            Message::ToFeed { key, message } => self.at_home(key, message),
            Message::FromFeed { key, message } => self.told_by_feed(key, message),
            Message::GiveWay { session, seeker } => self.give_way(session, &seeker),
            Message::RoomMade { session, permit } => self.room_made(session, permit),
            Message::IdleAges { groups, answer } => {
                let _ = answer.send(self.idle_ages(&groups));
            }
            Message::Lobby { route, key, what } => self.take_lobby_message(route, key, what),
            Message::FromLobby { to, what } => self.take_from_lobby(to, what),
            Message::Drain(drain) => self.draining = drain,
        }
    }

    /// How many clients this worker keeps open in order to tell them that there is
    /// no room for them: its part of the descriptors set aside for that.
    fn refused_max(&self) -> usize {
        net::REFUSED_CLIENTS as usize / self.proxy.workers()
    }

    /// A client has connected.
    pub(super) fn welcome(&mut self, arrival: Arrival) {
        let Arrival {
            socket,
            peer,
            route,
            listener,
            tls_identity,
        } = arrival;
        // What the node has told just now is true for a client that comes now.
        self.refresh_tables();
        let front = &self.fronts[route as usize];
        let metrics = front.metrics.clone();
        let is_locked_out = starts_locked_out(&front.node, front.config.auth.mode);
        let found = self.find_place(
            route,
            &peer,
            listener,
            is_locked_out,
            tls_identity.as_deref(),
        );
        let (permit, no_place) = match found {
            Ok(permit) => (Some(permit), None),
            Err(no_place) => (None, Some(no_place)),
        };
        if permit.is_none() && self.refused_now >= self.refused_max() {
            // No time for manners: told unasked, as Redis does it, and closed. A new
            // socket takes this much at once, and one that does not is gone already.
            socket.send_once(failure::MAX_CLIENTS);
            no_place
                .iter()
                .for_each(|no_place| self.count_refused(route, no_place));
            return self.proxy.lower_load(self.index);
        }
        // Fails only for a client that has gone already.
        let Ok(socket) = socket.register() else {
            return self.proxy.lower_load(self.index);
        };
        let node = &front.node;
        let mode = front.config.auth.mode;
        let user = default_user(node, mode);
        let mut flags = Flags::default();
        if permit.is_none() {
            flags.set(Flags::REFUSED);
            self.refused_now += 1;
        } else {
            metrics.client_opened();
        }
        if is_locked_out {
            flags.set(Flags::LOCKED_OUT);
        }
        let now = self.clock.now();
        let id = self.proxy.next_client_id();
        let worker = self.worker();
        let entry = self.sessions.vacant_entry();
        let ticket = Ticket {
            slot: entry.key() as u32,
            generation: id as u32,
        };
        let task = tokio::task::spawn_local(ClientTask { worker, ticket });
        entry.insert(Session {
            socket,
            id,
            peer,
            route,
            listener,
            flags,
            guards: 0,
            in_flight: 0,
            under_way: 0,
            queued: 0,
            priority: Priority::default(),
            conn: NONE,
            lane: NONE,
            line: NONE,
            reader: NONE,
            wrote_at: 0,
            partition: Partition {
                user: user.id(),
                version: Version::Resp2,
                db: 0,
                no_touch: false,
            },
            user,
            command: 0,
            active_at: now,
            accepted_at: now,
            input: Vec::new(),
            output: Outbox::default(),
            charged: 0,
            replies: ReplySize::default(),
            extra: tls_identity.map(|identity| {
                Box::new(Extra {
                    tls_identity: Some(identity),
                    ..Extra::default()
                })
            }),
            permit,
            task: task.abort_handle(),
        });
        self.guard(ticket);
        self.take_terms(ticket);
        self.refresh_reads(ticket);
        if let Some(no_place) = no_place {
            let session = &mut self.sessions[ticket.slot as usize];
            session.extra().may_be_kept_a_place = no_place.may_be_kept_a_place;
            self.expire_refused(ticket, now + super::refusal::SILENT_MAX);
            if !self.ask_for_room(ticket, &no_place) {
                self.count_refused(route, &no_place);
            }
        }
    }
}
