//! Test support: real Redis processes, the real `weir` binary, byte-exact
//! sockets, and a watch that asks Redis how many connections it sees.
//!
//! Every integration test says `mod support;` and uses what it needs. Nothing
//! here knows Weir's insides: a tool that shared code with what it tests could
//! share its mistakes too.
//!
//! Rules that hold everywhere in here:
//! - A process started here dies with the value that started it, also when the
//!   test panics.
//! - Every wait is for a condition and has a deadline ([`DEADLINE`]); a test that
//!   waits in vain fails and says what it waited for.
//! - What the tests themselves connect straight to Redis comes from
//!   [`DIRECT_SOURCE`], so that it can be told from what Weir connects.

// Each test crate uses its own part of the support; what it does not use is not dead.
#![allow(dead_code, unused_imports)]
// The clock that tests stop is Weir's; here real sockets and processes are waited for.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod connection_watch;
mod deployment;
pub mod dialogue;
mod forwarder;
mod http;
pub mod libraries;
mod ports;
mod process;
mod raw_client;
mod redis_server;
mod reply_frame;
mod weir_process;

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

pub use connection_watch::{ConnectionWatch, Sightings};
pub use deployment::{Replicas, Sentinels};
pub use forwarder::Forwarder;
pub use ports::ReservedPort;
pub use raw_client::{RawClient, encode};
pub use redis_server::RedisServer;
pub use reply_frame::reply_length;
pub use weir_process::{WeirProcess, binary};

/// How long anything in a test may take before the test fails. Far above what a
/// loaded two-core machine needs, so that reaching it always means a fault.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The source address of the tests' own connections to Redis. Weir dials from
/// 127.0.0.1, so `CLIENT LIST` tells the two apart without a race.
pub const DIRECT_SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));

/// Waits until `condition` holds; panics with `what` if it does not within [`DEADLINE`].
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let given_up_at = Instant::now() + DEADLINE;
    while !condition() {
        assert!(
            Instant::now() < given_up_at,
            "waited {DEADLINE:?} in vain: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
