//! Whatever bytes a client sends, in whatever pieces: the same frames, the same error, and the
//! same requests as `redis-protocol` reads.
#![no_main]

#[path = "../../tests/resp_oracle/mod.rs"]
mod resp_oracle;

use libfuzzer_sys::fuzz_target;
use resp_oracle::{LIMITS, check_requests};
use weir::resp::{RequestLimits, inline};

fuzz_target!(|data: &[u8]| {
    // The first bytes say how the rest is cut and who sends it.
    let [cut @ .., who] = match data.first_chunk::<4>() {
        Some(header) => *header,
        None => return,
    };
    let limits = RequestLimits { unauthenticated: who & 1 == 1, ..LIMITS };
    let input = &data[4..];
    check_requests(input, &limits, &cut.map(usize::from));
    let _ = inline::split(input);
});
