//! From bytes to a [`Value`], through `redis-protocol`.

use std::fmt;

use redis_protocol::error::{RedisProtocolError, RedisProtocolErrorKind};
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
    match resp3::decode::complete::decode_range(frame).map_err(DecodeError::Content)? {
        Some((value, len)) => Ok(Some((from_resp3(frame, value), len))),
        None => Err(DecodeError::Content(RedisProtocolError::new(
            RedisProtocolErrorKind::DecodeError,
            "framed as complete but decoded as incomplete",
        ))),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(frame: &[u8]) -> Value {
        match decode(frame) {
            Ok(Some((value, len))) if len == frame.len() => value,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn either_version_is_read() {
        assert_eq!(decoded(b"$-1\r\n"), Value::Null);
        assert_eq!(decoded(b"_\r\n"), Value::Null);
        assert_eq!(decoded(b"*-1\r\n"), Value::NullArray);
        assert_eq!(decoded(b"-ERR \xff\r\n"), Value::error(&b"ERR \xff"[..]));
        assert_eq!(decoded(b"!5\r\nERR x\r\n"), Value::error("ERR x"));
        assert_eq!(decoded(b"=6\r\ntxt:hi\r\n"), Value::verbatim_txt("hi"));
        assert_eq!(
            decoded(b"|1\r\n+ttl\r\n:1\r\n$1\r\nx\r\n"),
            Value::bulk("x")
        );
        assert_eq!(
            decoded(b"*2\r\n#t\r\n,1.5\r\n").as_array().map(<[_]>::len),
            Some(2)
        );
    }

    #[test]
    fn the_pairs_of_a_map_keep_their_order_in_both_versions() {
        let keys = |frame: &[u8]| {
            let value = decoded(frame);
            let pairs = value.pairs().expect("pairs");
            pairs
                .iter()
                .filter_map(|(key, _)| key.as_i64())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            keys(b"%3\r\n:3\r\n+a\r\n:1\r\n+b\r\n:2\r\n+c\r\n"),
            [3, 1, 2]
        );
        assert_eq!(
            keys(b"*6\r\n:3\r\n+a\r\n:1\r\n+b\r\n:2\r\n+c\r\n"),
            [3, 1, 2]
        );
    }

    #[test]
    fn what_a_server_says_about_itself_is_found_by_name() {
        for hello in [
            &b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n"[..],
            b"*4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n$1\r\n3\r\n",
        ] {
            let hello = decoded(hello);
            assert_eq!(hello.get("server").and_then(Value::as_str), Some("redis"));
            assert_eq!(hello.get("proto").and_then(Value::as_i64), Some(3));
            assert_eq!(hello.get("mode"), None);
        }
    }

    #[test]
    fn what_is_not_all_there_is_no_value_yet() {
        for part in [
            &b""[..],
            b"$3\r\nab",
            b"*2\r\n:1\r\n",
            b"|1\r\n+a\r\n+b\r\n",
        ] {
            assert_eq!(decode(part), Ok(None));
        }
    }

    #[test]
    fn what_is_no_value_is_an_error() {
        assert!(matches!(
            decode(b"HELLO 3\r\n"),
            Err(DecodeError::Framing(_))
        ));
        assert!(matches!(decode(b":x\r\n"), Err(DecodeError::Content(_))));
        assert!(matches!(
            decode(b"*?\r\n.\r\n"),
            Err(DecodeError::Content(_))
        ));
    }

    #[test]
    fn nesting_is_refused_before_it_can_exhaust_the_stack() {
        let nested = |depth: usize| [&b"*1\r\n".repeat(depth)[..], b":1\r\n"].concat();
        decoded(&nested(VALUE_DEPTH_MAX));
        let nested3 = |depth: usize| [&b"%1\r\n:1\r\n".repeat(depth)[..], b"_\r\n"].concat();
        decoded(&nested3(VALUE_DEPTH_MAX));
        let too_deep = decode(&nested(VALUE_DEPTH_MAX + 1));
        assert_eq!(too_deep, Err(DecodeError::Framing(ReplyError::TooDeep)));
    }
}
