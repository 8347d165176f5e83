//! Builds the parts in floor order and runs them.

mod accept;
mod certificates;
pub mod cli;
mod fetch;
mod leave;
mod life;
pub mod logging;
mod notify;
mod pace;
mod reload;
pub mod serve;
mod top;
pub mod upgrade;
