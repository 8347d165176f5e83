//! What a carrier's connection answers: elements for the lines it waited for, errors, and what an
//! interrupted wait leaves behind.

use super::{HOT, Lobby, REST, is_passing, results};
use crate::blocking::act::{Act, CarrierId};
use crate::blocking::carrier::{Carries, Stage};
use crate::blocking::line::Watch;
use crate::blocking::reply::{RepliesIn, bulk, is_error, is_null};
use crate::blocking::wish::Queue;

impl Lobby {
    /// The replies to what was sent on a carrier.
    pub fn replied(&mut self, now: u64, carrier: CarrierId, frames: &[Vec<u8>]) {
        self.now = now;
        let Some(replied) = self.carriers.get_mut(&carrier) else {
            return;
        };
        replied.missed = 0;
        match std::mem::replace(&mut replied.stage, Stage::Ready(now)) {
            Stage::Blocked { lines, .. } => {
                let frame = frames.first().map(Vec::as_slice).unwrap_or_default();
                match replied.carries {
                    Carries::Streams => self.stream_replied(carrier, frame),
                    _ => self.block_replied(carrier, &lines, frame),
                }
            }
            Stage::Sweeping(parts) => self.swept(carrier, &parts, frames),
            other => replied.stage = other,
        }
        self.go_on(carrier);
    }

    pub(super) fn block_replied(&mut self, carrier: CarrierId, lines: &[usize], frame: &[u8]) {
        for &line in lines {
            self.lines[line].at_stake -= 1;
        }
        if is_error(frame) {
            self.block_refused(carrier, lines, frame);
        } else if !is_null(frame) {
            let line = self.line_of(lines, frame);
            match line {
                Some(line) => {
                    let recently = self.now - self.lines[line].served_at < HOT;
                    self.give(line, frame);
                    self.lines[line].hot = recently && !self.lines[line].waiters.is_empty();
                    let order = &mut self.carriers.get_mut(&carrier).expect("it replied").lines;
                    if let Some(place) = order.iter().position(|&other| other == line) {
                        order.remove(place);
                        order.push_back(line);
                    }
                }
                None => self.acts.push(Act::Orphan),
            }
        } else {
            self.acts.push(Act::Reissued);
        }
        for &line in lines {
            self.settle(line);
        }
    }

    /// Whose element it is: the reply names the key.
    pub(super) fn line_of(&self, lines: &[usize], frame: &[u8]) -> Option<usize> {
        let first = *lines.first()?;
        let queue = &self.lines[first].queue;
        if !queue.can_unite() {
            return Some(first);
        }
        let key = RepliesIn::array(frame)?.next().and_then(bulk)?;
        let queue = Queue {
            shape: queue.shape.clone(),
            keys: vec![key.to_vec()].into(),
        };
        self.index.get(&queue).copied()
    }

    /// One key that is no queue spoils the command for all of them: each is asked alone.
    pub(super) fn block_refused(&mut self, carrier: CarrierId, lines: &[usize], error: &[u8]) {
        if is_passing(error) {
            self.rest_until(carrier, self.now + REST);
            return self.acts.push(Act::Close(carrier));
        }
        for &line_id in lines {
            let on = self.carriers.get_mut(&carrier).expect("it replied");
            on.lines.retain(|&other| other != line_id);
            self.lines[line_id].watch = Watch::Asking;
            if self.lines[line_id].waiters.is_empty() {
                self.settle(line_id);
            } else {
                self.probe(line_id);
            }
        }
    }

    pub(super) fn swept(
        &mut self,
        carrier: CarrierId,
        parts: &[(usize, usize)],
        frames: &[Vec<u8>],
    ) {
        let mut results = results(frames);
        let mut refused = None;
        for &(line, copies) in parts {
            self.lines[line].at_stake -= copies;
            let mut full = true;
            for _ in 0..copies {
                match results.next() {
                    Some(result) if is_error(result) => {
                        refused = Some((line, result.to_vec()));
                        full = false;
                    }
                    Some(result) if !is_null(result) => self.give(line, result),
                    _ => full = false,
                }
            }
            self.lines[line].hot = full && !self.lines[line].waiters.is_empty();
        }
        if let Some((line, error)) = refused {
            self.block_refused(carrier, &[line], &error);
        }
        for &(line, _) in parts {
            self.settle(line);
        }
    }

    pub(super) fn interrupted(
        &mut self,
        carrier: CarrierId,
        issue: u64,
        guard: Option<usize>,
        frames: &[Vec<u8>],
    ) {
        let mut replies: Vec<&[u8]> = match guard {
            Some(_) => results(frames).collect(),
            None => frames.iter().map(Vec::as_slice).collect(),
        };
        let answer = replies.pop().unwrap_or_default();
        if let Some(line) = guard {
            self.lines[line].at_stake -= 1;
            if let Some(result) = replies.pop()
                && !is_null(result)
                && !is_error(result)
            {
                self.give(line, result);
            }
            self.settle(line);
        }
        if answer.starts_with(b"-NOPERM") {
            // From here on everybody waits in slices.
            self.slices = true;
        } else if answer != b":1\r\n" {
            self.interrupt_missed(carrier, issue);
        }
    }
}
