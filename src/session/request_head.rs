//! What a request is about, told from its beginning when it is kept no longer: for the slow
//! log and for hot keys.

use crate::command::{self, Args, Command};

/// Commands that may hold a password: nothing but the name is told.
const SECRETIVE: &[&str] = &["auth", "hello", "config|set", "acl|setuser", "migrate"];

/// No request has more keys than this that are counted: enough to share out a reply.
const COUNTED_MAX: usize = 1 << 16;

/// The keys of a request.
#[derive(Debug, Default)]
pub(super) struct Keys<'a> {
    /// Those that its beginning has.
    pub known: Vec<&'a [u8]>,
    /// How many there are.
    pub count: usize,
}

/// The keys of a request as Weir sends it.
pub(super) fn keys<'a>(command: &Command, request: &'a [u8]) -> Keys<'a> {
    let mut keys = Keys::default();
    if !SECRETIVE.contains(&&*command.name)
        && let Some(head) = Head::of(request)
    {
        for index in command::keys(command, &head).take(COUNTED_MAX) {
            keys.known.extend(head.args.get(index));
            keys.count += 1;
        }
    }
    keys
}

/// The arguments at the beginning of a request, of which the end may be missing.
struct Head<'a> {
    count: usize,
    args: Vec<&'a [u8]>,
}

impl<'a> Head<'a> {
    /// Of a request as Weir sends it.
    fn of(request: &'a [u8]) -> Option<Head<'a>> {
        let (count, mut rest) = header(b'*', request)?;
        let mut args = Vec::new();
        while args.len() < count
            && let Some((len, from)) = header(b'$', rest)
        {
            let whole = len.min(from.len());
            args.push(&from[..whole]);
            // Behind it stands a line break.
            rest = from.get(whole + 2..).unwrap_or_default();
        }
        Some(Head { count, args })
    }
}

impl Args for Head<'_> {
    fn count(&self) -> usize {
        self.count
    }

    fn arg(&self, index: usize) -> Option<&[u8]> {
        self.args.get(index).copied()
    }
}

/// A number behind `kind`, and what follows its line.
fn header(kind: u8, bytes: &[u8]) -> Option<(usize, &[u8])> {
    let bytes = bytes.strip_prefix(&[kind])?;
    let end = memchr::memchr(b'\r', bytes)?;
    let number = std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()?;
    Some((number, bytes.get(end + 2..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Table;

    fn keys_of(words: &[&str], cut_to: usize) -> Vec<String> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        let table = Table::builtin();
        let sub = words.get(1).map(|word| word.as_bytes());
        let command = table.find(words[0].as_bytes(), sub);
        let request = &request.as_bytes()[..request.len().min(cut_to)];
        let keys = keys(command, request);
        assert!(keys.known.len() <= keys.count);
        keys.known
            .iter()
            .map(|key| key.escape_ascii().to_string())
            .collect()
    }

    #[test]
    fn keys_are_told_wherever_they_stand() {
        let whole = usize::MAX;
        assert_eq!(keys_of(&["GET", "a\tb"], whole), ["a\\tb"]);
        assert_eq!(keys_of(&["EVAL", "return 1", "1", "k"], whole), ["k"]);
        assert!(keys_of(&["EVAL", "return 1", "0", "k"], whole).is_empty());
        assert!(keys_of(&["PING"], whole).is_empty());
        assert_eq!(keys_of(&["MSET", "a", "1", "b", "2"], 24), ["a"]);
        assert_eq!(keys_of(&["MSET", "a", "1", "b", "2"], whole), ["a", "b"]);
    }

    #[test]
    fn a_request_cut_anywhere_is_looked_at_as_far_as_it_goes() {
        for cut in 0..60 {
            keys_of(&["EVAL", "return 1", "1", "key", "value"], cut);
        }
        let table = Table::builtin();
        let get = table.find(b"get", None);
        let long = keys(get, b"*99999999999999\r\n$3\r\nGET\r\n$0\r\n\r\n");
        assert_eq!(long.known, [b""]);
        assert!(keys(get, b"*2\r\n$-1\r\n").known.is_empty());
        let eval = table.find(b"eval", None);
        let many = b"*9999999999\r\n$4\r\nEVAL\r\n$1\r\nx\r\n$10\r\n9999999990\r\n$1\r\nk\r\n";
        let many = keys(eval, many);
        assert_eq!(many.known, [b"k"]);
        assert_eq!(many.count, COUNTED_MAX, "and not for ever");
    }

    #[test]
    fn what_may_hold_a_password_is_told_by_name_only() {
        for words in [
            &["MIGRATE", "host", "1", "key", "0", "1", "AUTH", "hunter2"][..],
            &["AUTH", "hunter2"],
            &["CONFIG", "SET", "requirepass", "hunter2"],
        ] {
            assert!(keys_of(words, usize::MAX).is_empty(), "{words:?}");
        }
        let table = Table::builtin();
        for name in SECRETIVE {
            let (name, sub) = name.split_once('|').unwrap_or((name, ""));
            assert!(
                table.find(name.as_bytes(), Some(sub.as_bytes())).exists(),
                "{name}"
            );
        }
    }
}
