//! `CLIENT`: what each subcommand asks for.
//!
//! Weir answers most of them itself, since the connection that they are about is
//! the client's to Weir. Only what is well-formed is told apart here: how many
//! arguments a subcommand takes and whether there is such a one is known to the
//! server, so everything that it would refuse for that is forwarded, and worded
//! by it.

use super::client_filter::ClientFilter;
use crate::command::{Args, Flavour, ServerVersion, integer};

/// One well-formed `CLIENT` request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientCommand {
    /// The client's id.
    Id,
    /// The client's own line of the list.
    Info,
    /// The lines of the clients that pass the filter.
    List(ClientFilter),
    /// A name, or none if empty.
    SetName(Vec<u8>),
    /// The name, null if there is none.
    GetName,
    /// What the client library says of itself.
    SetInfo(LibraryInfo, Vec<u8>),
    /// Ends the connection of the client with this address, the caller too;
    /// answers `+OK` or [`NO_SUCH_CLIENT`].
    KillAddress(Vec<u8>),
    /// Ends the connections that pass the filter; answers how many.
    Kill(ClientFilter),
    /// Which replies are written from here on.
    Reply(ReplyMode),
    /// Whether the client is spared when memory for clients runs out.
    NoEvict(bool),
    /// Whether reads leave the keys' age alone.
    NoTouch(bool),
    /// Client-side caching on or off; the server judges the options.
    Tracking(Tracking),
    /// `CACHING YES|NO`: about the next command of a client with tracking. The
    /// server judges it.
    Caching,
    /// How tracking is set.
    TrackingInfo,
    /// Whom invalidations are sent to.
    GetRedir,
    /// Holds clients back.
    Pause {
        /// For how long, in milliseconds.
        milliseconds: i64,
        /// Which commands.
        mode: PauseMode,
    },
    /// Ends a pause.
    Unpause,
    /// Wakes a blocked client.
    Unblock {
        /// The client's id, as Weir gave it.
        id: i64,
        /// How its command ends.
        reason: UnblockReason,
    },
    /// Valkey: what the client understands. Unknown words are ignored.
    Capa(Vec<Vec<u8>>),
    /// The server words the answer: an error, since this is not a request that it
    /// takes, or the help text.
    Forward,
}

/// Which of the two things a library says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LibraryInfo {
    /// `LIB-NAME`
    Name,
    /// `LIB-VER`
    Version,
}

/// What `CLIENT REPLY` sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplyMode {
    /// All replies are written; this one answers `+OK`.
    On,
    /// None.
    Off,
    /// The next request's is left out.
    Skip,
}

/// What `CLIENT TRACKING` wants, as far as Weir must know before the server
/// judges it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tracking {
    /// On, and not off.
    pub on: bool,
    /// Where `REDIRECT`'s client id stands among the arguments, and the id, which
    /// is one that Weir gave and means nothing to the server.
    pub redirect: Option<(usize, i64)>,
}

/// Which commands a pause holds back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum PauseMode {
    /// Writes, and what may be replicated.
    Write,
    /// Everything.
    All,
}

/// How a command ends that `CLIENT UNBLOCK` wakes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnblockReason {
    /// As if its time were over.
    Timeout,
    /// With `-UNBLOCKED client unblocked via CLIENT UNBLOCK`.
    Error,
}

/// What `CLIENT KILL address` answers if there is none, without the `-`.
pub const NO_SUCH_CLIENT: &str = "ERR No such client";

const SYNTAX_ERROR: &[u8] = b"ERR syntax error";

/// Reads a `CLIENT` request for a server of this version with this many
/// databases (16 if not known).
///
/// # Errors
///
/// The error line without its `-`, as that server words it.
pub fn parse(
    args: &(impl Args + ?Sized),
    server: ServerVersion,
    databases: u32,
) -> Result<ClientCommand, Vec<u8>> {
    let Some(sub) = args.arg(1) else {
        return Ok(ClientCommand::Forward);
    };
    let sub = sub.to_ascii_lowercase();
    let since_7_2 = server.like_redis(7, 2);
    match (&sub[..], args.count()) {
        (b"id", 2) => Ok(ClientCommand::Id),
        (b"info", 2) => Ok(ClientCommand::Info),
        (b"list", _) => ClientFilter::for_list(args, server, databases).map(ClientCommand::List),
        (b"setname", 3) => set_name(word(args, 2)),
        (b"getname", 2) => Ok(ClientCommand::GetName),
        (b"setinfo", 4) if since_7_2 => set_info(word(args, 2), word(args, 3)),
        (b"kill", 3) => Ok(ClientCommand::KillAddress(word(args, 2).into())),
        (b"kill", 4..) => ClientFilter::for_kill(args, server, databases).map(ClientCommand::Kill),
        (b"reply", 3) => reply(word(args, 2)),
        (b"no-evict", 3) if server.like_redis(7, 0) => {
            on_or_off(word(args, 2)).map(ClientCommand::NoEvict)
        }
        (b"no-touch", 3) if since_7_2 => on_or_off(word(args, 2)).map(ClientCommand::NoTouch),
        (b"tracking", 3..) => Ok(tracking(args)),
        (b"caching", 3) => Ok(ClientCommand::Caching),
        (b"trackinginfo", 2) => Ok(ClientCommand::TrackingInfo),
        (b"getredir", 2) => Ok(ClientCommand::GetRedir),
        (b"pause", 3 | 4) => pause(args, server),
        // Valkey reads over what stands behind the mode.
        (b"pause", 5..) if server.is_valkey(8, 0) => pause(args, server),
        (b"unpause", 2) => Ok(ClientCommand::Unpause),
        (b"unblock", 3 | 4) => unblock(args),
        (b"unblock", 5..) if server.is_valkey(8, 0) => unblock(args),
        (b"capa", 3..) if server.is_valkey(8, 0) => Ok(capabilities(args)),
        // Never forwarded: where it is understood it would have the server push
        // messages into a connection that many clients share.
        (b"maint_notifications", _) => Err(unknown(word(args, 1), server)),
        _ => Ok(ClientCommand::Forward),
    }
}

fn word(args: &(impl Args + ?Sized), index: usize) -> &[u8] {
    args.arg(index).unwrap_or_default()
}

fn set_name(name: &[u8]) -> Result<ClientCommand, Vec<u8>> {
    match name_error(name) {
        Some(error) => Err(error),
        None => Ok(ClientCommand::SetName(name.into())),
    }
}

/// Why Redis does not take this as a client's name, if so.
pub(super) fn name_error(name: &[u8]) -> Option<Vec<u8>> {
    const ERROR: &[u8] = b"ERR Client names cannot contain spaces, newlines or special characters.";
    (!is_plain(name)).then(|| ERROR.into())
}

/// Redis allows what can stand in a line of the client list: visible ASCII.
fn is_plain(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_graphic)
}

fn set_info(option: &[u8], value: &[u8]) -> Result<ClientCommand, Vec<u8>> {
    let info = if option.eq_ignore_ascii_case(b"lib-name") {
        LibraryInfo::Name
    } else if option.eq_ignore_ascii_case(b"lib-ver") {
        LibraryInfo::Version
    } else {
        return Err([b"ERR Unrecognized option '", c_text(option), b"'"].concat());
    };
    if is_plain(value) {
        Ok(ClientCommand::SetInfo(info, value.into()))
    } else {
        let why: &[u8] = b" cannot contain spaces, newlines or special characters.";
        Err([b"ERR ", c_text(option), why].concat())
    }
}

fn reply(mode: &[u8]) -> Result<ClientCommand, Vec<u8>> {
    let modes = [
        ("on", ReplyMode::On),
        ("off", ReplyMode::Off),
        ("skip", ReplyMode::Skip),
    ];
    choice(mode, &modes).map(ClientCommand::Reply)
}

fn on_or_off(word: &[u8]) -> Result<bool, Vec<u8>> {
    choice(word, &[("on", true), ("off", false)])
}

fn choice<T: Copy>(word: &[u8], choices: &[(&str, T)]) -> Result<T, Vec<u8>> {
    let chosen = choices
        .iter()
        .find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes()));
    chosen
        .map(|(_, value)| *value)
        .ok_or_else(|| SYNTAX_ERROR.into())
}

fn tracking(args: &(impl Args + ?Sized)) -> ClientCommand {
    let Ok(on) = on_or_off(word(args, 2)) else {
        return ClientCommand::Forward;
    };
    let mut redirect = None;
    let mut index = 3;
    while index < args.count() {
        let option = word(args, index);
        let has_value = index + 1 < args.count();
        if option.eq_ignore_ascii_case(b"redirect") && has_value {
            redirect = integer(word(args, index + 1)).map(|id| (index + 1, id));
            index += 2;
        } else if option.eq_ignore_ascii_case(b"prefix") && has_value {
            index += 2;
        } else {
            index += 1;
        }
    }
    ClientCommand::Tracking(Tracking { on, redirect })
}

fn pause(args: &(impl Args + ?Sized), server: ServerVersion) -> Result<ClientCommand, Vec<u8>> {
    let mode = match args.arg(3) {
        None => PauseMode::All,
        Some(mode) => choice(
            mode,
            &[("write", PauseMode::Write), ("all", PauseMode::All)],
        )
        .map_err(|_| b"ERR CLIENT PAUSE mode must be WRITE or ALL".to_vec())?,
    };
    let milliseconds = integer(word(args, 2))
        .ok_or_else(|| b"ERR timeout is not an integer or out of range".to_vec())?;
    if milliseconds < 0 {
        return Err(b"ERR timeout is negative".to_vec());
    }
    // The end of the pause is kept in milliseconds since 1970, about 2^41 now.
    let overflows = i64::MAX - milliseconds < 1 << 41;
    if overflows && server.like_redis(7, 2) {
        return Err(b"ERR timeout is out of range".to_vec());
    }
    Ok(ClientCommand::Pause { milliseconds, mode })
}

fn unblock(args: &(impl Args + ?Sized)) -> Result<ClientCommand, Vec<u8>> {
    let reason = match args.arg(3) {
        None => UnblockReason::Timeout,
        Some(reason) => {
            let reasons = [
                ("timeout", UnblockReason::Timeout),
                ("error", UnblockReason::Error),
            ];
            choice(reason, &reasons)
                .map_err(|_| b"ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR".to_vec())?
        }
    };
    let id = integer(word(args, 2))
        .ok_or_else(|| b"ERR value is not an integer or out of range".to_vec())?;
    Ok(ClientCommand::Unblock { id, reason })
}

fn capabilities(args: &(impl Args + ?Sized)) -> ClientCommand {
    ClientCommand::Capa(
        (2..args.count())
            .map(|index| word(args, index).into())
            .collect(),
    )
}

fn unknown(sub: &[u8], server: ServerVersion) -> Vec<u8> {
    let what: &[u8] = match server.flavour {
        Flavour::Redis if !server.like_redis(7, 0) => {
            b"ERR Unknown subcommand or wrong number of arguments for '"
        }
        _ => b"ERR unknown subcommand '",
    };
    [what, c_text(sub), b"'. Try CLIENT HELP."].concat()
}

/// What C's `%s` shows of an argument.
pub(super) fn c_text(arg: &[u8]) -> &[u8] {
    arg.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REDIS_6_2: ServerVersion = ServerVersion::redis(6, 2);
    const REDIS_7_0: ServerVersion = ServerVersion::redis(7, 0);
    const VALKEY_9: ServerVersion = ServerVersion::valkey(9, 1);

    fn read(request: &str, server: ServerVersion) -> Result<ClientCommand, String> {
        let args: Vec<&str> = request.split(' ').collect();
        parse(&args, server, 16).map_err(|error| String::from_utf8(error).expect("text"))
    }

    #[test]
    fn what_the_server_would_refuse_is_left_to_it() {
        for request in [
            "CLIENT",
            "CLIENT NOPE",
            "CLIENT HELP",
            "CLIENT ID x",
            "CLIENT GETNAME x",
            "CLIENT SETNAME",
            "CLIENT REPLY",
            "CLIENT REPLY ON x",
            "CLIENT KILL",
            "CLIENT TRACKING",
            "CLIENT TRACKING foo",
            "CLIENT PAUSE",
            "CLIENT PAUSE 1 ALL x",
            "CLIENT UNPAUSE x",
            "CLIENT UNBLOCK 999 TIMEOUT x",
            "CLIENT NO-TOUCH foo",
            "CLIENT SETINFO foo bar",
            "CLIENT CAPA redirect",
        ] {
            assert_eq!(
                read(request, REDIS_7_0),
                Ok(ClientCommand::Forward),
                "{request}"
            );
        }
        assert_eq!(
            read("CLIENT NO-EVICT on", REDIS_6_2),
            Ok(ClientCommand::Forward)
        );
    }

    #[test]
    fn every_subcommand_is_read_in_any_case() {
        use ClientCommand::*;
        for (request, expected) in [
            ("CLIENT ID", Id),
            ("client Info", Info),
            ("CLIENT GETNAME", GetName),
            ("CLIENT SETNAME foo", SetName(b"foo".into())),
            ("CLIENT SETNAME ", SetName(Vec::new())),
            (
                "CLIENT SETINFO LIB-NAME abc",
                SetInfo(LibraryInfo::Name, b"abc".into()),
            ),
            (
                "CLIENT SETINFO lib-ver ",
                SetInfo(LibraryInfo::Version, Vec::new()),
            ),
            ("CLIENT KILL 1.2.3.4:5", KillAddress(b"1.2.3.4:5".into())),
            ("CLIENT KILL ID", KillAddress(b"ID".into())),
            ("CLIENT REPLY on", Reply(ReplyMode::On)),
            ("CLIENT REPLY OFF", Reply(ReplyMode::Off)),
            ("CLIENT REPLY SKIP", Reply(ReplyMode::Skip)),
            ("CLIENT NO-EVICT on", NoEvict(true)),
            ("CLIENT NO-TOUCH OFF", NoTouch(false)),
            ("CLIENT CACHING yes", Caching),
            ("CLIENT TRACKINGINFO", TrackingInfo),
            ("CLIENT GETREDIR", GetRedir),
            (
                "CLIENT PAUSE 10",
                Pause {
                    milliseconds: 10,
                    mode: PauseMode::All,
                },
            ),
            (
                "CLIENT PAUSE 0 write",
                Pause {
                    milliseconds: 0,
                    mode: PauseMode::Write,
                },
            ),
            ("CLIENT UNPAUSE", Unpause),
            (
                "CLIENT UNBLOCK 7",
                Unblock {
                    id: 7,
                    reason: UnblockReason::Timeout,
                },
            ),
            (
                "CLIENT UNBLOCK -1 error",
                Unblock {
                    id: -1,
                    reason: UnblockReason::Error,
                },
            ),
            (
                "CLIENT CAPA redirect x",
                Capa(vec![b"redirect".into(), b"x".into()]),
            ),
            (
                "CLIENT TRACKING off",
                Tracking(super::Tracking {
                    on: false,
                    redirect: None,
                }),
            ),
            (
                "CLIENT TRACKING ON PREFIX redirect REDIRECT 5 BCAST",
                Tracking(super::Tracking {
                    on: true,
                    redirect: Some((6, 5)),
                }),
            ),
        ] {
            assert_eq!(read(request, VALKEY_9), Ok(expected), "{request}");
        }
    }

    #[test]
    fn errors_read_as_the_servers() {
        for (request, error) in [
            (
                "CLIENT SETNAME a\tb",
                "ERR Client names cannot contain spaces, newlines or special characters.",
            ),
            ("CLIENT REPLY FOO", "ERR syntax error"),
            ("CLIENT NO-EVICT foo", "ERR syntax error"),
            (
                "CLIENT PAUSE abc",
                "ERR timeout is not an integer or out of range",
            ),
            (
                "CLIENT PAUSE 1.5",
                "ERR timeout is not an integer or out of range",
            ),
            ("CLIENT PAUSE -1", "ERR timeout is negative"),
            (
                "CLIENT PAUSE abc FOO",
                "ERR CLIENT PAUSE mode must be WRITE or ALL",
            ),
            (
                "CLIENT UNBLOCK abc",
                "ERR value is not an integer or out of range",
            ),
            (
                "CLIENT UNBLOCK abc FOO",
                "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR",
            ),
            (
                "CLIENT MAINT_NOTIFICATIONS ON",
                "ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.",
            ),
        ] {
            for server in [REDIS_7_0, VALKEY_9] {
                assert_eq!(read(request, server), Err(error.to_owned()), "{request}");
            }
        }
        for (request, error) in [
            ("CLIENT SETINFO foo bar", "ERR Unrecognized option 'foo'"),
            (
                "CLIENT SETINFO LIB-NAME a\tb",
                "ERR LIB-NAME cannot contain spaces, newlines or special characters.",
            ),
            (
                "CLIENT PAUSE 9223372036854775807",
                "ERR timeout is out of range",
            ),
        ] {
            assert_eq!(read(request, VALKEY_9), Err(error.to_owned()), "{request}");
        }
        assert!(read("CLIENT PAUSE 9223372036854775807", REDIS_7_0).is_ok());
    }
}
