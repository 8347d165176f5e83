//! May this go ahead: counted slots for clients, and whether a node is fit for work.
//!
//! Slots are taken when a client is accepted, and what is taken is given back on
//! drop, so that every way out of a session is safe.

mod breaker;
mod permit;

pub use breaker::{Breaker, BreakerLimits, BreakerState, Change, Tally, Trip};
pub use permit::{ClientPermit, ClientSlots, NoSlot};
