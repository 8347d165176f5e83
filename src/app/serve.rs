//! Starts Weir: workers on threads of their own; what operators need on the main thread,
//! whose life is in `life`.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};

use super::accept::{self, Gate};
use super::life::{self, Life, Operators, Sockets};
use super::upgrade::{Executable, Successor};
use crate::admin::{self, Handlers, Keeper, SetFilter};
use crate::config::{Config, ListenAddress, Source};
use crate::metrics::Metrics;
use crate::net::{self, Inherited};
use crate::session::{Message, Proxy, QUESTIONS_MAX, Worker, mailbox};

/// Tasks polled between two looks at the sockets. Tokio's default of 61 would
/// break a turn with a thousand ready clients into sixteen, and its batch too.
const EVENT_INTERVAL: u32 = 1024;

/// Serves until told to stop. Listening sockets that were inherited are used where the
/// settings name their addresses.
///
/// # Errors
/// What keeps it from starting: an address that cannot be listened on, too few
/// descriptors.
pub fn run(
    source: Source,
    config: Config,
    set_filter: SetFilter,
    mut inherited: Inherited,
) -> io::Result<()> {
    let executable = Executable::of_this_process();
    let mut successor = Successor::from_environment()?;
    if let Some(successor) = &mut successor {
        inherited = successor.inherited();
    }
    let workers = config.process.workers;
    net::check_descriptors(net::needed(&config, workers)).map_err(io::Error::other)?;
    let names = config.routes.iter().map(|route| route.name.clone());
    let metrics = Arc::new(Metrics::new(names, workers));
    let (mailboxes, inboxes): (Vec<_>, Vec<_>) =
        (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
    let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
    let proxy = Proxy::new(config, metrics, mailboxes, questions);
    if successor.is_some() {
        for route in &proxy.routes {
            route.deployment.borrow_places();
        }
    }
    let listeners = accept::listen(&proxy, &mut inherited)?;
    let settings = proxy.settings();
    let admin = settings.admin.listen;
    let admin = admin.map(|address| listen(address, "admin", &mut inherited));
    let console = settings.admin.resp_listen;
    let console = console.map(|address| listen(address, "admin.resp_listen", &mut inherited));
    let (admin, console) = (admin.transpose()?, console.transpose()?);
    for unused in inherited.rest() {
        tracing::warn!(
            socket = unused,
            "an inherited socket is at no address of the settings: closed"
        );
    }
    drop(inherited);
    let doors = listeners.iter().map(|listener| {
        let copy = listener.as_fd().try_clone_to_owned()?;
        Ok((copy, listener.keeps_file))
    });
    let sockets = Sockets {
        doors: doors.collect::<io::Result<_>>()?,
        admin,
        console,
    };
    // Who replaces another waits until that one has shut its doors.
    let gate = watch::Sender::new(match successor {
        Some(_) => Gate::Shut(mpsc::unbounded_channel().0),
        None => Gate::Open,
    });
    let mut listeners = Some((listeners, gate.subscribe()));
    for (index, inbox) in inboxes.into_iter().enumerate() {
        start_worker(index, proxy.clone(), inbox, listeners.take())?;
    }
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    let operators = Operators {
        asked,
        settings: Keeper::new(proxy.clone(), source, set_filter),
    };
    let ended = runtime.block_on(life::live(Life {
        proxy,
        gate,
        sockets,
        executable,
        successor,
        operators,
    }));
    // A name that is being looked up is nobody's business any more: waiting for the
    // resolver, which may not answer, would keep the process from ending.
    runtime.shutdown_background();
    ended
}

/// Where operators come in: at a socket that was inherited, or a new one.
fn listen(
    address: SocketAddr,
    setting: &str,
    inherited: &mut Inherited,
) -> io::Result<TcpListener> {
    let named = |error: io::Error| {
        let text = format!("{setting}: cannot listen on {address}: {error}");
        io::Error::new(error.kind(), text)
    };
    match inherited
        .take(&ListenAddress::Tcp(address))
        .map_err(named)?
    {
        Some((listener, _)) => Ok(listener.as_fd().try_clone_to_owned()?.into()),
        None => net::listen_tcp(address).map_err(named),
    }
}

/// Where clients come in, and whether they do. The first worker has them.
type Doors = (Vec<accept::Listener>, watch::Receiver<Gate>);

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
                if let Some((listeners, gate)) = doors {
                    for listener in listeners {
                        let accepting = accept::accept(proxy.clone(), listener, gate.clone());
                        tokio::task::spawn_local(accepting);
                    }
                }
                mailbox::receive(worker, inbox).await;
            });
        })?;
    Ok(())
}

/// What the pages tell.
pub(super) fn handlers(proxy: &Arc<Proxy>) -> Handlers {
    let (counters, ledgers, shown) = (proxy.clone(), proxy.clone(), proxy.clone());
    let (nodes, doors, patient) = (proxy.clone(), proxy.clone(), proxy.clone());
    let (running, traced, reached) = (proxy.clone(), proxy.clone(), proxy.clone());
    let limits = proxy.limits.clone();
    let (topologies, hot, top) = (proxy.clone(), proxy.clone(), proxy.clone());
    Handlers {
        sources: vec![
            Box::new(move |out| counters.metrics.expose(out)),
            Box::new(move |out| traced.traces.expose(out)),
            Box::new(move |out| admin::expose_backends(&ledgers, out)),
            Box::new(move |out| admin::expose_nodes(&nodes, out)),
            Box::new(move |out| admin::expose_limits(&limits, out)),
            Box::new(move |out| admin::expose_reached(&reached, out)),
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
