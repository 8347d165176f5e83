//! Whom to ask for a slot when somebody waits and nothing is free.
//!
//! The plan is made anew after every event: walk through what is wanted, in the
//! order in which it will be served, and for each demand that the slots already
//! coming back do not satisfy, choose the one whose loss costs least. A request
//! that the new plan does not need is withdrawn, so nobody closes a connection
//! for a waiter that has gone.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::book::{Book, Decision, MayYield, SlotId, Time};
use super::kind::{Group, Kind, Partition, Phase};
use super::limits::Counts;

/// For how long a connection in use is kept before it is asked to make room.
///
/// Changing over costs a dial and a handshake, some 0.3 ms on a local network and a
/// few ms between zones; 20 ms keep that a small part even where partitions rotate on
/// a budget of one, and let 50 of them have a turn within a second.
pub const MIN_HOLD: Duration = Duration::from_millis(20);

/// Idle for this long means not in use. A client that waits for one reply before it
/// sends its next command leaves gaps of a round trip, which are shorter.
pub const QUIET: Duration = Duration::from_millis(5);

/// Idle for this long means that the connection goes to anybody who could use a
/// slot, even one that did not wait for it: opening it again once a second at most
/// costs nobody anything.
pub const LONG_IDLE: Duration = Duration::from_secs(1);

/// How little it costs to take a slot away, the cheapest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Idle for [`LONG_IDLE`].
    LongIdle,
    /// Its partition has others: nobody loses the way to the node.
    Spare,
    /// Idle for [`QUIET`].
    Idle,
    /// In use; what is in flight will finish soon.
    InUse,
}

/// What a slot is wanted for.
enum Need<'a> {
    /// There are more slots than some limit allows, since it was lowered.
    Narrower,
    /// Somebody stands in this line.
    Line(Kind),
    /// Somebody was refused at once.
    Hint(Kind, Option<&'a Partition>),
}

struct Candidate {
    id: SlotId,
    kind: Kind,
    rank: Rank,
    partition: Option<Partition>,
    /// Sorts by what it costs; ends with the id, so that no two are alike.
    cost: (u8, Rank, Reverse<usize>, Time, SlotId),
}

impl Book {
    /// Makes the plan, tells those who are newly asked, forgets those who are not.
    pub(super) fn plan_yields(&mut self, now: Time) {
        let chosen = if self.is_anything_wanted(now) {
            self.choose(now)
        } else {
            BTreeSet::new()
        };
        for (id, entry) in &mut self.slots {
            let asked = chosen.contains(id);
            if asked && !entry.asked {
                self.counters.asked_to_yield += 1;
                self.decisions.push(Decision::Nudge(entry.cell.clone()));
            }
            if asked != entry.asked {
                entry.asked = asked;
                entry.cell.asked.store(asked, Relaxed);
            }
        }
    }

    /// What the owner of a slot asks when it was nudged.
    pub(super) fn may_yield(&mut self, id: SlotId, now: Time) -> MayYield {
        // The plan may be old: the slot may have got work since, or the hint expired.
        if self.slots.get(&id).is_some_and(|entry| entry.asked) {
            self.plan_yields(now);
        }
        let Some(entry) = self.slots.get(&id) else {
            return MayYield::Now;
        };
        if !entry.asked || entry.phase != Phase::Open {
            return MayYield::NotYet;
        }
        let held_until = entry.held_since + MIN_HOLD;
        let at = match entry.cell.idle_since() {
            // A held connection that is idle is a spare one that nobody is using.
            Some(_) if entry.kind.group() == Group::Held => now,
            Some(since) => held_until.min(since + QUIET),
            None => held_until,
        };
        if now < at {
            return MayYield::NotBefore(at);
        }
        self.counters.yielded += 1;
        self.unlink(id);
        self.settle(now);
        MayYield::Now
    }

    fn is_anything_wanted(&self, now: Time) -> bool {
        self.lines.iter().any(|line| !line.is_empty())
            || Kind::ALL
                .iter()
                .any(|&kind| self.counts.is_too_many(kind, &self.limits))
            || self.hints.iter().flatten().any(|hint| hint.until > now)
    }

    fn choose(&self, now: Time) -> BTreeSet<SlotId> {
        let mut plan = Plan {
            book: self,
            counts: self.counts.clone(),
            candidates: self.candidates(now),
            chosen: BTreeSet::new(),
        };
        for entry in self.slots.values().filter(|entry| entry.retiring) {
            plan.counts.remove(entry.kind);
        }
        plan.narrow();
        plan.serve_lines();
        plan.serve_hints(now);
        plan.chosen
    }

    /// Everybody who could be asked, the cheapest first.
    fn candidates(&self, now: Time) -> Vec<Candidate> {
        let spare = self.spares(now);
        let mut candidates: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, entry)| !entry.retiring)
            .filter_map(|(&id, entry)| {
                let idle_for = self.idle_for(id, now);
                let others = spare.get(&id).copied().unwrap_or(0);
                let rank = match idle_for {
                    Some(idle) if idle >= LONG_IDLE => Rank::LongIdle,
                    _ if others > 0 => Rank::Spare,
                    Some(idle) if idle >= QUIET || entry.kind.group() == Group::Held => Rank::Idle,
                    _ if entry.kind.group() == Group::Held => return None,
                    _ => Rank::InUse,
                };
                let since = match idle_for {
                    Some(idle) => now.saturating_sub(idle),
                    None => entry.held_since,
                };
                // Who was asked stays asked, or two could take turns at being asked and
                // neither would ever yield. Only a long idle one is better in any case.
                let turn = match (rank, entry.asked) {
                    (Rank::LongIdle, _) => 0,
                    (_, true) => 1,
                    (_, false) => 2,
                };
                Some(Candidate {
                    id,
                    kind: entry.kind,
                    rank,
                    partition: entry
                        .shared
                        .as_ref()
                        .map(|(partition, _)| partition.clone()),
                    cost: (turn, rank, Reverse(others), since, id),
                })
            })
            .collect();
        candidates.sort_unstable_by_key(|candidate| candidate.cost);
        candidates
    }

    /// For every shared slot whose partition could do without it, how many others
    /// would be left. The one that is to stay is not in here.
    fn spares(&self, now: Time) -> HashMap<SlotId, usize> {
        let mut spares = HashMap::new();
        for standing in self
            .partitions
            .values()
            .filter(|standing| standing.owners.len() > 1)
        {
            let mut owned: Vec<_> = standing.owners.iter().map(|&(_, id)| id).collect();
            // Those who are to go first: asked already, idle for longest, held longest.
            owned.sort_unstable_by_key(|id| {
                let entry = &self.slots[id];
                (
                    !entry.asked,
                    Reverse(self.idle_for(*id, now)),
                    entry.held_since,
                    *id,
                )
            });
            let owners = owned.len();
            for (gone_before, id) in owned.into_iter().take(owners - 1).enumerate() {
                spares.insert(id, owners - 1 - gone_before);
            }
        }
        spares
    }

    fn idle_for(&self, id: SlotId, now: Time) -> Option<Duration> {
        let entry = &self.slots[&id];
        let since = entry.cell.idle_since()?;
        (entry.phase == Phase::Open).then(|| now.saturating_sub(since))
    }
}

/// What would be left if everybody who is asked had yielded and everybody who
/// can be served then had been.
struct Plan<'a> {
    book: &'a Book,
    counts: Counts,
    candidates: Vec<Candidate>,
    chosen: BTreeSet<SlotId>,
}

impl Plan<'_> {
    fn narrow(&mut self) {
        while self.ask(&Need::Narrower) {}
    }

    /// Takes one demand from each line in turn, until no line can be served.
    fn serve_lines(&mut self) {
        let mut lines: Vec<_> = Kind::ALL
            .into_iter()
            .map(|kind| (kind, self.book.demands(kind)))
            .collect();
        lines.sort_by_key(|(kind, _)| self.book.served[kind.index()]);
        while !lines.is_empty() {
            lines.retain_mut(|(kind, demands)| {
                if *demands == 0 || !self.make_room(&Need::Line(*kind), *kind) {
                    return false;
                }
                self.counts.add(*kind);
                *demands -= 1;
                true
            });
        }
    }

    fn serve_hints(&mut self, now: Time) {
        for kind in Kind::ALL {
            let Some(hint) = &self.book.hints[kind.index()] else {
                continue;
            };
            if hint.until > now && self.make_room(&Need::Hint(kind, hint.partition.as_ref()), kind)
            {
                self.counts.add(kind);
            }
        }
    }

    fn make_room(&mut self, need: &Need<'_>, kind: Kind) -> bool {
        self.counts.admit(kind, &self.book.limits).is_ok() || self.ask(need)
    }

    /// Asks the cheapest one that helps; false if nobody does.
    fn ask(&mut self, need: &Need<'_>) -> bool {
        let helps = |candidate: &Candidate| self.helps(candidate, need);
        let Some(at) = self.candidates.iter().position(helps) else {
            return false;
        };
        let candidate = self.candidates.remove(at);
        self.counts.remove(candidate.kind);
        self.chosen.insert(candidate.id);
        true
    }

    fn helps(&self, candidate: &Candidate, need: &Need<'_>) -> bool {
        let limits = &self.book.limits;
        match need {
            Need::Narrower => {
                // The rest of what is too much goes when its holders are done: taking
                // the last slot that is not held would stop plain traffic meanwhile.
                let held = self.counts.group(Group::Held);
                let is_last = candidate.kind.group() != Group::Held
                    && limits.total_max() > 1
                    && self.counts.total() - held == 1;
                !is_last && self.counts.is_too_many(candidate.kind, limits)
            }
            Need::Line(kind) => {
                let may_disturb = kind.group() != Group::Held
                    || self.counts.group(Group::Held) < limits.held_floor();
                (candidate.rank != Rank::InUse || may_disturb)
                    && self
                        .counts
                        .admit_instead(candidate.kind, *kind, limits)
                        .is_ok()
                    && self.is_one_enough()
            }
            Need::Hint(kind, partition) => {
                candidate.rank == Rank::LongIdle
                    && (partition.is_none() || candidate.partition.as_ref() != *partition)
                    && self
                        .counts
                        .admit_instead(candidate.kind, *kind, limits)
                        .is_ok()
                    && self.is_one_enough()
            }
        }
    }

    /// Whether giving up one slot makes room in all; it does not while the limit
    /// was lowered and too many are still there.
    fn is_one_enough(&self) -> bool {
        self.counts.total() <= self.book.limits.total_max()
    }
}
