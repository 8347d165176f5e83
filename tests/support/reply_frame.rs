//! Where a reply ends. Weir has a scanner of its own for this; the tests do not
//! use it, so that a mistake in it cannot hide itself.

/// The length in bytes of the first reply in `bytes`, or `None` if it is not whole yet.
/// Panics on what is not RESP at all: a proxy that says such a thing has failed the test.
pub fn reply_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    // How many more values end the reply; an aggregate adds its elements.
    let mut values_left: usize = 1;
    while values_left > 0 {
        let line_end = at
            + bytes
                .get(at..)?
                .windows(2)
                .position(|pair| pair == b"\r\n")?;
        let (kind, rest) = (bytes[at], &bytes[at + 1..line_end]);
        at = line_end + 2;
        values_left -= 1;
        match kind {
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => {}
            b'$' | b'=' | b'!' => {
                if let Ok(length) = usize::try_from(number(rest)) {
                    at += length + 2;
                }
            }
            b'*' | b'~' | b'>' => values_left += usize::try_from(number(rest)).unwrap_or(0),
            b'%' => values_left += 2 * usize::try_from(number(rest)).unwrap_or(0),
            // Attributes come before the value they describe and do not count as it.
            b'|' => values_left += 2 * usize::try_from(number(rest)).unwrap_or(0) + 1,
            _ => panic!("not a reply: \"{}\"", bytes.escape_ascii()),
        }
    }
    (at <= bytes.len()).then_some(at)
}

fn number(digits: &[u8]) -> i64 {
    let text = str::from_utf8(digits).unwrap_or_default();
    text.parse()
        .unwrap_or_else(|_| panic!("not a length: \"{}\"", digits.escape_ascii()))
}
