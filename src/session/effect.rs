//! What a transaction does to the state of its client: Redis runs `SELECT` and
//! `CLIENT` in the block on the lease, and what they changed there is changed here
//! once `EXEC` says that they ran. What they tell of the lease is replaced by what
//! is true of the client.

use super::client::{Flags, Transaction};
use super::client_command::{self, ClientCommand};
use super::input::Request;
use super::pause::Pause;
use super::worker::State;
use crate::backend::Ticket;
use crate::command::{Class, Local};
use crate::resp::{self, ReplyScanner, Value};

/// One command in a block that is about its client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// `SELECT`.
    Select(u32),
    /// `CLIENT`, with a subcommand that changes or tells the client's state.
    Client(ClientCommand),
}

impl State {
    /// What a command that was queued will do to the client, if anything.
    pub(super) fn effect_of(
        &self,
        ticket: Ticket,
        request: &Request<'_>,
        class: Class,
    ) -> Option<Effect> {
        match class {
            Class::Local(Local::Select) => {
                let db = std::str::from_utf8(request.arg(1)?).ok()?;
                Some(Effect::Select(db.parse().ok()?))
            }
            Class::Local(Local::Client) => {
                let node = self.node_of(ticket);
                let databases = node.facts().databases.unwrap_or(16);
                let server = node.server_version();
                let command = client_command::parse(request, server, databases).ok()?;
                let matters = matches!(
                    command,
                    ClientCommand::Id
                        | ClientCommand::Info
                        | ClientCommand::GetName
                        | ClientCommand::SetName(_)
                        | ClientCommand::SetInfo(..)
                        | ClientCommand::NoEvict(_)
                        | ClientCommand::NoTouch(_)
                        | ClientCommand::Pause { .. }
                        | ClientCommand::Unpause
                );
                matters.then_some(Effect::Client(command))
            }
            _ => None,
        }
    }

    /// `EXEC` of a block with effects was answered: takes over those of the commands
    /// that ran. The reply that the client is to see, if it is another.
    pub(super) fn exec_answered(&mut self, ticket: Ticket, reply: &[u8]) -> Option<Vec<u8>> {
        let Transaction::OnLease { effects, .. } = self.block_ended(ticket) else {
            return None;
        };
        let (header, elements) = elements(reply)?;
        let mut rewritten = header.to_vec();
        let mut effects = effects.into_iter().peekable();
        for (index, element) in elements.into_iter().enumerate() {
            let effect = effects.next_if(|(place, _)| *place as usize == index);
            match effect {
                Some((_, effect)) if element.first() != Some(&b'-') => {
                    match self.take_effect(ticket, effect) {
                        Some(told) => rewritten.extend_from_slice(&told),
                        None => rewritten.extend_from_slice(element),
                    }
                }
                _ => rewritten.extend_from_slice(element),
            }
        }
        Some(rewritten)
    }

    /// Takes over what a command in the block has changed; its reply, if the server's
    /// is about the lease.
    fn take_effect(&mut self, ticket: Ticket, effect: Effect) -> Option<Vec<u8>> {
        let version = self.version_of(ticket);
        let session = &mut self.sessions[ticket.slot as usize];
        let (id, route) = (session.id, session.route);
        let value = match effect {
            Effect::Select(db) => {
                session.partition.db = db;
                session.flags.set(Flags::MOVED);
                return None;
            }
            Effect::Client(ClientCommand::Id) => Value::integer(id as i64),
            Effect::Client(ClientCommand::GetName) => match session.extra().name.clone() {
                name if name.is_empty() => Value::null(),
                name => Value::bulk(name),
            },
            Effect::Client(ClientCommand::Info) => {
                return Some(self.client_info(ticket, 0));
            }
            Effect::Client(ClientCommand::Pause { milliseconds, mode }) => {
                let pause = Pause::of(self.clock.now(), milliseconds, mode);
                self.tell_pause(route, Some(pause));
                return None;
            }
            Effect::Client(ClientCommand::Unpause) => {
                self.tell_pause(route, None);
                return None;
            }
            Effect::Client(change) => {
                self.change_client(ticket, change);
                return None;
            }
        };
        let mut reply = Vec::new();
        resp::encode(&value, version, &mut reply);
        Some(reply)
    }
}

/// The header of an array and its elements, each as its bytes; `None` if it is none.
fn elements(reply: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    if reply.first() != Some(&b'*') {
        return None;
    }
    let header = memchr::memchr(b'\n', reply)? + 1;
    let count: usize = std::str::from_utf8(&reply[1..header - 2])
        .ok()?
        .parse()
        .ok()?;
    let mut scanner = ReplyScanner::default();
    let mut rest = &reply[header..];
    let mut elements = Vec::new();
    while !rest.is_empty() {
        let fed = scanner.feed(rest).ok()?;
        if !fed.complete {
            return None;
        }
        elements.push(&rest[..fed.consumed]);
        rest = &rest[fed.consumed..];
    }
    (elements.len() == count).then_some((&reply[..header], elements))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_taken_apart_into_the_replies_in_it() {
        let (header, parts) = elements(b"*3\r\n+OK\r\n*1\r\n:1\r\n$1\r\na\r\n").expect("an array");
        assert_eq!(header, b"*3\r\n");
        assert_eq!(
            parts,
            [b"+OK\r\n".as_slice(), b"*1\r\n:1\r\n", b"$1\r\na\r\n"]
        );
        assert_eq!(elements(b"*0\r\n").expect("an array").1.len(), 0);
        for other in [
            b"*-1\r\n".as_slice(),
            b"_\r\n",
            b"-EXECABORT no\r\n",
            b"*2\r\n:1\r\n",
        ] {
            assert!(elements(other).is_none());
        }
    }
}
