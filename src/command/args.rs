//! The arguments of one request, however they are held.

/// The arguments of a request, the command's name first.
///
/// The session's request is a range of a read buffer, a test's is a slice of
/// slices; what only looks at arguments takes either, and nothing is copied.
pub trait Args {
    /// How many arguments there are, the name included.
    fn count(&self) -> usize;

    /// Argument `index`, the name being 0; `None` beyond the end.
    fn arg(&self, index: usize) -> Option<&[u8]>;
}

impl<T: AsRef<[u8]>> Args for [T] {
    fn count(&self) -> usize {
        self.len()
    }

    fn arg(&self, index: usize) -> Option<&[u8]> {
        self.get(index).map(AsRef::as_ref)
    }
}

impl<T: AsRef<[u8]>> Args for Vec<T> {
    fn count(&self) -> usize {
        self.len()
    }

    fn arg(&self, index: usize) -> Option<&[u8]> {
        self.get(index).map(AsRef::as_ref)
    }
}

impl<T: AsRef<[u8]>, const N: usize> Args for [T; N] {
    fn count(&self) -> usize {
        N
    }

    fn arg(&self, index: usize) -> Option<&[u8]> {
        self.get(index).map(AsRef::as_ref)
    }
}

/// An integer as Redis reads one in an argument: a `-` perhaps, no `+`, no
/// leading zero, nothing around it, within 64 bits.
pub fn integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [b'0'] => text.len() == 1,
        [b'1'..=b'9', ..] => true,
        _ => false,
    };
    if !canonical {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::integer;

    #[test]
    fn integers_are_only_what_redis_takes_for_one() {
        let numbers: [(&str, Option<i64>); 12] = [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-0", None),
            ("+1", None),
            ("01", None),
            (" 1", None),
            ("1.0", None),
            ("-", None),
            ("", None),
        ];
        for (text, expected) in numbers {
            assert_eq!(integer(text.as_bytes()), expected, "{text:?}");
        }
    }
}
