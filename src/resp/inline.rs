//! Inline requests: a line of words, as typed into telnet.

use super::ProtocolError;

/// Splits an inline line into its arguments, by the rules of Redis's `sdssplitargs`.
///
/// `line` may still have its `\n` or `\r\n`. Words are separated by white space;
/// `"..."` knows `\xhh`, `\n`, `\r`, `\t`, `\b`, `\a` and takes any other escaped
/// byte as it is; `'...'` knows only `\'`. A closing quote must be followed by
/// white space or the end, else the quotes are unbalanced. NUL is a byte like
/// any other here (Redis, which stops looking at a NUL, would never see the end
/// of such a line).
pub fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, ProtocolError> {
    let mut rest = without_newline(line);
    let mut words = Vec::new();
    while let Some(word_at) = rest.iter().position(|&byte| !is_space(byte)) {
        let (word, behind) = next_word(&rest[word_at..])?;
        words.push(word);
        rest = behind;
    }
    Ok(words)
}

/// What C's `isspace` takes for white space, which is one byte (vertical tab)
/// more than Rust's ASCII white space.
#[inline]
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn without_newline(line: &[u8]) -> &[u8] {
    match line.strip_suffix(b"\n") {
        Some(line) => line.strip_suffix(b"\r").unwrap_or(line),
        None => line,
    }
}

/// One word and what is behind it. Quotes may begin within a word (`a"b"` is
/// `ab`), but where they close the word ends.
fn next_word(text: &[u8]) -> Result<(Vec<u8>, &[u8]), ProtocolError> {
    let mut word = Vec::new();
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        match byte {
            // Vertical tab and form feed are skipped between words but do not end one.
            b' ' | b'\n' | b'\r' | b'\t' => break,
            b'"' => {
                rest = double_quoted(behind, &mut word)?;
                break;
            }
            b'\'' => {
                rest = single_quoted(behind, &mut word)?;
                break;
            }
            _ => word.push(byte),
        }
        rest = behind;
    }
    Ok((word, rest))
}

/// Reads up to the closing `"` and returns what is behind it.
fn double_quoted<'a>(text: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    let mut rest = text;
    loop {
        rest = match rest {
            [b'"', behind @ ..] => return after_quote(behind),
            [b'\\', b'x', high, low, behind @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push(hex(*high) << 4 | hex(*low));
                behind
            }
            [b'\\', escaped, behind @ ..] => {
                word.push(unescaped(*escaped));
                behind
            }
            [byte, behind @ ..] => {
                word.push(*byte);
                behind
            }
            [] => return Err(ProtocolError::UnbalancedQuotes),
        };
    }
}

/// Reads up to the closing `'` and returns what is behind it.
fn single_quoted<'a>(text: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    let mut rest = text;
    loop {
        rest = match rest {
            [b'\'', behind @ ..] => return after_quote(behind),
            [b'\\', b'\'', behind @ ..] => {
                word.push(b'\'');
                behind
            }
            [byte, behind @ ..] => {
                word.push(*byte);
                behind
            }
            [] => return Err(ProtocolError::UnbalancedQuotes),
        };
    }
}

fn after_quote(behind: &[u8]) -> Result<&[u8], ProtocolError> {
    match behind.first() {
        Some(&byte) if !is_space(byte) => Err(ProtocolError::UnbalancedQuotes),
        _ => Ok(behind),
    }
}

fn unescaped(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[u8]) -> Vec<Vec<u8>> {
        split(line).expect("balanced")
    }

    #[test]
    fn words_are_separated_by_any_white_space() {
        assert_eq!(words(b"set key value\r\n"), [&b"set"[..], b"key", b"value"]);
        assert_eq!(words(b" \t a\x0b\n"), [b"a\x0b"]);
        assert_eq!(words(b"\x0b\x0ca  b \n"), [b"a", b"b"]);
        assert_eq!(words(b"a\rb\n"), [b"a", b"b"]);
        assert_eq!(words(b"a"), [b"a"]);
        assert!(words(b"").is_empty());
        assert!(words(b" \r\r\n").is_empty());
    }

    #[test]
    fn double_quotes_know_escapes() {
        assert_eq!(
            words(br#"a "b\x41\n\r\t\b\a\q\"\\" c"#),
            [&b"a"[..], b"bA\n\r\t\x08\x07q\"\\", b"c"]
        );
        assert_eq!(words(br#""\xfG\xFf\x""#), [b"xfG\xffx"]);
        assert_eq!(words(b"\"\" ''"), [b"", b""]);
        assert_eq!(words(b"fo\"o bar\""), [b"foo bar"]);
    }

    #[test]
    fn single_quotes_know_only_themselves() {
        assert_eq!(words(br"'a\'b\n\\x'"), [br"a'b\n\\x"]);
    }

    #[test]
    fn a_backslash_outside_quotes_is_a_byte() {
        assert_eq!(words(br"a\x41 \n"), [&br"a\x41"[..], br"\n"]);
    }

    #[test]
    fn unbalanced_quotes_are_refused() {
        for line in [
            &b"\"a\r\n"[..],
            b"'a",
            b"\"a\"b",
            b"'a'b",
            b"\"a\\",
            b"\"a\\\"",
            b"x \"",
            b"\"a\"\"b\"",
        ] {
            assert_eq!(
                split(line),
                Err(ProtocolError::UnbalancedQuotes),
                "{line:?}"
            );
        }
    }

    #[test]
    fn a_nul_is_data() {
        assert_eq!(words(b"a\0b c\n"), [&b"a\0b"[..], b"c"]);
    }
}
