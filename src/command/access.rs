//! What those may ask for who are not let do everything: lists of refused commands,
//! reading only, keys with certain beginnings.
//!
//! The rules are worked out once for a command table; what is asked for each request of a
//! client that has such rules is then one look at a list, and its keys where they matter.

use super::args::Args;
use super::class::{Class, Local, Sub};
use super::flags::Flags;
use super::key_spec::keys;
use super::table::{Command, Table};

/// The rules, as an operator writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessRules {
    /// Names of commands (`flushall`), of subcommands (`config|set`), of containers with
    /// all their subcommands (`config`), and groups ([`GROUPS`]); in any case.
    pub refuse: Vec<String>,
    /// Refuses what may change data, or reach others through `PUBLISH`.
    pub read_only: bool,
    /// If there are any: every key and channel begins with one of these, and what
    /// reaches keys that it does not name is refused.
    pub key_prefixes: Vec<String>,
}

/// The rules, worked out for one table.
#[derive(Clone, Debug)]
pub struct Access {
    /// For each command of the table, by its number.
    verdicts: Vec<Verdict>,
    prefixes: Vec<Box<[u8]>>,
}

/// Which rule refuses a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denied {
    /// The list of refused commands.
    Refused,
    /// It may change something.
    ReadOnly,
    /// It names a key or a channel with another beginning.
    Key,
    /// It reaches keys that it does not name.
    Unscoped,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Allowed,
    Denied(Denied),
    /// Its keys decide.
    ByKeys,
    /// Its channels decide.
    ByChannels,
    /// Its keys decide, and it may have patterns for more of them.
    BySort,
}

/// A group of commands: its name, what it is, and whether a command is in it.
pub struct Group {
    /// As written in a list, with its `@`.
    pub name: &'static str,
    /// For the documentation.
    pub about: &'static str,
    contains: fn(&Command) -> bool,
}

/// All groups.
pub const GROUPS: &[Group] = &[
    Group {
        name: "@shared",
        about: "what no tenant of a shared Redis should do to the others: empty it, list all keys, change or stop the server, watch others' commands, copy everything",
        contains: |command| SHARED.iter().any(|name| is_or_is_in(command, name)),
    },
    Group {
        name: "@write",
        about: "what changes data",
        contains: |command| command.flags.contains(Flags::WRITE),
    },
    Group {
        name: "@admin",
        about: "what Redis calls administrative",
        contains: |command| command.flags.contains(Flags::ADMIN),
    },
    Group {
        name: "@scripting",
        about: "scripts and functions",
        contains: |command| {
            runs_a_script(command)
                || is_or_is_in(command, "script")
                || is_or_is_in(command, "function")
        },
    },
    Group {
        name: "@blocking",
        about: "what may wait for a key",
        contains: |command| matches!(command.class, Class::Blocking(_) | Class::Wait),
    },
    Group {
        name: "@pubsub",
        about: "subscribing and publishing",
        contains: |command| matches!(command.class, Class::Subscription(_) | Class::Publish),
    },
];

/// What one client of a Redis that many share can do to all the others at once.
const SHARED: &[&str] = &[
    "acl|deluser",
    "acl|load",
    "acl|log",
    "acl|save",
    "acl|setuser",
    "bgrewriteaof",
    "bgsave",
    "client|kill",
    "client|no-evict",
    "client|pause",
    "client|unpause",
    "cluster|addslots",
    "cluster|addslotsrange",
    "cluster|bumpepoch",
    "cluster|delslots",
    "cluster|delslotsrange",
    "cluster|failover",
    "cluster|flushslots",
    "cluster|forget",
    "cluster|meet",
    "cluster|replicate",
    "cluster|reset",
    "cluster|saveconfig",
    "cluster|set-config-epoch",
    "cluster|setslot",
    "commandlog|reset",
    "config",
    "debug",
    "failover",
    "flushall",
    "flushdb",
    "function|delete",
    "function|flush",
    "function|kill",
    "function|restore",
    "keys",
    "latency|reset",
    "memory|purge",
    "migrate",
    "module|load",
    "module|loadex",
    "module|unload",
    "monitor",
    "pfdebug",
    "pfselftest",
    "psync",
    "replconf",
    "replicaof",
    "save",
    "script|debug",
    "script|flush",
    "script|kill",
    "shutdown",
    "slaveof",
    "slowlog|reset",
    "swapdb",
    "sync",
];

/// Without keys, and of no use for reaching another's: what a client that is held to
/// some keys may do all the same, besides what Weir answers itself.
const KEYLESS: &[&str] = &[
    "info",
    "ping",
    "echo",
    "time",
    "lolwut",
    "command",
    "multi",
    "exec",
    "discard",
    "unwatch",
    "wait",
    "waitaof",
    "role",
    "lastsave",
    "acl|whoami",
    "acl|genpass",
    "acl|cat",
];

impl AccessRules {
    /// Whether everything is allowed.
    pub fn is_empty(&self) -> bool {
        *self == AccessRules::default()
    }

    /// The names in the list that no command of the table and no group has.
    pub fn unknown<'a>(&'a self, table: &'a Table) -> impl Iterator<Item = &'a str> {
        self.refuse
            .iter()
            .map(String::as_str)
            .filter(move |name| !table.iter().any(|command| names(name, command)))
    }
}

impl Access {
    /// The rules, for the commands of this table.
    pub fn new(table: &Table, rules: &AccessRules) -> Access {
        let verdict = |command: &Command| verdict(command, rules);
        Access {
            verdicts: table.all_rows().map(verdict).collect(),
            prefixes: rules
                .key_prefixes
                .iter()
                .map(|prefix| prefix.as_bytes().into())
                .collect(),
        }
    }

    /// Whether every request of this command may go ahead.
    pub fn always_allows(&self, command: &Command) -> bool {
        self.verdict(command) == Verdict::Allowed
    }

    fn verdict(&self, command: &Command) -> Verdict {
        let number = usize::from(command.id.0);
        self.verdicts
            .get(number)
            .copied()
            .unwrap_or(Verdict::Allowed)
    }

    /// Whether a request may go ahead; `command` is from the table that the rules were
    /// worked out for.
    ///
    /// # Errors
    /// The rule that refuses it.
    pub fn check(&self, command: &Command, args: &(impl Args + ?Sized)) -> Result<(), Denied> {
        let arg = |index: usize| args.arg(index).unwrap_or_default();
        match self.verdict(command) {
            Verdict::Allowed => Ok(()),
            Verdict::Denied(rule) => Err(rule),
            Verdict::ByKeys => self.all(keys(command, args).map(arg)),
            Verdict::ByChannels => match command.class {
                Class::Publish => self.all(std::iter::once(arg(1))),
                _ => self.all((1..args.count()).map(arg)),
            },
            Verdict::BySort => {
                let looks_up = (2..args.count()).map(arg).any(|word| {
                    word.eq_ignore_ascii_case(b"by") || word.eq_ignore_ascii_case(b"get")
                });
                if looks_up {
                    return Err(Denied::Unscoped);
                }
                self.all(keys(command, args).map(arg))
            }
        }
    }

    fn all<'a>(&self, mut names: impl Iterator<Item = &'a [u8]>) -> Result<(), Denied> {
        let is_ours = |name: &[u8]| self.prefixes.iter().any(|prefix| name.starts_with(prefix));
        if names.all(is_ours) {
            Ok(())
        } else {
            Err(Denied::Key)
        }
    }
}

fn verdict(command: &Command, rules: &AccessRules) -> Verdict {
    if !command.exists() {
        // Redis words the error for what it does not have. What it has and Weir has not
        // heard of could be anything.
        return match rules.is_empty() || rules.key_prefixes.is_empty() && !rules.read_only {
            true => Verdict::Allowed,
            false => Verdict::Denied(Denied::Unscoped),
        };
    }
    // Without these no client could log in, leave, or end its transaction.
    if command.flags.contains(Flags::NO_AUTH) || ends_a_block(command.class) {
        return Verdict::Allowed;
    }
    if rules.refuse.iter().any(|name| names(name, command)) {
        return Verdict::Denied(Denied::Refused);
    }
    if rules.read_only && may_change(command) {
        return Verdict::Denied(Denied::ReadOnly);
    }
    if rules.key_prefixes.is_empty() {
        return Verdict::Allowed;
    }
    by_scope(command)
}

/// What a client may do that is held to certain keys.
fn by_scope(command: &Command) -> Verdict {
    match command.class {
        Class::Local(Local::Client) if others_clients(command) => Verdict::Denied(Denied::Unscoped),
        Class::Local(_) | Class::Multi | Class::Exec | Class::Discard | Class::Unwatch => {
            Verdict::Allowed
        }
        Class::Refused => Verdict::Allowed,
        Class::Publish
        | Class::Subscription(Sub::Subscribe | Sub::PSubscribe | Sub::SSubscribe) => {
            Verdict::ByChannels
        }
        Class::Subscription(_) => Verdict::Allowed,
        // A script reaches what it likes.
        _ if runs_a_script(command) => Verdict::Denied(Denied::Unscoped),
        _ if matches!(&*command.name, "sort" | "sort_ro") => Verdict::BySort,
        _ if !command.keys.is_empty() => Verdict::ByKeys,
        _ if KEYLESS.iter().any(|name| is_or_is_in(command, name)) => Verdict::Allowed,
        _ => Verdict::Denied(Denied::Unscoped),
    }
}

fn ends_a_block(class: Class) -> bool {
    matches!(class, Class::Exec | Class::Discard)
}

/// Whether it tells of, or acts upon, other clients.
fn others_clients(command: &Command) -> bool {
    let sub = command.name.split_once('|').map_or("", |(_, sub)| sub);
    matches!(sub, "list" | "kill" | "pause" | "unpause" | "unblock")
}

/// Whether a client that only reads must not have it: writes, scripts that may write,
/// messages to others, the server's own affairs.
fn may_change(command: &Command) -> bool {
    let scripts = runs_a_script(command) && !command.name.ends_with("_ro");
    let harms = SHARED.iter().any(|name| is_or_is_in(command, name)) && command.name != "keys";
    let defines = matches!(&*command.name, "script|load" | "function|load");
    command.flags.contains(Flags::WRITE)
        || scripts
        || harms
        || defines
        || command.class == Class::Publish
}

fn runs_a_script(command: &Command) -> bool {
    matches!(
        &*command.name,
        "eval" | "evalsha" | "fcall" | "eval_ro" | "evalsha_ro" | "fcall_ro"
    )
}

/// Whether an entry of a list names this command.
fn names(entry: &str, command: &Command) -> bool {
    let entry = entry.to_ascii_lowercase();
    match GROUPS.iter().find(|group| group.name == entry) {
        Some(group) => (group.contains)(command),
        None => is_or_is_in(command, &entry),
    }
}

/// Whether the command has this name, or belongs to the container of this name.
fn is_or_is_in(command: &Command, name: &str) -> bool {
    match command.name.strip_prefix(name) {
        Some(rest) => rest.is_empty() || rest.starts_with('|'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rules: &AccessRules, request: &str) -> Result<(), Denied> {
        let table = Table::builtin();
        let access = Access::new(&table, rules);
        let args: Vec<&str> = request.split(' ').collect();
        let command = table.find(args[0].as_bytes(), args.get(1).map(|arg| arg.as_bytes()));
        let said = access.check(command, args.as_slice());
        assert!(said.is_ok() || !access.always_allows(command), "{request}");
        said
    }

    fn refusing(list: &[&str]) -> AccessRules {
        AccessRules {
            refuse: list.iter().map(ToString::to_string).collect(),
            ..AccessRules::default()
        }
    }

    #[test]
    fn commands_subcommands_containers_and_groups_are_refused_by_name() {
        let rules = refusing(&["FlushAll", "config|set", "DEBUG", "@blocking"]);
        for request in [
            "FLUSHALL",
            "config SET a b",
            "debug sleep 0",
            "BLPOP k 0",
            "WAIT 1 0",
        ] {
            assert_eq!(check(&rules, request), Err(Denied::Refused), "{request}");
        }
        for request in ["FLUSHDB", "CONFIG GET a", "GET k", "LPOP k", "NOPE"] {
            assert_eq!(check(&rules, request), Ok(()), "{request}");
        }
        let whole = refusing(&["config"]);
        assert_eq!(check(&whole, "CONFIG GET a"), Err(Denied::Refused));
    }

    #[test]
    fn the_shared_group_keeps_tenants_apart_and_lets_them_work() {
        let rules = refusing(&["@shared"]);
        for request in [
            "FLUSHALL",
            "KEYS *",
            "CONFIG GET a",
            "SHUTDOWN",
            "CLIENT KILL a",
            "MONITOR",
        ] {
            assert_eq!(check(&rules, request), Err(Denied::Refused), "{request}");
        }
        for request in [
            "GET k",
            "EVAL s 0",
            "SCAN 0",
            "INFO",
            "CLIENT SETNAME a",
            "CLIENT LIST",
            "SUBSCRIBE c",
            "SCRIPT LOAD s",
            "FUNCTION LIST",
            "SLOWLOG GET",
        ] {
            assert_eq!(check(&rules, request), Ok(()), "{request}");
        }
    }

    #[test]
    fn every_name_in_the_groups_is_a_command() {
        let table = Table::builtin();
        for name in SHARED.iter().chain(KEYLESS) {
            assert!(
                table.iter().any(|command| is_or_is_in(command, name)),
                "{name}"
            );
        }
    }

    #[test]
    fn who_only_reads_changes_nothing() {
        let rules = AccessRules {
            read_only: true,
            ..AccessRules::default()
        };
        for request in [
            "SET k v",
            "EVAL s 0",
            "FCALL f 0",
            "PUBLISH c m",
            "FLUSHALL",
            "CONFIG SET a b",
            "BLPOP k 0",
            "SORT k STORE d",
            "SCRIPT LOAD s",
        ] {
            assert_eq!(check(&rules, request), Err(Denied::ReadOnly), "{request}");
        }
        for request in [
            "GET k",
            "EVAL_RO s 0",
            "SUBSCRIBE c",
            "MULTI",
            "KEYS *",
            "XREAD STREAMS s 0",
        ] {
            assert_eq!(check(&rules, request), Ok(()), "{request}");
        }
    }

    #[test]
    fn who_is_held_to_certain_keys_reaches_no_others() {
        let rules = AccessRules {
            key_prefixes: vec!["a:".into(), "shared:".into()],
            ..AccessRules::default()
        };
        for request in [
            "GET a:1",
            "MGET a:1 shared:2",
            "SORT a:list LIMIT 0 1",
            "PUBLISH a:c m",
            "PSUBSCRIBE a:*",
            "UNSUBSCRIBE",
            "PING",
            "INFO",
            "CLIENT SETNAME x",
            "ZUNIONSTORE a:d 2 a:1 a:2",
        ] {
            assert_eq!(check(&rules, request), Ok(()), "{request}");
        }
        for request in [
            "GET b:1",
            "MGET a:1 b:2",
            "SET b:1 a:1",
            "PUBLISH b:c m",
            "SUBSCRIBE a:c b:c",
            "PSUBSCRIBE *",
            "ZUNIONSTORE a:d 2 a:1 b:2",
            "RENAME a:1 b:1",
        ] {
            assert_eq!(check(&rules, request), Err(Denied::Key), "{request}");
        }
        for request in [
            "KEYS *",
            "SCAN 0",
            "FLUSHDB",
            "RANDOMKEY",
            "DBSIZE",
            "EVAL s 1 a:1",
            "SORT a:list BY b:*",
            "SORT a:list GET b:*",
            "CLIENT LIST",
            "MONITOR",
            "NOPE k",
        ] {
            assert_eq!(check(&rules, request), Err(Denied::Unscoped), "{request}");
        }
    }

    #[test]
    fn logging_in_and_ending_a_transaction_cannot_be_refused() {
        let rules = refusing(&["auth", "hello", "quit", "reset", "exec", "discard"]);
        for request in ["AUTH p", "HELLO 3", "QUIT", "RESET", "EXEC", "DISCARD"] {
            assert_eq!(check(&rules, request), Ok(()), "{request}");
        }
    }

    #[test]
    fn names_that_nothing_has_are_told() {
        let table = Table::builtin();
        let rules = refusing(&["flushal", "get", "@writes", "config|ste"]);
        let unknown: Vec<_> = rules.unknown(&table).collect();
        assert_eq!(unknown, ["flushal", "@writes", "config|ste"]);
    }

    #[test]
    fn without_rules_no_command_is_looked_at() {
        let table = Table::builtin();
        let access = Access::new(&table, &AccessRules::default());
        assert!(
            table
                .all_rows()
                .all(|command| access.always_allows(command))
        );
    }
}
