//! One process takes the place of another: a new executable, no connection refused.
//!
//! The one that runs (the *elder*) starts the executable again as its child (the
//! *successor*), with one end of a socket pair as its standard input. Over it go the
//! listening sockets, and then lines of JSON, each an array whose first word says what it
//! is; words that one side does not know it skips, since the two may be of different
//! versions.
//!
//! ```text
//! elder                                successor
//!   ["weir",1]                           reads its settings, adopts the sockets
//!   ["socket",keeps_file] + descriptor   "failed",why   ── it ends; the elder goes on
//!   ["sockets_end"]                      "want",route,node,n
//!   "lent",route,node                    asks the nodes what they are
//!   "go"  ◀── shuts its doors ──         "ready"
//!   drains, lends what comes free        opens its doors
//!   "return",route,node  ──▶             "returned",route,node
//!   "all"                                has the whole budget
//!
//!   "refused",route,node                 one that was waited for in vain
//!   "own",route,node                     a node that the elder does not know
//!   "most",route,node,n                  no more than n are waited for at once
//! ```
//!
//! **The budget** stays one, and the elder's ledger keeps it: what the successor may have
//! open is there as slots of [`Kind::Lent`](crate::backend::Kind), which stand in line and
//! are asked to yield as all others. The successor's own ledger is capped at what was lent
//! to it. So the sum never exceeds `max_connections`, and on a budget of one the two take
//! turns. When one of them dies, what it had is free a second later: by then the kernel
//! has closed its connections and Redis has seen it.
//!
//! Until "go" the elder serves as if nothing had happened. Afterwards it keeps the listening
//! sockets until it ends: if the successor dies before, it opens its doors again.

mod elder;
mod executable;
mod link;
mod successor;

use std::time::Duration;

pub(super) use elder::{Elder, Told, start};
pub(super) use executable::Executable;
pub(super) use successor::{Follower, Heard, follow};
pub use successor::{Successor, complain};

/// Names the elder's process id to its successor.
const VARIABLE: &str = "WEIR_UPGRADE";

/// Both speak this.
const VERSION: u64 = 1;

/// Why a successor has gone that was told to.
pub(super) const TOLD_TO_STOP: &str = "it was told to stop";

/// A process that was killed may have sent its last packets just now: Redis counts its
/// connections until it has them.
const UNTIL_SEEN: Duration = Duration::from_secs(1);
