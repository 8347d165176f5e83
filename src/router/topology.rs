//! What is known of a deployment at one moment.

use super::{Health, Standing};

/// Names a node for as long as the process runs; none is given twice. A node that
/// goes and comes back under its address is another one.
pub type NodeId = u32;

/// What a node is in its deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Nobody has asked yet.
    Unknown,
    /// Takes the writes.
    Primary,
    /// Copies the primary, or a node that does.
    Replica,
}

impl Role {
    /// The stable label of metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Role::Unknown => "unknown",
            Role::Primary => "primary",
            Role::Replica => "replica",
        }
    }
}

/// One node of a deployment.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Which.
    pub id: NodeId,
    /// Where it is dialled: host and port.
    pub address: String,
    /// What it is.
    pub role: Role,
    /// Whether it serves.
    pub health: Health,
    /// How it stands to the deployment.
    pub standing: Standing,
    /// Its last write to disk failed.
    pub disk_error: bool,
    /// Its share of the reads that replicas serve, from 0 (none) to 1.
    pub read_weight: f32,
    /// How fast it answers a probe, in microseconds, smoothed.
    pub latency_us: u64,
}

/// A deployment at one moment; immutable, a change makes another one.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    /// Grows with every change.
    pub epoch: u64,
    /// The nodes; at least one.
    pub members: Vec<Member>,
    /// Place in [`Topology::members`] of the node that commands go to: the primary, or
    /// the one that was it last.
    pub primary: usize,
    /// Whether that node is one and can be used. Else what needs it waits, or fails.
    pub is_writable: bool,
}

impl Topology {
    /// A deployment of one node, which is all there is to know of it.
    pub fn standalone(id: NodeId, address: String) -> Topology {
        Topology {
            epoch: 0,
            members: vec![Member {
                id,
                address,
                role: Role::Primary,
                health: Health::Unknown,
                standing: Standing::Primary,
                disk_error: false,
                read_weight: 0.0,
                latency_us: 0,
            }],
            primary: 0,
            is_writable: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_node_is_the_primary() {
        let topology = Topology::standalone(7, "127.0.0.1:6379".into());
        assert_eq!(topology.members[topology.primary].id, 7);
        assert_eq!(topology.members[0].role, Role::Primary);
    }
}
