//! What all workers of a process share: the routes, the mailboxes through which
//! workers talk, the counters that must be unique. Touched when clients come and
//! go, never for a command.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwap;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::client_line::ClientView;
use super::console::{By, IdentityView, Questions};
use super::door::Door;
use super::drain::Drain;
use super::failure::Failure;
use super::feed::{FeedKey, FromFeed, ToFeed};
use super::links::{Batch, Way};
use super::lobby::{FromLobby, ToLobby};
use super::newcomer::Newcomer;
use super::pause::{AskedPause, Pause};
use super::reached::{Once, Reached};
use super::registry::Kill;
use super::room::Seeker;
use crate::admission::{ClientPermit, Group, Limits};
use crate::backend::{BudgetLimits, Partition, Ticket};
use crate::blocking::Places;
use crate::config::{self, Config};
use crate::discovery::Deployment;
use crate::metrics::{HotKeys, Journal, Latch, Metrics, SlowLog, Traces, WorkerMetrics};
use crate::net::tls::Renew;
use crate::pubsub::Audience;

/// One named front: its settings and its nodes.
#[derive(Debug)]
pub struct Route {
    /// Its name, in logs and metrics.
    pub name: String,
    settings: ArcSwap<config::Route>,
    /// The nodes behind it.
    pub deployment: Arc<Deployment>,
    /// Which of its limits refuse commands.
    pub reached: Reached,
    /// No further client may wait for the end of a pause.
    pub paused_full: Latch,
    /// How many clients may block on connections of their own.
    pub places: Arc<Places>,
    /// What each worker counts on it.
    pub metrics: Vec<Arc<WorkerMetrics>>,
    /// How many are subscribed to what, beside what the node knows.
    pub audience: Arc<Audience>,
    /// Where its clients come in.
    pub doors: Vec<Arc<Door>>,
    /// Whether it answers without Redis.
    pub(super) fails_open: Once,
}

impl Route {
    /// All certificates of the route, those for clients and those for its node.
    pub fn certificates(&self) -> impl Iterator<Item = Arc<dyn Renew>> {
        let doors = self.doors.iter().filter_map(|door| door.tls.clone());
        let doors = doors.map(|certificates| certificates as Arc<dyn Renew>);
        let nodes = self.deployment.tls.as_ref();
        let nodes = nodes.map(|tls| tls.certificates.clone() as Arc<dyn Renew>);
        doors.chain(nodes)
    }
}

/// What all workers share.
#[derive(Debug)]
pub struct Proxy {
    settings: ArcSwap<Config>,
    /// The routes, in the order of the settings.
    pub routes: Vec<Arc<Route>>,
    /// Who may come in: limits on clients, in all and by identity.
    pub limits: Arc<Limits>,
    /// All counters.
    pub metrics: Arc<Metrics>,
    /// What happened.
    pub journal: Arc<Journal>,
    /// Commands that took long.
    pub slow_log: Arc<SlowLog>,
    /// Keys that are asked for most.
    pub hot_keys: HotKeys,
    /// Commands of the sample that is traced.
    pub traces: Traces,
    /// When the process started.
    pub started: Instant,
    mailboxes: Vec<UnboundedSender<Message>>,
    questions: Questions,
    /// Whether clients are closed, or commands refused, since memory is used up.
    pub(super) memory_full: Once,
    /// The process takes no more clients and is about to end.
    pub draining: Latch,
    /// Clients given to each worker and not gone yet.
    loads: Vec<AtomicU32>,
    /// Bytes of memory that each worker holds for clients, as of its last tick.
    held: Vec<AtomicUsize>,
    next_client_id: AtomicU64,
}

/// What workers say to each other, and the acceptor to them.
#[derive(Debug)]
pub enum Message {
    /// A client has connected to the route.
    Client(Newcomer),
    /// Commands for a connection of this worker.
    Commands(Batch),
    /// Replies to commands that this worker handed over.
    Replies {
        /// This worker's name for the link.
        conn: Ticket,
        /// The replies, in order.
        bytes: Vec<u8>,
        /// How they came.
        way: Way,
    },
    /// Replies that were on their way to another worker have arrived there.
    CaughtUp {
        /// The connection that they came over, which may be read again.
        conn: Ticket,
    },
    /// The connection behind a link was lost.
    LinkLost {
        /// This worker's name for the link.
        conn: Ticket,
        /// How many of the bytes handed over had been put on the connection. Those
        /// that came later never will be.
        taken: u64,
        /// How many at the end of those were never written.
        unwritten: u64,
    },
    /// The connection behind a link could not be opened.
    LinkFailed {
        /// This worker's name for the link.
        conn: Ticket,
        /// Why.
        failure: Failure,
    },
    /// The connection behind a link makes no progress while the node answers elsewhere.
    LinkStuck {
        /// This worker's name for the link.
        conn: Ticket,
        /// The command that it is stuck on is this worker's oldest.
        by_head: bool,
    },
    /// A link is not used any more.
    LinkClosed {
        /// The worker that used it.
        from: usize,
        /// Its name for it.
        conn: Ticket,
    },
    /// Which clients are there.
    ListClients {
        /// On which route.
        route: u16,
        /// Where to send the answer.
        answer: oneshot::Sender<Vec<ClientView>>,
    },
    /// Add up the clients by who they are.
    Identities {
        /// By what.
        by: By,
        /// Where to send the answer.
        answer: oneshot::Sender<Vec<IdentityView>>,
    },
    /// Close these clients.
    KillClients {
        /// On which route.
        route: u16,
        /// Which.
        kill: Kill,
        /// How many were closed.
        answer: oneshot::Sender<usize>,
    },
    /// The nodes behind a route have changed.
    Topology {
        /// Which route.
        route: u16,
    },
    /// Hold, or release, the commands of a route's clients.
    Pause {
        /// Which route.
        route: u16,
        /// The pause in force; `None` releases.
        pause: Option<Pause>,
    },
    /// Redis has refused a `CLIENT PAUSE`.
    PauseRefused {
        /// On which route.
        route: u16,
        /// Which.
        refused: AskedPause,
    },
    /// A client of another worker reads for one that may be here.
    Invalidate {
        /// On which route.
        route: u16,
        /// Which client.
        target: u64,
        /// The keys to forget, as Redis wrote them; `None` only asks.
        keys: Option<Vec<u8>>,
        /// Whether the client is here.
        answer: oneshot::Sender<bool>,
    },
    /// Unblock a client that waits on this worker.
    Unblock {
        /// The client's id.
        id: u64,
        /// With an error instead of a timeout.
        error: bool,
        /// Whether it was blocked.
        answer: oneshot::Sender<bool>,
    },
    /// To the home of a feed, about one of its clients here.
    ToFeed {
        /// Which feed.
        key: FeedKey,
        /// What.
        message: ToFeed,
    },
    /// From the home of a feed.
    FromFeed {
        /// Which feed.
        key: FeedKey,
        /// What.
        message: FromFeed,
    },
    /// Close this client, if it is still idle, and give its place to another worker's.
    GiveWay {
        /// Which of this worker's clients.
        session: Ticket,
        /// Whom for.
        seeker: Seeker,
    },
    /// Somebody gave way to this worker's client, or nobody did.
    RoomMade {
        /// The client that waits.
        session: Ticket,
        /// Its place.
        permit: Option<ClientPermit>,
    },
    /// How long clients have been idle.
    IdleAges {
        /// Whose.
        groups: Arc<[Arc<Group>]>,
        /// The ages of each of these, in seconds.
        answer: oneshot::Sender<Vec<Vec<u32>>>,
    },
    /// To the lobby of a partition, at its home.
    Lobby {
        /// On which route.
        route: u16,
        /// Whose.
        key: Partition,
        /// What.
        what: ToLobby,
    },
    /// From a lobby, to a client that waits.
    FromLobby {
        /// The client's session.
        to: Ticket,
        /// What.
        what: FromLobby,
    },
    /// Close the clients that are there, each in its turn; `None` takes that back.
    Drain(Option<Drain>),
}

impl Route {
    /// The settings in force. Workers keep a copy of their own for what is asked often.
    pub fn settings(&self) -> Arc<config::Route> {
        self.settings.load_full()
    }

    fn apply(&self, settings: config::Route) {
        let settings = Arc::new(settings);
        self.deployment.apply(&settings);
        let backend = &settings.backend;
        self.places.set_limits(
            backend.max_blocking,
            backend.max_blocking_shared,
            backend.lease_queue,
        );
        self.settings.store(settings);
    }
}

/// How many spans may wait to be sent: none if nobody takes them.
fn room_for_traces(config: &Config) -> usize {
    match config.traces.endpoint {
        Some(_) => config.traces.queue,
        None => 0,
    }
}

impl Proxy {
    /// The parts that workers share; each mailbox is one worker's, `questions` are the
    /// console's.
    pub fn new(
        config: Config,
        metrics: Arc<Metrics>,
        mailboxes: Vec<UnboundedSender<Message>>,
        questions: Questions,
    ) -> Arc<Proxy> {
        let workers = mailboxes.len();
        let limits = Limits::new(&config, workers);
        let journal = Arc::new(Journal::new());
        let started = Instant::now();
        let routes = config
            .routes
            .iter()
            .enumerate()
            .map(|(index, route)| {
                let settings = Arc::new(route.clone());
                Arc::new(Route {
                    name: route.name.clone(),
                    deployment: Deployment::new(&settings, workers, started, &journal),
                    metrics: (0..workers)
                        .map(|worker| metrics.worker(worker, index))
                        .collect(),
                    audience: Arc::default(),
                    doors: route
                        .doors()
                        .map(|listener| Arc::new(Door::new(&route.name, listener, &journal)))
                        .collect(),
                    reached: Reached::default(),
                    paused_full: Latch::default(),
                    fails_open: Once::default(),
                    places: Places::new(
                        BudgetLimits::of(&settings.backend).blocking_max(),
                        settings.backend.max_blocking_shared,
                        settings.backend.lease_queue,
                    ),
                    settings: ArcSwap::new(settings),
                })
            })
            .collect();
        let traces = Traces::new();
        traces.set_max(room_for_traces(&config));
        Arc::new(Proxy {
            settings: ArcSwap::from_pointee(config),
            routes,
            limits,
            metrics,
            journal,
            slow_log: Arc::new(SlowLog::new()),
            hot_keys: HotKeys::new(workers),
            traces,
            started,
            loads: (0..workers).map(|_| AtomicU32::new(0)).collect(),
            held: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            mailboxes,
            questions,
            memory_full: Once::default(),
            draining: Latch::default(),
            next_client_id: AtomicU64::new(1),
        })
    }

    /// All certificates, of all routes.
    pub fn certificates(&self) -> impl Iterator<Item = Arc<dyn Renew>> {
        self.routes.iter().flat_map(|route| route.certificates())
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<Config> {
        self.settings.load_full()
    }

    /// Whether `settings` are those in force.
    pub fn has_settings(&self, settings: &Arc<Config>) -> bool {
        std::ptr::eq(Arc::as_ptr(settings), Arc::as_ptr(&self.settings.load()))
    }

    /// Puts other settings into force, with the same routes and for what can change
    /// while Weir runs; workers take them over within a tick.
    ///
    /// # Panics
    /// When the routes are not the same.
    pub fn apply(&self, config: Config) {
        let names = |routes: &mut dyn Iterator<Item = &String>| -> Vec<String> {
            routes.cloned().collect()
        };
        assert_eq!(
            names(&mut config.routes.iter().map(|route| &route.name)),
            names(&mut self.routes.iter().map(|route| &route.name)),
            "routes come and go by a restart only"
        );
        self.limits.reload(&config);
        for (route, settings) in self.routes.iter().zip(&config.routes) {
            route.apply(settings.clone());
        }
        self.traces.set_max(room_for_traces(&config));
        self.settings.store(Arc::new(config));
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.mailboxes.len()
    }

    /// Where operators' questions are put.
    pub fn questions(&self) -> &Questions {
        &self.questions
    }

    /// How many clients each worker has.
    pub fn loads(&self) -> Vec<u32> {
        self.loads.iter().map(|load| load.load(Relaxed)).collect()
    }

    /// A worker gets a client.
    pub fn raise_load(&self, worker: usize) {
        self.loads[worker].fetch_add(1, Relaxed);
    }

    /// A worker's client has gone.
    pub fn lower_load(&self, worker: usize) {
        self.loads[worker].fetch_sub(1, Relaxed);
    }

    /// A worker tells how many bytes it holds for clients, and is told how many the
    /// others hold.
    pub fn share_held(&self, worker: usize, bytes: usize) -> usize {
        self.held[worker].store(bytes, Relaxed);
        let others = self
            .held
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != worker);
        others.map(|(_, held)| held.load(Relaxed)).sum()
    }

    /// An id that no client of this process had before.
    pub fn next_client_id(&self) -> u64 {
        self.next_client_id.fetch_add(1, Relaxed)
    }

    /// Puts a message into a worker's mailbox. Mailboxes need no bound of their
    /// own: what is in them is bounded by the clients' own limits. A worker that has
    /// ended reads none; the process is about to end as well.
    pub fn send(&self, worker: usize, message: Message) {
        let _ = self.mailboxes[worker].send(message);
    }
}
