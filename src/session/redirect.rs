//! `CLIENT TRACKING … REDIRECT id`: what one client reads, another is told of
//! (COMMANDS.md 1.6). The id is one that Weir gave. Redis is asked to redirect to a
//! connection of the source's own, its *receiver*, which speaks RESP3 and carries
//! nothing else; what arrives there is handed to the target, on whichever worker
//! that is.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::client::{Answer, Flags, Until};
use super::dispatch::{Row, silent_or};
use super::failure::{self, Failure};
use super::input::{Request, Step};
use super::lanes::refusal;
use super::leases::{LeaseWish, Patience};
use super::proxy::Message;
use super::worker::State;
use crate::backend::{
    Kind, Marks, Mode, Node, OpenError, Opened, Partition, Ticket, close_politely,
};
use crate::metrics::CloseReason;
use crate::resp::{self, Version};

/// Redis's own words.
const NO_SUCH_TARGET: &str = "ERR The client ID you want redirect to does not exist";

/// What comes before the keys in Redis's push; they follow as Redis wrote them.
const INVALIDATE: &[u8] = b">2\r\n$10\r\ninvalidate\r\n";

/// The same for a target that speaks RESP2 (`tracking.c:sendTrackingMessage`).
const INVALIDATE_MESSAGE: &[u8] = b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n";

/// Whom a client's invalidations go to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Redirect {
    /// The client's id.
    pub target: u64,
    /// That client has gone.
    pub broken: bool,
}

impl State {
    /// `CLIENT TRACKING ON … REDIRECT`: `place` is where the target's id stands.
    pub(super) fn track_for_another(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
        (place, target): (usize, i64),
        silent: bool,
    ) -> Step {
        if self.must_wait_for_replies(ticket) {
            return Step::Wait;
        }
        let extra = self.sessions[ticket.slot as usize].extra();
        match extra.answer.take() {
            Some(Answer::NoLease(reply)) => return self.answer(ticket, &reply, silent),
            other => extra.answer = other,
        }
        if !std::mem::take(&mut extra.redirect_checked) {
            self.check_redirect(ticket, target);
            return Step::Wait;
        }
        let receiver = extra
            .receiver
            .and_then(|conn| self.conns.get(conn as usize));
        let Some(receiver) = receiver.and_then(|conn| conn.backend_id) else {
            let failure = Failure::NotSupported {
                what: "tracking for another client",
                setting: "the node does not tell its connections' ids",
            };
            return self.refuse(ticket, &failure, silent);
        };
        match self.wish_lease(ticket, Kind::Lease, Until::Closed, Patience::InLine) {
            LeaseWish::Held(conn) => {
                let receiver = receiver.to_string();
                let mut args = request.args();
                let asked = args.iter().map(|arg| arg.to_vec()).collect();
                args[place] = receiver.as_bytes();
                let mut frame = Vec::new();
                resp::encode_command(&args, &mut frame);
                self.conns[conn as usize].dirty = true;
                self.sessions[ticket.slot as usize].extra().asked = asked;
                let marks = silent_or(silent, row.marks().with(Marks::WHOLE));
                let step = self.send_on(ticket, conn, &frame, row.id, marks);
                self.set_barrier(ticket);
                step
            }
            LeaseWish::Waits => {
                self.sessions[ticket.slot as usize].extra().redirect_checked = true;
                Step::Wait
            }
            LeaseWish::Refused(reply) => self.answer(ticket, &reply, silent),
            LeaseWish::NotAtOnce => unreachable!("tracking waits in line"),
        }
    }

    /// Sees that there is such a client, and that there is a receiver; the session
    /// waits.
    fn check_redirect(&mut self, ticket: Ticket, target: i64) {
        let target = u64::try_from(target).unwrap_or(0);
        let session = &mut self.sessions[ticket.slot as usize];
        session.flags.set(Flags::WAITING);
        let has_receiver = session.extra().receiver.is_some();
        let route = session.route;
        let key = Partition {
            version: Version::Resp3,
            db: 0,
            no_touch: false,
            ..session.partition.clone()
        };
        let node = self.node_of(ticket);
        let mut exists = self.client_of(route, target).is_some();
        let others = self.ask_others(|answer| Message::Invalidate {
            route,
            target,
            keys: None,
            answer,
        });
        let deadline = Instant::now() + node.settings().backend.lease_wait;
        let worker = self.worker();
        tokio::task::spawn_local(async move {
            for other in others {
                exists |= other.await.unwrap_or(false);
            }
            let receiver = match (exists, has_receiver) {
                (true, false) => Some(match node.ledger.take(Kind::Subscription, deadline).await {
                    Ok(slot) => node.open(&key, slot).await.map_err(Failure::Open),
                    Err(refused) => Err(refusal(&refused)),
                }),
                _ => None,
            };
            worker.enter(|state| state.redirect_checked(ticket, (&node, key), exists, receiver));
        });
    }

    fn redirect_checked(
        &mut self,
        ticket: Ticket,
        place: (&Arc<Node>, Partition),
        exists: bool,
        receiver: Option<Result<Opened, Failure>>,
    ) {
        let Some(session) = self.session(ticket) else {
            if let Some(Ok(opened)) = receiver {
                close_politely(opened.socket, Some(opened.slot));
            }
            return;
        };
        session.flags.clear(Flags::WAITING);
        let extra = session.extra();
        match receiver {
            _ if !exists => {
                extra.answer = Some(Answer::Reply(failure::error_line(NO_SUCH_TARGET)));
            }
            Some(Err(failure)) => extra.answer = Some(Answer::NoLease(failure.reply())),
            Some(Ok(opened)) => {
                extra.redirect_checked = true;
                self.take_receiver(ticket, place, Ok(opened));
            }
            None => extra.redirect_checked = true,
        }
        self.make_ready(ticket);
    }

    fn take_receiver(
        &mut self,
        ticket: Ticket,
        (node, key): (&Arc<Node>, Partition),
        opened: Result<Opened, OpenError>,
    ) {
        let route = self.sessions[ticket.slot as usize].route;
        let lane = self.find_lane(route, node, key);
        let conn = self.add_conn(Kind::Subscription, lane);
        self.opened(conn, opened);
        let connection = &mut self.conns[conn.slot as usize];
        connection.mode = Mode::Exclusive(ticket);
        connection.dirty = true;
        if let Some(slot) = &connection.slot {
            slot.set_busy();
        }
        self.sessions[ticket.slot as usize].extra().receiver = Some(conn.slot);
    }

    /// The session's invalidations go to nobody else any more.
    pub(super) fn drop_receiver(&mut self, ticket: Ticket) {
        let Some(extra) = self.session(ticket).and_then(|it| it.extra.as_deref_mut()) else {
            return;
        };
        extra.redirect = None;
        if let Some(conn) = extra.receiver.take() {
            self.close_conn(conn);
        }
    }

    /// The client of this worker that has the id.
    fn client_of(&self, route: u16, id: u64) -> Option<Ticket> {
        self.sessions
            .iter()
            .find(|(_, session)| session.id == id && session.route == route)
            .map(|(slot, session)| session.ticket(slot as u32))
    }

    /// Another worker's client reads for one that may be here. Whether it is.
    pub(super) fn take_invalidation(
        &mut self,
        route: u16,
        target: u64,
        keys: Option<&[u8]>,
    ) -> bool {
        let Some(ticket) = self.client_of(route, target) else {
            return false;
        };
        if let Some(keys) = keys {
            self.invalidate(ticket, keys);
        }
        true
    }

    /// Something arrived at the receiver of a session.
    pub(super) fn redirect(&mut self, source: Ticket, frame: &[u8]) {
        let Some(keys) = frame.strip_prefix(INVALIDATE) else {
            return;
        };
        let Some(session) = self.session(source) else {
            return;
        };
        let route = session.route;
        let Some(redirect) = session.extra().redirect else {
            return;
        };
        let target = redirect.target;
        if redirect.broken || self.take_invalidation(route, target, Some(keys)) {
            return;
        }
        let others: Vec<oneshot::Receiver<bool>> = self.ask_others(|answer| Message::Invalidate {
            route,
            target,
            keys: Some(keys.to_vec()),
            answer,
        });
        let worker = self.worker();
        tokio::task::spawn_local(async move {
            for other in others {
                if other.await.unwrap_or(false) {
                    return;
                }
            }
            worker.enter(|state| state.redirect_broken(source, target));
        });
    }

    /// The target has gone: a source that can be told is told, once.
    fn redirect_broken(&mut self, source: Ticket, target: u64) {
        let Some(session) = self.session(source) else {
            return;
        };
        let tells = session.partition.version == Version::Resp3;
        match &mut session.extra().redirect {
            Some(redirect) if redirect.target == target && !redirect.broken => {
                redirect.broken = true;
            }
            _ => return,
        }
        if tells {
            let push = format!(">2\r\n$21\r\ntracking-redir-broken\r\n:{target}\r\n");
            self.write_between(source, push.as_bytes());
        }
    }

    /// Tells a client of keys that another has read. One that speaks RESP2 is told
    /// only while it is subscribed to anything, as in Redis.
    fn invalidate(&mut self, ticket: Ticket, keys: &[u8]) {
        let session = &self.sessions[ticket.slot as usize];
        let subscribed = session
            .extra
            .as_deref()
            .is_some_and(|extra| !extra.subscriptions.is_empty());
        let start = match session.partition.version {
            Version::Resp3 => INVALIDATE,
            Version::Resp2 if subscribed => INVALIDATE_MESSAGE,
            Version::Resp2 => return,
        };
        self.write_between(ticket, &[start, keys].concat());
    }

    /// Writes what answers nothing, but never into the middle of a reply.
    fn write_between(&mut self, ticket: Ticket, bytes: &[u8]) {
        let session = &mut self.sessions[ticket.slot as usize];
        let within = session.in_flight > 0
            && self
                .conns
                .get(session.conn as usize)
                .is_some_and(|conn| conn.head_started());
        if within {
            session.extra().held_pushes.extend_from_slice(bytes);
            session.flags.set(Flags::BARRIER);
        } else {
            self.write(ticket, bytes);
        }
    }

    /// The reply is over that these had to wait for.
    pub(super) fn write_held_pushes(&mut self, ticket: Ticket) {
        let Some(extra) = self.session(ticket).and_then(|it| it.extra.as_deref_mut()) else {
            return;
        };
        extra.subscriber.replies_first = false;
        let held = std::mem::take(&mut extra.held_pushes);
        if !held.is_empty() {
            self.write(ticket, &held);
        }
    }

    /// The connection that a session's invalidations come over was lost: what its
    /// target remembers may be out of date.
    pub(super) fn receiver_lost(&mut self, index: u32, owner: Ticket) {
        if let Some(session) = self.session(owner)
            && let Some(extra) = session.extra.as_deref_mut()
            && extra.receiver == Some(index)
        {
            extra.receiver = None;
            self.close_after_output(owner, CloseReason::BackendLost);
        }
    }

    /// `CLIENT GETREDIR` and `CLIENT TRACKINGINFO` name the target as clients know it.
    pub(super) fn name_target(&mut self, ticket: Ticket, reply: &[u8]) -> Option<Vec<u8>> {
        let redirect = self.sessions[ticket.slot as usize].extra().redirect?;
        Some(with_target(reply, redirect))
    }
}

/// A reply with the target's id instead of the receiver's: an integer, or a map with
/// `flags` and `redirect` in this order.
fn with_target(reply: &[u8], redirect: Redirect) -> Vec<u8> {
    const FIELD: &[u8] = b"$8\r\nredirect\r\n";
    const FLAGS: &[u8] = b"$5\r\nflags\r\n";
    let target = format!(":{}\r\n", redirect.target);
    let find = |part: &[u8]| memchr::memmem::find(reply, part);
    let Some(field) = find(FIELD) else {
        return match reply.first() {
            Some(b':') => target.into_bytes(),
            _ => reply.to_vec(),
        };
    };
    let id = field + FIELD.len();
    let behind = memchr::memchr(b'\n', &reply[id..]).map_or(reply.len(), |end| id + end + 1);
    let mut named = reply[..field].to_vec();
    if redirect.broken
        && let Some(flags) = find(FLAGS).map(|at| at + FLAGS.len())
        && let Some(end) = memchr::memchr(b'\r', &named[flags..]).map(|end| flags + end)
        && let Ok(Ok(count)) = std::str::from_utf8(&named[flags + 1..end]).map(str::parse::<usize>)
    {
        let count = (count + 1).to_string();
        named.splice(flags + 1..end, count.into_bytes());
        named.extend_from_slice(b"$15\r\nbroken_redirect\r\n");
    }
    named.extend_from_slice(FIELD);
    named.extend_from_slice(target.as_bytes());
    named.extend_from_slice(&reply[behind..]);
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_named_as_clients_know_it() {
        let alive = Redirect {
            target: 7,
            broken: false,
        };
        let broken = Redirect {
            target: 7,
            broken: true,
        };
        assert_eq!(with_target(b":123\r\n", alive), b":7\r\n");
        assert_eq!(with_target(b"-ERR no\r\n", alive), b"-ERR no\r\n");
        let info = b"%3\r\n$5\r\nflags\r\n~1\r\n$2\r\non\r\n$8\r\nredirect\r\n:123\r\n\
            $8\r\nprefixes\r\n*0\r\n";
        assert_eq!(
            with_target(info, alive),
            b"%3\r\n$5\r\nflags\r\n~1\r\n$2\r\non\r\n$8\r\nredirect\r\n:7\r\n\
              $8\r\nprefixes\r\n*0\r\n"
        );
        assert_eq!(
            with_target(info, broken),
            b"%3\r\n$5\r\nflags\r\n~2\r\n$2\r\non\r\n$15\r\nbroken_redirect\r\n\
              $8\r\nredirect\r\n:7\r\n$8\r\nprefixes\r\n*0\r\n"
        );
    }
}
