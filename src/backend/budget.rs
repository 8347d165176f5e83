//! The ledger: every connection of whatever kind to one node is counted here.
//!
//! There is one [`Ledger`] for each node, shared by all workers. It is touched
//! when a connection is opened, changes its phase or is closed, never for a
//! command, so one lock inside it is enough. Nothing opens a connection without
//! a [`Slot`]; a slot is given back when it is dropped, and it is dropped only
//! when the peer's end of the connection was seen closed. There are never more
//! slots than `max_connections`: that is how the budget holds.
//!
//! # Who gets a slot
//!
//! Kinds fall into three groups, because what a full budget can do about them
//! differs ([`Group`]):
//!
//! - *shared*: holds commands of many clients, which finish soon. Its owner can
//!   be asked to give its slot back; it then finishes what is in flight.
//! - *service*: control, auth and probe connections; the same.
//! - *held*: leases, blocking, subscriptions, tunnels. One client holds them for
//!   as long as its own business takes; they are never asked while in use.
//!
//! Since held slots cannot be called back, room is kept for the others: from two
//! connections on, one is never held; from four on, another one is kept for
//! service, so that a saturated budget blinds neither probes nor control
//! ([`BudgetLimits::held_max`], [`BudgetLimits::data_max`]). None of the held kinds
//! may have more than three quarters of what may be held.
//!
//! A free slot goes to the lines in turn: among the kinds that may have it, the
//! one that was served longest ago; within a kind, first come first served. For
//! shared connections what stands in line is a *partition*: a worker whose
//! partition has a connection on some worker gets a link to it at once, so only
//! partitions without any connection wait, and every one of them gets its first
//! slot before any gets a second.
//!
//! # When nothing is free
//!
//! Whoever stands in line makes the ledger ask somebody for a slot, in this
//! order (`yields.rs`): a connection that has been idle for long; one of several
//! of the same partition; one that is idle; the shared or service connection
//! that was held longest, after a minimum hold. The last step is the rotation by
//! which `max_connections = 1` serves many partitions and kinds. Held kinds may
//! take that last step only up to their guaranteed half
//! ([`BudgetLimits::held_floor`]): beyond it they wait rather than make plain
//! traffic rotate.
//!
//! # What the owner of a slot does
//!
//! 1. Takes the slot, dials, shakes hands, says `Open`. If dialling fails it drops the
//!    slot; whoever is next in line gets it at once, so pace dials elsewhere.
//! 2. Waits on [`Slot::asked_to_yield`] all the time, and says [`Slot::set_idle`] and
//!    [`Slot::set_busy`] when that changes.
//! 3. When asked, or for reasons of its own after [`Slot::retire`]: lets what is in
//!    flight finish, says `Closing`, closes, reads until the peer's end is closed, and
//!    only then drops the slot.
//!
//! The decisions are made by a pure core (`book.rs`, `lines.rs`, `yields.rs`:
//! events in, decisions out, no lock, no clock); `ledger.rs` is the shell around it.

mod book;
mod kind;
mod ledger;
mod limits;
mod lines;
mod slot;
mod snapshot;
mod wait;
mod yields;

#[cfg(test)]
mod book_properties;
#[cfg(test)]
mod book_tests;
#[cfg(test)]
mod ledger_tests;
#[cfg(test)]
mod world;

pub use kind::{Group, Kind, Partition, Phase};
pub use ledger::{Ledger, SharedGrant};
pub use limits::{BudgetLimits, Limit, Refused, RefusedBecause};
pub use slot::{Link, Slot};
pub use snapshot::{LedgerCounters, LedgerSnapshot};
pub use wait::{SharedReady, SharedWait};
pub use yields::{LONG_IDLE, MIN_HOLD, QUIET};
