//! Listening sockets that somebody else has opened: the process that this one replaces, or
//! systemd (sd_listen_fds(3)).

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

use socket2::SockRef;

use super::Listener;
use crate::config::ListenAddress;

/// The first descriptor that systemd passes.
const FIRST: RawFd = 3;

/// A socket that came from elsewhere.
#[derive(Debug)]
pub struct Passed {
    /// The socket.
    pub socket: OwnedFd,
    /// The file of a Unix socket is not this process's to remove.
    pub keeps_file: bool,
    /// What whoever passed it calls it; empty if nothing.
    pub name: String,
}

/// Sockets that came from elsewhere and that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<Passed>,
}

impl Inherited {
    /// These.
    pub fn new(sockets: Vec<Passed>) -> Inherited {
        Inherited { sockets }
    }

    /// Those that systemd has opened for this process. To be called once, before anything
    /// else opens descriptors.
    ///
    /// # Errors
    /// When what the environment says is not so.
    pub fn from_systemd() -> io::Result<Inherited> {
        let read = |name: &str| std::env::var(name).ok();
        let is_ours = read("LISTEN_PID").is_some_and(|pid| pid == std::process::id().to_string());
        let Some(count) = read("LISTEN_FDS").filter(|_| is_ours) else {
            return Ok(Inherited::default());
        };
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
        let count: RawFd = count
            .parse()
            .ok()
            .filter(|count| (0..1024).contains(count))
            .ok_or_else(|| wrong("LISTEN_FDS: expected a number of sockets"))?;
        let names = read("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut sockets = Vec::new();
        for number in FIRST..FIRST + count {
            // SAFETY: asking for the flags of a number is harmless whatever it is.
            if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
                return Err(wrong(
                    "LISTEN_FDS: there are fewer descriptors than it says",
                ));
            }
            sockets.push(Passed {
                // SAFETY: by the protocol these descriptors are this process's own, and
                // nobody else in it has taken them: this is called once.
                socket: unsafe { OwnedFd::from_raw_fd(number) },
                keeps_file: true,
                name: names.next().unwrap_or_default().to_owned(),
            });
        }
        Ok(Inherited { sockets })
    }

    /// The one that listens at this address, if there is one. The file of a Unix socket
    /// stays when it is dropped, until [`Listener::own_file`] is called; with it comes
    /// whether it stays for good.
    ///
    /// # Errors
    /// When it can not be used.
    pub fn take(&mut self, address: &ListenAddress) -> io::Result<Option<(Listener, bool)>> {
        let is_it = |passed: &Passed| {
            let socket = SockRef::from(&passed.socket);
            socket.is_listener().is_ok_and(|listens| listens)
                && socket.local_addr().is_ok_and(|own| match address {
                    ListenAddress::Tcp(address) => own.as_socket().is_some_and(|own| {
                        own == *address || (address.port() == 0 && own.ip() == address.ip())
                    }),
                    ListenAddress::Unix(path) => own.as_pathname() == Some(path),
                })
        };
        let Some(place) = self.sockets.iter().position(is_it) else {
            return Ok(None);
        };
        let passed = self.sockets.remove(place);
        let mut listener = Listener::adopt(passed.socket, address)?;
        listener.leave_file();
        Ok(Some((listener, passed.keeps_file)))
    }

    /// What each that nobody has taken is, for people. They are closed with this.
    pub fn rest(&self) -> Vec<String> {
        let shown = self.sockets.iter().map(|passed| {
            let own = SockRef::from(&passed.socket.as_fd()).local_addr().ok();
            let own = own.and_then(|own| match own.as_socket() {
                Some(address) => Some(address.to_string()),
                None => own
                    .as_pathname()
                    .map(|path| format!("unix:{}", path.display())),
            });
            let own = own.unwrap_or_else(|| "no address".to_owned());
            match passed.name.as_str() {
                "" | "unknown" => own,
                name => format!("{own} ({name})"),
            }
        });
        shown.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{ListenOptions, listen};
    use std::net::Ipv4Addr;

    #[test]
    fn a_socket_is_taken_by_its_address_and_once() {
        let any = ListenAddress::Tcp((Ipv4Addr::LOCALHOST, 0).into());
        let open = || listen(&any, &ListenOptions::default()).unwrap();
        let (first, second) = (open(), open());
        let at = |listener: &Listener| listener.local_addr().unwrap().unwrap();
        let passed = |listener: &Listener, name: &str| Passed {
            socket: listener.as_fd().try_clone_to_owned().unwrap(),
            keeps_file: true,
            name: name.to_owned(),
        };
        let mut inherited = Inherited::new(vec![passed(&first, "a"), passed(&second, "b.socket")]);
        let address = ListenAddress::Tcp(at(&first));
        let (taken, keeps_file) = inherited.take(&address).unwrap().expect("it is there");
        assert!(keeps_file);
        assert_eq!(at(&taken), at(&first));
        assert!(inherited.take(&address).unwrap().is_none());
        assert_eq!(inherited.rest(), [format!("{} (b.socket)", at(&second))]);
        assert!(inherited.take(&any).unwrap().is_some(), "any port");
        assert!(inherited.rest().is_empty());
    }
}
