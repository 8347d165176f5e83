//! Where to: which node of a deployment a command goes to. Pure: no sockets, no
//! clock, no locks.
//!
//! Called by `discovery`, which keeps a [`Topology`] true, and by the workers, which
//! ask it for every session (not for every command). Always true: a topology has at
//! least one member, and one of them is its primary or was the last to be it.

mod election;
mod lag;
mod reads;
mod report;
mod topology;

pub use election::{Candidate, Lineage, Standing, Verdict, elect};
pub use lag::OffsetSamples;
pub use reads::NoReplica;
pub use report::{Health, Report};
pub use topology::{Member, NodeId, Role, Topology};
