//! What is not the protocol, or only just: COMMANDS.md 1.10, row by row.

use super::compare::Pair;
use super::support::encode;

const MIB: usize = 1024 * 1024;

/// Requests that Redis swallows, refuses or closes on, each small enough to be read at once.
const ODD: &[&[u8]] = &[
    // Nothing at all.
    b"\r\n",
    b"\n",
    b"\n\n\r\n",
    b"   \t \r\n",
    b"\x0b\x0c \r\n",
    b"*0\r\n",
    b"*-1\r\n",
    b"*-5\r\n",
    b"*-9223372036854775808\r\n",
    b"*0\r\n*0\r\n\r\n*-1\r\n",
    // Counts.
    b"*x\r\n",
    b"*\r\n",
    b"*01\r\n",
    b"*+1\r\n",
    b"*-0\r\n",
    b"* 1\r\n",
    b"*1 \r\n",
    b"*1a\r\n",
    b"*2147483648\r\n",
    b"*99999999999999999999\r\n",
    b"*-9223372036854775809\r\n",
    // Lengths.
    b"*1\r\n$x\r\n",
    b"*1\r\n$\r\n",
    b"*1\r\n$04\r\nPING\r\n",
    b"*1\r\n$+4\r\nPING\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$-5\r\n",
    b"*1\r\n$ 4\r\nPING\r\n",
    b"*1\r\n$4 \r\nPING\r\n",
    b"*1\r\n$536870913\r\n",
    b"*1\r\n$99999999999999999999\r\n",
    b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$-1\r\n",
    // Not a bulk string.
    b"*1\r\nPING\r\n",
    b"*1\r\n:1\r\n",
    b"*1\r\n*1\r\n$4\r\nPING\r\n",
    b"*1\r\n\r\n",
    b"*1\r\n\xff\r\n",
    b"*2\r\n$4\r\nECHO\r\n+x\r\n",
    b"*2\r\n$4\r\nECHO\r\n%1\r\n",
    // Two bytes behind an argument, whatever they are.
    b"*2\r\n$4\r\nECHOxx$1\r\nk\r\n",
    b"*2\r\n$4\r\nECHO\n\n$1\r\nkxx",
    b"*1\r\n$4\r\nPING\0\0",
    b"*3\r\n$3\r\nSET\r\n$4\r\nodd1xy$5\r\nvalueab*2\r\n$3\r\nGET\r\n$4\r\nodd1\r\n",
    b"*2\r\n$4\r\nECHO\r\n$4\r\nPINGPING\r\n",
    // Arguments of no bytes.
    b"*1\r\n$0\r\n\r\n",
    b"*2\r\n$0\r\n\r\n$4\r\nPING\r\n",
    b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n",
    b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$0\r\n\r\n*2\r\n$3\r\nGET\r\n$0\r\n\r\n",
    // Line breaks and what looks like replies in arguments.
    b"*2\r\n$4\r\nECHO\r\n$11\r\n+OK\r\n*1\r\n$4\r\n",
    b"*1\r\n$7\r\nno\r\nway\r\n",
    b"*2\r\n$3\r\nnah\r\n$6\r\na\r\n-ER\r\n",
    // Closed without a word.
    b"POST / HTTP/1.1\r\n",
    b"Host: example.org\r\n",
    b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
    b"*1\r\n$4\r\nPOST\r\n",
    b"*2\r\n$5\r\nhost:\r\n$1\r\nx\r\n",
    b"post\r\n",
    // Other protocols.
    b"SSH-2.0-OpenSSH_9.2p1\r\n",
    // Replies.
    b"+OK\r\n",
    b"-ERR x\r\n",
    b":1\r\n",
    b"$4\r\nPING\r\n",
    b"%1\r\n+a\r\n+b\r\n",
    b">1\r\n+a\r\n",
    // Unbalanced quotes.
    b"ECHO \"a\r\n",
    b"ECHO 'a\r\n",
    b"\"\r\n",
    // Unknown and wrong.
    b"*1\r\n$3\r\nfoo\r\n",
    b"*1\r\n$3\r\nget\r\n",
    b"*4\r\n$3\r\nget\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n",
];

#[test]
fn what_is_odd_is_answered_as_redis_answers_it() {
    let pair = Pair::start();
    for input in ODD {
        pair.same(input);
    }
}

#[test]
fn replies_to_earlier_commands_come_before_the_error() {
    let pair = Pair::start();
    let mut before = encode(&["SET", "key", "value"]);
    before.extend(encode(&["GET", "key"]));
    before.extend(b"PING\r\n");
    before.extend(encode(&["INCR", "key"]));
    for input in ODD {
        // Behind these words Redis loses replies that it had not written yet, and so may Weir.
        let lower = input.to_ascii_lowercase();
        if lower.starts_with(b"post")
            || lower
                .windows(5)
                .any(|word| word == b"host:" || word == b"\npost")
        {
            continue;
        }
        pair.same([before.as_slice(), input].concat());
    }
}

#[test]
fn whatever_follows_an_error_is_not_looked_at() {
    let pair = Pair::start();
    for input in ODD {
        pair.same([input, encode(&["INCR", "counter"]).as_slice()].concat());
    }
    assert_eq!(
        pair.redis.command(&["GET", "counter"]),
        pair.behind.command(&["GET", "counter"])
    );
}

#[test]
fn one_client_s_nonsense_does_not_reach_another_s_connection() {
    let pair = Pair::start();
    let mut other = pair.weir.client();
    for (round, input) in ODD.iter().enumerate() {
        let word = round.to_string();
        other.send(encode(&["ECHO", &word]));
        pair.same(input);
        other.expect(format!("${}\r\n{word}\r\n", word.len()));
    }
}

#[test]
fn a_line_without_an_end_is_too_long_at_64_kib() {
    let pair = Pair::start();
    let long = |start: &str| [start.as_bytes(), &vec![b'1'; 64 * 1024 + 1]].concat();
    for start in ["", "PING", "*", "*1\r\n$", "*2\r\n$4\r\nECHO\r\n$"] {
        let heard = pair.same_close(long(start));
        assert!(heard.closed && heard.bytes.starts_with(b"-ERR Protocol error: too big"));
    }
}

#[test]
fn the_largest_count_is_waited_for_and_not_made_room_for() {
    let pair = Pair::with(&[], "[process]\nworkers = 1");
    let before = pair.weir.resident_bytes();
    let mut clients: Vec<_> = (0..50).map(|_| pair.weir.client()).collect();
    // Redis 6.2 takes no more arguments than this.
    let count = match pair.redis.compatible_version() < (7, 0) {
        true => 1024 * 1024,
        false => i32::MAX,
    };
    for client in &mut clients {
        client.send(format!("*{count}\r\n$4\r\nECHO\r\n$536870912\r\n"));
    }
    // Its worker has read all of that when it has answered somebody who came later.
    let mut other = pair.weir.client();
    other.expect_command(&["PING"], "+PONG\r\n");
    for client in &mut clients {
        client.expect_nothing_pending();
    }
    let grown = pair.weir.resident_bytes().saturating_sub(before);
    assert!(grown < 20 * MIB, "{grown} bytes for nothing");
}

#[test]
fn an_argument_longer_than_the_server_takes_is_refused_here() {
    let pair = Pair::with(&["--proto-max-bulk-len", "1mb"], "");
    let header = |bytes: usize| format!("*2\r\n$4\r\nECHO\r\n${bytes}\r\n");
    let heard = pair.same(header(MIB + 1));
    assert_eq!(heard.bytes, b"-ERR Protocol error: invalid bulk length\r\n");
    pair.same(encode(&[b"ECHO".as_slice(), &vec![b'x'; MIB]]));
    // The limit follows the server's when it is changed through Weir.
    for server in [pair.redis.address(), pair.weir.address()] {
        let mut client = super::support::RawClient::connect(server);
        client.expect_command(&["CONFIG", "SET", "proto-max-bulk-len", "2mb"], "+OK\r\n");
    }
    pair.same(encode(&[b"ECHO".as_slice(), &vec![b'x'; 2 * MIB]]));
    pair.same(header(2 * MIB + 1));
}

/// To Valkey 9 a closing quote need not end the word. Weir reads lines as Redis does.
#[test]
fn a_closing_quote_ends_the_word() {
    let pair = Pair::start();
    let heard = super::compare::hear(pair.weir.address(), b"ECHO \"a\"b\r\n");
    assert_eq!(
        heard.bytes,
        b"-ERR Protocol error: unbalanced quotes in request\r\n"
    );
    if !pair.redis.is_valkey() {
        pair.same(b"ECHO \"a\"b\r\n");
    }
}

/// Where Weir differs on purpose: Redis does not look at the byte behind the CR of a header,
/// so that what is one request to it may be another to the next reader.
#[test]
fn a_header_line_ends_with_cr_and_lf() {
    let pair = Pair::start();
    for input in [
        &b"*1\rx"[..],
        b"*1\r$4\r\nPING\r\n",
        b"*1\r\n$4\rxPING\r\n",
        b"*0\r*0\r",
    ] {
        let heard = super::compare::hear(pair.weir.address(), input);
        assert_eq!(
            heard.bytes,
            b"-ERR Protocol error: invalid CRLF in request\r\n",
            "{}",
            input.escape_ascii()
        );
        assert!(heard.closed);
    }
}

/// Where Weir differs on purpose: Redis takes a line that is longer if its end happens to
/// be there when it looks; Weir measures the line, so that timing decides nothing.
#[test]
fn a_line_longer_than_64_kib_is_too_long_even_with_an_end() {
    let pair = Pair::start();
    let line = |len: usize| {
        let mut line = b"ECHO ".to_vec();
        line.resize(len, b'x');
        line.extend(b"\r\n");
        line
    };
    pair.same(line(64 * 1024 - 1));
    let heard = super::compare::hear(pair.weir.address(), &line(64 * 1024 + 1));
    assert_eq!(
        heard.bytes,
        b"-ERR Protocol error: too big inline request\r\n"
    );
    assert!(heard.closed);
}

/// Where Weir differs on purpose: Redis never sees the end of a line behind a NUL and waits.
#[test]
fn a_nul_in_a_line_is_a_byte_like_any_other() {
    let pair = Pair::start();
    let hear = |input: &[u8]| super::compare::hear(pair.weir.address(), input).bytes;
    assert_eq!(hear(b"ECHO a\0b\r\n"), b"$3\r\na\0b\r\n");
    assert_eq!(
        hear(b"*1\0\r\n"),
        b"-ERR Protocol error: invalid multibulk length\r\n"
    );
    assert_eq!(
        hear(b"*1\r\n$1\0\r\n"),
        b"-ERR Protocol error: invalid bulk length\r\n"
    );
}
