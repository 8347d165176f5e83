//! A gate, its line and a node that serves one command after the other, in simulated time.

use std::collections::VecDeque;

use super::*;

const LIMITS: GateLimits = GateLimits {
    fixed: 0,
    floor: 64,
    ceiling: 100_000,
    slow: 8,
    target: 150_000,
    interval: 500_000,
    length: 1_000_000,
};

/// One that had nothing under way.
const CLIENT: (u32, bool) = (1, true);

/// Time passes in steps of so many microseconds.
const STEP: u64 = 100;

/// A small generator of numbers that look random; its seed is printed by whoever fails.
struct Dice(u64);

impl Dice {
    fn share(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// What became of one command: when it arrived, and how long it took to be answered.
#[derive(Clone, Copy, Debug)]
struct Done {
    at: u64,
    took: u64,
}

struct World {
    gate: Gate,
    work: Work,
    now: u64,
    line: VecDeque<u64>,
    node: VecDeque<u64>,
    /// Work that the node has done of the command it is at, in microseconds.
    progress: u64,
    /// What one command takes the node.
    cost: u64,
    served: Vec<Done>,
    refused: Vec<Done>,
    stalled: bool,
    /// Clients that were seen once.
    others: u32,
}

impl World {
    fn new(work: Work, cost: u64) -> World {
        let mut gate = Gate::new(LIMITS, 1);
        if work == Work::Slow {
            gate.set_slow(cost, 4);
        }
        World {
            gate,
            work,
            now: 1,
            line: VecDeque::new(),
            node: VecDeque::new(),
            progress: 0,
            cost,
            served: Vec::new(),
            refused: Vec::new(),
            stalled: false,
            others: 1_000_000,
        }
    }

    /// A command of a client that is seen once.
    fn arrive(&mut self) {
        self.others += 1;
        self.arrive_from(self.others, true);
    }

    fn arrive_from(&mut self, client: u32, idle: bool) {
        if self.gate.takes(self.work) {
            return self.node.push_back(self.now);
        }
        if self.gate.judge(self.work, Priority::Normal) == Verdict::Wait {
            let from = (client, idle);
            self.gate
                .joined(self.work, Priority::Normal, from, self.now);
            return self.line.push_back(self.now);
        }
        self.refused.push(Done {
            at: self.now,
            took: 0,
        });
        self.prune();
    }

    fn prune(&mut self) {
        if let Some(keep) = self.gate.take_prune(self.work) {
            while self.line.len() > keep {
                let at = self.line.pop_front().expect("more than are kept");
                self.gate.left(self.work, Priority::Normal, None);
                self.refused.push(Done {
                    at,
                    took: self.now - at,
                });
            }
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        let (mut replies, mut newest) = (0, 0);
        if !self.stalled {
            self.progress += STEP;
        }
        while self.progress >= self.cost
            && let Some(at) = self.node.pop_front()
        {
            self.progress -= self.cost;
            self.served.push(Done {
                at,
                took: self.now - at,
            });
            (replies, newest) = (replies + 1, at);
        }
        if self.node.is_empty() {
            self.progress = 0;
        }
        let (slow, newest) = match self.work {
            Work::Slow => (replies, 0),
            Work::Quick => (0, newest),
        };
        self.gate.answered(replies, slow, newest, self.now);
        while self.gate.room(self.work) > 0
            && let Some(at) = self.line.pop_front()
        {
            self.gate
                .left(self.work, Priority::Normal, Some(self.now - at));
            self.gate.sent(self.work, 1);
            self.node.push_back(at);
        }
        if self.now % 25_000 < STEP {
            self.gate.on_tick(self.now, 64, 0);
        }
        self.prune();
    }

    /// Commands that come by themselves, `rate` a second, for so many seconds.
    fn open(&mut self, rate: f64, seconds: f64, dice: &mut Dice) {
        let end = self.now + (seconds * 1e6) as u64;
        let mut due = self.now as f64;
        while self.now < end {
            while due <= self.now as f64 {
                self.arrive();
                due += -dice.share().max(1e-9).ln() / rate * 1e6;
            }
            self.step();
        }
    }

    /// Clients that ask again as soon as they are answered.
    fn closed(&mut self, clients: usize, seconds: f64) {
        let end = self.now + (seconds * 1e6) as u64;
        for _ in 0..clients {
            self.arrive();
        }
        while self.now < end {
            let before = self.served.len() + self.refused.len();
            self.step();
            for _ in before..self.served.len() + self.refused.len() {
                self.arrive();
            }
        }
    }
}

/// Clients that send a batch, wait for all answers, and send the next one.
fn closed_in_batches(world: &mut World, clients: u32, length: usize, seconds: f64) {
    let end = world.now + (seconds * 1e6) as u64;
    let mut due: Vec<u32> = (0..clients).collect();
    let mut under_way: VecDeque<(u32, usize)> = VecDeque::new();
    let mut answered = world.served.len();
    while world.now < end {
        for client in due.drain(..) {
            for place in 0..length {
                world.arrive_from(client, place == 0);
            }
            under_way.push_back((client, length));
        }
        world.step();
        // All are served in the order in which they came.
        while answered < world.served.len() {
            answered += 1;
            let front = under_way.front_mut().expect("somebody was answered");
            front.1 -= 1;
            if front.1 == 0 {
                due.push(front.0);
                under_way.pop_front();
            }
        }
        if !world.refused.is_empty() {
            return;
        }
    }
}

fn percentile(done: &[Done], share: f64) -> u64 {
    let mut took: Vec<u64> = done.iter().map(|done| done.took).collect();
    took.sort_unstable();
    took.get(((took.len() as f64 * share) as usize).min(took.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0)
}

#[test]
fn three_times_too_much_is_served_at_full_speed_and_the_rest_refused_at_once() {
    for seed in [1, 0x5eed, 0xdead_beef_u64] {
        for work in Work::ALL {
            let mut dice = Dice(seed);
            let mut world = World::new(work, 2_000);
            world.open(1_500.0, 30.0, &mut dice);
            let told = format!("seed {seed}, {work:?}");
            for second in 1..30_u64 {
                let of = |done: &&Done| (done.at + done.took) / 1_000_000 == second;
                let served = world.served.iter().filter(of).count();
                assert!(served >= 450, "{told}: {served} in second {second}");
            }
            let p99 = percentile(&world.served, 0.99);
            assert!(p99 < 300_000, "{told}: {p99} us");
            let late = percentile(&world.refused, 0.99);
            assert_eq!(late, 0, "{told}: refusals take {late} us");

            // The load goes.
            let before = world.refused.len();
            world.open(250.0, 1.0, &mut dice);
            let refused = world.refused.len() - before;
            assert!(refused < 5, "{told}: {refused} were refused afterwards");
            world.open(250.0, 2.0, &mut dice);
            let end = world.served.len();
            let worst = percentile(&world.served[end - 300..], 1.0);
            assert!(worst < 50_000, "{told}: {worst} us afterwards");
            assert!(!world.gate.is_shedding(work));
        }
    }
}

#[test]
fn nine_thousand_busy_clients_of_a_fast_node_are_no_overload() {
    let mut world = World::new(Work::Quick, 8);
    world.closed(9_000, 4.0);
    assert_eq!(world.refused.len(), 0);
    let rate = world.served.len() as f64 / 4.0;
    assert!(rate > 120_000.0, "{rate}");
    let limit = world.gate.limit(Work::Quick);
    assert!((600..3_000).contains(&limit), "{limit} in flight");
}

/// What redis-benchmark does with `-P 32` and commands of 200 microseconds.
#[test]
fn clients_that_send_batches_and_wait_for_them_are_no_overload() {
    let mut world = World::new(Work::Quick, 200);
    closed_in_batches(&mut world, 50, 32, 6.0);
    assert_eq!(world.refused.len(), 0);
    assert!(percentile(&world.served, 0.5) > LIMITS.target);
    // Ten times as many wait for longer than anybody should.
    let mut world = World::new(Work::Quick, 200);
    closed_in_batches(&mut world, 500, 32, 6.0);
    assert!(!world.refused.is_empty());
}

#[test]
fn a_pause_of_the_node_is_no_overload() {
    let mut world = World::new(Work::Quick, 10);
    world.closed(2_000, 1.0);
    world.stalled = true;
    for _ in 0..20_000 {
        world.step();
    }
    world.stalled = false;
    let before = world.served.len();
    world.closed(0, 1.0);
    assert_eq!(world.refused.len(), 0);
    assert!(world.served.len() > before);
}

#[test]
fn a_burst_that_is_over_soon_is_served() {
    let mut world = World::new(Work::Quick, 100);
    let mut dice = Dice(7);
    world.open(5_000.0, 1.0, &mut dice);
    for _ in 0..2_000 {
        world.arrive();
    }
    world.open(5_000.0, 2.0, &mut dice);
    assert_eq!(world.refused.len(), 0);
}

#[test]
fn after_a_stall_under_load_the_newest_are_served() {
    let mut dice = Dice(99);
    let mut world = World::new(Work::Quick, 2_000);
    world.open(450.0, 2.0, &mut dice);
    world.stalled = true;
    world.open(450.0, 3.0, &mut dice);
    world.stalled = false;
    let resumed = world.now;
    world.open(450.0, 4.0, &mut dice);
    let later: Vec<Done> = world
        .served
        .iter()
        .filter(|done| done.at > resumed + 1_000_000)
        .copied()
        .collect();
    let p99 = percentile(&later, 0.99);
    assert!(p99 < 400_000, "{p99} us");
}

#[test]
fn who_has_priority_is_let_in_before_the_others() {
    let mut gate = Gate::new(LIMITS, 1);
    while gate.takes(Work::Quick) {}
    let mut now = 1;
    for _ in 0..1_000 {
        gate.joined(Work::Quick, Priority::Low, CLIENT, now);
    }
    for _ in 0..20 {
        now += 10_000;
        gate.answered(10, 0, now, now);
        gate.sent(Work::Quick, 10);
    }
    assert_eq!(gate.judge(Work::Quick, Priority::Low), Verdict::TooLong);
    assert_eq!(gate.judge(Work::Quick, Priority::Normal), Verdict::Wait);
    assert_eq!(gate.judge(Work::Quick, Priority::High), Verdict::Wait);
}

#[test]
fn a_full_line_takes_nobody() {
    let mut gate = Gate::new(
        GateLimits {
            length: 2,
            ..LIMITS
        },
        1,
    );
    while gate.takes(Work::Quick) {}
    for _ in 0..2 {
        assert_eq!(gate.judge(Work::Quick, Priority::Normal), Verdict::Wait);
        gate.joined(Work::Quick, Priority::Normal, CLIENT, 1);
    }
    assert_eq!(gate.judge(Work::Quick, Priority::High), Verdict::TooMany);
}

#[test]
fn slow_commands_do_not_close_the_gate_for_quick_ones() {
    let mut gate = Gate::new(LIMITS, 1);
    while gate.takes(Work::Slow) {}
    gate.joined(Work::Slow, Priority::Normal, CLIENT, 1);
    assert!(gate.takes(Work::Quick));
}

#[test]
fn nobody_passes_those_who_wait() {
    let mut gate = Gate::new(LIMITS, 1);
    while gate.takes(Work::Quick) {}
    gate.joined(Work::Quick, Priority::Normal, CLIENT, 1);
    gate.answered(10, 0, 0, 2);
    assert!(!gate.takes(Work::Quick));
    assert_eq!(gate.room(Work::Quick), 10);
    gate.left(Work::Quick, Priority::Normal, Some(1));
    gate.sent(Work::Quick, 1);
    assert!(gate.takes(Work::Quick));
}

#[test]
fn who_waits_behind_others_while_it_is_too_much_is_late_in_the_end() {
    let mut gate = Gate::new(LIMITS, 1);
    while gate.takes(Work::Quick) {}
    gate.joined(Work::Quick, Priority::Low, CLIENT, 1);
    gate.joined(Work::Quick, Priority::Normal, CLIENT, 1);
    assert_eq!(gate.late_after(Work::Quick, Priority::Low), None);
    gate.sides[0].shed();
    let late = Some(2 * LIMITS.target);
    assert_eq!(gate.late_after(Work::Quick, Priority::Low), late);
    assert_eq!(gate.late_after(Work::Quick, Priority::Normal), None);
    assert_eq!(gate.late_after(Work::Quick, Priority::High), None);
}
