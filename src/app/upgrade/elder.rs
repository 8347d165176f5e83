//! The process that is replaced: starts its successor, lends it connections.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};

use super::executable::Executable;
use super::link::{Hearing, Saying, Word, line, open};
use super::{TOLD_TO_STOP, UNTIL_SEEN, VARIABLE, VERSION};
use crate::backend::{Kind, Node, Phase};
use crate::net;
use crate::session::Proxy;

/// Until it must be ready: reading its settings takes milliseconds, meeting the nodes twice
/// `timeouts.connect`, but no more than half of this, and the places for that come when connections are idle
/// or have finished what they do.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A socket pair takes so little at once, whether it is read or not.
const SENT_WITHIN: Duration = Duration::from_secs(1);

/// How often it is looked whether the child still runs.
const LOOK: Duration = Duration::from_millis(50);

/// How often while it is known to end.
const LOOK_CLOSELY: Duration = Duration::from_millis(5);

/// Who has closed its end is about to exit; how it does says more than being killed.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

/// A process that is killed is gone at once, and what it had at Redis [`UNTIL_SEEN`] later.
const GONE_WITHIN: Duration = Duration::from_secs(3);

/// A place that was wanted is taken back when it has not come by then: nobody waits that
/// long for a connection.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the successor has told, or what has become of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It could serve.
    Ready,
    /// It was told to end, and lets nobody in any more.
    Leaves,
    /// It has gone before its time: why, if that is known.
    Gone(String),
}

/// A successor that was started.
pub(crate) struct Elder {
    /// Its process id.
    pub(crate) pid: u32,
    orders: mpsc::UnboundedSender<Order>,
    told: mpsc::UnboundedReceiver<Told>,
}

enum Order {
    Go,
    All,
    Kill,
}

/// Starts the successor and sends it the listening sockets; with each, whether its file
/// stays for good. Must be called on a local runtime.
///
/// # Errors
/// What the kernel says.
pub(crate) fn start(
    proxy: &Arc<Proxy>,
    executable: &Executable,
    sockets: &[(BorrowedFd<'_>, bool)],
) -> io::Result<Elder> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = executable.command();
    command
        .env(VARIABLE, std::process::id().to_string())
        // What was said to this process alone.
        .env_remove("LISTEN_PID")
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_FDNAMES")
        .env_remove("WATCHDOG_PID")
        .stdin(OwnedFd::from(theirs));
    let child = command.spawn()?;
    // It holds the other end now, and this process no longer does.
    drop(command);
    let pid = child.id();
    // A child that does not read does not hold this up.
    let sent = ours
        .set_write_timeout(Some(SENT_WITHIN))
        .and_then(|()| send(&ours, sockets))
        .and_then(|()| open(ours));
    let (hearing, saying, writer) = match sent {
        Ok(link) => link,
        Err(error) => {
            let mut child = child;
            let _ = child.kill();
            let status = child.wait();
            return Err(match (error.kind(), status) {
                // It ended before it had heard anything: how is what matters.
                (io::ErrorKind::BrokenPipe, Ok(status)) => {
                    io::Error::other(format!("it ended: {status}"))
                }
                _ => error,
            });
        }
    };
    let (orders, mut ordered) = mpsc::unbounded_channel();
    let (tell, told) = mpsc::unbounded_channel();
    let lender = Lender {
        proxy: proxy.clone(),
        child,
        saying,
        tell,
        accounts: HashMap::new(),
        loans: JoinSet::new(),
        lent: Rc::default(),
        reason: None,
        is_ready: false,
    };
    tokio::task::spawn_local(async move {
        lender.run(hearing, &mut ordered).await;
        // What was said last is on its way before the process ends, which waits for this.
        let _ = writer.await;
        drop(ordered);
    });
    Ok(Elder { pid, orders, told })
}

/// A fresh socket pair takes so few bytes at once.
fn send(link: &UnixStream, sockets: &[(BorrowedFd<'_>, bool)]) -> io::Result<()> {
    let mut writer = link;
    writer.write_all(&line(&json!(["weir", VERSION])))?;
    for (socket, keeps_file) in sockets {
        net::send_with(link, &line(&json!(["socket", keeps_file])), *socket)?;
    }
    writer.write_all(&line(&json!(["sockets_end"])))
}

impl Elder {
    /// What it tells next. Never ends after it has gone.
    pub(crate) async fn told(&mut self) -> Told {
        match self.told.recv().await {
            Some(told) => told,
            None => std::future::pending().await,
        }
    }

    /// It is to let clients in.
    pub(crate) fn go(&self) {
        let _ = self.orders.send(Order::Go);
    }

    /// It is not wanted any more: waits until it has gone, and what it had at Redis with it.
    pub(crate) async fn kill(mut self) {
        let _ = self.orders.send(Order::Kill);
        let gone = async { while !matches!(self.told().await, Told::Gone(_)) {} };
        if timeout(GONE_WITHIN, gone).await.is_err() {
            tracing::warn!(pid = self.pid, "a process that was killed is still there");
        }
    }

    /// This process has closed all its connections, or will when it ends: waits, not for
    /// long, until it has, and leaves the whole budget to the successor.
    pub(crate) async fn finish(&self, proxy: &Proxy, patience: Duration) {
        let deadline = Instant::now() + patience;
        loop {
            let mut own = own_connections(proxy);
            if own == 0 {
                // What was lent leaves the ledger with the last word: nobody here may take
                // its place, nor at a node that is found in the last moment.
                for route in &proxy.routes {
                    route.deployment.borrow_places();
                }
                own = own_connections(proxy);
                if own == 0 {
                    break;
                }
            }
            for node in nodes(proxy) {
                // None of its own any more.
                let lent = node.ledger.snapshot().of(Kind::Lent);
                node.ledger.set_cap(Some(lent));
            }
            if Instant::now() > deadline {
                tracing::warn!(
                    connections = own,
                    "leaving with connections to Redis that are in use"
                );
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
        let _ = self.orders.send(Order::All);
        // Until it has been written.
        let _ = tokio::time::timeout(UNTIL_SEEN, self.orders.closed()).await;
    }
}

fn nodes(proxy: &Proxy) -> impl Iterator<Item = Arc<Node>> {
    let routes = proxy.routes.iter();
    routes.flat_map(|route| route.deployment.nodes())
}

/// Connections that are not the successor's.
fn own_connections(proxy: &Proxy) -> usize {
    let own = |node: Arc<Node>| {
        let snapshot = node.ledger.snapshot();
        snapshot.total() - snapshot.of(Kind::Lent)
    };
    nodes(proxy).map(own).sum()
}

/// What is lent of one node.
struct Account {
    node: Arc<Node>,
    /// Tasks that wait for a place for the successor.
    waiting: Rc<Cell<usize>>,
    /// A permit for each place that it has given back.
    returned: Rc<Semaphore>,
}

struct Lender {
    proxy: Arc<Proxy>,
    child: Child,
    saying: Saying,
    tell: mpsc::UnboundedSender<Told>,
    accounts: HashMap<(String, String), Account>,
    /// One task for each place that is lent or waited for. They end with this.
    loans: JoinSet<()>,
    lent: Rc<Cell<usize>>,
    reason: Option<String>,
    is_ready: bool,
}

impl Lender {
    async fn run(mut self, mut hearing: Hearing, orders: &mut mpsc::UnboundedReceiver<Order>) {
        let mut looks = interval(LOOK);
        let (mut left_by_will, mut may_serve) = (false, false);
        let deadline = Instant::now() + READY_WITHIN;
        let patience = loop {
            tokio::select! {
                word = hearing.next() => match word {
                    // It says nothing more only when it ends.
                    None => break ENDS_WITHIN,
                    Some(word) if word.name == "bye" => {
                        left_by_will = true;
                        let _ = self.tell.send(Told::Leaves);
                    }
                    Some(word) => self.take(&word),
                },
                order = orders.recv() => match order {
                    Some(Order::Go) => {
                        may_serve = true;
                        self.saying.say(&json!(["go"]));
                    }
                    Some(Order::All) => {
                        self.saying.say(&json!(["all"]));
                        return;
                    }
                    // This process ends first: the other serves, and learns of it by itself.
                    None if may_serve => return,
                    Some(Order::Kill) | None => break Duration::ZERO,
                },
                _ = looks.tick() => {
                    if !self.is_ready && Instant::now() > deadline {
                        self.reason = Some(format!("it was not ready within {READY_WITHIN:?}"));
                        break Duration::ZERO;
                    }
                    if matches!(self.child.try_wait(), Ok(Some(_))) {
                        // What it said last may not have been read yet.
                        while let Ok(Some(word)) = timeout(LOOK, hearing.next()).await {
                            self.take(&word);
                        }
                        break Duration::ZERO;
                    }
                },
                Some(_) = self.loans.join_next() => {}
            }
        };
        let status = self.ended(patience).await;
        let why = self.reason.take().unwrap_or_else(|| match status {
            _ if left_by_will => TOLD_TO_STOP.to_owned(),
            Ok(status) => format!("it ended: {status}"),
            Err(error) => error.to_string(),
        });
        let used = self.lent.get() > 0;
        if used {
            sleep(UNTIL_SEEN).await;
        }
        self.loans.shutdown().await;
        let _ = self.tell.send(Told::Gone(why));
    }

    /// Waits until the child has ended, by itself or, when the patience is over, killed.
    /// What it had stays lent until then, however long the kernel takes.
    async fn ended(&mut self, patience: Duration) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                let _ = self.child.kill();
            }
            sleep(LOOK_CLOSELY).await;
        }
    }

    fn take(&mut self, word: &Word) {
        match word.name.as_str() {
            "ready" => {
                self.is_ready = true;
                let _ = self.tell.send(Told::Ready);
            }
            "failed" => self.reason = Some(word.text(0).to_owned()),
            "want" => self.lend(word.text(0), word.text(1), word.number(2)),
            "returned" => {
                let key = (word.text(0).to_owned(), word.text(1).to_owned());
                if let Some(account) = self.accounts.get(&key) {
                    account.returned.add_permits(word.number(2));
                }
            }
            _ => {}
        }
    }

    /// As many places of a node are to be on their way to the successor.
    fn lend(&mut self, route: &str, address: &str, places: usize) {
        let key = (route.to_owned(), address.to_owned());
        if !self.accounts.contains_key(&key) {
            let known = self.proxy.routes.iter().find(|known| known.name == route);
            let Some(node) = known.and_then(|known| known.deployment.node_at(address)) else {
                if let Some(known) = known {
                    known.deployment.give_up(address);
                }
                self.saying.say(&json!(["own", route, address]));
                return;
            };
            let account = Account {
                node,
                waiting: Rc::default(),
                returned: Rc::new(Semaphore::new(0)),
            };
            self.accounts.insert(key.clone(), account);
        }
        let account = &self.accounts[&key];
        // No more than there can be; who asked for more counts on no more.
        let most = account.node.ledger.limits().max_connections.max(1);
        if places > most {
            self.saying.say(&json!(["most", route, address, most]));
        }
        let places = places.min(most);
        for _ in account.waiting.get()..places {
            account.waiting.set(account.waiting.get() + 1);
            let loan = Loan {
                route: key.0.clone(),
                node: account.node.clone(),
                waiting: account.waiting.clone(),
                returned: account.returned.clone(),
                lent: self.lent.clone(),
                saying: self.saying.clone(),
            };
            self.loans.spawn_local(loan.run());
        }
    }
}

/// One place, on its way to the successor, there, and back.
struct Loan {
    route: String,
    node: Arc<Node>,
    waiting: Rc<Cell<usize>>,
    returned: Rc<Semaphore>,
    lent: Rc<Cell<usize>>,
    saying: Saying,
}

impl Loan {
    async fn run(self) {
        let slot = self
            .node
            .ledger
            .take(Kind::Lent, Instant::now() + PATIENCE)
            .await;
        self.waiting.set(self.waiting.get() - 1);
        let Ok(slot) = slot else {
            // It asks again for what it still needs.
            self.say("refused");
            return;
        };
        slot.set_phase(Phase::Open);
        self.lent.set(self.lent.get() + 1);
        self.say("lent");
        slot.asked_to_yield().await;
        self.say("return");
        if let Ok(permit) = self.returned.acquire().await {
            permit.forget();
        }
        self.lent.set(self.lent.get() - 1);
        drop(slot);
    }

    fn say(&self, what: &str) {
        self.saying
            .say(&json!([what, self.route, self.node.address]));
    }
}
