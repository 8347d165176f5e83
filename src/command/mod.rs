//! What each Redis command means to a proxy.
//!
//! The session asks the [`Table`] about every request: does the command exist,
//! how many arguments may it have, does it read or write, and how must it
//! travel ([`Class`]). The built-in rows know Redis up to 8 and Valkey up to 9;
//! what the server itself says about its commands is laid over them
//! ([`Table::with_live`]), so that versions, modules and renamed commands are
//! learnt and not assumed.
//!
//! Everything here is pure: no sockets, no state of a session. Some commands
//! cannot be judged by their name alone (`XREAD` with or without `BLOCK`):
//! [`class_of`] looks at the arguments, [`blocking`] at what a waiter waits for,
//! [`keys`] at the keys.

mod access;
mod args;
mod class;
mod flags;
mod index;
mod key_spec;
mod live;
mod miss;
mod refusal;
mod rows;
mod server_version;
mod table;

pub use access::{Access, AccessRules, Denied, GROUPS};
pub use args::{Args, integer};
pub use class::{Blocking, Class, Local, Sub, class_of, retry_safe};
pub use flags::Flags;
pub use key_spec::{Begin, Find, KeySpec, keys};
pub use miss::{done, miss};
pub use refusal::{refusal, unknown_subcommand};
pub use server_version::{Flavour, ServerVersion};
pub use table::{Command, CommandId, Table};

pub mod blocking;
