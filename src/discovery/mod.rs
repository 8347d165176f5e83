//! Keeps the topology of each route's deployment true.
//!
//! A [`Deployment`] is what the process knows of the nodes behind one route: a
//! [`Snapshot`] of them that workers read, swapped when something changes. Run by
//! `app` on the main thread, so that no load on a worker delays it; read by `session`.
//! Always true: there is a snapshot, and it has a node that commands go to.

mod deployment;
mod members;
mod names;
mod probe;
mod resolve;
mod sentinel;
mod share;
mod watch;

pub use deployment::{Deployment, Snapshot};
