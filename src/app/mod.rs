//! Builds the parts in floor order and runs them.

mod accept;
pub mod cli;
mod fetch;
pub mod logging;
pub mod serve;
