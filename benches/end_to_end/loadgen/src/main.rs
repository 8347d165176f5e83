//! The load generator: many clients in one thread, every reply checked byte for byte.
//!
//! It does as little as it can besides, because it shares a core with what is
//! measured: requests and the replies they must get are encoded once, a reply is
//! compared where it was read, and a client is an index into a list.
//!
//! Each mode prints one line of JSON. `run.py` beside this directory says when to
//! use which; `loadgen MODE --help` says how.

// Real sockets are timed here; there is no clock to stop. The program ends by itself.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod blocked;
mod closed;
mod cpu;
mod crowd;
mod fan;
mod idle;
mod open;
mod overload;
mod request;
mod socket;
mod storm;
mod summary;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Load for a Redis or a proxy in front of one; every reply is checked")]
struct Arguments {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Each client asks again as soon as it is answered.
    Closed(closed::Arguments),
    /// Requests are due at fixed times whatever happens; latency counts from then.
    Open(open::Arguments),
    /// An open loop of requests that take the server a while each, in phases.
    Overload(overload::Arguments),
    /// Clients that ask once and then stay, until standard input ends.
    Idle(idle::Arguments),
    /// Clients that connect, ask once and leave.
    Storm(storm::Arguments),
    /// A crowd that comes at once, and how many of it are served (for `make demo`).
    Crowd(crowd::Arguments),
    /// Subscribers, and one who publishes to all of their channels.
    Fan(fan::Arguments),
    /// Workers that wait in `BLPOP`, and one who pushes to all of their queues.
    Blocked(blocked::Arguments),
    /// Writes the keys that the other modes read.
    Populate(request::PopulateArguments),
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // What cannot be raised shows as an error when the sockets run out.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let result = match Arguments::parse().mode {
        Mode::Closed(arguments) => closed::run(&arguments)?,
        Mode::Open(arguments) => open::run(&arguments)?,
        Mode::Overload(arguments) => overload::run(&arguments)?,
        Mode::Idle(arguments) => idle::run(&arguments)?,
        Mode::Storm(arguments) => storm::run(&arguments)?,
        Mode::Crowd(arguments) => crowd::run(&arguments)?,
        Mode::Fan(arguments) => fan::run(&arguments)?,
        Mode::Blocked(arguments) => blocked::run(&arguments)?,
        Mode::Populate(arguments) => request::populate(&arguments)?,
    };
    println!("{result}");
    Ok(())
}
