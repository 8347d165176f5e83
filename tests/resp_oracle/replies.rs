//! What must hold for replies.

use redis_protocol::resp2;
use redis_protocol::resp3::decode::streaming;
use redis_protocol::resp3::types::{DecodedRangeFrame, FrameKind, RangeFrame};
use weir::resp::{ReplyError, ReplyScanner};

use super::{End, Framing, check_value, pieces};

/// The oracle recurses; deeper frames it is not asked about.
const ORACLE_DEPTH_MAX: usize = 60;

/// Checks all rules on one input, cut into pieces of `sizes` among other ways.
pub fn check_replies(input: &[u8], sizes: &[usize]) {
    let whole = reply_frames(input);
    for sizes in [&[1][..], sizes] {
        let in_pieces = frames_in_pieces(input, sizes);
        assert_eq!(
            in_pieces,
            whole,
            "pieces of {sizes:?}: {}",
            input.escape_ascii()
        );
    }
    let mut rest = input;
    for &len in &whole.frames {
        if let Some(oracle) = oracle(rest) {
            assert_eq!(Opinion::Frame(len), oracle, "{}", rest.escape_ascii());
        }
        check_value(&rest[..len]);
        rest = &rest[len..];
    }
    match (whole.end, oracle(rest)) {
        (End::Error(_), _) | (_, None | Some(Opinion::Incomplete)) => {}
        (end, opinion) => panic!("{end:?} but {opinion:?}: {}", rest.escape_ascii()),
    }
}

/// The frames that a scanner finds that is fed with everything at once.
pub fn reply_frames(input: &[u8]) -> Framing<ReplyError> {
    frames_in_pieces(input, &[usize::MAX])
}

fn frames_in_pieces(input: &[u8], sizes: &[usize]) -> Framing<ReplyError> {
    let mut frames = Vec::new();
    let mut scanner = ReplyScanner::default();
    let mut len = 0;
    for mut piece in pieces(input, sizes) {
        while !piece.is_empty() {
            let fed = match scanner.feed(piece) {
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
            assert!(fed.complete || piece.is_empty());
            assert_eq!(scanner.at_boundary(), fed.complete);
            if fed.complete {
                frames.push(len);
                len = 0;
            }
        }
    }
    let end = if len == 0 {
        End::AtBoundary
    } else {
        End::Within
    };
    Framing { frames, end }
}

#[derive(Debug, PartialEq, Eq)]
enum Opinion {
    Frame(usize),
    Incomplete,
}

/// What `redis-protocol` finds at the start; `None` where it does not follow: what is in a line
/// it reads and the scanner does not, a map by RESP2 or `$-1` by RESP3 it cannot read, and the
/// attribute of a null it refuses.
fn oracle(input: &[u8]) -> Option<Opinion> {
    if nesting_bound(input) > ORACLE_DEPTH_MAX {
        return None;
    }
    match resp2::decode::decode_range(input) {
        Ok(Some((_, len))) => return Some(Opinion::Frame(len)),
        Ok(None) => return Some(Opinion::Incomplete),
        Err(_) => {}
    }
    let mut len = 0;
    let mut streams = 0;
    loop {
        match streaming::decode_range(&input[len..]) {
            Ok(Some((decoded, consumed))) => {
                len += consumed;
                match decoded {
                    // Of streams within streams the oracle cannot say which one ends.
                    DecodedRangeFrame::Streaming(_) if streams > 0 => return None,
                    DecodedRangeFrame::Streaming(stream) => {
                        streams += 1;
                        // RESP3's decoder takes `$-1` for the beginning of a stream.
                        let header = &input[..len];
                        if !header.ends_with(b"?\r\n") || stream.kind == FrameKind::Map {
                            return None;
                        }
                    }
                    DecodedRangeFrame::Complete(frame) => match frame.kind() {
                        FrameKind::EndStream if streams == 1 => return Some(Opinion::Frame(len)),
                        FrameKind::EndStream | FrameKind::Hello => return None,
                        FrameKind::ChunkedString if streams == 0 => return None,
                        _ if streams == 0 => return Some(Opinion::Frame(len)),
                        _ if mixes(&frame, input) => return None,
                        _ => {}
                    },
                }
            }
            Ok(None) => return Some(Opinion::Incomplete),
            Err(_) => return None,
        }
    }
}

/// The oracle does not mind chunks in a streamed array, nor values in a streamed string.
fn mixes(frame: &RangeFrame, input: &[u8]) -> bool {
    (frame.kind() == FrameKind::ChunkedString) != (input[0] == b'$')
}

/// No frame is nested deeper than it has aggregate headers.
fn nesting_bound(input: &[u8]) -> usize {
    input
        .iter()
        .filter(|byte| matches!(byte, b'*' | b'%' | b'~' | b'>' | b'|'))
        .count()
}
