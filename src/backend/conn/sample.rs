//! Two samples of all replies, and each one that is too large to come at once: what is needed of
//! them to tell which keys are hot, taken from the request while it is still kept, and to
//! trace the command. All other commands pay one counter that goes down.

use super::Conn;
use crate::backend::entry::{Entry, Marks};

/// Of a request so much is kept: enough for the keys of most.
const REQUEST_MAX: usize = 1024;

/// Of one read so many are kept.
const KEPT_MAX: usize = 256;

/// Replies that come in parts are told from here on, in bytes: others are too many.
const LARGE_FROM: u64 = 64 * 1024;

/// Commands that are not a client's, or another worker's, which sees to them itself.
const NOT_SAMPLED: Marks = Marks::LINK
    .with(Marks::LOBBY)
    .with(Marks::SUBSCRIBE)
    .with(Marks::LOST);

/// Which reply is the next of a sample. Lent to a connection for [`Conn::receive`].
#[derive(Clone, Copy, Debug)]
pub struct Sampler {
    /// The next of either sample is so many replies away; never 0.
    left: u32,
    /// It was so many away when that was last decided.
    from: u32,
    keys: Draw,
    traces: Draw,
}

/// One in how many is taken, by sample; 0 for none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OneIn {
    /// For hot keys.
    pub keys: u32,
    /// For traces.
    pub traces: u32,
}

/// In which samples a reply is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Due {
    /// In that for hot keys.
    pub keys: bool,
    /// In that for traces.
    pub traces: bool,
}

/// One of the two samples.
#[derive(Clone, Copy, Debug)]
struct Draw {
    one_in: u32,
    left: u32,
    random: u32,
}

impl Draw {
    fn new(one_in: u32, seed: u32) -> Draw {
        let mut draw = Draw {
            one_in,
            left: 0,
            random: seed | 1,
        };
        draw.next();
        draw
    }

    /// Not every so many: clients that repeat a pattern would always show the same of it.
    fn next(&mut self) {
        // Marsaglia's xorshift.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.left = match self.one_in {
            0 => u32::MAX,
            one_in => self.random % (one_in.saturating_mul(2) - 1) + 1,
        };
    }

    /// So many replies have gone by; whether the last was one of the sample.
    fn pass(&mut self, replies: u32) -> bool {
        self.left -= replies;
        let is_due = self.left == 0;
        if is_due {
            self.next();
        }
        is_due && self.one_in > 0
    }
}

impl Default for Sampler {
    fn default() -> Sampler {
        Sampler::new(OneIn::default(), 1)
    }
}

impl Sampler {
    /// One that takes one in so many, in an order of its own.
    pub fn new(one_in: OneIn, seed: u32) -> Sampler {
        let keys = Draw::new(one_in.keys, seed);
        let traces = Draw::new(one_in.traces, seed.rotate_left(16) ^ 0x9E37_79B9);
        let left = keys.left.min(traces.left);
        Sampler {
            left,
            from: left,
            keys,
            traces,
        }
    }

    /// One in how many it takes.
    pub fn one_in(&self) -> OneIn {
        OneIn {
            keys: self.keys.one_in,
            traces: self.traces.one_in,
        }
    }

    /// In which samples a reply is that was not one of a connection: Weir's own.
    pub fn draw(&mut self) -> Due {
        match self.is_due() {
            true => self.next(),
            false => Due::default(),
        }
    }

    #[inline]
    pub(super) fn is_due(&mut self) -> bool {
        self.left -= 1;
        self.left == 0
    }

    /// In which samples the reply is that is due.
    fn next(&mut self) -> Due {
        let due = Due {
            keys: self.keys.pass(self.from),
            traces: self.traces.pass(self.from),
        };
        self.left = self.keys.left.min(self.traces.left);
        self.from = self.left;
        due
    }
}

/// A reply that was looked at.
#[derive(Debug)]
pub struct SampledReply {
    /// Whose, and which command.
    pub entry: Entry,
    /// The beginning of the request; nothing if it is only to be traced.
    pub request: Vec<u8>,
    /// Bytes of the reply.
    pub reply_bytes: u64,
    /// In which samples it is. In neither, it is only large.
    pub due: Due,
    /// It is large, or in the sample for hot keys, if there is one.
    pub for_keys: bool,
    /// When the request was written to the node, if it was by this worker.
    pub written_at: Option<u64>,
    /// If the reply is an error, its first word.
    pub error: Option<&'static str>,
}

/// Which reply it is that may be looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// Its number in this read, from 0.
    pub(super) nth: usize,
    /// Where its request begins in the ring.
    pub(super) start: usize,
    /// What has come of it in this read.
    pub(super) last: &'a [u8],
}

impl Conn {
    #[cold]
    pub(super) fn note_sample(&mut self, entry: &Entry, place: Place<'_>, is_due: bool) {
        let mut due = match is_due {
            true => self.sampler.next(),
            false => Due::default(),
        };
        // Who waits no longer has been told, and that is what was traced.
        due.traces &= !entry.marks.any(Marks::ANSWERED);
        let reply_bytes = (self.streamed + self.carry.len() + place.last.len()) as u64;
        let for_keys = self.sampler.keys.one_in > 0 && (due.keys || reply_bytes >= LARGE_FROM);
        if !(for_keys || due.traces)
            || entry.marks.any(NOT_SAMPLED)
            || self.sampled.len() == KEPT_MAX
        {
            return;
        }
        let start = place.start.min(self.ring.len());
        let kept = self.ring.len() - start;
        let len = match for_keys {
            true => (entry.len as usize).min(REQUEST_MAX).min(kept),
            false => 0,
        };
        self.sampled.push(SampledReply {
            entry: *entry,
            request: self.ring.copy(start, len),
            reply_bytes,
            due,
            for_keys,
            written_at: due.traces.then(|| self.written_of(place.nth)).flatten(),
            error: match self.head_started {
                true => None,
                false => error_word(&self.carry, place.last),
            },
        });
    }
}

/// The first words of errors that Redis and its modules know, as of 8.0. Scripts may say
/// what they like in place of one, a value too.
const ERROR_WORDS: &[&str] = &[
    "ASK",
    "BUSY",
    "BUSYGROUP",
    "BUSYKEY",
    "CLUSTERDOWN",
    "CROSSSLOT",
    "DENIED",
    "ERR",
    "EXECABORT",
    "FAILOVER",
    "INPROG",
    "INVALIDOBJ",
    "IOERR",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOADDR",
    "NOAUTH",
    "NOGOODSLAVE",
    "NOGROUP",
    "NOMASTERLINK",
    "NOPERM",
    "NOPROTO",
    "NOREPLICAS",
    "NOSCRIPT",
    "NOTBUSY",
    "NOTREADY",
    "OOM",
    "READONLY",
    "SYNTAX",
    "TRYAGAIN",
    "UNBLOCKED",
    "UNKILLABLE",
    "WRONGPASS",
    "WRONGTYPE",
];

/// What stands for any other, as OpenTelemetry has it for `error.type`.
const OTHER_ERROR: &str = "_OTHER";

/// The first word of a reply in two parts, if it is an error.
fn error_word(first: &[u8], rest: &[u8]) -> Option<&'static str> {
    const LOOKED_AT: usize = 32;
    let mut start: Vec<u8> = first.iter().take(LOOKED_AT).copied().collect();
    start.extend(rest.iter().take(LOOKED_AT));
    let text = match start.split_first()? {
        (b'-', text) => text,
        // In RESP3 its length comes first.
        (b'!', text) => text.splitn(2, |byte| *byte == b'\n').nth(1)?,
        _ => return None,
    };
    let word = text.split(|byte| !byte.is_ascii_uppercase()).next()?;
    let known = ERROR_WORDS.iter().find(|known| known.as_bytes() == word);
    Some(known.copied().unwrap_or(OTHER_ERROR))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(keys: u32, traces: u32) -> Sampler {
        Sampler::new(OneIn { keys, traces }, 42)
    }

    #[test]
    fn on_average_one_in_so_many_is_due_in_each_sample() {
        for (keys, traces) in [(1u32, 100u32), (2, 2), (100, 0), (0, 100), (1000, 7)] {
            let mut sampler = sampler(keys, traces);
            let (mut for_keys, mut for_traces) = (0u32, 0u32);
            let replies = 10_000_000;
            for _ in 0..replies {
                let due = sampler.draw();
                for_keys += u32::from(due.keys);
                for_traces += u32::from(due.traces);
            }
            for (taken, one_in) in [(for_keys, keys), (for_traces, traces)] {
                let wanted = f64::from(replies) / f64::from(one_in.max(1));
                match one_in {
                    0 => assert_eq!(taken, 0),
                    _ => assert!(
                        (f64::from(taken) / wanted - 1.0).abs() < 0.05,
                        "{taken} of one in {one_in}"
                    ),
                }
            }
        }
    }

    #[test]
    fn none_is_due_if_none_is_wanted() {
        let mut sampler = sampler(0, 0);
        assert!((0..100_000).all(|_| sampler.draw() == Due::default()));
    }

    #[test]
    fn an_error_is_told_by_a_word_that_is_no_secret() {
        assert_eq!(error_word(b"", b"-ERR unknown\r\n"), Some("ERR"));
        assert_eq!(
            error_word(b"-WRO", b"NGTYPE Operation\r\n"),
            Some("WRONGTYPE")
        );
        assert_eq!(
            error_word(b"", b"!21\r\nSYNTAX invalid syntax\r\n"),
            Some("SYNTAX")
        );
        assert_eq!(
            error_word(b"", b"-HUNTER2 is the password\r\n"),
            Some("_OTHER")
        );
        assert_eq!(error_word(b"", b"-\r\n"), Some("_OTHER"));
        assert_eq!(error_word(b"", b"+OK\r\n"), None);
        assert_eq!(error_word(b"", b""), None);
    }
}
