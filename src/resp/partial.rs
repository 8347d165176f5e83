//! A request whose bytes come in pieces.

use super::number::whole_length;
use super::request::ARG_LEN_MIN;
use super::request_header::HeaderLine;
use super::{LINE_MAX, ProtocolError, RequestLimits};

/// Follows one request through the pieces it arrives in, keeping none of them.
///
/// It is fed only with bytes it has not seen, so a frame split at every byte
/// costs no more than one that comes whole, and a large request can be streamed
/// on while it is framed. It finds the same frames and errors as
/// [`super::scan_request`]. When a frame is complete the next byte begins
/// another; after an error it is of no further use.
#[derive(Clone, Debug, Default)]
pub struct PartialRequest {
    part: Part,
    /// Arguments that have not begun, the one whose header is being read included.
    args_left: u64,
    /// Bytes of this frame so far.
    arrived: u64,
}

/// What the next byte belongs to.
#[derive(Clone, Debug, Default)]
enum Part {
    #[default]
    Start,
    /// An inline line of so many bytes until now.
    Inline { len: usize },
    /// The line that counts the arguments.
    Count(HeaderLine),
    /// The line that gives an argument's length.
    BulkHeader(HeaderLine),
    /// An argument and the two bytes behind it, of which so many are still to come.
    Bulk { left: u64 },
}

/// What one piece brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fed {
    /// How many bytes of the piece belong to this frame; all unless `complete`.
    pub consumed: usize,
    /// The frame's end was reached.
    pub complete: bool,
    /// Bytes from the start of the frame that are known to be required; its
    /// length if complete. See [`super::Scan::Incomplete`].
    pub needed: u64,
}

impl PartialRequest {
    /// Takes the next bytes, up to the end of the frame.
    ///
    /// # Errors
    /// The same as [`super::scan_request`] gives for the whole.
    pub fn feed(&mut self, chunk: &[u8], limits: &RequestLimits) -> Result<Fed, ProtocolError> {
        let mut at = 0;
        while at < chunk.len() {
            let (consumed, complete) = self.step(&chunk[at..], limits)?;
            at += consumed;
            self.arrived += consumed as u64;
            if complete {
                let needed = self.arrived;
                *self = Self::default();
                return Ok(Fed {
                    consumed: at,
                    complete,
                    needed,
                });
            }
        }
        Ok(Fed {
            consumed: at,
            complete: false,
            needed: self.needed(),
        })
    }

    /// True between frames: nothing of the next one has arrived.
    pub fn at_boundary(&self) -> bool {
        self.arrived == 0
    }

    fn needed(&self) -> u64 {
        let rest = match self.part {
            Part::Start | Part::Inline { .. } | Part::Count(_) => 1,
            // Part of the header is there already; what is missing of this
            // argument is left out, the next byte apart.
            Part::BulkHeader(_) => 1 + (self.args_left - 1) * ARG_LEN_MIN,
            Part::Bulk { left } => left + self.args_left * ARG_LEN_MIN,
        };
        self.arrived + rest
    }

    /// Takes some bytes of what is not empty: how many, and if they end the frame.
    #[inline]
    fn step(
        &mut self,
        rest: &[u8],
        limits: &RequestLimits,
    ) -> Result<(usize, bool), ProtocolError> {
        match &mut self.part {
            Part::Start if rest[0] == b'*' => {
                self.part = Part::Count(HeaderLine::default());
                Ok((0, false))
            }
            Part::Start => {
                self.part = Part::Inline { len: 0 };
                Ok((0, false))
            }
            Part::Inline { len } => inline(rest, len),
            Part::Count(line) => {
                if line.push(rest[0], ProtocolError::CountTooBig)? {
                    self.args_left = limits.args(*line)?;
                    return Ok((1, self.begin_argument()));
                }
                Ok((1, false))
            }
            Part::BulkHeader(line) => {
                if line.is_new()
                    && rest[0] == b'$'
                    && let Some((len, consumed)) = whole_length(rest, 1)
                    && limits.bulk_is_fine(len)
                {
                    self.begin_bulk(len);
                    return Ok((consumed, false));
                }
                if line.push(rest[0], ProtocolError::BulkHeaderTooBig)? {
                    let len = limits.bulk(*line)?;
                    self.begin_bulk(len);
                }
                Ok((1, false))
            }
            Part::Bulk { left } => {
                let consumed = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                *left -= consumed as u64;
                let ended = *left == 0;
                Ok((consumed, ended && self.begin_argument()))
            }
        }
    }

    /// Expects the next argument; true if there is none.
    fn begin_argument(&mut self) -> bool {
        self.part = Part::BulkHeader(HeaderLine::default());
        self.args_left == 0
    }

    /// Expects an argument of `len` bytes and the two behind it.
    fn begin_bulk(&mut self, len: u64) {
        self.args_left -= 1;
        self.part = Part::Bulk { left: len + 2 };
    }
}

/// Looks for the newline in what follows `len` bytes of the line.
fn inline(rest: &[u8], len: &mut usize) -> Result<(usize, bool), ProtocolError> {
    let line_rest = &rest[..rest.len().min(LINE_MAX + 1 - *len)];
    match memchr::memchr(b'\n', line_rest) {
        Some(newline) => Ok((newline + 1, true)),
        None => {
            *len += line_rest.len();
            if *len > LINE_MAX {
                return Err(ProtocolError::InlineTooBig);
            }
            Ok((line_rest.len(), false))
        }
    }
}
