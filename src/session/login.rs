//! Logins are checked with Redis, one after the other, on a connection of their
//! own with nothing else in flight: since 7.2 a failed `AUTH` with output pending
//! is not answered at all.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::client::{Answer, Flags};
use super::failure::Failure;
use super::lanes::refusal;
use super::worker::{State, Worker};
use crate::backend::{Credential, Kind, Node, OpenError, Phase, Slot, Ticket, close_politely};
use crate::config::{Secret, User};
use crate::discovery::Deployment;
use crate::net::Stream;
use crate::resp::ReplyScanner;
use std::rc::Weak;
use std::sync::Arc;
use std::time::Duration;

/// How many logins may wait for their turn on one worker. One takes a round trip
/// of some ten microseconds, so even a full line is through within a second.
const LINE_MAX: usize = 16 * 1024;

/// A connection that checks logins is kept this long for the next one.
const KEPT: Duration = Duration::from_secs(5);

/// The longest answer to `AUTH`: an error line.
const ANSWER_MAX: usize = 64 * 1024;

/// What a client logs in with.
#[derive(Debug)]
pub struct Credentials {
    /// The name; `None` for `AUTH password`.
    pub username: Option<Vec<u8>>,
    /// The password.
    pub password: Vec<u8>,
}

impl Credentials {
    /// Whether one of these users has this name and password.
    pub fn among(&self, users: &[User]) -> bool {
        let name = self.username.as_deref().unwrap_or(b"default");
        users
            .iter()
            .filter(|user| user.name.as_bytes() == name)
            .any(|user| user.password.matches(&self.password))
    }
}

/// One login that waits for its turn.
#[derive(Debug)]
pub struct Login {
    ticket: Ticket,
    credentials: Credentials,
    question: Vec<u8>,
    deadline: Instant,
}

impl State {
    /// Has a login checked; the session waits. `question` is the client's own request,
    /// as it spelled it: what Redis logs of a login, and shows to a `MONITOR`, is that.
    pub(super) fn begin_login(
        &mut self,
        ticket: Ticket,
        credentials: Credentials,
        question: Vec<u8>,
    ) {
        let session = &mut self.sessions[ticket.slot as usize];
        session.flags.set(Flags::WAITING);
        let route = session.route as usize;
        let node = self.fronts[route].node.clone();
        let deadline = Instant::now() + node.settings().timeouts.auth;
        let line = match &self.fronts[route].logins {
            Some(line) if !line.is_closed() => line.clone(),
            _ => {
                let (line, logins) = mpsc::channel(LINE_MAX);
                let worker = self.me.clone();
                let deployment = self.fronts[route].route.deployment.clone();
                tokio::task::spawn_local(check_logins(worker, deployment, logins));
                self.fronts[route].logins = Some(line.clone());
                line
            }
        };
        if line
            .try_send(Login {
                ticket,
                credentials,
                question,
                deadline,
            })
            .is_err()
        {
            let failure = Failure::QueueFull { limit: "logins" };
            self.login_checked(ticket, Answer::Reply(failure.reply()));
        }
    }

    fn login_checked(&mut self, ticket: Ticket, answer: Answer) {
        if let Some(session) = self.session(ticket) {
            session.extra().answer = Some(answer);
            session.flags.clear(Flags::WAITING);
            self.make_ready(ticket);
        }
    }
}

/// A connection that checks logins.
struct Checker {
    socket: Stream,
    slot: Slot,
}

/// Checks the logins of one route on one worker, in their order.
async fn check_logins(
    worker: Weak<Worker>,
    deployment: Arc<Deployment>,
    mut logins: mpsc::Receiver<Login>,
) {
    let mut checker: Option<Checker> = None;
    let mut asked = deployment.login_node();
    loop {
        let next = match &checker {
            None => logins.recv().await,
            Some(kept) => {
                // Kept for the next login, but not when somebody else needs its slot.
                let yielding = kept.slot.asked_to_yield();
                tokio::select! {
                    biased;
                    next = logins.recv() => next,
                    () = yielding => { release(&mut checker); continue }
                    () = tokio::time::sleep(KEPT) => { release(&mut checker); continue }
                }
            }
        };
        let Some(login) = next else { break };
        let node = deployment.login_node();
        if node.id != asked.id {
            release(&mut checker);
            asked = node.clone();
        }
        let answer = check(&node, &mut checker, &login).await;
        if let Answer::LoggedIn(user) = &answer
            && node.wants_an_informant()
        {
            // The first to log in is the first who can tell what the node is, and is the
            // first to be told. Its slot may be the only one.
            release(&mut checker);
            node.learn_as(user.id()).await;
        }
        let Some(worker) = worker.upgrade() else {
            break;
        };
        worker.enter(|state| state.login_checked(login.ticket, answer));
    }
    release(&mut checker);
}

fn release(checker: &mut Option<Checker>) {
    if let Some(Checker { socket, slot }) = checker.take() {
        close_politely(socket, Some(slot));
    }
}

async fn check(node: &Node, checker: &mut Option<Checker>, login: &Login) -> Answer {
    // A kept connection may have been closed by the node meanwhile; asking again
    // on a new one is safe, since a login changes nothing but its own connection.
    for fresh in [false, true] {
        if fresh {
            release(checker);
        }
        if checker.is_none() {
            match open(node, login.deadline).await {
                Ok(opened) => *checker = Some(opened),
                Err(failure) => return Answer::Reply(failure.reply()),
            }
        }
        let Checker { socket, slot } = checker.as_mut().expect("opened above");
        slot.set_busy();
        let answer = timeout_at(login.deadline, ask(socket, &login.question)).await;
        slot.set_idle(Instant::now());
        match answer {
            Ok(Ok(reply)) if reply.first() != Some(&b'-') => return interned(node, login),
            Ok(Ok(reply)) if reply.starts_with(b"-ERR max number of clients") => {
                // Not the answer to AUTH: the node had no room for the connection.
                release(checker);
                return Answer::Reply(Failure::Open(OpenError::Full).reply());
            }
            Ok(Ok(reply)) => return Answer::Reply(reply),
            Ok(Err(_)) => {}
            Err(_) => {
                // The late answer would be taken for the next login's.
                release(checker);
                let failure = Failure::Open(OpenError::Unreachable("AUTH timed out".into()));
                return Answer::Reply(failure.reply());
            }
        }
    }
    release(checker);
    let why = OpenError::Unreachable("connection lost during AUTH".into());
    Answer::Reply(Failure::Open(why).reply())
}

fn interned(node: &Node, login: &Login) -> Answer {
    let Credentials { username, password } = &login.credentials;
    let credential = Credential::new(username.as_deref(), Secret::new(password.clone()));
    match node.credentials.intern(credential) {
        Ok(user) => Answer::LoggedIn(user),
        Err(_) => Answer::Reply(Failure::QueueFull { limit: "logins" }.reply()),
    }
}

async fn open(node: &Node, deadline: Instant) -> Result<Checker, Failure> {
    if let Some(error) = node.unavailable() {
        return Err(Failure::Open(error));
    }
    let slot = node
        .ledger
        .take(Kind::Auth, deadline)
        .await
        .map_err(|refused| refusal(&refused))?;
    let (socket, slot) = node.connect(slot).await.map_err(Failure::Open)?;
    slot.set_phase(Phase::Open);
    Ok(Checker { socket, slot })
}

async fn ask(socket: &mut Stream, question: &[u8]) -> std::io::Result<Vec<u8>> {
    socket.write_all(question).await?;
    let mut scanner = ReplyScanner::default();
    let mut reply = Vec::new();
    let mut scanned = 0;
    loop {
        if socket.read_buf(&mut reply).await? == 0 || reply.len() > ANSWER_MAX {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let fed = scanner
            .feed(&reply[scanned..])
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidData))?;
        scanned += fed.consumed;
        if fed.complete {
            reply.truncate(scanned);
            return Ok(reply);
        }
    }
}
