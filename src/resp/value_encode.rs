//! From a [`Value`] to bytes, through `redis-protocol`.

use std::borrow::Cow;

use redis_protocol::resp3;
use redis_protocol::resp3::types::{BorrowedFrame as Resp3, VerbatimStringFormat};

use super::{Value, VerbatimFormat, Version};

/// Appends `value` as `version` writes it.
///
/// RESP2 gets what Redis sends to a RESP2 client: a map is a flat array, a set
/// or push an array, a boolean `:1` or `:0`, and a double, big number or verbatim
/// string a bulk string. Line breaks in statuses and errors become spaces, as in
/// Redis, so that what a client made up cannot end a reply early.
pub fn encode(value: &Value, version: Version, out: &mut Vec<u8>) {
    match (value, version) {
        (Value::Simple(text), _) => line(b'+', text, out),
        (Value::Error(text), _) => line(b'-', text, out),
        (Value::Integer(number), _) => integer(b':', *number, out),
        (Value::Bulk(bytes), _) => bulk(bytes, out),
        (Value::Array(values), _) => aggregate(b'*', values, version, out),

        (Value::Null, Version::Resp2) => integer(b'$', -1, out),
        (Value::NullArray, Version::Resp2) => integer(b'*', -1, out),
        (Value::Boolean(truth), Version::Resp2) => integer(b':', i64::from(*truth), out),
        (Value::Verbatim(_, bytes) | Value::BigNumber(bytes), Version::Resp2) => bulk(bytes, out),
        (Value::Double(number), Version::Resp2) => {
            let mut double = Vec::new();
            encode(&Value::Double(*number), Version::Resp3, &mut double);
            bulk(&double[1..double.len() - 2], out);
        }
        (Value::Set(values) | Value::Push(values), Version::Resp2) => {
            aggregate(b'*', values, version, out);
        }
        (Value::Map(pairs), Version::Resp2) => {
            integer(b'*', (pairs.len() * 2) as i64, out);
            all_pairs(pairs, version, out);
        }

        (Value::Null | Value::NullArray, Version::Resp3) => leaf(&Resp3::Null, out),
        (Value::Boolean(data), Version::Resp3) => {
            leaf(
                &Resp3::Boolean {
                    data: *data,
                    attributes: None,
                },
                out,
            );
        }
        (Value::Verbatim(format, data), Version::Resp3) => {
            let format = match format {
                VerbatimFormat::Text => VerbatimStringFormat::Text,
                VerbatimFormat::Markdown => VerbatimStringFormat::Markdown,
            };
            leaf(
                &Resp3::VerbatimString {
                    data,
                    format,
                    attributes: None,
                },
                out,
            );
        }
        (Value::BigNumber(digits), Version::Resp3) => line(b'(', digits, out),
        (Value::Double(data), Version::Resp3) => {
            leaf(
                &Resp3::Double {
                    data: *data,
                    attributes: None,
                },
                out,
            );
        }
        (Value::Set(values), Version::Resp3) => aggregate(b'~', values, version, out),
        (Value::Push(values), Version::Resp3) => aggregate(b'>', values, version, out),
        (Value::Map(pairs), Version::Resp3) => {
            integer(b'%', pairs.len() as i64, out);
            all_pairs(pairs, version, out);
        }
    }
}

/// Appends a request in the form that client libraries send: an array of bulk strings.
pub fn encode_command<A: AsRef<[u8]>>(args: &[A], out: &mut Vec<u8>) {
    integer(b'*', args.len() as i64, out);
    for arg in args {
        bulk(arg.as_ref(), out);
    }
}

fn aggregate(kind: u8, values: &[Value], version: Version, out: &mut Vec<u8>) {
    integer(kind, values.len() as i64, out);
    for value in values {
        encode(value, version, out);
    }
}

fn all_pairs(pairs: &[(Value, Value)], version: Version, out: &mut Vec<u8>) {
    for (key, value) in pairs {
        encode(key, version, out);
        encode(value, version, out);
    }
}

/// A number behind any type byte: an integer, or the header of an aggregate, of
/// which `redis-protocol` writes only unordered ones.
fn integer(kind: u8, data: i64, out: &mut Vec<u8>) {
    let start = out.len();
    leaf(
        &Resp3::Number {
            data,
            attributes: None,
        },
        out,
    );
    out[start] = kind;
}

/// Text behind any type byte that means a line: `redis-protocol` would insist
/// on UTF-8 in an error.
fn line(kind: u8, text: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    leaf(
        &Resp3::SimpleString {
            data: &one_line(text),
            attributes: None,
        },
        out,
    );
    out[start] = kind;
}

fn one_line(text: &[u8]) -> Cow<'_, [u8]> {
    let breaks = |byte: &u8| matches!(byte, b'\r' | b'\n');
    if !text.iter().any(breaks) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(
        text.iter()
            .map(|byte| if breaks(byte) { b' ' } else { *byte })
            .collect(),
    )
}

fn bulk(bytes: &[u8], out: &mut Vec<u8>) {
    leaf(
        &Resp3::BlobString {
            data: bytes,
            attributes: None,
        },
        out,
    );
}

fn leaf(frame: &Resp3<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + frame.encode_len(false), 0);
    let written = resp3::encode::complete::encode_borrowed(&mut out[start..], frame, false)
        .expect("the buffer has the length that the encoder asked for");
    out.truncate(start + written);
}
