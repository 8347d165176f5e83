//! Who waits for what in one partition, and what follows from each event.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use slab::Slab;

use super::act::{Act, Batch, CarrierId, Popped, Question, QuestionId, Tell, WaiterId};
use super::carrier::{Carrier, Carries, Interrupt, Stage};
use super::line::{Leaving, Line, Watch};
use super::reader::Reader;
use super::reply::{RepliesIn, bulk, in_version, is_error, is_null};
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

    /// Lets go whoever may leave the line, sees to it that the others soon can, and ends a
    /// line that nobody stands in.
    fn settle(&mut self, line_id: usize) {
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

    fn end_line(&mut self, line_id: usize) {
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
    fn give(&mut self, line_id: usize, frame: &[u8]) {
        let line = &mut self.lines[line_id];
        line.served_at = self.now;
        let Some(&id) = line.waiters.first() else {
            return self.acts.push(Act::Orphan);
        };
        let queue = line.queue.clone();
        self.hand(id, &queue, frame);
    }

    fn hand(&mut self, id: WaiterId, queue: &Queue, frame: &[u8]) {
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

    // Questions.

    pub(super) fn ask(&mut self, asked: Asked, question: Question) {
        let id = self.next_question;
        self.next_question += 1;
        self.questions.insert(id, asked);
        self.acts.push(Act::Ask(id, question));
    }

    /// Asks whether there is something for the line's waiters.
    fn probe(&mut self, line_id: usize) {
        let line = &mut self.lines[line_id];
        if let Watch::Parked(at) = line.watch {
            self.alarms.remove(&(at, Alarm::Line(line_id)));
        }
        line.watch = Watch::Asking;
        line.probing = true;
        let newcomer = line.unproven.first().copied();
        let copies = match newcomer {
            // Its error must be its own.
            Some(_) if line.unproven.len() == line.waiters.len() && line.served_at == 0 => 1,
            _ => line.waiters.len().clamp(1, SWEEP_MAX),
        };
        line.at_stake += copies;
        let mut batch = Batch::default();
        batch.push(&["MULTI"]);
        for _ in 0..copies {
            line.queue.own_command(AT_ONCE, &mut batch);
        }
        batch.push(&["EXEC"]);
        let asked = Asked::Probe {
            line: line_id,
            copies,
            newcomer,
        };
        self.ask(asked, Question::Try(batch));
    }

    /// The replies to a question.
    pub fn answered(&mut self, now: u64, question: QuestionId, frames: &[Vec<u8>]) {
        self.now = now;
        match self.questions.remove(&question) {
            Some(Asked::Probe {
                line,
                copies,
                newcomer,
            }) => {
                self.lines[line].at_stake -= copies;
                self.lines[line].probing = false;
                self.probed(line, newcomer, frames);
            }
            Some(Asked::Interrupt {
                carrier,
                issue,
                guard,
            }) => self.interrupted(carrier, issue, guard, frames),
            Some(Asked::Check(waiter, checked)) => self.checked(waiter, checked, frames),
            Some(Asked::Read(waiter)) => self.read_answered(waiter, frames),
            Some(Asked::Audit(streams)) => self.audited(&streams, frames),
            None => {}
        }
    }

    /// A command that was probably no good, and perhaps was.
    fn checked(&mut self, id: WaiterId, checked: Checked, frames: &[Vec<u8>]) {
        let Some(waiter) = self.waiters.get(&id) else {
            return;
        };
        let result = results(frames).next();
        let bytes = match (result, checked) {
            (Some(error), _) if is_error(error) => error.to_vec(),
            (Some(popped), Checked::Pop { has_scores }) if !is_null(popped) => {
                in_version(popped, waiter.version, has_scores)
            }
            _ => return self.tell(id, Tell::Alone),
        };
        self.tell(
            id,
            Tell::Reply {
                bytes,
                popped: None,
            },
        );
    }

    fn probed(&mut self, line_id: usize, newcomer: Option<WaiterId>, frames: &[Vec<u8>]) {
        let mut nothing = false;
        let mut error = None;
        for result in results(frames) {
            if is_null(result) {
                nothing = true;
            } else if is_error(result) {
                error = Some(result.to_vec());
            } else {
                self.give(line_id, result);
            }
        }
        if let Some(error) = error {
            let newcomer = newcomer.filter(|id| self.waiters.contains_key(id));
            match newcomer {
                Some(id) => self.tell(
                    id,
                    Tell::Reply {
                        bytes: error,
                        popped: None,
                    },
                ),
                None if error.starts_with(b"-WRONGTYPE") || is_passing(&error) => {
                    if self.lines[line_id].unproven.is_empty() {
                        self.park(line_id);
                        return self.settle(line_id);
                    }
                }
                None => self.tell_line(line_id, |_| Tell::Reply {
                    bytes: error.clone(),
                    popped: None,
                }),
            }
        } else if nothing {
            self.lines[line_id].unproven.clear();
        }
        self.settle(line_id);
        let Some(line) = self.lines.get(line_id) else {
            return;
        };
        if line.waiters.is_empty() {
            return;
        }
        if nothing {
            self.attach(line_id);
        } else {
            self.probe(line_id);
        }
    }

    fn park(&mut self, line_id: usize) {
        let at = self.now + PARKED;
        self.lines[line_id].watch = Watch::Parked(at);
        self.alarms.insert((at, Alarm::Line(line_id)));
        for id in std::mem::take(&mut self.lines[line_id].unregistered) {
            self.acts.push(Act::Registered(id));
        }
    }

    fn line_alarm(&mut self, line_id: usize) {
        if self
            .lines
            .get(line_id)
            .is_some_and(|line| matches!(line.watch, Watch::Parked(_)))
        {
            self.probe(line_id);
        }
    }

    fn tell_line(&mut self, line_id: usize, tell: impl Fn(WaiterId) -> Tell) {
        for id in std::mem::take(&mut self.lines[line_id].waiters) {
            self.tell(id, tell(id));
        }
    }

    /// A question was lost with its connection; `ran` if it may have been executed.
    pub fn question_lost(&mut self, now: u64, question: QuestionId, ran: bool) {
        self.now = now;
        match self.questions.remove(&question) {
            Some(Asked::Probe { line, copies, .. }) => {
                self.lines[line].at_stake -= copies;
                self.lines[line].probing = false;
                if ran {
                    self.outcome_unknown(line, copies);
                }
                self.settle(line);
                if self
                    .lines
                    .get(line)
                    .is_some_and(|line| !line.waiters.is_empty())
                {
                    self.probe(line);
                }
            }
            Some(Asked::Interrupt {
                carrier,
                issue,
                guard,
            }) => {
                if let Some(line) = guard {
                    self.lines[line].at_stake -= 1;
                    if ran {
                        self.outcome_unknown(line, 1);
                    }
                    self.settle(line);
                }
                self.interrupt_missed(carrier, issue);
            }
            Some(Asked::Check(waiter, _)) => self.tell(
                waiter,
                match ran {
                    true => Tell::Unknown,
                    false => Tell::Alone,
                },
            ),
            Some(Asked::Read(waiter)) => self.read_again(waiter),
            Some(Asked::Audit(streams)) => self.audit_lost(&streams),
            None => {}
        }
    }

    /// A question can not be put; the reply that says why. Nothing ran.
    pub fn question_failed(&mut self, now: u64, question: QuestionId, reply: &[u8]) {
        self.now = now;
        let failed = || Tell::Failed(reply.to_vec());
        match self.questions.remove(&question) {
            Some(Asked::Probe { line, copies, .. }) => {
                self.lines[line].at_stake -= copies;
                self.lines[line].probing = false;
                self.tell_line(line, |_| failed());
                self.settle(line);
            }
            Some(Asked::Interrupt {
                carrier,
                issue,
                guard,
            }) => {
                if let Some(line) = guard {
                    self.lines[line].at_stake -= 1;
                    self.settle(line);
                }
                self.interrupt_missed(carrier, issue);
            }
            Some(Asked::Check(waiter, _) | Asked::Read(waiter)) => self.tell(waiter, failed()),
            Some(Asked::Audit(streams)) => self.audit_lost(&streams),
            None => {}
        }
    }

    /// An element may have been on its way to the first of the line, and is lost.
    fn outcome_unknown(&mut self, line_id: usize, copies: usize) {
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

    // Carriers.

    /// Puts a line on a connection that waits for it.
    fn attach(&mut self, line_id: usize) {
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
    pub(super) fn open(&mut self, carries: Carries, optional: bool) -> CarrierId {
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
    fn make_use_of(&mut self, carrier: CarrierId) {
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

    fn fail_carrier(&mut self, carrier: CarrierId, reply: &[u8]) {
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

    pub(super) fn reopen(&mut self, carrier: CarrierId) {
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

    fn is_wanted(&self, carrier: CarrierId) -> bool {
        match self.carriers.get(&carrier) {
            Some(carrier) if carrier.carries == Carries::Streams => !self.reader.is_empty(),
            Some(carrier) => !carrier.lines.is_empty(),
            None => false,
        }
    }

    fn carrier_alarm(&mut self, carrier: CarrierId) {
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
    pub(super) fn go_on(&mut self, carrier: CarrierId) {
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
    pub(super) fn rest(&mut self, carrier: CarrierId) {
        let ready = self.carriers.get_mut(&carrier).expect("it rests");
        ready.stage = Stage::Ready(self.now);
        let alarm = (self.now + IDLE_MAX, Alarm::Carrier(carrier));
        self.alarms.insert(alarm);
    }

    /// Gives lines to another carrier of the group that has far fewer.
    fn share_out(&mut self, carrier: CarrierId) {
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

    fn sweep(&mut self, carrier: CarrierId, lines: &[usize]) {
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

    fn block_replied(&mut self, carrier: CarrierId, lines: &[usize], frame: &[u8]) {
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
    fn line_of(&self, lines: &[usize], frame: &[u8]) -> Option<usize> {
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
    fn block_refused(&mut self, carrier: CarrierId, lines: &[usize], error: &[u8]) {
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

    fn swept(&mut self, carrier: CarrierId, parts: &[(usize, usize)], frames: &[Vec<u8>]) {
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

    fn interrupted(
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
