//! Making room: when every place is taken, the longest idle client of whoever holds the most
//! is closed for one that comes. The newcomer waits, which takes a message to another worker
//! and back, and the acceptor notices nothing.

use std::net::IpAddr;

use super::client::{Flags, Session};
use super::worker::State;
use crate::admission::{ClientPermit, NoPlace, OFFERS_MAX, Offer, Who};
use crate::backend::Ticket;
use crate::metrics::CloseReason;
use crate::net;

/// A client for whom nobody gave way so often is refused. An offer fails when its client has
/// become busy since; three in a row that do mean that nobody is idle.
const TRIES_MAX: u8 = 3;

/// Of what a worker finds it offers the best; more than this are not even remembered.
const FOUND_MAX: usize = 4 * OFFERS_MAX;

/// A client that waits for a place, as the one whose client gives way has to know it.
#[derive(Debug)]
pub struct Seeker {
    /// Its worker.
    pub worker: usize,
    /// Its name there.
    pub session: Ticket,
    route: u16,
    listener: u16,
    address: IpAddr,
    user: Option<Vec<u8>>,
    name: Vec<u8>,
    certificate: Vec<Box<str>>,
}

/// Clients of this worker that could be closed, found since the last offer: for each route
/// how many connections their address holds, since when they are idle, and where they are.
#[derive(Debug, Default)]
pub struct Found(Vec<Vec<(usize, u64, Ticket)>>);

impl Found {
    fn add(&mut self, route: u16, clients: usize, idle_since: u64, ticket: Ticket) {
        let route = route as usize;
        if self.0.len() <= route {
            self.0.resize_with(route + 1, Vec::new);
        }
        let found = &mut self.0[route];
        found.push((clients, idle_since, ticket));
        if found.len() > FOUND_MAX {
            keep_best(found);
        }
    }
}

/// The greediest address first, then the longest idle.
fn keep_best(found: &mut Vec<(usize, u64, Ticket)>) {
    found.sort_unstable_by_key(|(clients, idle_since, _)| {
        (std::cmp::Reverse(*clients), *idle_since)
    });
    found.truncate(OFFERS_MAX);
}

impl State {
    /// Notes a client that could be closed to make room, if room is scarce.
    pub(super) fn note_if_idle(&mut self, ticket: Ticket) {
        let session = &self.sessions[ticket.slot as usize];
        let route = session.route;
        if !self.fronts[route as usize].wants_offers || !self.may_give_way(session) {
            return;
        }
        let Some(permit) = &session.permit else {
            return;
        };
        let (clients, idle_since) = (permit.groups()[0].clients(), session.active_at);
        self.found.add(route, clients, idle_since, ticket);
    }

    /// Offers those that were found since the last time.
    pub(super) fn make_offers(&mut self) {
        let mut offers = Vec::new();
        for mut found in std::mem::take(&mut self.found.0) {
            keep_best(&mut found);
            for (_, idle_since, ticket) in found {
                let session = self.sessions.get(ticket.slot as usize);
                let session = session.filter(|session| session.id as u32 == ticket.generation);
                let Some(permit) = session.and_then(|session| session.permit.as_ref()) else {
                    continue;
                };
                offers.push(Offer {
                    route: self.sessions[ticket.slot as usize].route,
                    session: (ticket.slot, ticket.generation),
                    idle_since,
                    address: permit.groups()[0].clone(),
                    share: permit.share().cloned(),
                });
            }
        }
        if !offers.is_empty() || self.has_offered {
            self.has_offered = !offers.is_empty();
            self.proxy.limits.offer(self.index, offers);
        }
    }

    /// Whether a client is idle enough to be closed for another.
    fn may_give_way(&self, session: &Session) -> bool {
        let least = self.fronts[session.route as usize]
            .config
            .clients
            .gives_way_after;
        let idle = self.clock.now().saturating_sub(session.active_at);
        !least.is_zero()
            && u128::from(idle) >= least.as_micros()
            && session.may_be_reaped()
            && session.input.is_empty()
            && !session.flags.any(Flags::REFUSED.with(Flags::CLOSING))
            && session
                .permit
                .as_ref()
                .is_some_and(|permit| !permit.is_operator())
    }

    /// Asks for room for a client that there is no place for; whether somebody was asked. It
    /// waits for the answer.
    pub(super) fn ask_for_room(&mut self, ticket: Ticket, no_place: &NoPlace) -> bool {
        let (me, draining) = (self.index, self.draining.is_some());
        let limits = self.proxy.limits.clone();
        let Some(session) = self.session(ticket) else {
            return false;
        };
        if draining || session.extra().rooms_asked >= TRIES_MAX {
            return false;
        }
        let Some((worker, offer)) = limits.find_room(session.route, no_place) else {
            return false;
        };
        session.extra().rooms_asked += 1;
        session.flags.set(Flags::WAITING);
        let who = session.who();
        let seeker = Seeker {
            worker: me,
            session: ticket,
            route: session.route,
            listener: session.listener,
            address: who.address,
            user: who.user.map(<[u8]>::to_vec),
            name: who.name.to_vec(),
            certificate: who.certificate.to_vec(),
        };
        let (slot, generation) = offer.session;
        let session = Ticket { slot, generation };
        let message = super::proxy::Message::GiveWay { session, seeker };
        self.proxy.send(worker, message);
        true
    }

    /// Another client is to have the place of this one, if that is still idle.
    pub(super) fn give_way(&mut self, ticket: Ticket, seeker: &Seeker) {
        let now = self.clock.now();
        let is_idle = self
            .sessions
            .get(ticket.slot as usize)
            .filter(|session| session.id as u32 == ticket.generation)
            .is_some_and(|session| {
                self.may_give_way(session) && !net::is_readable(&session.socket)
            });
        let place = is_idle
            .then(|| self.end(ticket.slot, CloseReason::MadeRoom))
            .flatten();
        let who = Who {
            address: seeker.address,
            listener: seeker.listener,
            user: seeker.user.as_deref(),
            name: &seeker.name,
            certificate: &seeker.certificate,
        };
        let handed = place.and_then(|place| place.hand_over(seeker.route, &who, now).ok());
        let message = super::proxy::Message::RoomMade {
            session: seeker.session,
            permit: handed,
        };
        self.proxy.send(seeker.worker, message);
    }

    /// Somebody gave way to a client that waits for it, or nobody did.
    pub(super) fn room_made(&mut self, ticket: Ticket, permit: Option<ClientPermit>) {
        let now = self.clock.now();
        let limits = self.proxy.limits.clone();
        let Some(session) = self.session(ticket) else {
            // It has gone; so does the place.
            return;
        };
        session.flags.clear(Flags::WAITING);
        let entered = match permit {
            Some(permit) => Ok(permit),
            // Somebody may have left meanwhile.
            None => limits.enter_again(session.route, &session.who(), now),
        };
        match entered {
            Ok(permit) => self.let_in(ticket, permit),
            Err(no_place) if self.ask_for_room(ticket, &no_place) => return,
            Err(no_place) => {
                let route = self.sessions[ticket.slot as usize].route;
                self.count_refused(route, &no_place);
            }
        }
        self.make_ready(ticket);
    }
}
