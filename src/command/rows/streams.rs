//! Rows for streams.

use super::*;

#[rustfmt::skip] // one command, one line
pub(super) const ROWS: &[Row] = &[
    row("xack", -4, WRITE, FIRST, Plain),
    row("xackdel", -6, WRITE, FIRST, Plain),
    row("xadd", -5, GROWS, FIRST, Plain),
    row("xautoclaim", -6, WRITE, FIRST, Plain),
    row("xcfgset", -2, GROWS, FIRST, Plain),
    row("xclaim", -6, WRITE, FIRST, Plain),
    row("xdel", -3, WRITE, FIRST, Plain),
    row("xdelex", -5, WRITE, FIRST, Plain),
    row("xgroup", -2, NOTHING, NONE, Plain),
    row("xgroup|create", -5, GROWS, SECOND, Plain),
    row("xgroup|createconsumer", 5, GROWS, SECOND, Plain),
    row("xgroup|delconsumer", 5, WRITE, SECOND, Plain),
    row("xgroup|destroy", 4, WRITE, SECOND, Plain),
    row("xgroup|help", 2, ANYTIME | RETRY_SAFE, NONE, Plain),
    row("xgroup|setid", -5, WRITE, SECOND, Plain),
    row("xinfo", -2, NOTHING, NONE, Plain),
    row("xinfo|consumers", 4, READS, SECOND, Plain),
    row("xinfo|groups", 3, READS, SECOND, Plain),
    row("xinfo|help", 2, ANYTIME | RETRY_SAFE, NONE, Plain),
    row("xinfo|stream", -3, READS, SECOND, Plain),
    row("xlen", 2, READS, FIRST, Plain),
    row("xpending", -3, READS, FIRST, Plain),
    row("xrange", -4, READS, FIRST, Plain),
    row("xread", -4, READS, STREAMS, Blocking(Blocking::StreamRead)),
    row("xreadgroup", -7, WRITE, GROUP_STREAMS, Blocking(Blocking::StreamGroup)),
    row("xrevrange", -4, READS, FIRST, Plain),
    row("xsetid", -3, GROWS, FIRST, Plain),
    row("xtrim", -4, WRITE, FIRST, Plain),
];
