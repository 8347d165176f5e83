//! Asking one node how it is, over a connection of its own within the node's budget.
//!
//! Nothing that clients do delays it: a pool that is used up is waited for and is no
//! reason to think ill of the node. A connection that ends is seen at once; one on which
//! nothing comes for the stall time means that the node hangs; an answer that is an error
//! (`-BUSY`, `-LOADING`) is an answer.

use std::sync::Arc;
use std::time::Duration;

use crate::net::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};

use crate::backend::{Kind, Node, OpenError, Opened, Partition, Slot, UserId, close_politely};
use crate::resp::{self, Value, Version};
use crate::router::{Health, NodeId, Report};

/// Answers are a few KiB; more is not one.
const ANSWER_MAX: usize = 1 << 20;

/// What a probe found.
#[derive(Debug)]
pub struct Finding {
    /// At which node.
    pub node: NodeId,
    /// When the question was asked.
    pub asked_at: Instant,
    /// How long the answer took.
    pub took: Duration,
    /// How the node is.
    pub health: Health,
    /// What it says of itself; `None` if it only answers.
    pub report: Option<Report>,
    /// Why it cannot be used, for people.
    pub why: String,
}

/// How often to ask: changes hands while there is no primary, and wakes whoever waits.
pub type Pace = watch::Receiver<Duration>;

/// Asks for as long as somebody listens. Must run on a local runtime.
pub async fn probe(node: Arc<Node>, findings: mpsc::Sender<Finding>, mut pace: Pace) {
    let key = Partition {
        user: UserId::BACKEND,
        version: Version::Resp2,
        db: 0,
        no_touch: false,
    };
    let mut was_mute = false;
    loop {
        let mut has_answered = false;
        let began = Instant::now();
        let deadline = began + node.settings().timeouts.connect;
        let finding = match node.ledger.take(Kind::Probe, deadline).await {
            // All connections are in use: that says nothing of the node.
            Err(_) => None,
            Ok(slot) => match node.open(&key, slot).await {
                Ok(opened) => {
                    let asking =
                        ask_while_open(&node, opened, &findings, &mut pace, &mut has_answered);
                    Some(asking.await)
                }
                Err(error) => refused(&node, began, &error),
            },
        };
        match finding {
            // Somebody else needed the slot.
            Some(None) | None => {}
            Some(Some(mut finding)) => {
                let was_mute = std::mem::replace(&mut was_mute, !has_answered);
                if finding.health == Health::Unknown {
                    if has_answered || !was_mute {
                        // Whether that was this connection alone is seen from the next.
                        continue;
                    }
                    // Two have ended before anything was answered.
                    finding.health = Health::Down;
                }
                if findings.send(finding).await.is_err() {
                    return;
                }
            }
        }
        if findings.is_closed() {
            return;
        }
        rest(&mut pace).await;
    }
}

/// Waits until it is time to ask again, or the pace changes.
async fn rest(pace: &mut Pace) {
    let pause = *pace.borrow_and_update();
    tokio::select! {
        () = sleep(pause) => {}
        changed = pace.changed() => if changed.is_err() { sleep(pause).await },
    }
}

/// What it means that no connection came about.
fn refused(node: &Node, began: Instant, error: &OpenError) -> Option<Option<Finding>> {
    let took = began.elapsed();
    let health = match error {
        OpenError::Full => return None,
        OpenError::Refused(text) if text.starts_with("LOADING") => Health::Loading,
        // A long script: it answers.
        OpenError::Refused(text) if text.starts_with("BUSY") => Health::Up,
        OpenError::Refused(_) => Health::Refused,
        OpenError::Unreachable(_) if took >= node.settings().timeouts.connect / 2 => Health::Hung,
        OpenError::Unreachable(_) => Health::Down,
    };
    Some(Some(Finding {
        node: node.id,
        asked_at: began,
        took,
        health,
        report: None,
        why: error.to_string(),
    }))
}

/// Asks over an open connection until it ends. `None` if the slot was wanted back; health
/// is [`Health::Unknown`] if the connection was lost.
async fn ask_while_open(
    node: &Arc<Node>,
    opened: Opened,
    findings: &mpsc::Sender<Finding>,
    pace: &mut Pace,
    has_answered: &mut bool,
) -> Option<Finding> {
    let Opened {
        mut socket, slot, ..
    } = opened;
    let yielding = slot.asked_to_yield();
    tokio::pin!(yielding);
    loop {
        let asked_at = Instant::now();
        slot.set_busy();
        let answer = timeout_at(asked_at + node.settings().timeouts.stall, ask(&mut socket)).await;
        slot.set_idle(Instant::now());
        let finding = |health, report, why: String| Finding {
            node: node.id,
            asked_at,
            took: asked_at.elapsed(),
            health,
            report,
            why,
        };
        match answer {
            Ok(Ok(answers)) => {
                *has_answered = true;
                let report = read(&answers);
                let health = match &report {
                    Some(report) if report.loading => Health::Loading,
                    _ if is_loading(&answers) => Health::Loading,
                    _ => Health::Up,
                };
                let why = first_error(&answers);
                if findings.send(finding(health, report, why)).await.is_err() {
                    return leave(socket, slot);
                }
            }
            Ok(Err(why)) => {
                close_politely(socket, Some(slot));
                return Some(finding(Health::Unknown, None, why));
            }
            Err(_) => {
                let why = format!("no answer within {:?}", node.settings().timeouts.stall);
                close_politely(socket, Some(slot));
                return Some(finding(Health::Hung, None, why));
            }
        }
        let mut unasked = [0];
        tokio::select! {
            () = rest(pace) => {}
            () = &mut yielding => return leave(socket, slot),
            // Nothing comes unasked but the end.
            _ = socket.read(&mut unasked) => {
                close_politely(socket, Some(slot));
                return Some(finding(Health::Unknown, None, "closed by the node".into()));
            }
        }
    }
}

fn leave(socket: Stream, slot: Slot) -> Option<Finding> {
    close_politely(socket, Some(slot));
    None
}

const QUESTIONS: [&[&str]; 4] = [
    &["rOLE"],
    &["iNFO", "replication"],
    &["iNFO", "persistence"],
    &["iNFO", "server"],
];

fn read(answers: &[Value]) -> Option<Report> {
    match answers {
        [role, replication, persistence, server] => {
            Report::read(role, replication, persistence, server)
        }
        _ => None,
    }
}

fn is_loading(answers: &[Value]) -> bool {
    let loads = |answer: &Value| {
        let text = answer.as_str().unwrap_or_default();
        answer.is_error() && text.starts_with("LOADING")
    };
    answers.iter().any(loads)
}

fn first_error(answers: &[Value]) -> String {
    let error = answers.iter().find(|answer| answer.is_error());
    let text = error.and_then(Value::as_str).unwrap_or_default();
    text.to_owned()
}

/// Asks the questions in one write.
async fn ask(socket: &mut Stream) -> Result<Vec<Value>, String> {
    let mut request = Vec::new();
    for question in QUESTIONS {
        resp::encode_command(question, &mut request);
    }
    let sent = socket.write_all(&request).await;
    sent.map_err(|error| error.to_string())?;
    let mut received = Vec::new();
    let mut answers = Vec::new();
    while answers.len() < QUESTIONS.len() {
        answers.push(read_value(socket, &mut received).await?);
    }
    Ok(answers)
}

/// The next value from the socket; what has arrived behind it stays in `received`.
///
/// # Errors
/// Why there is none: the connection ended, or what came is not the protocol.
pub async fn read_value(socket: &mut Stream, received: &mut Vec<u8>) -> Result<Value, String> {
    loop {
        match resp::decode(received) {
            Ok(Some((value, used))) => {
                received.drain(..used);
                return Ok(value);
            }
            Ok(None) if received.len() > ANSWER_MAX => return Err("too long an answer".into()),
            Ok(None) => {}
            Err(error) => return Err(error.to_string()),
        }
        let read = socket.read_buf(received).await;
        if read.map_err(|error| error.to_string())? == 0 {
            return Err("closed by the node".into());
        }
    }
}
