//! What the header lines of a request may say, and what they are checked against.

use super::ProtocolError;
use super::number::Decimal;

/// Bytes a header line or an inline request may have before its end must have
/// come, in bytes (Redis's `PROTO_INLINE_MAX_SIZE`). Redis applies it to what it
/// happens to have read, so a longer line that arrives fast enough passes there;
/// here the line itself is measured, so that the outcome never depends on timing.
pub const LINE_MAX: usize = 64 * 1024;

/// The most arguments a client may announce before it has logged in.
const UNAUTHENTICATED_ARGS_MAX: u64 = 10;
/// The longest argument a client may send before it has logged in, in bytes.
const UNAUTHENTICATED_BULK_MAX: u64 = 16_384;
/// Limits a request is checked against while it is framed.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Longest argument in bytes; at most the backend's `proto-max-bulk-len`,
    /// or the backend closes the connection on it.
    pub bulk_max: u64,
    /// Most arguments in one request. Redis itself stops at 2³¹-1, which holds too.
    pub args_max: u64,
    /// The client has yet to log in: at most 10 arguments of at most 16 KiB.
    pub unauthenticated: bool,
}

impl RequestLimits {
    /// Judges the number behind `*`. Zero and less mean a request of nothing.
    pub(super) fn args(&self, line: HeaderLine) -> Result<u64, ProtocolError> {
        let error = ProtocolError::InvalidMultibulkLength;
        let count = line.number.value().ok_or(error)?;
        let count = u64::try_from(count).unwrap_or(0);
        if count > self.args_max.min(i32::MAX as u64) {
            return Err(error);
        }
        if self.unauthenticated && count > UNAUTHENTICATED_ARGS_MAX {
            return Err(ProtocolError::UnauthenticatedMultibulkLength);
        }
        line.ended_well()?;
        Ok(count)
    }

    /// Judges a line that should be `$` and an argument's length.
    pub(super) fn bulk(&self, line: HeaderLine) -> Result<u64, ProtocolError> {
        if line.kind != b'$' {
            return Err(ProtocolError::ExpectedBulk { got: line.kind });
        }
        let error = ProtocolError::InvalidBulkLength;
        let len = line.number.value().ok_or(error)?;
        let len = u64::try_from(len).map_err(|_| error)?;
        if len > self.bulk_max {
            return Err(error);
        }
        if self.unauthenticated && len > UNAUTHENTICATED_BULK_MAX {
            return Err(ProtocolError::UnauthenticatedBulkLength);
        }
        line.ended_well()?;
        Ok(len)
    }

    /// True if a length needs no second look: the common case of [`Self::bulk`].
    #[inline(always)]
    pub(super) fn bulk_is_fine(&self, len: u64) -> bool {
        len <= self.bulk_max && (len <= UNAUTHENTICATED_BULK_MAX || !self.unauthenticated)
    }

    /// The same for [`Self::args`].
    #[inline(always)]
    pub(super) fn args_are_fine(&self, count: u64) -> bool {
        count <= self.args_max
            && (count <= UNAUTHENTICATED_ARGS_MAX
                || (!self.unauthenticated && count <= i32::MAX as u64))
    }
}

/// A header line that arrives byte by byte: a kind, a number, CRLF.
///
/// As in Redis nothing is judged before the CR and one byte more are there.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct HeaderLine {
    number: Decimal,
    /// Bytes before the CR.
    len: u32,
    /// The first byte, or CR if there is nothing before it.
    kind: u8,
    seen_cr: bool,
    ended_well: bool,
}

impl HeaderLine {
    /// Redis does not look at the byte behind the CR. Letting any byte pass would
    /// make two readers disagree about where frames are.
    fn ended_well(&self) -> Result<(), ProtocolError> {
        if self.ended_well {
            Ok(())
        } else {
            Err(ProtocolError::InvalidLineEnd)
        }
    }

    /// True before its first byte.
    #[inline]
    pub(super) fn is_new(&self) -> bool {
        self.len == 0 && !self.seen_cr
    }

    /// Takes the next byte; true if it ended the line.
    #[inline]
    pub(super) fn push(&mut self, byte: u8, too_big: ProtocolError) -> Result<bool, ProtocolError> {
        if self.seen_cr {
            self.ended_well = byte == b'\n';
            return Ok(true);
        }
        if self.len == 0 {
            self.kind = byte;
        }
        if byte == b'\r' {
            self.seen_cr = true;
            return Ok(false);
        }
        if self.len > 0 {
            self.number.push(byte);
        }
        self.len += 1;
        if self.len as usize > LINE_MAX {
            Err(too_big)
        } else {
            Ok(false)
        }
    }
}
