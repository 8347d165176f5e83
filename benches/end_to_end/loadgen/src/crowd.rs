//! A crowd that comes at once: everybody connects, then everybody asks a few times,
//! and nobody leaves before the end. How many of it are served?

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::request::{self, Kind};

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    target: SocketAddr,
    #[arg(long, default_value_t = 2_000)]
    clients: usize,
    /// How often each client asks; it writes a key of its own and reads it back.
    #[arg(long, default_value_t = 10)]
    rounds: usize,
}

pub fn run(arguments: &Arguments) -> io::Result<Value> {
    let mut refusals: BTreeMap<String, usize> = BTreeMap::new();
    let mut crowd: Vec<(usize, TcpStream)> = Vec::new();
    for number in 0..arguments.clients {
        match TcpStream::connect(arguments.target) {
            Ok(stream) => crowd.push((number, stream)),
            Err(error) => *refusals.entry(error.to_string()).or_default() += 1,
        }
    }
    let mut commands = 0;
    for round in 0..arguments.rounds {
        let kind = if round % 2 == 0 {
            Kind::Set(32)
        } else {
            Kind::Get(32)
        };
        // Everybody has asked before anybody reads: all are busy at the same time.
        crowd.retain_mut(|(number, stream)| {
            let sent = stream.write_all(&request::batch(kind, *number, 1).request);
            note(
                sent.map_err(|error| said(stream).unwrap_or_else(|| error.to_string())),
                &mut refusals,
            )
        });
        crowd.retain_mut(|(number, stream)| {
            let read = read_exactly(stream, &request::batch(kind, *number, 1).reply);
            commands += usize::from(read.is_ok());
            note(read, &mut refusals)
        });
    }
    Ok(json!({ "served": crowd.len(), "commands": commands, "refused": refusals }))
}

fn note(outcome: Result<(), String>, refusals: &mut BTreeMap<String, usize>) -> bool {
    outcome
        .map_err(|reason| *refusals.entry(reason).or_default() += 1)
        .is_ok()
}

fn read_exactly(stream: &mut TcpStream, expected: &[u8]) -> Result<(), String> {
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .map_err(|error| error.to_string())?;
    let mut got = vec![0; expected.len()];
    let mut filled = 0;
    while filled < got.len() {
        match stream.read(&mut got[filled..]) {
            Ok(0) => return Err("closed without a word".to_owned()),
            Err(error) => return Err(error.to_string()),
            Ok(read) => filled += read,
        }
        if !expected.starts_with(&got[..filled]) {
            let rest = said(stream).unwrap_or_default();
            let text = String::from_utf8_lossy(&got[..filled]).into_owned() + &rest;
            return Err(text.lines().next().unwrap_or_default().to_owned());
        }
    }
    Ok(())
}

/// The line that a peer left behind before it closed.
fn said(stream: &mut TcpStream) -> Option<String> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    let line = line.trim_end();
    (!line.is_empty()).then(|| line.to_owned())
}
