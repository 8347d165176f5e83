//! The connections that waiters share: which carries which lines, when one is opened, what it is
//! sent, and what follows when it is gone.

use super::{
    AT_ONCE, Alarm, IDLE_MAX, LINES_EACH, Lobby, OUTAGE_MAX, REST, SLICE, SWEEP_MAX, WAIT,
};
use crate::blocking::act::{Act, Batch, CarrierId, Tell};
use crate::blocking::carrier::{Carrier, Carries, Interrupt, Stage};
use crate::blocking::line::Watch;

impl Lobby {
    /// Puts a line on a connection that waits for it.
    pub(super) fn attach(&mut self, line_id: usize) {
        let queue = &self.lines[line_id].queue;
        let carries = match queue.can_unite() {
            true => Carries::United(queue.shape.clone()),
            false => Carries::Only(queue.clone()),
        };
        let alike = || {
            self.carriers
                .iter()
                .filter(|(_, carrier)| carrier.carries == carries)
        };
        let usable = alike().filter(|(_, carrier)| {
            !(carrier.optional && matches!(carrier.stage, Stage::Opening | Stage::Resting(_)))
        });
        let least = usable.min_by_key(|(_, carrier)| carrier.lines.len());
        let (count, least) = (
            alike().count(),
            least.map(|(&id, carrier)| (id, carrier.lines.len())),
        );
        let carrier = match least {
            Some((id, lines)) => {
                if lines >= LINES_EACH && count < self.settings.carriers_max && queue.can_unite() {
                    self.open(carries, true);
                }
                id
            }
            None => self.open(carries, false),
        };
        self.lines[line_id].watch = Watch::On(carrier);
        let on = self.carriers.get_mut(&carrier).expect("found or opened");
        // A newcomer is named first: what it waits for may be there by now.
        on.lines.push_front(line_id);
        match on.stage {
            Stage::Blocked { .. } => self.interrupt(carrier),
            _ => self.go_on(carrier),
        }
    }

    /// A connection for a group: one that carries nothing any more, or a new one.
    pub(in crate::blocking) fn open(&mut self, carries: Carries, optional: bool) -> CarrierId {
        let idle = self.carriers.iter().find(|(id, carrier)| {
            matches!(carrier.stage, Stage::Ready(_)) && !self.is_wanted(**id)
        });
        if let Some((&id, _)) = idle {
            self.reader.lose(id);
            let reused = self.carriers.get_mut(&id).expect("just seen");
            reused.carries = carries;
            reused.optional = false;
            return id;
        }
        let carrier = self.next_carrier;
        self.next_carrier += 1;
        self.carriers
            .insert(carrier, Carrier::new(carries, optional));
        self.acts.push(Act::Open { carrier, optional });
        carrier
    }

    /// A carrier's connection is there.
    pub fn opened(&mut self, now: u64, carrier: CarrierId) {
        self.now = now;
        if let Some(open) = self.carriers.get_mut(&carrier) {
            open.stage = Stage::Ready(now);
            open.failing_since = None;
            self.make_use_of(carrier);
            self.go_on(carrier);
        }
    }

    /// Has others give a new carrier some of their lines as soon as they can.
    pub(super) fn make_use_of(&mut self, carrier: CarrierId) {
        let carries = self.carriers[&carrier].carries.clone();
        let full: Vec<CarrierId> = self
            .carriers
            .iter()
            .filter(|(_, other)| other.carries == carries && other.lines.len() > LINES_EACH)
            .map(|(&id, _)| id)
            .collect();
        for other in full {
            self.interrupt(other);
        }
    }

    /// A carrier can not be opened: the reply that says why, and whether it is of use to
    /// try again.
    pub fn open_failed(&mut self, now: u64, carrier: CarrierId, reply: &[u8], again: bool) {
        self.now = now;
        let Some(failed) = self.carriers.get_mut(&carrier) else {
            return;
        };
        let since = *failed.failing_since.get_or_insert(now);
        if failed.optional && failed.lines.is_empty() {
            self.carriers.remove(&carrier);
        } else if again && now - since < OUTAGE_MAX {
            failed.stage = Stage::Resting(now + REST);
            self.alarms.insert((now + REST, Alarm::Carrier(carrier)));
        } else {
            self.fail_carrier(carrier, reply);
        }
    }

    pub(super) fn fail_carrier(&mut self, carrier: CarrierId, reply: &[u8]) {
        let Some(failed) = self.carriers.remove(&carrier) else {
            return;
        };
        if failed.carries == Carries::Streams {
            return self.fail_readers(reply);
        }
        for line in failed.lines {
            self.tell_line(line, |_| Tell::Failed(reply.to_vec()));
            // A guard may still be on its way for it.
            self.lines[line].watch = Watch::Asking;
            self.settle(line);
        }
    }

    /// A carrier's connection is gone; `ran` if its command may have been executed.
    pub fn lost(&mut self, now: u64, carrier: CarrierId, ran: bool) {
        self.now = now;
        let Some(lost) = self.carriers.get_mut(&carrier) else {
            return;
        };
        lost.issue += 1;
        let stage = std::mem::replace(&mut lost.stage, Stage::Resting(now));
        let at_stake = match stage {
            Stage::Blocked { lines, .. } => lines.into_iter().map(|line| (line, 1)).collect(),
            Stage::Sweeping(parts) => parts,
            _ => Vec::new(),
        };
        for (line, copies) in at_stake {
            self.lines[line].at_stake -= copies;
            if ran {
                self.outcome_unknown(line, copies);
            }
            self.settle(line);
        }
        self.reopen(carrier);
    }

    pub(in crate::blocking) fn reopen(&mut self, carrier: CarrierId) {
        let wanted = self.is_wanted(carrier);
        let Some(closed) = self.carriers.get_mut(&carrier) else {
            return;
        };
        if wanted {
            closed.optional = false;
            closed.stage = Stage::Opening;
            self.acts.push(Act::Open {
                carrier,
                optional: false,
            });
        } else {
            self.carriers.remove(&carrier);
        }
    }

    pub(super) fn is_wanted(&self, carrier: CarrierId) -> bool {
        match self.carriers.get(&carrier) {
            Some(carrier) if carrier.carries == Carries::Streams => !self.reader.is_empty(),
            Some(carrier) => !carrier.lines.is_empty(),
            None => false,
        }
    }

    pub(super) fn carrier_alarm(&mut self, carrier: CarrierId) {
        let Some(rung) = self.carriers.get(&carrier) else {
            return;
        };
        match &rung.stage {
            Stage::Resting(at) if *at <= self.now => self.reopen(carrier),
            Stage::Ready(since) if *since + IDLE_MAX <= self.now && !self.is_wanted(carrier) => {
                self.carriers.remove(&carrier);
                self.acts.push(Act::Close(carrier));
            }
            Stage::Ready(_) => self.go_on(carrier),
            Stage::Blocked {
                wish: Interrupt::Wanted,
                ..
            } => self.interrupt(carrier),
            _ => {}
        }
    }

    /// Has a carrier that has nothing outstanding do what is to be done next.
    pub(in crate::blocking) fn go_on(&mut self, carrier: CarrierId) {
        let Some(ready) = self.carriers.get(&carrier) else {
            return;
        };
        if !matches!(ready.stage, Stage::Ready(_)) {
            return;
        }
        if ready.carries == Carries::Streams {
            return self.read_on(carrier);
        }
        self.share_out(carrier);
        let ready = self.carriers.get_mut(&carrier).expect("just seen");
        let lines: Vec<usize> = ready
            .lines
            .iter()
            .copied()
            // Who leaves waits for nothing any more but for what is on its way.
            .filter(|&line| self.lines[line].staying() > 0)
            .collect();
        let hot = lines.iter().copied().filter(|&line| self.lines[line].hot);
        let hot: Vec<usize> = hot.collect();
        if !hot.is_empty() {
            return self.sweep(carrier, &hot);
        }
        if lines.is_empty() {
            return self.rest(carrier);
        }
        let mut batch = Batch::default();
        let queue = &self.lines[lines[0]].queue;
        let timeout = if self.slices { SLICE } else { WAIT };
        if queue.can_unite() {
            let keys: Vec<&[u8]> = lines
                .iter()
                .map(|&line| self.lines[line].queue.keys[0].as_slice())
                .collect();
            queue.command(&keys, timeout, &mut batch);
        } else {
            queue.own_command(timeout, &mut batch);
        }
        for &line in &lines {
            let line = &mut self.lines[line];
            line.at_stake += 1;
            for id in line.unregistered.drain(..) {
                if self.waiters.contains_key(&id) {
                    self.acts.push(Act::Registered(id));
                }
            }
        }
        let ready = self.carriers.get_mut(&carrier).expect("just seen");
        ready.issue += 1;
        ready.stage = Stage::Blocked {
            lines,
            wish: Interrupt::No,
        };
        self.acts.push(Act::Send(carrier, batch));
    }

    /// Nothing to do: closes after a while.
    pub(in crate::blocking) fn rest(&mut self, carrier: CarrierId) {
        let ready = self.carriers.get_mut(&carrier).expect("it rests");
        ready.stage = Stage::Ready(self.now);
        let alarm = (self.now + IDLE_MAX, Alarm::Carrier(carrier));
        self.alarms.insert(alarm);
    }

    /// Gives lines to another carrier of the group that has far fewer.
    pub(super) fn share_out(&mut self, carrier: CarrierId) {
        let from = &self.carriers[&carrier];
        let other = self
            .carriers
            .iter()
            .filter(|(id, other)| **id != carrier && other.carries == from.carries)
            .filter(|(_, other)| matches!(other.stage, Stage::Ready(_) | Stage::Blocked { .. }))
            .min_by_key(|(_, other)| other.lines.len())
            .map(|(&id, other)| (id, other.lines.len()));
        let Some((other, fewer)) = other else { return };
        let mine = from.lines.len();
        if mine <= 2 * fewer + LINES_EACH / 2 {
            return;
        }
        for _ in 0..(mine - fewer) / 2 {
            let from = self.carriers.get_mut(&carrier).expect("seen above");
            let Some(line) = from.lines.pop_back() else {
                break;
            };
            self.lines[line].watch = Watch::On(other);
            let to = self.carriers.get_mut(&other).expect("seen above");
            to.lines.push_front(line);
        }
        self.interrupt(other);
        self.go_on(other);
    }

    pub(super) fn sweep(&mut self, carrier: CarrierId, lines: &[usize]) {
        let mut batch = Batch::default();
        let mut parts = Vec::new();
        batch.push(&["MULTI"]);
        for &id in lines.iter().take(SWEEP_MAX) {
            let line = &mut self.lines[id];
            let copies = line.staying().min(SWEEP_MAX);
            for _ in 0..copies {
                line.queue.own_command(AT_ONCE, &mut batch);
            }
            line.at_stake += copies;
            parts.push((id, copies));
        }
        batch.push(&["EXEC"]);
        let swept = self.carriers.get_mut(&carrier).expect("it sweeps");
        swept.stage = Stage::Sweeping(parts);
        self.acts.push(Act::Send(carrier, batch));
    }
}
