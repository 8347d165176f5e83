//! One Redis node as the whole process knows it: its address and budget, the
//! credentials of those who use it, what it says of itself, and whether it can
//! be reached. Shared by all workers; the hot path reads two atomics of it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::backoff::Backoff;
use super::budget::{BudgetLimits, Kind, Ledger, Partition, Phase, Slot};
use super::credential::{Credential, Credentials, User, UserId};
use super::handshake::{Greeting, Handshake, HandshakeError, HandshakeSpec, Progress};
use super::server::ServerFacts;
use crate::command::{ServerVersion, Table};
use crate::config::{Backend, Timeouts};
use crate::net;
use crate::resp::{self, Value, Version};

/// Why a connection could not be opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OpenError {
    /// The node refused this user, database or protocol: its own words.
    Refused(String),
    /// The node cannot be reached, or does not behave like Redis: why.
    Unreachable(String),
    /// The node has as many clients as it takes.
    Full,
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenError::Refused(text) => write!(f, "refused: {text}"),
            OpenError::Unreachable(why) => f.write_str(why),
            OpenError::Full => f.write_str("the node's maxclients is reached"),
        }
    }
}

/// A connection that has shaken hands.
#[derive(Debug)]
pub struct Opened {
    /// The socket.
    pub socket: TcpStream,
    /// The id that the node knows it by, if it told.
    pub id: Option<i64>,
    /// Its place in the budget.
    pub slot: Slot,
}

/// Whether a fresh connection may run commands without a login.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum DefaultUser {
    /// Nobody has asked yet.
    Unknown = 0,
    /// It may.
    Open = 1,
    /// It has to log in first.
    Closed = 2,
}

/// One Redis node.
#[derive(Debug)]
pub struct Node {
    /// The settings of the backend.
    pub config: Backend,
    /// The settings of its route's deadlines.
    pub timeouts: Timeouts,
    /// The route's name: what the node's own `CLIENT LIST` shows.
    pub route: String,
    /// Counts every connection to it.
    pub ledger: Arc<Ledger>,
    /// Who uses it.
    pub credentials: Credentials,
    facts: ArcSwap<ServerFacts>,
    table: ArcSwap<Table>,
    learnt: AtomicBool,
    bulk_max: AtomicU64,
    default_user: AtomicU8,
    down: AtomicBool,
    health: Mutex<Health>,
    started: Instant,
    /// The second in which the default user was last doubted.
    doubted_at: AtomicU64,
    /// Told when what was learnt of the node may be out of date.
    stale: Notify,
}

#[derive(Debug)]
struct Health {
    backoff: Backoff,
    /// No attempt before this moment, and what the last one met.
    down: Option<(Instant, OpenError)>,
    /// Paces attempts while the node has as many clients as it takes.
    crowded: Backoff,
    /// The budget is narrowed to what is open, until somebody tries for more.
    is_narrow: bool,
}

impl Node {
    /// A node that nobody has talked to yet.
    pub fn new(route: &str, config: &Backend, timeouts: &Timeouts, workers: usize) -> Arc<Node> {
        let limits = BudgetLimits {
            max_connections: config.max_connections,
            max_shared: config.max_shared,
            max_leases: config.max_leases,
            max_blocking: config.max_blocking,
            max_subscriptions: config.max_subscriptions,
            queue_max: config.lease_queue,
        };
        let own = config.password.clone().map(|password| {
            Credential::new(config.username.as_deref().map(str::as_bytes), password)
        });
        // The seed only has to differ between processes that lose the same node.
        let seed = u64::from(std::process::id()) << 32 | u64::from(workers as u32);
        let facts = ServerFacts::default();
        Arc::new(Node {
            config: config.clone(),
            timeouts: timeouts.clone(),
            route: route.to_owned(),
            ledger: Ledger::new(limits, workers),
            credentials: Credentials::new(own),
            bulk_max: AtomicU64::new(facts.proto_max_bulk_len),
            facts: ArcSwap::from_pointee(facts),
            table: ArcSwap::from_pointee(Table::builtin()),
            learnt: AtomicBool::new(false),
            default_user: AtomicU8::new(DefaultUser::Unknown as u8),
            down: AtomicBool::new(false),
            health: Mutex::new(Health {
                backoff: Backoff::new(config.reconnect_min, config.reconnect_max, seed),
                down: None,
                crowded: Backoff::new(config.reconnect_min, config.reconnect_max, !seed),
                is_narrow: false,
            }),
            started: Instant::now(),
            doubted_at: AtomicU64::new(0),
            stale: Notify::new(),
        })
    }

    /// Whether `table` is the one in force.
    pub fn has_table(&self, table: &Arc<Table>) -> bool {
        std::ptr::eq(Arc::as_ptr(table), Arc::as_ptr(&self.table.load()))
    }

    /// Whether the node answers on a connection of its own, whatever it says: a
    /// node that runs a long script says `-BUSY`, and that is an answer.
    pub async fn probe(&self) -> bool {
        let deadline = Instant::now() + self.timeouts.connect;
        let asked = async {
            let slot = self.ledger.take(Kind::Probe, deadline).await.ok()?;
            let mut socket = self.dial().await.ok()?;
            slot.set_phase(Phase::Open);
            let mut answer = [0; 64];
            let answered = match socket.write_all(b"PING\r\n").await {
                Ok(()) => timeout_at(deadline, socket.read(&mut answer)).await,
                Err(error) => Ok(Err(error)),
            };
            close_politely(socket, Some(slot));
            matches!(answered, Ok(Ok(n)) if n > 0).then_some(())
        };
        asked.await.is_some()
    }

    /// Whether the node knows a user of this name; also if it will not say.
    pub async fn has_user(self: &Arc<Self>, key: &Partition, name: &[u8]) -> bool {
        match self.ask(key, &[b"ACL".as_slice(), b"GETUSER", name]).await {
            Some(answer) => ![b"*-1".as_slice(), b"$-1", b"_"]
                .iter()
                .any(|null| answer.starts_with(null)),
            None => true,
        }
    }

    /// Wakes a connection that is blocked in a command, as a timeout would or with an
    /// error. Whether the node found it blocked.
    pub async fn unblock(self: &Arc<Self>, key: &Partition, id: i64, error: bool) -> bool {
        let (id, how) = (id.to_string(), if error { "ERROR" } else { "TIMEOUT" });
        let question = [
            b"CLIENT".as_slice(),
            b"UNBLOCK",
            id.as_bytes(),
            how.as_bytes(),
        ];
        self.ask(key, &question)
            .await
            .is_some_and(|answer| answer.starts_with(b":1"))
    }

    /// One question on a connection of its own; the beginning of the answer.
    async fn ask(self: &Arc<Self>, key: &Partition, question: &[&[u8]]) -> Option<Vec<u8>> {
        let deadline = Instant::now() + self.timeouts.connect;
        let slot = self.ledger.take(Kind::Control, deadline).await.ok()?;
        let Opened {
            mut socket, slot, ..
        } = self.open(key, slot).await.ok()?;
        let mut request = Vec::new();
        resp::encode_command(question, &mut request);
        let asked = async {
            socket.write_all(&request).await.ok()?;
            let mut answer = vec![0; 64];
            let n = socket.read(&mut answer).await.ok().filter(|&n| n > 0)?;
            answer.truncate(n);
            Some(answer)
        };
        let answer = timeout_at(deadline, asked).await.ok().flatten();
        close_politely(socket, Some(slot));
        answer
    }

    /// The version that decides how the node words things.
    pub fn server_version(&self) -> ServerVersion {
        self.facts.load().server_version()
    }

    /// What the node said of itself.
    pub fn facts(&self) -> Arc<ServerFacts> {
        self.facts.load_full()
    }

    /// The command table in force.
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// The largest bulk string that the node takes in a request, in bytes. A larger
    /// one would cost the shared connection.
    #[inline]
    pub fn bulk_max(&self) -> u64 {
        self.bulk_max.load(Relaxed)
    }

    /// The node's `proto-max-bulk-len` was changed through Weir.
    pub fn set_bulk_max(&self, bytes: u64) {
        self.bulk_max.store(bytes, Relaxed);
    }

    /// Whether a fresh connection may run commands.
    pub fn default_user(&self) -> DefaultUser {
        match self.default_user.load(Relaxed) {
            1 => DefaultUser::Open,
            2 => DefaultUser::Closed,
            _ => DefaultUser::Unknown,
        }
    }

    /// Whether the node can be used: it was reached, and is not known to be down.
    pub fn is_ready(&self) -> bool {
        self.learnt.load(Relaxed) && !self.down.load(Relaxed)
    }

    /// Why no connection is even tried now; `None` if one may be.
    #[inline]
    pub fn unavailable(&self) -> Option<OpenError> {
        if !self.down.load(Relaxed) {
            return None;
        }
        let health = self.health();
        let (until, error) = health.down.as_ref()?;
        (Instant::now() < *until).then(|| error.clone())
    }

    /// What the last attempt met, if the node is down.
    pub fn last_error(&self) -> Option<OpenError> {
        self.health().down.as_ref().map(|(_, error)| error.clone())
    }

    /// A client was told to log in. Perhaps the node no longer asks for that: looks
    /// again, at most once a second.
    pub fn doubt_default_user(&self) {
        let second = self.started.elapsed().as_secs() + 1;
        if self.doubted_at.swap(second, Relaxed) != second {
            self.mark_stale();
        }
    }

    /// What was learnt may be out of date: the node was lost, or restarted.
    pub fn mark_stale(&self) {
        self.stale.notify_one();
    }

    /// Connects and shakes hands. The slot comes back with the connection; if there
    /// is none, it returns to the ledger when the node has let go of it.
    ///
    /// # Errors
    /// [`OpenError`]; one that is about the node and not about this user holds off
    /// further attempts for a while.
    pub async fn open(self: &Arc<Self>, key: &Partition, slot: Slot) -> Result<Opened, OpenError> {
        let deadline = Instant::now() + self.timeouts.connect;
        let Some(mut user) = self.credentials.get(key.user) else {
            // The last session of this user has gone, and with it the credential.
            return Err(OpenError::Refused("NOAUTH Authentication required.".into()));
        };
        loop {
            let credential = user.credential();
            let error = match self.try_open(key, credential, &slot, deadline).await {
                Ok((socket, id)) => {
                    self.succeeded();
                    slot.set_phase(Phase::Open);
                    return Ok(Opened { socket, id, slot });
                }
                Err((error, socket)) => {
                    // Weir's own password may have been changed in the file that it was
                    // read from. The connection that was refused has to be gone first:
                    // the slot is for one.
                    let is_stale = key.user == UserId::BACKEND
                        && matches!(&error, OpenError::Refused(text) if is_about_login(text));
                    match socket {
                        Some(mut socket) if is_stale => {
                            let Some(fresh) = self.reread_password(&user).await else {
                                close_politely(socket, Some(slot));
                                return Err(error);
                            };
                            user = fresh;
                            if timeout_at(deadline, end(&mut socket)).await.is_ok() {
                                continue;
                            }
                            close_politely(socket, Some(slot));
                        }
                        Some(socket) => close_politely(socket, Some(slot)),
                        None => drop(slot),
                    }
                    error
                }
            };
            match &error {
                OpenError::Refused(_) => {}
                OpenError::Full => self.narrow(),
                OpenError::Unreachable(_) => self.failed(&error),
            }
            return Err(error);
        }
    }

    /// One attempt; with the error comes the socket, if the node has it still.
    async fn try_open(
        &self,
        key: &Partition,
        credential: Option<&Credential>,
        slot: &Slot,
        deadline: Instant,
    ) -> Result<(TcpStream, Option<i64>), (OpenError, Option<TcpStream>)> {
        let mut socket = self.dial().await.map_err(|error| (error, None))?;
        let name = format!("weir:{}:{}", self.route, slot.kind().name());
        let mut handshake = Handshake::new(&HandshakeSpec {
            credential,
            version: key.version,
            db: key.db,
            no_touch: key.no_touch,
            name: &name,
            asks_id: slot.kind() == Kind::Blocking,
        });
        let error = match timeout_at(deadline, shake_hands(&mut socket, &mut handshake)).await {
            Ok(Ok(Ok(greeting))) => {
                if key.user == UserId::NOBODY {
                    self.default_user.store(DefaultUser::Open as u8, Relaxed);
                }
                return Ok((socket, greeting.connection_id()));
            }
            Ok(Ok(Err(error))) => self.refusal(error, key),
            Ok(Err(why)) => self.unreachable(&why),
            Err(_) => self.unreachable("no answer to the handshake"),
        };
        Err((error, Some(socket)))
    }

    /// Reads Weir's own password again from where it came from. The user to try
    /// with, if the node has refused another one than that.
    async fn reread_password(&self, refused: &User) -> Option<User> {
        let refused = refused.credential()?;
        let known = self.credentials.backend();
        if known.credential() != Some(refused) {
            // Another worker was faster.
            return Some(known);
        }
        let password = refused.password().clone();
        let read = tokio::task::spawn_blocking(move || password.reread()).await;
        let fresh = match read.ok()? {
            Ok(fresh) => fresh,
            Err(error) => {
                tracing::warn!(
                    node = %self.config.address, route = %self.route,
                    "the node refuses the password, and it cannot be read again: {error}"
                );
                return None;
            }
        };
        let fresh = Credential::new(refused.username(), fresh);
        if fresh == *refused {
            return None;
        }
        tracing::info!(
            node = %self.config.address, route = %self.route,
            "the node refused the password; it was read again and has changed"
        );
        self.credentials.set_backend(Some(fresh));
        Some(self.credentials.backend())
    }

    /// Connects and says nothing: for checking logins, which need no handshake.
    ///
    /// # Errors
    /// As [`Node::open`].
    pub async fn dial(&self) -> Result<TcpStream, OpenError> {
        let options = net::DialOptions {
            timeout: self.timeouts.connect,
            keepalive: self.config.tcp_keepalive,
            // Twice what a stalled connection is given before it is replaced.
            user_timeout: self.timeouts.stall * 2,
        };
        net::dial(&self.config.address, &options)
            .await
            .map_err(|error| {
                let error = OpenError::Unreachable(error.to_string());
                self.failed(&error);
                error
            })
    }

    fn unreachable(&self, why: &str) -> OpenError {
        OpenError::Unreachable(format!("{}: {why}", self.config.address))
    }

    /// A failed handshake in the words that Redis uses for it.
    fn refusal(&self, error: HandshakeError, key: &Partition) -> OpenError {
        if key.user == UserId::NOBODY && error == HandshakeError::NoAuth {
            self.default_user.store(DefaultUser::Closed as u8, Relaxed);
        }
        let text = match error {
            HandshakeError::MaxClients => return OpenError::Full,
            HandshakeError::WrongPass => {
                "WRONGPASS invalid username-password pair or user is disabled.".into()
            }
            HandshakeError::NoAuth => "NOAUTH Authentication required.".into(),
            HandshakeError::NoSuchDb => "ERR DB index is out of range".into(),
            HandshakeError::Busy => {
                "BUSY Redis is busy running a script. You can only call SCRIPT KILL or \
                 SHUTDOWN NOSAVE."
                    .into()
            }
            HandshakeError::Loading => "LOADING Redis is loading the dataset in memory".into(),
            HandshakeError::NoProto => "NOPROTO unsupported protocol version".into(),
            HandshakeError::NoPerm(step) => {
                format!(
                    "NOPERM this user has no permissions to run '{}'",
                    step.command()
                )
            }
            HandshakeError::Other(_, text) => text,
            other => return self.unreachable(&other.to_string()),
        };
        OpenError::Refused(text)
    }

    fn succeeded(&self) {
        if self.down.swap(false, Relaxed) {
            let mut health = self.health();
            health.backoff.reset();
            health.down = None;
            tracing::info!(node = %self.config.address, route = %self.route, "node is back");
        }
        let mut health = self.health();
        if !health.is_narrow {
            health.crowded.reset();
        }
    }

    /// The node takes no more clients: Weir goes on with the connections that it has,
    /// and after a pause tries whether there is room again.
    fn narrow(self: &Arc<Self>) {
        let snapshot = self.ledger.snapshot();
        let count = |phase: Phase| -> usize {
            let of_kind = snapshot.slots.iter();
            of_kind.map(|phases| phases[phase.index()]).sum()
        };
        let open = count(Phase::Open);
        if open == 0 {
            // Nothing to go on with.
            self.failed(&OpenError::Full);
            return;
        }
        self.ledger
            .set_max_connections((open + count(Phase::Dialling)).min(self.config.max_connections));
        let mut health = self.health();
        if std::mem::replace(&mut health.is_narrow, true) {
            return;
        }
        let pause = health.crowded.next_pause();
        drop(health);
        tracing::warn!(
            node = %self.config.address, route = %self.route, open,
            "the node's maxclients is reached: going on with the connections that are open"
        );
        let node = self.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(pause).await;
            node.widen();
        });
    }

    fn widen(&self) {
        self.health().is_narrow = false;
        self.ledger.set_max_connections(self.config.max_connections);
    }

    fn failed(&self, error: &OpenError) {
        let mut health = self.health();
        let pause = health.backoff.next_pause();
        let first = health.down.is_none();
        health.down = Some((Instant::now() + pause, error.clone()));
        drop(health);
        self.down.store(true, Relaxed);
        self.mark_stale();
        if first {
            tracing::warn!(
                node = %self.config.address, route = %self.route, "node cannot be used: {error}"
            );
        }
    }

    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns what the node says of itself, and again whenever that may have
    /// changed: its version, its command table, its limits. Runs for as long as the
    /// process.
    pub async fn keep_learning(self: Arc<Self>) {
        loop {
            if self.learn().await.is_ok() {
                self.stale.notified().await;
            }
            // After a loss the node needs a moment; and one round of questions is
            // enough for many losses at once.
            let pause = self
                .health()
                .down
                .as_ref()
                .map_or(Duration::from_millis(20), |(until, _)| {
                    until.saturating_duration_since(Instant::now())
                });
            tokio::time::sleep(pause.max(Duration::from_millis(20))).await;
        }
    }

    async fn learn(self: &Arc<Self>) -> Result<(), OpenError> {
        let key = |user| Partition {
            user,
            version: Version::Resp2,
            db: 0,
            no_touch: false,
        };
        if self.default_user() != DefaultUser::Open && self.config.password.is_some() {
            // Whether clients need a login of their own is seen from a fresh
            // connection without one.
            match self.open(&key(UserId::NOBODY), self.slot().await?).await {
                Ok(opened) => close_politely(opened.socket, Some(opened.slot)),
                Err(OpenError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let mut opened = match self.open(&key(UserId::BACKEND), self.slot().await?).await {
            Ok(opened) => opened,
            Err(OpenError::Refused(text)) => {
                // Without a login of Weir's own the node tells nothing; the built-in
                // table serves.
                if self.config.password.is_none() && text.starts_with("NOAUTH") {
                    self.default_user.store(DefaultUser::Closed as u8, Relaxed);
                }
                tracing::info!(node = %self.config.address, "the node tells nothing: {text}");
                self.learnt.store(true, Relaxed);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if self.config.password.is_none() {
            self.default_user.store(DefaultUser::Open as u8, Relaxed);
        }
        let deadline = Instant::now() + self.timeouts.connect;
        let answers = timeout_at(deadline, ask(&mut opened.socket)).await;
        close_politely(opened.socket, Some(opened.slot));
        let why = match answers {
            Ok(Ok(answers)) => {
                self.take_in(&answers);
                return Ok(());
            }
            Ok(Err(why)) => why,
            Err(_) => "no answer".into(),
        };
        let error = self.unreachable(&why);
        self.failed(&error);
        Err(error)
    }

    async fn slot(&self) -> Result<Slot, OpenError> {
        let deadline = Instant::now() + self.config.lease_wait;
        self.ledger
            .take(Kind::Control, deadline)
            .await
            .map_err(|refused| {
                self.unreachable(&format!("no connection free ({})", refused.limit.setting()))
            })
    }

    fn take_in(&self, answers: &[Value]) {
        let mut facts = ServerFacts::default();
        let [info, config_bulk, config_databases, config_clients, command] = answers else {
            return;
        };
        facts.learn_info(info);
        for config in [config_bulk, config_databases, config_clients] {
            facts.learn_config(config);
        }
        tracing::info!(
            node = %self.config.address, route = %self.route,
            version = ?facts.version, flavour = ?facts.flavour, "node is known"
        );
        self.bulk_max.store(facts.proto_max_bulk_len, Relaxed);
        if !command.is_error() {
            self.table
                .store(Arc::new(Table::builtin().with_live(command)));
        }
        self.facts.store(Arc::new(facts));
        self.learnt.store(true, Relaxed);
    }
}

/// Asks the questions in one write; a managed server may refuse any of them.
async fn ask(socket: &mut TcpStream) -> Result<Vec<Value>, String> {
    let questions: [&[&str]; 5] = [
        &["INFO", "server"],
        &["CONFIG", "GET", "proto-max-bulk-len"],
        &["CONFIG", "GET", "databases"],
        &["CONFIG", "GET", "maxclients"],
        &["COMMAND"],
    ];
    let mut request = Vec::new();
    for question in questions {
        resp::encode_command(question, &mut request);
    }
    socket
        .write_all(&request)
        .await
        .map_err(|error| error.to_string())?;
    let mut answers = Vec::new();
    let mut received = Vec::new();
    let mut scanner = resp::ReplyScanner::default();
    let mut scanned = 0;
    let mut start = 0;
    while answers.len() < questions.len() {
        let n = socket
            .read_buf(&mut received)
            .await
            .map_err(|error| error.to_string())?;
        if n == 0 {
            return Err("closed".into());
        }
        while scanned < received.len() && answers.len() < questions.len() {
            let fed = scanner
                .feed(&received[scanned..])
                .map_err(|error| error.to_string())?;
            scanned += fed.consumed;
            if !fed.complete {
                break;
            }
            match resp::decode(&received[start..scanned]) {
                Ok(Some((value, _))) => answers.push(value),
                _ => return Err("an answer that is not one".into()),
            }
            start = scanned;
        }
    }
    Ok(answers)
}

/// Whether an error to a login says that the password is not the right one.
fn is_about_login(text: &str) -> bool {
    text.starts_with("WRONGPASS") || text.starts_with("NOAUTH")
}

/// Says goodbye and waits until the node has closed its end.
async fn end(socket: &mut TcpStream) {
    let _ = socket.shutdown().await;
    let mut rest = [0; 4096];
    while socket.read(&mut rest).await.is_ok_and(|n| n > 0) {}
}

/// Says goodbye and waits, for as long as it takes, until the node has closed
/// its end: until then the node counts the connection, and so does the ledger. A
/// node that is gone for good is noticed by the socket's own keepalive.
pub fn close_politely(mut socket: TcpStream, slot: Option<Slot>) {
    if let Some(slot) = &slot {
        slot.set_phase(Phase::Closing);
    }
    tokio::task::spawn_local(async move {
        end(&mut socket).await;
        drop(socket);
        drop(slot);
    });
}

async fn shake_hands(
    socket: &mut TcpStream,
    handshake: &mut Handshake,
) -> Result<Result<Greeting, HandshakeError>, String> {
    socket
        .write_all(handshake.request())
        .await
        .map_err(|error| error.to_string())?;
    let mut buffer = [0; 2048];
    loop {
        let n = socket
            .read(&mut buffer)
            .await
            .map_err(|error| error.to_string())?;
        if n == 0 {
            return Err("closed during the handshake".to_owned());
        }
        match handshake.feed(&buffer[..n]) {
            Progress::More => {}
            Progress::Ready(greeting) => return Ok(Ok(greeting)),
            Progress::Failed(error) => return Ok(Err(error)),
        }
    }
}
