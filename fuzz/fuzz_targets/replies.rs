//! Whatever bytes a node sends, in whatever pieces: the same frames, the same error, the same
//! replies as `redis-protocol` reads, and values that survive being written again.
#![no_main]

#[path = "../../tests/resp_oracle/mod.rs"]
mod resp_oracle;

use libfuzzer_sys::fuzz_target;
use resp_oracle::{check_replies, check_value};

fuzz_target!(|data: &[u8]| {
    // The first bytes say how the rest is cut.
    let Some((cut, input)) = data.split_first_chunk::<3>() else {
        return;
    };
    check_replies(input, &cut.map(usize::from));
    check_value(input);
});
