//! The built-in rows: one for each command of Redis 6.2 to 8 and Valkey 9.
//!
//! Arity, server flags and key positions are facts from the servers' own
//! `COMMAND` replies (checked by `tests/command_table.rs`); the class and
//! Weir's own flags are decisions, from the project's rules for each command.
//! Where versions differ the most permissive fact is taken: the live server's
//! word replaces it at run time.

mod cluster;
mod connection;
mod hashes_and_lists;
mod keyspace;
mod scripting;
mod server;
mod sets;
mod sorted_sets;
mod streams;
mod strings;

use super::class::Class::*;
use super::class::{Blocking, Class, Local, Sub};
use super::flags::Flags;
use super::key_spec::{KeySpec, places::*};

/// One command as the rows write it down.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) arity: i16,
    pub(super) flags: Flags,
    pub(super) keys: &'static [KeySpec],
    pub(super) class: Class,
}

/// All rows; subcommands are named `container|subcommand`.
pub(super) fn all() -> impl Iterator<Item = &'static Row> {
    [
        strings::ROWS,
        keyspace::ROWS,
        hashes_and_lists::ROWS,
        sets::ROWS,
        sorted_sets::ROWS,
        streams::ROWS,
        connection::ROWS,
        scripting::ROWS,
        server::ROWS,
        cluster::ROWS,
    ]
    .into_iter()
    .flatten()
}

const fn row(
    name: &'static str,
    arity: i16,
    flags: u32,
    keys: &'static [KeySpec],
    class: Class,
) -> Row {
    Row {
        name,
        arity,
        flags: Flags::from_bits(flags),
        keys,
        class,
    }
}

// The flags again as numbers, since a constant cannot be made with an
// overloaded `|`.
const NOTHING: u32 = 0;
const READONLY: u32 = Flags::READONLY.bits();
const WRITE: u32 = Flags::WRITE.bits();
const ADMIN: u32 = Flags::ADMIN.bits();
const PUBSUB: u32 = Flags::PUBSUB.bits();
const NOSCRIPT: u32 = Flags::NOSCRIPT.bits();
const STALE: u32 = Flags::STALE.bits();
const LOADING: u32 = Flags::LOADING.bits();
const NO_AUTH: u32 = Flags::NO_AUTH.bits();
const NO_MULTI: u32 = Flags::NO_MULTI.bits();
const ALLOW_BUSY: u32 = Flags::ALLOW_BUSY.bits();
const RETRY_SAFE: u32 = Flags::RETRY_SAFE.bits();
const SLOW: u32 = Flags::SLOW.bits();
const MAY_REPLICATE: u32 = Flags::MAY_REPLICATE.bits();
const STATE: u32 = Flags::STATE.bits();
const IN_SUBSCRIBER: u32 = Flags::IN_SUBSCRIBER.bits();

/// A write that may need more memory.
const GROWS: u32 = WRITE | Flags::DENYOOM.bits();
/// Only reads, so it may be sent again.
const READS: u32 = READONLY | RETRY_SAFE;
/// Answered while loading and by a stale replica.
const ANYTIME: u32 = LOADING | STALE;
/// Answered at any time, but not in scripts: about the connection, not the data.
const SESSION: u32 = NOSCRIPT | ANYTIME;
