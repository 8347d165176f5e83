//! Whether a node is fit for work: a circuit breaker, as pure as a state machine.
//!
//! Events come in with the time they happened at; what comes out says what changed.
//! Only what the node itself does counts: a command that Weir refuses, an error that
//! a client's command deserves (`WRONGTYPE`), a budget without a free connection are
//! no failures of the node and never reach this.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Whether a node gets work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BreakerState {
    /// It does.
    Healthy,
    /// It gets nothing, and the next probe is due later.
    Tripped,
    /// It gets nothing but the probe that is under way.
    Probing,
}

impl BreakerState {
    /// All of them.
    pub const ALL: [BreakerState; 3] = [
        BreakerState::Healthy,
        BreakerState::Tripped,
        BreakerState::Probing,
    ];

    /// As metrics and logs call it.
    pub const fn name(self) -> &'static str {
        match self {
            BreakerState::Healthy => "healthy",
            BreakerState::Tripped => "tripped",
            BreakerState::Probing => "probing",
        }
    }
}

/// Why a node is taken for sick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trip {
    /// No connection can be opened. Those that are open may still serve.
    Unreachable,
    /// It was asked, and nothing has come from it on any connection.
    Silent,
    /// Too many commands met their deadline.
    Errors,
    /// Its replies take too long.
    Slow,
}

impl Trip {
    /// All of them.
    pub const ALL: [Trip; 4] = [Trip::Unreachable, Trip::Silent, Trip::Errors, Trip::Slow];

    /// As metrics and logs call it.
    pub const fn name(self) -> &'static str {
        match self {
            Trip::Unreachable => "unreachable",
            Trip::Silent => "silent",
            Trip::Errors => "errors",
            Trip::Slow => "slow",
        }
    }

    /// Whether connections that are open get no commands either.
    pub const fn holds_all(self) -> bool {
        !matches!(self, Trip::Unreachable)
    }
}

/// When a node is taken for sick by what commands meet.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BreakerLimits {
    /// Share of the commands that may meet their deadline; above 1 means that any may.
    pub errors_max: f64,
    /// Mean time of a reply, from the command written; zero means that any will do.
    pub latency_max: Duration,
}

/// What commands met within a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Commands that were answered, whatever the answer.
    pub answers: u64,
    /// Commands that had been sent and met their deadline.
    pub timeouts: u64,
    /// Time that the answers took together, in microseconds.
    pub micros: u64,
}

/// What an event has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// The node gets no work from now on.
    Tripped(Trip),
    /// It had been sick for one reason, and is now for a graver one.
    Worse(Trip),
    /// It gets work again, after so long.
    Healed(Trip, Duration),
}

/// For how long what commands met is remembered. Long enough for a share to mean
/// something, short enough that what is over does not count.
const REMEMBERED: Duration = Duration::from_secs(10);

/// With fewer commands a share means nothing.
const SAMPLES_MIN: u64 = 20;

/// How long a node rests that had answered too late or not in time, before a probe's
/// answer counts: a probe is answered sooner than the commands that pile up behind.
const REST: Duration = Duration::from_secs(1);

/// The longest rest of one that trips again and again.
const REST_MAX: Duration = Duration::from_secs(30);

/// One node's breaker.
#[derive(Debug)]
pub struct Breaker {
    limits: BreakerLimits,
    sick: Option<Sick>,
    /// What commands met, oldest first; all of it within [`REMEMBERED`].
    tallies: VecDeque<(Instant, Tally)>,
    /// Rests in a row, and when the last one ended.
    rests: u32,
    rested_at: Option<Instant>,
}

#[derive(Debug)]
struct Sick {
    trip: Trip,
    since: Instant,
    /// No answer counts before.
    rests_until: Instant,
    is_probing: bool,
}

impl Breaker {
    /// A breaker of a node that nobody has complained of.
    pub fn new(limits: BreakerLimits) -> Breaker {
        Breaker {
            limits,
            sick: None,
            tallies: VecDeque::new(),
            rests: 0,
            rested_at: None,
        }
    }

    /// Other limits from now on.
    pub fn set_limits(&mut self, limits: BreakerLimits) {
        self.limits = limits;
    }

    /// Whether the node gets work.
    pub fn state(&self) -> BreakerState {
        match &self.sick {
            None => BreakerState::Healthy,
            Some(sick) if sick.is_probing => BreakerState::Probing,
            Some(_) => BreakerState::Tripped,
        }
    }

    /// Why it gets none, if it gets none.
    pub fn trip(&self) -> Option<Trip> {
        self.sick.as_ref().map(|sick| sick.trip)
    }

    /// No connection could be opened.
    pub fn unreachable(&mut self, now: Instant) -> Option<Change> {
        self.fall(Trip::Unreachable, now, Duration::ZERO)
    }

    /// It was asked, over more than one connection where there may be more than one,
    /// and for too long nothing has come.
    pub fn silent(&mut self, now: Instant) -> Option<Change> {
        self.fall(Trip::Silent, now, Duration::ZERO)
    }

    /// Takes in what commands have met since the last time.
    pub fn observe(&mut self, tally: Tally, now: Instant) -> Option<Change> {
        let is_old = |at: Instant| now.saturating_duration_since(at) > REMEMBERED;
        while self.tallies.front().is_some_and(|(at, _)| is_old(*at)) {
            self.tallies.pop_front();
        }
        if self.sick.is_some() {
            return None;
        }
        if tally != Tally::default() {
            self.tallies.push_back((now, tally));
        }
        let trip = self.judge()?;
        if self
            .rested_at
            .is_some_and(|at| now.saturating_duration_since(at) > REST_MAX)
        {
            self.rests = 0;
        }
        let rest = (REST * 2u32.saturating_pow(self.rests)).min(REST_MAX);
        self.rests = (self.rests + 1).min(16);
        self.fall(trip, now, rest)
    }

    fn judge(&self) -> Option<Trip> {
        let mut sum = Tally::default();
        for (_, tally) in &self.tallies {
            sum.answers += tally.answers;
            sum.timeouts += tally.timeouts;
            sum.micros = sum.micros.saturating_add(tally.micros);
        }
        let commands = sum.answers + sum.timeouts;
        if commands < SAMPLES_MIN {
            return None;
        }
        if sum.timeouts as f64 > self.limits.errors_max * commands as f64 {
            return Some(Trip::Errors);
        }
        let latency = Duration::from_micros(sum.micros / sum.answers.max(1));
        let is_slow = !self.limits.latency_max.is_zero() && latency > self.limits.latency_max;
        is_slow.then_some(Trip::Slow)
    }

    /// A probe is under way.
    pub fn probing(&mut self) {
        if let Some(sick) = &mut self.sick {
            sick.is_probing = true;
        }
    }

    /// The probe has ended without an answer.
    pub fn probe_failed(&mut self) {
        if let Some(sick) = &mut self.sick {
            sick.is_probing = false;
        }
    }

    /// Something came over a connection that had been open before. That says nothing
    /// of whether another can be opened.
    pub fn heard(&mut self, now: Instant) -> Option<Change> {
        let sick = self.sick.as_ref()?;
        (sick.trip == Trip::Silent).then(|| self.heal(now))
    }

    /// A new connection was opened, and answered on.
    pub fn reached(&mut self, now: Instant) -> Option<Change> {
        let sick = self.sick.as_mut()?;
        sick.is_probing = false;
        (now >= sick.rests_until).then(|| self.heal(now))
    }

    fn fall(&mut self, trip: Trip, now: Instant, rest: Duration) -> Option<Change> {
        if let Some(sick) = &mut self.sick {
            // What holds nothing back never takes the place of what does.
            if sick.trip.holds_all() || !trip.holds_all() {
                return None;
            }
            sick.trip = trip;
            return Some(Change::Worse(trip));
        }
        self.tallies.clear();
        self.sick = Some(Sick {
            trip,
            since: now,
            rests_until: now + rest,
            is_probing: false,
        });
        Some(Change::Tripped(trip))
    }

    fn heal(&mut self, now: Instant) -> Change {
        let sick = self.sick.take().expect("only what is sick is healed");
        self.tallies.clear();
        if matches!(sick.trip, Trip::Errors | Trip::Slow) {
            self.rested_at = Some(now);
        }
        Change::Healed(sick.trip, now.saturating_duration_since(sick.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BreakerLimits = BreakerLimits {
        errors_max: 0.5,
        latency_max: Duration::from_millis(100),
    };

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn tally(answers: u64, timeouts: u64, micros: u64) -> Tally {
        Tally {
            answers,
            timeouts,
            micros,
        }
    }

    #[test]
    fn a_node_that_cannot_be_reached_is_healed_by_reaching_it_and_by_nothing_else() {
        let (mut breaker, now) = (Breaker::new(LIMITS), Instant::now());
        assert_eq!(
            breaker.unreachable(now),
            Some(Change::Tripped(Trip::Unreachable))
        );
        assert_eq!(breaker.unreachable(now), None, "told once");
        assert_eq!(breaker.heard(now), None, "an old connection proves nothing");
        breaker.probing();
        assert_eq!(breaker.state(), BreakerState::Probing);
        breaker.probe_failed();
        assert_eq!(breaker.state(), BreakerState::Tripped);
        breaker.probing();
        let healed = Change::Healed(Trip::Unreachable, ms(30));
        assert_eq!(breaker.reached(now + ms(30)), Some(healed));
        assert_eq!(breaker.state(), BreakerState::Healthy);
        assert_eq!(breaker.reached(now), None);
    }

    #[test]
    fn a_silent_node_is_healed_by_a_single_sound() {
        let (mut breaker, now) = (Breaker::new(LIMITS), Instant::now());
        assert_eq!(breaker.silent(now), Some(Change::Tripped(Trip::Silent)));
        breaker.probing();
        assert_eq!(
            breaker.heard(now + ms(5)),
            Some(Change::Healed(Trip::Silent, ms(5)))
        );
    }

    #[test]
    fn what_holds_everything_back_is_not_replaced_by_what_does_not() {
        let (mut breaker, now) = (Breaker::new(LIMITS), Instant::now());
        breaker.unreachable(now);
        assert_eq!(breaker.silent(now), Some(Change::Worse(Trip::Silent)));
        assert_eq!(breaker.unreachable(now), None);
        assert_eq!(breaker.trip(), Some(Trip::Silent));
    }

    #[test]
    fn deadlines_that_pass_trip_it_by_their_share_and_not_by_their_number() {
        let (mut breaker, now) = (Breaker::new(LIMITS), Instant::now());
        assert_eq!(breaker.observe(tally(1_000_000, 1000, 0), now), None);
        let mut breaker = Breaker::new(LIMITS);
        assert_eq!(breaker.observe(tally(0, 19, 0), now), None, "too few");
        assert_eq!(
            breaker.observe(tally(0, 1, 0), now + ms(10)),
            Some(Change::Tripped(Trip::Errors))
        );
        assert_eq!(breaker.reached(now + ms(500)), None, "it rests");
        let healed = breaker.reached(now + ms(1010));
        assert_eq!(healed, Some(Change::Healed(Trip::Errors, ms(1000))));
        // What was before is forgotten.
        assert_eq!(breaker.observe(tally(30, 0, 0), now + ms(1020)), None);
    }

    #[test]
    fn one_that_trips_again_and_again_rests_longer_each_time() {
        let (mut breaker, mut now) = (Breaker::new(LIMITS), Instant::now());
        for rest in [1, 2, 4, 8, 16, 30, 30] {
            assert!(breaker.observe(tally(0, 100, 0), now).is_some());
            let rest = Duration::from_secs(rest);
            assert_eq!(breaker.reached(now + rest - ms(1)), None);
            now += rest;
            assert!(breaker.reached(now).is_some());
        }
        now += REST_MAX + ms(1);
        assert!(breaker.observe(tally(0, 100, 0), now).is_some());
        assert!(breaker.reached(now + REST).is_some(), "long ago");
    }

    #[test]
    fn slowness_trips_it_only_where_that_is_asked_for() {
        let now = Instant::now();
        let slow = tally(100, 0, 100 * 200_000);
        let mut breaker = Breaker::new(LIMITS);
        assert_eq!(
            breaker.observe(slow, now),
            Some(Change::Tripped(Trip::Slow))
        );
        let mut patient = Breaker::new(BreakerLimits {
            latency_max: Duration::ZERO,
            ..LIMITS
        });
        assert_eq!(patient.observe(slow, now), None);
    }

    #[test]
    fn what_is_over_does_not_count() {
        let (mut breaker, now) = (Breaker::new(LIMITS), Instant::now());
        breaker.observe(tally(0, 19, 0), now);
        let later = now + REMEMBERED + ms(1);
        assert_eq!(breaker.observe(tally(1, 1, 0), later), None);
    }

    /// Whatever happens: it is healthy or it says why not; every change is told once and
    /// in turn; it is never so sick that a probe could not heal it.
    #[test]
    fn no_order_of_events_leaves_it_in_a_state_without_a_way_out() {
        for seed in 1..400_u64 {
            let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mut next = |below: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % below
            };
            let (mut breaker, mut now) = (Breaker::new(LIMITS), Instant::now());
            for _ in 0..300 {
                now += ms(next(3000));
                let was = breaker.trip();
                let change = match next(7) {
                    0 => breaker.unreachable(now),
                    1 => breaker.silent(now),
                    2 => breaker.heard(now),
                    3 => breaker.reached(now),
                    4 => {
                        let (answers, timeouts) = (next(100), next(100));
                        breaker.observe(tally(answers, timeouts, next(20_000_000)), now)
                    }
                    5 => {
                        breaker.probing();
                        None
                    }
                    _ => {
                        breaker.probe_failed();
                        None
                    }
                };
                match change {
                    Some(Change::Tripped(trip)) => {
                        assert_eq!((was, breaker.trip()), (None, Some(trip)), "seed {seed}");
                    }
                    Some(Change::Worse(trip)) => {
                        assert_eq!(was, Some(Trip::Unreachable), "seed {seed}");
                        assert_eq!(breaker.trip(), Some(trip), "seed {seed}");
                    }
                    Some(Change::Healed(trip, _)) => {
                        assert_eq!((was, breaker.trip()), (Some(trip), None), "seed {seed}");
                    }
                    None => assert_eq!(was, breaker.trip(), "seed {seed}"),
                }
                assert_eq!(
                    breaker.trip().is_none(),
                    breaker.state() == BreakerState::Healthy
                );
                assert!(breaker.tallies.len() <= 300, "seed {seed}");
            }
            breaker.reached(now + REST_MAX);
            assert_eq!(breaker.state(), BreakerState::Healthy, "seed {seed}");
        }
    }
}
