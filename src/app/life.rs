//! The life of the process on its main thread: it serves until it is replaced or told to
//! stop; [`super::leave`] is what follows.

use std::cell::RefCell;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::accept::Gate;
use super::leave::Drained;
use super::upgrade::{self, Elder, Executable, Heard, Successor, Told};
use super::{certificates, notify, reload, serve};
use crate::admin::{self, AdminServer, Console, ConsoleServer, Keeper, Upgrade};
use crate::metrics::{Event, EventKind};
use crate::session::{Asked, Message, Proxy};

/// What the main thread starts with.
pub(super) struct Life {
    pub(super) proxy: Arc<Proxy>,
    /// Whether clients are let in.
    pub(super) gate: watch::Sender<Gate>,
    pub(super) sockets: Sockets,
    pub(super) executable: Executable,
    /// This process takes another's place.
    pub(super) successor: Option<Successor>,
    pub(super) operators: Operators,
}

/// What serves operators, ready to be run.
pub(super) struct Operators {
    pub(super) asked: mpsc::Receiver<Asked>,
    pub(super) settings: Keeper,
}

/// Every listening socket of the process, to be served again or handed over.
pub(super) struct Sockets {
    /// Copies of those for clients; with each, whether its file stays for good.
    pub(super) doors: Vec<(OwnedFd, bool)>,
    /// For pages and metrics.
    pub(super) admin: Option<TcpListener>,
    /// For the console.
    pub(super) console: Option<TcpListener>,
}

impl Sockets {
    fn all(&self) -> Vec<(BorrowedFd<'_>, bool)> {
        let doors = self
            .doors
            .iter()
            .map(|(door, keeps)| (door.as_fd(), *keeps));
        let others = [&self.admin, &self.console].into_iter().flatten();
        let others = others.map(|listener| (listener.as_fd(), false));
        doors.chain(others).collect()
    }
}

/// Why the process no longer serves new clients.
pub(super) enum End {
    /// Somebody wants it to stop.
    Stop(String),
    /// Its successor serves.
    Replaced(Elder),
}

/// The main thread.
pub(super) struct Main {
    pub(super) proxy: Arc<Proxy>,
    pub(super) gate: watch::Sender<Gate>,
    pub(super) sockets: Sockets,
    executable: Executable,
    pub(super) interrupted: Signal,
    pub(super) terminated: Signal,
    pub(super) usr2: Signal,
    drains: mpsc::UnboundedReceiver<String>,
    pub(super) upgrades: mpsc::UnboundedReceiver<Upgrade>,
    console: Rc<Console>,
    /// While operators come in here.
    pub(super) front_desk: Option<watch::Sender<bool>>,
    /// The process before this one, while it lives.
    before: Option<Before>,
}

/// The process before this one.
struct Before {
    follower: Rc<upgrade::Follower>,
    heard: mpsc::UnboundedReceiver<Heard>,
}

/// An upgrade that was ordered and is not decided yet.
struct Attempt {
    elder: Elder,
    order: Upgrade,
}

/// Runs the main thread until the process ends.
pub(super) async fn live(life: Life) -> io::Result<()> {
    let Life {
        proxy,
        gate,
        sockets,
        executable,
        successor,
        operators,
    } = life;
    let (interrupted, terminated) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let usr2 = signal(SignalKind::user_defined2())?;
    run_nodes(&proxy);
    for warning in &proxy.settings().warnings {
        tracing::warn!("{warning}");
    }
    let started = Event::new(EventKind::Started, env!("CARGO_PKG_VERSION"));
    let mut started = started.with("pid", std::process::id());
    let before = match successor {
        None => None,
        Some(successor) => {
            started = started.with("after", successor.elder);
            tracing::info!(before = successor.elder, "taking another process's place");
            let (follower, heard) = upgrade::follow(successor, &proxy)?;
            Some(Before { follower, heard })
        }
    };
    proxy.journal.note(started);
    let (stop, stopped) = watch::channel(false);
    let settings = Rc::new(RefCell::new(operators.settings));
    tokio::task::spawn_local(reload::on_hangup(settings.clone()));
    tokio::task::spawn_local(reload::on_change(settings.clone(), proxy.clone()));
    let (drain, drains) = mpsc::unbounded_channel();
    let (upgrade, upgrades) = mpsc::unbounded_channel();
    let console = Console::new(proxy.clone(), settings, drain, upgrade);
    tokio::task::spawn_local(console.clone().run(operators.asked));
    tokio::task::spawn_local(admin::record(proxy.clone(), stopped.clone()));
    let traces = admin::export_traces(proxy.clone(), stopped.clone());
    let traces = tokio::task::spawn_local(traces);
    tokio::task::spawn_local(certificates::watch(proxy.clone(), stopped));
    let mut main = Main {
        proxy,
        gate,
        sockets,
        executable,
        interrupted,
        terminated,
        usr2,
        drains,
        upgrades,
        console,
        front_desk: None,
        before,
    };
    if main.before.is_none() {
        main.begin_to_serve()?;
    }
    if let Some(every) = notify::watchdog() {
        tokio::task::spawn_local(keep_alive(every));
    }
    let (began, after) = loop {
        let end = main.serve().await?;
        let began = Instant::now();
        match main.drain(end).await {
            Drained::Resumed => main.resume()?,
            Drained::Done(after) => {
                main.close(after.as_ref()).await;
                break (began, after);
            }
        }
    };
    // A receiver is gone when nothing was watched.
    let _ = stop.send(true);
    // The last of them are sent; how long that may take is bounded there.
    let _ = traces.await;
    // Not before: what the successor has is counted here to the end.
    drop(after);
    tracing::info!(took = ?began.elapsed(), "stopped");
    Ok(())
}

fn run_nodes(proxy: &Arc<Proxy>) {
    for (index, route) in proxy.routes.iter().enumerate() {
        let workers = proxy.clone();
        let tell = move || {
            for worker in 0..workers.workers() {
                let route = index as u16;
                workers.send(worker, Message::Topology { route });
            }
        };
        tokio::task::spawn_local(route.deployment.clone().run(tell));
    }
}

impl Main {
    /// Lets clients and operators in, and says so.
    pub(super) fn begin_to_serve(&mut self) -> io::Result<()> {
        for (index, route) in self.proxy.routes.iter().enumerate() {
            let settings = route.settings();
            for door in &route.doors {
                tracing::info!(
                    route = %route.name, listen = %door.config.address,
                    tls = door.config.is_tls(),
                    backend = %settings.backend.first_address(),
                    max_connections = settings.backend.max_connections,
                    max_clients = self.proxy.limits.route_max(index as u16), "serving"
                );
            }
        }
        self.open_front_desk()?;
        // No acceptor listens if the first worker has ended, and with it the process.
        self.gate.send_replace(Gate::Open);
        notify::tell(notify::State::Ready);
        Ok(())
    }

    /// Lets operators in.
    fn open_front_desk(&mut self) -> io::Result<()> {
        let (leave, left) = watch::channel(false);
        if let Some(listener) = &self.sockets.admin {
            tracing::info!(admin = %listener.local_addr()?, "metrics and health");
            let handlers = serve::handlers(&self.proxy);
            let server = AdminServer::over(listener.try_clone()?, handlers);
            tokio::task::spawn_local(server.run(left.clone()));
        }
        if let Some(listener) = &self.sockets.console {
            tracing::info!(console = %listener.local_addr()?, "console");
            let server = ConsoleServer::over(listener.try_clone()?);
            tokio::task::spawn_local(server.run(self.console.clone(), left));
        }
        self.front_desk = Some(leave);
        Ok(())
    }

    /// Serves until there is a reason not to.
    async fn serve(&mut self) -> io::Result<End> {
        let mut attempt: Option<Attempt> = None;
        loop {
            let by = tokio::select! {
                _ = self.interrupted.recv() => "SIGINT".to_owned(),
                _ = self.terminated.recv() => "SIGTERM".to_owned(),
                Some(by) = self.drains.recv() => by,
                Some(order) = self.upgrades.recv() => {
                    attempt = self.take_order(order, attempt);
                    continue;
                }
                _ = self.usr2.recv() => {
                    let (answer, _) = oneshot::channel();
                    let by = "SIGUSR2".to_owned();
                    attempt = self.take_order(Upgrade { by, answer }, attempt);
                    continue;
                }
                heard = hear(&mut self.before) => {
                    match heard {
                        Heard::Go => self.begin_to_serve()?,
                        Heard::Alone => {
                            if self.front_desk.is_none() {
                                self.begin_to_serve()?;
                            }
                            self.before = None;
                            tracing::info!("the process before has ended: the whole budget is here");
                        }
                    }
                    continue;
                }
                told = listen_to(&mut attempt) => {
                    let Some(Attempt { elder, order }) = attempt.take() else { continue };
                    match told {
                        // It says why when it has gone.
                        Told::Leaves => attempt = Some(Attempt { elder, order }),
                        Told::Ready => {
                            let _ = order.answer.send(Ok(elder.pid));
                            return Ok(End::Replaced(elder));
                        }
                        Told::Gone(why) => self.refuse(order, &why),
                    }
                    continue;
                }
            };
            if let Some(Attempt { elder, order }) = attempt {
                // Left alone it would take this process's end for its turn to serve.
                elder.kill().await;
                self.refuse(order, "Weir was told to stop");
            }
            if let Some(before) = &self.before {
                before.follower.leave();
            }
            return Ok(End::Stop(by));
        }
    }

    /// Starts a successor, unless that is not possible now.
    fn take_order(&self, order: Upgrade, under_way: Option<Attempt>) -> Option<Attempt> {
        let why_not = if let Some(attempt) = &under_way {
            Some(format!(
                "process {} is about to take over",
                attempt.elder.pid
            ))
        } else if self.before.is_some() {
            Some("the process before this one has clients still; try again later".to_owned())
        } else if std::process::id() == 1 {
            Some(
                "Weir is the first process of a container, which would end with it: \
                 replace the container"
                    .to_owned(),
            )
        } else {
            None
        };
        if let Some(why) = why_not {
            self.refuse(order, &why);
            return under_way;
        }
        let path = self.executable.path();
        tracing::info!(by = order.by, executable = %path.display(), "upgrade: starting another process");
        let event = Event::new(EventKind::Upgrading, &order.by);
        self.proxy
            .journal
            .note(event.with("executable", path.display()));
        match upgrade::start(&self.proxy, &self.executable, &self.sockets.all()) {
            Ok(elder) => Some(Attempt { elder, order }),
            Err(error) => {
                self.refuse(order, &format!("{}: {error}", path.display()));
                None
            }
        }
    }

    pub(super) fn refuse(&self, order: Upgrade, why: &str) {
        tracing::warn!(by = order.by, "no upgrade, this process goes on: {why}");
        let event = Event::new(EventKind::UpgradeFailed, &order.by).with("why", why);
        self.proxy.journal.note(event);
        // Nobody may wait for the answer.
        let _ = order.answer.send(Err(why.to_owned()));
    }
}

async fn hear(before: &mut Option<Before>) -> Heard {
    match before {
        Some(before) => match before.heard.recv().await {
            Some(heard) => heard,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

async fn listen_to(attempt: &mut Option<Attempt>) -> Told {
    match attempt {
        Some(attempt) => attempt.elder.told().await,
        None => std::future::pending().await,
    }
}

/// Tells the watchdog that the main thread still turns.
async fn keep_alive(every: Duration) {
    let mut interval = tokio::time::interval(every);
    loop {
        interval.tick().await;
        notify::tell(notify::State::Alive);
    }
}
