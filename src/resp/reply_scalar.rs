//! The common case: a reply, or an element of one, that is no aggregate and wholly there.

use super::number::whole_length;

/// The length of the value at the start of `rest` if it is no aggregate, wholly
/// there and as Redis sends it. `None` leaves it to the careful path.
#[inline(always)]
pub(super) fn whole_scalar(rest: &[u8]) -> Option<usize> {
    match rest.first()? {
        b'$' => match whole_length(rest, 1) {
            Some((len, start)) => {
                let end = start as u64 + len + 2;
                if end > rest.len() as u64 {
                    return None;
                }
                let end = end as usize;
                (rest[end - 2..end] == *b"\r\n").then_some(end)
            }
            None => rest.starts_with(b"$-1\r\n").then_some(5),
        },
        b'+' | b'-' | b':' | b',' | b'_' | b'#' | b'(' => {
            behind_line(&rest[1..]).map(|len| len + 1)
        }
        _ => None,
    }
}

/// The position behind the first CRLF.
#[inline]
pub(super) fn behind_line(text: &[u8]) -> Option<usize> {
    /// Most lines are shorter than this; calling memchr costs more than looking.
    const SHORT: usize = 12;

    let mut previous = 0;
    for (at, &byte) in text.iter().take(SHORT).enumerate() {
        if byte == b'\n' && previous == b'\r' {
            return Some(at + 1);
        }
        previous = byte;
    }
    behind_long_line(text, SHORT)
}

#[cold]
fn behind_long_line(text: &[u8], seen: usize) -> Option<usize> {
    let unseen = text.get(seen..)?;
    memchr::memchr_iter(b'\n', unseen)
        .map(|newline| seen + newline)
        .find(|&newline| newline > 0 && text[newline - 1] == b'\r')
        .map(|newline| newline + 1)
}
