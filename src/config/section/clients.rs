//! `[route.NAME.clients]`: what the clients of a route may take.

use std::time::Duration;

use crate::config::Network;
use crate::config::definition::section;
use crate::config::kind::{
    Count, DAY, GIB, HOUR, KIB, MIB, MILLISECOND, Networks, Patterns, Size, Switch, Time,
};

section! {
    /// What clients of the route may take. The limits of one client are there so
    /// that it can not hurt the others; none of them is met in normal use.
    pub struct Clients {
        /// Client connections of this route. 0 means as many as the process takes
        /// (`max_clients` in `[process]`).
        max_clients: usize = Count::from_to(0, 1_000_000),
            default 0, changes Live;

        /// Of these, so many are kept for operators: whoever else wants them is refused, so
        /// that there is a way in when an application has taken everything. No rule of
        /// `limits` is about an operator's client, and none makes way for another.
        reserved_clients: usize = Count::from_to(0, 10_000),
            default 0, changes Live;

        /// Source addresses of operators.
        /// Not those of applications: their clients would be held to no limit but `max_clients`.
        operator_networks: Vec<Network> = Networks,
            default none, example "10.9.0.0/24", changes Live;

        /// Users that operators log in as. Where only these tell an operator, one who comes
        /// when all is full is not refused before it has logged in.
        operator_users: Vec<String> = Patterns,
            default none, example "admin", changes Live;

        /// IPv6 clients are counted together by so many first bits of their address: one
        /// machine has a whole network of 64 bits to call from.
        ipv6_group: u8 = Count::from_to(16, 128),
            default 64, changes Live;

        /// A client that has asked nothing for so long is closed; never one that
        /// is in a transaction, blocked, subscribed or waiting for a reply.
        /// Connections that an application leaked are gone so before they are many,
        /// while a library's pool, which firewalls and managed servers treat
        /// alike, just opens another.
        idle_timeout: Duration = Time::from_to(MILLISECOND, 365 * DAY).or_zero("never"),
            default "10m", changes Live;

        /// What `idle_timeout` shrinks to when every place is taken. It is whole as long as
        /// no more than four fifths of `max_clients` are, and shrinks from there on, so that
        /// those who need a connection get the places of those who do not.
        idle_timeout_min: Duration = Time::from_to(MILLISECOND, 365 * DAY),
            default "1m", changes Live;

        /// When every place is taken and somebody comes, the longest idle client of the address
        /// that holds the most is closed to make room, if it has been idle for so long and
        /// that address holds more than the newcomer's: never one that is in a transaction,
        /// blocked, subscribed or waiting for a reply. Only then is the newcomer refused.
        gives_way_after: Duration = Time::from_to(MILLISECOND, 365 * DAY).or_zero("never makes room"),
            default "10s", changes Live;

        /// New connections a second on each listener. Those that come faster wait in the
        /// kernel's queue (`backlog`): in a storm the clients that are in are served, and
        /// the others come in one after the other. 0 means as many as come.
        accept_rate: u32 = Count::from_to(0, 1_000_000),
            default 0, changes Live;

        /// How many of them are taken at once after a quiet time. 0 means a tenth of a
        /// second's worth.
        accept_burst: u32 = Count::from_to(0, 1_000_000),
            default 0, changes Live;

        /// Commands of one client under way at once. Weir reads on from a client
        /// that pipelines more when replies have come, so nothing is refused.
        /// 1024 keep a connection to Redis busy; more would only queue. Fewer at first, and
        /// when replies are large, so that they fit into `output_max`.
        in_flight_max: u32 = Count::from_to(1, 1_000_000),
            default 1024, changes Live;

        /// Bytes of one client's commands under way at once. Weir reads on from a client that
        /// pipelines more when replies have come, so nothing is refused; one command may
        /// be larger. So a client that pipelines large values takes little of the memory
        /// that is there for all, and they do not queue in front of everybody's.
        in_flight_bytes_max: u64 = Size::from_to(KIB, 1024 * GIB),
            default "4MiB", changes Live;

        /// Bytes of a client's requests that are not parsed or not sent yet, when
        /// it may not go on for another reason. Then Weir stops reading
        /// from it and the kernel slows it down.
        pipeline_buffer: u64 = Size::from_to(4 * KIB, GIB),
            default "64KiB", changes Live;

        /// The longest pause that `WEIR PAUSE` may begin: what waits takes memory, and its callers
        /// give up at some time.
        pause_max: Duration = Time::from_to(MILLISECOND, HOUR),
            default "60s", changes Live;

        /// During a `WEIR PAUSE`, the clients of the route whose commands wait; the next one
        /// is refused at once with "-BUSY". `CLIENT PAUSE` is Redis's own and refuses nobody.
        pause_clients: usize = Count::from_to(0, 1_000_000),
            default 10_000, changes Live;

        /// During a `WEIR PAUSE`, bytes that those clients have sent and that are kept. Beyond it
        /// the next one is refused, and nothing more is read from those who wait.
        pause_memory: u64 = Size::from_to(0, GIB),
            default "64MiB", changes Live;

        /// The largest request, and the largest transaction. Beyond it the client is
        /// closed without a word, as Redis does at its client-query-buffer-limit,
        /// whose default this is. Large requests stream and take little memory.
        request_max: u64 = Size::from_to(MIB, 1024 * GIB),
            default "1GiB", changes Live;

        /// The same for a client that has not said who it is yet, as in Redis.
        unauthenticated_request_max: u64 = Size::from_to(KIB, GIB),
            default "1MiB", changes Live;

        /// Bytes of replies and messages that a client has not read. At a quarter of it no
        /// more of its commands are taken until it reads; beyond it the client is
        /// closed. One reply that is larger than all this does not count: any value
        /// can be read. Redis has no such limit for normal clients and is killed
        /// by the kernel instead.
        output_max: u64 = Size::from_to(64 * KIB, 1024 * GIB),
            default "256MiB", changes Live;

        /// Channels and patterns that one client may be subscribed to. Redis has no limit;
        /// this is above any real client and bounds the memory that one can take.
        subscriptions_max: usize = Count::from_to(1, 10_000_000),
            default 65_536, changes Live;

        /// Bytes of messages that a subscriber has not read. Beyond it the subscriber is
        /// closed; nobody else misses a message. As Redis does it for its class pubsub
        /// (client-output-buffer-limit).
        subscriber_output_max: u64 = Size::from_to(64 * KIB, 1024 * GIB),
            default "32MiB", changes Live;

        /// The same for a subscriber that stays above it for `subscriber_output_soft_time`.
        subscriber_output_soft: u64 = Size::from_to(KIB, 1024 * GIB),
            default "8MiB", changes Live;

        /// How long a subscriber may stay above `subscriber_output_soft`.
        subscriber_output_soft_time: Duration = Time::from_to(MILLISECOND, DAY).or_zero("no time"),
            default "60s", changes Live;

        /// The kernel asks after a silent client so often, and closes the
        /// connections of those that are gone. As Redis does.
        tcp_keepalive: Duration = Time::from_to(Duration::from_secs(1), DAY).or_zero("never asks"),
            default "5m", changes NewConnections;

        /// Send replies at once. Weir batches by itself, so false only adds delay.
        tcp_nodelay: bool = Switch,
            default true, changes NewConnections;

        /// Connections that the kernel keeps until Weir takes them. A storm of
        /// reconnects is larger than Redis's 511; the kernel cuts the number
        /// to its net.core.somaxconn, which is 4096 on current systems.
        backlog: u32 = Count::from_to(1, 65_535),
            default 4096, changes Restart;
    }
}
