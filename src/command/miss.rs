//! What a command answers where there is no key: the reply of a cache that misses, for a
//! route that fails open.
//!
//! Only commands whose answer to a missing key decides nothing are here: no `INCR`, no
//! script, nothing of the whole keyspace (`KEYS`, `SCAN`, `DBSIZE`), and of the writes only
//! those whose reply says that they were done. `SET` with `NX`, `XX` or `GET` answers a
//! question, so it is none of them. Checked against real servers by `tests/sick/misses.rs`.

use super::args::{Args, integer};
use super::table::Command;
use crate::resp::Version;

/// The shape of a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    /// No value.
    Null,
    /// A number.
    Number(i64),
    /// Text that is not binary.
    Simple(&'static str),
    /// A value of no bytes.
    EmptyText,
    /// No elements.
    EmptyArray,
    /// No fields: in RESP2 an array.
    EmptyMap,
    /// No members: in RESP2 an array.
    EmptySet,
    /// The end of an iteration, with nothing in it.
    ScanEnd,
    /// One element for each argument from this one on.
    Each(usize, Element),
    /// No value; with a further argument, a count, no elements.
    NullOrEmpty,
    /// As `LPOS`: no value, with `COUNT` no elements.
    NullOrEmptyIfCount,
    /// As `BITPOS`: there is no set bit, and the first clear one is the first.
    BitPosition,
    /// No value, if there is no further argument.
    NullIfPlain(usize),
}

/// One element of an array.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Element {
    Null,
    /// No value, as an array: the difference shows in RESP2 only.
    NullArray,
    Zero,
}

/// How a plain write is answered that is not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Done {
    /// `+OK`.
    Ok,
    /// `+OK`, if no option makes it a question.
    OkOfSet,
    /// Nothing was there to do it to.
    Zero,
    /// As `HSET`: every field is new.
    Pairs,
}

use Shape::*;

/// The commands that read, by name.
const READS: &[(&str, Shape)] = &[
    ("bitcount", Number(0)),
    ("bitpos", BitPosition),
    ("dump", Null),
    ("exists", Number(0)),
    ("expiretime", Number(-2)),
    ("geodist", Null),
    ("geohash", Each(2, Element::Null)),
    ("geopos", Each(2, Element::NullArray)),
    ("georadius_ro", EmptyArray),
    ("georadiusbymember_ro", EmptyArray),
    ("geosearch", EmptyArray),
    ("get", Null),
    ("getbit", Number(0)),
    ("getex", Null),
    ("getrange", EmptyText),
    ("hexists", Number(0)),
    ("hget", Null),
    ("hgetall", EmptyMap),
    ("hkeys", EmptyArray),
    ("hlen", Number(0)),
    ("hmget", Each(2, Element::Null)),
    ("hrandfield", NullOrEmpty),
    ("hscan", ScanEnd),
    ("hstrlen", Number(0)),
    ("hvals", EmptyArray),
    ("lindex", Null),
    ("llen", Number(0)),
    ("lpos", NullOrEmptyIfCount),
    ("lrange", EmptyArray),
    ("mget", Each(1, Element::Null)),
    ("object|encoding", Null),
    ("object|idletime", Null),
    ("object|refcount", Null),
    ("pexpiretime", Number(-2)),
    ("pfcount", Number(0)),
    ("pttl", Number(-2)),
    ("scard", Number(0)),
    ("sdiff", EmptySet),
    ("sinter", EmptySet),
    ("sintercard", Number(0)),
    ("sismember", Number(0)),
    ("smembers", EmptySet),
    ("smismember", Each(2, Element::Zero)),
    ("sort_ro", EmptyArray),
    ("srandmember", NullOrEmpty),
    ("sscan", ScanEnd),
    ("strlen", Number(0)),
    ("substr", EmptyText),
    ("sunion", EmptySet),
    ("touch", Number(0)),
    ("ttl", Number(-2)),
    ("type", Simple("none")),
    ("xlen", Number(0)),
    ("xrange", EmptyArray),
    ("xrevrange", EmptyArray),
    ("zcard", Number(0)),
    ("zcount", Number(0)),
    ("zdiff", EmptyArray),
    ("zinter", EmptyArray),
    ("zintercard", Number(0)),
    ("zlexcount", Number(0)),
    ("zmscore", Each(2, Element::Null)),
    ("zrandmember", NullOrEmpty),
    ("zrange", EmptyArray),
    ("zrangebylex", EmptyArray),
    ("zrangebyscore", EmptyArray),
    ("zrank", NullIfPlain(3)),
    ("zrevrange", EmptyArray),
    ("zrevrangebylex", EmptyArray),
    ("zrevrangebyscore", EmptyArray),
    ("zrevrank", NullIfPlain(3)),
    ("zscan", ScanEnd),
    ("zscore", Null),
    ("zunion", EmptyArray),
];

/// The plain writes, by name.
const WRITES: &[(&str, Done)] = &[
    ("del", Done::Zero),
    ("expire", Done::Zero),
    ("expireat", Done::Zero),
    ("hmset", Done::Ok),
    ("hset", Done::Pairs),
    ("mset", Done::Ok),
    ("pexpire", Done::Zero),
    ("pexpireat", Done::Zero),
    ("psetex", Done::Ok),
    ("set", Done::OkOfSet),
    ("setex", Done::Ok),
    ("unlink", Done::Zero),
];

/// The reply of a command that only reads, to a client who asks for what is not there;
/// `None` if there is no such thing. The request has as many arguments as the command takes.
pub fn miss(command: &Command, args: &(impl Args + ?Sized), version: Version) -> Option<Vec<u8>> {
    let shape = find(READS, &command.name)?;
    let mut reply = Vec::new();
    shape.write(args, version, &mut reply)?;
    Some(reply)
}

/// The reply to a plain write as if it had been done, which it is not; `None` if its reply
/// would decide something.
pub fn done(command: &Command, args: &(impl Args + ?Sized)) -> Option<Vec<u8>> {
    Some(match find(WRITES, &command.name)? {
        Done::Ok => b"+OK\r\n".to_vec(),
        Done::OkOfSet => is_plain_set(args).then(|| b"+OK\r\n".to_vec())?,
        Done::Zero => b":0\r\n".to_vec(),
        Done::Pairs => format!(":{}\r\n", (args.count() - 2) / 2).into_bytes(),
    })
}

fn find<T: Copy>(rows: &[(&str, T)], name: &str) -> Option<T> {
    let place = rows.binary_search_by_key(&name, |(name, _)| name).ok()?;
    Some(rows[place].1)
}

impl Shape {
    fn write(
        self,
        args: &(impl Args + ?Sized),
        version: Version,
        reply: &mut Vec<u8>,
    ) -> Option<()> {
        let empty = |sign: &[u8; 1]| [sign.as_slice(), b"0\r\n"].concat();
        match (self, version) {
            (Null, Version::Resp2) => reply.extend_from_slice(b"$-1\r\n"),
            (Null, Version::Resp3) => reply.extend_from_slice(b"_\r\n"),
            (Number(number), _) => reply.extend(format!(":{number}\r\n").into_bytes()),
            (Simple(text), _) => reply.extend(format!("+{text}\r\n").into_bytes()),
            (EmptyText, _) => reply.extend_from_slice(b"$0\r\n\r\n"),
            (EmptyMap, Version::Resp3) => reply.extend(empty(b"%")),
            (EmptySet, Version::Resp3) => reply.extend(empty(b"~")),
            (EmptyArray | EmptyMap | EmptySet, _) => reply.extend(empty(b"*")),
            (ScanEnd, _) => reply.extend_from_slice(b"*2\r\n$1\r\n0\r\n*0\r\n"),
            (Each(from, element), _) => {
                let count = args.count() - from;
                reply.extend(format!("*{count}\r\n").into_bytes());
                for _ in 0..count {
                    reply.extend_from_slice(match (element, version) {
                        (Element::Zero, _) => b":0\r\n",
                        (_, Version::Resp3) => b"_\r\n",
                        (Element::Null, Version::Resp2) => b"$-1\r\n",
                        (Element::NullArray, Version::Resp2) => b"*-1\r\n",
                    });
                }
            }
            (NullOrEmpty, _) if args.count() == 2 => Null.write(args, version, reply)?,
            (NullOrEmpty, _) => EmptyArray.write(args, version, reply)?,
            (NullOrEmptyIfCount, _) => {
                let counts = (3..args.count()).any(|index| is_word(args, index, "count"));
                let shape = if counts { EmptyArray } else { Null };
                shape.write(args, version, reply)?;
            }
            (BitPosition, _) => {
                let bit = args.arg(2).and_then(integer)?;
                let position = match bit {
                    0 => 0,
                    1 => -1,
                    _ => return None,
                };
                Number(position).write(args, version, reply)?;
            }
            (NullIfPlain(count), _) => {
                (args.count() == count).then_some(())?;
                Null.write(args, version, reply)?;
            }
        }
        Some(())
    }
}

/// Whether a `SET` does nothing but set.
fn is_plain_set(args: &(impl Args + ?Sized)) -> bool {
    let mut index = 3;
    while index < args.count() {
        let takes_value = ["ex", "px", "exat", "pxat"];
        if takes_value.iter().any(|word| is_word(args, index, word)) {
            index += 2;
        } else if is_word(args, index, "keepttl") {
            index += 1;
        } else {
            return false;
        }
    }
    index == args.count()
}

fn is_word(args: &(impl Args + ?Sized), index: usize, word: &str) -> bool {
    args.arg(index)
        .is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Flags, Table};

    fn words(request: &str) -> Vec<&str> {
        request.split(' ').collect()
    }

    fn answers(request: &str) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        let (table, args) = (Table::builtin(), words(request));
        let sub = args.get(1).map(|sub| sub.as_bytes());
        let command = table.find(args[0].as_bytes(), sub);
        assert!(command.exists() && command.accepts(args.len()), "{request}");
        let args = args.as_slice();
        (miss(command, args, Version::Resp2), done(command, args))
    }

    #[test]
    fn rows_are_sorted_and_name_commands_that_there_are() {
        let table = Table::builtin();
        let names = |rows: Vec<&'static str>, writes: bool| {
            assert!(rows.is_sorted(), "{rows:?}");
            for name in rows {
                let (top, sub) = name.split_once('|').unwrap_or((name, ""));
                let sub = (!sub.is_empty()).then_some(sub.as_bytes());
                let command = table.find(top.as_bytes(), sub);
                assert_eq!(command.name, name);
                // Only GETEX reads and is no reader: it may change how long a key lives.
                let is_write = command.flags.contains(Flags::WRITE) && name != "getex";
                assert_eq!(is_write, writes, "{name}");
            }
        };
        names(READS.iter().map(|(name, _)| *name).collect(), false);
        names(WRITES.iter().map(|(name, _)| *name).collect(), true);
    }

    #[test]
    fn what_decides_something_is_never_answered() {
        for request in [
            "SET k v NX",
            "SET k v EX 10 NX",
            "SET k v XX",
            "SET k v GET",
            "SET k v EX",
            "SET k v IFEQ x",
            "SETNX k v",
            "INCR k",
            "DECRBY k 2",
            "GETSET k v",
            "GETDEL k",
            "HSETNX k f v",
            "HINCRBY k f 1",
            "SADD k m",
            "LPUSH k v",
            "LPOP k",
            "ZADD k 1 m",
            "MSETNX k v",
            "RENAME a b",
            "PUBLISH c m",
            "EVAL s 0",
            "EVAL_RO s 0",
            "FCALL_RO f 0",
            "KEYS *",
            "SCAN 0",
            "DBSIZE",
            "RANDOMKEY",
            "XREAD STREAMS s 0",
            "BLPOP k 0",
            "WATCH k",
            "MULTI",
            "EXEC",
            "PING",
            "INFO",
            "BITPOS k 2",
        ] {
            assert_eq!(answers(request), (None, None), "{request}");
        }
    }

    #[test]
    fn a_plain_write_is_answered_as_if_it_were_done() {
        for (request, reply) in [
            ("SET k v", "+OK\r\n"),
            ("SET k v EX 10", "+OK\r\n"),
            ("set k v pxat 10 KeepTTL", "+OK\r\n"),
            ("SETEX k 10 v", "+OK\r\n"),
            ("MSET a 1 b 2", "+OK\r\n"),
            ("HSET k a 1 b 2", ":2\r\n"),
            ("DEL a b", ":0\r\n"),
            ("EXPIRE a 10", ":0\r\n"),
        ] {
            assert_eq!(answers(request), (None, Some(reply.into())), "{request}");
        }
    }
}
