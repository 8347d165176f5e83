//! What is known of a command besides how it travels.

use std::ops::{BitOr, BitOrAssign};

/// A set of properties of a command.
///
/// The first group is what Redis itself says in its `COMMAND` reply and is
/// replaced by the live server's word; the second is Weir's own knowledge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(u32);

impl Flags {
    /// No property at all.
    pub const NOTHING: Self = Self(0);

    /// Only reads.
    pub const READONLY: Self = Self(1);
    /// May change data.
    pub const WRITE: Self = Self(1 << 1);
    /// Refused by a server over its `maxmemory`.
    pub const DENYOOM: Self = Self(1 << 2);
    /// Administrative; not fed to `MONITOR`.
    pub const ADMIN: Self = Self(1 << 3);
    /// Part of publish/subscribe.
    pub const PUBSUB: Self = Self(1 << 4);
    /// Not allowed in scripts.
    pub const NOSCRIPT: Self = Self(1 << 5);
    /// May block its connection.
    pub const BLOCKING: Self = Self(1 << 6);
    /// Answered while the server loads its data.
    pub const LOADING: Self = Self(1 << 7);
    /// Answered by a replica that has lost its primary.
    pub const STALE: Self = Self(1 << 8);
    /// Needs no authentication and no permission.
    pub const NO_AUTH: Self = Self(1 << 9);
    /// Refused in a transaction (`-ERR Command not allowed inside a transaction`).
    pub const NO_MULTI: Self = Self(1 << 10);
    /// Answered while a script runs for too long.
    pub const ALLOW_BUSY: Self = Self(1 << 11);
    /// Comes from a module.
    pub const MODULE: Self = Self(1 << 12);
    /// Where its keys are depends on its arguments.
    pub const MOVABLE_KEYS: Self = Self(1 << 13);

    /// Every property that the live server's `COMMAND` reply decides.
    pub(super) const OF_SERVER: Self = Self((1 << 14) - 1);

    /// May be sent once more after its connection was lost with the outcome
    /// unknown. `XREAD` depends on its arguments:
    /// [`retry_safe`](super::retry_safe).
    pub const RETRY_SAFE: Self = Self(1 << 16);
    /// May run for long by nature and has a deadline of its own.
    pub const SLOW: Self = Self(1 << 17);
    /// Held by `CLIENT PAUSE … WRITE` though it is no write.
    pub const MAY_REPLICATE: Self = Self(1 << 18);
    /// Changes the state of its connection: a transaction with it in its body
    /// needs a lease.
    pub const STATE: Self = Self(1 << 19);
    /// Allowed to a RESP2 client that has subscriptions.
    pub const IN_SUBSCRIBER: Self = Self(1 << 20);
    /// Has subcommands; its second argument names one.
    pub const CONTAINER: Self = Self(1 << 21);
    /// Not in the table: Redis words the error.
    pub const UNKNOWN: Self = Self(1 << 22);

    /// Whether all of `other` is in this set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is in this set.
    #[inline]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) const fn bits(self) -> u32 {
        self.0
    }

    pub(super) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Both sets together; `|` for constants.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Self) {
        *self = self.union(other);
    }
}
