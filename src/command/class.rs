//! How a command travels.

use super::args::Args;
use super::blocking;
use super::flags::Flags;
use super::table::Command;

/// How a command travels from a client to Redis, or who else answers it.
///
/// One class for each way; the rules behind each are the project's
/// specification of commands. A command whose class depends on its arguments
/// has the most demanding one in its row: [`class_of`] decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Class {
    /// On the session's shared connection.
    Plain,
    /// On the control connection, which carries no data commands, so that it
    /// gets through while those are stalled. `FLUSHDB`, `DEBUG` and `MIGRATE`
    /// act on a database: the control connection must be on the session's.
    Control,
    /// Answered by Weir.
    Local(Local),
    /// Begins a transaction.
    Multi,
    /// Runs the transaction.
    Exec,
    /// Throws the transaction away.
    Discard,
    /// Binds the session to one connection until the transaction is over.
    Watch,
    /// Forgets the watched keys.
    Unwatch,
    /// May wait on the server for a key: never on a shared connection.
    Blocking(Blocking),
    /// `WAIT` and `WAITAOF`: wait for replicas to have *this connection's* last
    /// write, so the connection must be the one that wrote.
    Wait,
    /// Changes the session's subscriptions; answers once per channel.
    Subscription(Sub),
    /// Publishes, or counts subscribers; plain, but in its reply all clients of a feed
    /// are one.
    Publish,
    /// Turns the connection into a stream of what the server runs.
    Monitor,
    /// The bytes that follow are not requests and replies one for one: a raw
    /// tunnel on a connection that is never given back.
    Tunnel,
    /// One reply or several, on a connection held for this command alone.
    Alone,
    /// Leaves state behind that only its own connection has: a lease for the
    /// rest of the session.
    Pinned,
    /// A web browser's request: Redis closes without a word and so does Weir.
    Refused,
}

/// Which command about the connection Weir answers itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Local {
    /// `HELLO`
    Hello,
    /// `AUTH`
    Auth,
    /// `SELECT`
    Select,
    /// `QUIT`
    Quit,
    /// `RESET`
    Reset,
    /// `CLIENT` with any subcommand
    Client,
    /// `WEIR` with any subcommand: no command of Redis's
    Weir,
    /// `READONLY`
    ReadOnly,
    /// `READWRITE`
    ReadWrite,
    /// `ASKING`
    Asking,
}

/// Where a blocking command says how long it waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Blocking {
    /// Seconds in the last argument: `BLPOP key… timeout`.
    LastSeconds,
    /// Seconds in the first argument: `BLMPOP timeout numkeys key…`.
    FirstSeconds,
    /// Milliseconds after `BLOCK`, if it blocks at all: `XREAD`.
    StreamRead,
    /// Milliseconds after `BLOCK`, for new entries only: `XREADGROUP`.
    StreamGroup,
    /// Blocks, and Weir does not know for how long: a module's command.
    Unknown,
}

/// Which of the subscription commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Sub {
    /// `SUBSCRIBE`
    Subscribe,
    /// `PSUBSCRIBE`
    PSubscribe,
    /// `SSUBSCRIBE`
    SSubscribe,
    /// `UNSUBSCRIBE`
    Unsubscribe,
    /// `PUNSUBSCRIBE`
    PUnsubscribe,
    /// `SUNSUBSCRIBE`
    SUnsubscribe,
}

/// How this very request travels: the row's class, unless the arguments make it
/// simpler or harder.
///
/// A stream read that does not block is plain; `DEBUG PROTOCOL` may answer
/// twice and travels alone; `SCRIPT DEBUG NO` changes nothing and is plain.
#[inline]
pub fn class_of(command: &Command, args: &(impl Args + ?Sized)) -> Class {
    match command.class {
        Class::Blocking(_) if !blocking::blocks(command, args) => Class::Plain,
        Class::Control if command.name == "debug" && word_at(args, 1, "protocol") => Class::Alone,
        Class::Tunnel if command.name == "script|debug" && word_at(args, 2, "no") => Class::Plain,
        class => class,
    }
}

/// Whether this request may be sent again after the connection that carried it
/// was lost with the outcome unknown.
///
/// Not so `XREAD` with `$`, which would skip what was added in between, and
/// nothing of a module, whose word about reading only is not trusted.
pub fn retry_safe(command: &Command, args: &(impl Args + ?Sized)) -> bool {
    if !command.flags.contains(Flags::RETRY_SAFE) {
        return false;
    }
    match command.class {
        Class::Blocking(Blocking::StreamRead) => {
            !blocking::blocks(command, args) && !blocking::reads_from_now(args)
        }
        _ => true,
    }
}

fn word_at(args: &(impl Args + ?Sized), index: usize, word: &str) -> bool {
    args.arg(index)
        .is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
}
