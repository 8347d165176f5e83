//! How many connections of which kind there may be, and the arithmetic of it.

use super::kind::{Group, Kind};
use crate::config::Backend;

/// The limits of one node's budget. All can be changed while running
/// ([`Ledger::set_limits`](super::Ledger::set_limits)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetLimits {
    /// Connections to the node in all, whatever their kind and phase. 0 counts as 1:
    /// a node that may not be connected to at all is not served by closing its budget.
    pub max_connections: usize,
    /// Of these, shared connections. 0 counts as 1, or plain traffic could never flow.
    pub max_shared: usize,
    /// Of these, leases and tunnels together.
    pub max_leases: usize,
    /// Of these, connections that carry a blocking command.
    pub max_blocking: usize,
    /// Of these, connections that subscribe.
    pub max_subscriptions: usize,
    /// How many may stand in line for a slot, for each kind.
    pub queue_max: usize,
    /// While two processes share `max_connections`, as one replaces the other: how many
    /// of them are this one's. Not a setting; 0 is 0.
    pub cap: Option<usize>,
}

impl BudgetLimits {
    /// The limits that these settings ask for.
    pub fn of(config: &Backend) -> Self {
        Self {
            max_connections: config.max_connections,
            max_shared: config.max_shared,
            max_leases: config.max_leases,
            max_blocking: config.max_blocking,
            max_subscriptions: config.max_subscriptions,
            queue_max: config.lease_queue,
            cap: None,
        }
    }

    /// Connections in all: at least one, but for a process that shares them with another.
    pub fn total_max(&self) -> usize {
        let all = self.max_connections.max(1);
        self.cap.map_or(all, |cap| all.min(cap))
    }

    /// How many slots may be held at once. Held slots cannot be called back, so from
    /// two connections on one is never held and plain traffic always moves; from four
    /// on the slot that is kept for service is not held either.
    pub fn held_max(&self) -> usize {
        match self.total_max() {
            max @ (0 | 1) => max,
            max @ (2 | 3) => max - 1,
            max => max - 2,
        }
    }

    /// How many slots one held kind may have: three quarters of what may be held, so
    /// that on a small budget a few blocked clients cannot keep every `WATCH` out.
    /// Leases and tunnels count as one kind here.
    pub fn held_kind_max(&self) -> usize {
        (self.held_max() * 3 / 4).max(1)
    }

    /// How many connections can carry a blocking command at once: `max_blocking`, or what
    /// a small budget leaves of it. Whoever gives out places for blocked clients counts
    /// on no more than these.
    pub fn blocking_max(&self) -> usize {
        self.max_blocking.min(self.held_kind_max())
    }

    /// How many slots held kinds can get even when that makes plain traffic take
    /// turns: half of them, since WATCH or a blocked client deserves to make
    /// progress too, but at least one, or a budget of one would never serve them.
    pub fn held_floor(&self) -> usize {
        (self.total_max() / 2).clamp(1, self.held_max().max(1))
    }

    /// How many slots shared and held connections may have together: from four
    /// connections on, one is kept for service.
    pub fn data_max(&self) -> usize {
        match self.total_max() {
            max @ 0..=3 => max,
            max => max - 1,
        }
    }

    /// How many slots control, auth and probe connections may have together: a
    /// quarter, but two as soon as that leaves data anything, so that a probe which
    /// waits for its answer does not hold up a login.
    pub fn service_max(&self) -> usize {
        match self.total_max() {
            0..=2 => 1,
            max => (max / 4).max(2),
        }
    }
}

/// Which limit it was that left no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// `max_connections`.
    Connections,
    /// `max_shared`.
    Shared,
    /// `max_leases`.
    Leases,
    /// `max_blocking`.
    Blocking,
    /// `max_subscriptions`.
    Subscriptions,
    /// What is kept of `max_connections` for other groups.
    Reserve,
}

impl Limit {
    /// The setting to turn, as it is called in the configuration. What is kept for
    /// others is a part of `max_connections`.
    pub const fn setting(self) -> &'static str {
        match self {
            Limit::Connections | Limit::Reserve => "max_connections",
            Limit::Shared => "max_shared",
            Limit::Leases => "max_leases",
            Limit::Blocking => "max_blocking",
            Limit::Subscriptions => "max_subscriptions",
        }
    }
}

/// A slot was not to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// What it was wanted for.
    pub kind: Kind,
    /// The limit that left no room.
    pub limit: Limit,
    /// That limit's value.
    pub limit_value: usize,
    /// Why it was not waited for, or not any longer.
    pub because: RefusedBecause,
}

/// Why a wait for a slot did not begin, or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusedBecause {
    /// `queue_max` were in line already.
    QueueFull,
    /// The deadline passed first.
    TimedOut,
    /// The limit is zero: waiting would be in vain.
    LimitIsZero,
}

/// How many slots there are of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    by_kind: [usize; Kind::COUNT],
}

impl Counts {
    pub(super) fn add(&mut self, kind: Kind) {
        self.by_kind[kind.index()] += 1;
    }

    pub(super) fn remove(&mut self, kind: Kind) {
        debug_assert!(self.by_kind[kind.index()] > 0, "{kind:?} was not counted");
        self.by_kind[kind.index()] -= 1;
    }

    pub(super) fn of(&self, kind: Kind) -> usize {
        self.by_kind[kind.index()]
    }

    pub(super) fn total(&self) -> usize {
        self.by_kind.iter().sum()
    }

    pub(super) fn group(&self, group: Group) -> usize {
        Kind::ALL
            .iter()
            .filter(|kind| kind.group() == group)
            .map(|&kind| self.of(kind))
            .sum()
    }

    /// Whether one more of this kind is within every limit; else which it is not.
    pub(super) fn admit(&self, kind: Kind, limits: &BudgetLimits) -> Result<(), Limit> {
        self.admit_kind(kind, limits)?;
        if self.total() >= limits.total_max() {
            return Err(Limit::Connections);
        }
        self.admit_group(kind.group(), limits)
    }

    /// Whether a slot may turn from one kind into another.
    pub(super) fn admit_instead(
        &self,
        from: Kind,
        to: Kind,
        limits: &BudgetLimits,
    ) -> Result<(), Limit> {
        let mut without = self.clone();
        without.remove(from);
        without.admit_kind(to, limits)?;
        without.admit_group(to.group(), limits)
    }

    /// Whether a limit that was lowered is exceeded in such a way that one less of this
    /// kind would help.
    pub(super) fn is_too_many(&self, kind: Kind, limits: &BudgetLimits) -> bool {
        if self.of(kind) == 0 {
            return false;
        }
        let mut without = self.clone();
        without.remove(kind);
        // What is there now would not be admitted again.
        without.admit(kind, limits).is_err()
    }

    fn admit_kind(&self, kind: Kind, limits: &BudgetLimits) -> Result<(), Limit> {
        let (used, max, limit) = match kind {
            Kind::Shared => (self.of(kind), limits.max_shared.max(1), Limit::Shared),
            Kind::Lease | Kind::Tunnel => (
                self.of(Kind::Lease) + self.of(Kind::Tunnel),
                limits.max_leases,
                Limit::Leases,
            ),
            Kind::Blocking => (self.of(kind), limits.max_blocking, Limit::Blocking),
            Kind::Subscription => (
                self.of(kind),
                limits.max_subscriptions,
                Limit::Subscriptions,
            ),
            Kind::Control | Kind::Auth | Kind::Probe | Kind::Lent => return Ok(()),
        };
        if used >= max {
            Err(limit)
        } else if kind.group() == Group::Held && used >= limits.held_kind_max() {
            Err(Limit::Reserve)
        } else {
            Ok(())
        }
    }

    fn admit_group(&self, group: Group, limits: &BudgetLimits) -> Result<(), Limit> {
        let (held, service) = (self.group(Group::Held), self.group(Group::Service));
        let data = held + self.group(Group::Shared);
        let room = match group {
            Group::Shared => data < limits.data_max(),
            Group::Held => held < limits.held_max() && data < limits.data_max(),
            Group::Service => service < limits.service_max(),
            // The one that lends keeps one, or its own clients could not finish.
            Group::Lent => self.of(Kind::Lent) < limits.total_max().saturating_sub(1).max(1),
        };
        if room { Ok(()) } else { Err(Limit::Reserve) }
    }
}

impl BudgetLimits {
    /// The number behind a limit, for the error that names it.
    pub(super) fn value(&self, limit: Limit) -> usize {
        match limit {
            // A cap of 0 is no reason not to wait: it is raised soon.
            Limit::Connections | Limit::Reserve => self.total_max().max(1),
            Limit::Shared => self.max_shared.max(1),
            Limit::Leases => self.max_leases,
            Limit::Blocking => self.max_blocking,
            Limit::Subscriptions => self.max_subscriptions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(max_connections: usize) -> BudgetLimits {
        BudgetLimits {
            max_connections,
            max_shared: 1000,
            max_leases: 1000,
            max_blocking: 1000,
            max_subscriptions: 1000,
            queue_max: 10,
            cap: None,
        }
    }

    #[test]
    fn what_is_kept_for_whom_by_size_of_the_budget() {
        let table = [
            // max, held_max, held_kind_max, held_floor, data_max, service_max
            (0, 1, 1, 1, 1, 1),
            (1, 1, 1, 1, 1, 1),
            (2, 1, 1, 1, 2, 1),
            (3, 2, 1, 1, 3, 2),
            (4, 2, 1, 2, 3, 2),
            (8, 6, 4, 4, 7, 2),
            (64, 62, 46, 32, 63, 16),
        ];
        for (max, held_max, held_kind_max, held_floor, data_max, service_max) in table {
            let l = limits(max);
            assert_eq!(
                (
                    l.held_max(),
                    l.held_kind_max(),
                    l.held_floor(),
                    l.data_max(),
                    l.service_max()
                ),
                (held_max, held_kind_max, held_floor, data_max, service_max),
                "max_connections = {max}"
            );
        }
    }

    #[test]
    fn leases_leave_a_slot_for_shared_and_one_for_service() {
        let limits = limits(4);
        let mut counts = Counts::default();
        counts.add(Kind::Lease);
        assert_eq!(
            counts.admit(Kind::Lease, &limits),
            Err(Limit::Reserve),
            "for other kinds"
        );
        counts.add(Kind::Blocking);
        assert_eq!(counts.admit(Kind::Tunnel, &limits), Err(Limit::Reserve));
        assert_eq!(counts.admit(Kind::Shared, &limits), Ok(()));
        counts.add(Kind::Shared);
        assert_eq!(counts.admit(Kind::Shared, &limits), Err(Limit::Reserve));
        assert_eq!(counts.admit(Kind::Probe, &limits), Ok(()));
        counts.add(Kind::Probe);
        assert_eq!(
            counts.admit(Kind::Control, &limits),
            Err(Limit::Connections)
        );
    }

    #[test]
    fn a_small_budget_has_fewer_places_for_blocked_clients() {
        for (max_connections, max_blocking, places) in [
            (24, 24, 16),
            (24, 8, 8),
            (64, 32, 32),
            (2, 2, 1),
            (64, 0, 0),
        ] {
            let limits = BudgetLimits {
                max_blocking,
                ..limits(max_connections)
            };
            assert_eq!(limits.blocking_max(), places);
            let mut counts = Counts::default();
            while counts.admit(Kind::Blocking, &limits).is_ok() {
                counts.add(Kind::Blocking);
            }
            assert_eq!(counts.of(Kind::Blocking), places, "as the ledger counts");
        }
    }

    #[test]
    fn a_cap_of_nothing_admits_nobody() {
        let limits = BudgetLimits {
            cap: Some(0),
            ..limits(8)
        };
        let counts = Counts::default();
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Lent) {
            assert_eq!(
                counts.admit(kind, &limits),
                Err(Limit::Connections),
                "{kind:?}"
            );
        }
        assert_eq!((limits.held_max(), limits.held_floor()), (0, 1));
        assert_eq!(limits.value(Limit::Connections), 1, "worth waiting for");
    }

    #[test]
    fn what_is_lent_leaves_one() {
        let limits = limits(3);
        let mut counts = Counts::default();
        while counts.admit(Kind::Lent, &limits).is_ok() {
            counts.add(Kind::Lent);
        }
        assert_eq!(counts.of(Kind::Lent), 2);
        assert_eq!(counts.admit(Kind::Shared, &limits), Ok(()));
    }

    #[test]
    fn tunnels_count_as_leases() {
        let limits = BudgetLimits {
            max_leases: 1,
            ..limits(8)
        };
        let mut counts = Counts::default();
        counts.add(Kind::Tunnel);
        assert_eq!(counts.admit(Kind::Lease, &limits), Err(Limit::Leases));
        assert_eq!(
            counts.admit_instead(Kind::Tunnel, Kind::Lease, &limits),
            Ok(())
        );
    }
}
