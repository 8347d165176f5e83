//! Ids of stream entries.

/// `milliseconds-sequence`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct StreamId {
    /// Milliseconds.
    pub ms: u64,
    /// Number within the millisecond.
    pub seq: u64,
}

impl StreamId {
    /// As Redis reads them (`t_stream.c:streamGenericParseIDOrReply`); a missing sequence
    /// is 0. `None` for what it may read and Weir does not.
    pub fn parse(text: &[u8]) -> Option<StreamId> {
        let text = std::str::from_utf8(text).ok()?;
        let (ms, seq) = text.split_once('-').unwrap_or((text, "0"));
        let number = |digits: &str| -> Option<u64> {
            digits
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| digits.parse().ok())
                .flatten()
        };
        Some(StreamId {
            ms: number(ms)?,
            seq: number(seq)?,
        })
    }
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_and_ordered() {
        let id = |text: &str| StreamId::parse(text.as_bytes());
        assert_eq!(id("5"), id("5-0"));
        assert!(id("5-2") > id("5-1"));
        assert!(id("10-0") > id("9-9"));
        for wrong in [
            "",
            "-",
            "5-",
            "-5",
            "a-1",
            "+1-1",
            "$",
            "5-*",
            "99999999999999999999",
        ] {
            assert_eq!(id(wrong), None, "{wrong}");
        }
        assert_eq!(id("7-3").expect("an id").to_string(), "7-3");
    }
}
