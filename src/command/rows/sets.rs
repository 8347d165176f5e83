//! Rows for sets and vector sets.

use super::*;

#[rustfmt::skip] // one command, one line
pub(super) const ROWS: &[Row] = &[
    row("sadd", -3, GROWS, FIRST, Plain),
    row("scard", 2, READS, FIRST, Plain),
    row("sdiff", -2, READS | SLOW, ALL, Plain),
    row("sdiffstore", -3, GROWS | SLOW, ALL, Plain),
    row("sinter", -2, READS | SLOW, ALL, Plain),
    row("sintercard", -3, READS | SLOW, COUNT_AT_1, Plain),
    row("sinterstore", -3, GROWS | SLOW, ALL, Plain),
    row("sismember", 3, READS, FIRST, Plain),
    row("smembers", 2, READS, FIRST, Plain),
    row("smismember", -3, READS, FIRST, Plain),
    row("smove", 4, WRITE, FIRST_TWO, Plain),
    row("spop", -2, WRITE, FIRST, Plain),
    row("srandmember", -2, READS, FIRST, Plain),
    row("srem", -3, WRITE, FIRST, Plain),
    row("sscan", -3, READS, FIRST, Plain),
    row("sunion", -2, READS | SLOW, ALL, Plain),
    row("sunionstore", -3, GROWS | SLOW, ALL, Plain),
    row("vadd", -5, GROWS | SLOW, FIRST, Plain),
    row("vcard", 2, READS, FIRST, Plain),
    row("vdim", 2, READS, FIRST, Plain),
    row("vemb", -3, READS, FIRST, Plain),
    row("vgetattr", 3, READS, FIRST, Plain),
    row("vinfo", 2, READS, FIRST, Plain),
    row("vismember", 3, READS, FIRST, Plain),
    row("vlinks", -3, READS, FIRST, Plain),
    row("vrandmember", -2, READS, FIRST, Plain),
    row("vrange", -4, READS, FIRST, Plain),
    row("vrem", 3, WRITE, FIRST, Plain),
    row("vsetattr", 4, GROWS, FIRST, Plain),
    row("vsim", -4, READS | SLOW, FIRST, Plain),
];
