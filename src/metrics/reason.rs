//! Why things happened: the closed sets that label metrics.
//!
//! Each is an enum, so that the number of series is known when Weir is
//! compiled and nothing a client sends can add one. A label, once released, is
//! part of what dashboards and alerts are built on: it never changes.

use std::fmt::Debug;

/// A closed set of reasons with a stable label for each.
pub trait Reason: Copy + Eq + Debug + Send + Sync + 'static {
    /// Every reason, in the order of [`Reason::index`].
    const ALL: &'static [Self];
    /// How many there are.
    const COUNT: usize = Self::ALL.len();

    /// The reason's place in [`Reason::ALL`].
    fn index(self) -> usize;
    /// The value of the `reason`, `cause` or `limit` label: lower case, `[a-z_]`.
    fn label(self) -> &'static str;
}

/// Declares a reason: one line for each value, its documentation above it.
macro_rules! reason {
    (
        $(#[$about:meta])*
        pub enum $name:ident {
            $($(#[$why:meta])* $value:ident => $label:literal,)*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name { $($(#[$why])* $value,)* }

        impl $name {
            /// Every value, in order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$value,)*];
            /// How many values there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The stable label of metrics and logs.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$value => $label,)* }
            }
        }

        impl Reason for $name {
            const ALL: &'static [Self] = Self::ALL;

            #[inline]
            fn index(self) -> usize {
                self as usize
            }

            fn label(self) -> &'static str {
                self.label()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.label())
            }
        }
    };
}

reason! {
    /// Why a client's connection ended.
    pub enum CloseReason {
        /// The client closed its end.
        ByClient => "client",
        /// The client's socket failed (reset, keepalive without an answer).
        ClientLost => "client_lost",
        /// The client said `QUIT`.
        Quit => "quit",
        /// Nothing was sent for the idle timeout.
        Idle => "idle",
        /// It was idle, and made room for somebody else when every place was taken.
        MadeRoom => "made_room",
        /// What the client sent was not the Redis protocol.
        Protocol => "protocol",
        /// A request was larger than allowed.
        RequestLimit => "request_limit",
        /// A request was begun and not finished in time.
        ReadTimeout => "read_timeout",
        /// More replies waited unread than the client's output limit allows.
        OutputLimit => "output_limit",
        /// A subscriber's unread messages passed the limit for subscribers.
        SubscriberLimit => "subscriber_limit",
        /// A subscriber's unread messages stayed above the soft limit for too long.
        SubscriberSoftLimit => "subscriber_soft_limit",
        /// The node's connection that all subscribers of a user share was lost.
        SubscriptionLost => "subscription_lost",
        /// The client took no byte of its replies for the write timeout.
        WriteTimeout => "write_timeout",
        /// The memory for all clients together was used up and this one held the most.
        MemoryLimit => "memory_limit",
        /// `CLIENT KILL`, by another client or by itself.
        Killed => "killed",
        /// It was refused when it came, was told so, and the time for its refusal is over.
        Refused => "refused",
        /// The node connection that held state of this client only was lost, and
        /// the client can learn it in no other way (subscribed, in the middle of a push).
        BackendLost => "backend_lost",
        /// It held a connection of its own for longer than allowed.
        LeaseLimit => "lease_limit",
        /// The node closed the connection that served this client alone.
        ByBackend => "backend",
        /// Weir is shutting down.
        Shutdown => "shutdown",
    }
}

reason! {
    /// Why a client was not taken in when it connected.
    pub enum RefusedReason {
        /// `max_clients` of the whole process was reached.
        MaxClients => "max_clients",
        /// `max_clients` of its route was reached.
        RouteMaxClients => "route_max_clients",
        /// What was left is kept for the clients of rules that guarantee it, or for operators.
        KeptForOthers => "kept_for_others",
        /// `max_clients` of a rule was reached.
        LimitMaxClients => "limit_max_clients",
        /// `accept_rate` of a rule was reached.
        LimitAcceptRate => "limit_accept_rate",
        /// No file descriptor was left.
        Descriptors => "descriptors",
        /// The memory for all clients together was used up.
        Memory => "memory",
        /// Weir is shutting down.
        Shutdown => "shutdown",
    }
}

reason! {
    /// How a TLS handshake ended, on either side.
    pub enum HandshakeResult {
        /// Well.
        Ok => "ok",
        /// Not in time.
        Timeout => "timeout",
        /// The peer closed the connection, or it was lost.
        Closed => "closed",
        /// The peer showed no certificate and has to.
        NoCertificate => "no_certificate",
        /// The peer's certificate has expired, or is not valid yet.
        CertificateExpired => "certificate_expired",
        /// The peer's certificate is not signed by an authority that is trusted.
        CertificateUnknown => "certificate_unknown",
        /// The peer's certificate is no good for another reason, such as its name.
        CertificateBad => "certificate_bad",
        /// The peer gave up and said so: most often it does not take our certificate.
        RefusedByPeer => "refused_by_peer",
        /// There is no version or cipher that both speak.
        Incompatible => "incompatible",
        /// What came was no TLS.
        Protocol => "protocol",
    }
}

reason! {
    /// What became of the header that a load balancer puts in front of a connection.
    pub enum HeaderResult {
        /// It named the real client.
        Ok => "ok",
        /// It named none: the load balancer speaks for itself, or does not know.
        Local => "local",
        /// It was none.
        Malformed => "malformed",
        /// It did not come in time.
        Timeout => "timeout",
        /// The connection was closed before it was whole.
        Closed => "closed",
        /// Whoever connected may not name clients.
        Untrusted => "untrusted",
    }
}

reason! {
    /// Why Weir itself answered a command with an error. Errors that come from
    /// Redis are replies like any other and are not counted here.
    pub enum ErrorCause {
        /// The request broke the protocol.
        Protocol => "protocol",
        /// Unknown command or subcommand.
        UnknownCommand => "unknown_command",
        /// Wrong number of arguments, or arguments that a command which Weir answers does not know.
        Arguments => "arguments",
        /// Wrong user name or password.
        Auth => "auth",
        /// A command before the client had authenticated.
        NoAuth => "no_auth",
        /// The user may not run this command.
        NoPermission => "no_permission",
        /// A command that cannot work through a proxy, or is switched off.
        NotSupported => "not_supported",
        /// A command that the client's state does not allow (subscribed, in a transaction).
        State => "state",
        /// `EXEC` of a transaction that had been spoilt before.
        Transaction => "transaction",
        /// The request was larger than allowed.
        RequestSize => "request_size",
        /// The client was refused when it came.
        MaxClients => "max_clients",
        /// Too much work: a limit of [`ShedLimit`] was reached, nothing was run.
        Busy => "busy",
        /// Too many were waiting for a lease already; nothing was run.
        LeaseQueue => "lease_queue",
        /// No lease became free within the wait; nothing was run.
        LeaseWait => "lease_wait",
        /// The lease was held for longer than allowed.
        LeaseLimit => "lease_limit",
        /// The deadline passed before the command was sent; nothing was run.
        QueueTimeout => "queue_timeout",
        /// The deadline passed after the command was sent; its outcome is unknown.
        RequestTimeout => "request_timeout",
        /// No node can be reached; nothing was run.
        NoBackend => "no_backend",
        /// No primary is known; nothing was run.
        NoPrimary => "no_primary",
        /// The connection was lost after the command was sent; its outcome is unknown.
        BackendLost => "backend_lost",
        /// The connection stalled after the command was sent; its outcome is unknown.
        BackendStalled => "backend_stalled",
        /// Redis refused the connection that the command needed (its own
        /// `maxclients`, credentials); nothing was run.
        BackendRefused => "backend_refused",
        /// The node sent what is not the Redis protocol.
        BackendProtocol => "backend_protocol",
        /// The memory for all clients together was used up.
        Memory => "memory",
        /// Weir is shutting down.
        Shutdown => "shutdown",
        /// A fault of Weir's own.
        Internal => "internal",
    }
}

reason! {
    /// Which limit refused work. Nothing that is counted here was run.
    pub enum ShedLimit {
        /// Commands in flight to the node.
        InFlight => "in_flight",
        /// Commands that wait in front of the node: their number.
        Queue => "queue",
        /// Commands that wait in front of the node: their time.
        QueueTime => "queue_time",
        /// Sessions that wait for a lease: their number.
        LeaseQueue => "lease_queue",
        /// Sessions that wait for a lease: their time.
        LeaseWait => "lease_wait",
        /// Sessions that wait for a connection of their own for a blocking command.
        Blocking => "blocking",
        /// The node's budget has no connection for this user, version and database.
        Budget => "budget",
        /// Memory for requests and replies of all clients together.
        Memory => "memory",
        /// Commands or bytes of one client.
        Client => "client",
        /// Commands a second, by a rule.
        LimitCommandsRate => "limit_commands_rate",
        /// Bytes a second, by a rule.
        LimitBytesRate => "limit_bytes_rate",
        /// Memory of the node.
        NodeMemory => "node_memory",
        /// Large replies that a node may have to hold at once.
        LargeReplies => "large_replies",
        /// Clients that wait for the end of an operator's pause, or what they have sent.
        Pause => "pause",
        /// Clients that wait for a primary.
        HoldClients => "hold_clients",
        /// Bytes of what they sent.
        HoldMemory => "hold_memory",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn labels_are_stable_words<R: Reason>() {
        let labels: HashSet<_> = R::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), R::COUNT, "two reasons share a label");
        for (index, reason) in R::ALL.iter().enumerate() {
            assert_eq!(reason.index(), index);
            let label = reason.label();
            let is_word = label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            assert!(is_word && !label.is_empty(), "{label}");
        }
    }

    #[test]
    fn every_reason_has_a_label_of_its_own() {
        labels_are_stable_words::<CloseReason>();
        labels_are_stable_words::<RefusedReason>();
        labels_are_stable_words::<ErrorCause>();
        labels_are_stable_words::<ShedLimit>();
    }

    #[test]
    fn a_reason_is_written_as_its_label() {
        assert_eq!(CloseReason::OutputLimit.to_string(), "output_limit");
    }
}
