//! What a blocking command waits for, and for how long.

use super::args::{Args, integer};
use super::class::{Blocking, Class};
use super::table::Command;
use std::fmt;
use std::time::Duration;

/// How long a request wants to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timeout {
    /// Until something arrives.
    Never,
    /// At most this long; whole milliseconds, rounded up as Redis does.
    After(Duration),
    /// Weir cannot tell: a module's command, or a number in a notation that
    /// Redis may understand and Weir does not.
    Unknown,
}

/// Why Redis will refuse a request for its timeout.
///
/// Redis looks at some other arguments first (`BLMOVE`'s directions), so only
/// the server's own answer is exact. Such a request never blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeoutError {
    /// Below zero.
    Negative,
    /// No number of seconds.
    NotAFloat,
    /// No number of milliseconds.
    NotAnInteger,
    /// More milliseconds than 63 bits hold. Redis before 7.2 calls it negative.
    OutOfRange,
}

impl fmt::Display for TimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Negative => "ERR timeout is negative",
            Self::NotAFloat => "ERR timeout is not a float or out of range",
            Self::NotAnInteger => "ERR timeout is not an integer or out of range",
            Self::OutOfRange => "ERR timeout is out of range",
        })
    }
}

impl std::error::Error for TimeoutError {}

/// The argument that holds a request's timeout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeoutArg {
    /// Which argument, the command's name being 0.
    pub index: usize,
    /// In what unit it counts.
    pub unit: Unit,
}

/// The unit of a timeout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Seconds, with a fraction.
    Seconds,
    /// Whole milliseconds.
    Milliseconds,
}

/// Whether this request may block its connection. In doubt it may: a lease that
/// was not needed costs little, a blocked shared connection everybody.
///
/// `XREAD` and `XREADGROUP` block only with `BLOCK`, and `XREADGROUP` only when
/// it asks for nothing but new entries: any other id is answered at once from
/// what the consumer was given before.
pub fn blocks(command: &Command, args: &(impl Args + ?Sized)) -> bool {
    match command.class {
        Class::Blocking(Blocking::StreamRead) => match stream_read(args) {
            Some(read) => read.block.is_some(),
            None => has_word(args, b"block"),
        },
        Class::Blocking(Blocking::StreamGroup) => match stream_read(args) {
            Some(read) => read.block.is_some() && all_new(args, read.ids),
            None => has_word(args, b"block"),
        },
        Class::Blocking(_) | Class::Wait => true,
        _ => false,
    }
}

/// Whether an `XREAD` asks for what is added from now on (`$`), so that asking
/// again later would skip entries.
pub fn reads_from_now(args: &(impl Args + ?Sized)) -> bool {
    match stream_read(args) {
        Some(read) => read.ids.clone().any(|index| args.arg(index) == Some(b"$")),
        None => has_word(args, b"$"),
    }
}

/// Where the request says how long it waits; `None` if it does not block or
/// Weir does not know.
pub fn timeout_arg(command: &Command, args: &(impl Args + ?Sized)) -> Option<TimeoutArg> {
    let last = args.count().checked_sub(1)?;
    let (index, unit) = match command.class {
        Class::Blocking(Blocking::LastSeconds) => (last, Unit::Seconds),
        Class::Blocking(Blocking::FirstSeconds) => (1, Unit::Seconds),
        Class::Blocking(Blocking::StreamRead | Blocking::StreamGroup) => {
            (stream_read(args)?.block?, Unit::Milliseconds)
        }
        Class::Wait => (last, Unit::Milliseconds),
        _ => return None,
    };
    (1..=last)
        .contains(&index)
        .then_some(TimeoutArg { index, unit })
}

/// How long this request wants to wait.
///
/// # Errors
///
/// What Redis says about a timeout that is none.
pub fn timeout(command: &Command, args: &(impl Args + ?Sized)) -> Result<Timeout, TimeoutError> {
    let Some(TimeoutArg { index, unit }) = timeout_arg(command, args) else {
        return Ok(Timeout::Unknown);
    };
    let text = args.arg(index).unwrap_or_default();
    let milliseconds = match unit {
        Unit::Seconds => match seconds(text)? {
            Some(milliseconds) => milliseconds,
            None => return Ok(Timeout::Unknown),
        },
        Unit::Milliseconds => integer(text).ok_or(TimeoutError::NotAnInteger)?,
    };
    match milliseconds {
        0 => Ok(Timeout::Never),
        1.. => Ok(Timeout::After(Duration::from_millis(milliseconds as u64))),
        _ => Err(TimeoutError::Negative),
    }
}

/// Seconds as C reads them, in milliseconds; `None` for hexadecimal, which C
/// accepts.
fn seconds(text: &[u8]) -> Result<Option<i64>, TimeoutError> {
    let text = std::str::from_utf8(text).map_err(|_| TimeoutError::NotAFloat)?;
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.starts_with("0x") || digits.starts_with("0X") {
        return Ok(None);
    }
    let seconds: f64 = text.parse().map_err(|_| TimeoutError::NotAFloat)?;
    let milliseconds = (seconds * 1000.0).ceil();
    if milliseconds.is_nan() {
        Err(TimeoutError::NotAFloat)
    } else if milliseconds >= i64::MAX as f64 {
        Err(TimeoutError::OutOfRange)
    } else {
        // A negative fraction of a millisecond rounds up to zero: forever, as in Redis.
        Ok(Some(milliseconds as i64))
    }
}

/// What the options of an `XREAD` or `XREADGROUP` say.
struct StreamRead {
    /// The argument after the last `BLOCK`.
    block: Option<usize>,
    /// The ids, one for each stream.
    ids: std::ops::Range<usize>,
}

/// Reads the options in front of `STREAMS`; `None` if Redis will refuse them,
/// or knows more of them than Weir.
fn stream_read(args: &(impl Args + ?Sized)) -> Option<StreamRead> {
    let mut block = None;
    let mut index = 1;
    loop {
        let word = args.arg(index)?;
        let is = |option: &str| word.eq_ignore_ascii_case(option.as_bytes());
        if is("streams") {
            let first = index + 1;
            let rest = args.count() - first;
            let ids = first + rest / 2..args.count();
            return (rest > 0 && rest.is_multiple_of(2)).then_some(StreamRead { block, ids });
        } else if is("block") {
            block = Some(index + 1);
            index += 2;
        } else if is("count") || is("claim") {
            index += 2;
        } else if is("group") {
            index += 3;
        } else if is("noack") {
            index += 1;
        } else {
            return None;
        }
    }
}

fn all_new(args: &(impl Args + ?Sized), mut ids: std::ops::Range<usize>) -> bool {
    ids.all(|index| args.arg(index) == Some(b">"))
}

fn has_word(args: &(impl Args + ?Sized), word: &[u8]) -> bool {
    (1..args.count()).any(|index| {
        args.arg(index)
            .is_some_and(|arg| arg.eq_ignore_ascii_case(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Table, retry_safe};

    fn with<T>(request: &str, ask: impl Fn(&Command, &[&str]) -> T) -> T {
        let args: Vec<&str> = request.split(' ').collect();
        let table = Table::builtin();
        ask(
            table.find(args[0].as_bytes(), Some(args[1].as_bytes())),
            &args,
        )
    }

    #[test]
    fn only_a_read_that_may_wait_blocks() {
        for (request, expected) in [
            ("BLPOP k 0", true),
            ("WAIT 1 0", true),
            ("LPOP k", false),
            ("XREAD STREAMS block 0", false),
            ("XREAD COUNT 1 BLOCK 0 STREAMS s $", true),
            ("xread block 0 streams s 0", true),
            ("XREADGROUP GROUP block streams STREAMS s >", false),
            ("XREADGROUP GROUP g c BLOCK 0 NOACK STREAMS s >", true),
            ("XREADGROUP GROUP g c BLOCK 0 STREAMS s t > >", true),
            ("XREADGROUP GROUP g c BLOCK 0 STREAMS s 0", false),
            ("XREADGROUP GROUP g c BLOCK 0 STREAMS s t > 0-0", false),
            // Redis refuses these, but a newer one may not.
            ("XREAD NEWOPTION BLOCK 0 STREAMS s $", true),
            ("XREAD NEWOPTION STREAMS s $", false),
        ] {
            assert_eq!(
                with(request, |command, args| blocks(command, args)),
                expected,
                "{request}"
            );
        }
    }

    #[test]
    fn timeouts_are_read_as_redis_reads_them() {
        let after = |ms| Ok(Timeout::After(Duration::from_millis(ms)));
        for (request, expected) in [
            ("BLPOP k 0", Ok(Timeout::Never)),
            ("BLPOP k 1", after(1000)),
            ("BLPOP k l 0.0001", after(1)),
            ("BLPOP k 1e-2", after(10)),
            ("BLPOP k +.5", after(500)),
            ("BLPOP k -1", Err(TimeoutError::Negative)),
            ("BLPOP k -0.0001", Ok(Timeout::Never)),
            ("BLPOP k abc", Err(TimeoutError::NotAFloat)),
            ("BLPOP k nan", Err(TimeoutError::NotAFloat)),
            ("BLPOP k ", Err(TimeoutError::NotAFloat)),
            ("BLPOP k inf", Err(TimeoutError::OutOfRange)),
            ("BLPOP k 1e20", Err(TimeoutError::OutOfRange)),
            ("BLPOP k 0x1p0", Ok(Timeout::Unknown)),
            ("BLMPOP 2 1 k LEFT", after(2000)),
            ("BLMOVE a b LEFT LEFT 3", after(3000)),
            ("XREAD BLOCK 5 STREAMS s 0", after(5)),
            ("XREAD BLOCK 1 BLOCK 7 STREAMS s 0", after(7)),
            (
                "XREAD BLOCK 1.5 STREAMS s 0",
                Err(TimeoutError::NotAnInteger),
            ),
            (
                "XREAD BLOCK 05 STREAMS s 0",
                Err(TimeoutError::NotAnInteger),
            ),
            ("XREAD BLOCK -1 STREAMS s 0", Err(TimeoutError::Negative)),
            ("WAIT 1 100", after(100)),
            ("WAITAOF 1 1 100", after(100)),
        ] {
            assert_eq!(
                with(request, |command, args| timeout(command, args)),
                expected,
                "{request}"
            );
        }
    }

    #[test]
    fn a_read_from_now_on_is_not_sent_again() {
        for (request, expected) in [
            ("GET k", true),
            ("SET k v", false),
            ("PING x", true),
            ("CONFIG GET", true),
            ("CONFIG SET", false),
            ("EVAL s 0", false),
            ("EVAL_RO s 0", true),
            ("XREAD STREAMS s 0", true),
            ("XREAD STREAMS s $", false),
            ("XREAD BLOCK 0 STREAMS s 0", false),
            ("XREADGROUP GROUP g c STREAMS s 0", false),
            ("PUBLISH c m", false),
        ] {
            let safe = with(request, |command, args| retry_safe(command, args));
            assert_eq!(safe, expected, "{request}");
        }
    }
}
