//! The `weir` binary.

use std::process::ExitCode;

/// A size class for tokio's 128-byte-aligned parts: an idle client takes about
/// half of what it does with the C library's allocator.
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long memory that was freed is kept for what comes next, in milliseconds, before the
/// kernel has it back. The allocator's own second is long enough for a flood of large replies
/// to take half as much again as `process.buffer_memory_max` allows; a millisecond costs
/// neither time nor page faults that could be measured.
const PURGE_DELAY: std::ffi::c_long = 1;

/// `mi_option_purge_delay` of `mi_option_t` in mimalloc.h; the crate names those options only
/// that are no experiments.
const MI_OPTION_PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() -> ExitCode {
    // SAFETY: an option that exists; no other thread does yet.
    unsafe { libmimalloc_sys::mi_option_set(MI_OPTION_PURGE_DELAY, PURGE_DELAY) };
    weir::app::cli::main()
}
