//! Whether a client may do what concerns others. Weir answers `CLIENT LIST`, `KILL` and
//! `UNBLOCK` itself, and so Redis's ACL does not see them; for `CLIENT PAUSE` it holds commands
//! before Redis has said that it does. Before they are done, Redis is asked as that client's
//! user, by the same subcommand for a client that there is not, or a time that is none.

use super::client::{Answer, Flags};
use super::client_command::ClientCommand;
use super::failure::Failure;
use super::worker::State;
use crate::backend::{OpenError, Ticket};
use crate::metrics::ErrorCause;

/// Larger than any id that is in use, and still one.
const NOBODY: &[u8] = b"9223372036854775807";

/// The command in a form that does nothing; `None` if it concerns its own client alone,
/// or goes to Redis before anything is done.
pub(super) fn question(command: &ClientCommand) -> Option<Vec<&'static [u8]>> {
    let client = b"CLIENT".as_slice();
    match command {
        ClientCommand::List(_) => Some(vec![client, b"LIST", b"ID", NOBODY]),
        ClientCommand::Kill(_) | ClientCommand::KillAddress(_) => {
            Some(vec![client, b"KILL", b"ID", NOBODY])
        }
        ClientCommand::Unblock { .. } => Some(vec![client, b"UNBLOCK", NOBODY]),
        ClientCommand::Pause { .. } => Some(vec![client, b"PAUSE", b"x"]),
        _ => None,
    }
}

impl State {
    /// Whether the session's user may; if not known yet, Redis is asked, and the session
    /// waits. A refusal is the command's [`Answer::Reply`].
    pub(super) fn is_permitted(&mut self, ticket: Ticket, question: Vec<&'static [u8]>) -> bool {
        let node = self.node_of(ticket);
        let session = &mut self.sessions[ticket.slot as usize];
        if matches!(session.extra().answer, Some(Answer::Permitted)) {
            session.extra().answer = None;
            return true;
        }
        session.flags.set(Flags::WAITING);
        let key = session.partition.clone();
        let worker = self.worker();
        tokio::task::spawn_local(async move {
            let answer = node.permits(&key, &question).await;
            worker.enter(|state| {
                if state.session(ticket).is_none() {
                    return;
                }
                let answer = match answer {
                    Some(Ok(())) => Answer::Permitted,
                    Some(Err(reply)) => {
                        state.count_error(ticket, ErrorCause::NoPermission);
                        Answer::Reply(reply)
                    }
                    None => {
                        let why = node.unavailable().unwrap_or_else(|| {
                            OpenError::Unreachable("whether this user may was not answered".into())
                        });
                        state.count_error(ticket, ErrorCause::NoBackend);
                        Answer::Reply(Failure::Open(why).reply())
                    }
                };
                let session = &mut state.sessions[ticket.slot as usize];
                session.extra().answer = Some(answer);
                session.flags.clear(Flags::WAITING);
                state.make_ready(ticket);
            });
        });
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::ServerVersion;
    use crate::session::client_command::parse;

    #[test]
    fn only_what_concerns_others_is_asked() {
        let version = ServerVersion::redis(7, 0);
        let asked = |request: &str| {
            let words: Vec<&str> = request.split(' ').collect();
            question(&parse(&words, version, 16).expect("a command")).map(|words| words[1])
        };
        assert_eq!(asked("CLIENT LIST"), Some(b"LIST".as_slice()));
        assert_eq!(asked("CLIENT KILL 1.2.3.4:5"), Some(b"KILL".as_slice()));
        assert_eq!(asked("CLIENT KILL ID 7"), Some(b"KILL".as_slice()));
        assert_eq!(asked("CLIENT UNBLOCK 7"), Some(b"UNBLOCK".as_slice()));
        assert_eq!(asked("CLIENT PAUSE 7"), Some(b"PAUSE".as_slice()));
        for own in [
            "CLIENT UNPAUSE",
            "CLIENT ID",
            "CLIENT SETNAME a",
            "CLIENT INFO",
            "CLIENT REPLY OFF",
        ] {
            assert_eq!(asked(own), None, "{own}");
        }
    }
}
