//! Requests framed by `weir::resp` and by a real Redis: the same frames, the same errors.
//!
//! Redis shows what it framed by what it answers: the raw bytes must get the same replies as the
//! frames that the scanner found in them, sent one by one in canonical form, followed by the
//! scanner's error if it ended with one.
//!
//! Weir follows Redis. Valkey 9 has parted from it in places, which are left out when it is the
//! server: it lets text follow a closing quote, wants CRLF wherever it belongs, and loses 0xff
//! from inline requests.

mod resp_oracle;
mod support;

use std::io::Read;

use resp_oracle::Rng;
use support::{RawClient, RedisServer};
use weir::resp::{
    LINE_MAX, ProtocolError, RequestLimits, Scan, encode_command, inline, scan_request,
};

const LIMITS: RequestLimits = RequestLimits {
    bulk_max: 512 << 20,
    args_max: i32::MAX as u64,
    unauthenticated: false,
};

#[test]
fn every_protocol_error_reads_as_redis_writes_it() {
    let redis = RedisServer::start();
    let long = |start: &str, len: usize| [start, &"1".repeat(len)].concat();
    for (input, error) in [
        ("ECHO \"a\r\n", ProtocolError::UnbalancedQuotes),
        (&long("", LINE_MAX + 1), ProtocolError::InlineTooBig),
        (&long("*", LINE_MAX), ProtocolError::CountTooBig),
        (&long("*1\r\n$", LINE_MAX), ProtocolError::BulkHeaderTooBig),
        (&long("*1\r\nx", LINE_MAX), ProtocolError::BulkHeaderTooBig),
        ("*x\r\n", ProtocolError::InvalidMultibulkLength),
        ("*\r\n", ProtocolError::InvalidMultibulkLength),
        ("*01\r\n", ProtocolError::InvalidMultibulkLength),
        ("*+1\r\n", ProtocolError::InvalidMultibulkLength),
        ("*-0\r\n", ProtocolError::InvalidMultibulkLength),
        ("*1 \r\n", ProtocolError::InvalidMultibulkLength),
        ("*2147483648\r\n", ProtocolError::InvalidMultibulkLength),
        (
            "*-9223372036854775809\r\n",
            ProtocolError::InvalidMultibulkLength,
        ),
        ("*1\r\n$x\r\n", ProtocolError::InvalidBulkLength),
        ("*1\r\n$\r\n", ProtocolError::InvalidBulkLength),
        ("*1\r\n$04\r\n", ProtocolError::InvalidBulkLength),
        ("*1\r\n$-1\r\n", ProtocolError::InvalidBulkLength),
        ("*1\r\n$536870913\r\n", ProtocolError::InvalidBulkLength),
        ("*1\r\nPING\r\n", ProtocolError::ExpectedBulk { got: b'P' }),
        ("*1\r\n\r\n", ProtocolError::ExpectedBulk { got: b'\r' }),
        ("*1\r\n\nx\r\n", ProtocolError::ExpectedBulk { got: b'\n' }),
        ("*1\r\n'\r\n", ProtocolError::ExpectedBulk { got: b'\'' }),
    ] {
        let (_, end) = frames(input.as_bytes(), &LIMITS);
        assert_eq!(end, Some(error), "{:.80}", input.escape_debug());
        expect_same(&redis, input.as_bytes(), &LIMITS);
    }
    expect_same(&redis, b"*1\r\n\xff\r\n", &LIMITS);
    if !redis.is_valkey() {
        expect_same(&redis, b"ECHO \"a\"b\r\n", &LIMITS);
        expect_same(&redis, b"ECHO 'a'b\r\n", &LIMITS);
    }
}

#[test]
fn who_has_not_logged_in_is_refused_as_by_redis() {
    let redis = RedisServer::with(&["--requirepass", "secret"]);
    let limits = RequestLimits {
        unauthenticated: true,
        ..LIMITS
    };
    for input in [
        "*10\r\n",
        "*11\r\n",
        "*2147483648\r\n",
        "*1\r\n$16384\r\n",
        "*1\r\n$16385\r\n",
        "*1\r\n$536870913\r\n",
    ] {
        expect_same(&redis, input.as_bytes(), &limits);
    }
}

#[test]
fn odd_but_valid_requests_are_framed_as_by_redis() {
    let redis = RedisServer::start();
    for input in [
        &b"*0\r\nPING\r\n"[..],
        b"*-5\r\nPING\r\n",
        b"*-9223372036854775808\r\nPING\r\n",
        b"\r\n\n \t\x0b\x0c\r\n\r\r\nPING\r\n",
        b"\x0bECHO \"a\\x41\\n\\\"\" \r\n",
        b"ECHO a\x0bb\r\n",
        b"ECHO 'it\\'s'\nECHO \"\"\nECHO fo\"o bar\"\n",
        b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\nPING\n",
        b"*2\r\n$4\r\nECHO\r\n$6\r\n\r\n*1\r\n\r\n",
        b"PING\r\n*1\r\n$4\r\nPING\r\n*x\r\nPING\r\n",
        b"*2\r\n$4\r\nECHO\r\n$5\r\nabc",
        b"*1048576\r\n",
        b"*1\r\n$536870912\r\n",
        b"$4\r\nPING\r\n",
    ] {
        expect_same(&redis, input, &LIMITS);
    }
    if !redis.is_valkey() {
        expect_same(&redis, b"*1\r\n$4\r\nPINGxxPING\r\n", &LIMITS);
        expect_same(&redis, b"ECHO \"a\"\x0b\n", &LIMITS);
        expect_same(&redis, b"ECHO \xff\r\n", &LIMITS);
    }
    if redis.version() >= (7, 0) {
        expect_same(&redis, b"*2147483647\r\n", &LIMITS);
    }
}

#[test]
fn spoilt_requests_are_framed_as_by_redis() {
    /// Enough to meet each rule several times in about two seconds.
    const ITERATIONS: usize = 1_500;
    let redis = RedisServer::start();
    if redis.is_valkey() {
        println!("left out: what is spoilt is what Valkey reads differently");
        return;
    }
    let mut rng = Rng::from_environment("spoilt requests");
    for _ in 0..ITERATIONS {
        let mut input = Vec::new();
        for _ in 0..rng.below(4) + 1 {
            input.extend_from_slice(rng.pick(&[
                &b"*1\r\n$4\r\nPING\r\n"[..],
                b"*2\r\n$4\r\nECHO\r\n$3\r\na\"b\r\n",
                b"*2\r\n$4\r\nECHO\r\n$12\r\n*1\r\n$4\r\nPING\r\n",
                b"ECHO \"a b\\x41\" \r\n",
                b"ECHO 'c'\n",
                b"PING\r\n",
                b"*0\r\n",
                b"\r\n",
            ]));
        }
        for _ in 0..rng.below(4) {
            let at = rng.below(input.len());
            match rng.below(3) {
                0 => input[at] = rng.pick(b"*$-+0123 \"'\\\nx"),
                1 => input.insert(at, rng.pick(b"*$-+0123 \"'\\\nx")),
                2 if input.len() > 1 => drop(input.remove(at)),
                _ => {}
            }
        }
        // Redis takes any byte behind the CR of a header; Weir does not.
        if !input
            .windows(2)
            .any(|pair| pair[0] == b'\r' && pair[1] != b'\n')
        {
            expect_same(&redis, &input, &LIMITS);
        }
    }
}

/// The arguments of each frame that has some, and the error that ended the input.
fn frames(input: &[u8], limits: &RequestLimits) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
    let mut found = Vec::new();
    let mut spans = Vec::new();
    let mut rest = input;
    loop {
        let len = match scan_request(rest, limits, &mut spans) {
            Err(error) => return (found, Some(error)),
            Ok(Scan::Incomplete { .. }) => return (found, None),
            Ok(Scan::Empty { len }) => len,
            Ok(Scan::Request { len, .. }) => {
                found.push(spans.iter().map(|span| span.of(rest).to_vec()).collect());
                len
            }
            Ok(Scan::Inline { len }) => match inline::split(&rest[..len]) {
                Ok(args) => {
                    found.push(args);
                    len
                }
                Err(error) => return (found, Some(error)),
            },
        };
        rest = &rest[len..];
    }
}

fn expect_same(redis: &RedisServer, input: &[u8], limits: &RequestLimits) {
    let (requests, error) = frames(input, limits);
    let mut canonical = Vec::new();
    requests
        .iter()
        .for_each(|args| encode_command(args, &mut canonical));
    let mut expected = replies(redis, &canonical);
    if let Some(error) = error {
        error.write_reply(&mut expected);
    }
    let got = replies(redis, input);
    assert!(
        got == expected,
        "\"{}\"\nexpected \"{}\"\n     got \"{}\"",
        input.escape_ascii(),
        expected.escape_ascii(),
        got.escape_ascii()
    );
}

/// All that Redis answers to these bytes and the end of the stream.
fn replies(redis: &RedisServer, input: &[u8]) -> Vec<u8> {
    let mut client = RawClient::connect(redis.address());
    client.send(input);
    client.half_close();
    let mut replies = Vec::new();
    client
        .stream()
        .read_to_end(&mut replies)
        .expect("Redis closes when it has answered");
    replies
}
