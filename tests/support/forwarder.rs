//! The network between Weir and a server: it can be slow, and it can be gone.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Passes bytes on to a server. Ends with the test.
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    network: Arc<Network>,
}

#[derive(Debug, Default)]
struct Network {
    is_cut: AtomicBool,
    delay_micros: AtomicU64,
    target: Mutex<Option<SocketAddr>>,
}

impl Forwarder {
    /// In front of `target`, on a free port of 127.0.0.1.
    pub fn before(target: SocketAddr) -> Forwarder {
        Forwarder::at("127.0.0.1:0".parse().expect("an address"), target)
    }

    /// The same at this address.
    pub fn at(address: SocketAddr, target: SocketAddr) -> Forwarder {
        let listener = TcpListener::bind(address).expect("a free address");
        let address = listener.local_addr().expect("it listens");
        let network = Arc::new(Network::default());
        *network.target.lock().expect("no panic") = Some(target);
        let shared = network.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                shared.wait_while_cut();
                let target = shared.target.lock().expect("no panic").expect("it is set");
                // If there is no server, the client is closed at once.
                if let Ok(server) = TcpStream::connect(target) {
                    for (from, to) in [(&client, &server), (&server, &client)] {
                        let ends = from
                            .try_clone()
                            .and_then(|from| Ok((from, to.try_clone()?)));
                        let (from, to) = ends.expect("descriptors");
                        let network = shared.clone();
                        std::thread::spawn(move || network.pass(from, to));
                    }
                }
            }
        });
        Forwarder { address, network }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on no byte passes in either direction, and nothing is closed.
    pub fn cut(&self) {
        self.network.is_cut.store(true, Relaxed);
    }

    /// What has been held up passes, and what comes.
    pub fn mend(&self) {
        self.network.is_cut.store(false, Relaxed);
    }

    /// Everything takes so much longer from now on, in each direction.
    pub fn delay(&self, delay: Duration) {
        let micros = delay.as_micros() as u64;
        self.network.delay_micros.store(micros, Relaxed);
    }
}

impl Network {
    fn wait_while_cut(&self) {
        while self.is_cut.load(Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn pass(&self, mut from: TcpStream, mut to: TcpStream) {
        let _ = to.set_nodelay(true);
        let mut bytes = [0; 16 * 1024];
        // An end that breaks takes the other one along.
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            match self.delay_micros.load(Relaxed) {
                0 => {}
                micros => std::thread::sleep(Duration::from_micros(micros)),
            }
            self.wait_while_cut();
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        // A network that is gone tells nobody of an end.
        self.wait_while_cut();
        let _ = to.shutdown(std::net::Shutdown::Both);
    }
}
