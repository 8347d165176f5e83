//! A closed loop: each client asks again as soon as it is answered.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde_json::{Value, json};

use crate::cpu::{self, Watched};
use crate::request::{self, Batch, Kind};
use crate::socket;
use crate::summary::{Faults, Latencies};

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    target: SocketAddr,
    #[arg(long)]
    clients: usize,
    /// Requests that a client sends at once.
    #[arg(long, default_value_t = 1)]
    pipeline: usize,
    /// get:SIZE, set:SIZE, mget:KEYS:SIZE or ping.
    #[arg(long)]
    request: Kind,
    /// Measured seconds.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds of load before these.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// NAME=PID: whose processor time to measure; may be repeated.
    #[arg(long)]
    cpu_of: Vec<Watched>,
}

struct Client {
    stream: TcpStream,
    batch: Batch,
    /// How many bytes of the request are sent, and how many of the reply have arrived.
    sent: usize,
    arrived: usize,
    asked_at: Instant,
}

pub fn run(arguments: &Arguments) -> io::Result<Value> {
    let mut poll = Poll::new()?;
    let mut clients = connect(arguments, &poll)?;
    let mut events = Events::with_capacity(1024);
    let mut chunk = vec![0; 256 * 1024];
    let mut latencies = Latencies::default();
    let mut faults = Faults::default();

    let begun = Instant::now();
    let measured_from = begun + Duration::from_secs_f64(arguments.warmup);
    let measured_to = measured_from + Duration::from_secs_f64(arguments.seconds);
    let mut now = begun;
    // Taken at the edges of the measured time, each once.
    let mut edges: Vec<(Instant, Vec<f64>)> = Vec::new();
    let mut answered: u64 = 0;
    for client in clients.iter_mut().flatten() {
        client.ask(now)?;
    }
    while now < measured_to {
        poll.poll(&mut events, Some(Duration::from_millis(10)))?;
        now = Instant::now();
        if edges.is_empty() && now >= measured_from {
            edges.push((now, cpu::used(&arguments.cpu_of)));
        }
        for event in &events {
            let index = event.token().0;
            let Some(client) = &mut clients[index] else {
                continue;
            };
            match client.turn(&mut chunk) {
                Ok(false) => {}
                Ok(true) => {
                    let ended = Instant::now();
                    if !edges.is_empty() {
                        answered += arguments.pipeline as u64;
                        latencies.add(ended - client.asked_at);
                    }
                    if let Err(error) = client.ask(ended) {
                        faults.add(|| error.to_string());
                        clients[index] = None;
                    }
                }
                Err(error) => {
                    faults.add(|| error.to_string());
                    clients[index] = None;
                }
            }
        }
    }
    edges.push((now, cpu::used(&arguments.cpu_of)));
    let [(from, before), (to, after)] = &edges[..] else {
        return Err(io::Error::other(
            "the measured time was over before it began",
        ));
    };
    let seconds = (*to - *from).as_secs_f64();
    Ok(json!({
        "commands": answered,
        "seconds": seconds,
        "commands_per_second": answered as f64 / seconds,
        "batch_latency": latencies.summary(),
        "faults": faults.summary(),
        "cpu_seconds": cpu::difference(&arguments.cpu_of, before, after),
    }))
}

fn connect(arguments: &Arguments, poll: &Poll) -> io::Result<Vec<Option<Client>>> {
    (0..arguments.clients)
        .map(|number| {
            let mut stream = socket::connect(Some(socket::source(number)), arguments.target)?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry()
                .register(&mut stream, Token(number), interest)?;
            let batch = request::batch(arguments.request, number, arguments.pipeline);
            let asked_at = Instant::now();
            Ok(Some(Client {
                stream,
                batch,
                sent: 0,
                arrived: 0,
                asked_at,
            }))
        })
        .collect()
}

impl Client {
    fn ask(&mut self, now: Instant) -> io::Result<()> {
        self.sent = 0;
        self.arrived = 0;
        self.asked_at = now;
        self.send()
    }

    fn send(&mut self) -> io::Result<()> {
        while self.sent < self.batch.request.len() {
            match self.stream.write(&self.batch.request[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends what is left to send, reads what has come; true once the whole reply is there.
    fn turn(&mut self, chunk: &mut [u8]) -> io::Result<bool> {
        self.send()?;
        loop {
            let read = match self.stream.read(chunk) {
                Ok(0) => return Err(io::Error::other("closed by the peer")),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            let expected = &self.batch.reply[self.arrived..];
            if !expected.starts_with(&chunk[..read]) {
                let excerpt = chunk[..read.min(100)].escape_ascii();
                return Err(io::Error::other(format!("a wrong reply: {excerpt}")));
            }
            self.arrived += read;
            if self.arrived == self.batch.reply.len() {
                return Ok(true);
            }
            // Events come on edges. Less than was asked for means that nothing is left.
            if read < chunk.len() {
                return Ok(false);
            }
        }
    }
}
