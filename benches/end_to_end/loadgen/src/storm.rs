//! Clients that connect, ask once and leave, so many at a time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde_json::{Value, json};

use crate::request::{self, Batch, Kind};
use crate::socket;
use crate::summary::{Faults, Latencies};

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    target: SocketAddr,
    /// How many at a time.
    #[arg(long, default_value_t = 200)]
    clients: usize,
    /// get:SIZE, set:SIZE, mget:KEYS:SIZE or ping.
    #[arg(long)]
    request: Kind,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
}

struct Visit {
    stream: TcpStream,
    begun: Instant,
    arrived: usize,
    asked: bool,
}

struct Storm<'a> {
    arguments: &'a Arguments,
    poll: Poll,
    batches: Vec<Batch>,
    visits: Vec<Option<Visit>>,
    begun: usize,
}

pub fn run(arguments: &Arguments) -> io::Result<Value> {
    let batches = (0..arguments.clients).map(|place| request::batch(arguments.request, place, 1));
    let mut storm = Storm {
        arguments,
        poll: Poll::new()?,
        batches: batches.collect(),
        visits: (0..arguments.clients).map(|_| None).collect(),
        begun: 0,
    };
    let mut events = Events::with_capacity(1024);
    let mut latencies = Latencies::default();
    let mut faults = Faults::default();
    let measured_from = Instant::now() + Duration::from_secs_f64(arguments.warmup);
    let measured_to = measured_from + Duration::from_secs_f64(arguments.seconds);
    let mut served: u64 = 0;
    for place in 0..arguments.clients {
        storm.begin(place)?;
    }
    while Instant::now() < measured_to {
        storm
            .poll
            .poll(&mut events, Some(Duration::from_millis(10)))?;
        for event in &events {
            let place = event.token().0;
            match storm.turn(place) {
                Ok(None) => continue,
                Ok(Some(latency)) => {
                    if Instant::now() >= measured_from {
                        served += 1;
                        latencies.add(latency);
                    }
                }
                Err(error) => faults.add(|| error.to_string()),
            }
            storm.begin(place)?;
        }
    }
    Ok(json!({
        "visits": served,
        "visits_per_second": served as f64 / arguments.seconds,
        "latency": latencies.summary(),
        "faults": faults.summary(),
    }))
}

impl Storm<'_> {
    /// The client in this place leaves, and another comes.
    fn begin(&mut self, place: usize) -> io::Result<()> {
        self.visits[place] = None;
        self.begun += 1;
        let begun = Instant::now();
        let source = socket::source(self.begun);
        let mut stream = socket::begin_connect(Some(source), self.arguments.target)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut stream, Token(place), interest)?;
        self.visits[place] = Some(Visit {
            stream,
            begun,
            arrived: 0,
            asked: false,
        });
        Ok(())
    }

    /// Goes on with a visit; its duration once it was answered.
    fn turn(&mut self, place: usize) -> io::Result<Option<Duration>> {
        let batch = &self.batches[place];
        let Some(visit) = &mut self.visits[place] else {
            return Ok(None);
        };
        if !visit.asked {
            if let Some(error) = visit.stream.take_error()? {
                return Err(error);
            }
            match visit.stream.write(&batch.request) {
                Ok(sent) if sent == batch.request.len() => visit.asked = true,
                Ok(_) => return Err(io::Error::other("a fresh socket did not take a request")),
                // Not connected yet.
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let mut chunk = [0; 4096];
        let read = match visit.stream.read(&mut chunk) {
            Ok(0) => return Err(io::Error::other("closed by the peer")),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        if !batch.reply[visit.arrived..].starts_with(&chunk[..read]) {
            let excerpt = chunk[..read.min(100)].escape_ascii();
            return Err(io::Error::other(format!("a wrong reply: {excerpt}")));
        }
        visit.arrived += read;
        Ok((visit.arrived == batch.reply.len()).then(|| visit.begun.elapsed()))
    }
}
