//! More than the server can do: an open loop whose every request takes the server a fixed
//! time, in phases of different rates. What was served and what was refused is told for every
//! tenth of a second, so that it can be drawn over time.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::str::FromStr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use serde_json::{Value, json};

use crate::open::{drain, periodic_timer};
use crate::socket;
use crate::summary::{Faults, Latencies};

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    target: SocketAddr,
    #[arg(long)]
    clients: usize,
    /// What one request takes the server, in microseconds: it runs a script that waits for
    /// its own clock. Redis does nothing else meanwhile.
    #[arg(long, default_value_t = 2_000)]
    micros: u32,
    /// SECONDS:RATE, once for each phase: so long so many requests a second, of all clients
    /// together, evenly spaced.
    #[arg(long, required = true)]
    phase: Vec<Phase>,
    /// How long after the last request replies are waited for, in seconds.
    #[arg(long, default_value_t = 15.0)]
    patience: f64,
}

#[derive(Debug, Clone, Copy)]
struct Phase {
    seconds: f64,
    rate: f64,
}

impl FromStr for Phase {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (seconds, rate) = text.split_once(':').ok_or("expected SECONDS:RATE")?;
        let number = |part: &str| part.parse().map_err(|error| format!("{part}: {error}"));
        Ok(Self {
            seconds: number(seconds)?,
            rate: number(rate)?,
        })
    }
}

/// One bucket of the graph.
const BUCKET: Duration = Duration::from_millis(100);

/// How often requests are looked for that are due.
const TICK: Duration = Duration::from_micros(500);

const TIMER: Token = Token(usize::MAX);

#[derive(Default)]
struct Bucket {
    served: Latencies,
    refused: Latencies,
    failed: u64,
}

struct Client {
    stream: TcpStream,
    due: VecDeque<Instant>,
    unsent: VecDeque<u8>,
    received: Vec<u8>,
}

struct Run {
    begun: Instant,
    buckets: Vec<Bucket>,
    served: u64,
    refused: u64,
    faults: Faults,
    refusal: Option<String>,
}

impl Run {
    fn bucket(&mut self) -> &mut Bucket {
        let index = (self.begun.elapsed().as_nanos() / BUCKET.as_nanos()) as usize;
        if self.buckets.len() <= index {
            self.buckets.resize_with(index + 1, Bucket::default);
        }
        &mut self.buckets[index]
    }

    fn take(&mut self, due: Instant, reply: &[u8]) {
        let took = due.elapsed();
        if reply.starts_with(b":") {
            self.served += 1;
            self.bucket().served.add(took);
        } else {
            self.refused += 1;
            self.refusal
                .get_or_insert_with(|| reply.escape_ascii().to_string());
            self.bucket().refused.add(took);
        }
    }

    fn fail(&mut self, why: &str) {
        self.bucket().failed += 1;
        self.faults.add(|| why.to_owned());
    }
}

pub fn run(arguments: &Arguments) -> io::Result<Value> {
    let mut poll = Poll::new()?;
    let request = request(arguments.micros);
    let mut clients: Vec<Option<Client>> = (0..arguments.clients)
        .map(|number| Client::connect(arguments, &poll, number).map(Some))
        .collect::<io::Result<_>>()?;
    let timer = periodic_timer(TICK)?;
    poll.registry()
        .register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut chunk = vec![0; 64 * 1024];
    let due = due_times(&arguments.phase);
    let mut run = Run {
        begun: Instant::now(),
        buckets: Vec::new(),
        served: 0,
        refused: 0,
        faults: Faults::default(),
        refusal: None,
    };
    let last = *due.last().unwrap_or(&Duration::ZERO);
    let given_up_at = run.begun + last + Duration::from_secs_f64(arguments.patience);
    let mut asked = 0;
    while run.served + run.refused + run.faults.count < due.len() as u64 {
        poll.poll(&mut events, Some(Duration::from_millis(10)))?;
        for event in events.iter().filter(|event| event.token() != TIMER) {
            let place = &mut clients[event.token().0];
            if let Some(client) = place
                && let Err(error) = client.turn(&mut chunk, &mut run)
            {
                lose(place, &mut run, &error.to_string());
            }
        }
        drain(&timer);
        let now = Instant::now();
        while asked < due.len() && run.begun + due[asked] <= now {
            let number = asked % clients.len();
            let at = run.begun + due[asked];
            asked += 1;
            if clients[number].is_none() {
                clients[number] = Client::begin(arguments, &poll, number).ok();
            }
            let asked = clients[number]
                .as_mut()
                .map(|client| client.ask(at, &request));
            match asked {
                Some(Ok(())) => {}
                Some(Err(error)) => lose(&mut clients[number], &mut run, &error.to_string()),
                None => run.fail("no connection"),
            }
        }
        if now > given_up_at {
            for place in &mut clients {
                lose(place, &mut run, "never answered");
            }
            break;
        }
    }
    Ok(summary(run, &arguments.phase))
}

fn summary(run: Run, phases: &[Phase]) -> Value {
    let phases = by_phase(&run.buckets, phases);
    let buckets: Vec<Value> = run
        .buckets
        .into_iter()
        .map(|mut bucket| {
            json!({
                "served": bucket.served.summary(),
                "refused": bucket.refused.summary(),
                "failed": bucket.failed,
            })
        })
        .collect();
    json!({
        "bucket_seconds": BUCKET.as_secs_f64(),
        "buckets": buckets,
        "phases": phases,
        "served": run.served,
        "refused": run.refused,
        "refusal": run.refusal,
        "lost": run.faults.summary(),
    })
}

/// What was answered in each phase.
fn by_phase(buckets: &[Bucket], phases: &[Phase]) -> Vec<Value> {
    let mut buckets = buckets.iter().enumerate().peekable();
    let mut end = 0.0;
    let mut all = Vec::new();
    for phase in phases {
        end += phase.seconds;
        let (mut served, mut refused) = (Latencies::default(), Latencies::default());
        let of_phase = |(index, _): &(usize, &Bucket)| *index as f64 * BUCKET.as_secs_f64() < end;
        while let Some((_, bucket)) = buckets.next_if(of_phase) {
            served.add_all(&bucket.served);
            refused.add_all(&bucket.refused);
        }
        all.push(json!({ "served": served.summary(), "refused": refused.summary() }));
    }
    all
}

/// When each request is due, from the beginning.
fn due_times(phases: &[Phase]) -> Vec<Duration> {
    let mut times = Vec::new();
    let mut start = 0.0;
    for phase in phases {
        let count = (phase.seconds * phase.rate) as usize;
        times.extend(
            (0..count).map(|place| Duration::from_secs_f64(start + place as f64 / phase.rate)),
        );
        start += phase.seconds;
    }
    times
}

fn request(micros: u32) -> Vec<u8> {
    let script = format!(
        "local t = redis.call('TIME') local from = t[1] * 1000000 + t[2] repeat t = redis.call('TIME') \
         until t[1] * 1000000 + t[2] - from >= {micros} return 1"
    );
    let mut request = Vec::new();
    request.extend_from_slice(b"*4\r\n");
    for argument in ["EVAL", &script, "1", "key:overload"] {
        request.extend_from_slice(format!("${}\r\n{argument}\r\n", argument.len()).as_bytes());
    }
    request
}

/// Everything that this client still waits for has failed; it connects again when it is due.
fn lose(place: &mut Option<Client>, run: &mut Run, why: &str) {
    for _ in place.take().iter().flat_map(|client| &client.due) {
        run.fail(why);
    }
}

impl Client {
    fn connect(arguments: &Arguments, poll: &Poll, number: usize) -> io::Result<Client> {
        let stream = socket::connect(Some(socket::source(number)), arguments.target)?;
        Client::new(stream, poll, number)
    }

    fn begin(arguments: &Arguments, poll: &Poll, number: usize) -> io::Result<Client> {
        let stream = socket::begin_connect(Some(socket::source(number)), arguments.target)?;
        Client::new(stream, poll, number)
    }

    fn new(mut stream: TcpStream, poll: &Poll, number: usize) -> io::Result<Client> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry()
            .register(&mut stream, Token(number), interest)?;
        Ok(Client {
            stream,
            due: VecDeque::new(),
            unsent: VecDeque::new(),
            received: Vec::new(),
        })
    }

    fn ask(&mut self, due: Instant, request: &[u8]) -> io::Result<()> {
        self.due.push_back(due);
        self.unsent.extend(request);
        self.send()
    }

    fn send(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(self.unsent.as_slices().0) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn turn(&mut self, chunk: &mut [u8], run: &mut Run) -> io::Result<()> {
        self.send()?;
        loop {
            let read = match self.stream.read(chunk) {
                Ok(0) => return Err(io::Error::other("closed by the peer")),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(()),
                Err(error) => return Err(error),
            };
            self.received.extend_from_slice(&chunk[..read]);
            while let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
                let reply: Vec<u8> = self.received.drain(..=end).collect();
                let Some(due) = self.due.pop_front() else {
                    return Err(io::Error::other("a reply that nobody asked for"));
                };
                run.take(due, reply.trim_ascii_end());
            }
        }
    }
}
