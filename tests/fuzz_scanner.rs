//! A fuzzer that runs with the other tests: valid frames, spoilt here and there, cut anywhere.
//!
//! It needs no nightly compiler; `fuzz/` holds the coverage-guided one. A run prints its seed:
//! `WEIR_TEST_SEED=… cargo test --test fuzz_scanner` repeats it, and
//! `WEIR_FUZZ_ITERATIONS` makes it longer.

mod resp_oracle;

use resp_oracle::{LIMITS, Rng, check_replies, check_requests, check_value};
use weir::resp::RequestLimits;

/// Inputs of each kind; about two seconds in a debug build.
const ITERATIONS: usize = 20_000;

/// Most frames in one input.
const FRAMES_MAX: usize = 5;

#[test]
fn requests_are_framed_the_same_however_they_arrive() {
    let mut rng = Rng::from_environment("requests");
    let unauthenticated = RequestLimits {
        unauthenticated: true,
        ..LIMITS
    };
    for _ in 0..iterations() {
        let mut input = Vec::new();
        for _ in 0..rng.below(FRAMES_MAX) + 1 {
            request(&mut rng, &mut input);
        }
        mutate(&mut rng, &mut input);
        let limits = if rng.once_in(4) {
            &unauthenticated
        } else {
            &LIMITS
        };
        check_requests(&input, limits, &sizes(&mut rng));
    }
}

#[test]
fn replies_are_framed_the_same_however_they_arrive() {
    let mut rng = Rng::from_environment("replies");
    for _ in 0..iterations() {
        let mut input = Vec::new();
        for _ in 0..rng.below(FRAMES_MAX) + 1 {
            reply(&mut rng, &mut input, 3);
        }
        mutate(&mut rng, &mut input);
        check_replies(&input, &sizes(&mut rng));
    }
}

#[test]
fn noise_harms_nobody() {
    let mut rng = Rng::from_environment("noise");
    for _ in 0..iterations() {
        let input: Vec<u8> = (0..rng.below(64)).map(|_| noise(&mut rng)).collect();
        check_requests(&input, &LIMITS, &sizes(&mut rng));
        check_replies(&input, &sizes(&mut rng));
        check_value(&input);
    }
}

fn iterations() -> usize {
    match std::env::var("WEIR_FUZZ_ITERATIONS") {
        Ok(number) => number.parse().expect("WEIR_FUZZ_ITERATIONS is a number"),
        Err(_) => ITERATIONS,
    }
}

fn sizes(rng: &mut Rng) -> Vec<usize> {
    (0..rng.below(4) + 1).map(|_| rng.below(12) + 1).collect()
}

/// A byte that a parser may trip over, more often than not.
fn noise(rng: &mut Rng) -> u8 {
    const TELLING: &[u8] = b"*$+-:_,#(!=%~>|;.?\r\n\r\n\r\n0123456789 \"'\\x\0\t";
    if rng.once_in(6) {
        rng.next() as u8
    } else {
        rng.pick(TELLING)
    }
}

fn request(rng: &mut Rng, out: &mut Vec<u8>) {
    match rng.below(8) {
        0 => out.extend_from_slice(rng.pick(&[
            &b"PING\r\n"[..],
            b"set \"a b\" 'c'\n",
            b"\r\n",
            b" \t\n",
            b"*0\r\n",
            b"*-1\r\n",
        ])),
        // At the limits and just beyond; the argument itself seldom follows.
        1 => out.extend_from_slice(rng.pick(&[
            &b"*10\r\n"[..],
            b"*11\r\n",
            b"*1048576\r\n",
            b"*1048577\r\n",
            b"*1\r\n$16384\r\n",
            b"*1\r\n$16385\r\n",
            b"*1\r\n$1048576\r\n",
            b"*1\r\n$1048577\r\n",
        ])),
        _ => {
            let args: Vec<Vec<u8>> = (0..rng.below(12) + 1).map(|_| bytes(rng)).collect();
            weir::resp::encode_command(&args, out);
        }
    }
}

fn reply(rng: &mut Rng, out: &mut Vec<u8>, depth: usize) {
    let kinds: &[u8] = if depth == 0 {
        b"+-:_,#($!="
    } else {
        b"+-:_,#($!=$$$N*%~>|*S"
    };
    match rng.pick(kinds) {
        b'N' => out.extend_from_slice(rng.pick(&[&b"$-1\r\n"[..], b"*-1\r\n"])),
        b'S' => streamed(rng, out, depth),
        kind @ (b'$' | b'!' | b'=') => {
            let content = bytes(rng);
            let format: &[u8] = if kind == b'=' { b"txt:" } else { b"" };
            header(kind, format.len() + content.len(), out);
            out.extend_from_slice(format);
            out.extend_from_slice(&content);
            out.extend_from_slice(b"\r\n");
        }
        kind @ (b'*' | b'~' | b'>' | b'%' | b'|') => {
            let len = rng.below(4);
            header(kind, len, out);
            let values = if matches!(kind, b'%' | b'|') {
                2 * len
            } else {
                len
            };
            for _ in 0..values {
                reply(rng, out, depth - 1);
            }
            if kind == b'|' {
                reply(rng, out, depth - 1);
            }
        }
        kind => {
            out.push(kind);
            let content: &[u8] = match kind {
                b':' => b"-12",
                b'_' => b"",
                b',' => rng.pick(&[&b"1.5"[..], b"inf", b"-inf", b"nan", b"-1.5", b"1e300"]),
                b'#' => b"t",
                b'(' => b"123456789012345678901234567890",
                _ => rng.pick(&[
                    &b"OK"[..],
                    b"",
                    b"lone \r or \n inside",
                    b"\xff longer than the short look",
                ]),
            };
            out.extend_from_slice(content);
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn streamed(rng: &mut Rng, out: &mut Vec<u8>, depth: usize) {
    let kind = rng.pick(b"$*~%");
    out.extend_from_slice(&[kind, b'?', b'\r', b'\n']);
    for _ in 0..rng.below(3) {
        match kind {
            b'$' => {
                let chunk = [&b"x"[..], &bytes(rng)].concat();
                header(b';', chunk.len(), out);
                out.extend_from_slice(&chunk);
                out.extend_from_slice(b"\r\n");
            }
            b'%' => {
                reply(rng, out, depth - 1);
                reply(rng, out, depth - 1);
            }
            _ => reply(rng, out, depth - 1),
        }
    }
    out.extend_from_slice(if kind == b'$' { b";0\r\n" } else { b".\r\n" });
}

fn header(kind: u8, len: usize, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(len.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn bytes(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(10) {
        0 => 0,
        1 => rng.below(200),
        _ => rng.below(9),
    };
    (0..len).map(|_| noise(rng)).collect()
}

/// Spoils the input in none to three places.
fn mutate(rng: &mut Rng, input: &mut Vec<u8>) {
    for _ in 0..rng.below(4) {
        if input.is_empty() {
            return;
        }
        let at = rng.below(input.len());
        match rng.below(6) {
            0 => input[at] = noise(rng),
            1 => input[at] ^= 1 << rng.below(8),
            2 => input.insert(at, noise(rng)),
            3 => drop(input.remove(at)),
            4 => input.truncate(at),
            _ => {
                let end = (at + 1 + rng.below(8)).min(input.len());
                let copy = input[at..end].to_vec();
                input.splice(at..at, copy);
            }
        }
    }
}
