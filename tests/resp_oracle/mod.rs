//! What must hold for the scanners of `weir::resp` whatever the bytes are.
//!
//! The property tests, the seeded fuzzer and the fuzz targets in `fuzz/` all call
//! [`check_requests`] and [`check_replies`]; each panics with the input that
//! broke a rule. The rules:
//! - any split of the input gives the same frames and the same error;
//! - `redis-protocol`, the oracle, finds the same frames with the same arguments
//!   wherever it has an opinion, and misses none that is found.

// Each test crate uses its own part.
#![allow(dead_code, unused_imports)]

mod replies;
mod requests;
mod rng;
mod values;

pub use replies::{check_replies, reply_frames};
pub use requests::{LIMITS, check_requests, request_frames};
pub use rng::Rng;
pub use values::check_value;

/// How the input ended after the frames that were found in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End<E> {
    /// Behind a frame.
    AtBoundary,
    /// Within a frame.
    Within,
    /// Nothing further can be framed.
    Error(E),
}

/// What was found in an input: the length of each frame, then how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framing<E> {
    pub frames: Vec<usize>,
    pub end: End<E>,
}

/// Cuts `input` into pieces whose sizes repeat; at least one byte each.
pub fn pieces<'a>(input: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = input;
    let mut sizes = sizes.iter().cycle();
    std::iter::from_fn(move || {
        let size = sizes
            .next()
            .copied()
            .unwrap_or(1)
            .clamp(1, rest.len().max(1));
        let (piece, behind) = rest.split_at(size.min(rest.len()));
        rest = behind;
        (!piece.is_empty()).then_some(piece)
    })
}
