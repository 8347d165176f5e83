//! Which node serves a session's reads.

use super::Topology;
use crate::config::ReadFrom;

/// Times closer than this to the fastest are as fast, in microseconds: within one network
/// more is noise.
const AS_FAST: u64 = 200;

impl Topology {
    /// The place of the node that serves the reads of a session; `None` for the primary, as
    /// for everything else. `seed` is the session's own: each stays with its node, and the
    /// sessions are spread over the nodes by their weights.
    ///
    /// # Errors
    /// [`NoReplica`] where only replicas may serve and none can.
    pub fn reader(&self, policy: ReadFrom, seed: u64) -> Result<Option<usize>, NoReplica> {
        let replicas = || self.members.iter().map(|member| member.read_weight);
        let chosen = match policy {
            ReadFrom::Primary => None,
            ReadFrom::PreferReplica => choose(seed, replicas()),
            ReadFrom::Replica => return choose(seed, replicas()).map(Some).ok_or(NoReplica),
            ReadFrom::Nearest => choose(seed, self.nearest()),
        };
        Ok(chosen.filter(|&index| index != self.primary))
    }

    /// The place of the one node that serves scans where the primary must not: the same
    /// for all sessions, since a cursor means something on its own node only.
    ///
    /// # Errors
    /// [`NoReplica`] if none can.
    pub fn scanned(&self, policy: ReadFrom) -> Result<Option<usize>, NoReplica> {
        if policy != ReadFrom::Replica {
            return Ok(None);
        }
        let serves = |index: &usize| self.members[*index].read_weight > 0.0;
        let first = (0..self.members.len()).find(serves);
        first.map(Some).ok_or(NoReplica)
    }

    /// The weights of the nodes that answer about as fast as the fastest.
    fn nearest(&self) -> impl Iterator<Item = f32> {
        let serves = |index: usize| {
            let member = &self.members[index];
            let is_primary = index == self.primary && self.is_writable;
            is_primary || member.read_weight > 0.0
        };
        let times = (0..self.members.len())
            .filter(|&index| serves(index))
            .map(|index| self.members[index].latency_us);
        let fastest = times.min().unwrap_or(0);
        let limit = (fastest + AS_FAST).max(fastest + fastest / 4);
        (0..self.members.len()).map(move |index| {
            let member = &self.members[index];
            match (serves(index), member.latency_us <= limit) {
                (true, true) if index == self.primary => 1.0,
                (true, true) => member.read_weight,
                _ => 0.0,
            }
        })
    }
}

/// Only a replica may serve these reads, and none can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoReplica;

/// Rendezvous hashing with weights: each session has its own order of the nodes, so that
/// a node that goes or comes moves only the sessions that it has to.
fn choose(seed: u64, weights: impl Iterator<Item = f32>) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (index, weight) in weights.enumerate() {
        if weight <= 0.0 {
            continue;
        }
        // From 0 to 1, neither included.
        let fraction = ((mix(seed, index as u64) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let score = -f64::from(weight) / fraction.ln();
        if best.is_none_or(|(_, highest)| score > highest) {
            best = Some((index, score));
        }
    }
    best.map(|(index, _)| index)
}

/// One step of splitmix64: neighbouring seeds give unlike numbers.
fn mix(seed: u64, index: u64) -> u64 {
    let mut z = seed
        .wrapping_mul(0xD6E8_FEB8_6659_FD93)
        .wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15))
        .wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::{Health, Member, Role, Standing};

    fn member(id: u32, role: Role, read_weight: f32, latency_us: u64) -> Member {
        Member {
            id,
            address: format!("node:{id}"),
            role,
            health: Health::Up,
            standing: Standing::Follower,
            disk_error: false,
            read_weight,
            latency_us,
        }
    }

    fn topology(weights: [f32; 3]) -> Topology {
        let replica = |id: u32, weight| member(id, Role::Replica, weight, 100);
        Topology {
            epoch: 1,
            members: vec![
                member(0, Role::Primary, 0.0, 100),
                replica(1, weights[0]),
                replica(2, weights[1]),
                replica(3, weights[2]),
            ],
            primary: 0,
            is_writable: true,
        }
    }

    fn spread(topology: &Topology, policy: ReadFrom) -> [usize; 4] {
        let mut counts = [0; 4];
        for seed in 0..10_000 {
            counts[topology.reader(policy, seed).unwrap().unwrap_or(0)] += 1;
        }
        counts
    }

    #[test]
    fn sessions_are_spread_by_weight_and_stay_where_they_are() {
        let all = topology([1.0, 1.0, 1.0]);
        for count in &spread(&all, ReadFrom::PreferReplica)[1..] {
            assert!((3_100..3_600).contains(count), "{count}");
        }
        let ramping = topology([1.0, 1.0, 0.25]);
        let counts = spread(&ramping, ReadFrom::PreferReplica);
        assert!((950..1_300).contains(&counts[3]), "{counts:?}");
        // Only the sessions of the node that went have moved.
        let two = topology([1.0, 1.0, 0.0]);
        for seed in 0..1_000 {
            let (before, after) = (
                all.reader(ReadFrom::Replica, seed).unwrap(),
                two.reader(ReadFrom::Replica, seed).unwrap(),
            );
            assert!(before == Some(3) || before == after, "{seed}");
        }
    }

    #[test]
    fn without_a_replica_each_policy_does_as_it_says() {
        let none = topology([0.0; 3]);
        assert_eq!(none.reader(ReadFrom::PreferReplica, 1), Ok(None));
        assert_eq!(none.reader(ReadFrom::Nearest, 1), Ok(None));
        assert_eq!(none.reader(ReadFrom::Replica, 1), Err(NoReplica));
        assert_eq!(none.scanned(ReadFrom::Replica), Err(NoReplica));
        assert_eq!(none.scanned(ReadFrom::Nearest), Ok(None));
    }

    #[test]
    fn the_nearest_is_the_fastest_and_those_that_are_as_fast() {
        let mut far = topology([1.0; 3]);
        far.members[1].latency_us = 250;
        far.members[2].latency_us = 5_000;
        far.members[3].latency_us = 40_000;
        let counts = spread(&far, ReadFrom::Nearest);
        assert!(counts[0] > 4_500 && counts[1] > 4_500, "{counts:?}");
        assert_eq!(counts[2..], [0, 0]);
        // A primary that is gone is not near.
        far.is_writable = false;
        assert_eq!(spread(&far, ReadFrom::Nearest)[0], 0);
    }

    #[test]
    fn scans_of_all_sessions_are_on_one_node() {
        assert_eq!(
            topology([0.0, 1.0, 1.0]).scanned(ReadFrom::Replica),
            Ok(Some(2))
        );
        assert_eq!(
            topology([1.0; 3]).scanned(ReadFrom::PreferReplica),
            Ok(None)
        );
    }
}
