//! Subscribers, and one who publishes to all of their channels: how many messages a second
//! are handed out? A new round is published when an earlier one has arrived, so that as
//! much is under way all the time as the window says.

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::cpu::{self, Watched};
use crate::socket;

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    target: SocketAddr,
    #[arg(long, default_value_t = 10_000)]
    subscribers: usize,
    /// A divisor of the number of subscribers; each is subscribed to one.
    #[arg(long, default_value_t = 100)]
    channels: usize,
    /// Bytes of a message; at least ten.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Messages on each channel that have not arrived everywhere.
    #[arg(long, default_value_t = 4)]
    window: u64,
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

struct Subscriber {
    stream: TcpStream,
    channel: usize,
    /// Bytes that have arrived of all messages.
    arrived: u64,
}

/// The number of a message stands in ten digits where its text begins.
const DIGITS: usize = 10;

/// Prints a line once everybody is subscribed, and publishes when a line has come in.
pub fn run(arguments: &Arguments) -> io::Result<Value> {
    let mut poll = Poll::new()?;
    let mut subscribers = Vec::with_capacity(arguments.subscribers);
    for number in 0..arguments.subscribers {
        let channel = number % arguments.channels;
        let mut stream = subscribe(arguments.target, number, channel)?;
        poll.registry()
            .register(&mut stream, Token(number), Interest::READABLE)?;
        subscribers.push(Subscriber {
            stream,
            channel,
            arrived: 0,
        });
    }
    println!("{}", json!({ "subscribed": subscribers.len() }));
    io::stdin().lock().read_line(&mut String::new())?;

    let mut publisher = socket::connect(None, arguments.target)?;
    let publishing = Token(usize::MAX - 1);
    let both = Interest::READABLE | Interest::WRITABLE;
    poll.registry().register(&mut publisher, publishing, both)?;
    let frames: Vec<(Vec<u8>, usize)> = (0..arguments.channels)
        .map(|channel| message(channel, arguments.size))
        .collect();
    let reply = format!(":{}\r\n", arguments.subscribers / arguments.channels).into_bytes();
    let mut events = Events::with_capacity(1024);
    let mut chunk = vec![0; 256 * 1024];
    let (mut unsent, mut sent, mut answered) = (Vec::new(), 0, 0_u64);
    let (mut published, mut delivered) = (0, 0_u64);
    let begun = Instant::now();
    let measured_from = begun + Duration::from_secs_f64(arguments.warmup);
    let measured_to = measured_from + Duration::from_secs_f64(arguments.seconds);
    let mut edges: Vec<(Instant, u64, Vec<f64>)> = Vec::new();
    loop {
        let now = Instant::now();
        let edge = [measured_from, measured_to][edges.len()];
        if now >= edge {
            edges.push((now, delivered, cpu::used(&arguments.cpu_of)));
            if edges.len() == 2 {
                break;
            }
        }
        while published < arguments.window + delivered / arguments.subscribers as u64 {
            for channel in 0..arguments.channels {
                publish(channel, published, arguments.size, &mut unsent);
            }
            published += 1;
        }
        sent += write(&mut publisher, &unsent[sent..])?;
        if sent == unsent.len() {
            (unsent, sent) = (Vec::new(), 0);
        }
        poll.poll(&mut events, Some(Duration::from_millis(10)))?;
        for event in &events {
            if event.token() == publishing {
                answered += answers(&mut publisher, &reply, answered, &mut chunk)?;
                continue;
            }
            let subscriber = &mut subscribers[event.token().0];
            let (frame, place) = &frames[subscriber.channel];
            delivered += subscriber.turn(frame, *place, &mut chunk)?;
        }
    }
    let [from, to] = edges.try_into().expect("both edges were passed");
    let seconds = (to.0 - from.0).as_secs_f64();
    let messages = to.1 - from.1;
    Ok(json!({
        "messages": messages,
        "messages_per_second": messages as f64 / seconds,
        "cpu_seconds": cpu::difference(&arguments.cpu_of, &from.2, &to.2),
    }))
}

fn name(channel: usize) -> String {
    format!("fan:{channel:06}")
}

fn subscribe(target: SocketAddr, number: usize, channel: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(socket::source(number), 0).into())?;
    socket.connect(&target.into())?;
    let mut stream = StdStream::from(socket);
    let name = name(channel);
    let len = name.len();
    stream.write_all(format!("*2\r\n$9\r\nSUBSCRIBE\r\n${len}\r\n{name}\r\n").as_bytes())?;
    let expected = format!("*3\r\n$9\r\nsubscribe\r\n${len}\r\n{name}\r\n:1\r\n");
    let mut reply = vec![0; expected.len()];
    stream.read_exact(&mut reply)?;
    if reply != expected.as_bytes() {
        let reply = reply.escape_ascii();
        return Err(io::Error::other(format!("{number} was answered {reply}")));
    }
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream))
}

/// A message as a subscriber gets it, numbered 0, and where its number is.
fn message(channel: usize, size: usize) -> (Vec<u8>, usize) {
    let name = name(channel);
    let mut frame = format!(
        "*3\r\n$7\r\nmessage\r\n${}\r\n{name}\r\n${size}\r\n",
        name.len()
    )
    .into_bytes();
    let place = frame.len();
    frame.extend(text(0, size).into_bytes());
    frame.extend(b"\r\n");
    (frame, place)
}

fn text(number: u64, size: usize) -> String {
    format!("{number:010}{}", "x".repeat(size - DIGITS))
}

fn publish(channel: usize, number: u64, size: usize, into: &mut Vec<u8>) {
    let name = name(channel);
    let text = text(number, size);
    let len = name.len();
    let request = format!("*3\r\n$7\r\nPUBLISH\r\n${len}\r\n{name}\r\n${size}\r\n{text}\r\n");
    into.extend(request.into_bytes());
}

fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        outcome => outcome,
    }
}

/// Reads what there is of the publisher's replies, of which `before` bytes have arrived.
fn answers(stream: &mut TcpStream, reply: &[u8], before: u64, chunk: &mut [u8]) -> io::Result<u64> {
    let mut more = 0;
    loop {
        let n = match stream.read(chunk) {
            Ok(0) => return Err(io::Error::other("the publisher was closed")),
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(more),
            Err(error) => return Err(error),
        };
        for byte in &chunk[..n] {
            let place = (before + more) as usize % reply.len();
            if *byte != reply[place] {
                let text = chunk[..n.min(200)].escape_ascii();
                return Err(io::Error::other(format!("PUBLISH was answered {text}")));
            }
            more += 1;
        }
    }
}

impl Subscriber {
    /// Reads what there is and looks at every byte; how many messages are whole by that.
    fn turn(&mut self, frame: &[u8], place: usize, chunk: &mut [u8]) -> io::Result<u64> {
        let mut expected = frame.to_vec();
        let len = frame.len() as u64;
        let before = self.arrived / len;
        loop {
            let n = match self.stream.read(chunk) {
                Ok(0) => return Err(io::Error::other("a subscriber was closed")),
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            let mut rest = &chunk[..n];
            while !rest.is_empty() {
                let number = self.arrived / len;
                let at = (self.arrived % len) as usize;
                write!(&mut expected[place..place + DIGITS], "{number:010}")?;
                let part = rest.len().min(frame.len() - at);
                if rest[..part] != expected[at..at + part] {
                    let text = rest[..part].escape_ascii();
                    return Err(io::Error::other(format!("message {number} is {text}")));
                }
                self.arrived += part as u64;
                rest = &rest[part..];
            }
            if n < chunk.len() {
                break;
            }
        }
        Ok(self.arrived / len - before)
    }
}
