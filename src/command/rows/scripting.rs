//! Rows for scripts and functions.

use super::*;

#[rustfmt::skip] // one command, one line
pub(super) const ROWS: &[Row] = &[
    row("eval", -3, NOSCRIPT | STALE | MAY_REPLICATE | SLOW, COUNT_AT_2, Plain),
    row("eval_ro", -3, READS | NOSCRIPT | STALE | SLOW, COUNT_AT_2, Plain),
    row("evalsha", -3, NOSCRIPT | STALE | MAY_REPLICATE | SLOW, COUNT_AT_2, Plain),
    row("evalsha_ro", -3, READS | NOSCRIPT | STALE | SLOW, COUNT_AT_2, Plain),
    row("fcall", -3, NOSCRIPT | STALE | MAY_REPLICATE | SLOW, COUNT_AT_2, Plain),
    row("fcall_ro", -3, READS | NOSCRIPT | STALE | SLOW, COUNT_AT_2, Plain),
    row("function", -2, NOTHING, NONE, Plain),
    row("function|delete", 3, WRITE | NOSCRIPT, NONE, Plain),
    row("function|dump", 2, NOSCRIPT | RETRY_SAFE, NONE, Plain),
    row("function|flush", -2, WRITE | NOSCRIPT | SLOW, NONE, Plain),
    row("function|help", 2, ANYTIME | RETRY_SAFE, NONE, Plain),
    row("function|kill", 2, NOSCRIPT | ALLOW_BUSY | SLOW, NONE, Control),
    row("function|list", -2, NOSCRIPT | RETRY_SAFE, NONE, Plain),
    row("function|load", -3, GROWS | NOSCRIPT | SLOW, NONE, Plain),
    row("function|restore", -3, GROWS | NOSCRIPT | SLOW, NONE, Plain),
    row("function|stats", 2, NOSCRIPT | ALLOW_BUSY | RETRY_SAFE, NONE, Control),
    row("script", -2, NOTHING, NONE, Plain),
    row("script|debug", -3, NOSCRIPT | STATE, NONE, Tunnel),
    row("script|exists", -3, NOSCRIPT | RETRY_SAFE, NONE, Plain),
    row("script|flush", -2, NOSCRIPT | SLOW, NONE, Plain),
    row("script|help", 2, ANYTIME | RETRY_SAFE, NONE, Plain),
    row("script|kill", 2, NOSCRIPT | ALLOW_BUSY | SLOW, NONE, Control),
    row("script|load", 3, NOSCRIPT | STALE | SLOW | RETRY_SAFE, NONE, Plain),
    row("script|show", 3, NOSCRIPT | STALE | RETRY_SAFE, NONE, Plain),
];
