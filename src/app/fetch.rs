//! Asks the admin server of a running Weir for one page.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The largest answer that is taken, in bytes: far above the record of any process.
const ANSWER_MAX: u64 = 256 << 20;

/// The body of `GET path`. The server has `patience` to be reached, and as much for each
/// next piece of its answer.
///
/// # Errors
/// What the network says; `InvalidData` for what is no answer of an admin server, and
/// `Other` with the server's own words when it says no.
pub(super) fn get(admin: SocketAddr, path: &str, patience: Duration) -> io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect_timeout(&admin, patience)?;
    socket.set_read_timeout(Some(patience))?;
    socket.set_write_timeout(Some(patience))?;
    // As HTTP/1.0 the answer is never in chunks, and ends with the connection.
    write!(
        socket,
        "GET {path} HTTP/1.0\r\nhost: {admin}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    socket.take(ANSWER_MAX).read_to_end(&mut answer)?;
    body(&answer)
}

fn body(answer: &[u8]) -> io::Result<Vec<u8>> {
    let no_answer = || io::Error::new(io::ErrorKind::InvalidData, "not an admin server's answer");
    let end = memchr::memmem::find(answer, b"\r\n\r\n").ok_or_else(no_answer)?;
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| no_answer())?;
    let body = &answer[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next().ok_or_else(no_answer)?;
    let status = status.strip_prefix("HTTP/1.").ok_or_else(no_answer)?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok())?
    });
    if length.is_some_and(|length| length != body.len()) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    match status.get(2..5) {
        Some("200") => Ok(body.to_vec()),
        Some(_) => {
            let words = String::from_utf8_lossy(body);
            Err(io::Error::other(words.trim_end().to_owned()))
        }
        None => Err(no_answer()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_whole_or_not_at_all() {
        let ok = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(body(ok).unwrap(), b"hi");
        let cut = body(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi").unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
        let no = body(b"HTTP/1.0 404 Not Found\r\n\r\nnot here\n").unwrap_err();
        assert_eq!(no.to_string(), "not here");
        for other in [
            &b""[..],
            b"-ERR x\r\n",
            b"+PONG\r\n\r\n\r\n",
            b"HTTP/1.0\r\n\r\n",
        ] {
            assert_eq!(body(other).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
