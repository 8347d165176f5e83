//! The gate in front of one node, as one worker sees it: what may be sent at once, what has
//! to wait, and what is refused.
//!
//! Commands are of two classes. Quick ones are all that the node does in a moment; slow ones
//! have a small concurrency of their own, so that quick ones need not queue behind them. Each
//! class has its own line and is judged by itself. A line is judged by how long it takes and
//! never by how many stand in it: thousands of clients of a fast node wait for each other for
//! a moment, and that is no overload. Nor are clients that send batches and wait for all of it.
//!
//! Pure: who waits is kept by the caller, who also says what time it is, in microseconds.

use super::batches::Batches;
use super::delay::DelayJudge;
use super::drain::Drain;
use super::in_flight::{Bounds, InFlightLimit};

/// Which of a node's lines a command belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// All that is done in a moment.
    Quick = 0,
    /// What takes the node so long that others would notice.
    Slow = 1,
}

impl Work {
    /// Both, quick ones first.
    pub const ALL: [Work; 2] = [Work::Quick, Work::Slow];
}

/// Who is served first, and refused last, when a node has too much to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Priority {
    /// Refused first.
    Low = 0,
    /// Everybody of whom nothing else is said.
    #[default]
    Normal = 1,
    /// Served first.
    High = 2,
}

impl Priority {
    /// The one to be served first, first.
    pub const ALL: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];
}

/// The settings of a gate. Times are in microseconds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GateLimits {
    /// Quick commands in flight, at most; 0 to follow what the node drains.
    pub fixed: u32,
    /// Of a limit that follows the node: never fewer, for each connection.
    pub floor: u32,
    /// Of a limit that follows the node: never more.
    pub ceiling: u32,
    /// Slow commands in flight, at most.
    pub slow: u32,
    /// From arrival to reply this is all right; 0 if no time is too long.
    pub target: u64,
    /// For so long all have to take longer before it is overload.
    pub interval: u64,
    /// Commands that wait, at most.
    pub length: usize,
}

/// What becomes of a command that can not be sent at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It joins the line.
    Wait,
    /// It would wait for too long.
    TooLong,
    /// Too many wait already.
    TooMany,
}

/// What the gate knows of one class.
#[derive(Clone, Debug)]
struct Side {
    in_flight: u32,
    /// Below this a command is sent at once: the limit, or 0 while others wait.
    open: u32,
    limit: u32,
    waiting: [usize; 3],
    drain: Drain,
    judge: DelayJudge,
    shedding: bool,
    /// Shedding has just begun: those who have waited longest are to be given up.
    prune: bool,
    target: u64,
    batches: Batches,
    /// The target for those who come as they come now.
    allowed: u64,
}

impl Side {
    fn new(limit: u32, target: u64) -> Side {
        Side {
            in_flight: 0,
            open: limit,
            limit,
            waiting: [0; 3],
            drain: Drain::default(),
            judge: DelayJudge::default(),
            shedding: false,
            prune: false,
            target,
            batches: Batches::default(),
            allowed: target,
        }
    }

    fn set_target(&mut self, target: u64) {
        self.target = target;
        self.allowed = (target as f64 * self.batches.factor()) as u64;
    }

    fn waits(&self) -> usize {
        self.waiting.iter().sum()
    }

    fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
        self.open = if self.waits() == 0 { limit } else { 0 };
    }

    fn shed(&mut self) {
        self.prune |= !self.shedding;
        self.shedding = true;
    }
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Gate {
    limits: GateLimits,
    sides: [Side; 2],
    adaptive: InFlightLimit,
    /// How long one slow command takes the node, about; 0 if not known.
    slow_cost: u64,
    round_trip: u64,
}

impl Gate {
    /// An open gate.
    pub fn new(limits: GateLimits, now: u64) -> Gate {
        let first = match limits.fixed {
            0 => limits.floor,
            fixed => fixed,
        };
        Gate {
            limits,
            sides: [
                Side::new(first, limits.target),
                Side::new(limits.slow, limits.target),
            ],
            adaptive: InFlightLimit::new(first, now),
            slow_cost: 0,
            round_trip: 0,
        }
    }

    /// The settings have changed.
    pub fn set_limits(&mut self, limits: GateLimits) {
        self.limits = limits;
        self.sides[Work::Quick as usize].set_target(limits.target);
        self.set_slow(self.slow_cost, limits.slow);
    }

    /// Lets a command through if one may be sent at once.
    #[inline]
    pub fn takes(&mut self, work: Work) -> bool {
        let side = &mut self.sides[work as usize];
        let free = side.in_flight < side.open;
        side.in_flight += u32::from(free);
        free
    }

    /// Whether a command may be sent at once.
    pub fn is_open(&self, work: Work) -> bool {
        let side = &self.sides[work as usize];
        side.in_flight < side.open
    }

    /// Commands are sent, whether there was room for them or not: the rest of a block whose
    /// beginning was let through, or those that waited.
    #[inline]
    pub fn sent(&mut self, work: Work, count: u32) {
        self.sides[work as usize].in_flight += count;
    }

    /// Whether a command that can not be sent at once may wait.
    pub fn judge(&mut self, work: Work, priority: Priority) -> Verdict {
        let length = self.limits.length;
        let side = &mut self.sides[work as usize];
        if side.waits() >= length {
            return Verdict::TooMany;
        }
        if side.target == 0 {
            return Verdict::Wait;
        }
        let ahead = side.waiting[priority as usize..].iter().sum();
        let Some(wait) = side.drain.wait_behind(ahead) else {
            return Verdict::Wait;
        };
        // Whoever is let in while others are refused is to be served in time. Before that a
        // line may grow for a moment: most bursts are over before anybody is refused.
        let bound = match side.shedding {
            true => side.allowed,
            false => 2 * side.allowed,
        };
        if wait <= bound {
            return Verdict::Wait;
        }
        side.shed();
        Verdict::TooLong
    }

    /// A command of `client` waits from now on. `idle`: nothing else of the client is under
    /// way.
    pub fn joined(
        &mut self,
        work: Work,
        priority: Priority,
        (client, idle): (u32, bool),
        now: u64,
    ) {
        let side = &mut self.sides[work as usize];
        side.batches.joined(client, idle);
        side.waiting[priority as usize] += 1;
        side.open = 0;
        side.drain.begin(now);
        if work == Work::Quick {
            self.adaptive.held_back();
        }
    }

    /// A command waits no longer: it was sent, refused or forgotten. It had waited `waited`
    /// if it was sent.
    pub fn left(&mut self, work: Work, priority: Priority, waited: Option<u64>) {
        let side = &mut self.sides[work as usize];
        let count = &mut side.waiting[priority as usize];
        *count = count.saturating_sub(1);
        if let (Work::Slow, Some(waited)) = (work, waited) {
            side.judge.note(waited);
        }
        if side.waits() == 0 {
            side.open = side.limit;
            side.drain.end();
            side.judge.line_ended();
            side.shedding = false;
            side.prune = false;
        }
    }

    /// How many of those that wait may be sent now.
    pub fn room(&self, work: Work) -> u32 {
        let side = &self.sides[work as usize];
        side.limit.saturating_sub(side.in_flight)
    }

    /// Replies came: so many, of which `slow` to slow commands. `newest` is when the last
    /// quick command among them had arrived; 0 if there was none.
    pub fn answered(&mut self, count: u32, slow: u32, newest: u64, now: u64) {
        let quick = count.saturating_sub(slow);
        let pause = self.slow_cost;
        for (side, count) in self.sides.iter_mut().zip([quick, slow]) {
            side.in_flight = side.in_flight.saturating_sub(count);
            side.drain.note(count, now, pause);
        }
        self.adaptive.drained(quick);
        if newest != 0 {
            self.sides[0].judge.note(now.saturating_sub(newest));
        }
        let is_idle = self.sides.iter().all(|side| side.in_flight == 0);
        if is_idle && self.sides[0].waits() > 0 {
            self.adaptive.starved();
        }
    }

    /// Whether somebody waits.
    #[inline]
    pub fn has_line(&self) -> bool {
        self.sides[0].open == 0 || self.sides[1].open == 0
    }

    /// How many wait in a class.
    pub fn waiting(&self, work: Work) -> usize {
        self.sides[work as usize].waits()
    }

    /// Whoever has waited for so long, in microseconds, since others go first will not be
    /// served in time any more; `None` if nobody is refused now, or nobody goes first.
    pub fn late_after(&self, work: Work, priority: Priority) -> Option<u64> {
        let side = &self.sides[work as usize];
        let goes_first = side.waiting[priority as usize + 1..].iter().any(|n| *n > 0);
        (side.shedding && goes_first).then_some(2 * side.target)
    }

    /// How many of a class and priority wait.
    pub fn waiting_at(&self, work: Work, priority: Priority) -> usize {
        self.sides[work as usize].waiting[priority as usize]
    }

    /// How many may be in flight.
    pub fn limit(&self, work: Work) -> u32 {
        self.sides[work as usize].limit
    }

    /// Whether newcomers are refused.
    pub fn is_shedding(&self, work: Work) -> bool {
        self.sides[work as usize].shedding
    }

    /// How many of those that wait are worth keeping, if shedding has just begun: the newest.
    /// The others would be late whatever is done, and so would those be who come behind them.
    pub fn take_prune(&mut self, work: Work) -> Option<usize> {
        let side = &mut self.sides[work as usize];
        if !std::mem::take(&mut side.prune) {
            return None;
        }
        let pace = side.drain.pace()?;
        Some((pace * side.allowed as f64) as usize)
    }

    /// What one slow command takes the node, in microseconds, and how many may be in flight.
    /// One that takes long by itself may wait for longer: a few of its like.
    pub fn set_slow(&mut self, cost: u64, limit: u32) {
        self.slow_cost = cost;
        let side = &mut self.sides[Work::Slow as usize];
        side.set_limit(limit.max(1));
        side.set_target(match self.limits.target {
            0 => 0,
            target => target + 4 * cost,
        });
    }

    /// Corrects what drifts: how many commands of each class are really in flight.
    pub fn recount(&mut self, quick: u32, slow: u32) {
        self.sides[0].in_flight = quick;
        self.sides[1].in_flight = slow;
    }

    /// Sets the limits anew, and judges whether it takes too long. To be called a few dozen
    /// times a second. `floor` is the least that may be in flight, over all connections;
    /// `round_trip` what the way alone takes.
    pub fn on_tick(&mut self, now: u64, floor: u32, round_trip: u64) {
        self.round_trip = round_trip;
        let ceiling = self.limits.ceiling.max(1);
        let bounds = Bounds {
            floor: floor.clamp(1, ceiling),
            ceiling,
            round_trip,
        };
        self.adaptive.adapt(now, bounds);
        let limit = match self.limits.fixed {
            0 => self.adaptive.get(),
            fixed => fixed,
        };
        self.sides[0].set_limit(limit);
        for (work, side) in Work::ALL.into_iter().zip(&mut self.sides) {
            side.batches.on_tick();
            side.set_target(side.target);
            if side.target == 0 || side.waits() == 0 {
                continue;
            }
            let way = if work == Work::Quick { round_trip } else { 0 };
            let too_long = side
                .judge
                .is_too_long(now, self.limits.interval, side.allowed + way);
            if too_long {
                side.shed();
            }
        }
    }

    /// The settings.
    pub fn limits(&self) -> &GateLimits {
        &self.limits
    }
}

#[cfg(test)]
#[path = "gate_simulation.rs"]
mod simulation;
