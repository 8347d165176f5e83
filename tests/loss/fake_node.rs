//! A node that does what a test says with each command.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the node does with a command.
#[derive(Clone, Debug)]
pub enum Act {
    /// Answers.
    Say(Vec<u8>),
    /// Closes the connection without an answer.
    Close,
    /// Closes in the middle of this answer.
    SayAndClose(Vec<u8>),
}

type Script = dyn Fn(usize, &[String]) -> Act + Send + Sync;

/// A node on a port of its own. Connections are numbered from 0 in the order in which
/// they send their first command of a client.
pub struct FakeNode {
    address: SocketAddr,
    seen: Arc<Mutex<HashMap<String, usize>>>,
}

impl FakeNode {
    /// `script` is asked for each command that is not Weir's own.
    pub fn start(script: impl Fn(usize, &[String]) -> Act + Send + Sync + 'static) -> FakeNode {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let seen = Arc::new(Mutex::new(HashMap::new()));
        let (script, noted): (Arc<Script>, _) = (Arc::new(script), seen.clone());
        let numbers = Arc::new(Mutex::new(0));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, noted, numbers) = (script.clone(), noted.clone(), numbers.clone());
                thread::spawn(move || serve(stream, &*script, &noted, &numbers));
            }
        });
        FakeNode { address, seen }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often it has read this command, arguments and all.
    pub fn times_seen(&self, command: &str) -> usize {
        let seen = self.seen.lock().expect("no panic holds it");
        seen.get(command).copied().unwrap_or(0)
    }
}

fn serve(
    mut stream: TcpStream,
    script: &Script,
    seen: &Mutex<HashMap<String, usize>>,
    numbers: &Mutex<usize>,
) {
    let mut number = None;
    let mut input = Vec::new();
    loop {
        while let Some((command, length)) = command(&input) {
            input.drain(..length);
            let line = command.join(" ");
            *seen
                .lock()
                .expect("no panic holds it")
                .entry(line)
                .or_insert(0) += 1;
            let act = handshake(&command).map(Act::Say).unwrap_or_else(|| {
                let number = *number.get_or_insert_with(|| {
                    let mut next = numbers.lock().expect("no panic holds it");
                    *next += 1;
                    *next - 1
                });
                script(number, &command)
            });
            match act {
                Act::Say(bytes) => {
                    if stream.write_all(&bytes).is_err() {
                        return;
                    }
                }
                Act::Close => return,
                Act::SayAndClose(bytes) => {
                    let _ = stream.write_all(&bytes);
                    return;
                }
            }
        }
        let mut chunk = [0; 16 * 1024];
        match stream.read(&mut chunk) {
            Ok(read) if read > 0 => input.extend_from_slice(&chunk[..read]),
            _ => return,
        }
    }
}

/// What a Redis of version 7.0 answers to what Weir asks for itself.
fn handshake(command: &[String]) -> Option<Vec<u8>> {
    // These come when they come, before those of clients or after. Weir marks its own by the
    // spelling.
    match command[0].as_str() {
        "pING" => return Some(b"+PONG\r\n".to_vec()),
        "sLOWLOG" => return Some(b"*0\r\n".to_vec()),
        _ => {}
    }
    let name = command[0].to_ascii_uppercase();
    Some(match name.as_str() {
        "CLIENT" | "SELECT" => b"+OK\r\n".to_vec(),
        "HELLO" => b"%3\r\n+server\r\n+redis\r\n+version\r\n+7.0.15\r\n+id\r\n:1\r\n".to_vec(),
        "INFO" => b"$22\r\nredis_version:7.0.15\r\n\r\n".to_vec(),
        "CONFIG" => b"*0\r\n".to_vec(),
        "COMMAND" => b"-ERR not here\r\n".to_vec(),
        _ => return None,
    })
}

/// The first command in `input` and its length, if it is whole. Weir sends what is
/// canonical, but for the probe, which is an inline `PING`.
fn command(input: &[u8]) -> Option<(Vec<String>, usize)> {
    let line_end = |from: usize| {
        input[from..]
            .windows(2)
            .position(|pair| pair == b"\r\n")
            .map(|at| from + at)
    };
    let number = |from: usize, to: usize| std::str::from_utf8(&input[from..to]).ok()?.parse().ok();
    let end = line_end(0)?;
    if input[0] != b'*' {
        let line = String::from_utf8_lossy(&input[..end]).into_owned();
        return Some((vec![line], end + 2));
    }
    let count: usize = number(1, end)?;
    let mut at = end + 2;
    let mut words = Vec::new();
    for _ in 0..count {
        let end = line_end(at)?;
        let length: usize = number(at + 1, end)?;
        let word = input.get(end + 2..end + 2 + length)?;
        words.push(String::from_utf8_lossy(word).into_owned());
        at = end + 2 + length + 2;
    }
    (at <= input.len()).then_some((words, at))
}
