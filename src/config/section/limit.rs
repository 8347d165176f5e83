//! `[route.NAME.limits.NAME]`: what some clients of a route may take together, or each.

use crate::config::Network;
use crate::config::definition::section;
use crate::config::kind::{
    Choice, Count, GIB, Listen, ListenAddress, Networks, Patterns, Share, Size,
};

/// Which of the clients that a rule is about are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Per {
    /// Those of one source address (IPv6: of one network of `ipv6_group` bits).
    Address,
    /// Those that logged in as the same user.
    User,
    /// Those that gave themselves the same name.
    Name,
    /// Those that showed certificates with the same first name.
    Certificate,
    /// All of them.
    Rule,
}

/// Who is served first, and refused last, when Redis has too much to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitPriority {
    /// Before all others.
    High,
    /// As everybody of whom no rule says anything else.
    Normal,
    /// Behind all others.
    Low,
}

/// Whether a rule's clients are answered as by a cache that misses while Redis is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitFailOpen {
    /// As the route's others.
    Route,
    /// They are.
    On,
    /// They are not.
    Off,
}

section! {
    /// A rule for some of a route's clients. It is about the clients that match all of
    /// `networks`, `users`, `client_names`, `certificates` and `listeners` that are given, and every rule that
    /// a client matches holds. User and name are known once the client has said them; its
    /// place is then counted anew, and where there is none its next command is refused.
    /// docs/LIMITS.md tells more.
    pub struct Limit {
        /// Source addresses of the clients that the rule is about. IPv4 addresses that come in
        /// through an IPv6 listener are IPv4 addresses.
        networks: Vec<Network> = Networks,
            default none, example ["10.1.0.0/16", "2001:db8::/32"], changes Live;

        /// Redis users, or Weir's own, that the clients log in as. Who never logs in is "default".
        users: Vec<String> = Patterns,
            default none, example "batch*", changes Live;

        /// Names that the clients give themselves with CLIENT SETNAME or HELLO SETNAME. Anybody
        /// can take any name: good for keeping order among friends, not against others.
        client_names: Vec<String> = Patterns,
            default none, example ["batch-*", "report-?"], changes Live;

        /// Names in the certificates that clients show on a listener with TLS: common names, and
        /// alternative ones of DNS, URIs and mail. Nobody can take a name that the authority
        /// (`tls_client_ca`) has not given it.
        certificates: Vec<String> = Patterns,
            default none, example "*.batch.internal", changes Live;

        /// Listeners of the route, by their addresses as written, that the clients come in through.
        listeners: Vec<ListenAddress> = Listen,
            default none, example "127.0.0.1:6380", changes Live;

        /// Who is counted together: "address" gives each source address as much as the rule
        /// says, "user" each user, "name" each client name, "certificate" each certificate by
        /// its common name (or the first of the others), "rule" gives it to all of them together.
        per: Per = Choice(&[
            ("address", Per::Address),
            ("user", Per::User),
            ("name", Per::Name),
            ("certificate", Per::Certificate),
            ("rule", Per::Rule),
        ]),
            default "address", changes Live;

        /// The ceiling: connections of each who is counted. One more is refused with Redis's
        /// own "-ERR max number of clients reached". 0 means as many as the route takes.
        max_clients: usize = Count::from_to(0, 1_000_000),
            default 0, changes Live;

        /// The share: so many connections of the route's `max_clients` are kept for the clients
        /// of this rule, all of them together, whoever else wants them.
        guaranteed: usize = Count::from_to(0, 1_000_000),
            default 0, changes Live;

        /// New connections a second of each who is counted; more are refused, so that they
        /// cost nobody else a wait. 0 means as many as come.
        accept_rate: u32 = Count::from_to(0, 1_000_000),
            default 0, changes Live;

        /// How many of them may come at once after a quiet time. 0 means one second's worth.
        accept_burst: u32 = Count::from_to(0, 1_000_000),
            default 0, changes Live;

        /// Commands a second of each who is counted; more are refused with "-BUSY" before they
        /// cost Redis anything. What Weir answers itself does not count, such as AUTH and
        /// CLIENT. 0 means as many as come.
        commands_rate: u32 = Count::from_to(0, 100_000_000),
            default 0, changes Live;

        /// How many of them may come at once after a quiet time. 0 means one second's worth.
        commands_burst: u32 = Count::from_to(0, 100_000_000),
            default 0, changes Live;

        /// Bytes a second of each who is counted, of requests and replies together. Whoever
        /// has used them up is refused with "-BUSY" until there are some again. 0 means as many as come.
        bytes_rate: u64 = Size::from_to(0, 1024 * GIB),
            default 0, changes Live;

        /// How many of them may be used at once after a quiet time. 0 means one second's worth.
        bytes_burst: u64 = Size::from_to(0, 1024 * GIB),
            default 0, changes Live;

        /// Who is served first when Redis has too much to do: commands of "high" go before
        /// those of others and are refused last, those of "low" are refused first. Of
        /// several rules the first counts that says something else than "normal". Operators are "high".
        priority: LimitPriority = Choice(&[
            ("high", LimitPriority::High),
            ("normal", LimitPriority::Normal),
            ("low", LimitPriority::Low),
        ]),
            default "normal", changes Live;

        /// Whether these clients are answered as by a cache that misses while Redis can not be
        /// used: "on" or "off" whatever `fail_open` of the route's `health` says, "route" as it says. Plain
        /// writes are answered as its `fail_open_writes` says. Of several rules the first counts
        /// that does not say "route".
        fail_open: LimitFailOpen = Choice(&[
            ("route", LimitFailOpen::Route),
            ("on", LimitFailOpen::On),
            ("off", LimitFailOpen::Off),
        ]),
            default "route", changes Live;

        /// Above this share of Redis's `maxmemory`, commands of these clients that may need
        /// more are refused with "-BUSY", in place of `refuse_writes_above_memory` of the
        /// route's `health`: lower for those whose data can wait, 1 for those who may go on
        /// until Redis is full. 0 means as the route. Of several rules the first counts that is not 0.
        refuse_writes_above_memory: f64 = Share,
            default 0, changes Live;
    }
    with {
        /// The NAME in `[route.NAME.limits.NAME]`; it stands in logs and metrics.
        name: String;
    }
}
