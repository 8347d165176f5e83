//! A client's blocking command: on a connection of its own while there is room, else on
//! shared ones in the lobby of its partition, or in line for one of its own if it is a
//! command whose wait cannot be shared.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::client::{Answer, Flags, NONE, Until};
use super::dispatch::Row;
use super::failure::{self, Failure};
use super::input::{Request, Step};
use super::lobby::{Caller, FromLobby, ToLobby};
use super::worker::State;
use crate::backend::{Kind, Partition, Ticket};
use crate::blocking::{Arrival, NoPlace, Tell, Wish};
use crate::command::blocking::{self, Timeout};
use crate::command::{Blocking, Class};
use crate::config::OnLoss;
use crate::metrics::{CloseReason, ErrorCause, ShedLimit};
use crate::net::{self, Hangup};
use crate::resp::Version;

/// What `CLIENT UNBLOCK … ERROR` has a blocked client read.
const UNBLOCKED: &[u8] = b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n";

/// A client that waits in a lobby.
#[derive(Debug)]
pub struct SharedWait {
    /// The worker whose lobby it is.
    home: usize,
    key: Partition,
    silent: bool,
    /// It is known to wait, and counts as blocked.
    pub registered: bool,
    /// The request, should it have to wait elsewhere.
    request: Vec<u8>,
}

/// Where a blocking command may go, when it is looked at again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Elsewhere {
    /// Anywhere.
    #[default]
    No,
    /// Nobody is in line before it: on a connection of its own, if there is one.
    MayBeAlone,
    /// Only on a connection of its own: Redis does not let it share.
    MustBeAlone,
}

/// How a wait in line ended without a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ended {
    NoPlace(NoPlace),
    TimedOut,
    Unblocked { error: bool },
}

fn null_in(version: Version) -> &'static [u8] {
    match version {
        Version::Resp2 => b"*-1\r\n",
        Version::Resp3 => b"_\r\n",
    }
}

impl State {
    /// A command that may wait on the server for a key to be written.
    pub(super) fn blocking(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
        silent: bool,
    ) -> Step {
        if self.must_wait_for_replies(ticket) {
            return Step::Wait;
        }
        let session = &mut self.sessions[ticket.slot as usize];
        let front = &self.fronts[session.route as usize];
        let places = front.route.places.clone();
        let extra = session.extra();
        let elsewhere = std::mem::take(&mut extra.elsewhere);
        let decided = extra.lease.is_some() || extra.own_place.is_some() || extra.answer.is_some();
        // Where no such connections are allowed, the ledger says so.
        let none = !places.has_own() && places.shared_max() == 0;
        if decided || none {
            return self.leased(ticket, request, row, Kind::Blocking, Until::Reply, silent);
        }
        let command = front
            .table
            .find(request.arg(0).unwrap_or_default(), request.arg(1));
        let timeout = blocking::timeout(command, request);
        let wish = match timeout {
            Ok(Timeout::Never | Timeout::After(_))
                if places.shared_max() > 0 && elsewhere != Elsewhere::MustBeAlone =>
            {
                Wish::of(request)
            }
            _ => None,
        };
        // What is no good Redis will refuse, and in its own words.
        let may_be_no_good = matches!(
            row.class,
            Class::Blocking(Blocking::LastSeconds | Blocking::FirstSeconds | Blocking::StreamRead)
        );
        let wish = match wish {
            None if may_be_no_good && places.shared_max() > 0 && elsewhere == Elsewhere::No => {
                let args = request.args().into_iter();
                Some(Wish::Check(args.map(<[u8]>::to_vec).collect()))
            }
            wish => wish,
        };
        let Some(wish) = wish else {
            let timeout = match timeout {
                Ok(Timeout::After(timeout)) => Some(timeout),
                _ => None,
            };
            return match self.take_place(ticket, timeout) {
                true => self.leased(ticket, request, row, Kind::Blocking, Until::Reply, silent),
                false => Step::Wait,
            };
        };
        let mut may_decline = false;
        if let Wish::Pop(_) | Wish::Check(_) = wish
            && let Some(place) = places.try_take()
        {
            // Those who share must not be overtaken on their queue by one who does not.
            may_decline = matches!(wish, Wish::Pop(_))
                && places.anyone_shares()
                && elsewhere != Elsewhere::MayBeAlone;
            if !may_decline {
                self.sessions[ticket.slot as usize].extra().own_place = Some(place);
                return self.leased(ticket, request, row, Kind::Blocking, Until::Reply, silent);
            }
        }
        // The worker's clock may be a turn old: nobody is told before its time.
        let now = self.proxy.started.elapsed().as_micros() as u64 + 1;
        let deadline = match timeout {
            Ok(Timeout::After(timeout)) => Some(now.saturating_add(timeout.as_micros() as u64)),
            _ => None,
        };
        let version = self.version_of(ticket);
        let arrival = Arrival {
            wish,
            version,
            deadline,
        };
        self.share(ticket, request, row, (arrival, may_decline), silent)
    }

    /// Waits in the lobby.
    fn share(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
        (arrival, may_decline): (Arrival, bool),
        silent: bool,
    ) -> Step {
        if let Some(error) = self.node_of(ticket).unavailable() {
            return self.refuse(ticket, &Failure::Open(error), silent);
        }
        let session = &mut self.sessions[ticket.slot as usize];
        let (route, user) = (session.route, session.user.clone());
        // Replies differ between the versions only in what Weir can put right.
        let key = Partition {
            version: Version::Resp2,
            ..session.partition.clone()
        };
        session.in_flight += 1;
        session.conn = NONE;
        session.command = row.id;
        session.flags.set(Flags::BARRIER);
        let home = self.lobby_home(route, &key);
        let extra = self.sessions[ticket.slot as usize].extra();
        extra.shared_wait = Some(SharedWait {
            home,
            key: key.clone(),
            silent,
            registered: false,
            request: request.frame.to_vec(),
        });
        let front = &self.fronts[route as usize];
        front.metrics.commands.inc();
        front.metrics.blocked_sharing.inc();
        front.route.places.begins_to_share();
        let what = ToLobby::Arrive {
            caller: self.caller(ticket),
            user,
            arrival,
            may_decline,
        };
        self.tell_lobby(home, route, &key, what);
        Step::Taken
    }

    fn caller(&self, ticket: Ticket) -> Caller {
        Caller {
            worker: self.index,
            slot: ticket.slot,
            generation: ticket.generation,
        }
    }

    fn end_shared_wait(&mut self, ticket: Ticket) -> Option<SharedWait> {
        let session = self.session(ticket)?;
        let route = session.route;
        let wait = session.extra.as_mut()?.shared_wait.take()?;
        self.count_shared_wait_out(route);
        Some(wait)
    }

    fn count_shared_wait_out(&self, route: u16) {
        let front = &self.fronts[route as usize];
        front.metrics.blocked_sharing.dec();
        front.route.places.ends_to_share();
    }

    /// The lobby has something to say to a client.
    pub(super) fn take_from_lobby(&mut self, ticket: Ticket, what: FromLobby) {
        match what {
            FromLobby::Registered => {
                let extra = self.session(ticket).and_then(|it| it.extra.as_mut());
                if let Some(wait) = extra.and_then(|extra| extra.shared_wait.as_mut()) {
                    wait.registered = true;
                    self.recount(ticket);
                    if self.sessions[ticket.slot as usize].flags.any(Flags::EOF) {
                        self.wind_down(ticket);
                    }
                }
            }
            FromLobby::Decline => self.wait_elsewhere(ticket, Elsewhere::MayBeAlone),
            FromLobby::Told {
                tell: Tell::Alone, ..
            } => self.wait_elsewhere(ticket, Elsewhere::MustBeAlone),
            FromLobby::Told { tell, from } => self.told(ticket, tell, &from),
        }
    }

    /// The request goes back to the front of the input, to take another way.
    fn wait_elsewhere(&mut self, ticket: Ticket, elsewhere: Elsewhere) {
        let Some(wait) = self.end_shared_wait(ticket) else {
            return;
        };
        let session = &mut self.sessions[ticket.slot as usize];
        session.in_flight -= 1;
        session.extra().elsewhere = elsewhere;
        if wait.silent && !session.flags.any(Flags::REPLY_OFF) {
            session.flags.set(Flags::SKIP_NEXT);
        }
        session.put_back(wait.request);
        self.make_ready(ticket);
    }

    fn told(&mut self, ticket: Ticket, tell: Tell, from: &(u16, Partition)) {
        let Some(session) = self.session(ticket) else {
            return self.give_back(tell, from);
        };
        let pops = matches!(
            tell,
            Tell::Reply {
                popped: Some(_),
                ..
            }
        );
        let extra = session.extra.as_deref();
        let wait = extra.and_then(|extra| extra.shared_wait.as_ref());
        let waited = wait.is_some_and(|wait| wait.registered);
        let gone = match net::hangup(&session.socket).filter(|_| pops) {
            Some(Hangup::Whole) => true,
            // What is there at once is answered to one that says no more, as at Redis.
            Some(Hangup::Half) => waited,
            None => false,
        };
        if gone {
            // It is gone, and nobody has noticed yet. Somebody else may want the element.
            self.end_shared_wait(ticket);
            self.close(ticket.slot, CloseReason::ByClient);
            return self.give_back(tell, from);
        }
        let (route, version) = (session.route, session.partition.version);
        let Some(wait) = self.end_shared_wait(ticket) else {
            return;
        };
        let front = &self.fronts[route as usize];
        let metrics = &front.metrics;
        let reply = match tell {
            Tell::Reply { bytes, .. } => {
                metrics.replies.inc();
                bytes
            }
            Tell::Null => null_in(version).to_vec(),
            Tell::Unblocked => UNBLOCKED.to_vec(),
            Tell::Unknown => {
                metrics.error(ErrorCause::BackendLost);
                if front.config.backend.on_loss == OnLoss::Close {
                    return self.close(ticket.slot, CloseReason::BackendLost);
                }
                failure::OUTCOME_UNKNOWN.to_vec()
            }
            Tell::Failed(reply) => {
                match reply.starts_with(b"-BUSY") {
                    true => metrics.shed(ErrorCause::LeaseWait, ShedLimit::LeaseWait),
                    false => metrics.error(ErrorCause::NoBackend),
                }
                reply
            }
            Tell::Alone => Vec::new(),
        };
        self.sessions[ticket.slot as usize].in_flight -= 1;
        if !wait.silent {
            self.write(ticket, &reply);
        }
        self.make_ready(ticket);
    }

    /// What was popped for a client that has gone goes back to the lobby.
    fn give_back(&mut self, tell: Tell, (route, key): &(u16, Partition)) {
        if let Tell::Reply {
            popped: Some(popped),
            ..
        } = tell
        {
            let home = self.lobby_home(*route, key);
            self.tell_lobby(home, *route, key, ToLobby::Returned(popped));
        }
    }

    /// A client that waits is closed.
    pub(super) fn leave_lobby(&mut self, ticket: Ticket, route: u16, wait: &SharedWait) {
        self.count_shared_wait_out(route);
        let caller = self.caller(ticket);
        self.tell_lobby(wait.home, route, &wait.key, ToLobby::Leave(caller));
    }

    // A place of its own.

    /// Takes a place for a client that blocks on a connection of its own; if there is
    /// none it waits in line, at most for its own timeout.
    pub(super) fn take_place(&mut self, ticket: Ticket, timeout: Option<Duration>) -> bool {
        let session = &mut self.sessions[ticket.slot as usize];
        let route = session.route;
        let front = &self.fronts[route as usize];
        let places = front.route.places.clone();
        let extra = session.extra();
        if extra.lease.is_some() || extra.own_place.is_some() || extra.answer.is_some() {
            return true;
        }
        if let Some(place) = places.try_take() {
            extra.own_place = Some(place);
            return true;
        }
        if !places.has_own() {
            // Of one connection none is kept back: the ledger's line decides.
            return true;
        }
        let asked_at = self.clock.now();
        let lease_wait = front.config.backend.lease_wait;
        let metrics = front.metrics.clone();
        metrics.leases_waiting.inc();
        metrics.blocked_in_line.inc();
        let (unblock, unblocked) = oneshot::channel::<bool>();
        extra.in_line = Some(unblock);
        session.flags.set(Flags::WAITING);
        self.recount(ticket);
        let worker = self.worker();
        tokio::task::spawn_local(async move {
            let now = Instant::now();
            let own_end = async {
                match timeout {
                    Some(timeout) => tokio::time::sleep_until(now + timeout).await,
                    None => std::future::pending().await,
                }
            };
            let outcome = tokio::select! {
                biased;
                place = places.take(now + lease_wait) => place.map_err(Ended::NoPlace),
                () = own_end => Err(Ended::TimedOut),
                error = unblocked => match error {
                    Ok(error) => Err(Ended::Unblocked { error }),
                    // The client has gone.
                    Err(_) => Err(Ended::TimedOut),
                },
            };
            worker.enter(|state| {
                metrics.leases_waiting.dec();
                metrics.blocked_in_line.dec();
                let waited = state.clock.now() - asked_at;
                let Some(session) = state.session(ticket) else {
                    return;
                };
                let version = session.partition.version;
                let extra = session.extra();
                extra.in_line = None;
                match outcome {
                    Ok(place) => {
                        metrics.lease_wait.record(waited);
                        extra.own_place = Some(place);
                        extra.line_since = asked_at;
                    }
                    Err(ended) => {
                        let reply = match failure_of(&ended) {
                            Some(failure) => {
                                state.count_failure(route, &failure);
                                failure.reply()
                            }
                            None => not_served(&ended, version),
                        };
                        if let Some(session) = state.session(ticket) {
                            session.extra().answer = Some(Answer::NoLease(reply));
                        }
                    }
                }
                if let Some(session) = state.session(ticket) {
                    session.flags.clear(Flags::WAITING);
                }
                state.recount(ticket);
                state.make_ready(ticket);
            });
        });
        false
    }

    /// Whether the client is blocked without a connection of its own, so that it is
    /// forgotten as soon as it says that nothing more will come.
    pub(super) fn waits_here(&self, ticket: Ticket) -> bool {
        self.sessions
            .get(ticket.slot as usize)
            .and_then(|session| session.extra.as_deref())
            .is_some_and(|extra| {
                let wait = extra.shared_wait.as_ref();
                wait.is_some_and(|wait| wait.registered) || extra.in_line.is_some()
            })
    }

    /// `CLIENT UNBLOCK` of a client that waits in a lobby or in line; gives the answer back
    /// if it does neither.
    pub(super) fn unblock_waiting(
        &mut self,
        ticket: Ticket,
        error: bool,
        answer: oneshot::Sender<bool>,
    ) -> Option<oneshot::Sender<bool>> {
        let caller = self.caller(ticket);
        let session = &mut self.sessions[ticket.slot as usize];
        let route = session.route;
        let Some(extra) = session.extra.as_mut() else {
            return Some(answer);
        };
        if let Some(in_line) = extra.in_line.take() {
            let _ = answer.send(in_line.send(error).is_ok());
            return None;
        }
        let Some(wait) = &extra.shared_wait else {
            return Some(answer);
        };
        let (home, key) = (wait.home, wait.key.clone());
        let what = ToLobby::Unblock {
            caller,
            error,
            answer,
        };
        self.tell_lobby(home, route, &key, what);
        None
    }
}

/// Why a client that waited in line for its own connection gets none, if that is for want
/// of places.
fn failure_of(ended: &Ended) -> Option<Failure> {
    let limit = "max_blocking";
    match ended {
        Ended::NoPlace(NoPlace::LineFull) => Some(Failure::QueueFull { limit }),
        Ended::NoPlace(NoPlace::TimedOut) => Some(Failure::WaitedTooLong { limit }),
        Ended::TimedOut | Ended::Unblocked { .. } => None,
    }
}

/// The reply to one that has waited for as long as it wanted to, or was unblocked.
fn not_served(ended: &Ended, version: Version) -> Vec<u8> {
    match ended {
        Ended::Unblocked { error: true } => UNBLOCKED.to_vec(),
        _ => null_in(version).to_vec(),
    }
}
