//! A forwarder between Weir and Redis that cuts connections, or lets them hang.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use socket2::SockRef;

/// Forwards every connection to one address.
pub struct Forwarder {
    address: SocketAddr,
    lines: Arc<Mutex<Vec<Arc<Line>>>>,
    /// Bytes from Redis after which a connection is cut; 0 for never.
    cut_after: Arc<AtomicUsize>,
}

struct Line {
    client: TcpStream,
    server: TcpStream,
    hangs: AtomicBool,
}

impl Forwarder {
    /// A forwarder on a port of its own.
    pub fn to(target: SocketAddr) -> Forwarder {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let forwarder = Forwarder {
            address: listener.local_addr().expect("a bound socket"),
            lines: Arc::default(),
            cut_after: Arc::default(),
        };
        let (lines, cut_after) = (forwarder.lines.clone(), forwarder.cut_after.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(target) else {
                    continue;
                };
                let line = Arc::new(Line {
                    client,
                    server,
                    hangs: AtomicBool::new(false),
                });
                lines.lock().expect("no panic holds it").push(line.clone());
                let limit = cut_after.load(Ordering::Relaxed);
                let up = line.clone();
                thread::spawn(move || forward(&up, &up.client, &up.server, 0));
                thread::spawn(move || forward(&line, &line.server, &line.client, limit));
            }
        });
        forwarder
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets every connection.
    pub fn cut(&self) {
        for line in self.lines.lock().expect("no panic holds it").drain(..) {
            reset(&line.client);
            reset(&line.server);
        }
    }

    /// Connections that come from now on are cut after so many bytes from Redis.
    pub fn cut_after(&self, bytes: usize) {
        self.cut_after.store(bytes, Ordering::Relaxed);
    }

    /// Connections that are there swallow what Redis answers; new ones do not.
    pub fn hang_those_there(&self) {
        for line in self.lines.lock().expect("no panic holds it").iter() {
            line.hangs.store(true, Ordering::Relaxed);
        }
    }
}

fn forward(line: &Line, mut from: &TcpStream, mut to: &TcpStream, limit: usize) {
    let is_answers = std::ptr::eq(from, &line.server);
    let mut chunk = [0; 16 * 1024];
    let mut total = 0;
    while let Ok(read) = from.read(&mut chunk) {
        if read == 0 {
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
        if is_answers && line.hangs.load(Ordering::Relaxed) {
            continue;
        }
        let allowed = if limit == 0 {
            read
        } else {
            read.min(limit - total)
        };
        total += allowed;
        if to.write_all(&chunk[..allowed]).is_err() {
            break;
        }
        if limit != 0 && total >= limit {
            break;
        }
    }
    reset(&line.client);
    reset(&line.server);
}

/// Has the peer see a reset, and both of the forwarder's threads an end.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
    let _ = stream.shutdown(Shutdown::Both);
}
