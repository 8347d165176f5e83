//! Somebody who has nothing to do with it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;

use super::support::{RawClient, WeirProcess, encode, wait_until};

/// A client that writes, reads and pipelines all the time and looks at every reply. One
/// that is wrong, late or missing fails the test.
pub struct Bystander {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Bystander {
    pub fn start(weir: &WeirProcess) -> Bystander {
        let (stop, rounds) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (stopping, counted, address) = (stop.clone(), rounds.clone(), weir.address());
        let thread = std::thread::spawn(move || {
            let mut client = RawClient::connect(address);
            let mut round = 0;
            while !stopping.load(Relaxed) {
                one_round(&mut client, round);
                round += 1;
                counted.store(round, Relaxed);
                if round % 50 == 0 {
                    newcomer(address, round);
                }
            }
        });
        Bystander {
            stop,
            rounds,
            thread: Some(thread),
        }
    }

    /// Waits until everything has worked some times more.
    pub fn is_well(&self) {
        let before = self.rounds.load(Relaxed);
        wait_until("the bystander is served", || {
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            assert!(!ended, "the bystander has met something wrong");
            self.rounds.load(Relaxed) > before + 3
        });
    }

    /// Ends it; panics if it ever noticed anything.
    pub fn finish(mut self) {
        self.is_well();
        self.stop.store(true, Relaxed);
        let thread = self.thread.take().expect("only finish takes it");
        thread.join().expect("the bystander noticed nothing");
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

fn one_round(client: &mut RawClient, round: usize) {
    let value = format!("bystander {round}");
    client.expect_command(&["SET", "bystander", &value], "+OK\r\n");
    let mut requests = Vec::new();
    let mut replies = Vec::new();
    for number in 0..10 {
        requests.extend(encode(&["GET", "bystander"]));
        replies.extend(format!("${}\r\n{value}\r\n", value.len()).bytes());
        let word = format!("{round}:{number}");
        requests.extend(encode(&["ECHO", &word]));
        replies.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
    }
    client.send(requests);
    client.expect(replies);
}

fn newcomer(address: SocketAddr, round: usize) {
    let mut client = RawClient::connect(address);
    let name = format!("n{round}");
    client.expect_command(&["CLIENT", "SETNAME", &name], "+OK\r\n");
    client.expect_command(
        &["CLIENT", "GETNAME"],
        format!("${}\r\n{name}\r\n", name.len()),
    );
}
