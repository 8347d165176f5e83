//! What must hold for values.

use weir::resp::{Value, Version, decode, encode};

/// Whatever the bytes, decoding them ends; and a value that was read, written in either version
/// and read again, says the same from then on.
pub fn check_value(input: &[u8]) {
    let Ok(Some((value, len))) = decode(input) else {
        return;
    };
    assert!(len <= input.len());
    for version in [Version::Resp2, Version::Resp3] {
        let once = rewritten(&value, version);
        let twice = rewritten(&once, version);
        // Through Debug, in which NaN is the same as NaN.
        assert_eq!(format!("{once:?}"), format!("{twice:?}"));
    }
}

fn rewritten(value: &Value, version: Version) -> Value {
    let mut bytes = Vec::new();
    encode(value, version, &mut bytes);
    match decode(&bytes) {
        Ok(Some((value, len))) if len == bytes.len() => value,
        other => panic!("{value:?} became {}: {other:?}", bytes.escape_ascii()),
    }
}
