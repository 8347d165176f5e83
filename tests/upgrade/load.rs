//! Upgrades under load, several in a row.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::{self, JoinHandle};

use super::chain::{Chain, config};
use super::support::{
    ConnectionWatch, DEADLINE, RedisServer, Replicas, WeirProcess, encode, libraries, wait_until,
};

const DEPTH: usize = 10;

/// Clients that send pipelines of `INCR`, each to a key of its own, and connect again when
/// they are closed.
struct Load {
    stop: Arc<AtomicBool>,
    replies: Arc<AtomicUsize>,
    clients: Vec<(String, JoinHandle<usize>)>,
}

impl Load {
    fn start(address: SocketAddr, count: usize) -> Load {
        let (stop, replies) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let clients = (0..count).map(|client| {
            let key = format!("n{client}");
            let (stop, replies, own) = (stop.clone(), replies.clone(), key.clone());
            let run = move || {
                let mut answered = 0;
                while !stop.load(Relaxed) {
                    answered += one_connection(address, &own, &stop, &replies);
                }
                answered
            };
            (key, thread::spawn(run))
        });
        Load {
            clients: clients.collect(),
            stop,
            replies,
        }
    }

    /// Waits until the load has gone on for a while.
    fn goes_on(&self) {
        let before = self.replies.load(Relaxed);
        wait_until("clients are served", || {
            self.replies.load(Relaxed) > before + 5000
        });
    }

    /// Whatever ran was answered, and the other way round.
    fn finish(self, redis: &RedisServer) {
        self.stop.store(true, Relaxed);
        for (key, client) in self.clients {
            let answered = client.join().expect("nothing was refused or cut");
            let mut direct = redis.client();
            direct.send(encode(&["GET", &key]));
            assert_eq!(direct.read_text(), answered.to_string(), "{key}");
        }
    }
}

/// Until it is closed or told to stop: how many replies came. A pipeline is answered whole
/// or, when it came too late, not at all.
fn one_connection(
    address: SocketAddr,
    key: &str,
    stop: &AtomicBool,
    replies: &AtomicUsize,
) -> usize {
    let mut socket = TcpStream::connect(address).expect("nobody is refused");
    socket.set_read_timeout(Some(DEADLINE)).expect("an option");
    let batch = encode(&["INCR", key]).repeat(DEPTH);
    let mut answered = 0;
    let mut buffer = [0; 4096];
    while !stop.load(Relaxed) && socket.write_all(&batch).is_ok() {
        let mut missing = DEPTH;
        while missing > 0 {
            match socket.read(&mut buffer) {
                Ok(n @ 1..) => {
                    let bytes = &buffer[..n];
                    assert!(!bytes.contains(&b'-'), "an error: {}", bytes.escape_ascii());
                    missing -= bytes.iter().filter(|byte| **byte == b'\n').count();
                }
                outcome => {
                    assert_eq!(missing, DEPTH, "cut within a pipeline: {outcome:?}");
                    return answered;
                }
            }
        }
        answered += DEPTH;
        replies.fetch_add(DEPTH, Relaxed);
    }
    answered
}

fn upgrades_under_load(max_connections: usize, upgrades: usize) {
    let redis = RedisServer::start();
    let backend = format!("max_connections = {max_connections}");
    let mut chain = Chain::start(&redis, "drain_timeout = \"25s\"", &backend, "");
    let watch = ConnectionWatch::start(&redis);
    let load = Load::start(chain.weir.address(), 8);
    for upgrade in 1..=upgrades {
        load.goes_on();
        chain.upgrade();
        chain.wait_for_elders();
        chain.wait_for_budget(upgrade);
    }
    load.goes_on();
    load.finish(&redis);
    watch.assert_at_most(max_connections);
    let log = chain.weir.log();
    assert!(!log.contains("drain timeout"), "{log}");
    assert!(!log.contains("without a word"), "{log}");
    assert!(!log.contains("in use"), "{log}");
}

#[test]
fn nobody_is_refused_or_cut_in_three_upgrades_and_the_budget_holds() {
    upgrades_under_load(6, 3);
}

/// The two processes take turns with the one connection.
#[test]
fn one_connection_is_enough_for_two_processes() {
    upgrades_under_load(1, 1);
}

/// Every node has a budget of its own, and watches that are connections too.
#[test]
fn the_budget_of_each_node_holds() {
    const MAX: usize = 4;
    let replicas = Replicas::start(2);
    let backend = format!("max_connections = {MAX}\n{}", replicas.settings(&[0, 1]));
    let primary = &replicas.nodes[0];
    let settings = config("drain_timeout = \"25s\"", &backend, "");
    let settings = settings.replace("address = \"{backend}\"\n", "");
    let mut chain = Chain::of(WeirProcess::with_config(primary, &settings));
    let watches: Vec<_> = replicas.nodes.iter().map(ConnectionWatch::start).collect();
    let load = Load::start(chain.weir.address(), 6);
    for upgrade in 1..=2 {
        load.goes_on();
        chain.upgrade();
        chain.wait_for_elders();
        chain.wait_for_budget(upgrade);
    }
    load.goes_on();
    load.finish(primary);
    for watch in watches {
        // The link between primary and replica is none of Weir's.
        watch.assert_at_most(MAX + 1);
    }
    let log = chain.weir.log();
    assert!(!log.contains("without a word"), "{log}");
}

/// A library with its pool and its own way of trying again: the application sees nothing.
#[test]
fn an_application_with_redis_py_sees_nothing() {
    let redis = RedisServer::start();
    let mut chain = Chain::start(&redis, "drain_timeout = \"25s\"", "max_connections = 8", "");
    let watch = ConnectionWatch::start(&redis);
    let directory = tempfile::tempdir().expect("a directory");
    let end = directory.path().join("end");
    let (port, file) = (
        chain.weir.address().port().to_string(),
        end.to_str().expect("text").to_owned(),
    );
    let application =
        thread::spawn(move || libraries::python("upgrade.py", &["127.0.0.1", &port, &file]));
    for upgrade in 1..=2 {
        let rounds = || {
            let reply = redis.client().command(&["STRLEN", "rounds"]);
            let reply = String::from_utf8(reply).expect("text");
            reply[1..].trim().parse::<usize>().expect("a number")
        };
        let before = rounds();
        wait_until("the application is at work", || rounds() > before + 50);
        chain.upgrade();
        chain.wait_for_elders();
        chain.wait_for_budget(upgrade);
    }
    std::fs::write(&end, "").expect("a file");
    let output = application.join().expect("no error");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let done: usize = said.trim().parse().expect("how much was done");
    assert!(done > 100, "{said}");
    watch.assert_at_most(8);
}
