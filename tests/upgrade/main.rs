//! One process of Weir takes the place of another, with real processes: nobody is refused,
//! no reply is cut, and Redis never sees more connections than one budget.

// Real sockets and processes are waited for, not a clock that tests stop.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

#[path = "../support/mod.rs"]
mod support;

mod activation;
mod chain;
mod deaths;
mod failures;
mod load;
mod nodes;
mod others;
