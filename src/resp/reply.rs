//! Where a reply ends.

use super::ReplyError;
use super::number::whole_length;
use super::reply_header::{Length, ReplyHeader};
use super::reply_scalar::{behind_line, whole_scalar};

/// How many aggregates may be open within each other. Redis nests a few itself, but
/// what a script returns goes as deep as Lua's stack allows, which is 8,000
/// (`LUAI_MAXCSTACK`): any client can have that sent, and the connection that it is
/// sent on must survive it. Beyond this the peer is not to be trusted.
pub const DEPTH_MAX: usize = 16 * 1024;

/// Follows the replies of a connection through the pieces they arrive in.
///
/// It reads RESP2 and RESP3, streamed types included, without recursion and
/// without keeping any bytes. Between replies, and within flat ones, it owns no
/// memory beyond itself. What is inside a line (`+`, `-`, `:`, `,`, `#`, `(`,
/// `_`) is the client's business; lengths are not.
///
/// After an error it is of no further use, nor is the connection: nobody knows
/// where the next reply begins.
#[derive(Clone, Debug)]
pub struct ReplyScanner {
    state: State,
    /// The innermost open aggregate.
    level: Level,
    /// The aggregates around it, outermost first; the root is not among them.
    outer: Vec<Level>,
    depth_max: usize,
    /// Some bytes of a reply have come, but not its last.
    within: bool,
}

/// What one piece brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyFed {
    /// How many bytes of the piece belong to this reply; all unless `complete`.
    pub consumed: usize,
    /// The reply's end was reached.
    pub complete: bool,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// The first byte of a value.
    #[default]
    Type,
    /// What is behind a type byte, up to its CR.
    Header(ReplyHeader),
    /// The newline of a header.
    HeaderEnd { kind: u8, length: Length },
    /// A line without a length, up to CRLF.
    Line { seen_cr: bool },
    /// The bytes of a string; CRLF comes behind them.
    Bulk { left: u64, chunk: bool },
    /// The CRLF behind a string.
    BulkEnd { seen_cr: bool, chunk: bool },
    /// The first byte of the next chunk of a streamed string.
    Chunk,
}

/// One open aggregate.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    /// Values still to come, where they are counted.
    left: u64,
    kind: LevelKind,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LevelKind {
    /// Not within any aggregate.
    #[default]
    Root,
    /// An array, set, push or map of so many values.
    Counted,
    /// A counted map that comes before a value and belongs to it.
    Attribute,
    /// An array or set that ends with `.`.
    Streamed,
    /// A map that ends with `.`; `left` is 1 while a value is due.
    StreamedMap,
}

/// Whether a step ended the reply.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reply {
    Complete,
    GoesOn,
}

impl Default for ReplyScanner {
    fn default() -> Self {
        Self::with_depth_max(DEPTH_MAX)
    }
}

impl ReplyScanner {
    /// A scanner that refuses replies nested deeper than `depth_max` aggregates.
    pub(super) fn with_depth_max(depth_max: usize) -> Self {
        Self {
            state: State::Type,
            level: Level::default(),
            outer: Vec::new(),
            depth_max,
            within: false,
        }
    }

    /// Takes bytes up to the end of one top-level reply. An attribute belongs to
    /// the reply it precedes; a push is a reply of its own.
    ///
    /// # Errors
    /// When the bytes are not RESP; see [`ReplyError`].
    #[inline]
    pub fn feed(&mut self, chunk: &[u8]) -> Result<ReplyFed, ReplyError> {
        if !self.within
            && let Some(consumed) = whole_scalar(chunk)
        {
            return Ok(ReplyFed {
                consumed,
                complete: true,
            });
        }
        self.feed_on(chunk)
    }

    /// True between replies.
    #[inline]
    pub fn at_boundary(&self) -> bool {
        !self.within
    }

    fn feed_on(&mut self, chunk: &[u8]) -> Result<ReplyFed, ReplyError> {
        let mut rest = chunk;
        while !rest.is_empty() {
            self.within = true;
            let (consumed, reply) = self.step(rest)?;
            rest = &rest[consumed..];
            if reply == Reply::Complete {
                self.within = false;
                return Ok(ReplyFed {
                    consumed: chunk.len() - rest.len(),
                    complete: true,
                });
            }
        }
        Ok(ReplyFed {
            consumed: chunk.len(),
            complete: false,
        })
    }

    /// Takes some bytes of what is not empty: how many, and if they end the reply.
    #[inline]
    fn step(&mut self, rest: &[u8]) -> Result<(usize, Reply), ReplyError> {
        match self.state {
            State::Type => self.value(rest),
            State::Header(mut header) => {
                self.state = match header.push(rest[0])? {
                    Some(length) => State::HeaderEnd {
                        kind: header.kind,
                        length,
                    },
                    None => State::Header(header),
                };
                Ok((1, Reply::GoesOn))
            }
            State::HeaderEnd { kind, length } => match rest[0] {
                b'\n' => Ok((1, self.begin(kind, length)?)),
                _ => Err(ReplyError::MissingLineEnd),
            },
            State::Line { seen_cr: true } if rest[0] == b'\n' => Ok((1, self.end_value())),
            State::Line { .. } => Ok(match behind_line(rest) {
                Some(consumed) => (consumed, self.end_value()),
                None => {
                    self.state = State::Line {
                        seen_cr: rest.last() == Some(&b'\r'),
                    };
                    (rest.len(), Reply::GoesOn)
                }
            }),
            State::Bulk { left, chunk } => {
                let consumed = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                self.expect_bulk(left - consumed as u64, chunk);
                Ok((consumed, Reply::GoesOn))
            }
            State::BulkEnd { seen_cr, chunk } => match (seen_cr, rest[0], chunk) {
                (false, b'\r', _) => {
                    self.state = State::BulkEnd {
                        seen_cr: true,
                        chunk,
                    };
                    Ok((1, Reply::GoesOn))
                }
                (true, b'\n', false) => Ok((1, self.end_value())),
                (true, b'\n', true) => {
                    self.state = State::Chunk;
                    Ok((1, Reply::GoesOn))
                }
                _ => Err(ReplyError::MissingLineEnd),
            },
            State::Chunk if rest[0] == b';' => {
                self.state = State::Header(ReplyHeader::new(b';'));
                Ok((1, Reply::GoesOn))
            }
            State::Chunk => Err(ReplyError::UnknownType { got: rest[0] }),
        }
    }

    /// Takes a value if it is simple and wholly there, else the beginning of one.
    #[inline]
    fn value(&mut self, rest: &[u8]) -> Result<(usize, Reply), ReplyError> {
        if let Some(consumed) = whole_scalar(rest) {
            return Ok((consumed, self.end_value()));
        }
        match rest[0] {
            kind @ (b'$' | b'*' | b'%' | b'~' | b'>' | b'|' | b'=' | b'!') => {
                if let Some((len, consumed)) = whole_length(rest, 1) {
                    return Ok((consumed, self.begin(kind, Length::Of(len))?));
                }
                self.state = State::Header(ReplyHeader::new(kind));
            }
            b'.' => self.state = State::Header(ReplyHeader::new(b'.')),
            b'+' | b'-' | b':' | b',' | b'_' | b'#' | b'(' => {
                self.state = State::Line { seen_cr: false };
            }
            got => return Err(ReplyError::UnknownType { got }),
        }
        Ok((1, Reply::GoesOn))
    }

    /// Acts on a header that is complete.
    fn begin(&mut self, kind: u8, length: Length) -> Result<Reply, ReplyError> {
        // A length is at most `i64::MAX`, so twice as many values can be counted.
        match (kind, length) {
            (b'.', _) => return self.end_stream(),
            // Too short for the format and its colon that every verbatim string begins with.
            (b'=', Length::Of(..4)) => return Err(ReplyError::InvalidLength { kind }),
            (b'$' | b'=' | b'!', Length::Of(len)) => self.expect_bulk(len, false),
            (b'$', Length::Streamed) => self.state = State::Chunk,
            (b';', Length::Of(len @ 1..)) => self.expect_bulk(len, true),
            (b'*' | b'~' | b'>', Length::Of(left @ 1..)) => {
                self.open(Level {
                    left,
                    kind: LevelKind::Counted,
                })?;
            }
            (b'%', Length::Of(len @ 1..)) => {
                self.open(Level {
                    left: len * 2,
                    kind: LevelKind::Counted,
                })?;
            }
            (b'|', Length::Of(len @ 1..)) => {
                self.open(Level {
                    left: len * 2,
                    kind: LevelKind::Attribute,
                })?;
            }
            // An attribute of nothing still stands before a value.
            (b'|', _) => self.state = State::Type,
            (b'*' | b'~', Length::Streamed) => {
                self.open(Level {
                    left: 0,
                    kind: LevelKind::Streamed,
                })?;
            }
            (b'%', Length::Streamed) => {
                self.open(Level {
                    left: 0,
                    kind: LevelKind::StreamedMap,
                })?;
            }
            // Null, an empty aggregate, or the last chunk of a streamed string.
            _ => return Ok(self.end_value()),
        }
        Ok(Reply::GoesOn)
    }

    fn expect_bulk(&mut self, left: u64, chunk: bool) {
        self.state = match left {
            0 => State::BulkEnd {
                seen_cr: false,
                chunk,
            },
            _ => State::Bulk { left, chunk },
        };
    }

    /// Goes into an aggregate.
    fn open(&mut self, level: Level) -> Result<(), ReplyError> {
        if self.level.kind != LevelKind::Root {
            if self.outer.len() + 1 >= self.depth_max {
                return Err(ReplyError::TooDeep);
            }
            self.outer.push(self.level);
        }
        self.level = level;
        self.state = State::Type;
        Ok(())
    }

    /// Goes out of an aggregate.
    fn close(&mut self) {
        self.level = self.outer.pop().unwrap_or_default();
    }

    fn end_stream(&mut self) -> Result<Reply, ReplyError> {
        match self.level {
            Level {
                kind: LevelKind::Streamed | LevelKind::StreamedMap,
                left: 0,
            } => {
                self.close();
                Ok(self.end_value())
            }
            _ => Err(ReplyError::UnexpectedStreamEnd),
        }
    }

    /// Counts a value that is complete, and the aggregates that it completes.
    #[inline]
    fn end_value(&mut self) -> Reply {
        self.state = State::Type;
        loop {
            match self.level.kind {
                LevelKind::Counted if self.level.left > 1 => self.level.left -= 1,
                LevelKind::Counted => {
                    self.close();
                    continue;
                }
                LevelKind::Root => return Reply::Complete,
                LevelKind::Attribute if self.level.left > 1 => self.level.left -= 1,
                LevelKind::Attribute => self.close(),
                LevelKind::Streamed => {}
                LevelKind::StreamedMap => self.level.left ^= 1,
            }
            return Reply::GoesOn;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lengths of the replies that `input` begins with, fed at once and byte
    /// by byte, and what went wrong then.
    fn replies(input: &[u8]) -> (Vec<usize>, Option<ReplyError>) {
        let in_pieces_of = |size: usize| {
            let mut scanner = ReplyScanner::default();
            let (mut lens, mut len) = (Vec::new(), 0);
            for mut chunk in input.chunks(size) {
                while !chunk.is_empty() {
                    let fed = match scanner.feed(chunk) {
                        Ok(fed) => fed,
                        Err(error) => return (lens, Some(error)),
                    };
                    chunk = &chunk[fed.consumed..];
                    len += fed.consumed;
                    if fed.complete {
                        assert!(scanner.at_boundary());
                        lens.push(len);
                        len = 0;
                    }
                }
            }
            assert_eq!(scanner.at_boundary(), len == 0);
            (lens, None)
        };
        let whole = in_pieces_of(input.len().max(1));
        assert_eq!(in_pieces_of(1), whole, "{}", input.escape_ascii());
        whole
    }

    #[test]
    fn every_type_ends_where_it_should() {
        for reply in [
            "+OK\r\n",
            "-ERR no\r\n",
            ":12\r\n",
            "$3\r\nfoo\r\n",
            "$0\r\n\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "*0\r\n",
            "*2\r\n:1\r\n$1\r\nx\r\n",
            "*2\r\n*1\r\n+a\r\n*0\r\n",
            "_\r\n",
            ",1.5\r\n",
            "#t\r\n",
            "(123456789012345678901234567890\r\n",
            "!5\r\nERR x\r\n",
            "=6\r\ntxt:hi\r\n",
            "%1\r\n+a\r\n:1\r\n",
            "%0\r\n",
            "~2\r\n:1\r\n:2\r\n",
            ">2\r\n+message\r\n+x\r\n",
            "|1\r\n+ttl\r\n:3\r\n$1\r\nv\r\n",
            "|0\r\n+OK\r\n",
            "*2\r\n|1\r\n+a\r\n%1\r\n:1\r\n*0\r\n:7\r\n:8\r\n",
            "$?\r\n;2\r\nab\r\n;1\r\nc\r\n;0\r\n",
            "*?\r\n:1\r\n*1\r\n:2\r\n.\r\n",
            "~?\r\n.\r\n",
            "%?\r\n+a\r\n:1\r\n+b\r\n$?\r\n;0\r\n.\r\n",
            "+a line longer than what is looked at byte by byte\r\n",
            "+lone \r and \n stay inside\r\r\n",
        ] {
            let twice = [reply, reply].concat();
            let len = reply.len();
            assert_eq!(
                replies(twice.as_bytes()),
                (vec![len, len], None),
                "{reply:?}"
            );
        }
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        use ReplyError::*;
        for (input, error) in [
            ("x\r\n", UnknownType { got: b'x' }),
            ("\r\n", UnknownType { got: b'\r' }),
            (";1\r\n", UnknownType { got: b';' }),
            ("*1\r\n;", UnknownType { got: b';' }),
            ("$?\r\n+", UnknownType { got: b'+' }),
            ("$x", InvalidLength { kind: b'$' }),
            ("$\r", InvalidLength { kind: b'$' }),
            ("$-2\r", InvalidLength { kind: b'$' }),
            ("$01", InvalidLength { kind: b'$' }),
            ("$+1", InvalidLength { kind: b'$' }),
            ("$9223372036854775808\r", InvalidLength { kind: b'$' }),
            ("=3\r\n", InvalidLength { kind: b'=' }),
            ("*-2\r", InvalidLength { kind: b'*' }),
            ("%-1\r", InvalidLength { kind: b'%' }),
            ("%9223372036854775808\r", InvalidLength { kind: b'%' }),
            (">?\r", InvalidLength { kind: b'>' }),
            ("|?\r", InvalidLength { kind: b'|' }),
            ("*?1", InvalidLength { kind: b'*' }),
            ("*-?", InvalidLength { kind: b'*' }),
            ("*?\r\n.1", InvalidLength { kind: b'.' }),
            ("$?\r\n;-1\r", InvalidLength { kind: b';' }),
            ("$1\rx", MissingLineEnd),
            ("$1\r\nabc", MissingLineEnd),
            ("$1\r\na\rx", MissingLineEnd),
            (".\r\n", UnexpectedStreamEnd),
            ("*1\r\n.\r\n", UnexpectedStreamEnd),
            ("%?\r\n+a\r\n.\r\n", UnexpectedStreamEnd),
        ] {
            let after_one = ["+OK\r\n", input].concat();
            assert_eq!(
                replies(after_one.as_bytes()),
                (vec![5], Some(error)),
                "{input:?}"
            );
        }
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |depth: usize| [&b"*1\r\n".repeat(depth)[..], b":1\r\n"].concat();
        let deepest = nested(DEPTH_MAX);
        assert_eq!(replies(&deepest), (vec![deepest.len()], None));
        assert_eq!(
            replies(&nested(DEPTH_MAX + 1)),
            (vec![], Some(ReplyError::TooDeep))
        );
    }

    #[test]
    fn a_flat_reply_takes_no_memory() {
        let mut scanner = ReplyScanner::default();
        let flat = [&b"*3\r\n"[..], &b"$1\r\nx\r\n".repeat(3)].concat();
        assert!(scanner.feed(&flat).expect("RESP").complete);
        assert_eq!(scanner.outer.capacity(), 0);
    }

    #[test]
    fn a_huge_announcement_is_only_counted() {
        for input in [
            "*9223372036854775807\r\n$9223372036854775807\r\nx",
            "%9223372036854775807\r\n:1",
        ] {
            assert_eq!(replies(input.as_bytes()), (vec![], None), "{input:?}");
        }
    }
}
