//! What becomes of one line: who is served, who leaves it, when nobody is left.

use super::{Alarm, Lobby, PARKED};
use crate::blocking::act::{Act, Popped, Tell, WaiterId};
use crate::blocking::line::Watch;
use crate::blocking::reply::in_version;
use crate::blocking::wish::Queue;

impl Lobby {
    /// Lets go whoever may leave the line, sees to it that the others soon can, and ends a
    /// line that nobody stands in.
    pub(super) fn settle(&mut self, line_id: usize) {
        let Some(line) = self.lines.get_mut(line_id) else {
            return;
        };
        let mut held_up = false;
        if !line.leaving.is_empty() {
            if line.staying() >= line.at_stake {
                let leaving = std::mem::take(&mut line.leaving);
                for (id, why) in leaving {
                    self.forget(id);
                    self.leave_with(id, why);
                }
            } else {
                held_up = true;
            }
        }
        let line = &self.lines[line_id];
        if line.waiters.is_empty() && line.at_stake == 0 {
            return self.end_line(line_id);
        }
        if (held_up || line.waiters.is_empty())
            && let Watch::On(carrier) = line.watch
        {
            self.interrupt(carrier);
        }
    }

    pub(super) fn end_line(&mut self, line_id: usize) {
        let line = self.lines.remove(line_id);
        self.index.remove(&line.queue);
        if let Watch::Parked(at) = line.watch {
            self.alarms.remove(&(at, Alarm::Line(line_id)));
        }
        if let Watch::On(carrier) = line.watch
            && let Some(carrier) = self.carriers.get_mut(&carrier)
        {
            carrier.lines.retain(|&other| other != line_id);
        }
    }

    /// An element, or several of one reply, for whoever waits longest.
    pub(super) fn give(&mut self, line_id: usize, frame: &[u8]) {
        let line = &mut self.lines[line_id];
        line.served_at = self.now;
        let Some(&id) = line.waiters.first() else {
            return self.acts.push(Act::Orphan);
        };
        let queue = line.queue.clone();
        self.hand(id, &queue, frame);
    }

    pub(super) fn hand(&mut self, id: WaiterId, queue: &Queue, frame: &[u8]) {
        let version = self.waiters[&id].version;
        let tell = Tell::Reply {
            bytes: in_version(frame, version, queue.has_scores()),
            popped: Some(Popped {
                queue: queue.clone(),
                frame: frame.to_vec(),
            }),
        };
        self.tell(id, tell);
    }

    /// An element comes back: its waiter had gone before it could be told.
    pub fn returned(&mut self, now: u64, queue: &Queue, frame: &[u8]) {
        self.now = now;
        let line = self.index.get(queue).copied();
        match line.and_then(|line| Some((line, *self.lines[line].waiters.first()?))) {
            Some((line, id)) => {
                self.hand(id, queue, frame);
                self.settle(line);
            }
            None => self.acts.push(Act::Orphan),
        }
    }

    pub(super) fn park(&mut self, line_id: usize) {
        let at = self.now + PARKED;
        self.lines[line_id].watch = Watch::Parked(at);
        self.alarms.insert((at, Alarm::Line(line_id)));
        for id in std::mem::take(&mut self.lines[line_id].unregistered) {
            self.acts.push(Act::Registered(id));
        }
    }

    pub(super) fn line_alarm(&mut self, line_id: usize) {
        if self
            .lines
            .get(line_id)
            .is_some_and(|line| matches!(line.watch, Watch::Parked(_)))
        {
            self.probe(line_id);
        }
    }

    pub(super) fn tell_line(&mut self, line_id: usize, tell: impl Fn(WaiterId) -> Tell) {
        for id in std::mem::take(&mut self.lines[line_id].waiters) {
            self.tell(id, tell(id));
        }
    }

    /// An element may have been on its way to the first of the line, and is lost.
    pub(super) fn outcome_unknown(&mut self, line_id: usize, copies: usize) {
        let first: Vec<WaiterId> = self.lines[line_id]
            .waiters
            .iter()
            .take(copies)
            .copied()
            .collect();
        for id in first {
            self.tell(id, Tell::Unknown);
        }
    }
}
