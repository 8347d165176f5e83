//! The `weir` binary.

use std::process::ExitCode;

/// A size class for tokio's 128-byte-aligned parts: an idle client takes about
/// half of what it does with the C library's allocator.
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    weir::app::cli::main()
}
