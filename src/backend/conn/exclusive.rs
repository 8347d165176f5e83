//! Replies on a connection that one client holds alone: frames that answer a
//! command are told from those that the node sends by itself.

use super::sample::Place;
use super::shared::{SPECIAL, STREAM_FROM};
use super::{Broken, Conn, Sink};
use crate::backend::entry::{Entry, Marks, Ticket};
use crate::resp::Version;

impl Conn {
    /// One client's own connection: frames that answer a command are told from
    /// those that the node sends by itself.
    pub(super) fn receive_exclusive<S: Sink>(
        &mut self,
        owner: Ticket,
        input: &[u8],
        sink: &mut S,
    ) -> Result<(), Broken> {
        let mut position = 0;
        while position < input.len() {
            let fed = self
                .scanner
                .feed(&input[position..])
                .map_err(Broken::Malformed)?;
            let piece = &input[position..position + fed.consumed];
            position += fed.consumed;
            if !fed.complete {
                // Whether it is a reply or a push is known from its first bytes,
                // but only a plain reply may be passed on in parts.
                let first = self.carry.first().or(piece.first()).copied();
                let plain = self.head_started
                    || (first.is_some_and(|byte| matches!(byte, b'$' | b'*' | b'%' | b'~'))
                        && !self.confirms
                        && self.carry.len() + piece.len() >= STREAM_FROM);
                if plain && !self.in_flight.is_empty() {
                    return self.keep_part(piece, sink);
                }
                if self.carry.len() + piece.len() > self.whole_max {
                    return Err(Broken::TooLarge);
                }
                self.carry.extend_from_slice(piece);
                return Ok(());
            }
            let joined;
            let frame = if self.carry.is_empty() {
                piece
            } else {
                joined = [std::mem::take(&mut self.carry).as_slice(), piece].concat();
                &joined
            };
            self.take_frame(owner, frame, sink)?;
        }
        Ok(())
    }

    fn take_frame<S: Sink>(
        &mut self,
        owner: Ticket,
        frame: &[u8],
        sink: &mut S,
    ) -> Result<(), Broken> {
        if self.head_started {
            let entry = self.in_flight.pop_front().ok_or(Broken::Unasked)?;
            self.look_at(&entry, frame);
            self.ring.acknowledge(entry.len as usize);
            self.deliver_special(&entry, frame, sink);
            return Ok(());
        }
        let head = self.in_flight.front().copied();
        match Frame::of(frame, self.version, self.confirms) {
            Frame::Unasked => {
                sink.pushed(owner, frame);
                return Ok(());
            }
            Frame::Confirmation => {
                // A confirmation that nobody asked for: the server ended a
                // shard subscription by itself.
                if !head.is_some_and(|head| head.marks.any(Marks::SUBSCRIBE)) {
                    sink.pushed(owner, frame);
                    return Ok(());
                }
            }
            Frame::Reply => {}
        }
        let Some(entry) = self.in_flight.pop_front() else {
            return Err(Broken::Unasked);
        };
        self.look_at(&entry, frame);
        if frame.first() == Some(&b'-')
            && entry.marks.any(Marks::UNTIMED)
            && !entry.marks.any(Marks::LOBBY)
            && entry.len > 0
            && super::is_demoted(frame)
        {
            let request = self.ring.copy(0, entry.len as usize);
            self.ring.acknowledge(entry.len as usize);
            sink.heed(&entry, request, frame);
            return Ok(());
        }
        self.ring.acknowledge(entry.len as usize);
        if entry.marks.any(Marks::EXEC) && frame.first() == Some(&b'-') {
            // The end of the transaction was refused: it may still be open.
            self.dirty = true;
        }
        if entry.marks.any(Marks::SUBSCRIBE) && frame.first() == Some(&b'-') {
            // One error answers all the channels that the command named.
            while self
                .in_flight
                .front()
                .is_some_and(|next| next.marks.any(Marks::SUBSCRIBE) && next.len == 0)
            {
                self.in_flight.pop_front();
                sink.whole(
                    &Entry {
                        marks: Marks::SILENT,
                        ..entry
                    },
                    &[],
                );
            }
        }
        if entry.marks.any(SPECIAL) {
            self.deliver_special(&entry, frame, sink);
        } else {
            sink.replies(entry.to, frame, 1);
        }
        Ok(())
    }

    /// The number in this read of the command that was just taken out.
    fn nth(&self) -> usize {
        self.before_read.saturating_sub(self.in_flight.len() + 1)
    }

    /// To be called before the request is given up.
    #[inline]
    fn look_at(&mut self, entry: &Entry, frame: &[u8]) {
        if entry.at < self.slow.before {
            self.note_slow(entry, self.nth(), 0, frame.len());
        }
        let is_due = self.sampler.is_due();
        if is_due || self.head_started {
            let place = Place {
                nth: self.nth(),
                start: 0,
                last: frame,
            };
            self.note_sample(entry, place, is_due);
        }
    }
}

/// What a whole frame on an exclusive connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Frame {
    /// Answers the oldest command.
    Reply,
    /// Confirms one channel of a `SUBSCRIBE` or its relatives.
    Confirmation,
    /// A message, an invalidation: belongs to no command.
    Unasked,
}

impl Frame {
    /// In RESP3 the type byte tells. In RESP2 only a subscribed client gets
    /// arrays that answer nothing, and it can ask for nothing else then.
    fn of(frame: &[u8], version: Version, confirms: bool) -> Frame {
        let is_push = frame.first() == Some(&b'>');
        let may_be_message = version == Version::Resp2 && confirms && frame.first() == Some(&b'*');
        if !is_push && !may_be_message {
            return Frame::Reply;
        }
        match first_bulk(frame) {
            Some(
                b"subscribe" | b"unsubscribe" | b"psubscribe" | b"punsubscribe" | b"ssubscribe"
                | b"sunsubscribe",
            ) => Frame::Confirmation,
            Some(b"message" | b"pmessage" | b"smessage") => Frame::Unasked,
            _ if is_push => Frame::Unasked,
            _ => Frame::Reply,
        }
    }
}

/// The first element of an aggregate of bulk strings.
pub fn first_bulk(frame: &[u8]) -> Option<&[u8]> {
    let header = memchr::memchr(b'\n', frame)? + 1;
    let rest = frame.get(header..)?;
    if rest.first() != Some(&b'$') {
        return None;
    }
    let line = memchr::memchr(b'\n', rest)? + 1;
    let len: usize = std::str::from_utf8(rest.get(1..line - 2)?)
        .ok()?
        .parse()
        .ok()?;
    rest.get(line..line + len)
}
