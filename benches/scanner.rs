//! What framing costs, beside `redis-protocol` decoding the same bytes.
//!
//! `cargo bench --bench scanner` prints a time for each input and reader. Weir passes bytes
//! through, so it needs only to know where frames and arguments are; `decode_range` is the least
//! that `redis-protocol` can do (it gives ranges into the buffer), `decode_bytes_mut` what a
//! proxy built on its frames would call.

use std::hint::black_box;
use std::time::Duration;

use bytes::BytesMut;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use redis_protocol::{resp2, resp3};
use weir::resp::{ReplyScanner, RequestLimits, Scan, encode_command, scan_request};

const LIMITS: RequestLimits = RequestLimits {
    bulk_max: 512 << 20,
    args_max: 1 << 20,
    unauthenticated: false,
};

fn requests(criterion: &mut Criterion) {
    let get = command(&[b"GET", b"key:000000012345"]);
    let set = command(&[b"SET", b"key:000000012345", b"xxx"]);
    let set_1k = command(&[b"SET", b"key:000000012345", &[b'x'; 1024]]);
    let pipeline = [&get[..], &set].concat().repeat(8);
    for (name, input) in [
        ("GET", &get),
        ("SET", &set),
        ("SET 1 KiB", &set_1k),
        ("pipeline of 16", &pipeline),
    ] {
        let mut group = group(criterion, format!("request {name}"), input);
        let mut spans = Vec::new();
        group.bench_function("weir", |bencher| {
            bencher.iter(|| {
                let mut rest = black_box(&input[..]);
                let mut args = 0;
                while let Ok(Scan::Request { len, .. }) = scan_request(rest, &LIMITS, &mut spans) {
                    rest = &rest[len..];
                    args += spans.len();
                }
                args
            });
        });
        oracles(
            &mut group,
            input,
            resp2::decode::decode_range,
            resp2::decode::decode_bytes_mut,
        );
    }
}

fn replies(criterion: &mut Criterion) {
    let mget = |keys: usize| [format!("*{keys}\r\n"), "$3\r\nxxx\r\n".repeat(keys)].concat();
    let bulk_1k = format!("$1024\r\n{}\r\n", "x".repeat(1024));
    let pipeline = "+OK\r\n$3\r\nxxx\r\n".repeat(8);
    let map = ["%20\r\n", &"$5\r\nfield\r\n:12345\r\n".repeat(20)].concat();
    for (name, input) in [
        ("OK", "+OK\r\n"),
        ("integer", ":12345\r\n"),
        ("null", "$-1\r\n"),
        ("3 bytes", "$3\r\nxxx\r\n"),
        (
            "error",
            "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
        ),
        ("1 KiB", &bulk_1k),
        ("MGET 100", &mget(100)),
        ("pipeline of 16", &pipeline),
        ("map of 20", &map),
    ] {
        let input = input.as_bytes().to_vec();
        let mut group = group(criterion, format!("reply {name}"), &input);
        let mut scanner = ReplyScanner::default();
        group.bench_function("weir", |bencher| {
            bencher.iter(|| {
                let mut rest = black_box(&input[..]);
                let mut replies = 0;
                while !rest.is_empty() {
                    let fed = scanner.feed(rest).expect("RESP");
                    rest = &rest[fed.consumed..];
                    replies += usize::from(fed.complete);
                }
                replies
            });
        });
        if input[0] == b'%' {
            use resp3::decode::complete::{decode_bytes_mut, decode_range};
            oracles(&mut group, &input, decode_range, decode_bytes_mut);
        } else {
            use resp2::decode::{decode_bytes_mut, decode_range};
            oracles(&mut group, &input, decode_range, decode_bytes_mut);
        }
    }
}

/// Times both of the oracle's ways to read all frames of `input`.
fn oracles<R, F, B, E: std::fmt::Debug>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    input: &[u8],
    decode_range: impl Fn(&[u8]) -> Result<Option<(R, usize)>, E>,
    decode_bytes_mut: impl Fn(&mut BytesMut) -> Result<Option<(F, usize, B)>, E>,
) {
    group.bench_function("redis-protocol, ranges", |bencher| {
        bencher.iter(|| {
            let mut rest = black_box(input);
            while let Some((frame, len)) = decode_range(rest).expect("RESP") {
                black_box(frame);
                rest = &rest[len..];
            }
        });
    });
    group.bench_function("redis-protocol, frames", |bencher| {
        bencher.iter_batched_ref(
            || BytesMut::from(input),
            |buffer| {
                while let Some((frame, ..)) = decode_bytes_mut(buffer).expect("RESP") {
                    black_box(frame);
                }
            },
            criterion::BatchSize::SmallInput,
        );
    });
}

fn group<'a>(
    criterion: &'a mut Criterion,
    name: String,
    input: &[u8],
) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes(input.len() as u64));
    group
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    group
}

fn command(args: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_command(args, &mut out);
    out
}

criterion_group!(benches, requests, replies);
criterion_main!(benches);
