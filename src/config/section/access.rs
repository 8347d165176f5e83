//! `[route.NAME.access.NAME]`: what some clients of a route may not do.

use crate::config::Network;
use crate::config::definition::section;
use crate::config::kind::{CommandNames, KeyPrefixes, Networks, Patterns, Switch};

section! {
    /// A rule for what some of a route's clients, or all of them, may ask for, besides what
    /// Redis's own ACL lets them. It is about the clients that match both `networks` and
    /// `users`, where given, and every rule that a client matches holds. What is refused
    /// reads "-NOPERM weir: ..." and reaches no Redis. docs/SECURITY.md tells more.
    pub struct Access {
        /// Source addresses of the clients that the rule is about. Without it, from anywhere.
        networks: Vec<Network> = Networks,
            default none, example ["10.1.0.0/16", "2001:db8::/32"], changes Live;

        /// Redis users, or Weir's own, that the clients log in as; who never logs in is
        /// "default". Without it, whoever they are.
        users: Vec<String> = Patterns,
            default none, example "report*", changes Live;

        /// Commands that are refused: names such as "flushall", subcommands such as
        /// "config|set", or groups. "@shared" is what no tenant of a Redis that many share
        /// should do to the others: empty it, list all keys, change or stop the server, watch
        /// others' commands, copy everything. Others: "@write", "@admin", "@scripting",
        /// "@blocking", "@pubsub". AUTH, HELLO, QUIT, RESET, EXEC and DISCARD always pass.
        refuse: Vec<String> = CommandNames,
            default none, example ["@shared", "keys"], changes Live;

        /// Refuses everything that may change something: writes, scripts that are not
        /// read-only by name (EVAL_RO), PUBLISH, and what "@shared" refuses but KEYS.
        read_only: bool = Switch,
            default false, changes Live;

        /// Every key, and every channel, has to begin with one of these. What reaches keys
        /// that it does not name (KEYS, SCAN, scripts, SORT with BY or GET) is refused.
        key_prefixes: Vec<String> = KeyPrefixes,
            default none, example "orders:", changes Live;
    }
    with {
        /// The NAME in `[route.NAME.access.NAME]`; it stands in what the client reads.
        name: String;
    }
}
