//! Weir's own commands can be told from its clients' in what `MONITOR` shows: their
//! first letter is small and the others are not, which is nobody else's spelling and
//! means the same to Redis. Weir leaves them out of what its clients see; an operator
//! who looks at Redis itself sees what Weir does there.

/// Whether a line of `MONITOR` shows a command that Weir has sent of its own accord.
/// Such a line reads `+1339518083.107412 [0 127.0.0.1:60866] "keys" "*"`.
pub fn is_own_line(line: &[u8]) -> bool {
    let Some(start) = memchr::memmem::find(line, b"] \"") else {
        return false;
    };
    let word = &line[start + 3..];
    let end = memchr::memchr(b'"', word).unwrap_or(word.len());
    line.first() == Some(&b'+') && is_own_spelling(&word[..end])
}

fn is_own_spelling(word: &[u8]) -> bool {
    matches!(word, [first, rest @ ..] if first.is_ascii_lowercase()
        && !rest.is_empty()
        && rest.iter().all(u8::is_ascii_uppercase))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_weirs_own_commands_are() {
        for (line, own) in [
            ("+1.2 [0 127.0.0.1:60866] \"sELECT\" \"9\"\r\n", true),
            (
                "+1.2 [9 unix:/tmp/redis.sock] \"cLIENT\" \"SETNAME\" \"weir:main:lease\"\r\n",
                true,
            ),
            ("+1.2 [0 127.0.0.1:60866] \"select\" \"9\"\r\n", false),
            ("+1.2 [0 127.0.0.1:60866] \"SELECT\" \"9\"\r\n", false),
            ("+1.2 [0 lua] \"set\" \"] \\\"pING\\\"\" \"] \"\r\n", false),
            ("+OK\r\n", false),
            ("$3\r\n] \"\r\n", false),
        ] {
            assert_eq!(is_own_line(line.as_bytes()), own, "{line}");
        }
    }
}
