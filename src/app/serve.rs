//! Runs Weir: workers on threads of their own; the admin server and
//! signals on the main thread.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::{accept, certificates, notify, reload};
use crate::admin::{self, AdminServer, Console, ConsoleServer, Handlers, Keeper, SetFilter};
use crate::config::{Config, Source};
use crate::metrics::{Event, EventKind, Metrics};
use crate::net;
use crate::session::{Asked, Drain, Message, Proxy, QUESTIONS_MAX, Worker, mailbox};

/// Tasks polled between two looks at the sockets. Tokio's default of 61 would
/// break a turn with a thousand ready clients into sixteen, and its batch too.
const EVENT_INTERVAL: u32 = 1024;

/// How often a drain looks whether everybody has left.
const DRAIN_LOOK: std::time::Duration = std::time::Duration::from_millis(20);

/// How long the listeners may take to close; they have nothing to wait for.
const DOORS_CLOSE: std::time::Duration = std::time::Duration::from_secs(1);

/// Serves until told to stop.
///
/// # Errors
/// What keeps it from starting: an address that cannot be listened on, too few
/// descriptors.
pub fn run(source: Source, config: Config, set_filter: SetFilter) -> io::Result<()> {
    let workers = config.process.workers;
    net::check_descriptors(net::needed(&config, workers)).map_err(io::Error::other)?;
    let names = config.routes.iter().map(|route| route.name.clone());
    let metrics = Arc::new(Metrics::new(names, workers));
    let (mailboxes, inboxes): (Vec<_>, Vec<_>) =
        (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
    let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
    let proxy = Proxy::new(config, metrics, mailboxes, questions);
    let listeners = accept::listen(&proxy)?;
    let admin = match proxy.settings().admin.listen {
        Some(address) => Some(
            AdminServer::bind(address, handlers(&proxy)).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("admin: cannot listen on {address}: {error}"),
                )
            })?,
        ),
        None => None,
    };
    let console = match proxy.settings().admin.resp_listen {
        Some(address) => Some(ConsoleServer::bind(address).map_err(|error| {
            let text = format!("admin.resp_listen: cannot listen on {address}: {error}");
            io::Error::new(error.kind(), text)
        })?),
        None => None,
    };
    let (full, closed) = watch::channel(false);
    let mut doors = Some((listeners, closed));
    for (index, inbox) in inboxes.into_iter().enumerate() {
        start_worker(index, proxy.clone(), inbox, doors.take())?;
    }
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    let operators = Operators {
        admin,
        console,
        asked,
        settings: Keeper::new(proxy.clone(), source, set_filter),
    };
    runtime.block_on(supervise(proxy, full, operators))
}

/// What serves operators, ready to be run.
struct Operators {
    admin: Option<AdminServer>,
    console: Option<ConsoleServer>,
    asked: mpsc::Receiver<Asked>,
    settings: Keeper,
}

/// Where clients come in, and when no more do. The first worker has them.
type Doors = (Vec<accept::Listener>, watch::Receiver<bool>);

fn start_worker(
    index: usize,
    proxy: Arc<Proxy>,
    inbox: mpsc::UnboundedReceiver<Message>,
    doors: Option<Doors>,
) -> io::Result<()> {
    thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            let runtime = Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .event_interval(EVENT_INTERVAL)
                .build_local(LocalOptions::default())
                .expect("a runtime needs an epoll descriptor, which was counted");
            runtime.block_on(async move {
                let worker = Worker::start(index, proxy.clone());
                if let Some((listeners, closed)) = doors {
                    for listener in listeners {
                        let accepting = accept::accept(proxy.clone(), listener, closed.clone());
                        tokio::task::spawn_local(accepting);
                    }
                }
                mailbox::receive(worker, inbox).await;
            });
        })?;
    Ok(())
}

async fn supervise(
    proxy: Arc<Proxy>,
    full: watch::Sender<bool>,
    operators: Operators,
) -> io::Result<()> {
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let (stop, stopped) = watch::channel(false);
    for (index, route) in proxy.routes.iter().enumerate() {
        let workers = proxy.clone();
        let tell = move || {
            for worker in 0..workers.workers() {
                let route = index as u16;
                workers.send(worker, Message::Topology { route });
            }
        };
        tokio::task::spawn_local(route.deployment.clone().run(tell));
        let settings = route.settings();
        for door in &route.doors {
            tracing::info!(
                route = %route.name, listen = %door.config.address,
                tls = door.config.is_tls(),
                backend = %settings.backend.first_address(),
                max_connections = settings.backend.max_connections,
                max_clients = proxy.limits.route_max(index as u16), "serving"
            );
        }
    }
    if let Some(admin) = operators.admin {
        tracing::info!(admin = %admin.local_addr()?, "metrics and health");
        tokio::task::spawn_local(admin.run(stopped.clone()));
    }
    for warning in &proxy.settings().warnings {
        tracing::warn!("{warning}");
    }
    let settings = Rc::new(RefCell::new(operators.settings));
    tokio::task::spawn_local(reload::on_hangup(settings.clone()));
    tokio::task::spawn_local(reload::on_change(settings.clone(), proxy.clone()));
    let (drain, mut drains) = mpsc::unbounded_channel();
    let console = Console::new(proxy.clone(), settings, drain);
    tokio::task::spawn_local(console.clone().run(operators.asked));
    if let Some(server) = operators.console {
        tracing::info!(console = %server.local_addr()?, "console");
        tokio::task::spawn_local(server.run(console, stopped.clone()));
    }
    tokio::task::spawn_local(admin::record(proxy.clone(), stopped.clone()));
    tokio::task::spawn_local(certificates::watch(proxy.clone(), stopped.clone()));
    let started = Event::new(EventKind::Started, env!("CARGO_PKG_VERSION"));
    proxy.journal.note(started.with("pid", std::process::id()));
    notify::tell(notify::State::Ready);
    if let Some(every) = notify::watchdog() {
        tokio::task::spawn_local(keep_alive(every));
    }
    let by = tokio::select! {
        _ = interrupted.recv() => "SIGINT".to_owned(),
        _ = terminated.recv() => "SIGTERM".to_owned(),
        Some(by) = drains.recv() => by,
    };
    tracing::info!(
        by,
        "stopping: no new clients; those that are busy may finish"
    );
    let event = Event::new(EventKind::Draining, by);
    proxy
        .journal
        .note(event.with("clients", proxy.limits.taken()));
    // Nobody listens any more if the first worker has ended.
    let _ = full.send(true);
    proxy.draining.set();
    notify::tell(notify::State::Stopping);
    let time = proxy.settings().process.drain_timeout;
    let drain = Drain::new(proxy.started.elapsed(), proxy.limits.taken(), time);
    for worker in 0..proxy.workers() {
        proxy.send(worker, Message::Drain(drain));
    }
    let gone = async {
        while proxy.limits.taken() > 0 {
            sleep(DRAIN_LOOK).await;
        }
    };
    let began = Instant::now();
    tokio::select! {
        left = timeout(time, gone) => if left.is_err() {
            tracing::warn!(clients = proxy.limits.taken(), "drain timeout: leaving with clients");
        },
        _ = interrupted.recv() => tracing::warn!("interrupted again: leaving at once"),
    }
    // The files of Unix sockets go with the listeners, before the process does.
    let _ = timeout(DOORS_CLOSE, full.closed()).await;
    // A receiver is gone when the admin server was not started.
    let _ = stop.send(true);
    tracing::info!(took = ?began.elapsed(), "stopped");
    Ok(())
}

/// Tells the watchdog that the main thread still turns.
async fn keep_alive(every: std::time::Duration) {
    let mut interval = tokio::time::interval(every);
    loop {
        interval.tick().await;
        notify::tell(notify::State::Alive);
    }
}

fn handlers(proxy: &Arc<Proxy>) -> Handlers {
    let (counters, ledgers, shown) = (proxy.clone(), proxy.clone(), proxy.clone());
    let (nodes, doors, patient) = (proxy.clone(), proxy.clone(), proxy.clone());
    let running = proxy.clone();
    let limits = proxy.limits.clone();
    let (topologies, hot, top) = (proxy.clone(), proxy.clone(), proxy.clone());
    Handlers {
        sources: vec![
            Box::new(move |out| counters.metrics.expose(out)),
            Box::new(move |out| admin::expose_backends(&ledgers, out)),
            Box::new(move |out| admin::expose_nodes(&nodes, out)),
            Box::new(move |out| admin::expose_limits(&limits, out)),
            Box::new(move |out| admin::expose_doors(&doors, out)),
            Box::new(move |out| admin::expose_topology(&topologies, out)),
            Box::new(admin::expose_process),
        ],
        settings: Box::new(move || running.settings().items()),
        ready: admin::readiness(proxy.clone()),
        doctor: Box::new(move || admin::findings(&patient)),
        overview: Box::new(move |span| admin::overview(&shown, span)),
        hot_keys: Box::new(move || admin::hot_keys_json(&hot)),
        top: Box::new(move || admin::top_json(&top)),
        journal: proxy.journal.clone(),
        slow_log: proxy.slow_log.clone(),
    }
}
