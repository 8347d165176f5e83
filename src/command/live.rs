//! The live server's own account of its commands, laid over the built-in rows.

use super::class::{Blocking, Class, Local};
use super::flags::Flags;
use super::key_spec::{Begin, Find, KeySpec};
use super::table::{Command, CommandId, Table};
use crate::resp::Value;
use std::borrow::Cow;
use std::collections::HashMap;

/// No server has as many commands; what is beyond is not in the table and thus
/// forwarded like any unknown command. Bounds what a reply can make Weir keep.
const COMMANDS_MAX: usize = 8192;

/// No command has as long a name.
const NAME_MAX: usize = 128;

/// A command with as many runs of keys is none of this world.
const KEY_SPECS_MAX: usize = 8;

/// Commands that Weir answers whether the server lists them or not: `QUIT` was no
/// command of the table before Redis 7, browsers' requests and `WEIR` are in no table, and
/// asking for maintenance notifications must never reach a shared connection.
const ALWAYS: [&str; 5] = [
    "quit",
    "host:",
    "post",
    "client|maint_notifications",
    "weir",
];

/// One command as the server describes it.
struct Live {
    arity: i16,
    flags: Flags,
    keys: Vec<KeySpec>,
}

/// The server's commands by name, and whether each says which subcommands it has.
#[derive(Default)]
struct Account {
    commands: HashMap<String, Live>,
    in_order: Vec<String>,
    /// Containers whose subcommands are all named; servers before Redis 7 name none.
    complete: HashMap<String, bool>,
}

impl Table {
    /// This table as the server's reply to `COMMAND` corrects it, in RESP2 or
    /// RESP3.
    ///
    /// Arity and the server's flags become those of the reply; what the server
    /// does not have becomes unknown, so that the error is the server's; what it
    /// has and Weir does not know gets a class from its flags. A reply that is no
    /// list of commands (a managed server may refuse `COMMAND`) changes nothing.
    pub fn with_live(&self, reply: &Value) -> Self {
        let account = Account::read(reply);
        if account.commands.is_empty() {
            return self.clone();
        }
        let builtin = Self::builtin();
        let mut commands: Vec<Command> = builtin.all_rows().cloned().collect();
        for command in commands.iter_mut().filter(|command| command.exists()) {
            account.correct(command);
        }
        for name in &account.in_order {
            let known = match name.split_once('|') {
                Some((top, sub)) => builtin.find(top.as_bytes(), Some(sub.as_bytes())),
                None => builtin.find(name.as_bytes(), None),
            };
            if known.name != *name {
                commands.push(account.commands[name].command(name));
            }
        }
        Self::new(commands)
    }
}

impl Account {
    fn read(reply: &Value) -> Self {
        let mut account = Self::default();
        for entry in reply.as_array().unwrap_or_default() {
            account.add(entry, None);
        }
        account
    }

    fn add(&mut self, entry: &Value, container: Option<&str>) {
        let Some(entry) = entry.as_array() else {
            return;
        };
        let Some(name) = entry.first().and_then(Value::as_str) else {
            return;
        };
        let name = name.to_ascii_lowercase();
        let belongs = match container {
            None => !name.contains('|'),
            Some(container) => name
                .split_once('|')
                .is_some_and(|(top, sub)| top == container && !sub.contains('|')),
        };
        let new = belongs && name.len() <= NAME_MAX && !self.commands.contains_key(&name);
        if !new || self.in_order.len() >= COMMANDS_MAX {
            return;
        }
        let Some(live) = Live::read(entry) else {
            return;
        };
        self.commands.insert(name.clone(), live);
        self.in_order.push(name.clone());
        if container.is_none() {
            let subs = entry.get(9).and_then(Value::as_array);
            for sub in subs.unwrap_or_default() {
                self.add(sub, Some(&name));
            }
            self.complete.insert(name, subs.is_some());
        }
    }

    /// Makes a built-in command say what the server says.
    fn correct(&self, command: &mut Command) {
        if let Some(live) = self.commands.get(&*command.name) {
            command.arity = live.arity;
            command.flags = command.flags.without(Flags::OF_SERVER) | live.flags;
            if live.flags.contains(Flags::WRITE) {
                command.flags = command.flags.without(Flags::RETRY_SAFE);
            }
            return;
        }
        let silent_container = command
            .name
            .split_once('|')
            .is_some_and(|(container, _)| self.complete.get(container) == Some(&false));
        if !silent_container && !ALWAYS.contains(&&*command.name) {
            command.flags = Flags::UNKNOWN;
            command.class = Class::Plain;
        }
    }
}

impl Live {
    fn read(entry: &[Value]) -> Option<Self> {
        let arity = i16::try_from(entry.get(1)?.as_i64()?).ok()?;
        let flags = entry.get(2)?.as_array()?.iter().filter_map(Value::as_str);
        let flags = flags.map(flag).fold(Flags::NOTHING, Flags::union);
        let specs = entry.get(8).and_then(Value::as_array).unwrap_or_default();
        let mut keys: Vec<KeySpec> = specs
            .iter()
            .take(KEY_SPECS_MAX)
            .filter_map(key_spec)
            .collect();
        if keys.is_empty() {
            keys.extend(first_last_step(entry));
        }
        Some(Self { arity, flags, keys })
    }

    /// A command that only the server knows.
    fn command(&self, name: &str) -> Command {
        Command {
            name: Cow::Owned(name.to_owned()),
            arity: self.arity,
            flags: self.flags | self.own_flags(),
            keys: Cow::Owned(self.keys.clone()),
            class: self.class(name),
            id: CommandId(0),
        }
    }

    /// A command that leaves something behind on its connection says so by what
    /// else it is not allowed to be; when in doubt it gets a connection that
    /// nobody shares.
    fn class(&self, name: &str) -> Class {
        let has = |flags| self.flags.intersects(flags);
        if name.starts_with("client|") {
            return Class::Local(Local::Client);
        }
        if has(Flags::BLOCKING) {
            return Class::Blocking(Blocking::Unknown);
        }
        let about_the_session = has(Flags::PUBSUB | Flags::NO_MULTI)
            || self.flags.contains(Flags::NOSCRIPT | Flags::NO_AUTH)
            || has(Flags::NOSCRIPT) && !has(Flags::MODULE | Flags::READONLY | Flags::WRITE);
        if has(Flags::ADMIN) && !has(Flags::PUBSUB | Flags::NO_MULTI | Flags::NO_AUTH) {
            Class::Alone
        } else if about_the_session {
            Class::Pinned
        } else {
            Class::Plain
        }
    }

    /// A module's word about reading only is not trusted, and how long its
    /// commands take is not known.
    fn own_flags(&self) -> Flags {
        if self.flags.contains(Flags::MODULE) {
            Flags::SLOW
        } else if self.flags.contains(Flags::READONLY) {
            Flags::RETRY_SAFE
        } else {
            Flags::NOTHING
        }
    }
}

fn flag(name: &str) -> Flags {
    match name {
        "readonly" => Flags::READONLY,
        "write" => Flags::WRITE,
        "denyoom" => Flags::DENYOOM,
        "admin" => Flags::ADMIN,
        "pubsub" => Flags::PUBSUB,
        "noscript" => Flags::NOSCRIPT,
        "blocking" => Flags::BLOCKING,
        "loading" => Flags::LOADING,
        "stale" => Flags::STALE,
        "no_auth" => Flags::NO_AUTH,
        "no_multi" => Flags::NO_MULTI,
        "allow_busy" => Flags::ALLOW_BUSY,
        "module" => Flags::MODULE,
        "movablekeys" => Flags::MOVABLE_KEYS,
        _ => Flags::NOTHING,
    }
}

/// One of the key specifications that servers give since Redis 7.
fn key_spec(spec: &Value) -> Option<KeySpec> {
    let begin = spec.get("begin_search")?;
    let of_begin = begin.get("spec")?;
    let begin = match begin.get("type")?.as_str()? {
        "index" => Begin::Index(position(of_begin.get("index")?)?),
        "keyword" => Begin::Keyword {
            word: Cow::Owned(of_begin.get("keyword")?.as_str()?.to_owned()),
            start: isize::from(small(of_begin.get("startfrom")?)?),
        },
        _ => return None,
    };
    let find = spec.get("find_keys")?;
    let of_find = find.get("spec")?;
    let find = match find.get("type")?.as_str()? {
        "range" => Find::Range {
            last: isize::from(small(of_find.get("lastkey")?)?),
            step: position(of_find.get("keystep")?)?,
            limit: position(of_find.get("limit")?)?,
        },
        "keynum" => Find::Count {
            number: position(of_find.get("keynumidx")?)?,
            first: position(of_find.get("firstkey")?)?,
            step: position(of_find.get("keystep")?)?,
        },
        _ => return None,
    };
    Some(KeySpec { begin, find })
}

/// What servers say about keys in any version: 0 for none.
fn first_last_step(entry: &[Value]) -> Option<KeySpec> {
    let first = position(entry.get(3)?)?;
    let last = isize::from(small(entry.get(4)?)?);
    let step = position(entry.get(5)?)?;
    // A range counts from its beginning if it does not count from the end.
    let last = if last < 0 {
        last
    } else {
        last - first as isize
    };
    (first > 0).then_some(KeySpec {
        begin: Begin::Index(first),
        find: Find::Range {
            last,
            step,
            limit: 0,
        },
    })
}

fn small(value: &Value) -> Option<i16> {
    i16::try_from(value.as_i64()?).ok()
}

fn position(value: &Value) -> Option<usize> {
    usize::try_from(small(value)?).ok()
}

#[cfg(test)]
mod tests {
    use super::super::keys;
    use super::*;

    fn words(words: &[&str]) -> Value {
        Value::array(
            words
                .iter()
                .map(|word| Value::simple(*word))
                .collect::<Vec<_>>(),
        )
    }

    /// An entry as Redis 6.2 gives it: name, arity, flags, first, last, step.
    fn entry(name: &str, arity: i64, flags: &[&str], keys: [i64; 3]) -> Vec<Value> {
        let mut entry = vec![Value::bulk(name), Value::integer(arity), words(flags)];
        entry.extend(keys.map(Value::integer));
        entry.push(words(&[]));
        entry
    }

    /// As since Redis 7: with tips, key specifications and subcommands.
    fn entry7(name: &str, arity: i64, flags: &[&str], specs: &[Value], subs: &[Value]) -> Value {
        let mut entry = entry(name, arity, flags, [0, 0, 0]);
        entry.extend([words(&[]), Value::array(specs), Value::array(subs)]);
        Value::array(entry)
    }

    fn keys_spec() -> Value {
        let map = |pairs: &[(&str, Value)]| {
            Value::map(
                pairs
                    .iter()
                    .map(|(k, v)| (Value::bulk(*k), v.clone()))
                    .collect::<Vec<_>>(),
            )
        };
        let spec = |kind: &str, of: Value| map(&[("type", Value::bulk(kind)), ("spec", of)]);
        map(&[
            ("flags", words(&["RW"])),
            (
                "begin_search",
                spec("index", map(&[("index", Value::integer(2))])),
            ),
            (
                "find_keys",
                spec(
                    "keynum",
                    map(&[
                        ("keynumidx", Value::integer(0)),
                        ("firstkey", Value::integer(1)),
                        ("keystep", Value::integer(1)),
                    ]),
                ),
            ),
        ])
    }

    #[test]
    fn the_server_decides_what_exists_and_with_how_many_arguments() {
        let reply = Value::array([
            Value::array(entry("get", 3, &["readonly"], [1, 1, 1])),
            Value::array(entry("pfcount", -2, &["write"], [1, -1, 1])),
        ]);
        let table = Table::builtin().with_live(&reply);
        assert!(table.find(b"get", None).accepts(3));
        assert_eq!(
            table.find(b"get", None).id,
            Table::builtin().find(b"get", None).id
        );
        let pfcount = table.find(b"pfcount", None).flags;
        assert!(pfcount.contains(Flags::WRITE | Flags::MAY_REPLICATE));
        assert!(!pfcount.intersects(Flags::RETRY_SAFE | Flags::READONLY));
        for gone in [&b"set"[..], b"hello", b"client"] {
            let command = table.find(gone, None);
            assert!(!command.exists());
            assert_eq!(command.class, Class::Plain);
        }
        assert!(!table.find(b"client", Some(b"id")).exists());
        assert_eq!(table.find(b"QUIT", None).class, Class::Local(Local::Quit));
        assert_eq!(table.find(b"post", None).class, Class::Refused);
    }

    #[test]
    fn subcommands_are_kept_where_the_server_names_none() {
        let old = Value::array([Value::array(entry("client", -2, &["admin"], [0, 0, 0]))]);
        let table = Table::builtin().with_live(&old);
        assert_eq!(
            table.find(b"client", Some(b"id")).class,
            Class::Local(Local::Client)
        );
        let id = entry7("client|id", 2, &[], &[], &[]);
        let new = Value::array([entry7("client", -2, &[], &[], &[id])]);
        let table = Table::builtin().with_live(&new);
        assert!(table.find(b"client", Some(b"id")).exists());
        assert!(!table.find(b"client", Some(b"no-touch")).exists());
        assert!(table.find(b"client", Some(b"maint_notifications")).exists());
    }

    #[test]
    fn what_weir_does_not_know_travels_by_its_flags() {
        let sub = entry7(
            "my.box|open",
            2,
            &["noscript", "no_auth", "module"],
            &[],
            &[],
        );
        let reply = Value::array([
            entry7("my.wait", -2, &["write", "blocking", "module"], &[], &[]),
            entry7("my.get", -2, &["readonly", "module"], &[keys_spec()], &[]),
            entry7("my.admin", -2, &["admin", "module"], &[], &[]),
            entry7("my.channel", -2, &["pubsub", "module"], &[], &[]),
            entry7("my.box", -2, &[], &[], &[sub]),
            entry7("newread", -2, &["readonly"], &[], &[]),
            entry7("newmode", -2, &["noscript", "loading", "stale"], &[], &[]),
            Value::array(entry("oldkeys", -3, &["write"], [1, -2, 1])),
        ]);
        let table = Table::builtin().with_live(&reply);
        let class = |name: &str| table.find(name.as_bytes(), None).class;
        assert_eq!(class("my.wait"), Class::Blocking(Blocking::Unknown));
        assert_eq!(class("MY.GET"), Class::Plain);
        assert_eq!(class("my.admin"), Class::Alone);
        assert_eq!(class("my.channel"), Class::Pinned);
        assert_eq!(class("newread"), Class::Plain);
        assert_eq!(class("newmode"), Class::Pinned);
        assert_eq!(table.find(b"my.box", Some(b"open")).class, Class::Pinned);
        let get = table.find(b"my.get", None);
        assert!(!get.flags.contains(Flags::RETRY_SAFE));
        assert!(
            table
                .find(b"newread", None)
                .flags
                .contains(Flags::RETRY_SAFE)
        );
        let args = ["my.get", "x", "2", "a", "b", "c"];
        assert_eq!(keys(get, &args).collect::<Vec<_>>(), [3, 4]);
        let args = ["oldkeys", "a", "b", "0"];
        let command = table.find(b"oldkeys", None);
        assert_eq!(keys(command, &args).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_reply_that_is_none_changes_nothing() {
        let builtin = Table::builtin();
        for reply in [
            Value::error("NOPERM no"),
            Value::array([]),
            Value::Null,
            Value::array([
                Value::Null,
                Value::array([]),
                Value::array([Value::bulk("get")]),
            ]),
        ] {
            let table = builtin.with_live(&reply);
            assert_eq!(table.iter().count(), builtin.iter().count(), "{reply:?}");
        }
    }

    #[test]
    fn names_that_make_no_sense_are_left_out() {
        let reply = Value::array([
            Value::array(entry("get", 2, &[], [1, 1, 1])),
            Value::array(entry("a|b", 2, &[], [1, 1, 1])),
            Value::array(entry(&"x".repeat(NAME_MAX + 1), 2, &[], [1, 1, 1])),
            Value::array(entry("far", 2, &[], [i64::MAX, 1, 1])),
            Value::array(entry("wide", i64::MAX, &[], [1, 1, 1])),
            entry7(
                "box",
                -2,
                &[],
                &[],
                &[entry7("other|sub", 2, &[], &[], &[])],
            ),
        ]);
        let table = Table::builtin().with_live(&reply);
        let names: Vec<&str> = table.iter().map(|command| &*command.name).collect();
        assert!(names.contains(&"far") && names.contains(&"box") && names.contains(&"get"));
        assert!(
            !names
                .iter()
                .any(|name| ["a|b", "wide", "other|sub"].contains(name))
        );
    }
}
