//! Who a client is: told to the limits when it comes and whenever it says something of
//! itself that one of them looks at.

use super::client::{Flags, Session};
use super::input::Request;
use super::refusal::SILENT_MAX;
use super::worker::State;
use crate::admission::{ClientPermit, NoPlace, NoRoom, Who};
use crate::backend::Ticket;
use crate::command::{Class, Local};
use crate::metrics::{CloseReason, RefusedReason};
use crate::net::Peer;
use crate::net::tls::TlsIdentity;

/// The user of a client that has not said who it is and need not.
const DEFAULT_USER: &[u8] = b"default";

impl Session {
    /// What is known of the client.
    pub(super) fn who(&self) -> Who<'_> {
        let extra = self.extra.as_deref();
        let user = extra.map_or(&[][..], |extra| &extra.user);
        Who {
            address: self.peer.ip(),
            listener: self.listener,
            user: match user {
                b"" if self.flags.any(Flags::LOCKED_OUT) => None,
                b"" => Some(DEFAULT_USER),
                user => Some(user),
            },
            name: extra.map_or(&[][..], |extra| &extra.name),
            certificate: certified(extra.and_then(|extra| extra.tls_identity.as_deref())),
        }
    }
}

fn certified(identity: Option<&TlsIdentity>) -> &[Box<str>] {
    identity.map_or(&[][..], TlsIdentity::names)
}

impl State {
    /// A place for a client that has just come; `None` if there is none.
    pub(super) fn find_place(
        &self,
        route: u16,
        peer: &Peer,
        listener: u16,
        is_locked_out: bool,
        tls_identity: Option<&TlsIdentity>,
    ) -> Result<ClientPermit, NoPlace> {
        let who = Who {
            address: peer.ip(),
            listener,
            user: (!is_locked_out).then_some(DEFAULT_USER),
            name: b"",
            certificate: certified(tls_identity),
        };
        self.proxy.limits.enter(route, &who, self.clock.now())
    }

    /// A client has said who it is, or the rules have become others: it is counted anew. If
    /// there is no place for who it is now, its next command is refused.
    pub(super) fn identify(&mut self, ticket: Ticket) {
        self.guard(ticket);
        let now = self.clock.now();
        let limits = self.proxy.limits.clone();
        let Some(session) = self.session(ticket) else {
            return;
        };
        let is_asked = limits.looks_at_what_clients_say(session.route);
        match session.permit.take() {
            Some(permit) if is_asked || permit.is_outdated() => {
                let moved = permit.become_who(&session.who(), now);
                let route = session.route;
                match moved {
                    Ok(permit) => session.permit = Some(permit),
                    Err(no_place) => {
                        self.count_refused(route, &no_place);
                        self.turn_away(ticket);
                    }
                }
                self.take_terms(ticket);
            }
            Some(permit) => session.permit = Some(permit),
            None if session.may_be_kept_a_place() => {
                match limits.enter_again(session.route, &session.who(), now) {
                    Ok(permit) => self.let_in(ticket, permit),
                    Err(no_place) => {
                        session.extra().may_be_kept_a_place = no_place.may_be_kept_a_place
                    }
                }
            }
            None => {}
        }
    }

    /// A client that was being refused has a place after all.
    pub(super) fn let_in(&mut self, ticket: Ticket, permit: ClientPermit) {
        let Some(session) = self.session(ticket) else {
            return;
        };
        session.permit = Some(permit);
        session.flags.clear(Flags::REFUSED);
        let extra = session.extra();
        extra.close_at = 0;
        extra.may_be_kept_a_place = false;
        let route = session.route;
        self.refused_now -= 1;
        self.fronts[route as usize].metrics.client_opened();
        self.take_terms(ticket);
    }

    /// A client that was let in is refused from now on. Its place is free already.
    fn turn_away(&mut self, ticket: Ticket) {
        let until = self.clock.now() + SILENT_MAX;
        let session = &mut self.sessions[ticket.slot as usize];
        session.flags.set(Flags::REFUSED);
        let metrics = &self.fronts[session.route as usize].metrics;
        metrics.client_closed(CloseReason::Refused);
        self.refused_now += 1;
        self.expire_refused(ticket, until);
    }

    /// Whether this command of a client that is being refused may say who it is, and that
    /// it is somebody for whom a place is kept.
    pub(super) fn may_say_who(&self, ticket: Ticket, request: &Request<'_>, class: Class) -> bool {
        let session = &self.sessions[ticket.slot as usize];
        let is_name = || {
            let word = |index, word: &[u8]| {
                request
                    .arg(index)
                    .is_some_and(|argument| argument.eq_ignore_ascii_case(word))
            };
            word(0, b"client") && word(1, b"setname")
        };
        session.may_be_kept_a_place()
            && (matches!(class, Class::Local(Local::Auth | Local::Hello)) || is_name())
    }

    /// There is no place for a client and nobody makes room: it is refused.
    pub(super) fn count_refused(&self, route: u16, no_place: &NoPlace) {
        self.proxy.limits.count_refused(no_place);
        let reason = match no_place.why {
            NoRoom::Process => RefusedReason::MaxClients,
            NoRoom::Route => RefusedReason::RouteMaxClients,
            NoRoom::Kept => RefusedReason::KeptForOthers,
            NoRoom::Ceiling => RefusedReason::LimitMaxClients,
            NoRoom::Rate => RefusedReason::LimitAcceptRate,
        };
        self.fronts[route as usize].metrics.clients_refused[reason].inc();
    }
}
