//! Where a request ends and where its arguments are.
//!
//! [`scan_request`] looks at a buffer that holds the start of a frame; it is
//! what runs for every command. [`super::PartialRequest`] reads the same
//! language from pieces. What a header may say stands in `request_header`, once
//! for both.

use super::inline::is_space;
use super::number::whole_length;
use super::request_header::HeaderLine;
use super::{LINE_MAX, ProtocolError, RequestLimits};

/// The shortest argument on the wire: `$0\r\n\r\n`.
pub(super) const ARG_LEN_MIN: u64 = 6;

/// Where one argument's bytes are, relative to the start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Position of the first byte.
    pub start: u32,
    /// Position behind the last byte.
    pub end: u32,
}

impl Span {
    /// Length of the argument in bytes.
    #[inline]
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// True for an argument of no bytes.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The argument's bytes within the frame that was scanned.
    ///
    /// # Panics
    /// If `frame` is not the bytes that this span was made from.
    #[inline]
    pub fn of(self, frame: &[u8]) -> &[u8] {
        &frame[self.start as usize..self.end as usize]
    }
}

/// What begins at the start of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// More bytes are needed. The spans hold the arguments that are wholly there.
    Incomplete {
        /// Bytes from the start of the frame that are known to be required, more
        /// than there are. It grows as headers arrive; a client may announce
        /// anything, so reserve nothing for it.
        needed: u64,
    },
    /// A whole multibulk request, its arguments in the spans; at least one.
    Request {
        /// Length of the frame in bytes.
        len: usize,
        /// False when an argument is not followed by CRLF (Redis skips two bytes
        /// there without looking); such a request must be encoded anew before it
        /// is forwarded.
        canonical: bool,
    },
    /// A whole inline line that is not blank; [`super::inline::split`] takes it apart.
    Inline {
        /// Length of the line in bytes with its newline.
        len: usize,
    },
    /// Something that Redis swallows without a reply: a blank line, `*0`, `*-3`.
    Empty {
        /// Length of it in bytes.
        len: usize,
    },
}

/// Finds the request at the start of `input`, in one pass.
///
/// Clears `spans` and fills it with the arguments that are there; it grows by
/// what arrived, never by what a header announces. Input beyond 4 GiB is not
/// looked at: such a request is `Incomplete` and has to be streamed.
///
/// # Errors
/// As Redis, an error is found when the line with the mistake is complete; what
/// comes before it in the buffer is the caller's to answer first.
#[inline]
pub fn scan_request(
    input: &[u8],
    limits: &RequestLimits,
    spans: &mut Vec<Span>,
) -> Result<Scan, ProtocolError> {
    spans.clear();
    match input.first() {
        Some(b'*') => scan_multibulk(&input[..input.len().min(u32::MAX as usize)], limits, spans)
            .map(|scan| needing_more_than(input.len(), scan)),
        Some(_) => scan_inline(input),
        None => Ok(Scan::Incomplete { needed: 1 }),
    }
}

#[inline(always)]
fn needing_more_than(arrived: usize, scan: Scan) -> Scan {
    match scan {
        Scan::Incomplete { needed } => Scan::Incomplete {
            needed: needed.max(arrived as u64 + 1),
        },
        other => other,
    }
}

fn scan_multibulk(
    input: &[u8],
    limits: &RequestLimits,
    spans: &mut Vec<Span>,
) -> Result<Scan, ProtocolError> {
    let (args, mut at) = match count_header(input, limits)? {
        Some((0, len)) => return Ok(Scan::Empty { len }),
        Some(count) => count,
        None => return Ok(Scan::Incomplete { needed: 0 }),
    };
    let mut canonical = true;
    for args_behind in (0..args).rev() {
        let Some((len, start)) = bulk_header(input, at, limits)? else {
            return Ok(Scan::Incomplete {
                needed: at as u64 + (args_behind + 1) * ARG_LEN_MIN,
            });
        };
        let needed = start as u64 + len + 2;
        if needed > input.len() as u64 {
            return Ok(Scan::Incomplete {
                needed: needed + args_behind * ARG_LEN_MIN,
            });
        }
        at = needed as usize;
        // `scan_request` has cut the input to what a u32 can point into.
        spans.push(Span {
            start: start as u32,
            end: (at - 2) as u32,
        });
        canonical &= input[at - 2..at] == *b"\r\n";
    }
    Ok(Scan::Request { len: at, canonical })
}

/// The number of arguments and where the first begins, once that line is there.
#[inline(always)]
fn count_header(
    input: &[u8],
    limits: &RequestLimits,
) -> Result<Option<(u64, usize)>, ProtocolError> {
    match whole_length(input, 1) {
        Some((count, next)) if limits.args_are_fine(count) => Ok(Some((count, next))),
        _ => match read_header(input, 0, ProtocolError::CountTooBig)? {
            Some((line, next)) => Ok(Some((limits.args(line)?, next))),
            None => Ok(None),
        },
    }
}

/// The length of the argument whose header is at `at`, and where its bytes begin.
#[inline(always)]
fn bulk_header(
    input: &[u8],
    at: usize,
    limits: &RequestLimits,
) -> Result<Option<(u64, usize)>, ProtocolError> {
    if let Some(b'$') = input.get(at)
        && let Some((len, next)) = whole_length(input, at + 1)
        && limits.bulk_is_fine(len)
    {
        return Ok(Some((len, next)));
    }
    match read_header(input, at, ProtocolError::BulkHeaderTooBig)? {
        Some((line, next)) => Ok(Some((limits.bulk(line)?, next))),
        None => Ok(None),
    }
}

/// Reads the header line at `at` with care, and where the next thing begins.
/// `None` while its end has not come.
#[cold]
fn read_header(
    input: &[u8],
    at: usize,
    too_big: ProtocolError,
) -> Result<Option<(HeaderLine, usize)>, ProtocolError> {
    let mut line = HeaderLine::default();
    for (offset, &byte) in input[at..].iter().enumerate() {
        if line.push(byte, too_big)? {
            return Ok(Some((line, at + offset + 1)));
        }
    }
    Ok(None)
}

/// A line of words, a blank line, or too much without a newline.
fn scan_inline(input: &[u8]) -> Result<Scan, ProtocolError> {
    let line = &input[..input.len().min(LINE_MAX + 1)];
    match memchr::memchr(b'\n', line) {
        Some(newline) if line[..newline].iter().all(|&byte| is_space(byte)) => {
            Ok(Scan::Empty { len: newline + 1 })
        }
        Some(newline) => Ok(Scan::Inline { len: newline + 1 }),
        None if line.len() > LINE_MAX => Err(ProtocolError::InlineTooBig),
        None => Ok(Scan::Incomplete {
            needed: input.len() as u64 + 1,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RequestLimits = RequestLimits {
        bulk_max: 512 << 20,
        args_max: 1 << 20,
        unauthenticated: false,
    };

    fn scan(input: &[u8]) -> (Result<Scan, ProtocolError>, Vec<Vec<u8>>) {
        let mut spans = Vec::new();
        let result = scan_request(input, &LIMITS, &mut spans);
        (
            result,
            spans.iter().map(|span| span.of(input).to_vec()).collect(),
        )
    }

    #[test]
    fn a_request_ends_where_its_last_argument_does() {
        let (result, args) = scan(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n*1\r\n");
        assert_eq!(
            result,
            Ok(Scan::Request {
                len: 26,
                canonical: true
            })
        );
        assert_eq!(args, [&b"SET"[..], b"k", b""]);
    }

    #[test]
    fn two_bytes_behind_an_argument_are_skipped_whatever_they_are() {
        let (result, args) = scan(b"*2\r\n$3\r\nGETxx$1\r\nk\r\n");
        assert_eq!(
            result,
            Ok(Scan::Request {
                len: 20,
                canonical: false
            })
        );
        assert_eq!(args, [&b"GET"[..], b"k"]);
    }

    #[test]
    fn what_redis_swallows_is_empty() {
        for (input, len) in [
            (&b"\r\n"[..], 2),
            (b"\n*1\r\n", 1),
            (b"  \t\x0b \r\r\nPING\r\n", 8),
            (b"*0\r\n*", 4),
            (b"*-1\r\n", 5),
            (b"*-9223372036854775808\r\n", 23),
        ] {
            assert_eq!(scan(input).0, Ok(Scan::Empty { len }), "{input:?}");
        }
    }

    #[test]
    fn an_inline_line_counts_with_its_newline() {
        assert_eq!(scan(b" PING\r\nPING\r\n").0, Ok(Scan::Inline { len: 7 }));
        assert_eq!(scan(b"$3\r\n").0, Ok(Scan::Inline { len: 4 }));
    }

    #[test]
    fn a_large_request_is_announced_by_its_header() {
        let needed = |input: &[u8]| match scan(input) {
            (Ok(Scan::Incomplete { needed }), args) => (needed, args.len()),
            other => panic!("{other:?}"),
        };
        assert_eq!(needed(b""), (1, 0));
        assert_eq!(needed(b"PIN"), (4, 0));
        assert_eq!(needed(b"*"), (2, 0));
        assert_eq!(needed(b"*2\r\n"), (16, 0));
        assert_eq!(needed(b"*2\r\n$3"), (16, 0));
        assert_eq!(needed(b"*2\r\n$3\r\nGET"), (19, 0));
        assert_eq!(needed(b"*2\r\n$3\r\nGET\r\n"), (19, 1));
        assert_eq!(
            needed(b"*2\r\n$3\r\nGET\r\n$100000\r\n"),
            (13 + 9 + 100_002, 1)
        );
    }

    #[test]
    fn each_mistake_has_its_error() {
        use ProtocolError::*;
        for (input, error) in [
            (&b"*x\r\n"[..], InvalidMultibulkLength),
            (b"*\r\n", InvalidMultibulkLength),
            (b"*01\r\n", InvalidMultibulkLength),
            (b"*+1\r\n", InvalidMultibulkLength),
            (b"*-0\r\n", InvalidMultibulkLength),
            (b"*1 \r\n", InvalidMultibulkLength),
            (b"*1\0\r\n", InvalidMultibulkLength),
            (b"*2147483648\r\n", InvalidMultibulkLength),
            (b"*1048577\r\n", InvalidMultibulkLength),
            (b"*99999999999999999999\r\n", InvalidMultibulkLength),
            (b"*1\rx", InvalidLineEnd),
            (b"*0\rx", InvalidLineEnd),
            (b"*1\r\n$x\r\n", InvalidBulkLength),
            (b"*1\r\n$\r\n", InvalidBulkLength),
            (b"*1\r\n$04\r\n", InvalidBulkLength),
            (b"*1\r\n$-1\r\n", InvalidBulkLength),
            (b"*1\r\n$536870913\r\n", InvalidBulkLength),
            (b"*1\r\n$4\rx", InvalidLineEnd),
            (b"*1\r\nPING\r\n", ExpectedBulk { got: b'P' }),
            (b"*1\r\n\r\n", ExpectedBulk { got: b'\r' }),
            (b"*1\r\n\0\r\n", ExpectedBulk { got: 0 }),
        ] {
            assert_eq!(scan(input).0, Err(error), "{input:?}");
        }
    }

    #[test]
    fn a_mistake_is_not_judged_before_its_line_has_come() {
        for input in [&b"*x"[..], b"*x\r", b"*1\r\nPING", b"*1\r\n$-1\r", b"*01"] {
            assert!(
                matches!(scan(input).0, Ok(Scan::Incomplete { .. })),
                "{input:?}"
            );
        }
    }

    #[test]
    fn a_line_ends_within_64_kib() {
        let long = |start: &str, len: usize, end: &str| {
            let filler = "1".repeat(len - start.len());
            [start, &filler, end].concat().into_bytes()
        };
        for (start, end, error) in [
            ("", "\n", ProtocolError::InlineTooBig),
            ("*", "\r\n", ProtocolError::CountTooBig),
        ] {
            assert!(matches!(
                scan(&long(start, LINE_MAX, "")).0,
                Ok(Scan::Incomplete { .. })
            ));
            assert_ne!(scan(&long(start, LINE_MAX, end)).0, Err(error));
            assert_eq!(scan(&long(start, LINE_MAX + 1, "")).0, Err(error));
            assert_eq!(scan(&long(start, LINE_MAX + 1, end)).0, Err(error));
        }
        let bulk = |len: usize| [b"*1\r\n".to_vec(), long("$", len, "")].concat();
        assert!(matches!(
            scan(&bulk(LINE_MAX)).0,
            Ok(Scan::Incomplete { .. })
        ));
        assert_eq!(
            scan(&bulk(LINE_MAX + 1)).0,
            Err(ProtocolError::BulkHeaderTooBig)
        );
    }

    #[test]
    fn who_has_not_logged_in_may_send_little() {
        let limits = RequestLimits {
            unauthenticated: true,
            ..LIMITS
        };
        let scan = |input: &[u8]| scan_request(input, &limits, &mut Vec::new());
        assert!(matches!(scan(b"*10\r\n"), Ok(Scan::Incomplete { .. })));
        assert_eq!(
            scan(b"*11\r\n"),
            Err(ProtocolError::UnauthenticatedMultibulkLength)
        );
        assert_eq!(
            scan(b"*2147483648\r\n"),
            Err(ProtocolError::InvalidMultibulkLength)
        );
        assert!(matches!(
            scan(b"*1\r\n$16384\r\n"),
            Ok(Scan::Incomplete { .. })
        ));
        assert_eq!(
            scan(b"*1\r\n$16385\r\n"),
            Err(ProtocolError::UnauthenticatedBulkLength)
        );
    }
}
