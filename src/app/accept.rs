//! Accepting clients and giving each to the worker that has the fewest. One
//! acceptor is exact where `SO_REUSEPORT` would leave 50 long-lived clients spread
//! unevenly; it hands over plain sockets, since registering them here would bind
//! them to this thread's event loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

use super::pace::Pace;
use crate::config::{Clients, ListenAddress};
use crate::metrics::{Event, EventKind};
use crate::net::{self, Accepted, Inherited, ListenOptions, TuneOptions};
use crate::session::{Door, Message, Newcomer, Proxy};

/// How often it is looked whether a listener that fell behind has caught up.
const LOOK_BACK: Duration = Duration::from_secs(1);

/// Clients accepted in one go before other tasks get a turn.
const BATCH: usize = 64;

/// One door of one route.
#[derive(Debug)]
pub struct Listener {
    socket: net::Listener,
    route: u16,
    door: u16,
    /// It was opened by somebody else who keeps the file of a Unix socket.
    pub keeps_file: bool,
    was_passed: bool,
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether clients are let in. The listeners stay, and with them those who wait in the
/// kernel's queue, until it is closed for good.
#[derive(Clone, Debug)]
pub enum Gate {
    /// They wait. Each acceptor says once that it has seen this.
    Shut(mpsc::UnboundedSender<()>),
    /// They are let in.
    Open,
    /// For good; whether somebody else listens at the same sockets.
    Closed {
        /// Their files stay then.
        handed_over: bool,
    },
}

/// Listens at every door of every route: where a socket was inherited, at that.
///
/// # Errors
/// The first address that cannot be listened on, by name.
pub fn listen(proxy: &Proxy, inherited: &mut Inherited) -> io::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for (route_index, route) in proxy.routes.iter().enumerate() {
        let settings = route.settings();
        for (index, door) in route.doors.iter().enumerate() {
            let address = &door.config.address;
            let options = ListenOptions {
                backlog: settings.clients.backlog,
                only_v6: false,
                unix_mode: door.config.unix_mode,
                unix_owner: door.config.unix_owner.clone(),
            };
            let named = |error: io::Error| {
                let name = &route.name;
                let text = format!("route {name}: cannot listen on {address}: {error}");
                io::Error::new(error.kind(), text)
            };
            let passed = inherited.take(address).map_err(named)?;
            let was_passed = passed.is_some();
            let (socket, keeps_file) = match passed {
                Some(passed) => {
                    passed.0.set_backlog(options.backlog).map_err(named)?;
                    passed
                }
                None => (net::listen(address, &options).map_err(named)?, false),
            };
            if matches!(address, ListenAddress::Tcp(_)) {
                net::tune(&socket, &options_of(&settings.clients))?;
            }
            listeners.push(Listener {
                socket,
                route: route_index as u16,
                door: index as u16,
                keeps_file,
                was_passed,
            });
        }
    }
    Ok(listeners)
}

/// What the kernel is told about each client.
fn options_of(settings: &Clients) -> TuneOptions {
    TuneOptions {
        nodelay: settings.tcp_nodelay,
        keepalive: settings.tcp_keepalive,
    }
}

/// The options of a listener, which its clients inherit, as the settings change.
struct Tuning {
    options: TuneOptions,
    /// Who is in the kernel's queue still may have connected before the change.
    is_new: bool,
}

impl Tuning {
    fn follow(&mut self, listener: &net::Listener, settings: &Clients) {
        let options = options_of(settings);
        if options != self.options && listener.path().is_none() {
            self.options = options;
            self.is_new = true;
            if let Err(error) = net::tune(listener, &options) {
                tracing::warn!(%error, "a listener keeps the options that it had");
            }
        }
    }

    fn complete(&self, client: &Accepted) {
        if self.is_new {
            // Fails only for a client that has gone already.
            let _ = client.tune(&self.options);
        }
    }
}

/// Accepts while the gate is open, until it is closed. Runs on the first worker, so that with one worker no
/// other thread has to be woken for a client, and with several only for some.
pub async fn accept(proxy: Arc<Proxy>, listener: Listener, mut gate: watch::Receiver<Gate>) {
    let Listener {
        socket,
        route,
        door: door_index,
        keeps_file,
        was_passed,
    } = listener;
    // SAFETY: the listener owns its descriptor, which stays the same and open until
    // the `AsyncFd` that owns the listener is dropped.
    let mut socket = match unsafe { AsyncFd::register(socket) } {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(?error, "cannot wait for clients"),
    };
    // Who connects before the backend was asked what it is waits in the backlog: it could
    // be told a wrong version, or be let in without a login.
    let route_of = &proxy.routes[route as usize];
    let patience = route_of.settings().timeouts.connect * 2;
    let _ = tokio::time::timeout(patience, route_of.deployment.first_met()).await;
    let door: &Door = &route_of.doors[door_index as usize];
    let mut pace = Pace::new(0);
    let mut tuning = Tuning {
        options: options_of(&route_of.settings().clients),
        is_new: false,
    };
    let now = || proxy.started.elapsed().as_micros() as u64;
    loop {
        let state = gate.borrow_and_update().clone();
        match state {
            Gate::Open if was_passed && !keeps_file => socket.get_mut().own_file(),
            Gate::Open => {}
            Gate::Closed { handed_over } => {
                if handed_over {
                    socket.get_mut().leave_file();
                }
                return;
            }
            Gate::Shut(seen) => {
                // Nobody waits for it where nothing was open before.
                let _ = seen.send(());
                if gate.changed().await.is_err() {
                    return;
                }
                continue;
            }
        }
        // Somebody is there before a place is taken: nobody holds one for nobody.
        let (mut ready, mut place) = tokio::select! {
            changed = gate.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            () = tokio::time::sleep(LOOK_BACK), if pace.is_behind() => {
                tell_pace(&proxy, route, pace.has_caught_up(now()).then_some(false));
                continue;
            }
            both = async { (socket.readable().await, door.place().await) } => match both {
                (Ok(ready), place) => (ready, place),
                (Err(error), _) => return tracing::error!(%error, "cannot wait for clients"),
            },
        };
        let settings = route_of.settings();
        tuning.follow(socket.get_ref(), &settings.clients);
        let mut delay = None;
        for _ in 0..BATCH {
            delay = pace.wait(&settings.clients, now());
            if delay.is_some() {
                break;
            }
            match ready.try_io(|socket| net::accept(socket.get_ref())) {
                Ok(Ok((socket, peer))) => {
                    pace.count(&settings.clients, now());
                    tuning.complete(&socket);
                    let has_shown = place.is_none();
                    hand_over(
                        &proxy,
                        Newcomer {
                            socket,
                            peer,
                            route,
                            listener: door_index,
                            place: place.take(),
                        },
                    );
                    if !has_shown {
                        // The next needs a place of its own.
                        break;
                    }
                }
                Ok(Err(error)) => {
                    if let Some(pause) = net::accept_fault(&error).pause() {
                        tracing::warn!(%error, ?pause, "cannot accept clients");
                        tokio::time::sleep(pause).await;
                        break;
                    }
                }
                Err(_would_block) => {
                    tuning.is_new = false;
                    break;
                }
            }
        }
        match delay {
            None => tokio::task::yield_now().await,
            Some(delay) => {
                proxy.metrics.acceptor(route.into()).accepts_delayed.inc();
                tell_pace(&proxy, route, pace.falls_behind(now()).then_some(true));
                // Whoever comes meanwhile waits in the kernel's queue.
                tokio::time::sleep(delay).await;
            }
        }
    }
}

/// Tells, if there is something to tell, whether clients come faster than they are taken in.
fn tell_pace(proxy: &Proxy, route: u16, is_behind: Option<bool>) {
    const SETTING: &str = "clients.accept_rate";
    let route = &proxy.routes[route as usize];
    let (name, rate) = (&*route.name, route.settings().clients.accept_rate);
    let kind = match is_behind {
        None => return,
        Some(true) => {
            tracing::warn!(
                route = name,
                rate,
                "{SETTING} is reached: new clients wait to be taken in"
            );
            EventKind::LimitReached
        }
        Some(false) => {
            tracing::info!(route = name, rate, "{SETTING} is no longer reached");
            EventKind::LimitCleared
        }
    };
    let event = Event::new(kind, SETTING).with("rate", rate);
    proxy.journal.note(event.on(name));
}

fn hand_over(proxy: &Proxy, newcomer: Newcomer) {
    let worker = net::least_loaded(&proxy.loads());
    proxy.raise_load(worker);
    proxy.send(worker, Message::Client(newcomer));
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;
    use std::net::{Ipv4Addr, TcpStream};
    use std::time::Duration;

    /// Who has connected before the change and was not accepted yet has the options too.
    #[test]
    fn socket_options_follow_the_settings() {
        let any = ListenAddress::Tcp((Ipv4Addr::LOCALHOST, 0).into());
        let listener = net::listen(&any, &ListenOptions::default()).unwrap();
        let before = Clients::default();
        net::tune(&listener, &options_of(&before)).unwrap();
        let mut tuning = Tuning {
            options: options_of(&before),
            is_new: false,
        };
        let address = listener.local_addr().unwrap().unwrap();
        let _early = TcpStream::connect(address).unwrap();
        let after = Clients {
            tcp_nodelay: false,
            tcp_keepalive: Duration::ZERO,
            ..Clients::default()
        };
        tuning.follow(&listener, &after);
        let _late = TcpStream::connect(address).unwrap();
        for _ in 0..2 {
            let (client, _) = net::accept(&listener).unwrap();
            tuning.complete(&client);
            let Accepted::Tcp(client) = client else {
                panic!("TCP")
            };
            let socket = SockRef::from(&client);
            assert!(!socket.tcp_nodelay().unwrap() && !socket.keepalive().unwrap());
        }
    }
}
