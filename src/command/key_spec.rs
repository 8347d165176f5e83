//! Where a command's keys are among its arguments.
//!
//! The model is Redis's own: a few specifications, each saying where to begin
//! and how to go on from there. It covers what first/last/step cannot, the
//! commands that count their keys or put them behind a word.

use super::args::Args;
use super::table::Command;
use std::borrow::Cow;

/// One run of keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeySpec {
    /// Where the run begins.
    pub begin: Begin,
    /// Which arguments from there are keys.
    pub find: Find,
}

/// Where a run of keys begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Begin {
    /// At this argument.
    Index(usize),
    /// At this argument unless it is empty: `MIGRATE` names its key here or an
    /// empty one, and then several behind `KEYS`.
    IndexUnlessEmpty(usize),
    /// Behind this word, which is looked for from the argument `start` on, or
    /// backwards from the end if `start` is negative.
    Keyword {
        /// The word, compared in any case.
        word: Cow<'static, str>,
        /// Where the search starts; -1 is the last argument.
        start: isize,
    },
}

/// Which arguments, from the beginning of a run, are keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Find {
    /// From the beginning to `last`.
    Range {
        /// Counted from the beginning; if negative from the end of all
        /// arguments, -1 being the last.
        last: isize,
        /// From one key to the next.
        step: usize,
        /// With `last` -1: only the first 1/`limit` of the rest; 0 and 1 mean all.
        limit: usize,
    },
    /// As many as an argument says.
    Count {
        /// Where the number is, counted from the beginning.
        number: usize,
        /// Where the first key is, counted from the beginning.
        first: usize,
        /// From one key to the next.
        step: usize,
    },
}

/// The indexes of the arguments that are keys, in the order of the command's
/// specifications. Arguments that make no sense (a count that is no number or
/// more than there are arguments) yield none: Redis will refuse them.
pub fn keys<'a>(
    command: &'a Command,
    args: &'a (impl Args + ?Sized),
) -> impl Iterator<Item = usize> + 'a {
    command.keys.iter().flat_map(move |spec| spec.indexes(args))
}

impl KeySpec {
    fn indexes(&self, args: &(impl Args + ?Sized)) -> std::iter::StepBy<std::ops::Range<usize>> {
        let (from, to, step) = self.run(args).unwrap_or((0, 0, 1));
        (from..to).step_by(step.max(1))
    }

    /// First key, one past the last, and the step.
    fn run(&self, args: &(impl Args + ?Sized)) -> Option<(usize, usize, usize)> {
        let count = args.count();
        let begin = self.begin.index(args).filter(|begin| *begin < count)?;
        match self.find {
            Find::Range { last, step, limit } => {
                let end = if last >= 0 {
                    begin.checked_add(last as usize)?.checked_add(1)?
                } else if last == -1 && limit > 1 {
                    begin + (count - begin) / limit
                } else {
                    count.checked_sub(last.unsigned_abs() - 1)?
                };
                Some((begin, end.min(count), step))
            }
            Find::Count {
                number,
                first,
                step,
            } => {
                let keys = std::str::from_utf8(args.arg(begin + number)?).ok()?;
                let keys: usize = keys.parse().ok()?;
                let first = begin + first;
                let end = first.checked_add(keys.checked_mul(step.max(1))?)?;
                (end <= count).then_some((first, end, step))
            }
        }
    }
}

impl Begin {
    fn index(&self, args: &(impl Args + ?Sized)) -> Option<usize> {
        match self {
            Self::Index(index) => Some(*index),
            Self::IndexUnlessEmpty(index) => args
                .arg(*index)
                .filter(|key| !key.is_empty())
                .map(|_| *index),
            Self::Keyword { word, start } => {
                let is_word = |index: &usize| {
                    args.arg(*index)
                        .is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
                };
                let count = args.count();
                let found = if *start >= 0 {
                    (*start as usize..count).find(is_word)
                } else {
                    (1..=count.checked_sub(start.unsigned_abs())?)
                        .rev()
                        .find(is_word)
                };
                found.map(|index| index + 1)
            }
        }
    }
}

/// The places where the built-in commands have their keys.
pub(super) mod places {
    use super::{Begin, Cow, Find, KeySpec};

    pub(in super::super) const NONE: &[KeySpec] = &[];
    /// The first argument.
    pub(in super::super) const FIRST: &[KeySpec] = &[range(1, 0, 1)];
    /// The second argument.
    pub(in super::super) const SECOND: &[KeySpec] = &[range(2, 0, 1)];
    /// The first and the second argument.
    pub(in super::super) const FIRST_TWO: &[KeySpec] = &[range(1, 1, 1)];
    /// All arguments.
    pub(in super::super) const ALL: &[KeySpec] = &[range(1, -1, 1)];
    /// All arguments but the last.
    pub(in super::super) const ALL_BUT_LAST: &[KeySpec] = &[range(1, -2, 1)];
    /// All arguments from the second on.
    pub(in super::super) const FROM_SECOND: &[KeySpec] = &[range(2, -1, 1)];
    /// Every other argument: keys and values.
    pub(in super::super) const PAIRS: &[KeySpec] = &[range(1, -1, 2)];
    /// The first argument counts the keys behind it.
    pub(in super::super) const COUNT_AT_1: &[KeySpec] = &[count(1, 1)];
    /// The second argument counts the keys behind it.
    pub(in super::super) const COUNT_AT_2: &[KeySpec] = &[count(2, 1)];
    /// The first argument counts the pairs of key and value behind it.
    pub(in super::super) const COUNTED_PAIRS: &[KeySpec] = &[count(1, 2)];
    /// A destination, and a count of sources.
    pub(in super::super) const FIRST_AND_COUNT_AT_2: &[KeySpec] = &[range(1, 0, 1), count(2, 1)];
    /// The first half of what is behind `STREAMS`.
    pub(in super::super) const STREAMS: &[KeySpec] = &[streams(1)];
    /// The same, behind `GROUP group consumer`.
    pub(in super::super) const GROUP_STREAMS: &[KeySpec] = &[streams(4)];
    /// `SORT key … [STORE destination]`.
    pub(in super::super) const SORT: &[KeySpec] = &[range(1, 0, 1), after("STORE", 2, 0)];
    /// `GEORADIUS key longitude latitude radius unit … [STORE key]`.
    pub(in super::super) const GEO_STORE: &[KeySpec] = &[
        range(1, 0, 1),
        after("STORE", 6, 0),
        after("STOREDIST", 6, 0),
    ];
    /// `GEORADIUSBYMEMBER key member radius unit … [STORE key]`.
    pub(in super::super) const GEO_MEMBER_STORE: &[KeySpec] = &[
        range(1, 0, 1),
        after("STORE", 5, 0),
        after("STOREDIST", 5, 0),
    ];
    /// `MIGRATE host port key|"" … [KEYS key…]`.
    pub(in super::super) const MIGRATE: &[KeySpec] = &[
        KeySpec {
            begin: Begin::IndexUnlessEmpty(3),
            find: Find::Range {
                last: 0,
                step: 1,
                limit: 0,
            },
        },
        after("KEYS", -2, -1),
    ];

    const fn range(begin: usize, last: isize, step: usize) -> KeySpec {
        KeySpec {
            begin: Begin::Index(begin),
            find: Find::Range {
                last,
                step,
                limit: 0,
            },
        }
    }

    const fn count(begin: usize, step: usize) -> KeySpec {
        KeySpec {
            begin: Begin::Index(begin),
            find: Find::Count {
                number: 0,
                first: 1,
                step,
            },
        }
    }

    const fn after(word: &'static str, start: isize, last: isize) -> KeySpec {
        KeySpec {
            begin: Begin::Keyword {
                word: Cow::Borrowed(word),
                start,
            },
            find: Find::Range {
                last,
                step: 1,
                limit: 0,
            },
        }
    }

    const fn streams(start: isize) -> KeySpec {
        KeySpec {
            begin: Begin::Keyword {
                word: Cow::Borrowed("STREAMS"),
                start,
            },
            find: Find::Range {
                last: -1,
                step: 1,
                limit: 2,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Table;
    use super::*;

    fn keys_of(request: &str) -> Vec<String> {
        let args: Vec<&str> = request
            .split(' ')
            .map(|arg| arg.trim_matches('"'))
            .collect();
        let table = Table::builtin();
        let command = table.find(args[0].as_bytes(), args.get(1).map(|sub| sub.as_bytes()));
        assert!(command.exists(), "{request}");
        keys(command, args.as_slice())
            .map(|index| args[index].to_owned())
            .collect()
    }

    #[test]
    fn keys_are_where_redis_says_command_getkeys() {
        for (request, expected) in [
            ("PING", ""),
            ("GET k", "k"),
            ("MGET a b c", "a b c"),
            ("MSET a 1 b 2", "a b"),
            ("BLPOP a b 0", "a b"),
            ("RENAME a b", "a b"),
            ("BITOP AND d a b", "d a b"),
            ("OBJECT ENCODING k", "k"),
            ("EVAL script 2 a b x y", "a b"),
            ("EVAL script 0 x y", ""),
            ("EVAL script 9 x y", ""),
            ("EVAL script -1 x y", ""),
            ("ZUNIONSTORE d 2 a b WEIGHTS 1 2", "d a b"),
            ("ZUNION 2 a b", "a b"),
            ("BLMPOP 0 2 a b LEFT", "a b"),
            ("XREAD COUNT 1 STREAMS a b 0 0", "a b"),
            ("XREADGROUP GROUP streams c STREAMS a b > >", "a b"),
            ("SORT k BY w DESC STORE d", "k d"),
            ("SORT k", "k"),
            ("GEORADIUS k 1 2 3 m STORE d", "k d"),
            ("GEORADIUSBYMEMBER k m 3 m STOREDIST d", "k d"),
            ("MIGRATE h 1 k 0 5", "k"),
            ("MIGRATE h 1 \"\" 0 5 KEYS a b", "a b"),
            ("PFMERGE d a b", "d a b"),
            ("SUBSCRIBE c", ""),
        ] {
            assert_eq!(keys_of(request).join(" "), expected, "{request}");
        }
    }
}
