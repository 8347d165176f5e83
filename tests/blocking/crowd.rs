//! Thousands of clients in one process: each is a socket and what it reads.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::{encode, reply_length};

/// One client.
pub struct Worker {
    socket: TcpStream,
    unread: Vec<u8>,
}

impl Worker {
    pub async fn connect(to: SocketAddr) -> Worker {
        let socket = TcpStream::connect(to).await.expect("Weir accepts");
        socket.set_nodelay(true).expect("a socket");
        let unread = Vec::new();
        Worker { socket, unread }
    }

    pub async fn send(&mut self, command: &[&str]) -> io::Result<()> {
        self.socket.write_all(&encode(command)).await
    }

    pub async fn reply(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(len) = reply_length(&self.unread) {
                let rest = self.unread.split_off(len);
                return Ok(std::mem::replace(&mut self.unread, rest));
            }
            let mut buffer = [0; 512];
            let n = self.socket.read(&mut buffer).await?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.unread.extend_from_slice(&buffer[..n]);
        }
    }

    pub async fn command(&mut self, command: &[&str]) -> io::Result<Vec<u8>> {
        self.send(command).await?;
        self.reply().await
    }
}

/// The element in the reply to a `BLPOP`.
pub fn element(reply: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(reply).ok()?.strip_prefix("*2\r\n")?;
    text.trim_end().rsplit("\r\n").next()?.parse().ok()
}

/// xorshift; a test prints the seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

pub fn seed() -> u64 {
    let given = std::env::var("WEIR_TEST_SEED").ok();
    let given = given.and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or(u64::from(std::process::id()) << 20 | 1);
    println!("WEIR_TEST_SEED={seed}");
    seed
}
