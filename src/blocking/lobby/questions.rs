//! Questions to the node besides the waiting: whether a command is good, whether a queue has
//! something, and what the answers change.

use super::{AT_ONCE, Alarm, Asked, Checked, Lobby, SWEEP_MAX, is_passing, results};
use crate::blocking::act::{Batch, Question, QuestionId, Tell, WaiterId};
use crate::blocking::line::Watch;
use crate::blocking::reply::{in_version, is_error, is_null};

impl Lobby {
    /// Asks whether there is something for the line's waiters.
    pub(super) fn probe(&mut self, line_id: usize) {
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
    pub(super) fn checked(&mut self, id: WaiterId, checked: Checked, frames: &[Vec<u8>]) {
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

    pub(super) fn probed(
        &mut self,
        line_id: usize,
        newcomer: Option<WaiterId>,
        frames: &[Vec<u8>],
    ) {
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
}
