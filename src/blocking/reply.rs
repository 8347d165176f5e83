//! Replies to pops: cut up, told apart, and put into another protocol version.

use crate::resp::{ReplyScanner, Version};

/// Whether a reply says that there is nothing.
pub fn is_null(frame: &[u8]) -> bool {
    matches!(frame, b"*-1\r\n" | b"$-1\r\n" | b"_\r\n")
}

/// Whether a reply is an error.
pub(super) fn is_error(frame: &[u8]) -> bool {
    matches!(frame.first(), Some(b'-' | b'!'))
}

/// The replies in an array, as the node wrote them.
pub struct RepliesIn<'a> {
    rest: &'a [u8],
}

impl<'a> RepliesIn<'a> {
    /// `None` if it is no array.
    pub fn array(frame: &'a [u8]) -> Option<RepliesIn<'a>> {
        if frame.first() != Some(&b'*') || is_null(frame) {
            return None;
        }
        let line = memchr::memchr(b'\n', frame)? + 1;
        Some(RepliesIn {
            rest: &frame[line..],
        })
    }
}

impl<'a> Iterator for RepliesIn<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let fed = ReplyScanner::default().feed(self.rest).ok()?;
        if !fed.complete {
            return None;
        }
        let (reply, rest) = self.rest.split_at(fed.consumed);
        self.rest = rest;
        Some(reply)
    }
}

/// A bulk string's bytes.
pub(super) fn bulk(frame: &[u8]) -> Option<&[u8]> {
    let line = memchr::memchr(b'\n', frame)? + 1;
    (frame.first() == Some(&b'$') && frame.len() >= line + 2).then(|| &frame[line..frame.len() - 2])
}

/// The reply to a pop, which came in RESP2, in the waiter's version. They are the same
/// but for scores (`networking.c:addReplyDouble`) and for nulls.
pub fn in_version(frame: &[u8], version: Version, has_scores: bool) -> Vec<u8> {
    if version == Version::Resp2 {
        return frame.to_vec();
    }
    if is_null(frame) {
        return b"_\r\n".to_vec();
    }
    if !has_scores {
        return frame.to_vec();
    }
    with_doubles(frame).unwrap_or_else(|| frame.to_vec())
}

/// `key member score`, or `key ((member score)…)`, with scores as doubles.
fn with_doubles(frame: &[u8]) -> Option<Vec<u8>> {
    let parts: Vec<&[u8]> = RepliesIn::array(frame)?.collect();
    let mut out = Vec::with_capacity(frame.len());
    match parts.as_slice() {
        [key, member, score] => {
            out.extend_from_slice(b"*3\r\n");
            out.extend_from_slice(key);
            out.extend_from_slice(member);
            double(score, &mut out)?;
        }
        [key, popped] => {
            out.extend_from_slice(b"*2\r\n");
            out.extend_from_slice(key);
            let pairs: Vec<&[u8]> = RepliesIn::array(popped)?.collect();
            out.extend_from_slice(format!("*{}\r\n", pairs.len()).as_bytes());
            for pair in pairs {
                let pair: Vec<&[u8]> = RepliesIn::array(pair)?.collect();
                let [member, score] = pair.as_slice() else {
                    return None;
                };
                out.extend_from_slice(b"*2\r\n");
                out.extend_from_slice(member);
                double(score, &mut out)?;
            }
        }
        _ => return None,
    }
    Some(out)
}

fn double(score: &[u8], out: &mut Vec<u8>) -> Option<()> {
    out.push(b',');
    out.extend_from_slice(bulk(score)?);
    out.extend_from_slice(b"\r\n");
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_become_doubles_and_nothing_else_changes() {
        let resp3 = |frame: &[u8], scores| {
            String::from_utf8(in_version(frame, Version::Resp3, scores)).expect("text")
        };
        assert_eq!(resp3(b"*-1\r\n", false), "_\r\n");
        let list = b"*2\r\n$1\r\nk\r\n$1\r\n1\r\n";
        assert_eq!(resp3(list, false).as_bytes(), list);
        assert_eq!(
            resp3(b"*3\r\n$1\r\nz\r\n$1\r\nm\r\n$3\r\n1.5\r\n", true),
            "*3\r\n$1\r\nz\r\n$1\r\nm\r\n,1.5\r\n"
        );
        assert_eq!(
            resp3(
                b"*2\r\n$1\r\nz\r\n*1\r\n*2\r\n$1\r\nm\r\n$3\r\ninf\r\n",
                true
            ),
            "*2\r\n$1\r\nz\r\n*1\r\n*2\r\n$1\r\nm\r\n,inf\r\n"
        );
    }

    #[test]
    fn an_array_is_cut_into_its_replies() {
        let replies: Vec<&[u8]> = RepliesIn::array(b"*3\r\n*-1\r\n*1\r\n$1\r\na\r\n-ERR x\r\n")
            .expect("an array")
            .collect();
        assert_eq!(
            replies,
            [&b"*-1\r\n"[..], b"*1\r\n$1\r\na\r\n", b"-ERR x\r\n"]
        );
        assert!(RepliesIn::array(b"*-1\r\n").is_none());
    }
}
