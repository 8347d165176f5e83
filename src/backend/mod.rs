//! Connections to Redis nodes, and the ledger that counts them.
//!
//! A [`Node`] is what the whole process knows of one Redis: its budget, its
//! credentials, what it says of itself. A [`Conn`] is one connection of one
//! worker, shared or held by one client. Always true: no connection is opened
//! without a slot of the ledger, and replies leave a connection in the order in
//! which their requests were appended.

pub mod backoff;
pub mod budget;
mod conn;
pub mod credential;
mod entry;
pub mod handshake;
mod node;
mod own;
mod pace;
mod ring;
pub mod server;
mod vitals;

pub use budget::{
    BudgetLimits, Kind, Ledger, LedgerSnapshot, Limit, Link, Partition, Phase, Refused,
    RefusedBecause, SharedGrant, SharedReady, SharedWait, Slot,
};
pub use conn::{
    Broken, Conn, Due, Held, Io, Mode, OneIn, SampledReply, Sampler, Sink, SlowReplies, SlowReply,
    first_bulk, is_about_node, is_demoted,
};
pub use credential::{Credential, Credentials, User, UserId};
pub use entry::{Entry, Marks, Ticket};
pub use node::{
    DefaultUser, Gate, Large, LargePermit, LargeTold, LargeWish, Limits, Node, NodeCounters,
    NodeSpec, NodeTls, OpenError, Opened, close_holding, close_politely,
};
pub use ring::Ring;
pub use server::{Flavour, ServerFacts};
pub use vitals::Vitals;
