//! How many commands and bytes a second clients may ask for, by rule.
//!
//! A command is looked at before it is taken: it goes ahead if there is something left of
//! every rate about its client. It is paid for when it does, its reply when it comes; that
//! may leave a debt, which is paid before the next command. So a rate is held exactly over
//! time, and one large reply is not refused halfway. What is left is kept for each worker
//! and account (`admission::Purse`): a command costs an index and a subtraction.

use std::borrow::Cow;
use std::sync::Arc;

use hashbrown::HashMap;
use slab::Slab;

use super::client::{Flags, Session};
use super::dispatch::{Row, silent_or};
use super::failure::{Busy, Failure};
use super::input::{Request, Step};
use super::worker::State;
use crate::admission::{Group, Metered, Purse};
use crate::backend::{Entry, Marks, Ticket};
use crate::command::{Class, Sub};

/// What this worker's clients of one account have left.
#[derive(Debug)]
struct Meter {
    group: Arc<Group>,
    purses: [Purse; Metered::ALL.len()],
    clients: u32,
    /// Since when it has none, in microseconds.
    empty_since: u64,
}

/// An account's purses are kept for so long after its last client, in microseconds: many come
/// for one command each.
const KEPT: u64 = 1_000_000;

/// The accounts of this worker's clients that a rate is about, and the rates that have
/// refused something.
#[derive(Debug, Default)]
pub struct Meters {
    all: Slab<Meter>,
    index: HashMap<usize, u32>,
    refused_by: Vec<RefusedBy>,
    /// Accounts without a client.
    empty: Vec<u32>,
}

/// A rate that has refused something, by its rule's number.
#[derive(Debug)]
struct RefusedBy {
    rule: Box<str>,
    route: u16,
    of: Metered,
}

/// A rate that leaves nothing for a client's next command.
#[derive(Clone, Copy, Debug)]
pub struct OverRate {
    meter: u32,
    of: Metered,
}

impl Meters {
    /// One more client of this account.
    fn enter(&mut self, group: &Arc<Group>) -> u32 {
        let name = Arc::as_ptr(group) as usize;
        let index = *self.index.entry(name).or_insert_with(|| {
            self.all.insert(Meter {
                group: group.clone(),
                purses: Default::default(),
                clients: 0,
                empty_since: 0,
            }) as u32
        });
        self.all[index as usize].clients += 1;
        index
    }

    /// One client of each of these less.
    pub fn leave(&mut self, meters: &[u32], now: u64) {
        for &index in meters {
            let meter = &mut self.all[index as usize];
            meter.clients -= 1;
            if meter.clients == 0 {
                meter.empty_since = now;
                self.empty.push(index);
            }
        }
    }

    /// Closes the purses of accounts that have had no client for a while. To be called a few
    /// times a second.
    pub fn tidy(&mut self, now: u64) {
        if self.empty.is_empty() {
            return;
        }
        let (all, names) = (&mut self.all, &mut self.index);
        self.empty.sort_unstable();
        self.empty.dedup();
        self.empty.retain(|&index| {
            let Some(meter) = all.get(index as usize).filter(|meter| meter.clients == 0) else {
                return false;
            };
            if now.saturating_sub(meter.empty_since) < KEPT {
                return true;
            }
            let meter = all.remove(index as usize);
            names.remove(&(Arc::as_ptr(&meter.group) as usize));
            for of in Metered::ALL {
                let purse = meter.purses[of as usize];
                purse.close(meter.group.allowance(of), meter.group.rule.rate(of), now);
            }
            false
        });
    }

    /// What of a client's rates is used up, if any is.
    #[inline]
    fn over(&mut self, session: &Session, now: u64) -> Option<OverRate> {
        for &index in session.meters() {
            let meter = &mut self.all[index as usize];
            for of in Metered::ALL {
                let rule = &meter.group.rule;
                let purse = &mut meter.purses[of as usize];
                let allowance = meter.group.allowance(of);
                let (is_there, taken) = purse.has_some(allowance, || rule.rate(of), now);
                if taken > 0 {
                    rule.count_used(of, taken);
                }
                if !is_there {
                    return Some(OverRate { meter: index, of });
                }
            }
        }
        None
    }

    /// A client's commands, or bytes of them or of its replies, are paid for.
    #[inline]
    pub fn spend(&mut self, session: &Session, commands: u64, bytes: usize) {
        for &index in session.meters() {
            let purses = &mut self.all[index as usize].purses;
            purses[Metered::Commands as usize].spend(commands);
            purses[Metered::Bytes as usize].spend(bytes as u64);
        }
    }

    /// The number under which a rate's refusal waits for its turn.
    fn number(&mut self, over: OverRate) -> u16 {
        let rule = &self.all[over.meter as usize].group.rule;
        let is_it = |known: &RefusedBy| {
            known.of == over.of && known.route == rule.route && known.rule == rule.name
        };
        let index = self.refused_by.iter().position(is_it).unwrap_or_else(|| {
            self.refused_by.push(RefusedBy {
                rule: rule.name.clone(),
                route: rule.route,
                of: over.of,
            });
            self.refused_by.len() - 1
        });
        index as u16
    }

    /// Why a command is refused, by the number of the rate.
    pub fn failure(&self, number: u16) -> Failure {
        let refused_by = &self.refused_by[usize::from(number)];
        Failure::Rate {
            of: refused_by.of,
            rule: refused_by.rule.clone(),
        }
    }

    /// What a refused command is answered in its turn.
    pub fn refusal(&self, entry: &Entry) -> Cow<'static, [u8]> {
        match Busy::of(entry.command) {
            Busy::Rate(number) if entry.marks.any(Marks::EXEC) => {
                self.failure(number).exec_abort().into()
            }
            Busy::Rate(number) => self.failure(number).reply().into(),
            busy => busy.reply(entry.marks).into(),
        }
    }
}

impl Session {
    /// The accounts of rates that are about it.
    #[inline]
    fn meters(&self) -> &[u32] {
        self.extra.as_deref().map_or(&[], |extra| &extra.meters)
    }
}

impl State {
    /// From now on the rates of these accounts are about a client.
    pub(super) fn meter_by(&mut self, ticket: Ticket, groups: &[Arc<Group>]) {
        let meters: Box<[u32]> = groups.iter().map(|it| self.meters.enter(it)).collect();
        let session = &mut self.sessions[ticket.slot as usize];
        match meters.is_empty() {
            true => session.flags.clear(Flags::METERED.with(Flags::PAID)),
            false => session.flags.set(Flags::METERED),
        }
        if session.extra.is_none() && meters.is_empty() {
            return;
        }
        let before = std::mem::replace(&mut session.extra().meters, meters);
        self.meters.leave(&before, self.clock.now());
    }

    /// A plain command of a client that a rate is about and nothing else.
    pub(super) fn forward_metered(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        row: Row,
    ) -> Step {
        if let Some(over) = self.over_rate(ticket) {
            self.traced.command = row.id;
            return self.refuse_over_rate(ticket, over, row.marks());
        }
        self.pay(ticket, 1, request.frame.len());
        let step = self.forward(ticket, request.frame, row.id, row.marks());
        self.settle_payment(ticket, step);
        step
    }

    /// Any other command of such a client. `None` if it goes ahead.
    pub(super) fn meter(
        &mut self,
        ticket: Ticket,
        request: &Request<'_>,
        following: &[u8],
        (row, class): (Row, Class),
        silent: bool,
    ) -> Option<Step> {
        let flags = self.sessions[ticket.slot as usize].flags;
        let in_transaction = self.in_transaction(ticket);
        // What ends something is always done, and what Weir answers costs nothing. What comes
        // behind a command that was refused is refused with it.
        let is_free = match class {
            Class::Local(_) | Class::Exec | Class::Discard | Class::Unwatch => true,
            Class::Subscription(kind) => matches!(
                kind,
                Sub::Unsubscribe | Sub::PUnsubscribe | Sub::SUnsubscribe
            ),
            Class::Multi => in_transaction,
            Class::Plain | Class::Publish => flags.any(Flags::REFUSING) && !in_transaction,
            _ => false,
        };
        if is_free || flags.any(Flags::PAID) {
            return None;
        }
        let marks = silent_or(silent, row.marks());
        if class == Class::Multi {
            let Some(block) = self.complete_block(ticket, request, following, row) else {
                // Were it refused, what comes behind it would run by itself. That is looked
                // at command by command.
                self.pay(ticket, 1, request.frame.len());
                return None;
            };
            if let Some(over) = self.over_rate(ticket) {
                let failure = self.meters.failure_of(over);
                let step = self.refuse_block(ticket, &failure, &block, silent);
                if step != Step::Wait {
                    self.count_over_rate(over, block.len());
                }
                return Some(step);
            }
            // If it does not go in one piece, only `MULTI` goes now; the others come by here.
            let now = match self.goes_in_one_piece(ticket) {
                true => &block[..],
                false => &block[..1],
            };
            let bytes = now.iter().map(|(len, _)| *len as usize).sum();
            self.pay(ticket, now.len() as u64, bytes);
            return None;
        }
        let Some(over) = self.over_rate(ticket) else {
            self.pay(ticket, 1, request.frame.len());
            return None;
        };
        if !in_transaction {
            return Some(self.refuse_over_rate(ticket, over, marks));
        }
        // As Redis does with what it can not queue: the block's EXEC will fail.
        let failure = self.meters.failure_of(over);
        let step = self.deny(ticket, row.id, class, &failure, silent);
        if step != Step::Wait {
            self.count_over_rate(over, 1);
        }
        Some(step)
    }

    /// The rate that leaves nothing for a client's next command, unless that was paid for.
    pub(super) fn over_rate(&mut self, ticket: Ticket) -> Option<OverRate> {
        let now = self.clock.now();
        let session = &self.sessions[ticket.slot as usize];
        if !session.flags.any(Flags::METERED) || session.flags.any(Flags::PAID) {
            return None;
        }
        self.meters.over(session, now)
    }

    fn pay(&mut self, ticket: Ticket, commands: u64, bytes: usize) {
        let session = &mut self.sessions[ticket.slot as usize];
        if session.flags.any(Flags::METERED) && !session.flags.any(Flags::PAID) {
            session.flags.set(Flags::PAID);
            self.meters.spend(session, commands, bytes);
        }
    }

    /// A command that has to wait stays paid for.
    #[inline]
    pub(super) fn settle_payment(&mut self, ticket: Ticket, step: Step) {
        if step != Step::Wait
            && let Some(session) = self.session(ticket)
        {
            session.flags.clear(Flags::PAID);
        }
    }

    /// A command is paid for whose bytes are still coming.
    pub(super) fn pay_command(&mut self, ticket: Ticket) {
        self.pay(ticket, 1, 0);
        self.settle_payment(ticket, Step::Taken);
    }

    /// Bytes of a client go by that were not looked at before.
    pub(super) fn pay_bytes(&mut self, ticket: Ticket, bytes: usize) {
        let session = &self.sessions[ticket.slot as usize];
        if session.flags.any(Flags::METERED) {
            self.meters.spend(session, 0, bytes);
        }
    }

    /// Refuses a command in its turn, and with it what was sent behind it.
    pub(super) fn refuse_over_rate(
        &mut self,
        ticket: Ticket,
        over: OverRate,
        marks: Marks,
    ) -> Step {
        let busy = Busy::Rate(self.meters.number(over));
        let step = self.refuse_busy(ticket, busy, marks);
        if step != Step::Wait {
            self.count_over_rate(over, 1);
        }
        step
    }

    fn count_over_rate(&self, over: OverRate, commands: usize) {
        let now = self.clock.now();
        let group = &self.meters.all[over.meter as usize].group;
        for _ in 0..commands {
            self.proxy.limits.count_over_rate(group, over.of, now);
        }
    }

    /// Why a command is refused that has its number in an entry.
    pub(super) fn failure_of(&self, busy: Busy) -> Failure {
        match busy {
            Busy::Rate(number) => self.meters.failure(number),
            busy => Failure::Busy(busy),
        }
    }

    /// The bytes for a command that was refused and whose turn has come.
    pub(super) fn settle_refused(&mut self, entry: &Entry) {
        let miss = self.session(entry.to).and_then(|it| it.take_miss(entry));
        let reply = miss.map_or_else(|| self.meters.refusal(entry), Cow::from);
        if let Some(session) = self.session(entry.to)
            && entry.marks.any(Marks::WHOLE)
        {
            session.forget_correction();
        }
        // What command it was is not known any more.
        let marks = entry.marks.without(Marks::WHOLE);
        self.settle_entry(&Entry { marks, ..*entry }, &reply);
    }
}

impl Meters {
    fn failure_of(&mut self, over: OverRate) -> Failure {
        let number = self.number(over);
        self.failure(number)
    }
}
