//! `[route.NAME.backend]`: the Redis behind a route, and what Weir may take of it.

use std::time::Duration;

use super::BackendTls;
use crate::config::Secret;
use crate::config::definition::section;
use crate::config::kind::{
    Choice, Count, DAY, GIB, HOUR, HostPort, HostPorts, KIB, MIB, MILLISECOND, OptionalPassword,
    OptionalText, Size, Switch, Time,
};

/// What a client sees when the connection that its command was on is lost and
/// nobody can say whether the command ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLoss {
    /// An error that says that the outcome is unknown.
    Error,
    /// Its connection is closed, as Redis's death would do.
    Close,
}

/// How the nodes behind a route are found, and which of them is the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopologyKind {
    /// One node.
    Standalone,
    /// A list of nodes; each is asked what it is.
    Replicated,
    /// Sentinels name the nodes and the primary.
    Sentinel,
}

section! {
    /// The Redis behind the route, and what Weir may take of it. Where only the
    /// address is needed, `backend = "127.0.0.1:6379"` in `[route.NAME]` will do.
    pub struct Backend {
        /// Where Redis is: host and port, or the path of its Unix socket behind `unix:`. A
        /// name is resolved at each dial.
        address: String = HostPort,
            default required, example "127.0.0.1:6379", changes Restart;

        /// How many nodes there are and who says which of them takes the writes:
        /// "standalone" is the one at `address`; "replicated" asks each of `nodes` for its
        /// role and follows the primary, however it was promoted; "sentinel" asks
        /// `sentinels` for the nodes and follows their failovers.
        topology: TopologyKind = Choice(&[
                ("standalone", TopologyKind::Standalone),
                ("replicated", TopologyKind::Replicated),
                ("sentinel", TopologyKind::Sentinel),
            ]),
            default "standalone", changes Restart;

        /// The nodes of a "replicated" topology, instead of `address`. A name that stands for
        /// several addresses, such as a headless service of Kubernetes, stands for a node at
        /// each; names are looked up again every few seconds.
        nodes: Vec<String> = HostPorts,
            default none, example ["10.0.0.1:6379", "10.0.0.2:6379"], changes Live;

        /// The sentinels of a "sentinel" topology, instead of `address`: all of them, or one
        /// name for all. The one with the latest configuration is believed, and while none
        /// answers, what was known last holds.
        sentinels: Vec<String> = HostPorts,
            default none, example ["10.0.0.1:26379", "10.0.0.2:26379"], changes Live;

        /// What the sentinels call the primary: the name in their `sentinel monitor` line.
        sentinel_master: Option<String> = OptionalText,
            default none, example "mymaster", changes Live;

        /// The user as whom Weir asks the sentinels. Without it a password is that of their
        /// `requirepass`.
        sentinel_username: Option<String> = OptionalText,
            default none, example "weir", changes Live;

        /// The password for the sentinels, which is not the one for the nodes.
        sentinel_password: Option<Secret> = OptionalPassword,
            default none, example "...", changes Live;

        /// The user as whom Weir itself connects: for its own questions (INFO,
        /// COMMAND, probes), and for clients where `mode` in `auth` is "weir" or
        /// "open". Without it a password is that of Redis's user "default".
        username: Option<String> = OptionalText,
            default none, example "weir", changes NewConnections;

        /// The password of that user. Better not written here: `password_env`
        /// names an environment variable that holds it, `password_file` a file,
        /// which is read again when Redis refuses the password, so that it can be
        /// changed without a restart.
        password: Option<Secret> = OptionalPassword,
            default none, example "...", changes NewConnections;

        /// The budget: connections that Weir has open to Redis, of every kind,
        /// at any moment, all workers together. This is what Weir is for. 64 serve
        /// tens of thousands of clients and leave room in Redis's default of 10,000
        /// for a hundred Weirs. Weir is of use down to 1.
        max_connections: usize = Count::from_to(1, 100_000),
            default 64, changes Live;

        /// Of these, at most so many that clients share for plain commands. A few
        /// carry any load; each user, database and protocol version in use
        /// needs its own.
        max_shared: usize = Count::from_to(1, 100_000),
            default 16, changes Live;

        /// Of these, at most so many that one client has for itself for a while: for
        /// WATCH, MULTI command by command, large requests, MONITOR, client-side
        /// caching and tunnels. 0 refuses what can not be done without.
        max_leases: usize = Count::from_to(0, 100_000),
            default 32, changes Live;

        /// Of these, at most so many for clients that wait in a blocking command
        /// such as BLPOP. Those who find none free share what `max_blocking_shared`
        /// keeps, or wait in line if their command cannot be shared.
        max_blocking: usize = Count::from_to(0, 100_000),
            default 32, changes Live;

        /// Of `max_blocking`, so many (but at most half) are kept for clients that
        /// share: 10,000 workers in BLPOP on 1,000 queues take no more than these. For
        /// each user, database and way of taking from a queue at most so many are
        /// opened. More let more elements through a second when everybody shares.
        /// 0 shares nothing, and who finds no connection waits in line for one.
        max_blocking_shared: usize = Count::from_to(0, 10_000),
            default 4, changes Live;

        /// Of these, at most so many for subscriptions: one for each user whose clients are
        /// subscribed to channels or patterns, however many those are.
        max_subscriptions: usize = Count::from_to(0, 100_000),
            default 16, changes Live;

        /// How long a command waits for a connection of its own before it is refused
        /// with "-BUSY". A transaction holds one for milliseconds, so a second is
        /// long enough for a queue to clear and short enough for the caller.
        lease_wait: Duration = Time::from_to(Duration::ZERO, HOUR),
            default "1s", changes Live;

        /// Commands that wait so at once; the next is refused without waiting. A queue
        /// that is longer could not be served within `lease_wait` anyway.
        lease_queue: usize = Count::from_to(0, 1_000_000),
            default 1024, changes Live;

        /// A client that does nothing for so long between WATCH or MULTI and EXEC
        /// loses its connection to Redis; its EXEC then fails as if a
        /// watched key had changed, and nothing ran.
        lease_idle: Duration = Time::from_to(MILLISECOND, DAY),
            default "60s", changes Live;

        /// A shared connection that has carried nothing for so long is closed, and
        /// opened again when it is needed: what is quiet does not use up Redis.
        max_idle: Duration = Time::from_to(Duration::from_secs(1), 365 * DAY),
            default "60s", changes Live;

        /// A shared connection is replaced at this age, give or take a tenth so that
        /// they do not go all at once, without a command being lost. This is
        /// how a change behind a name or a load balancer is taken up.
        max_age: Duration = Time::from_to(Duration::from_secs(1), 365 * DAY).or_zero("never"),
            default "1h", changes Live;

        /// A larger request streams over a connection of its own and so neither
        /// holds up others nor is collected in memory. Below it, sharing is faster
        /// than taking a connection.
        large_request: u64 = Size::from_to(KIB, GIB),
            default "64KiB", changes Live;

        /// Replies of 4 MiB and more, in bytes of all of them together, that Redis may have to hold
        /// at once for requests that are known to have such replies. These go over leases, a few
        /// at a time, and others wait, up to `timeouts.request`. Redis builds a reply whole before
        /// it sends any of it, so this is memory of Redis; a reply larger than this goes alone.
        large_replies_max: u64 = Size::from_to(MIB, 1024 * GIB),
            default "512MiB", changes Live;

        /// The first pause before Weir dials again after a failure. Each further
        /// one is twice as long, with jitter, so that a Redis that comes
        /// back is not overrun.
        reconnect_min: Duration = Time::from_to(MILLISECOND, HOUR),
            default "50ms", changes Live;

        /// The longest pause before Weir dials again: how late it may notice
        /// that Redis is back.
        reconnect_max: Duration = Time::from_to(MILLISECOND, HOUR),
            default "2s", changes Live;

        /// While Redis is unwell, and for ten seconds after that, all workers together
        /// open no more connections than this in a second, each at a moment that is
        /// partly left to chance: a Redis that comes back is not killed by its clients.
        reconnect_rate: u32 = Count::from_to(1, 100_000),
            default 100, changes Live;

        /// So many of them may come at once: enough for every worker to have a
        /// connection to share.
        reconnect_burst: u32 = Count::from_to(1, 100_000),
            default 16, changes Live;

        /// The kernel asks after a silent Redis so often. Shorter than for clients,
        /// since many depend on the connection and a firewall may forget it.
        tcp_keepalive: Duration = Time::from_to(Duration::from_secs(1), DAY).or_zero("never asks"),
            default "60s", changes NewConnections;

        /// Whether clients may use what turns their connection into a raw one:
        /// SYNC and PSYNC (replicas, `redis-cli --rdb`) and SCRIPT DEBUG. On, since
        /// Redis's own users and ACLs decide who may; set it to false in a tier that
        /// many share, where a copy of all data is nobody's business.
        tunnels: bool = Switch,
            default true, changes Live;

        /// When a connection to Redis is lost with a command on it that may have run:
        /// "error" answers that its outcome is unknown, "close" closes the client.
        /// "error", since most libraries send a command again when they are closed,
        /// and it would run twice.
        on_loss: OnLoss = Choice(&[("error", OnLoss::Error), ("close", OnLoss::Close)]),
            default "error", changes Live;
    }
    with {
        /// TLS to Redis, if it is spoken.
        tls: Option<BackendTls>;
    }
}

impl Backend {
    /// Where the first node is, or who says where it is: what the route is called by until
    /// its primary is known.
    pub fn first_address(&self) -> &str {
        let listed = match self.topology {
            TopologyKind::Standalone => None,
            TopologyKind::Replicated => self.nodes.first(),
            TopologyKind::Sentinel => self.sentinels.first(),
        };
        listed.unwrap_or(&self.address)
    }
}
