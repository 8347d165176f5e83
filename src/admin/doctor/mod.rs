//! The on-call runbook, automated: what is wrong, how that can be seen, what to do.
//!
//! [`gather()`] collects what is known of each route (the record, the ledger, who is
//! connected, what Redis says of itself); [`diagnose`] is a pure function from that to
//! findings. Connections run out in a handful of ways that look alike on a graph of
//! connections and need opposite remedies: more clients than usual, one that leaks, a
//! limit that is too low, workers that block, a Redis that is slow, one command that is.

mod causes;
mod evidence;
mod gather;
mod report;

pub use causes::{Cause, Finding, diagnose};
pub use evidence::{Evidence, IdentityEvidence, KeyEvidence, NodeEvidence, Rates, SlowCommand};
pub use gather::gather;
pub use report::{json, text};
