//! What a frame on a subscribed connection is, read from its first elements.

use super::Space;

/// One frame from the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// A message to whoever is subscribed to this name.
    Message(Space, &'a [u8]),
    /// The node has subscribed the connection to this name.
    Subscribed(Space, &'a [u8]),
    /// The connection is not subscribed to this name any more.
    Unsubscribed(Space, &'a [u8]),
    /// Anything else: the answer to a `PING`, an error.
    Reply,
}

/// Reads a whole frame, in either version of the protocol.
pub fn read(frame: &[u8]) -> Frame<'_> {
    beginning(frame).unwrap_or(Frame::Reply)
}

/// The same for the beginning of a frame; `None` if it does not reach far enough, or is no
/// push.
pub fn beginning(frame: &[u8]) -> Option<Frame<'_>> {
    if !matches!(frame.first(), Some(b'>' | b'*')) {
        return None;
    }
    let elements = memchr::memchr(b'\n', frame)? + 1;
    let (kind, rest) = bulk(&frame[elements..])?;
    let space = match kind.first()? {
        b'p' => Space::Pattern,
        b's' if kind != b"subscribe" => Space::Shard,
        _ => Space::Channel,
    };
    let name = bulk(rest).map(|(name, _)| name);
    match kind {
        b"message" | b"pmessage" | b"smessage" => Some(Frame::Message(space, name?)),
        b"subscribe" | b"psubscribe" | b"ssubscribe" => Some(Frame::Subscribed(space, name?)),
        b"unsubscribe" | b"punsubscribe" | b"sunsubscribe" => {
            // The name is null if the connection was subscribed to nothing of the kind.
            Some(Frame::Unsubscribed(space, name.unwrap_or_default()))
        }
        _ => None,
    }
}

/// A bulk string at the front, and what is behind it.
fn bulk(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = memchr::memchr(b'\n', bytes)? + 1;
    let len = match &bytes[..line] {
        [b'$', len @ .., b'\r', b'\n'] => std::str::from_utf8(len).ok()?.parse::<usize>().ok()?,
        _ => return None,
    };
    let rest = bytes.get(line..)?;
    Some((rest.get(..len)?, rest.get(len + 2..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_is_told_from_the_others() {
        for (frame, expected) in [
            (
                ">3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$2\r\nhi\r\n",
                Frame::Message(Space::Channel, b"x"),
            ),
            (
                "*4\r\n$8\r\npmessage\r\n$2\r\nx*\r\n$2\r\nxy\r\n$2\r\nhi\r\n",
                Frame::Message(Space::Pattern, b"x*"),
            ),
            (
                ">3\r\n$8\r\nsmessage\r\n$0\r\n\r\n$2\r\nhi\r\n",
                Frame::Message(Space::Shard, b""),
            ),
            (
                ">3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n",
                Frame::Subscribed(Space::Channel, b"x"),
            ),
            (
                ">3\r\n$10\r\nssubscribe\r\n$1\r\nx\r\n:1\r\n",
                Frame::Subscribed(Space::Shard, b"x"),
            ),
            (
                "*3\r\n$12\r\npunsubscribe\r\n$1\r\nx\r\n:0\r\n",
                Frame::Unsubscribed(Space::Pattern, b"x"),
            ),
            (
                ">3\r\n$11\r\nunsubscribe\r\n_\r\n:0\r\n",
                Frame::Unsubscribed(Space::Channel, b""),
            ),
            ("*2\r\n$4\r\npong\r\n$0\r\n\r\n", Frame::Reply),
            ("+PONG\r\n", Frame::Reply),
            ("-NOPERM no\r\n", Frame::Reply),
            (">2\r\n$10\r\ninvalidate\r\n_\r\n", Frame::Reply),
        ] {
            assert_eq!(read(frame.as_bytes()), expected, "{frame:?}");
        }
    }

    #[test]
    fn a_beginning_is_enough_and_nonsense_is_none() {
        let frame = b">3\r\n$7\r\nmessage\r\n$3\r\nabc\r\n$1000\r\nhhhh";
        for end in 0..frame.len() {
            let known = end >= frame.len() - "$1000\r\nhhhh".len();
            let expected = known.then_some(Frame::Message(Space::Channel, b"abc"));
            assert_eq!(beginning(&frame[..end]), expected, "{end}");
        }
        for nonsense in [
            &b">3\r\n$99999999999999999999\r\nx\r\n"[..],
            b">\r\n$-1\r\n",
            b">3\r\n:1\r\n",
            b">3\r\n$7\r\nmessage\r\n:1\r\n",
        ] {
            assert_eq!(read(nonsense), Frame::Reply);
        }
    }
}
