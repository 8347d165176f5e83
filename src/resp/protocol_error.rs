//! What can be wrong with the bytes of a request.

use std::fmt;

/// Why a request cannot be framed. The client is told and closed.
///
/// `Display` gives the words that Redis puts behind `-ERR Protocol error: `;
/// [`ProtocolError::write_reply`] gives the whole reply, byte for byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// No newline within the first 64 KiB of an inline request.
    InlineTooBig,
    /// No end within the first 64 KiB of the line that counts the arguments.
    CountTooBig,
    /// No end within the first 64 KiB of the line that gives an argument's length.
    BulkHeaderTooBig,
    /// The number of arguments is no number, or more than is allowed.
    InvalidMultibulkLength,
    /// An argument's length is no number, negative, or more than is allowed.
    InvalidBulkLength,
    /// An argument does not begin with `$` but with this byte.
    ExpectedBulk {
        /// The byte in place of `$`.
        got: u8,
    },
    /// More than 10 arguments before the client has logged in.
    UnauthenticatedMultibulkLength,
    /// An argument above 16 KiB before the client has logged in.
    UnauthenticatedBulkLength,
    /// The CR of a header line is not followed by a newline. Redis skips that byte
    /// unseen; the words are those of Valkey 9, which does not.
    InvalidLineEnd,
    /// A quote in an inline request is not closed, or text follows its end.
    UnbalancedQuotes,
}

impl ProtocolError {
    /// Appends the reply that Redis gives, from `-ERR ` to CRLF.
    ///
    /// Unlike `Display` it keeps a quoted byte that is not text. As in Redis a
    /// line break becomes a space.
    pub fn write_reply(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"-ERR Protocol error: ");
        match *self {
            Self::ExpectedBulk { got } => {
                out.extend_from_slice(EXPECTED_BULK.as_bytes());
                out.extend_from_slice(&[one_line(got), b'\'']);
            }
            _ => out.extend_from_slice(self.to_string().as_bytes()),
        }
        out.extend_from_slice(b"\r\n");
    }
}

const EXPECTED_BULK: &str = "expected '$', got '";

/// What a byte becomes in a reply of one line.
fn one_line(byte: u8) -> u8 {
    if matches!(byte, b'\r' | b'\n') {
        b' '
    } else {
        byte
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::InlineTooBig => "too big inline request",
            Self::CountTooBig => "too big mbulk count string",
            Self::BulkHeaderTooBig => "too big bulk count string",
            Self::InvalidMultibulkLength => "invalid multibulk length",
            Self::InvalidBulkLength => "invalid bulk length",
            Self::UnauthenticatedMultibulkLength => "unauthenticated multibulk length",
            Self::UnauthenticatedBulkLength => "unauthenticated bulk length",
            Self::InvalidLineEnd => "invalid CRLF in request",
            Self::UnbalancedQuotes => "unbalanced quotes in request",
            Self::ExpectedBulk { got } => {
                let shown = match one_line(got) {
                    0x80.. => char::REPLACEMENT_CHARACTER,
                    byte => char::from(byte),
                };
                return write!(f, "{EXPECTED_BULK}{shown}'");
            }
        })
    }
}

impl std::error::Error for ProtocolError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_are_those_of_redis() {
        use ProtocolError::*;
        let expected = |got: u8| ExpectedBulk { got };
        for (error, text) in [
            (InlineTooBig, "too big inline request"),
            (CountTooBig, "too big mbulk count string"),
            (BulkHeaderTooBig, "too big bulk count string"),
            (InvalidMultibulkLength, "invalid multibulk length"),
            (InvalidBulkLength, "invalid bulk length"),
            (
                UnauthenticatedMultibulkLength,
                "unauthenticated multibulk length",
            ),
            (UnauthenticatedBulkLength, "unauthenticated bulk length"),
            (InvalidLineEnd, "invalid CRLF in request"),
            (UnbalancedQuotes, "unbalanced quotes in request"),
            (expected(b'P'), "expected '$', got 'P'"),
            (expected(b'\r'), "expected '$', got ' '"),
        ] {
            assert_eq!(error.to_string(), text);
            let mut reply = Vec::new();
            error.write_reply(&mut reply);
            assert_eq!(
                reply,
                format!("-ERR Protocol error: {text}\r\n").into_bytes()
            );
        }
    }

    #[test]
    fn a_byte_that_is_no_text_is_quoted_as_it_is() {
        let mut reply = Vec::new();
        ProtocolError::ExpectedBulk { got: 0xff }.write_reply(&mut reply);
        assert_eq!(reply, b"-ERR Protocol error: expected '$', got '\xff'\r\n");
    }
}
