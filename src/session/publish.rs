//! Counts of subscribers in replies: to Redis all clients of a feed are one.

use super::client::{Flags, Session};
use super::dispatch::{Row, silent_or};
use super::input::{Request, Step};
use super::subscribe::About;
use super::worker::State;
use crate::backend::{Marks, Ticket};
use crate::pubsub::{Ask, Audience, Space};
use crate::resp::{self, Value, Version};

/// What is to be done with a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Correction {
    /// It is a number of receivers: add this.
    Add(i64),
    /// It lists names and how many are subscribed to each.
    Names(Space),
}

impl Correction {
    /// A reply as it should be; `None` if it is so.
    pub(super) fn of(self, reply: &[u8], audience: &Audience, version: Version) -> Option<Vec<u8>> {
        match self {
            Correction::Add(more) => {
                let [b':', digits @ .., b'\r', b'\n'] = reply else {
                    return None;
                };
                let count = resp::integer(digits)?.saturating_add(more).max(0);
                Some(format!(":{count}\r\n").into_bytes())
            }
            Correction::Names(space) => {
                let (value, _) = resp::decode(reply).ok()??;
                let mut values = value.as_array()?.to_vec();
                for pair in values.chunks_exact_mut(2) {
                    let more = audience.of(space, pair[0].as_bytes()?);
                    pair[1] = Value::integer((pair[1].as_i64()? + more).max(0));
                }
                let mut corrected = Vec::new();
                resp::encode(&Value::array(values), version, &mut corrected);
                Some(corrected)
            }
        }
    }
}

/// How long the names of the commands are.
const PUBLISH: usize = 7;
const SPUBLISH: usize = 8;

impl Session {
    /// The next command that [`State::publish`] wanted to look at has no reply.
    pub(super) fn forget_correction(&mut self) {
        if let Some(extra) = &mut self.extra {
            extra.subscriber.corrections.pop_front();
        }
    }
}

impl State {
    /// `PUBLISH`, `SPUBLISH`, `PUBSUB NUMSUB`, `PUBSUB SHARDNUMSUB`: plain, unless the
    /// count is another than Redis knows.
    pub(super) fn publish(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
        silent: bool,
    ) -> Step {
        let name = request.arg(0).unwrap_or_default();
        let correction = self.correction(ticket, name, request.arg(1).unwrap_or_default());
        let message_first = matches!(name.len(), PUBLISH | SPUBLISH)
            && !silent
            && self.is_fed(ticket)
            && !self.node_of(ticket).server_version().like_redis(7, 2);
        if message_first && self.must_wait_for_replies(ticket) {
            // Those come before the message.
            return Step::Wait;
        }
        let mut marks = silent_or(silent, row.marks());
        let is_looked_at = correction != Correction::Add(0) || message_first;
        if is_looked_at {
            marks = marks.with(Marks::WHOLE);
        }
        let step = match self.sessions[ticket.slot as usize].lease() {
            Some(conn) => self.send_on(ticket, conn, request.frame, row.id, marks),
            None => self.forward(ticket, request.frame, row.id, marks),
        };
        if is_looked_at
            && step == Step::Taken
            && let Some(session) = self.session(ticket)
            && session.in_flight > 0
        {
            let corrections = &mut session.extra().subscriber.corrections;
            corrections.push_back(correction);
        }
        step
    }

    /// What is to be done with the reply to a command of these words.
    fn correction(&self, ticket: Ticket, name: &[u8], second: &[u8]) -> Correction {
        let session = &self.sessions[ticket.slot as usize];
        let audience = &self.fronts[session.route as usize].route.audience;
        match name.len() {
            _ if audience.is_exact() => Correction::Add(0),
            PUBLISH => Correction::Add(audience.of_publish(second)),
            SPUBLISH => Correction::Add(audience.of(Space::Shard, second)),
            _ if second.eq_ignore_ascii_case(b"numsub") => Correction::Names(Space::Channel),
            _ if second.eq_ignore_ascii_case(b"shardnumsub") => Correction::Names(Space::Shard),
            _ => Correction::Add(0),
        }
    }

    /// The same for a large message, which is streamed over this lease.
    pub(super) fn correct_upload(&mut self, ticket: Ticket, conn: u32, name: &[u8], to: &[u8]) {
        let correction = self.correction(ticket, name, to);
        if let Some(entry) = self.conns[conn as usize].in_flight.back_mut()
            && correction != Correction::Add(0)
        {
            entry.marks = entry.marks.with(Marks::WHOLE);
            let extra = self.sessions[ticket.slot as usize].extra();
            extra.subscriber.corrections.push_back(correction);
        }
    }

    /// The reply of a command that [`State::publish`] wanted to look at. `None` if it is
    /// right as it is.
    pub(super) fn correct(&mut self, ticket: Ticket, reply: &[u8]) -> Option<Vec<u8>> {
        let session = &mut self.sessions[ticket.slot as usize];
        let version = session.partition.version;
        let correction = session.extra().subscriber.corrections.pop_front()?;
        let audience = &self.fronts[session.route as usize].route.audience;
        correction.of(reply, audience, version)
    }

    /// Before 7.2 Redis writes the message to a publisher that is subscribed itself before
    /// it answers: the reply waits for a fence on the feed. Whether it does.
    pub(super) fn wait_for_own_message(&mut self, ticket: Ticket, reply: &[u8]) -> bool {
        let server = self.node_of(ticket).server_version();
        let session = &self.sessions[ticket.slot as usize];
        let receives = reply.first() == Some(&b':') && reply != b":0\r\n";
        let waits = receives
            && !server.like_redis(7, 2)
            && session.in_flight == 0
            && !session.flags.any(Flags::CLOSING)
            && self.is_fed(ticket);
        if waits {
            let about = About::Reply(reply.to_vec());
            self.question(ticket, Ask::Ping { by_client: false }, about, false);
        }
        waits
    }
}
