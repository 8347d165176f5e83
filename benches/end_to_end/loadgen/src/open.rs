//! An open loop: requests are due at fixed times, whether or not earlier ones were
//! answered, and latency counts from when a request was due. A server that stalls
//! therefore pays for everything that it kept waiting, not only for what it held.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use serde_json::{Value, json};

use crate::request::{self, Batch, Kind};
use crate::socket;
use crate::summary::{Faults, Latencies};

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    target: SocketAddr,
    #[arg(long)]
    clients: usize,
    /// get:SIZE, set:SIZE, mget:KEYS:SIZE or ping.
    #[arg(long)]
    request: Kind,
    /// Requests a second, of all clients together, evenly spaced.
    #[arg(long)]
    rate: f64,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
}

struct Client {
    stream: TcpStream,
    batch: Batch,
    /// When each request that is not answered yet was due, oldest first.
    due: VecDeque<Instant>,
    unsent: VecDeque<u8>,
    arrived: usize,
}

const TIMER: Token = Token(usize::MAX);

pub fn run(arguments: &Arguments) -> io::Result<Value> {
    let mut poll = Poll::new()?;
    let mut clients = connect(arguments, &poll)?;
    let spacing = Duration::from_secs_f64(1.0 / arguments.rate);
    let timer = periodic_timer(spacing)?;
    poll.registry()
        .register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut chunk = vec![0; 256 * 1024];
    let mut latencies = Latencies::default();
    let mut faults = Faults::default();

    let begun = Instant::now();
    let measured_from = begun + Duration::from_secs_f64(arguments.warmup);
    let total = ((arguments.warmup + arguments.seconds) * arguments.rate) as u32;
    let given_up_at = begun + spacing * total + Duration::from_secs(5);
    let (mut asked, mut answered) = (0, 0);
    while answered + faults.count < u64::from(total) {
        poll.poll(&mut events, Some(Duration::from_millis(10)))?;
        for event in events.iter().filter(|event| event.token() != TIMER) {
            let Some(client) = &mut clients[event.token().0] else {
                continue;
            };
            let mut on_reply = |due: Instant| {
                answered += 1;
                if due >= measured_from {
                    latencies.add(due.elapsed());
                }
            };
            if let Err(error) = client.turn(&mut chunk, &mut on_reply) {
                lose(&mut clients[event.token().0], &mut faults, &error);
            }
        }
        drain(&timer);
        let now = Instant::now();
        while asked < total && begun + spacing * asked <= now {
            let index = asked as usize % clients.len();
            let due = begun + spacing * asked;
            asked += 1;
            match clients[index].as_mut().map(|client| client.ask(due)) {
                Some(Ok(())) => {}
                Some(Err(error)) => lose(&mut clients[index], &mut faults, &error),
                None => faults.add(|| "its client is gone".to_owned()),
            }
        }
        if now > given_up_at {
            let missing = u64::from(total) - answered - faults.count;
            (0..missing).for_each(|_| faults.add(|| "never answered".to_owned()));
        }
    }
    Ok(json!({ "latency": latencies.summary(), "faults": faults.summary() }))
}

/// Everything that this client still waits for has failed.
fn lose(client: &mut Option<Client>, faults: &mut Faults, error: &io::Error) {
    for _ in client.take().iter().flat_map(|client| &client.due) {
        faults.add(|| error.to_string());
    }
}

fn connect(arguments: &Arguments, poll: &Poll) -> io::Result<Vec<Option<Client>>> {
    (0..arguments.clients)
        .map(|number| {
            let mut stream = socket::connect(Some(socket::source(number)), arguments.target)?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry()
                .register(&mut stream, Token(number), interest)?;
            let batch = request::batch(arguments.request, number, 1);
            let (due, unsent) = (VecDeque::new(), VecDeque::new());
            Ok(Some(Client {
                stream,
                batch,
                due,
                unsent,
                arrived: 0,
            }))
        })
        .collect()
}

impl Client {
    fn ask(&mut self, due: Instant) -> io::Result<()> {
        self.due.push_back(due);
        self.unsent.extend(&self.batch.request);
        self.send()
    }

    fn send(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(self.unsent.make_contiguous()) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn turn(&mut self, chunk: &mut [u8], on_reply: &mut impl FnMut(Instant)) -> io::Result<()> {
        self.send()?;
        loop {
            let read = match self.stream.read(chunk) {
                Ok(0) => return Err(io::Error::other("closed by the peer")),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let mut bytes = &chunk[..read];
            while !bytes.is_empty() {
                let expected = &self.batch.reply[self.arrived..];
                let here = expected.len().min(bytes.len());
                if self.due.is_empty() || expected[..here] != bytes[..here] {
                    let excerpt = bytes[..bytes.len().min(100)].escape_ascii();
                    return Err(io::Error::other(format!("a wrong reply: {excerpt}")));
                }
                self.arrived += here;
                bytes = &bytes[here..];
                if self.arrived == self.batch.reply.len() {
                    self.arrived = 0;
                    on_reply(self.due.pop_front().expect("checked above"));
                }
            }
            if read < chunk.len() {
                return Ok(());
            }
        }
    }
}

/// A timer that becomes readable once every `period`. Polling takes its timeout in
/// milliseconds, which at 20,000 requests a second is twenty requests.
pub fn periodic_timer(period: Duration) -> io::Result<OwnedFd> {
    let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
    // SAFETY: no pointers; the result is checked.
    let descriptor = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nobody else has it.
    let timer = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let tv_sec = period.as_secs().try_into().expect("a short period");
    let period = libc::timespec {
        tv_sec,
        tv_nsec: period.subsec_nanos().into(),
    };
    let setting = libc::itimerspec {
        it_interval: period,
        it_value: period,
    };
    // SAFETY: the descriptor is a timer's; the setting outlives the call; the old one is not asked for.
    let result = unsafe { libc::timerfd_settime(descriptor, 0, &setting, std::ptr::null_mut()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(timer)
    }
}

/// Makes the timer wait for its next period.
pub fn drain(timer: &OwnedFd) {
    let mut expirations = [0u8; 8];
    // SAFETY: reads at most eight bytes into eight bytes. That there is nothing to read is fine.
    unsafe {
        libc::read(
            timer.as_raw_fd(),
            expirations.as_mut_ptr().cast(),
            expirations.len(),
        )
    };
}
