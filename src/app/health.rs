//! `weir health`: asks a running Weir's admin address and tells by the exit code,
//! for what runs commands instead of HTTP requests: Docker's `HEALTHCHECK`, `exec`
//! probes, scripts. The image needs no `curl` for it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take: probes give up after a second or more, and a Weir that
/// has to be waited for longer is not well.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest answer that is looked at, in bytes. `/readyz` has a line for each route.
const ANSWER_MAX: u64 = 64 * 1024;

/// What a running Weir says of itself.
#[derive(PartialEq, Eq, Debug)]
pub struct Health {
    /// It is well.
    pub ok: bool,
    /// Its words, without the line's end.
    pub text: String,
}

/// Asks `path` (`/healthz` or `/readyz`) of the admin address.
///
/// # Errors
/// Nobody answers there, or not in time, or not with HTTP.
pub fn ask(admin: SocketAddr, path: &str) -> io::Result<Health> {
    let mut socket = TcpStream::connect_timeout(&admin, PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    socket.take(ANSWER_MAX).read_to_end(&mut answer)?;
    read(&String::from_utf8_lossy(&answer))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "this is not HTTP"))
}

fn read(answer: &str) -> Option<Health> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    Some(Health {
        ok: status == "200",
        text: body.trim_end().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_decides_and_the_body_says_why() {
        let health = read("HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\nroute main: no\n");
        let text = "route main: no".to_owned();
        assert_eq!(health, Some(Health { ok: false, text }));
        let health = read("HTTP/1.1 200 OK\r\n\r\nready\n").unwrap();
        assert!(health.ok);
    }

    #[test]
    fn what_is_not_http_is_no_answer() {
        for answer in ["", "-ERR unknown command\r\n\r\n", "HTTP/1.1\r\n\r\n"] {
            assert_eq!(read(answer), None, "{answer:?}");
        }
    }
}
