//! Framing and values against `redis-protocol`, which here makes the input too: what it encodes
//! must be framed where it ends, as a whole, cut at each byte, and one behind the other.
//!
//! A failure prints its smallest input and writes its seed beside this file.

mod resp_oracle;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use redis_protocol::resp2::types::{BorrowedFrame, Resp2Frame};
use redis_protocol::resp3::types::{
    FrameMap, FrameSet, OwnedAttributes, OwnedFrame, Resp3Frame, VerbatimStringFormat,
};
use redis_protocol::{resp2, resp3};
use resp_oracle::{
    End, LIMITS, check_replies, check_requests, check_value, reply_frames, request_frames,
};
use weir::resp::{Scan, Version, decode, encode, inline, scan_request};

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("failures"))),
        ..ProptestConfig::with_cases(1000)
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn requests_that_the_oracle_encodes_are_found(
        requests in vec(vec(bytes(), 1..8), 1..5),
        sizes in vec(1..20usize, 1..4),
    ) {
        let encoded: Vec<Vec<u8>> = requests.iter().map(|args| oracle_request(args)).collect();
        let input = encoded.concat();
        check_requests(&input, &LIMITS, &sizes);

        let mut spans = Vec::new();
        let scan = scan_request(&input, &LIMITS, &mut spans).expect("a request");
        prop_assert_eq!(scan, Scan::Request { len: encoded[0].len(), canonical: true });
        let args: Vec<&[u8]> = spans.iter().map(|span| span.of(&input)).collect();
        prop_assert_eq!(&args, &requests[0]);

        let framing = request_frames(&input, &LIMITS);
        let lens: Vec<usize> = encoded.iter().map(Vec::len).collect();
        prop_assert_eq!((framing.frames, framing.end), (lens, End::AtBoundary));

        let mut ours = Vec::new();
        weir::resp::encode_command(&requests[0], &mut ours);
        prop_assert_eq!(&ours, &encoded[0]);
    }

    #[test]
    fn replies_that_the_oracle_encodes_are_found(
        replies in vec(prop_oneof![resp2_reply(), resp3_reply(true)], 1..5),
        sizes in vec(1..20usize, 1..4),
    ) {
        let input = replies.concat();
        check_replies(&input, &sizes);

        let framing = reply_frames(&input);
        let lens: Vec<usize> = replies.iter().map(Vec::len).collect();
        prop_assert_eq!((framing.frames, framing.end), (lens, End::AtBoundary));
    }

    #[test]
    fn a_value_is_written_as_it_was_read(frame in resp3_reply(false)) {
        let (value, len) = decode(&frame).expect("a value").expect("a whole one");
        prop_assert_eq!(len, frame.len());
        let mut again = Vec::new();
        encode(&value, Version::Resp3, &mut again);
        prop_assert_eq!(again, frame);
    }

    #[test]
    fn a_value_of_resp2_is_written_as_it_was_read(frame in resp2_reply()) {
        let (value, len) = decode(&frame).expect("a value").expect("a whole one");
        prop_assert_eq!(len, frame.len());
        let mut again = Vec::new();
        encode(&value, Version::Resp2, &mut again);
        prop_assert_eq!(again, frame);
    }

    #[test]
    fn any_bytes_at_all_are_survived(
        input in vec(any::<u8>(), 0..200),
        sizes in vec(1..20usize, 1..4),
    ) {
        check_requests(&input, &LIMITS, &sizes);
        check_replies(&input, &sizes);
        check_value(&input);
        let _ = inline::split(&input);
    }

    #[test]
    fn words_survive_quoting(words in vec(bytes(), 0..6)) {
        let quoted: Vec<Vec<u8>> = words.iter().map(|word| quote(word)).collect();
        let mut line = quoted.join(&b" "[..]);
        prop_assert_eq!(&inline::split(&line).expect("balanced"), &words);
        line.extend_from_slice(b"\r\n");
        prop_assert_eq!(&inline::split(&line).expect("balanced"), &words);

        let expected = if words.is_empty() {
            Scan::Empty { len: line.len() }
        } else {
            Scan::Inline { len: line.len() }
        };
        prop_assert_eq!(scan_request(&line, &LIMITS, &mut Vec::new()), Ok(expected));
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => vec(any::<u8>(), 0..12), 1 => vec(any::<u8>(), 0..300)]
}

/// What may stand in a line.
fn text() -> impl Strategy<Value = String> + Clone {
    "[^\r\n]{0,40}"
}

/// The way `redis-cli` quotes a word for an inline request.
fn quote(word: &[u8]) -> Vec<u8> {
    let hex = word.iter().map(|byte| format!("\\x{byte:02x}"));
    format!("\"{}\"", hex.collect::<String>()).into_bytes()
}

fn oracle_request(args: &[Vec<u8>]) -> Vec<u8> {
    let args: Vec<BorrowedFrame> = args
        .iter()
        .map(|arg| BorrowedFrame::BulkString(arg))
        .collect();
    let frame = BorrowedFrame::Array(&args);
    let mut out = vec![0; frame.encode_len(false)];
    let len = resp2::encode::encode_borrowed(&mut out, &frame, false).expect("encoded");
    out.truncate(len);
    out
}

fn resp2_reply() -> impl Strategy<Value = Vec<u8>> {
    use redis_protocol::resp2::types::OwnedFrame as Resp2;
    let scalar = prop_oneof![
        text().prop_map(|text| Resp2::SimpleString(text.into_bytes())),
        text().prop_map(Resp2::Error),
        any::<i64>().prop_map(Resp2::Integer),
        bytes().prop_map(Resp2::BulkString),
        Just(Resp2::Null),
    ];
    let frame = scalar.prop_recursive(4, 40, 8, |inner| vec(inner, 0..8).prop_map(Resp2::Array));
    frame.prop_map(|frame| {
        let mut out = vec![0; frame.encode_len(false)];
        let len = resp2::encode::encode(&mut out, &frame, false).expect("encoded");
        out.truncate(len);
        out
    })
}

/// A reply of RESP3. `all`: with what a value does not keep, attributes and the length that an
/// error may have.
fn resp3_reply(all: bool) -> impl Strategy<Value = Vec<u8>> {
    let frame = scalar3(all).prop_recursive(4, 40, 8, move |inner| {
        let attributes = attributes(all);
        prop_oneof![
            (vec(inner.clone(), 0..8), attributes.clone())
                .prop_map(|(data, attributes)| OwnedFrame::Array { data, attributes }),
            (vec(inner.clone(), 0..8), attributes.clone())
                .prop_map(|(data, attributes)| OwnedFrame::Push { data, attributes }),
            (vec((scalar3(all), inner), 0..6), attributes.clone()).prop_map(
                |(pairs, attributes)| OwnedFrame::Map {
                    data: pairs.into_iter().collect::<FrameMap<_, _>>(),
                    attributes,
                }
            ),
            (vec(scalar3(all), 0..6), attributes).prop_map(|(members, attributes)| {
                OwnedFrame::Set {
                    data: members.into_iter().collect::<FrameSet<_>>(),
                    attributes,
                }
            }),
        ]
    });
    frame.prop_map(|frame| {
        let mut out = vec![0; frame.encode_len(false)];
        let len = resp3::encode::complete::encode(&mut out, &frame, false).expect("encoded");
        out.truncate(len);
        out
    })
}

/// Without -0, which the oracle's maps take sometimes for 0 and sometimes not: it hashes them
/// apart and compares them as equal.
fn double() -> impl Strategy<Value = f64> {
    let any = any::<f64>().prop_map(|number| if number == 0.0 { 0.0 } else { number });
    prop_oneof![any, Just(f64::INFINITY), Just(f64::NEG_INFINITY)]
}

fn attributes(some: bool) -> BoxedStrategy<Option<OwnedAttributes>> {
    if !some {
        return Just(None).boxed();
    }
    let attributes = (text(), any::<i64>()).prop_map(|(key, data)| {
        let key = OwnedFrame::SimpleString {
            data: key.into_bytes(),
            attributes: None,
        };
        let value = OwnedFrame::Number {
            data,
            attributes: None,
        };
        OwnedAttributes::from_iter([(key, value)])
    });
    proptest::option::weighted(0.2, attributes).boxed()
}

fn scalar3(all: bool) -> BoxedStrategy<OwnedFrame> {
    let kept = prop_oneof![
        (text(), attributes(all)).prop_map(|(text, attributes)| OwnedFrame::SimpleString {
            data: text.into_bytes(),
            attributes
        }),
        (text(), attributes(all))
            .prop_map(|(data, attributes)| OwnedFrame::SimpleError { data, attributes }),
        (any::<i64>(), attributes(all))
            .prop_map(|(data, attributes)| OwnedFrame::Number { data, attributes }),
        (bytes(), attributes(all))
            .prop_map(|(data, attributes)| OwnedFrame::BlobString { data, attributes }),
        (any::<bool>(), attributes(all))
            .prop_map(|(data, attributes)| OwnedFrame::Boolean { data, attributes }),
        (double(), attributes(all))
            .prop_map(|(data, attributes)| OwnedFrame::Double { data, attributes }),
        ("-?[1-9][0-9]{0,40}", attributes(all)).prop_map(|(digits, attributes)| {
            OwnedFrame::BigNumber {
                data: digits.into_bytes(),
                attributes,
            }
        }),
        (bytes(), attributes(all)).prop_map(|(data, attributes)| OwnedFrame::VerbatimString {
            data,
            format: VerbatimStringFormat::Text,
            attributes
        }),
        Just(OwnedFrame::Null),
    ];
    let blob_error = bytes().prop_map(|data| OwnedFrame::BlobError {
        data,
        attributes: None,
    });
    if all {
        prop_oneof![8 => kept, 1 => blob_error].boxed()
    } else {
        kept.boxed()
    }
}
