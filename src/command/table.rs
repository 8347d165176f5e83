//! All commands that Weir knows, and how to find one.

use super::class::Class;
use super::flags::Flags;
use super::index::{Index, TOP};
use super::key_spec::KeySpec;
use super::rows;
use std::borrow::Cow;

/// What is known of one command or subcommand.
#[derive(Clone, Debug)]
pub struct Command {
    /// In lower case; a subcommand has its container's name before it, as Redis
    /// writes it in errors: `client|id`.
    pub name: Cow<'static, str>,
    /// How many arguments it takes, the name included; if negative, at least
    /// that many.
    pub arity: i16,
    /// Its properties.
    pub flags: Flags,
    /// Where its keys are.
    pub keys: Cow<'static, [KeySpec]>,
    /// How it travels, if its arguments do not say otherwise
    /// ([`class_of`](super::class_of)).
    pub class: Class,
    /// Its number in the table that it is from.
    pub id: CommandId,
}

/// A command's number in its [`Table`], small enough for a record of a request
/// in flight. Numbers of built-in commands are the same in every table; those of
/// a module's commands are not, so after a table was replaced they may name
/// another command: good for counting and logging, not for deciding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct CommandId(pub u16);

/// The commands of one server, found by name.
#[derive(Clone, Debug)]
pub struct Table {
    /// The two unknown ones first, then in the order of their numbers.
    commands: Vec<Command>,
    index: Index,
}

const UNKNOWN: usize = 0;
const UNKNOWN_SUBCOMMAND: usize = 1;

impl Table {
    /// The table of the commands that Redis and Valkey bring along, for as long
    /// as the server's own has not been read.
    pub fn builtin() -> Self {
        let mut commands = vec![unknown("unknown"), unknown("unknown|unknown")];
        commands.extend(rows::all().map(|row| Command {
            name: Cow::Borrowed(row.name),
            arity: row.arity,
            flags: row.flags,
            keys: Cow::Borrowed(row.keys),
            class: row.class,
            id: CommandId(0),
        }));
        Self::new(commands)
    }

    /// A table of these commands; the first two stand for the unknown ones.
    pub(super) fn new(mut commands: Vec<Command>) -> Self {
        for (number, command) in commands.iter_mut().enumerate() {
            command.id = CommandId(u16::try_from(number).expect("the table's maker bounds it"));
        }
        let tops = Index::new(
            commands
                .iter()
                .filter(|it| it.exists() && !it.name.contains('|'))
                .map(|command| (TOP, command.name.as_bytes(), command.id.0)),
        );
        let mut containers = Vec::new();
        let index = Index::new(
            commands
                .iter()
                .filter(|it| it.exists())
                .filter_map(|command| {
                    let number = command.id.0;
                    let Some((container, name)) = command.name.split_once('|') else {
                        return Some((TOP, command.name.as_bytes(), number));
                    };
                    let owner = tops.find(TOP, container.as_bytes())?;
                    containers.push(owner);
                    Some((owner, name.as_bytes(), number))
                }),
        );
        for owner in containers {
            commands[usize::from(owner)].flags |= Flags::CONTAINER;
        }
        Self { commands, index }
    }

    /// What is known of the command called `name`, in any case; `sub` is the
    /// second argument if there is one, looked at only if the command has
    /// subcommands. What is not in the table is [`Class::Plain`] and does not
    /// [exist](Command::exists): Redis words the error.
    #[inline]
    pub fn find(&self, name: &[u8], sub: Option<&[u8]>) -> &Command {
        let Some(number) = self.index.find(TOP, name) else {
            return &self.commands[UNKNOWN];
        };
        let command = &self.commands[usize::from(number)];
        match sub {
            Some(sub) if command.flags.contains(Flags::CONTAINER) => self
                .index
                .find(number, sub)
                .map_or(&self.commands[UNKNOWN_SUBCOMMAND], |n| {
                    &self.commands[usize::from(n)]
                }),
            _ => command,
        }
    }

    /// The command with this number; the unknown one if the table has none.
    pub fn by_id(&self, id: CommandId) -> &Command {
        self.commands
            .get(usize::from(id.0))
            .unwrap_or(&self.commands[UNKNOWN])
    }

    /// All rows in the order of their numbers, the unknown ones too.
    pub(super) fn all_rows(&self) -> impl Iterator<Item = &Command> {
        self.commands.iter()
    }

    /// How many rows there are: the numbers of commands are below it.
    pub fn rows(&self) -> usize {
        self.commands.len()
    }

    /// All commands and subcommands that exist.
    pub fn iter(&self) -> impl Iterator<Item = &Command> {
        self.commands.iter().filter(|command| command.exists())
    }
}

impl Command {
    /// Whether the server has this command. If not, Redis must word the error.
    #[inline]
    pub fn exists(&self) -> bool {
        !self.flags.contains(Flags::UNKNOWN)
    }

    /// Whether a request with `count` arguments, the name included, has as many
    /// as this command takes.
    #[inline]
    pub fn accepts(&self, count: usize) -> bool {
        let wanted = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 {
            count >= wanted
        } else {
            count == wanted
        }
    }
}

/// Takes any number of arguments and goes to Redis, which refuses it.
fn unknown(name: &'static str) -> Command {
    Command {
        name: Cow::Borrowed(name),
        arity: -1,
        flags: Flags::UNKNOWN,
        keys: Cow::Borrowed(&[]),
        class: Class::Plain,
        id: CommandId(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Local, class_of};

    fn name_of<'a>(table: &'a Table, request: &[&str]) -> &'a str {
        &table
            .find(
                request[0].as_bytes(),
                request.get(1).map(|sub| sub.as_bytes()),
            )
            .name
    }

    #[test]
    fn a_command_is_found_in_any_case_and_by_its_subcommand() {
        let table = Table::builtin();
        assert_eq!(name_of(&table, &["GeT", "client"]), "get");
        assert_eq!(name_of(&table, &["CLIENT", "ID"]), "client|id");
        assert_eq!(name_of(&table, &["client"]), "client");
        assert_eq!(name_of(&table, &["command"]), "command");
        assert_eq!(
            name_of(&table, &["georadiusbymember_RO", "k"]),
            "georadiusbymember_ro"
        );
        for request in [
            &["client|id"][..],
            &["nope"],
            &[""],
            &["get\0"],
            &["client", "nope"],
        ] {
            let command = table.find(request[0].as_bytes(), request.get(1).map(|s| s.as_bytes()));
            assert!(!command.exists(), "{request:?}");
            assert_eq!(command.class, Class::Plain);
        }
    }

    #[test]
    fn every_row_is_found_by_its_own_name_and_number() {
        let table = Table::builtin();
        for command in table.iter() {
            let (name, sub) = match command.name.split_once('|') {
                Some((name, sub)) => (name, Some(sub.as_bytes())),
                None => (&*command.name, None),
            };
            let upper = name.to_ascii_uppercase();
            assert_eq!(table.find(upper.as_bytes(), sub).name, command.name);
            assert_eq!(table.by_id(command.id).name, command.name);
        }
        assert!(!table.by_id(CommandId(u16::MAX)).exists());
    }

    #[test]
    fn arity_counts_the_name_and_may_be_a_minimum() {
        let table = Table::builtin();
        let get = table.find(b"get", None);
        assert!(get.accepts(2) && !get.accepts(1) && !get.accepts(3));
        let mget = table.find(b"mget", None);
        assert!(mget.accepts(2) && mget.accepts(200) && !mget.accepts(1));
    }

    #[test]
    fn what_depends_on_arguments_is_decided_by_them() {
        let table = Table::builtin();
        for (request, class) in [
            ("GET k", Class::Plain),
            ("XREAD STREAMS s 0", Class::Plain),
            ("DEBUG SLEEP 0", Class::Control),
            ("DEBUG PROTOCOL push", Class::Alone),
            ("SCRIPT DEBUG NO", Class::Plain),
            ("SCRIPT DEBUG YES", Class::Tunnel),
            ("CLIENT ID", Class::Local(Local::Client)),
            ("POST / HTTP/1.1", Class::Refused),
            ("Host: example", Class::Refused),
        ] {
            let args: Vec<&str> = request.split(' ').collect();
            let command = table.find(args[0].as_bytes(), Some(args[1].as_bytes()));
            assert_eq!(class_of(command, args.as_slice()), class, "{request}");
        }
    }
}
