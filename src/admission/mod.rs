//! May this go ahead: places for clients, in all and by identity, the gate in front of a node
//! for commands, and whether a node is fit for work.
//!
//! Places are asked for when a client is accepted, when it says who it is, and when it goes.
//! What is taken is given back on drop, so that every way out of a session is safe. [`gate`]
//! is one worker's, entered for each command.
//!
//! How many commands and bytes those who are counted together may ask for is
//! `allowance.rs`: shared without a lock, in parts that each worker spends by itself.
//!
//! Who is counted with whom is `identity.rs`, which rules there are `rules.rs`, the account of
//! it all, pure, `book.rs`; [`Limits`] is the shell that workers share.

mod allowance;
mod batches;
mod book;
mod breaker;
pub mod cost;
mod delay;
mod drain;
pub mod gate;
mod growth;
mod identity;
mod idle;
mod in_flight;
mod large;
mod limits;
pub mod pattern;
mod place;
mod rate_watch;
mod room;
mod rules;
mod terms;
mod token_bucket;
mod top;
mod watch;

pub use allowance::{Allowance, Purse, Rate};
pub use breaker::{Breaker, BreakerLimits, BreakerState, Change, Tally, Trip};
pub use cost::Costs;
pub use gate::{Gate, GateLimits, Priority, Verdict, Work};
pub use growth::Grown;
pub use identity::{Group, Key, RuleTally, Who};
pub use idle::idle_timeout;
pub use large::{LARGE_REPLY, LargeLimits, LargeReplies, UnderWay, length_bit, request_name};
pub use limits::{ClientPermit, Limits, SetError, Setting};
pub use pattern::matches as matches_pattern;
pub use place::{NoPlace, NoRoom};
pub use room::{OFFERS_MAX, Offer};
pub use rules::{Rule, RuleSet};
pub use terms::{Metered, Terms};
pub use token_bucket::TokenBucket;
pub use top::{IdleAges, TopIdentity};
pub use watch::{Notice, What};
