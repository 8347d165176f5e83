//! The same bytes to Redis and to Weir.

use std::io::ErrorKind;
use std::net::SocketAddr;

use super::support::{RawClient, RedisServer, WeirProcess, encode};

/// A command that is sent behind every input, to know that everything before it has been
/// answered. Every server says the same to it, before a login and to subscribers too.
const MARKER: &str = "AUTH";
const MARKER_REPLY: &[u8] = b"-ERR wrong number of arguments for 'auth' command\r\n";

/// A Redis, and a Weir in front of another one that was started the same way.
pub struct Pair {
    /// Asked directly.
    pub redis: RedisServer,
    /// Behind Weir.
    pub behind: RedisServer,
    /// In front of `behind`.
    pub weir: WeirProcess,
}

/// What a client heard.
#[derive(PartialEq, Eq, Clone)]
pub struct Heard {
    /// All bytes that came.
    pub bytes: Vec<u8>,
    /// The server closed the connection.
    pub closed: bool,
}

impl std::fmt::Debug for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = if self.closed { " and closed" } else { "" };
        if self.bytes.len() > 4096 {
            let (start, rest) = self.bytes.split_at(4096);
            let start = start.escape_ascii();
            return write!(f, "\"{start}...\" and {} bytes more{end}", rest.len());
        }
        write!(f, "\"{}\"{end}", self.bytes.escape_ascii())
    }
}

impl Pair {
    pub fn start() -> Pair {
        Pair::with(&[], "")
    }

    /// With arguments for both servers, and settings for Weir's route.
    pub fn with(redis_arguments: &[&str], route: &str) -> Pair {
        let redis = RedisServer::with(redis_arguments);
        let behind = RedisServer::with(redis_arguments);
        let weir = weir(&behind, route);
        Pair {
            redis,
            behind,
            weir,
        }
    }

    /// Both answer `input` alike, and leave the connection open or not alike. The input
    /// must end where a request ends, or be one that closes the connection.
    pub fn same(&self, input: impl AsRef<[u8]>) -> Heard {
        let input = input.as_ref();
        let direct = hear(self.redis.address(), input);
        let through = hear(self.weir.address(), input);
        let shown = &input[..input.len().min(2000)];
        assert_eq!(
            through,
            direct,
            "Weir (left) and Redis (right) differ on \"{}\"",
            shown.escape_ascii()
        );
        through
    }

    /// Both close on `input`, which may end in the middle of a request, with the same words.
    pub fn same_close(&self, input: impl AsRef<[u8]>) -> Heard {
        let input = input.as_ref();
        let direct = hear_close(self.redis.address(), input);
        let through = hear_close(self.weir.address(), input);
        assert_eq!(through, direct, "Weir (left) and Redis (right) differ");
        through
    }

    /// The same for a client that closes its sending half behind the input.
    pub fn same_half_closed(&self, input: impl AsRef<[u8]>) -> Heard {
        let input = input.as_ref();
        let direct = hear_half_closed(self.redis.address(), input);
        let through = hear_half_closed(self.weir.address(), input);
        assert_eq!(
            through,
            direct,
            "Weir (left) and Redis (right) differ on a half-closed \"{}\"",
            input.escape_ascii()
        );
        through
    }

    /// The same for a list of commands in one write.
    pub fn same_commands(&self, commands: &[&[&str]]) -> Heard {
        let input: Vec<u8> = commands
            .iter()
            .flat_map(|command| encode(command))
            .collect();
        self.same(input)
    }
}

/// Weir in front of a server, with settings for its route; `[process]` and the like may
/// follow them.
pub fn weir(behind: &RedisServer, route: &str) -> WeirProcess {
    WeirProcess::with_config(
        behind,
        &format!(
            "[admin]\nlisten = \"{{admin}}\"\n[route.main]\nlisten = \"{{listen}}\"\n\
             backend.address = \"{{backend}}\"\n{route}"
        ),
    )
}

/// What comes back for `input`, until the marker behind it is answered or the connection
/// is closed.
pub fn hear(address: SocketAddr, input: &[u8]) -> Heard {
    let mut client = RawClient::connect(address);
    let mut sent = input.to_vec();
    sent.extend(encode(&[MARKER]));
    // A server that has closed already takes no more bytes; what it said is still there.
    let _ = client.try_send(&sent);
    let is_answered = |bytes: &[u8]| bytes.ends_with(MARKER_REPLY);
    let (mut bytes, closed) = read_until(&mut client, input, is_answered);
    if !closed {
        bytes.truncate(bytes.len() - MARKER_REPLY.len());
    }
    let bytes = without_ids(bytes);
    Heard { bytes, closed }
}

/// The ids of connections, which `HELLO` tells, differ between servers.
pub fn without_ids(bytes: Vec<u8>) -> Vec<u8> {
    const BEFORE: &[u8] = b"$2\r\nid\r\n:";
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes.as_slice();
    while let Some(at) = memchr::memmem::find(rest, BEFORE) {
        let (start, behind) = rest.split_at(at + BEFORE.len());
        out.extend_from_slice(start);
        let digits = behind
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        rest = &behind[digits..];
    }
    out.extend_from_slice(rest);
    out
}

/// What comes back to a client that closes its sending half, until the server closes.
pub fn hear_half_closed(address: SocketAddr, input: &[u8]) -> Heard {
    let mut client = RawClient::connect(address);
    client.send(input);
    client.half_close();
    let (bytes, closed) = read_until(&mut client, input, |_| false);
    Heard { bytes, closed }
}

/// What comes back for an input that ends in the middle of a request, until the server closes.
pub fn hear_close(address: SocketAddr, input: &[u8]) -> Heard {
    let mut client = RawClient::connect(address);
    let _ = client.try_send(input);
    let (bytes, closed) = read_until(&mut client, input, |_| false);
    Heard { bytes, closed }
}

/// Reads until `enough`, or until the end; whether it was the end.
fn read_until(
    client: &mut RawClient,
    input: &[u8],
    enough: impl Fn(&[u8]) -> bool,
) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    while !enough(&bytes) {
        match client.read_some() {
            Ok(some) if some.is_empty() => return (bytes, true),
            Ok(some) => bytes.extend(some),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return (bytes, true),
            Err(error) => panic!(
                "{error} after \"{}\" for \"{}\" from {:?}",
                bytes.escape_ascii(),
                input[..input.len().min(2000)].escape_ascii(),
                client.stream().peer_addr()
            ),
        }
    }
    (bytes, false)
}
