//! The errors with which Redis refuses a command before it looks at the data.
//!
//! Such a request is best forwarded, and Redis says it itself. Only where Weir
//! keeps a transaction back and must answer in Redis's place does it need the
//! words. All are without the leading `-`, and echo what the client sent: the
//! encoder makes line breaks harmless.

use super::args::Args;
use super::flags::Flags;
use super::server_version::{Flavour, ServerVersion};
use super::table::{Command, Table};

/// Redis cuts what it echoes to this many bytes.
const ECHO_MAX: usize = 128;

/// Why Redis will not even queue this request in a transaction: the command
/// does not exist, has too few or too many arguments, or is not allowed there.
/// `None` if it will be queued, as far as the table can tell.
pub fn refusal(
    table: &Table,
    args: &(impl Args + ?Sized),
    server: ServerVersion,
) -> Option<Vec<u8>> {
    let name = args.arg(0).unwrap_or_default();
    let command = table.find(name, args.arg(1));
    if !command.exists() {
        let container = table.find(name, None);
        return Some(match args.arg(1) {
            Some(sub) if container.exists() => unknown_subcommand(container, sub, server),
            _ => unknown_command(args, server),
        });
    }
    if !command.accepts(args.count()) {
        return Some(wrong_arity(command, args, server));
    }
    command
        .flags
        .contains(Flags::NO_MULTI)
        .then(|| not_in_transaction(command, server))
}

fn unknown_command(args: &(impl Args + ?Sized), server: ServerVersion) -> Vec<u8> {
    // Redis 7 quotes otherwise than 6.2, which does not cut the name either.
    let (open, close, after, name_max) = if server.like_redis(7, 0) {
        ("'", "'", " ", ECHO_MAX)
    } else {
        ("`", "`", ", ", usize::MAX)
    };
    let mut text = format!("ERR unknown command {open}").into_bytes();
    text.extend(echoed(args.arg(0).unwrap_or_default(), name_max));
    text.extend(format!("{close}, with args beginning with: ").bytes());
    let begin = text.len();
    for index in 1..args.count() {
        let Some(room) = ECHO_MAX
            .checked_sub(text.len() - begin)
            .filter(|room| *room > 0)
        else {
            break;
        };
        text.extend(open.bytes());
        text.extend(echoed(args.arg(index).unwrap_or_default(), room));
        text.extend(close.bytes());
        text.extend(after.bytes());
    }
    text
}

/// What Redis says about a subcommand that it does not have.
pub fn unknown_subcommand(container: &Command, sub: &[u8], server: ServerVersion) -> Vec<u8> {
    let mut text = if server.like_redis(7, 0) {
        b"ERR unknown subcommand '".to_vec()
    } else {
        b"ERR Unknown subcommand or wrong number of arguments for '".to_vec()
    };
    text.extend(echoed(sub, ECHO_MAX));
    text.extend(format!("'. Try {} HELP.", container.name.to_ascii_uppercase()).bytes());
    text
}

fn not_in_transaction(command: &Command, server: ServerVersion) -> Vec<u8> {
    let name = match server.flavour {
        Flavour::Valkey if server.is_valkey(8, 0) => format!("'{}' ", command.name),
        _ => String::new(),
    };
    format!("ERR Command {name}not allowed inside a transaction").into_bytes()
}

fn wrong_arity(command: &Command, args: &(impl Args + ?Sized), server: ServerVersion) -> Vec<u8> {
    match command.name.split_once('|') {
        // Before Redis 7 the container itself counts, and says this.
        Some((container, _)) if !server.like_redis(7, 0) => {
            let mut text = b"ERR Unknown subcommand or wrong number of arguments for '".to_vec();
            text.extend(echoed(args.arg(1).unwrap_or_default(), ECHO_MAX));
            text.extend(format!("'. Try {} HELP.", container.to_ascii_uppercase()).bytes());
            text
        }
        _ => format!(
            "ERR wrong number of arguments for '{}' command",
            command.name
        )
        .into_bytes(),
    }
}

/// What C's `%s` makes of an argument: nothing behind a zero byte, and no more
/// than `limit`.
fn echoed(arg: &[u8], limit: usize) -> impl Iterator<Item = u8> + '_ {
    arg.iter()
        .copied()
        .take_while(|byte| *byte != 0)
        .take(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(request: &str, server: ServerVersion) -> String {
        let args: Vec<&str> = request.split(' ').collect();
        let refusal = refusal(&Table::builtin(), &args, server).unwrap_or_default();
        String::from_utf8(refusal).expect("all are text here")
    }

    #[test]
    fn refusals_read_as_those_of_each_server() {
        for (request, seven, six) in [
            (
                "FOO a b",
                "ERR unknown command 'FOO', with args beginning with: 'a' 'b' ",
                "ERR unknown command `FOO`, with args beginning with: `a`, `b`, ",
            ),
            (
                "client foo bar",
                "ERR unknown subcommand 'foo'. Try CLIENT HELP.",
                "ERR Unknown subcommand or wrong number of arguments for 'foo'. Try CLIENT HELP.",
            ),
            (
                "CLIENT ID x",
                "ERR wrong number of arguments for 'client|id' command",
                "ERR Unknown subcommand or wrong number of arguments for 'ID'. Try CLIENT HELP.",
            ),
            (
                "client",
                "ERR wrong number of arguments for 'client' command",
                "ERR wrong number of arguments for 'client' command",
            ),
            (
                "GET",
                "ERR wrong number of arguments for 'get' command",
                "ERR wrong number of arguments for 'get' command",
            ),
            (
                "SAVE",
                "ERR Command not allowed inside a transaction",
                "ERR Command not allowed inside a transaction",
            ),
            ("GET k", "", ""),
        ] {
            assert_eq!(
                said(request, ServerVersion::redis(7, 0)),
                seven,
                "{request}"
            );
            assert_eq!(said(request, ServerVersion::redis(6, 2)), six, "{request}");
        }
    }

    #[test]
    fn what_is_echoed_is_cut() {
        let long = "x".repeat(500);
        let text = said(&format!("{long} {long} {long}"), ServerVersion::redis(7, 0));
        let expected = format!(
            "ERR unknown command '{0}', with args beginning with: '{0}' ",
            "x".repeat(128)
        );
        assert_eq!(text, expected);
    }
}
