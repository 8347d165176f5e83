//! What is asked, and the exact bytes of the answer.

use std::io::{self, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::str::FromStr;

use serde_json::{Value, json};

/// One kind of request.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `GET` of a value of so many bytes.
    Get(usize),
    /// `SET` of a value of so many bytes.
    Set(usize),
    /// `MGET` of so many keys with values of so many bytes.
    Mget(usize, usize),
    /// `PING`.
    Ping,
}

impl FromStr for Kind {
    type Err = String;

    /// `get:16`, `set:16`, `mget:100:16` or `ping`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: Option<&str>| {
            let part = part.ok_or_else(|| format!("{text}: a size is missing"))?;
            part.parse().map_err(|error| format!("{text}: {error}"))
        };
        let mut parts = text.split(':');
        match parts.next() {
            Some("get") => Ok(Self::Get(number(parts.next())?)),
            Some("set") => Ok(Self::Set(number(parts.next())?)),
            Some("mget") => Ok(Self::Mget(number(parts.next())?, number(parts.next())?)),
            Some("ping") => Ok(Self::Ping),
            _ => Err(format!(
                "{text}: expected get:SIZE, set:SIZE, mget:KEYS:SIZE or ping"
            )),
        }
    }
}

impl Kind {
    fn keys_per_request(self) -> usize {
        match self {
            Self::Get(_) | Self::Set(_) => 1,
            Self::Mget(keys, _) => keys,
            Self::Ping => 0,
        }
    }

    fn value_size(self) -> usize {
        match self {
            Self::Get(size) | Self::Set(size) | Self::Mget(_, size) => size,
            Self::Ping => 0,
        }
    }
}

/// A pipeline of requests and everything that must come back for it.
#[derive(Debug)]
pub struct Batch {
    /// The bytes to send.
    pub request: Vec<u8>,
    /// The bytes that must arrive.
    pub reply: Vec<u8>,
}

/// The batch of client number `client`: `pipeline` requests, each for keys that no other client
/// and no other request of the pipeline asks for, so that a reply that went astray shows.
pub fn batch(kind: Kind, client: usize, pipeline: usize) -> Batch {
    let mut batch = Batch {
        request: Vec::new(),
        reply: Vec::new(),
    };
    for place in 0..pipeline {
        let first = (client * pipeline + place) * kind.keys_per_request();
        append(kind, first, &mut batch);
    }
    batch
}

fn append(kind: Kind, first_key: usize, batch: &mut Batch) {
    match kind {
        Kind::Get(size) => {
            command(&mut batch.request, &[b"GET", &key(first_key)]);
            bulk(&mut batch.reply, &value(first_key, size));
        }
        Kind::Set(size) => {
            command(
                &mut batch.request,
                &[b"SET", &key(first_key), &value(first_key, size)],
            );
            batch.reply.extend_from_slice(b"+OK\r\n");
        }
        Kind::Mget(count, size) => {
            let keys: Vec<Vec<u8>> = (first_key..first_key + count).map(key).collect();
            let mut arguments: Vec<&[u8]> = vec![b"MGET"];
            arguments.extend(keys.iter().map(Vec::as_slice));
            command(&mut batch.request, &arguments);
            batch
                .reply
                .extend_from_slice(format!("*{count}\r\n").as_bytes());
            for number in first_key..first_key + count {
                bulk(&mut batch.reply, &value(number, size));
            }
        }
        Kind::Ping => {
            command(&mut batch.request, &[b"PING"]);
            batch.reply.extend_from_slice(b"+PONG\r\n");
        }
    }
}

fn key(number: usize) -> Vec<u8> {
    format!("key:{number:08}").into_bytes()
}

/// The value of a key: its number again and again, so that any two differ in every few bytes.
fn value(number: usize, size: usize) -> Vec<u8> {
    format!("{number:08}|")
        .into_bytes()
        .into_iter()
        .cycle()
        .take(size)
        .collect()
}

fn command(to: &mut Vec<u8>, arguments: &[&[u8]]) {
    to.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    arguments.iter().for_each(|argument| bulk(to, argument));
}

fn bulk(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
    to.extend_from_slice(bytes);
    to.extend_from_slice(b"\r\n");
}

#[derive(clap::Args)]
pub struct PopulateArguments {
    /// The Redis to write to.
    #[arg(long)]
    target: SocketAddr,
    /// What will be asked: get:SIZE or mget:KEYS:SIZE.
    #[arg(long)]
    request: Kind,
    /// By how many clients.
    #[arg(long)]
    clients: usize,
    /// In pipelines of how many.
    #[arg(long, default_value_t = 1)]
    pipeline: usize,
}

/// Writes every key that such clients read.
pub fn populate(arguments: &PopulateArguments) -> io::Result<Value> {
    let keys = arguments.clients * arguments.pipeline * arguments.request.keys_per_request();
    let stream = TcpStream::connect(arguments.target)?;
    let mut replies = stream.try_clone()?;
    let reader = std::thread::spawn(move || {
        let mut all = vec![0; keys * b"+OK\r\n".len()];
        replies.read_exact(&mut all).map(|()| all)
    });
    let mut writer = BufWriter::new(stream);
    let mut bytes = Vec::new();
    for number in 0..keys {
        bytes.clear();
        let value = value(number, arguments.request.value_size());
        command(&mut bytes, &[b"SET", &key(number), &value]);
        writer.write_all(&bytes)?;
    }
    writer.flush()?;
    let replies = reader.join().expect("reading does not panic")?;
    if replies != b"+OK\r\n".repeat(keys) {
        return Err(io::Error::other("Redis did not take every key"));
    }
    Ok(json!({ "keys": keys }))
}
