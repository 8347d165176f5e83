//! What the kernel is told about an open connection.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// Probes without an answer after which the kernel gives a connection up.
const KEEPALIVE_PROBES: u32 = 3;

/// Options of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TuneOptions {
    /// Send at once instead of waiting for more (`TCP_NODELAY`).
    pub nodelay: bool,
    /// How long the peer may be silent before the kernel asks whether it still
    /// is there; it asks three times at a third of that. Zero: never.
    pub keepalive: Duration,
}

/// Sets the options of every connection that a listener will accept: Linux copies
/// them from the listener, which saves five system calls for each client. A
/// connection can be tuned by itself as well.
///
/// # Errors
/// What the kernel says.
pub fn tune(socket: &impl AsFd, options: &TuneOptions) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(options.nodelay)?;
    set_keepalive(&socket, options.keepalive)
}

/// Keepalive as Redis sets it: asked after `idle`, then thrice at a third of
/// it, so a peer that vanished is known after twice `idle`.
pub(super) fn set_keepalive(socket: &SockRef<'_>, idle: Duration) -> io::Result<()> {
    if idle.is_zero() {
        return socket.set_keepalive(false);
    }
    // The kernel counts in whole seconds, at least one and at most 32767.
    let seconds = |time: Duration| Duration::from_secs(time.as_secs().clamp(1, 32_767));
    let keepalive = TcpKeepalive::new()
        .with_time(seconds(idle))
        .with_interval(seconds(idle / KEEPALIVE_PROBES))
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    fn connection() -> TcpStream {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).unwrap()
    }

    #[test]
    fn the_kernel_knows_the_options() {
        let stream = connection();
        let keepalive = Duration::from_secs(300);
        tune(
            &stream,
            &TuneOptions {
                nodelay: true,
                keepalive,
            },
        )
        .unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), keepalive);
        assert_eq!(
            socket.tcp_keepalive_interval().unwrap(),
            Duration::from_secs(100)
        );
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);

        tune(
            &stream,
            &TuneOptions {
                nodelay: false,
                keepalive: Duration::ZERO,
            },
        )
        .unwrap();
        assert!(!socket.tcp_nodelay().unwrap());
        assert!(!socket.keepalive().unwrap());
    }

    #[test]
    fn what_a_listener_accepts_has_its_options() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let keepalive = Duration::from_secs(300);
        tune(
            &listener,
            &TuneOptions {
                nodelay: true,
                keepalive,
            },
        )
        .unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), keepalive);
    }

    #[test]
    fn any_keepalive_that_config_allows_is_accepted() {
        let stream = connection();
        for keepalive in [
            Duration::from_millis(1),
            Duration::from_secs(1),
            Duration::from_secs(86_400),
        ] {
            tune(
                &stream,
                &TuneOptions {
                    nodelay: true,
                    keepalive,
                },
            )
            .unwrap();
        }
    }

    #[test]
    fn a_tokio_stream_is_tuned_as_well() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        runtime.block_on(async {
            let stream = connection();
            stream.set_nonblocking(true).unwrap();
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let keepalive = Duration::ZERO;
            tune(
                &stream,
                &TuneOptions {
                    nodelay: true,
                    keepalive,
                },
            )
            .unwrap();
            assert!(stream.nodelay().unwrap());
        });
    }
}
