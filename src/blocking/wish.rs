//! What a blocking command waits for, so that those who wait for the same can share.

use std::sync::Arc;

use super::stream::StreamId;
use crate::command::{Args, integer};

/// A queue and the way something is taken from it. Waiters with equal queues can take
/// each other's place.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Queue {
    /// The command, without keys and timeout.
    pub shape: Arc<Shape>,
    /// The keys, in the order of preference.
    pub keys: Arc<[Vec<u8>]>,
}

/// How a command is written around its keys.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Shape {
    /// `BLPOP key… timeout`; the name in capitals.
    Last(&'static str),
    /// `BLMPOP timeout numkeys key… LEFT COUNT 2`.
    First(&'static str, Vec<Vec<u8>>),
    /// `BLMOVE source destination LEFT RIGHT timeout`. Its reply does not name the key.
    Move(&'static str, Vec<Vec<u8>>),
}

impl Queue {
    /// The command for these keys and this timeout.
    pub fn command(&self, keys: &[&[u8]], timeout: &str, out: &mut super::Batch) {
        let count = keys.len().to_string();
        let mut args: Vec<&[u8]> = Vec::with_capacity(keys.len() + 6);
        match &*self.shape {
            Shape::Last(name) => {
                args.push(name.as_bytes());
                args.extend_from_slice(keys);
                args.push(timeout.as_bytes());
            }
            Shape::First(name, tail) => {
                args.extend([name.as_bytes(), timeout.as_bytes(), count.as_bytes()]);
                args.extend_from_slice(keys);
                args.extend(tail.iter().map(Vec::as_slice));
            }
            Shape::Move(name, tail) => {
                args.push(name.as_bytes());
                args.extend_from_slice(keys);
                args.extend(tail.iter().map(Vec::as_slice));
                args.push(timeout.as_bytes());
            }
        }
        out.push(&args);
    }

    /// The command for its own keys.
    pub fn own_command(&self, timeout: &str, out: &mut super::Batch) {
        let keys: Vec<&[u8]> = self.keys.iter().map(Vec::as_slice).collect();
        self.command(&keys, timeout, out);
    }

    /// Whether it can be waited for together with other keys: the reply names the key,
    /// and there is no order of preference among several.
    pub fn can_unite(&self) -> bool {
        self.keys.len() == 1 && !matches!(*self.shape, Shape::Move(..))
    }

    /// Whether replies hold scores, which RESP3 writes as doubles.
    pub fn has_scores(&self) -> bool {
        match &*self.shape {
            Shape::Last(name) | Shape::First(name, _) | Shape::Move(name, _) => {
                name.starts_with("BZ")
            }
        }
    }
}

/// An `XREAD` that may block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamWish {
    /// The streams, each with the id behind which to read; `None` is `$`.
    pub streams: Vec<(Vec<u8>, Option<StreamId>)>,
    /// The ids as the client wrote them.
    pub ids: Vec<Vec<u8>>,
    /// At most so many entries of each stream.
    pub count: Option<Vec<u8>>,
}

/// What a blocking command waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wish {
    /// An element to take.
    Pop(Queue),
    /// Entries to read.
    Read(StreamWish),
    /// Nothing, if Redis refuses the command, as it probably will.
    Check(Vec<Vec<u8>>),
}

impl Wish {
    /// What a request waits for, if it is one whose wait can be shared. Its timeout was
    /// looked at before: it is one.
    pub fn of(request: &(impl Args + ?Sized)) -> Option<Wish> {
        let name = request.arg(0)?;
        let last = request.count().checked_sub(1)?;
        let keys = |range: std::ops::Range<usize>| -> Option<Arc<[Vec<u8>]>> {
            range
                .map(|index| request.arg(index).map(<[u8]>::to_vec))
                .collect()
        };
        let pop = |shape, keys| {
            Some(Wish::Pop(Queue {
                shape: Arc::new(shape),
                keys,
            }))
        };
        for last_name in ["BLPOP", "BRPOP", "BZPOPMIN", "BZPOPMAX"] {
            if name.eq_ignore_ascii_case(last_name.as_bytes()) {
                return pop(Shape::Last(last_name), keys(1..last)?);
            }
        }
        for first_name in ["BLMPOP", "BZMPOP"] {
            if name.eq_ignore_ascii_case(first_name.as_bytes()) {
                let count = usize::try_from(integer(request.arg(2)?)?).ok()?;
                let end = count.checked_add(3)?;
                if count == 0 || end > last {
                    return None;
                }
                let tail = (end..=last)
                    .map(|index| request.arg(index).map(<[u8]>::to_ascii_uppercase))
                    .collect::<Option<_>>()?;
                return pop(Shape::First(first_name, tail), keys(3..end)?);
            }
        }
        for (move_name, args) in [("BLMOVE", 6), ("BRPOPLPUSH", 4)] {
            if name.eq_ignore_ascii_case(move_name.as_bytes()) && request.count() == args {
                let mut tail: Vec<Vec<u8>> = Vec::new();
                for index in 2..last {
                    let arg = request.arg(index)?;
                    tail.push(match index {
                        2 => arg.to_vec(),
                        _ => arg.to_ascii_uppercase(),
                    });
                }
                return pop(Shape::Move(move_name, tail), keys(1..2)?);
            }
        }
        if name.eq_ignore_ascii_case(b"XREAD") {
            return stream_wish(request).map(Wish::Read);
        }
        None
    }
}

fn stream_wish(request: &(impl Args + ?Sized)) -> Option<StreamWish> {
    let mut count = None;
    let mut index = 1;
    loop {
        let word = request.arg(index)?.to_ascii_lowercase();
        match word.as_slice() {
            b"block" => index += 2,
            b"count" => {
                count = Some(request.arg(index + 1)?.to_vec());
                integer(count.as_deref()?)?;
                index += 2;
            }
            b"streams" => break,
            _ => return None,
        }
    }
    let names = index + 1;
    let rest = request.count() - names;
    if rest == 0 || !rest.is_multiple_of(2) {
        return None;
    }
    let mut wish = StreamWish {
        streams: Vec::new(),
        ids: Vec::new(),
        count,
    };
    for stream in names..names + rest / 2 {
        let id = request.arg(stream + rest / 2)?;
        let after = match id {
            b"$" => None,
            id => Some(StreamId::parse(id)?),
        };
        wish.streams.push((request.arg(stream)?.to_vec(), after));
        wish.ids.push(id.to_vec());
    }
    Some(wish)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(request: &str) -> Option<Wish> {
        let args: Vec<&str> = request.split(' ').collect();
        Wish::of(args.as_slice())
    }

    fn again(request: &str) -> Option<String> {
        let Some(Wish::Pop(queue)) = wish(request) else {
            return None;
        };
        let mut batch = super::super::Batch::default();
        queue.own_command("7", &mut batch);
        let text = String::from_utf8(batch.bytes).expect("text");
        let words: Vec<&str> = text
            .split("\r\n")
            .filter(|word| !word.is_empty() && !word.starts_with(['*', '$']))
            .collect();
        Some(words.join(" "))
    }

    #[test]
    fn a_pop_is_written_again_with_another_timeout() {
        for (request, expected) in [
            ("blpop a b 0", "BLPOP a b 7"),
            ("BZPOPMAX z 1.5", "BZPOPMAX z 7"),
            ("blmpop 0 2 a b left count 3", "BLMPOP 7 2 a b LEFT COUNT 3"),
            ("BLMOVE a b left right 0", "BLMOVE a b LEFT RIGHT 7"),
            ("BRPOPLPUSH a b 0", "BRPOPLPUSH a b 7"),
        ] {
            assert_eq!(again(request).as_deref(), Some(expected), "{request}");
        }
    }

    #[test]
    fn who_waits_for_the_same_is_equal() {
        assert_eq!(wish("blpop k 0"), wish("BLPOP k 5"));
        assert_ne!(wish("BLPOP k 0"), wish("BRPOP k 0"));
        assert_ne!(wish("BLPOP a b 0"), wish("BLPOP b a 0"));
        assert_ne!(
            wish("BLMOVE a b LEFT LEFT 0"),
            wish("BLMOVE a B LEFT LEFT 0")
        );
        assert_eq!(wish("BLMPOP 0 1 k left"), wish("BLMPOP 9 1 k LEFT"));
    }

    #[test]
    fn what_is_out_of_the_ordinary_is_not_shared() {
        for request in [
            "XREADGROUP GROUP g c BLOCK 0 STREAMS s >",
            "XREAD BLOCK 0 NEWOPTION STREAMS s $",
            "XREAD BLOCK 0 STREAMS s +",
            "XREAD BLOCK 0 STREAMS s t 0",
            "BLMPOP 0 0 LEFT",
            "BLMPOP 0 5 k LEFT",
            "BLMOVE a b LEFT 0",
            "MODULE.POP k 0",
        ] {
            assert_eq!(wish(request), None, "{request}");
        }
    }

    #[test]
    fn a_read_knows_its_streams_and_ids() {
        let Some(Wish::Read(read)) = wish("XREAD COUNT 2 BLOCK 0 STREAMS s t 5-1 $") else {
            panic!("a read");
        };
        assert_eq!(
            read.streams,
            [
                (b"s".to_vec(), Some(StreamId { ms: 5, seq: 1 })),
                (b"t".to_vec(), None)
            ]
        );
        assert_eq!(read.count, Some(b"2".to_vec()));
    }
}
