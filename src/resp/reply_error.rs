//! What can be wrong with the bytes of a reply.

use std::fmt;

/// Why replies cannot be framed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// No value begins with this byte, or not here.
    UnknownType {
        /// The byte that was found.
        got: u8,
    },
    /// What stands behind this type byte is not a length it can have.
    InvalidLength {
        /// The byte that names the type.
        kind: u8,
    },
    /// A header or a string is not followed by CRLF.
    MissingLineEnd,
    /// More than [`super::DEPTH_MAX`] aggregates within each other.
    TooDeep,
    /// The end of a streamed aggregate where none is open, or between a key and
    /// its value.
    UnexpectedStreamEnd,
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |byte: u8| std::ascii::escape_default(byte);
        match *self {
            Self::UnknownType { got } => write!(f, "no reply type begins with '{}'", shown(got)),
            Self::InvalidLength { kind } => {
                write!(f, "invalid length behind '{}'", shown(kind))
            }
            Self::MissingLineEnd => f.write_str("CRLF is missing"),
            Self::TooDeep => f.write_str("nested too deep"),
            Self::UnexpectedStreamEnd => f.write_str("end of a stream that is not open"),
        }
    }
}

impl std::error::Error for ReplyError {}
