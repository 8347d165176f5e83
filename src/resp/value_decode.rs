//! From bytes to a [`Value`], through `redis-protocol`.

use std::fmt;

use redis_protocol::error::RedisProtocolError;
use redis_protocol::resp2;
use redis_protocol::resp3;
use redis_protocol::resp3::types::{RangeFrame, VerbatimStringFormat};

use super::{ReplyError, ReplyScanner, Value, VerbatimFormat};

/// How deep a value may be nested that Weir reads itself: the decoder recurses,
/// so this bounds its stack. The deepest that Redis tells about itself,
/// `COMMAND DOCS`, has about a dozen levels.
pub const VALUE_DEPTH_MAX: usize = 64;

/// Why bytes are not a value.
#[derive(Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// They are no frame of RESP, or one nested deeper than [`VALUE_DEPTH_MAX`].
    Framing(ReplyError),
    /// They are framed as a value but what is inside is wrong, or it is a
    /// streamed one, which Redis does not send and Weir does not read.
    Content(RedisProtocolError),
}

/// Reads the value at the start of `frame`, of either version, and how many bytes
/// it has; `None` if it is not all there. Attributes are read over.
///
/// # Errors
/// See [`DecodeError`]; no input makes it recurse without bound or reserve more
/// than a small multiple of what is there.
pub fn decode(frame: &[u8]) -> Result<Option<(Value, usize)>, DecodeError> {
    let mut scanner = ReplyScanner::with_depth_max(VALUE_DEPTH_MAX);
    let scanned = scanner.feed(frame).map_err(DecodeError::Framing)?;
    if !scanned.complete {
        return Ok(None);
    }
    let frame = &frame[..scanned.consumed];
    if frame == b"*-1\r\n" {
        return Ok(Some((Value::NullArray, frame.len())));
    }
    // RESP3's decoder takes `$-1` for a streamed string, RESP2's knows no maps.
    if let Ok(Some((value, len))) = resp2::decode::decode_range(frame) {
        return Ok(Some((from_resp2(frame, value), len)));
    }
    let decoded = resp3::decode::complete::decode_range(frame).map_err(DecodeError::Content)?;
    Ok(decoded.map(|(value, len)| (from_resp3(frame, value), len)))
}

type Range = (usize, usize);

fn bytes(frame: &[u8], (start, end): Range) -> Vec<u8> {
    frame[start..end].to_vec()
}

fn from_resp2(frame: &[u8], value: resp2::types::RangeFrame) -> Value {
    use resp2::types::RangeFrame as Resp2;
    match value {
        Resp2::SimpleString(range) => Value::Simple(bytes(frame, range)),
        Resp2::Error(range) => Value::Error(bytes(frame, range)),
        Resp2::Integer(number) => Value::Integer(number),
        Resp2::BulkString(range) => Value::Bulk(bytes(frame, range)),
        Resp2::Array(values) => Value::Array(
            values
                .into_iter()
                .map(|value| from_resp2(frame, value))
                .collect(),
        ),
        Resp2::Null => Value::Null,
    }
}

fn from_resp3(frame: &[u8], value: RangeFrame) -> Value {
    let all = |values: Vec<RangeFrame>| -> Vec<Value> {
        values
            .into_iter()
            .map(|value| from_resp3(frame, value))
            .collect()
    };
    match value {
        RangeFrame::SimpleString { data, .. } => Value::Simple(bytes(frame, data)),
        RangeFrame::SimpleError { data, .. } | RangeFrame::BlobError { data, .. } => {
            Value::Error(bytes(frame, data))
        }
        RangeFrame::BlobString { data, .. } | RangeFrame::ChunkedString(data) => {
            Value::Bulk(bytes(frame, data))
        }
        RangeFrame::BigNumber { data, .. } => Value::BigNumber(bytes(frame, data)),
        RangeFrame::VerbatimString { data, format, .. } => {
            let format = match format {
                VerbatimStringFormat::Text => VerbatimFormat::Text,
                VerbatimStringFormat::Markdown => VerbatimFormat::Markdown,
            };
            Value::Verbatim(format, bytes(frame, data))
        }
        RangeFrame::Number { data, .. } => Value::Integer(data),
        RangeFrame::Double { data, .. } => Value::Double(data),
        RangeFrame::Boolean { data, .. } => Value::Boolean(data),
        // The scanner has refused a HELLO, which the decoder would take for a value.
        RangeFrame::Null | RangeFrame::Hello { .. } => Value::Null,
        RangeFrame::Array { data, .. } => Value::Array(all(data)),
        RangeFrame::Push { data, .. } => Value::Push(all(data)),
        RangeFrame::Set { data, .. } => Value::Set(all(data.into_iter().collect())),
        // The decoder fills its map from behind; read backwards it is in order.
        RangeFrame::Map { data, .. } => {
            let pairs = data.into_iter().rev();
            Value::Map(
                pairs
                    .map(|(k, v)| (from_resp3(frame, k), from_resp3(frame, v)))
                    .collect(),
            )
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Framing(error) => write!(f, "not RESP: {error}"),
            Self::Content(error) => write!(f, "not a value: {error}"),
        }
    }
}

impl std::error::Error for DecodeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Framing(error) => Some(error),
            Self::Content(error) => Some(error),
        }
    }
}
