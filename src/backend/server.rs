//! What a node says of itself, learnt from its replies.
//!
//! Every one of these may be missing: managed servers refuse `CONFIG`, users may not
//! be allowed `INFO`. What is not told keeps its value, and the values at the start
//! are those of a Redis that was never configured.

use crate::command::ServerVersion;
use crate::resp::Value;

/// The facts about one node that Weir acts on.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerFacts {
    /// Major, minor, patch of the Redis version that it is compatible with; for Valkey
    /// its own version is in [`ServerFacts::flavour`]. All 0 if it was not told.
    pub version: (u8, u8, u8),
    /// Whose server it is.
    pub flavour: Flavour,
    /// How it is deployed.
    pub mode: Mode,
    /// Whether it takes writes.
    pub role: Role,
    /// Whether it is loading its data.
    pub is_loading: bool,
    /// The largest bulk string that it takes in a request, in bytes.
    pub proto_max_bulk_len: u64,
    /// How many databases it has, if it told.
    pub databases: Option<u32>,
    /// How many clients it takes, if it told.
    pub maxclients: Option<u64>,
    /// What names this run of the process; it changes with every restart.
    pub run_id: Option<String>,
    /// Its modules as `HELLO` lists them, each a map.
    pub modules: Vec<Value>,
}

/// Whose server it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flavour {
    /// Redis.
    Redis,
    /// Valkey, with its own version.
    Valkey(u8, u8, u8),
    /// Another server that speaks the protocol, by the name it gives itself.
    Other(String),
}

/// How a node is deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// For itself, or as one of a primary and its replicas.
    Standalone,
    /// As a member of a Redis Cluster.
    Cluster,
    /// As a Sentinel: it holds no data.
    Sentinel,
}

/// Whether a node takes writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It does.
    Primary,
    /// It copies a primary.
    Replica,
    /// It is a Sentinel.
    Sentinel,
}

/// Redis's own default for `proto-max-bulk-len`.
const PROTO_MAX_BULK_LEN: u64 = 512 * 1024 * 1024;

impl Default for ServerFacts {
    fn default() -> ServerFacts {
        ServerFacts {
            version: (0, 0, 0),
            flavour: Flavour::Redis,
            mode: Mode::Standalone,
            role: Role::Primary,
            is_loading: false,
            proto_max_bulk_len: PROTO_MAX_BULK_LEN,
            databases: None,
            maxclients: None,
            run_id: None,
            modules: Vec::new(),
        }
    }
}

impl ServerFacts {
    /// Takes what the answer to `HELLO` says. Anything else changes nothing.
    pub fn learn_hello(&mut self, reply: &Value) {
        let text = |key| reply.get(key).and_then(Value::as_str);
        if let Some(server) = text("server") {
            self.set_flavour(server, text("version"));
        }
        if let Some(version) = text("version").and_then(parse_version) {
            // A Valkey gives its own version here; what it is compatible with is in INFO.
            if matches!(self.flavour, Flavour::Redis) || self.version == (0, 0, 0) {
                self.version = version;
            }
        }
        if let Some(mode) = text("mode") {
            self.set_mode(mode);
        }
        if let Some(role) = text("role") {
            self.set_role(role);
        }
        if let Some(modules) = reply.get("modules").and_then(Value::as_array) {
            let pairs = modules.iter().filter_map(Value::pairs);
            let owned = |(key, value): (&Value, &Value)| (key.clone(), value.clone());
            // In RESP2 a map is a flat array; what a client is told depends on its own
            // version, not on that in which the server was asked.
            self.modules = pairs
                .map(|pairs| Value::map(pairs.into_iter().map(owned).collect::<Vec<_>>()))
                .collect();
        }
    }

    /// Takes what the answer to `INFO` says, whichever sections it has.
    pub fn learn_info(&mut self, reply: &Value) {
        let (false, Some(info)) = (reply.is_error(), reply.as_str()) else {
            return;
        };
        let fields = || info.lines().filter_map(|line| line.split_once(':'));
        let field = |name: &str| {
            fields()
                .find(|(key, _)| *key == name)
                .map(|(_, v)| v.trim())
        };
        if let Some(version) = field("redis_version").and_then(parse_version) {
            self.version = version;
        }
        if let Some(name) = field("server_name") {
            self.set_flavour(name, field("valkey_version"));
        } else if field("dragonfly_version").is_some() {
            self.flavour = Flavour::Other("dragonfly".to_owned());
        }
        // Valkey names the first one as it likes (`extended-redis-compatibility`).
        if let Some(mode) = field("server_mode").or_else(|| field("redis_mode")) {
            self.set_mode(mode);
        }
        if let Some(role) = field("role") {
            self.set_role(role);
        }
        if let Some(run_id) = field("run_id") {
            self.run_id = Some(run_id.chars().take(RUN_ID_LEN_MAX).collect());
        }
        if let Some(maxclients) = field("maxclients").and_then(|text| text.parse().ok()) {
            self.maxclients = Some(maxclients);
        }
        if let Some(loading) = field("loading") {
            self.is_loading = loading != "0";
        }
    }

    /// Takes what the answer to `CONFIG GET` says: `proto-max-bulk-len`, `databases`,
    /// `maxclients`, whichever are in it.
    pub fn learn_config(&mut self, reply: &Value) {
        let number = |key| reply.get(key).and_then(Value::as_i64);
        if let Some(len) = number("proto-max-bulk-len").and_then(positive) {
            self.proto_max_bulk_len = len;
        }
        if let Some(databases) = number("databases").and_then(positive) {
            self.databases = u32::try_from(databases).ok();
        }
        if let Some(maxclients) = number("maxclients").and_then(positive) {
            self.maxclients = Some(maxclients);
        }
    }

    /// Takes what the answer to `ROLE` says.
    pub fn learn_role(&mut self, reply: &Value) {
        let first = reply.as_array().and_then(<[Value]>::first);
        if let Some(role) = first.and_then(Value::as_str) {
            self.set_role(role);
        }
    }

    /// The version that decides how the server words its errors.
    pub fn server_version(&self) -> ServerVersion {
        let (major, minor, _) = self.version;
        match self.flavour {
            Flavour::Valkey(major, minor, _) => ServerVersion::valkey(major.into(), minor.into()),
            // A server that told nothing speaks like the oldest one still in use.
            _ if major == 0 => ServerVersion::redis(7, 0),
            _ => ServerVersion::redis(major.into(), minor.into()),
        }
    }

    /// Whether it is at least this version of Redis, or compatible with it. A server
    /// that did not tell its version is at least none.
    pub fn is_at_least(&self, major: u8, minor: u8) -> bool {
        (self.version.0, self.version.1) >= (major, minor)
    }

    fn set_flavour(&mut self, name: &str, version: Option<&str>) {
        self.flavour = match name {
            "redis" => Flavour::Redis,
            "valkey" => {
                let (major, minor, patch) = version.and_then(parse_version).unwrap_or_default();
                Flavour::Valkey(major, minor, patch)
            }
            other => Flavour::Other(other.chars().take(NAME_LEN_MAX).collect()),
        };
    }

    fn set_mode(&mut self, mode: &str) {
        self.mode = match mode {
            "cluster" => Mode::Cluster,
            "sentinel" => Mode::Sentinel,
            _ => Mode::Standalone,
        };
    }

    fn set_role(&mut self, role: &str) {
        self.role = match role {
            "slave" | "replica" => Role::Replica,
            "sentinel" => Role::Sentinel,
            _ => Role::Primary,
        };
    }
}

/// Names are kept for people to read; the server may send anything.
const NAME_LEN_MAX: usize = 64;
/// Redis's run ids have 40 characters.
const RUN_ID_LEN_MAX: usize = 64;

/// `7.0.15`, `255.255.255` (an unreleased one), `7.4.0-v1`: the digits that are there.
fn parse_version(text: &str) -> Option<(u8, u8, u8)> {
    let mut parts = text.split('.').map(|part| {
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        part[..digits].parse::<u8>().ok()
    });
    let major = parts.next()??;
    let mut next = || parts.next().flatten().unwrap_or(0);
    Some((major, next(), next()))
}

fn positive(number: i64) -> Option<u64> {
    u64::try_from(number).ok().filter(|&number| number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::bulk(text)
    }

    fn hello(pairs: &[(&str, &str)]) -> Value {
        Value::map(
            pairs
                .iter()
                .map(|(k, v)| (bulk(k), bulk(v)))
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn a_server_that_tells_nothing_is_a_redis_with_its_defaults() {
        let mut facts = ServerFacts::default();
        let refused = Value::error("NOPERM this user has no permissions to run the 'info' command");
        facts.learn_hello(&refused);
        facts.learn_info(&refused);
        facts.learn_config(&refused);
        facts.learn_role(&refused);
        facts.learn_config(&Value::array([]));
        facts.learn_hello(&Value::null());
        facts.learn_info(&Value::integer(3));
        facts.learn_role(&Value::array([Value::integer(3)]));
        assert_eq!(facts, ServerFacts::default());
        assert_eq!(facts.proto_max_bulk_len, 536_870_912);
    }

    #[test]
    fn redis_in_its_own_words() {
        let mut facts = ServerFacts::default();
        facts.learn_hello(&hello(&[
            ("server", "redis"),
            ("version", "7.0.15"),
            ("proto", "3"),
            ("mode", "standalone"),
            ("role", "master"),
        ]));
        assert_eq!(
            (facts.version, &facts.flavour),
            ((7, 0, 15), &Flavour::Redis)
        );
        facts.learn_info(&Value::verbatim_txt(
            "# Server\r\nredis_version:7.0.15\r\nredis_mode:cluster\r\nrun_id:4d8f\r\n\r\n\
             # Clients\r\nmaxclients:64\r\n# Persistence\r\nloading:1\r\n\
             # Replication\r\nrole:slave\r\n",
        ));
        assert_eq!((facts.mode, facts.role), (Mode::Cluster, Role::Replica));
        assert_eq!((facts.maxclients, facts.is_loading), (Some(64), true));
        assert_eq!(facts.run_id.as_deref(), Some("4d8f"));
        facts.learn_config(&Value::array([
            bulk("proto-max-bulk-len"),
            bulk("1048576"),
            bulk("databases"),
            bulk("16"),
        ]));
        assert_eq!(
            (facts.proto_max_bulk_len, facts.databases),
            (1_048_576, Some(16))
        );
        facts.learn_role(&Value::array([
            bulk("master"),
            Value::integer(0),
            Value::array([]),
        ]));
        assert_eq!(facts.role, Role::Primary);
        assert!(facts.is_at_least(7, 0) && !facts.is_at_least(7, 2) && facts.is_at_least(6, 2));
    }

    #[test]
    fn valkey_counts_as_the_redis_it_stands_for() {
        let mut facts = ServerFacts::default();
        facts.learn_hello(&hello(&[("server", "valkey"), ("version", "9.0.1")]));
        assert_eq!(facts.flavour, Flavour::Valkey(9, 0, 1));
        facts.learn_info(&Value::verbatim_txt(
            "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.0.1\r\n\
             server_mode:standalone\r\n",
        ));
        assert_eq!(
            (facts.version, facts.flavour.clone()),
            ((7, 2, 4), Flavour::Valkey(9, 0, 1))
        );
        // Greeted again on the next connection.
        facts.learn_hello(&hello(&[("server", "valkey"), ("version", "9.0.1")]));
        assert_eq!(facts.version, (7, 2, 4));
    }

    #[test]
    fn odd_versions_and_numbers() {
        assert_eq!(parse_version("255.255.255"), Some((255, 255, 255)));
        assert_eq!(parse_version("7.4.0-v1"), Some((7, 4, 0)));
        assert_eq!(parse_version("8"), Some((8, 0, 0)));
        assert_eq!(parse_version("7.0.1234"), Some((7, 0, 0)));
        for odd in ["", "unknown", "999.0.0", ".7", "-1.0"] {
            assert_eq!(parse_version(odd), None, "{odd}");
        }
        let mut facts = ServerFacts::default();
        facts.learn_config(&Value::array([bulk("proto-max-bulk-len"), bulk("-5")]));
        facts.learn_config(&Value::array([bulk("maxclients"), bulk("many")]));
        assert_eq!(facts, ServerFacts::default());
    }
}
