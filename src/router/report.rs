//! What a node said of itself, and whether it says anything at all.

use super::Role;
use crate::resp::Value;

/// Whether a node serves, as its probes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// Nobody has asked yet.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It answers that it is loading its data.
    Loading,
    /// It accepts, or its connections stand, and nothing answers.
    Hung,
    /// It cannot be connected to.
    Down,
    /// It answers, and refuses Weir: a wrong password, its own `maxclients`.
    Refused,
}

impl Health {
    /// Every state, in the order of the numbers that they are stored as.
    pub const ALL: [Health; 6] = [
        Health::Unknown,
        Health::Up,
        Health::Loading,
        Health::Hung,
        Health::Down,
        Health::Refused,
    ];

    /// The stable label of metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Health::Unknown => "unknown",
            Health::Up => "up",
            Health::Loading => "loading",
            Health::Hung => "hung",
            Health::Down => "down",
            Health::Refused => "refused",
        }
    }
}

/// What a node said of itself at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What it is.
    pub role: Role,
    /// Names the history of writes that it has; `None` if it does not tell.
    pub replid: Option<String>,
    /// The history that it went on from when it was promoted.
    pub replid2: Option<String>,
    /// Names the process: another after a restart. `None` if it does not tell.
    pub run: Option<String>,
    /// How far it is in that history, in bytes.
    pub offset: i64,
    /// A replica: whether it hears from whom it copies.
    pub link_up: bool,
    /// A replica: whom it copies, as `host:port`.
    pub source: Option<String>,
    /// It is loading its data.
    pub loading: bool,
    /// Its last write to disk failed.
    pub disk_error: bool,
}

impl Report {
    /// Whether this history is one that the node has, or went on from.
    pub fn has_history(&self, replid: &str) -> bool {
        self.replid.as_deref() == Some(replid) || self.replid2.as_deref() == Some(replid)
    }

    /// Reads the answers to `ROLE`, `INFO replication`, `INFO persistence` and `INFO server`.
    /// A node that says no to the latter is known by its role alone; `None` if that is not
    /// told either.
    pub fn read(
        role: &Value,
        replication: &Value,
        persistence: &Value,
        server: &Value,
    ) -> Option<Report> {
        let info = Info(replication);
        let answer = role.as_array();
        let name = match answer.and_then(|role| role.first()?.as_str()) {
            Some(name) => name,
            None => info.get("role")?,
        };
        let role = match name {
            "master" => Role::Primary,
            "slave" | "replica" => Role::Replica,
            _ => return None,
        };
        let of_role = |index: usize| answer.and_then(|role| role.get(index));
        let number = |text: &str| text.parse::<i64>().ok();
        let id = |name| info.get(name).filter(|id| is_replid(id)).map(str::to_owned);
        let (source, link_up, offset) = match role {
            Role::Replica => {
                let host = of_role(1)
                    .and_then(Value::as_str)
                    .or(info.get("master_host"));
                let port = of_role(2).and_then(Value::as_i64);
                let port = port.or_else(|| info.get("master_port").and_then(number));
                let source = host.zip(port).map(|(host, port)| format!("{host}:{port}"));
                let link = of_role(3).and_then(Value::as_str);
                let up = link.map_or(info.get("master_link_status") == Some("up"), |link| {
                    link == "connected"
                });
                let offset = of_role(4).and_then(Value::as_i64);
                let told = info.get("slave_repl_offset").and_then(number);
                (source, up, offset.filter(|&offset| offset >= 0).or(told))
            }
            _ => {
                let offset = of_role(1).and_then(Value::as_i64);
                let told = info.get("master_repl_offset").and_then(number);
                (None, true, offset.or(told))
            }
        };
        let disk = Info(persistence);
        let failed = |name| disk.get(name).is_some_and(|status| status != "ok");
        Some(Report {
            role,
            replid: id("master_replid"),
            replid2: id("master_replid2"),
            run: Info(server).get("run_id").map(str::to_owned),
            offset: offset.unwrap_or(-1),
            link_up,
            source,
            loading: disk.get("loading").is_some_and(|loading| loading != "0"),
            disk_error: failed("rdb_last_bgsave_status") || failed("aof_last_write_status"),
        })
    }
}

struct Info<'a>(&'a Value);

impl<'a> Info<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        if self.0.is_error() {
            return None;
        }
        let mut fields = self.0.as_str()?.lines().filter_map(|it| it.split_once(':'));
        fields
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.trim())
    }
}

/// Forty characters, and not the zeros that stand for none.
fn is_replid(text: &str) -> bool {
    text.len() == 40 && text.bytes().any(|byte| byte != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const ZEROS: &str = "0000000000000000000000000000000000000000";

    #[test]
    fn a_primary_and_a_replica_in_redis_words() {
        let role = Value::array([Value::bulk("master"), Value::integer(42), Value::array([])]);
        let info = Value::bulk(format!(
            "# Replication\r\nrole:master\r\nmaster_replid:{A}\r\nmaster_replid2:{ZEROS}\r\n"
        ));
        let server = Value::bulk("redis_version:7.0.15\r\nrun_id:abc\r\n");
        let disk = Value::bulk("# Persistence\r\nloading:0\r\nrdb_last_bgsave_status:err\r\n");
        let report = Report::read(&role, &info, &disk, &server).unwrap();
        assert_eq!(report.role, Role::Primary);
        assert_eq!((report.offset, report.loading), (42, false));
        assert_eq!(report.run.as_deref(), Some("abc"));
        assert_eq!((report.replid.as_deref(), report.replid2), (Some(A), None));
        assert!(report.disk_error);

        let role = Value::array([
            Value::bulk("slave"),
            Value::bulk("10.0.0.1"),
            Value::integer(6379),
            Value::bulk("connect"),
            Value::integer(-1),
        ]);
        let info = Value::bulk("role:slave\r\nslave_repl_offset:7\r\n");
        let report = Report::read(&role, &info, &Value::null(), &Value::null()).unwrap();
        assert_eq!(report.role, Role::Replica);
        assert_eq!(report.source.as_deref(), Some("10.0.0.1:6379"));
        assert_eq!((report.link_up, report.offset), (false, 7));
    }

    #[test]
    fn what_a_managed_server_keeps_to_itself_is_done_without() {
        let no = Value::error("NOPERM this user has no permissions");
        let info = Value::bulk(
            "role:slave\r\nmaster_host:h\r\nmaster_port:1\r\nmaster_link_status:up\r\n",
        );
        let report = Report::read(&no, &info, &no, &no).unwrap();
        assert_eq!(report.role, Role::Replica);
        assert!(report.link_up && !report.disk_error && !report.loading);
        assert_eq!(Report::read(&no, &no, &no, &no), None);
        assert_eq!(
            Report::read(&Value::array([Value::bulk("sentinel")]), &no, &no, &no),
            None
        );
    }
}
