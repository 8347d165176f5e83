//! Builds the parts in floor order and runs them.

mod accept;
pub mod cli;
pub mod logging;
pub mod serve;
