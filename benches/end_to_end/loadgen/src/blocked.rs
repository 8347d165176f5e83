//! Workers that wait in `BLPOP`, and one who pushes: how long from a push until a worker has
//! the element? First one element is under way at a time, so that nothing waits for
//! anything else; then a window of them, to see how many go through a second.

use std::collections::HashMap;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::cpu::{self, Watched};
use crate::socket;
use crate::summary::Latencies;

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    target: SocketAddr,
    #[arg(long, default_value_t = 10_000)]
    workers: usize,
    /// Each worker waits for one; they are pushed to in turn.
    #[arg(long, default_value_t = 1_000)]
    queues: usize,
    /// Elements under way at once in the second half; at most as many as there are queues.
    #[arg(long, default_value_t = 64)]
    window: usize,
    /// Measured seconds, half of them for each part.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds of load before each part.
    #[arg(long, default_value_t = 0.5)]
    warmup: f64,
    /// NAME=PID: whose processor time to measure in the second part; may be repeated.
    #[arg(long)]
    cpu_of: Vec<Watched>,
}

struct Worker {
    stream: TcpStream,
    /// What has arrived of the reply that it waits for.
    reply: Vec<u8>,
}

/// An element that does not arrive for so long is lost.
const LOST: Duration = Duration::from_secs(10);

/// Prints a line once everybody waits, and pushes when a line has come in.
pub fn run(arguments: &Arguments) -> io::Result<Value> {
    let mut crowd = Crowd::gather(arguments)?;
    println!("{}", json!({ "blocked": crowd.workers.len() }));
    io::stdin().lock().read_line(&mut String::new())?;

    let measured = Duration::from_secs_f64(arguments.seconds / 2.0);
    let warmup = Duration::from_secs_f64(arguments.warmup);
    crowd.go(1, warmup)?;
    let (mut single, _) = crowd.go(1, measured)?;
    let window = arguments.window.clamp(1, arguments.queues);
    crowd.go(window, warmup)?;
    let before = cpu::used(&arguments.cpu_of);
    let (mut many, took) = crowd.go(window, measured)?;
    let after = cpu::used(&arguments.cpu_of);
    let elements = many.count();
    Ok(json!({
        "latency": single.summary(),
        "elements": elements,
        "elements_per_second": elements as f64 / took.as_secs_f64(),
        "window_latency": many.summary(),
        "cpu_seconds": cpu::difference(&arguments.cpu_of, &before, &after),
    }))
}

/// Everybody who takes part.
struct Crowd {
    poll: Poll,
    workers: Vec<Worker>,
    queues: usize,
    pusher: TcpStream,
    /// What the pusher has read of a reply that is not whole yet.
    pusher_reply: Vec<u8>,
    /// Elements pushed so far; the next has this number, and goes to this one of the queues
    /// when they are counted round and round.
    pushed: u64,
    /// The number of each element under way, and when it was pushed.
    under_way: HashMap<u64, Instant>,
}

const PUSHER: Token = Token(usize::MAX - 1);

impl Crowd {
    fn gather(arguments: &Arguments) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut workers = Vec::with_capacity(arguments.workers);
        for number in 0..arguments.workers {
            let mut stream = wait(arguments.target, number, number % arguments.queues)?;
            poll.registry()
                .register(&mut stream, Token(number), Interest::READABLE)?;
            let reply = Vec::new();
            workers.push(Worker { stream, reply });
        }
        let mut pusher = socket::connect(None, arguments.target)?;
        poll.registry()
            .register(&mut pusher, PUSHER, Interest::READABLE)?;
        Ok(Self {
            poll,
            workers,
            // A queue that nobody waits at is not pushed to.
            queues: arguments.queues.min(arguments.workers),
            pusher,
            pusher_reply: Vec::new(),
            pushed: 0,
            under_way: HashMap::new(),
        })
    }

    /// Pushes for so long, with so many elements under way at once, and until all have arrived;
    /// how long each took, and all together.
    fn go(&mut self, window: usize, duration: Duration) -> io::Result<(Latencies, Duration)> {
        let mut latencies = Latencies::default();
        let mut events = Events::with_capacity(1024);
        let began = Instant::now();
        loop {
            let pushing = began.elapsed() < duration;
            if !pushing && self.under_way.is_empty() {
                return Ok((latencies, began.elapsed()));
            }
            if pushing {
                self.push(window)?;
            }
            self.poll.poll(&mut events, Some(LOST))?;
            if events.is_empty() {
                let lost = self.under_way.len();
                let lost = format!("{lost} elements were pushed and do not arrive");
                return Err(io::Error::other(lost));
            }
            for event in &events {
                match event.token() {
                    PUSHER => self.pusher_answered()?,
                    Token(number) => self.arrived(number, &mut latencies)?,
                }
            }
        }
    }

    /// Pushes until so many are under way.
    fn push(&mut self, window: usize) -> io::Result<()> {
        let more = window.saturating_sub(self.under_way.len());
        let mut requests = Vec::new();
        let now = Instant::now();
        for _ in 0..more {
            let queue = name((self.pushed % self.queues as u64) as usize);
            let len = queue.len();
            let element = self.pushed;
            write!(
                requests,
                "*3\r\n$5\r\nLPUSH\r\n${len}\r\n{queue}\r\n$10\r\n{element:010}\r\n"
            )?;
            self.under_way.insert(element, now);
            self.pushed += 1;
        }
        // A window of requests is a few kilobytes, which a socket takes at once.
        self.pusher.write_all(&requests)
    }

    /// Each push must be answered with a length.
    fn pusher_answered(&mut self) -> io::Result<()> {
        read(&mut self.pusher, &mut self.pusher_reply)?;
        while let Some(end) = self.pusher_reply.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pusher_reply.drain(..=end).collect();
            if !line.starts_with(b":") {
                let line = line.escape_ascii();
                return Err(io::Error::other(format!("LPUSH was answered {line}")));
            }
        }
        Ok(())
    }

    /// Takes the element that a worker has got, if all of it is there; the worker waits anew.
    fn arrived(&mut self, number: usize, latencies: &mut Latencies) -> io::Result<()> {
        let worker = &mut self.workers[number];
        read(&mut worker.stream, &mut worker.reply)?;
        let queue = number % self.queues;
        let name = name(queue);
        let start = format!("*2\r\n${}\r\n{name}\r\n$10\r\n", name.len()).into_bytes();
        let len = start.len() + 10 + 2;
        if worker.reply.len() < len
            && start.starts_with(&worker.reply[..worker.reply.len().min(start.len())])
        {
            return Ok(());
        }
        let element = worker.reply.strip_prefix(&start[..]);
        let element = element.and_then(|rest| rest.strip_suffix(b"\r\n"));
        let element: Option<u64> = element
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| digits.parse().ok())
            // An element of another queue, or one that came twice, is a fault as well.
            .filter(|element| element % self.queues as u64 == queue as u64);
        let Some(pushed) = element.and_then(|element| self.under_way.remove(&element)) else {
            let reply = worker.reply.escape_ascii();
            return Err(io::Error::other(format!("worker {number} got {reply}")));
        };
        latencies.add(pushed.elapsed());
        worker.reply.clear();
        worker.stream.write_all(&pop(queue))
    }
}

fn name(queue: usize) -> String {
    format!("queue:{queue:06}")
}

fn pop(queue: usize) -> Vec<u8> {
    let name = name(queue);
    let len = name.len();
    format!("*3\r\n$5\r\nBLPOP\r\n${len}\r\n{name}\r\n$1\r\n0\r\n").into_bytes()
}

/// Connects and waits for an element. `PING` goes ahead of `BLPOP` in the same packet: once it
/// is answered, `BLPOP` has been read too.
fn wait(target: SocketAddr, number: usize, queue: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SocketAddr::new(socket::source(number), 0).into())?;
    socket.connect(&target.into())?;
    let mut stream = StdStream::from(socket);
    let mut requests = b"*1\r\n$4\r\nPING\r\n".to_vec();
    requests.extend(pop(queue));
    stream.write_all(&requests)?;
    let mut reply = [0; 7];
    stream.read_exact(&mut reply)?;
    if &reply != b"+PONG\r\n" {
        let reply = reply.escape_ascii();
        return Err(io::Error::other(format!("{number} was answered {reply}")));
    }
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream))
}

/// Reads all there is.
fn read(stream: &mut TcpStream, into: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return Err(io::Error::other("a client was closed")),
            Ok(n) => into.extend(&chunk[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
