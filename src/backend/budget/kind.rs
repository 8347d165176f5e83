//! What a connection is for, how far it is, and what makes two of them alike.

use crate::backend::credential::UserId;
use crate::resp::Version;

/// What a connection to a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Pipelines the plain commands of many clients.
    Shared,
    /// Held by one client alone: a transaction, `WATCH`, tracking, a large request.
    Lease,
    /// Carries a blocking command.
    Blocking,
    /// Subscribes to channels or patterns.
    Subscription,
    /// Carries what must get through while data connections are stalled.
    Control,
    /// Checks a client's credential.
    Auth,
    /// Asks whether the node is well.
    Probe,
    /// Copies bytes both ways for one client (`MONITOR`, `SYNC`).
    Tunnel,
    /// Is another process's: this one is being replaced, and its successor may have a
    /// connection instead of it.
    Lent,
}

/// What can be done about connections of a kind when the budget is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    /// Shared connections: can be asked to yield, and are waited for by partition.
    Shared,
    /// Lease, blocking, subscription, tunnel: never asked to yield while in use.
    Held,
    /// Control, auth, probe: short commands, can be asked to yield.
    Service,
    /// What the successor has: can be asked to yield, as a shared connection can.
    Lent,
}

impl Kind {
    /// How many kinds there are.
    pub const COUNT: usize = 9;

    /// Every kind, in the order of [`Kind::index`].
    pub const ALL: [Kind; Kind::COUNT] = [
        Kind::Shared,
        Kind::Lease,
        Kind::Blocking,
        Kind::Subscription,
        Kind::Control,
        Kind::Auth,
        Kind::Probe,
        Kind::Tunnel,
        Kind::Lent,
    ];

    /// Its place in tables by kind.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its name in metrics, logs and connection names.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Shared => "shared",
            Kind::Lease => "lease",
            Kind::Blocking => "blocking",
            Kind::Subscription => "subscription",
            Kind::Control => "control",
            Kind::Auth => "auth",
            Kind::Probe => "probe",
            Kind::Tunnel => "tunnel",
            Kind::Lent => "lent",
        }
    }

    /// The group it belongs to.
    pub const fn group(self) -> Group {
        match self {
            Kind::Shared => Group::Shared,
            Kind::Lease | Kind::Blocking | Kind::Subscription | Kind::Tunnel => Group::Held,
            Kind::Control | Kind::Auth | Kind::Probe => Group::Service,
            Kind::Lent => Group::Lent,
        }
    }
}

/// How far a connection is. All phases count against the budget alike: Redis
/// sees the connection from the first to the last of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Being connected, or in its handshake.
    Dialling,
    /// In use or ready for it.
    Open,
    /// Closed from this side; the peer's end was not seen closed yet.
    Closing,
}

impl Phase {
    /// How many phases there are.
    pub const COUNT: usize = 3;

    /// Every phase, in the order of [`Phase::index`].
    pub const ALL: [Phase; Phase::COUNT] = [Phase::Dialling, Phase::Open, Phase::Closing];

    /// Its place in tables by phase.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Dialling => "dialling",
            Phase::Open => "open",
            Phase::Closing => "closing",
        }
    }
}

/// What two commands must have in common to travel on the same connection: the
/// connection state that Redis applies to every command.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Partition {
    /// As whom the connection is logged in.
    pub user: UserId,
    /// Which protocol the replies are written in.
    pub version: Version,
    /// The selected database.
    pub db: u32,
    /// `CLIENT NO-TOUCH`: reads leave a key's LRU and LFU data alone.
    pub no_touch: bool,
}
