//! How the bytes are cut on their way changes nothing.

use std::net::SocketAddr;

use super::compare::{Heard, Pair, hear};
use super::support::{RawClient, encode};

/// Requests of every form, their replies told apart by what they echo.
fn mixture(pair: &Pair) -> Vec<u8> {
    let mut input = encode(&["SET", "key", "a\r\nb"]);
    input.extend(b"ECHO \"in line\"\r\n");
    input.extend(encode(&["GET", "key"]));
    input.extend(b"*0\r\n\r\n");
    if !pair.redis.is_valkey() {
        // Valkey wants a line end behind each argument.
        input.extend(b"*2\r\n$4\r\nECHOxx$3\r\n$5\rxx");
    }
    input.extend(encode(&["MULTI"]));
    input.extend(encode(&["INCR", "n"]));
    input.extend(encode(&["EXEC"]));
    input.extend(encode(&["nosuch"]));
    input.extend(b"PING\n");
    input.extend(encode(&["DEL", "key", "n"]));
    input
}

/// As [`hear`], but the input goes out in pieces, and between two of them the server
/// answers somebody else, so that it has read the first before the second is there.
fn hear_in_pieces(address: SocketAddr, pieces: &[&[u8]]) -> Heard {
    let mut client = RawClient::connect(address);
    let mut other = RawClient::connect(address);
    for piece in pieces {
        client.send(piece);
        other.expect_command(&["PING"], "+PONG\r\n");
    }
    client.send(encode(&["QUIT"]));
    let mut bytes = Vec::new();
    loop {
        let some = client.read_some().expect("an orderly end");
        if some.is_empty() {
            return Heard {
                bytes,
                closed: true,
            };
        }
        bytes.extend(some);
    }
}

fn whole(address: SocketAddr, input: &[u8]) -> Heard {
    let mut heard = hear(address, input);
    heard.bytes.extend(b"+OK\r\n");
    heard.closed = true;
    heard
}

#[test]
fn a_request_may_be_cut_at_any_byte() {
    let pair = Pair::with(&[], "[process]\nworkers = 1");
    let input = mixture(&pair);
    let expected = whole(pair.redis.address(), &input);
    for cut in 0..=input.len() {
        let (start, end) = input.split_at(cut);
        let heard = hear_in_pieces(pair.weir.address(), &[start, end]);
        assert_eq!(heard, expected, "cut behind \"{}\"", start.escape_ascii());
    }
}

#[test]
fn requests_may_come_one_byte_at_a_time() {
    let pair = Pair::with(&[], "[process]\nworkers = 1");
    let input = mixture(&pair);
    let pieces: Vec<_> = input.chunks(1).collect();
    let heard = hear_in_pieces(pair.weir.address(), &pieces);
    assert_eq!(heard, whole(pair.redis.address(), &input));
}

#[test]
fn a_mistake_is_found_however_it_is_cut() {
    let pair = Pair::with(&[], "[process]\nworkers = 1");
    for input in [
        &b"*x\r\n"[..],
        b"*1\r\n$x\r\n",
        b"*1\r\nPING\r\n",
        b"*2\r\n$4\r\nECHO\r\n$-1\r\n",
        b"ECHO \"a\r\n",
    ] {
        let expected = pair.same(input);
        for cut in 0..input.len() {
            let mut client = pair.weir.client();
            let mut other = pair.weir.client();
            client.send(encode(&["ECHO", "first"]));
            client.send(&input[..cut]);
            other.expect_command(&["PING"], "+PONG\r\n");
            client.send(&input[cut..]);
            client.expect([b"$5\r\nfirst\r\n".as_slice(), &expected.bytes].concat());
            client.expect_closed();
        }
    }
}

#[test]
fn a_thousand_requests_cut_into_pieces_of_any_size() {
    let pair = Pair::with(&[], "[process]\nworkers = 1");
    let mut input = Vec::new();
    for number in 0..1000 {
        input.extend(encode(&["ECHO", &"x".repeat(number % 97)]));
    }
    let expected = whole(pair.redis.address(), &input);
    for size in [7, 31, 97, 1021, 16_384, 65_536] {
        let pieces: Vec<_> = input.chunks(size).collect();
        assert_eq!(
            hear_in_pieces(pair.weir.address(), &pieces),
            expected,
            "pieces of {size}"
        );
    }
}
