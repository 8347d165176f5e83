//! Replies on a connection that many clients share: the hot loop. Neighbouring
//! replies to the same caller become one run; parts of a large one are passed on.

use super::sample::Place;
use super::{Broken, Conn, Sink};
use crate::admission::LARGE_REPLY;
use crate::backend::entry::{Entry, Marks, Ticket};

/// A reply of which this much has arrived and more is to come is passed on in
/// parts. Smaller ones wait for their end, which saves a write to the client.
pub(super) const STREAM_FROM: usize = 16 * 1024;
impl Conn {
    pub(super) fn receive_shared<S: Sink>(
        &mut self,
        input: &[u8],
        sink: &mut S,
    ) -> Result<(), Broken> {
        let (mut acknowledged, mut run) = (0, Run::default());
        let result = self.receive_runs(input, sink, &mut run, &mut acknowledged);
        // Also when what follows is not a reply: those before it are.
        run.end(input, sink);
        self.ring.acknowledge(acknowledged);
        result
    }

    /// The hot loop: neighbouring replies to the same caller become one run.
    fn receive_runs<S: Sink>(
        &mut self,
        input: &[u8],
        sink: &mut S,
        run: &mut Run,
        acknowledged: &mut usize,
    ) -> Result<(), Broken> {
        let mut position = 0;
        while position < input.len() {
            let fed = self
                .scanner
                .feed(&input[position..])
                .map_err(Broken::Malformed)?;
            let end = position + fed.consumed;
            if !fed.complete {
                run.end(input, sink);
                return self.keep_part(&input[position..end], sink);
            }
            let Some(entry) = self.in_flight.pop_front() else {
                return Err(Broken::Unasked);
            };
            *acknowledged += entry.len as usize;
            self.count(&entry);
            if entry.at < self.slow.before {
                let nth = self.answered.count as usize - 1;
                let start = *acknowledged - entry.len as usize;
                self.note_slow(&entry, nth, start, end - position);
            }
            let is_due = self.sampler.is_due();
            if is_due || self.head_started {
                let place = Place {
                    nth: self.answered.count as usize - 1,
                    start: *acknowledged - entry.len as usize,
                    last: &input[position..end],
                };
                self.note_sample(&entry, place, is_due);
            }
            let looks = self.heeds && (input[position] == b'-' || entry.marks.any(Marks::HEEDED));
            if looks && self.heed(&entry, &input[position..end], *acknowledged, sink) {
                run.end(input, sink);
            } else if entry.marks.any(SPECIAL) || self.head_started || !self.carry.is_empty() {
                run.end(input, sink);
                self.deliver_special(&entry, &input[position..end], sink);
            } else {
                run.extend(&entry, position, end, input, sink);
            }
            position = end;
            if self
                .in_flight
                .front()
                .is_some_and(|next| next.marks.any(Marks::LOST))
            {
                run.end(input, sink);
                self.settle_lost(sink);
            }
        }
        Ok(())
    }

    #[inline]
    fn count(&mut self, entry: &Entry) {
        let heavy = entry.marks.any(Marks::HEAVY);
        self.answered.count += 1;
        self.answered.heavy += u32::from(heavy);
        // Of what came over a link the worker that it came from knows when it arrived.
        if !entry.marks.any(Marks::HEAVY.with(Marks::LINK)) {
            self.answered.newest = self.answered.newest.max(entry.at);
        }
    }

    /// Hands over a reply that says what the node is, and all that follow it of the same
    /// session. `acknowledged` are the bytes of requests up to this one, included.
    #[cold]
    fn heed<S: Sink>(
        &mut self,
        entry: &Entry,
        last: &[u8],
        acknowledged: usize,
        sink: &mut S,
    ) -> bool {
        if self.head_started || entry.marks.any(UNHEEDED) {
            return false;
        }
        let heeded = entry.marks.any(Marks::HEEDED);
        if !heeded && (!self.carry.is_empty() || !super::is_about_node(last)) {
            return false;
        }
        let behind = |it: &&Entry| it.to == entry.to;
        if !heeded
            && self
                .in_flight
                .iter()
                .filter(behind)
                .any(|it| it.marks.any(UNHEEDED))
        {
            // Its reply could not be kept back, and would come first.
            return false;
        }
        if !heeded {
            for behind in self.in_flight.iter_mut().filter(|it| it.to == entry.to) {
                behind.marks = behind.marks.with(Marks::HEEDED);
            }
        }
        let mut reply = std::mem::take(&mut self.carry);
        self.head_is_over();
        reply.extend_from_slice(last);
        let start = acknowledged - entry.len as usize;
        let request = self.ring.copy(start, entry.len as usize);
        sink.heed(entry, request, &reply);
        true
    }

    /// Tells the callers at the front whose commands were lost with an earlier
    /// connection; no reply will come for them.
    pub fn settle_lost<S: Sink>(&mut self, sink: &mut S) {
        while let Some(next) = self.in_flight.front() {
            if !next.marks.any(Marks::LOST) {
                break;
            }
            sink.lost(next);
            self.in_flight.pop_front();
        }
    }

    pub(super) fn deliver_special<S: Sink>(&mut self, entry: &Entry, last: &[u8], sink: &mut S) {
        let carry = std::mem::take(&mut self.carry);
        let started = std::mem::take(&mut self.head_started);
        self.head_is_over();
        self.streamed = 0;
        let joined;
        let bytes = if carry.is_empty() {
            last
        } else {
            joined = [carry.as_slice(), last].concat();
            &joined
        };
        if entry.marks.any(Marks::ANSWERED) {
            // The late reply of a request that was answered at its deadline.
        } else if entry.marks.any(Marks::LINK) {
            sink.link(entry.to, bytes);
        } else if entry.marks.any(Marks::WHOLE.with(Marks::SILENT)) && !started {
            sink.whole(entry, bytes);
        } else if entry.marks.any(Marks::SILENT) {
            sink.whole(entry, &[]);
        } else {
            sink.replies(entry.to, bytes, 1);
        }
    }

    /// More of the oldest reply has come, and more is to come.
    fn measure_head(&mut self, part: &[u8]) {
        if self.head_bytes == 0 {
            let first = if self.carry.is_empty() {
                part
            } else {
                &self.carry
            };
            self.head_bytes = declared(first);
        }
        let come = self.streamed + self.carry.len() + part.len();
        self.head_bytes = self.head_bytes.max(come as u64);
    }

    fn head_is_over(&mut self) {
        self.head_bytes = 0;
        self.head_told_from = LARGE_REPLY;
    }

    /// The beginning of a reply: passed on if it is large, kept if it is small.
    pub(super) fn keep_part<S: Sink>(&mut self, part: &[u8], sink: &mut S) -> Result<(), Broken> {
        let Some(head) = self.in_flight.front().copied() else {
            return Err(Broken::Unasked);
        };
        let kept = self.carry.len() + part.len();
        self.measure_head(part);
        if head.marks.any(Marks::ANSWERED.with(Marks::SILENT)) {
            self.carry.clear();
            self.head_started = true;
            self.streamed += kept;
        } else if head.marks.any(Marks::WHOLE.with(Marks::HEEDED)) {
            if kept > self.whole_max {
                return Err(Broken::TooLarge);
            }
            self.carry.extend_from_slice(part);
        } else if self.head_started || kept >= STREAM_FROM {
            let (to, link) = (head.to, head.marks.any(Marks::LINK));
            self.head_started = true;
            self.streamed += kept;
            let carry = std::mem::take(&mut self.carry);
            for piece in [carry.as_slice(), part] {
                if link {
                    sink.link(to, piece);
                } else if !piece.is_empty() {
                    sink.part(to, piece);
                }
            }
        } else {
            self.carry.extend_from_slice(part);
        }
        Ok(())
    }
}

/// How long a string is, by its header; 0 if that can not be told from it.
fn declared(start: &[u8]) -> u64 {
    let Some((b'$' | b'=', rest)) = start.split_first() else {
        return 0;
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if rest.get(digits) != Some(&b'\r') {
        return 0;
    }
    let text = std::str::from_utf8(&rest[..digits]).unwrap_or_default();
    text.parse().unwrap_or(0)
}

/// Marks that keep a reply out of a run.
pub(super) const SPECIAL: Marks = Marks::ANSWERED
    .with(Marks::LINK)
    .with(Marks::WHOLE)
    .with(Marks::SILENT)
    .with(Marks::SUBSCRIBE);

/// Commands whose refusal is passed on as it is, or is another worker's to look at.
const UNHEEDED: Marks = Marks::ANSWERED
    .with(Marks::LINK)
    .with(Marks::WHOLE)
    .with(Marks::SILENT)
    .with(Marks::IN_BLOCK)
    .with(Marks::LOST);

/// Neighbouring replies to one session.
#[derive(Default)]
struct Run {
    to: Option<Ticket>,
    start: usize,
    stop: usize,
    count: u32,
}

impl Run {
    #[inline]
    fn extend<S: Sink>(
        &mut self,
        entry: &Entry,
        start: usize,
        stop: usize,
        input: &[u8],
        sink: &mut S,
    ) {
        if self.to == Some(entry.to) {
            self.stop = stop;
            self.count += 1;
            return;
        }
        self.end(input, sink);
        *self = Run {
            to: Some(entry.to),
            start,
            stop,
            count: 1,
        };
    }

    #[inline]
    fn end<S: Sink>(&mut self, input: &[u8], sink: &mut S) {
        if let Some(to) = self.to.take() {
            sink.replies(to, &input[self.start..self.stop], self.count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::declared;

    #[test]
    fn a_string_says_how_long_it_is() {
        assert_eq!(declared(b"$200000000\r\nxxx"), 200_000_000);
        assert_eq!(declared(b"$2000"), 0);
        assert_eq!(declared(b"$\r\n"), 0);
        assert_eq!(declared(b"*3\r\n$5\r\n"), 0);
        assert_eq!(declared(b""), 0);
    }
}
