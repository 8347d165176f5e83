//! Tells systemd how the process is (sd_notify(3)): one datagram for each change. The
//! protocol is a line of text to a socket that the environment names; that is less than
//! the interface of a crate for it.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// What systemd is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Clients are served.
    Ready,
    /// It takes no more clients and will end.
    Stopping,
    /// It is alive: to be said within the watchdog's time.
    Alive,
    /// Another process is the one to supervise from now on.
    MainIs(u32),
}

impl State {
    fn line(self) -> String {
        match self {
            State::Ready => "READY=1".to_owned(),
            State::Stopping => "STOPPING=1".to_owned(),
            State::Alive => "WATCHDOG=1".to_owned(),
            State::MainIs(pid) => format!("MAINPID={pid}"),
        }
    }
}

/// Says so to whoever supervises the process; to nobody if nobody asked for it.
pub(super) fn tell(state: State) {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let sent = path
        .to_str()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
        .and_then(|path| send(path, state));
    if let Err(error) = sent {
        tracing::warn!(?state, "the supervisor cannot be told: {error}");
    }
}

fn send(path: &str, state: State) -> io::Result<()> {
    let to = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A supervisor that does not read is no reason to wait.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.line().as_bytes(), &to)?;
    Ok(())
}

/// How often the watchdog wants to be told, if there is one: twice as often as it must.
pub(super) fn watchdog() -> Option<Duration> {
    let of_us = env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
    let micros = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    of_us.then(|| Duration::from_micros(micros) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_is_one_datagram() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let supervisor = UnixDatagram::bind(&path).unwrap();
        let mut buffer = [0; 64];
        for (state, line) in [
            (State::Ready, "READY=1"),
            (State::Alive, "WATCHDOG=1"),
            (State::Stopping, "STOPPING=1"),
            (State::MainIs(77), "MAINPID=77"),
        ] {
            send(path.to_str().unwrap(), state).unwrap();
            let n = supervisor.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..n], line.as_bytes());
        }
        let name = format!("weir-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let supervisor = UnixDatagram::bind_addr(&address).unwrap();
        send(&format!("@{name}"), State::Ready).unwrap();
        assert_eq!(supervisor.recv(&mut buffer).unwrap(), 7);
        assert!(send("/nowhere/at/all", State::Ready).is_err());
    }
}
