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

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(value: &Value, version: Version) -> String {
        let mut out = b"before".to_vec();
        encode(value, version, &mut out);
        let out = String::from_utf8(out).expect("text");
        out.strip_prefix("before")
            .expect("what was there stays")
            .to_owned()
    }

    #[test]
    fn each_version_writes_a_value_its_own_way() {
        let one = || vec![Value::integer(1)];
        for (value, resp2, resp3) in [
            (Value::simple("OK"), "+OK\r\n", "+OK\r\n"),
            (Value::error("ERR no"), "-ERR no\r\n", "-ERR no\r\n"),
            (Value::integer(-7), ":-7\r\n", ":-7\r\n"),
            (
                Value::bulk("a\r\nb"),
                "$4\r\na\r\nb\r\n",
                "$4\r\na\r\nb\r\n",
            ),
            (Value::bulk(""), "$0\r\n\r\n", "$0\r\n\r\n"),
            (Value::null(), "$-1\r\n", "_\r\n"),
            (Value::null_array(), "*-1\r\n", "_\r\n"),
            (Value::array([]), "*0\r\n", "*0\r\n"),
            (Value::array(one()), "*1\r\n:1\r\n", "*1\r\n:1\r\n"),
            (Value::set(one()), "*1\r\n:1\r\n", "~1\r\n:1\r\n"),
            (Value::push(one()), "*1\r\n:1\r\n", ">1\r\n:1\r\n"),
            (Value::boolean(true), ":1\r\n", "#t\r\n"),
            (Value::boolean(false), ":0\r\n", "#f\r\n"),
            (Value::double(1.5), "$3\r\n1.5\r\n", ",1.5\r\n"),
            (
                Value::double(f64::NEG_INFINITY),
                "$4\r\n-inf\r\n",
                ",-inf\r\n",
            ),
            (Value::double(f64::NAN), "$3\r\nnan\r\n", ",nan\r\n"),
            (
                Value::verbatim_txt("hi"),
                "$2\r\nhi\r\n",
                "=6\r\ntxt:hi\r\n",
            ),
            (
                Value::BigNumber(b"123".to_vec()),
                "$3\r\n123\r\n",
                "(123\r\n",
            ),
        ] {
            assert_eq!(encoded(&value, Version::Resp2), resp2, "{value:?}");
            assert_eq!(encoded(&value, Version::Resp3), resp3, "{value:?}");
        }
    }

    #[test]
    fn a_map_keeps_its_order_and_is_flat_in_resp2() {
        let pair = |key: &str, value| (Value::bulk(key), value);
        let map = Value::map([
            pair("z", Value::null()),
            pair("a", Value::map([pair("y", Value::boolean(true))])),
            pair("a", Value::integer(2)),
        ]);
        let key = |key: &str| format!("$1\r\n{key}\r\n");
        let (z, a, y) = (key("z"), key("a"), key("y"));
        assert_eq!(
            encoded(&map, Version::Resp2),
            format!("*6\r\n{z}$-1\r\n{a}*2\r\n{y}:1\r\n{a}:2\r\n")
        );
        assert_eq!(
            encoded(&map, Version::Resp3),
            format!("%3\r\n{z}_\r\n{a}%1\r\n{y}#t\r\n{a}:2\r\n")
        );
    }

    #[test]
    fn a_text_of_one_line_stays_one() {
        let made_up = "ERR unknown command 'x\r\n+OK\r\n'";
        let expected = "-ERR unknown command 'x  +OK  '\r\n";
        assert_eq!(encoded(&Value::error(made_up), Version::Resp2), expected);
        assert_eq!(encoded(&Value::simple("a\nb"), Version::Resp3), "+a b\r\n");
    }

    #[test]
    fn an_error_may_quote_what_is_no_text() {
        let mut out = Vec::new();
        encode(
            &Value::error(&b"ERR '\xff\0'"[..]),
            Version::Resp2,
            &mut out,
        );
        assert_eq!(out, b"-ERR '\xff\0'\r\n");
    }

    #[test]
    fn a_command_is_an_array_of_bulk_strings() {
        let mut out = Vec::new();
        encode_command(&["SET", "k", ""], &mut out);
        encode_command::<&str>(&[], &mut out);
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n*0\r\n");
    }
}
