//! What must hold for requests.

use redis_protocol::resp2::decode::decode_range;
use redis_protocol::resp2::types::RangeFrame;
use weir::resp::{PartialRequest, ProtocolError, RequestLimits, Scan, Span, scan_request};

use super::{End, Framing, pieces};

/// Redis's limits, but for the size of an argument: small enough that the limit is met.
pub const LIMITS: RequestLimits = RequestLimits {
    bulk_max: 1 << 20,
    args_max: 1 << 20,
    unauthenticated: false,
};

/// Frames longer than this are not scanned once for each of their prefixes.
const PREFIXES_MAX: usize = 600;

/// Checks all rules on one input, cut into pieces of `sizes` among other ways.
pub fn check_requests(input: &[u8], limits: &RequestLimits, sizes: &[usize]) {
    let whole = request_frames(input, limits);
    for sizes in [&[usize::MAX][..], &[1], sizes] {
        let in_pieces = frames_in_pieces(input, limits, sizes);
        assert_eq!(
            in_pieces,
            whole,
            "pieces of {sizes:?}: {}",
            input.escape_ascii()
        );
    }
    let mut rest = input;
    for &len in &whole.frames {
        check_prefixes(&rest[..len], limits);
        check_against_oracle(&rest[..len], limits);
        rest = &rest[len..];
    }
    check_prefixes(rest, limits);
}

/// The frames that [`scan_request`] finds one behind the other.
pub fn request_frames(input: &[u8], limits: &RequestLimits) -> Framing<ProtocolError> {
    let mut frames = Vec::new();
    let mut spans = Vec::new();
    let mut at = 0;
    let end = loop {
        let rest = &input[at..];
        let len = match scan_request(rest, limits, &mut spans) {
            Err(error) => break End::Error(error),
            Ok(Scan::Incomplete { needed }) => {
                assert!(needed > rest.len() as u64, "{}", input.escape_ascii());
                break if rest.is_empty() {
                    End::AtBoundary
                } else {
                    End::Within
                };
            }
            Ok(Scan::Request { len, .. }) => {
                assert!(!spans.is_empty());
                len
            }
            Ok(Scan::Inline { len } | Scan::Empty { len }) => {
                assert!(spans.is_empty());
                len
            }
        };
        frames.push(len);
        at += len;
    };
    Framing { frames, end }
}

fn frames_in_pieces(
    input: &[u8],
    limits: &RequestLimits,
    sizes: &[usize],
) -> Framing<ProtocolError> {
    let mut frames = Vec::new();
    let mut request = PartialRequest::default();
    let mut len = 0;
    for mut piece in pieces(input, sizes) {
        while !piece.is_empty() {
            let fed = match request.feed(piece, limits) {
                Ok(fed) => fed,
                Err(error) => {
                    return Framing {
                        frames,
                        end: End::Error(error),
                    };
                }
            };
            len += fed.consumed;
            piece = &piece[fed.consumed..];
            if fed.complete {
                assert_eq!(fed.needed, len as u64);
                assert!(request.at_boundary());
                frames.push(len);
                len = 0;
            } else {
                assert!(piece.is_empty() && fed.needed > len as u64);
            }
        }
    }
    assert_eq!(request.at_boundary(), len == 0);
    let end = if len == 0 {
        End::AtBoundary
    } else {
        End::Within
    };
    Framing { frames, end }
}

/// Scanned after each byte that arrives, a frame is incomplete until its last, never asks for
/// more than it turns out to have, and shows only arguments that stay.
fn check_prefixes(frame: &[u8], limits: &RequestLimits) {
    if frame.len() > PREFIXES_MAX {
        return;
    }
    let mut spans = Vec::new();
    let whole = scan_request(frame, limits, &mut spans);
    let whole_spans = spans.clone();
    for prefix_len in 0..frame.len() {
        let prefix = &frame[..prefix_len];
        match scan_request(prefix, limits, &mut spans) {
            Ok(Scan::Incomplete { needed }) => {
                assert!(needed > prefix_len as u64, "{}", prefix.escape_ascii());
                assert!(whole_spans.starts_with(&spans), "{}", frame.escape_ascii());
                if let Ok(Scan::Request { len, .. }) = whole {
                    assert!(needed <= len as u64, "{}", prefix.escape_ascii());
                }
            }
            Err(error) => return assert_eq!(whole, Err(error), "{}", frame.escape_ascii()),
            // What is behind the frame was never scanned as part of it.
            other => panic!("{other:?} from {}", prefix.escape_ascii()),
        }
    }
}

/// A request is to the oracle an array of bulk strings of the same length, in the same places.
fn check_against_oracle(frame: &[u8], limits: &RequestLimits) {
    let mut spans = Vec::new();
    let Ok(Scan::Request { len, canonical }) = scan_request(frame, limits, &mut spans) else {
        return;
    };
    let decoded = decode_range(frame).expect("the oracle reads it too");
    let Some((RangeFrame::Array(values), oracle_len)) = decoded else {
        panic!("no array to the oracle: {}", frame.escape_ascii());
    };
    let oracle_spans: Vec<Span> = values
        .iter()
        .map(|value| match *value {
            RangeFrame::BulkString((start, end)) => Span {
                start: start as u32,
                end: end as u32,
            },
            ref other => panic!("{other:?} in {}", frame.escape_ascii()),
        })
        .collect();
    assert_eq!(
        (len, &spans),
        (oracle_len, &oracle_spans),
        "{}",
        frame.escape_ascii()
    );

    let args: Vec<&[u8]> = spans.iter().map(|span| span.of(frame)).collect();
    let mut encoded = Vec::new();
    weir::resp::encode_command(&args, &mut encoded);
    assert_eq!(canonical, encoded == frame, "{}", frame.escape_ascii());
}
