//! The headers of replies that are not wholly there.

use super::ReplyError;
use super::number::Decimal;

/// What a header says about the size of its value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Length {
    Of(u64),
    Null,
    Streamed,
}

/// A header that arrives byte by byte behind its type byte: a number, a lone
/// `?`, or nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplyHeader {
    /// The type byte.
    pub(super) kind: u8,
    number: Decimal,
    streamed: bool,
}

impl ReplyHeader {
    /// The header of a value whose type byte has come.
    pub(super) fn new(kind: u8) -> Self {
        Self {
            kind,
            number: Decimal::default(),
            streamed: false,
        }
    }

    /// Takes the next byte; what the header says once its CR is there.
    pub(super) fn push(&mut self, byte: u8) -> Result<Option<Length>, ReplyError> {
        let wrong = ReplyError::InvalidLength { kind: self.kind };
        match byte {
            b'\r' => self.length().ok_or(wrong).map(Some),
            b'?' if self.number.is_empty() && !self.streamed => {
                self.streamed = true;
                Ok(None)
            }
            _ => {
                self.number.push(byte);
                if self.number.is_bad() || self.streamed || self.kind == b'.' {
                    return Err(wrong);
                }
                Ok(None)
            }
        }
    }

    /// What a header of this kind may say.
    fn length(&self) -> Option<Length> {
        match (self.kind, self.number.value()) {
            (b'.', None) if !self.streamed => Some(Length::Of(0)),
            (b'$' | b'*' | b'~' | b'%', None) if self.streamed => Some(Length::Streamed),
            (b'$' | b'*', Some(-1)) => Some(Length::Null),
            (_, Some(len)) => u64::try_from(len).ok().map(Length::Of),
            _ => None,
        }
    }
}
