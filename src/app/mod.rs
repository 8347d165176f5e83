//! Builds the parts in floor order and runs them.

pub mod cli;
pub mod logging;
pub mod serve;
