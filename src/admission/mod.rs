//! May this go ahead: counted slots for clients.
//!
//! Called when a client is accepted. What is taken is given back on drop, so
//! that every way out of a session is safe.

mod permit;

pub use permit::{ClientPermit, ClientSlots, NoSlot};
