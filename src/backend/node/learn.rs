//! What the node says of itself, asked when Weir starts and whenever it may have changed.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::{DefaultUser, Node, OpenError, close_politely};
use crate::backend::budget::{Kind, Partition, Slot};
use crate::backend::credential::UserId;
use crate::backend::server::ServerFacts;
use crate::command::Table;
use crate::resp::{self, Value, Version};

impl Node {
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
