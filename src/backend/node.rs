//! One Redis node as the whole process knows it: its address and budget, the
//! credentials of those who use it, what it says of itself, and whether it can
//! be reached. Shared by all workers; the hot path reads two atomics of it.

mod ask;
mod gate;
mod health;
mod large;
mod learn;
mod limits;
mod open;
mod probing;
mod secure;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::budget::{BudgetLimits, Ledger, Slot};
use super::credential::Credentials;
use super::server::ServerFacts;
use crate::admission::{Costs, Trip};
use crate::command::{ServerVersion, Table};
use crate::config;
use crate::metrics::Journal;
use crate::net::Stream;
pub use gate::Gate;
use health::Condition;
pub use large::{Large, LargePermit, LargeTold, LargeWish};
pub use limits::Limits;
pub use open::{close_holding, close_politely};
pub use secure::NodeTls;

/// Why a connection could not be opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OpenError {
    /// The node refused this user, database or protocol: its own words.
    Refused(String),
    /// The node cannot be reached, or does not behave like Redis: why.
    Unreachable(String),
    /// The node has as many clients as it takes.
    Full,
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenError::Refused(text) => write!(f, "refused: {text}"),
            OpenError::Unreachable(why) => f.write_str(why),
            OpenError::Full => f.write_str("the node's maxclients is reached"),
        }
    }
}

/// A connection that has shaken hands.
#[derive(Debug)]
pub struct Opened {
    /// The socket.
    pub socket: Stream,
    /// The id that the node knows it by, if it told.
    pub id: Option<i64>,
    /// Its place in the budget.
    pub slot: Slot,
}

/// Whether a fresh connection may run commands without a login.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum DefaultUser {
    /// Nobody has asked yet.
    Unknown = 0,
    /// It may.
    Open = 1,
    /// It has to log in first.
    Closed = 2,
}

/// What tells one node of a deployment from the others.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// Names it for as long as the process runs.
    pub id: u32,
    /// Where it is: host and port.
    pub address: String,
    /// The route that it serves.
    pub route: String,
    /// How many workers there are.
    pub workers: usize,
    /// Where it is noted what happens to it.
    pub journal: Arc<Journal>,
    /// TLS to it, if it is spoken.
    pub tls: Option<Arc<NodeTls>>,
    /// What counts the connections to its address, if there are any from before.
    pub ledger: Option<Arc<Ledger>>,
}

/// One Redis node.
#[derive(Debug)]
pub struct Node {
    /// Names it for as long as the process runs.
    pub id: u32,
    /// Where it is: host and port.
    pub address: String,
    settings: ArcSwap<config::Route>,
    /// The route's name: what the node's own `CLIENT LIST` shows.
    pub route: String,
    /// Counts every connection to it.
    pub ledger: Arc<Ledger>,
    /// Who uses it.
    pub credentials: Arc<Credentials>,
    /// Where it is noted what happens to it.
    pub journal: Arc<Journal>,
    /// TLS to it, if it is spoken.
    pub tls: Option<Arc<NodeTls>>,
    facts: ArcSwap<ServerFacts>,
    table: ArcSwap<Table>,
    learnt: AtomicBool,
    bulk_max: AtomicU64,
    default_user: AtomicU8,
    /// Whether connections to it get commands.
    pub gate: Gate,
    /// Whether a connection has shaken hands since it was last sick.
    serves: AtomicBool,
    condition: Mutex<Condition>,
    /// Its replies of many megabytes.
    pub large: Arc<Large>,
    /// The share of its memory that was in use at the last look, as the bits of an `f64`.
    memory_share: AtomicU64,
    /// What commands cost it, by its own account.
    costs: ArcSwap<Costs>,
    /// Counts how often it fell sick or was healed.
    changed: watch::Sender<u64>,
    started: Instant,
    /// When something last came from it, in microseconds since `started`.
    heard_at: AtomicU64,
    /// What commands have met since the breaker last judged by it.
    answers: AtomicU64,
    answer_micros: AtomicU64,
    deadlines_met: AtomicU64,
    /// How often it fell sick, by why; probes sent to it; dials that had to wait.
    trips: [AtomicU64; Trip::ALL.len()],
    probes: AtomicU64,
    dials: AtomicU64,
    dials_delayed: AtomicU64,
    /// The second in which the default user was last doubted.
    doubted_at: AtomicU64,
    /// The second in which a client's user was last asked to ask the node.
    informed_at: AtomicU64,
    /// Whether the node was tried for the first time.
    met: watch::Sender<bool>,
    /// Told when what was learnt of the node may be out of date.
    stale: Notify,
}

/// How a node has fared, for metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeCounters {
    /// How often it was taken for sick, by why, in the order of [`Trip::ALL`].
    pub trips: [u64; Trip::ALL.len()],
    /// Probes sent while it was sick.
    pub probes: u64,
    /// Connections tried, of all kinds.
    pub dials: u64,
    /// Of these, how many had to wait for their turn.
    pub dials_delayed: u64,
}

impl Node {
    /// A node that nobody has talked to yet.
    pub fn new(
        spec: NodeSpec,
        settings: &Arc<config::Route>,
        credentials: Arc<Credentials>,
    ) -> Arc<Node> {
        let config = &settings.backend;
        let limits = BudgetLimits::of(config);
        // The seed only has to differ between processes that lose the same node.
        let seed = u64::from(std::process::id()) << 32 | u64::from(spec.workers as u32);
        let facts = ServerFacts::default();
        let ledger = match spec.ledger {
            Some(ledger) => {
                ledger.set_limits(limits);
                ledger
            }
            None => Ledger::new(limits, spec.workers),
        };
        Arc::new(Node {
            id: spec.id,
            address: spec.address,
            settings: ArcSwap::new(settings.clone()),
            route: spec.route,
            ledger,
            credentials,
            journal: spec.journal,
            tls: spec.tls,
            bulk_max: AtomicU64::new(facts.proto_max_bulk_len),
            facts: ArcSwap::from_pointee(facts),
            table: ArcSwap::from_pointee(Table::builtin()),
            learnt: AtomicBool::new(false),
            default_user: AtomicU8::new(DefaultUser::Unknown as u8),
            gate: Gate::default(),
            serves: AtomicBool::new(true),
            condition: Condition::new(settings, seed),
            large: Arc::default(),
            memory_share: AtomicU64::new(0),
            costs: ArcSwap::default(),
            changed: watch::Sender::new(0),
            started: Instant::now(),
            heard_at: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            answer_micros: AtomicU64::new(0),
            deadlines_met: AtomicU64::new(0),
            trips: Default::default(),
            probes: AtomicU64::new(0),
            dials: AtomicU64::new(0),
            dials_delayed: AtomicU64::new(0),
            doubted_at: AtomicU64::new(0),
            informed_at: AtomicU64::new(0),
            met: watch::Sender::new(false),
            stale: Notify::new(),
        })
    }

    /// The settings of its route that are in force.
    pub fn settings(&self) -> Guard<Arc<config::Route>> {
        self.settings.load()
    }

    /// Puts other settings of its route into force: connections that are open stay.
    pub fn apply(&self, settings: &Arc<config::Route>) {
        self.settings.store(settings.clone());
        let backend = &settings.backend;
        let mut limits = BudgetLimits::of(backend);
        let mut condition = self.condition();
        limits.max_connections = condition.budget(backend.max_connections);
        condition.apply(settings);
        drop(condition);
        self.ledger.set_limits(limits);
    }

    /// What commands cost it, by its own account, as of late.
    pub fn costs(&self) -> Arc<Costs> {
        self.costs.load_full()
    }

    /// Whether `costs` is the latest account.
    pub fn has_costs(&self, costs: &Arc<Costs>) -> bool {
        std::ptr::eq(Arc::as_ptr(costs), Arc::as_ptr(&self.costs.load()))
    }

    /// Whether `table` is the one in force.
    pub fn has_table(&self, table: &Arc<Table>) -> bool {
        std::ptr::eq(Arc::as_ptr(table), Arc::as_ptr(&self.table.load()))
    }

    /// Whether the node has said anything of itself.
    pub fn has_told(&self) -> bool {
        self.learnt.load(Relaxed)
    }

    /// The version that decides how the node words things.
    pub fn server_version(&self) -> ServerVersion {
        self.facts.load().server_version()
    }

    /// What the node said of itself.
    pub fn facts(&self) -> Arc<ServerFacts> {
        self.facts.load_full()
    }

    /// The command table in force.
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// The largest bulk string that the node takes in a request, in bytes. A larger
    /// one would cost the shared connection.
    #[inline]
    pub fn bulk_max(&self) -> u64 {
        self.bulk_max.load(Relaxed)
    }

    /// The node's `proto-max-bulk-len` was changed through Weir.
    pub fn set_bulk_max(&self, bytes: u64) {
        self.bulk_max.store(bytes, Relaxed);
    }

    /// Whether a fresh connection may run commands.
    pub fn default_user(&self) -> DefaultUser {
        match self.default_user.load(Relaxed) {
            1 => DefaultUser::Open,
            2 => DefaultUser::Closed,
            _ => DefaultUser::Unknown,
        }
    }

    /// Whether the node can be used: it was reached, and is not known to be sick.
    pub fn is_ready(&self) -> bool {
        self.learnt.load(Relaxed) && self.serves.load(Relaxed) && !self.is_sick()
    }

    /// Whether the node gets no new connections but probes.
    #[inline]
    pub fn is_sick(&self) -> bool {
        self.gate.is_shut_to_dials()
    }

    /// How it has fared.
    pub fn counters(&self) -> NodeCounters {
        NodeCounters {
            trips: std::array::from_fn(|trip| self.trips[trip].load(Relaxed)),
            probes: self.probes.load(Relaxed),
            dials: self.dials.load(Relaxed),
            dials_delayed: self.dials_delayed.load(Relaxed),
        }
    }

    /// A client was told to log in. Perhaps the node no longer asks for that: looks
    /// again, at most once a second.
    pub fn doubt_default_user(&self) {
        let second = self.started.elapsed().as_secs() + 1;
        if self.doubted_at.swap(second, Relaxed) != second {
            self.mark_stale();
        }
    }

    /// What was learnt may be out of date: the node was lost, or restarted.
    pub fn mark_stale(&self) {
        self.stale.notify_one();
    }
}
