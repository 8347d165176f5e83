//! What systemd is told (`Type=notify`) by the real process, over a socket of the test's own.

// Real sockets and processes are waited for, not a clock that tests stop.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

mod support;

use std::os::unix::net::UnixDatagram;
use std::sync::mpsc;

use support::{DEADLINE, RedisServer, ReservedPort, WeirProcess, binary};

struct Supervisor {
    told: mpsc::Receiver<String>,
    directory: tempfile::TempDir,
}

impl Supervisor {
    fn new() -> Supervisor {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = UnixDatagram::bind(directory.path().join("notify")).expect("a socket");
        let (tell, told) = mpsc::channel();
        // Read at all times: the kernel keeps few of them. Ends with the test.
        std::thread::spawn(move || {
            let mut buffer = [0; 256];
            while let Ok(length) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if tell.send(text).is_err() {
                    break;
                }
            }
        });
        Supervisor { told, directory }
    }

    /// Weir as it would be started by a unit; `settings` of its environment besides.
    fn weir(&self, redis: &RedisServer, settings: &[(&str, &str)]) -> WeirProcess {
        let (listen, admin) = (ReservedPort::new(), ReservedPort::new());
        let mut command = binary();
        command
            .args(["--listen", &listen.address().to_string()])
            .args(["--admin", &admin.address().to_string()])
            .args(["--backend", &redis.address().to_string()])
            .env("NOTIFY_SOCKET", self.directory.path().join("notify"))
            .envs(settings.iter().copied());
        WeirProcess::with_command(command, listen, admin, redis.address())
    }

    fn next(&self) -> String {
        let told = self.told.recv_timeout(DEADLINE);
        told.expect("it is told something")
    }

    /// What it is told next but that the process is alive.
    fn next_change(&self) -> String {
        loop {
            let told = self.next();
            if told != "WATCHDOG=1" {
                return told;
            }
        }
    }
}

#[test]
fn systemd_is_told_that_weir_is_ready_that_it_is_alive_and_that_it_stops() {
    let redis = RedisServer::start();
    let supervisor = Supervisor::new();
    let mut weir = supervisor.weir(&redis, &[("WATCHDOG_USEC", "200000")]);
    assert_eq!(supervisor.next(), "READY=1");
    for _ in 0..3 {
        assert_eq!(supervisor.next(), "WATCHDOG=1");
    }
    assert!(weir.terminate().success());
    assert_eq!(supervisor.next_change(), "STOPPING=1");
}

#[test]
fn who_sets_no_watchdog_or_that_of_another_process_is_told_of_none() {
    let redis = RedisServer::start();
    for settings in [
        &[][..],
        &[("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")][..],
    ] {
        let supervisor = Supervisor::new();
        let mut weir = supervisor.weir(&redis, settings);
        assert_eq!(supervisor.next(), "READY=1");
        assert!(weir.terminate().success());
        assert_eq!(supervisor.next(), "STOPPING=1");
    }
}
