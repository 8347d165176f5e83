//! Who waits for what in one partition, and what follows from each event.

mod carriers;
mod lines;
mod questions;
mod replies;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use slab::Slab;

use super::act::{Act, Batch, CarrierId, Question, QuestionId, Tell, WaiterId};
use super::carrier::{Carrier, Interrupt, Stage};
use super::line::{Leaving, Line, Watch};
use super::reader::Reader;
use super::reply::{RepliesIn, is_error};
use super::wish::{Queue, Wish};
use crate::resp::Version;

/// The timeout of a carrier's command, if it can be interrupted: long, and not for ever, so
/// that whatever goes wrong heals.
const WAIT: &str = "10";

/// The same if it can not: so long a newcomer or somebody who leaves may have to wait.
const SLICE: &str = "0.1";

/// The timeout of a pop that must not block. In `MULTI` none does; should the user not be
/// allowed `MULTI`, it is over in a moment.
const AT_ONCE: &str = "0.001";

/// What a pop answers if there is nothing.
const NOTHING: &[u8] = b"*-1\r\n";

/// At most so many elements are taken for one line at once.
const SWEEP_MAX: usize = 64;

/// A queue that was served twice within this time is asked without waiting for as much as
/// its waiters can take. Microseconds.
const HOT: u64 = 5_000;

/// A second connection is opened for a group when the first has so many lines.
const LINES_EACH: usize = 32;

/// A carrier that has nothing to do is closed after this time. Microseconds.
const IDLE_MAX: u64 = 5_000_000;

/// Between two attempts to open a connection. Microseconds.
const REST: u64 = 100_000;

/// So long waiters stay when the node can not be reached. Microseconds.
const OUTAGE_MAX: u64 = 10_000_000;

/// A key that is no queue is asked again after this time. Microseconds.
const PARKED: u64 = 100_000;

/// A limit that a lobby keeps.
#[derive(Clone, Copy, Debug)]
pub struct LobbySettings {
    /// Connections that waiters on single keys may share, for each way of taking.
    pub carriers_max: usize,
}

/// A client that begins to wait.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// What for.
    pub wish: Wish,
    /// Its protocol.
    pub version: Version,
    /// Until when, in microseconds; `None` for ever.
    pub deadline: Option<u64>,
}

/// What a client waits in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Line(usize),
    Streams,
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub place: Place,
    pub version: Version,
    pub deadline: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    /// Whether there is something for a line; an error is for this waiter.
    Probe {
        line: usize,
        copies: usize,
        newcomer: Option<WaiterId>,
    },
    /// To end a carrier's wait; the guard takes for a line.
    Interrupt {
        carrier: CarrierId,
        issue: u64,
        guard: Option<usize>,
    },
    /// What is said to a command that is probably no good.
    Check(WaiterId, Checked),
    /// A client's own read.
    Read(WaiterId),
    /// Which of these streams can be read.
    Audit(Vec<Vec<u8>>),
}

/// What a command does if it is good after all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Checked {
    /// It takes something.
    Pop { has_scores: bool },
    /// It only reads: it can be put again elsewhere.
    Read,
}

impl Checked {
    fn of(name: &[u8]) -> Checked {
        match name.to_ascii_uppercase().as_slice() {
            b"XREAD" => Checked::Read,
            name => Checked::Pop {
                has_scores: name.starts_with(b"BZ"),
            },
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Alarm {
    Carrier(CarrierId),
    Line(usize),
    Streams,
}

/// The waiters of one partition. See the [module](super).
#[derive(Debug)]
pub struct Lobby {
    pub(super) now: u64,
    settings: LobbySettings,
    next_waiter: WaiterId,
    next_carrier: CarrierId,
    next_question: QuestionId,
    pub(super) waiters: HashMap<WaiterId, Waiter>,
    lines: Slab<Line>,
    index: HashMap<Queue, usize>,
    pub(super) carriers: BTreeMap<CarrierId, Carrier>,
    questions: HashMap<QuestionId, Asked>,
    pub(super) reader: Reader,
    deadlines: BTreeSet<(u64, WaiterId)>,
    alarms: BTreeSet<(u64, Alarm)>,
    pub(super) paused: bool,
    pub(super) slices: bool,
    pub(super) acts: Vec<Act>,
}

impl Lobby {
    /// Nobody waits.
    pub fn new(settings: LobbySettings) -> Lobby {
        Lobby {
            now: 0,
            settings,
            next_waiter: 1,
            next_carrier: 1,
            next_question: 1,
            waiters: HashMap::new(),
            lines: Slab::new(),
            index: HashMap::new(),
            carriers: BTreeMap::new(),
            questions: HashMap::new(),
            reader: Reader::default(),
            deadlines: BTreeSet::new(),
            alarms: BTreeSet::new(),
            paused: false,
            slices: false,
            acts: Vec::new(),
        }
    }

    /// What is to be done, in order.
    pub fn take_acts(&mut self) -> Vec<Act> {
        std::mem::take(&mut self.acts)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether nobody waits and nothing is kept for those to come.
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty() && self.carriers.is_empty() && self.questions.is_empty()
    }

    /// Whether somebody waits for this queue: who comes later has to stand behind.
    pub fn has_line(&self, queue: &Queue) -> bool {
        self.index
            .get(queue)
            .is_some_and(|&line| !self.lines[line].waiters.is_empty())
    }

    /// When the clock has to be told next.
    pub fn next_alarm(&self) -> Option<u64> {
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        let alarm = self.alarms.first().map(|(at, _)| *at);
        deadline.into_iter().chain(alarm).min()
    }

    /// Time passes.
    pub fn clock(&mut self, now: u64) {
        self.now = now;
        while let Some(&(at, waiter)) = self.deadlines.first()
            && at <= now
        {
            self.deadlines.pop_first();
            self.wants_to_leave(waiter, Leaving::TimedOut);
        }
        while let Some(&(at, alarm)) = self.alarms.first()
            && at <= now
        {
            self.alarms.pop_first();
            match alarm {
                Alarm::Carrier(carrier) => self.carrier_alarm(carrier),
                Alarm::Line(line) => self.line_alarm(line),
                Alarm::Streams => self.streams_alarm(),
            }
        }
    }

    /// A client begins to wait.
    pub fn arrive(&mut self, now: u64, arrival: Arrival) -> WaiterId {
        self.now = now;
        let id = self.next_waiter;
        self.next_waiter += 1;
        if let Some(deadline) = arrival.deadline {
            self.deadlines.insert((deadline, id));
        }
        let (version, deadline) = (arrival.version, arrival.deadline);
        let waiter = |place| Waiter {
            place,
            version,
            deadline,
        };
        match arrival.wish {
            Wish::Pop(queue) => {
                let line = match self.index.get(&queue) {
                    Some(&line) => line,
                    None => {
                        let line = self.lines.insert(Line::new(queue.clone()));
                        self.index.insert(queue, line);
                        line
                    }
                };
                self.waiters.insert(id, waiter(Place::Line(line)));
                self.stand_in(line, id);
            }
            Wish::Check(command) => {
                self.waiters.insert(id, waiter(Place::Streams));
                let mut batch = Batch::default();
                batch.push(&["MULTI"]);
                batch.push(&command);
                batch.push(&["EXEC"]);
                self.ask(
                    Asked::Check(id, Checked::of(&command[0])),
                    Question::Try(batch),
                );
            }
            Wish::Read(wish) => {
                self.waiters.insert(id, waiter(Place::Streams));
                self.read_first(id, wish);
            }
        }
        id
    }

    fn stand_in(&mut self, line_id: usize, waiter: WaiterId) {
        let line = &mut self.lines[line_id];
        line.waiters.insert(waiter);
        match line.watch {
            Watch::Asking => {
                line.unregistered.push(waiter);
                line.unproven.insert(waiter);
                if !line.probing {
                    self.probe(line_id);
                }
            }
            Watch::Parked(_) => {
                line.unregistered.push(waiter);
                line.unproven.insert(waiter);
                self.probe(line_id);
            }
            Watch::On(carrier) => {
                let covered = match &self.carriers[&carrier].stage {
                    Stage::Blocked { lines, .. } => line.at_stake > 0 && lines.contains(&line_id),
                    _ => false,
                };
                if covered {
                    self.acts.push(Act::Registered(waiter));
                } else {
                    line.unregistered.push(waiter);
                    self.interrupt(carrier);
                    self.go_on(carrier);
                }
            }
        }
    }

    /// The waiter's client has gone.
    pub fn leave(&mut self, now: u64, waiter: WaiterId) {
        self.now = now;
        let Some(gone) = self.forget(waiter) else {
            return;
        };
        match gone.place {
            Place::Streams => self.reader_left(),
            Place::Line(line) => self.settle(line),
        }
    }

    /// `CLIENT UNBLOCK`. The answer is an act.
    pub fn unblock(&mut self, now: u64, waiter: WaiterId, error: bool, token: u64) {
        self.now = now;
        self.wants_to_leave(waiter, Leaving::Unblocked { error, token });
    }

    fn wants_to_leave(&mut self, id: WaiterId, why: Leaving) {
        let refused = |acts: &mut Vec<Act>| {
            if let Leaving::Unblocked { token, .. } = why {
                acts.push(Act::UnblockAnswer { token, done: false });
            }
        };
        let Some(waiter) = self.waiters.get(&id) else {
            return refused(&mut self.acts);
        };
        match waiter.place {
            Place::Line(line) => {
                if self.lines[line].leaving.contains_key(&id) {
                    return refused(&mut self.acts);
                }
                self.lines[line].leaving.insert(id, why);
                self.settle(line);
            }
            Place::Streams => {
                self.forget(id);
                self.leave_with(id, why);
                self.reader_left();
            }
        }
    }

    fn leave_with(&mut self, id: WaiterId, why: Leaving) {
        let tell = match why {
            Leaving::Unblocked { error: true, .. } => Tell::Unblocked,
            _ => Tell::Null,
        };
        if let Leaving::Unblocked { token, .. } = why {
            self.acts.push(Act::UnblockAnswer { token, done: true });
        }
        self.acts.push(Act::Tell(id, tell));
    }

    /// Takes a waiter out of all books, and answers who wanted to unblock it: it is not
    /// blocked any more.
    pub(super) fn forget(&mut self, id: WaiterId) -> Option<Waiter> {
        let waiter = self.waiters.remove(&id)?;
        if let Some(deadline) = waiter.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        match waiter.place {
            Place::Line(line) => {
                if let Some(Leaving::Unblocked { token, .. }) = self.lines[line].forget(id) {
                    self.acts.push(Act::UnblockAnswer { token, done: false });
                }
            }
            Place::Streams => self.reader.forget(id),
        }
        Some(waiter)
    }

    /// Ends a waiter's wait.
    pub(super) fn tell(&mut self, id: WaiterId, tell: Tell) {
        if self.forget(id).is_some() {
            self.acts.push(Act::Tell(id, tell));
        }
    }

    pub(super) fn ask(&mut self, asked: Asked, question: Question) {
        let id = self.next_question;
        self.next_question += 1;
        self.questions.insert(id, asked);
        self.acts.push(Act::Ask(id, question));
    }

    // Interrupting a carrier's wait.

    /// Has the carrier's wait ended, so that it can be put anew.
    pub(super) fn interrupt(&mut self, carrier: CarrierId) {
        let Some(blocked) = self.carriers.get_mut(&carrier) else {
            return;
        };
        let Stage::Blocked { lines, wish } = &mut blocked.stage else {
            return;
        };
        if *wish == Interrupt::Asked || self.slices {
            return;
        }
        if self.paused {
            *wish = Interrupt::Wanted;
            return;
        }
        *wish = Interrupt::Asked;
        let issue = blocked.issue;
        let guard = lines
            .iter()
            .copied()
            .find(|&line| self.lines[line].staying() > 0)
            .or(lines.first().copied());
        let mut batch = Batch::default();
        if let Some(line) = guard {
            let line = &mut self.lines[line];
            line.at_stake += 1;
            batch.push(&["MULTI"]);
            line.queue.own_command(AT_ONCE, &mut batch);
        }
        let asked = Asked::Interrupt {
            carrier,
            issue,
            guard,
        };
        self.ask(asked, Question::Interrupt(carrier, batch));
    }

    /// It was not found blocked: its reply is on its way, or its command was overtaken by
    /// the question. Tried again soon, unless the reply comes first.
    pub(super) fn interrupt_missed(&mut self, carrier: CarrierId, issue: u64) {
        let Some(missed) = self.carriers.get_mut(&carrier) else {
            return;
        };
        if missed.issue != issue {
            return;
        }
        if let Stage::Blocked { wish, .. } = &mut missed.stage {
            *wish = Interrupt::Wanted;
            let pause = 1000 << missed.missed.min(6);
            missed.missed += 1;
            self.alarms
                .insert((self.now + pause, Alarm::Carrier(carrier)));
        }
    }

    /// A pause begins or ends. While one is known nothing is interrupted.
    pub fn set_paused(&mut self, now: u64, paused: bool) {
        self.now = now;
        self.paused = paused;
        if paused {
            return;
        }
        let wanted: Vec<CarrierId> = self.carriers.keys().copied().collect();
        for carrier in wanted {
            if let Some(Carrier {
                stage:
                    Stage::Blocked {
                        wish: Interrupt::Wanted,
                        ..
                    },
                ..
            }) = self.carriers.get(&carrier)
            {
                self.interrupt(carrier);
            }
        }
    }

    /// The node does not let this user unblock connections, or does: whether waits are put
    /// in slices.
    pub fn set_slices(&mut self, slices: bool) {
        self.slices = slices;
    }

    /// A carrier is closed and opened again later.
    pub(super) fn rest_until(&mut self, carrier: CarrierId, at: u64) {
        if let Some(resting) = self.carriers.get_mut(&carrier) {
            resting.stage = Stage::Resting(at);
            self.alarms.insert((at, Alarm::Carrier(carrier)));
        }
    }

    pub(super) fn wake_streams_at(&mut self, at: u64) {
        self.alarms.insert((at, Alarm::Streams));
    }

    /// Checks what always holds. For tests.
    #[cfg(test)]
    pub fn check(&self) {
        for (id, line) in &self.lines {
            assert_eq!(self.index.get(&line.queue), Some(&id));
            let of_carriers: usize = self
                .carriers
                .values()
                .map(|carrier| match &carrier.stage {
                    Stage::Blocked { lines, .. } => lines.iter().filter(|&&it| it == id).count(),
                    Stage::Sweeping(parts) => parts
                        .iter()
                        .filter(|(it, _)| *it == id)
                        .map(|it| it.1)
                        .sum(),
                    _ => 0,
                })
                .sum();
            let of_questions: usize = self
                .questions
                .values()
                .map(|asked| match asked {
                    Asked::Probe { line, copies, .. } if *line == id => *copies,
                    Asked::Interrupt {
                        guard: Some(line), ..
                    } if *line == id => 1,
                    _ => 0,
                })
                .sum();
            assert_eq!(line.at_stake, of_carriers + of_questions, "{line:?}");
            assert!(
                !line.waiters.is_empty() || line.at_stake > 0,
                "an empty line is kept: {line:?}"
            );
            for waiter in &line.waiters {
                assert_eq!(self.waiters[waiter].place, Place::Line(id));
            }
            if let Watch::On(carrier) = line.watch {
                assert!(self.carriers[&carrier].lines.contains(&id));
            }
        }
        for carrier in self.carriers.values() {
            for line in &carrier.lines {
                assert!(self.lines.contains(*line));
            }
        }
    }
}

/// What became of each pop between `MULTI` and `EXEC`. Where the user may not use `MULTI`,
/// they ran one by one.
fn results(frames: &[Vec<u8>]) -> Box<dyn Iterator<Item = &[u8]> + '_> {
    let [multi, pops @ .., exec] = frames else {
        return Box::new(std::iter::empty());
    };
    if is_error(multi) {
        return Box::new(pops.iter().map(Vec::as_slice));
    }
    if pops.iter().any(|pop| is_error(pop)) {
        // Nothing ran. The others are as good as empty.
        let said = |pop| if is_error(pop) { pop } else { NOTHING };
        return Box::new(pops.iter().map(move |pop| said(pop.as_slice())));
    }
    match RepliesIn::array(exec) {
        Some(replies) => Box::new(replies),
        None => Box::new(pops.iter().map(|_| exec.as_slice())),
    }
}

/// Whether an error is about the node at this moment and not about the command.
pub(super) fn is_passing(error: &[u8]) -> bool {
    [
        b"-UNBLOCKED".as_slice(),
        b"-LOADING",
        b"-READONLY",
        b"-MASTERDOWN",
        b"-CLUSTERDOWN",
        b"-BUSY ",
        b"-TRYAGAIN",
        b"-NOREPLICAS",
        b"-MISCONF",
    ]
    .iter()
    .any(|prefix| error.starts_with(prefix))
}
