//! The process that takes over: gets the listening sockets, borrows connections.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep};

use super::link::{Hearing, Saying, Word, line, open};
use super::{UNTIL_SEEN, VARIABLE, VERSION};
use crate::net::{self, Inherited, Passed};
use crate::session::Proxy;

/// The elder has sent the sockets before this process could read its first line.
const SOCKETS_WITHIN: Duration = Duration::from_secs(10);

/// How often it is looked what is wanted and what can be given back.
const LOOK: Duration = Duration::from_millis(5);

/// Nodes that cannot be asked, or do not say what they are, are not waited for any longer:
/// the elder serves meanwhile, but has a deadline of its own.
const MET_WITHIN: Duration = Duration::from_secs(15);

/// Sockets that can be passed, at most: listeners are a handful.
const SOCKETS_MAX: usize = 1024;

/// What the elder has told, or what has become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Let clients in.
    Go,
    /// It has gone, and with it its connections: all are this process's now.
    Alone,
}

/// This process was started to take another's place.
#[derive(Debug)]
pub struct Successor {
    /// The elder's process id.
    pub elder: u32,
    link: UnixStream,
    sockets: Vec<Passed>,
}

impl Successor {
    /// What the elder passed, if there is one.
    ///
    /// # Errors
    /// When it does not speak as it should.
    pub fn from_environment() -> io::Result<Option<Successor>> {
        let Some(elder) = elder() else {
            return Ok(None);
        };
        let link = link()?;
        link.set_read_timeout(Some(SOCKETS_WITHIN))?;
        let sockets = receive(&link)?;
        link.set_read_timeout(None)?;
        Ok(Some(Successor {
            elder,
            link,
            sockets,
        }))
    }

    /// The listening sockets.
    pub fn inherited(&mut self) -> Inherited {
        Inherited::new(std::mem::take(&mut self.sockets))
    }
}

/// Tells the elder, if there is one, why this process does not take its place.
pub fn complain(why: &str) {
    if elder().is_some()
        && let Ok(mut link) = link()
    {
        // It learns from the exit code otherwise.
        let _ = link.write_all(&line(&json!(["failed", why])));
    }
}

/// The elder, which is this process's parent: a variable that was left behind does not
/// count.
fn elder() -> Option<u32> {
    let pid = std::env::var(VARIABLE).ok()?.parse().ok()?;
    (std::os::unix::process::parent_id() == pid).then_some(pid)
}

fn link() -> io::Result<UnixStream> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}

/// Reads up to the end of the sockets, and not a byte further.
fn receive(link: &UnixStream) -> io::Result<Vec<Passed>> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut sockets = Vec::new();
    for nth in 0..SOCKETS_MAX {
        let (text, socket) = receive_line(link)?;
        let word = Word::of(&text).ok_or_else(|| wrong("the process before says nonsense"))?;
        match (word.name.as_str(), socket) {
            ("weir", _) if nth == 0 && word.number(0) as u64 == VERSION => {}
            ("weir", _) => return Err(wrong("the process before hands over in another way")),
            ("socket", Some(socket)) => sockets.push(Passed {
                socket,
                keeps_file: word.rest.first() == Some(&true.into()),
                name: String::new(),
            }),
            ("sockets_end", _) => return Ok(sockets),
            _ => {}
        }
    }
    Err(wrong("the process before passes too many sockets"))
}

/// One line, byte by byte: what comes behind it is for somebody else to read.
fn receive_line(link: &UnixStream) -> io::Result<(String, Option<std::os::fd::OwnedFd>)> {
    let (mut text, mut socket, mut byte) = (Vec::new(), None, [0]);
    loop {
        let (read, came) = net::receive_with(link, &mut byte)?;
        socket = socket.or(came);
        match (read, byte[0]) {
            (0, _) => return Err(io::ErrorKind::UnexpectedEof.into()),
            (_, b'\n') => return Ok((String::from_utf8_lossy(&text).into_owned(), socket)),
            (_, byte) => text.push(byte),
        }
    }
}

/// Has the nodes' connections borrowed for as long as the elder lives; tells what it says.
/// Nothing has been opened before. Must be called on a local runtime.
///
/// # Errors
/// What the kernel says.
pub(crate) fn follow(
    successor: Successor,
    proxy: &Arc<Proxy>,
) -> io::Result<(Rc<Follower>, mpsc::UnboundedReceiver<Heard>)> {
    let (hearing, saying, _) = open(successor.link)?;
    let (tell, heard) = mpsc::unbounded_channel();
    let follower = Rc::new(Follower {
        saying: saying.clone(),
    });
    let borrower = Borrower {
        proxy: proxy.clone(),
        saying,
        accounts: HashMap::new(),
    };
    tokio::task::spawn_local(borrower.run(hearing, tell));
    Ok((follower, heard))
}

/// Says to the elder what this process is about to do.
pub(crate) struct Follower {
    saying: Saying,
}

impl Follower {
    /// This process was told to end: the elder need not come back.
    pub(crate) fn leave(&self) {
        self.saying.say(&json!(["bye"]));
    }
}

/// What is borrowed of one node.
#[derive(Debug, Default)]
struct Account {
    /// Places that this process may use, those that it has to give back included.
    lent: usize,
    /// To be given back.
    owed: usize,
    /// Asked for and not answered yet.
    asked: usize,
    /// The elder has no more than that wait at once.
    most: Option<usize>,
    /// It had a place, so that the node could be asked.
    is_known: bool,
    /// The elder does not know the node.
    is_own: bool,
}

struct Borrower {
    proxy: Arc<Proxy>,
    saying: Saying,
    accounts: HashMap<(String, String), Account>,
}

impl Borrower {
    async fn run(mut self, mut hearing: Hearing, tell: mpsc::UnboundedSender<Heard>) {
        let mut looks = interval(LOOK);
        let met = met(self.proxy.clone());
        tokio::pin!(met);
        let (mut has_met, mut is_ready) = (false, false);
        let latest = Instant::now() + MET_WITHIN;
        let mut met_by = latest;
        let by_will = loop {
            tokio::select! {
                word = hearing.next() => match word {
                    None => break false,
                    Some(word) if word.name == "all" => break true,
                    Some(word) if word.name == "go" => {
                        let _ = tell.send(Heard::Go);
                    }
                    Some(word) => self.take(&word),
                },
                () = &mut met, if !has_met => has_met = true,
                _ = looks.tick() => {
                    self.settle();
                    if !self.can_ask_everywhere() {
                        // The time that they have to answer begins when they are asked.
                        met_by = latest.min(Instant::now() + self.patience());
                    }
                    has_met |= Instant::now() > met_by;
                    if has_met && !is_ready && self.has_a_place_everywhere() {
                        is_ready = true;
                        self.saying.say(&json!(["ready"]));
                    }
                }
            }
        };
        if !by_will {
            tracing::warn!("the process before has ended without a word");
            sleep(UNTIL_SEEN).await;
        }
        for route in &self.proxy.routes {
            route.deployment.own_places();
        }
        let _ = tell.send(Heard::Alone);
    }

    fn take(&mut self, word: &Word) {
        let key = (word.text(0).to_owned(), word.text(1).to_owned());
        let account = self.accounts.entry(key).or_default();
        match word.name.as_str() {
            "lent" => {
                account.lent += 1;
                account.is_known = true;
                account.asked = account.asked.saturating_sub(1);
            }
            "refused" => {
                account.asked = account.asked.saturating_sub(1);
                // Asked for again with the next look, not at once.
                return;
            }
            "most" => {
                let most = word.number(2).max(1);
                account.most = Some(most);
                account.asked = account.asked.min(most);
                return;
            }
            "return" => account.owed += 1,
            "own" => (account.is_own, account.is_known) = (true, true),
            _ => {}
        }
        self.settle();
    }

    /// Uses what is lent, asks for what is missing, gives back what is owed and free.
    fn settle(&mut self) {
        for route in &self.proxy.routes {
            // Also those that are not published: what they are is learnt by asking them.
            for node in route.deployment.nodes() {
                let key = (route.name.clone(), node.address.clone());
                let account = self.accounts.entry(key).or_default();
                let places = account.lent.saturating_sub(account.owed);
                let cap = (!account.is_own).then_some(places);
                if node.ledger.limits().cap != cap {
                    node.ledger.set_cap(cap);
                }
                if account.is_own {
                    continue;
                }
                let (used, wants) = node.ledger.use_and_wants();
                // None is opened beyond the cap, so what is free now stays free.
                let free = account.lent - used.max(places).min(account.lent);
                if free > 0 {
                    account.lent -= free;
                    account.owed -= free;
                    self.saying
                        .say(&json!(["returned", route.name, node.address, free]));
                }
                // One in any case: without it nothing could be served.
                let wants = match account.lent {
                    0 => wants.max(1),
                    _ => wants,
                };
                let wants = account.most.map_or(wants, |most| wants.min(most));
                if wants > account.asked {
                    account.asked = wants;
                    self.saying
                        .say(&json!(["want", route.name, node.address, wants]));
                }
            }
        }
    }

    /// Whether every node that is known of has had a connection to be asked over.
    fn can_ask_everywhere(&self) -> bool {
        self.proxy.routes.iter().all(|route| {
            route.deployment.nodes().iter().all(|node| {
                let key = (route.name.clone(), node.address.clone());
                let account = self.accounts.get(&key);
                account.is_some_and(|account| account.is_known)
            })
        })
    }

    /// How long the nodes may take to say what they are.
    fn patience(&self) -> Duration {
        let routes = self.proxy.routes.iter();
        let connect = routes.map(|route| route.settings().timeouts.connect);
        connect.max().unwrap_or_default().saturating_mul(2)
    }

    fn has_a_place_everywhere(&self) -> bool {
        self.proxy.routes.iter().all(|route| {
            let key = (
                route.name.clone(),
                route.deployment.primary().address.clone(),
            );
            let account = self.accounts.get(&key);
            account.is_some_and(|account| account.lent > 0 || account.is_own)
        })
    }
}

/// Until every route knows its nodes, which may be never: Redis may be away.
async fn met(proxy: Arc<Proxy>) {
    for route in &proxy.routes {
        route.deployment.first_met().await;
    }
}
