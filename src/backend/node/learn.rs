//! What the node says of itself, asked when Weir starts and whenever it may have changed.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::{DefaultUser, Node, OpenError, Opened, close_politely};
use crate::backend::budget::{Kind, Partition, Slot};
use crate::backend::credential::UserId;
use crate::backend::server::ServerFacts;
use crate::command::Table;
use crate::net::Stream;
use crate::resp::{self, Value, Version};

/// A node that cannot answer for a while is asked again after this long.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// After a loss the node is not asked sooner than this.
const A_MOMENT: Duration = Duration::from_millis(20);

/// Whether a refusal is about the node's state and not about who asks.
fn is_for_a_while(text: &str) -> bool {
    ["LOADING", "BUSY", "MASTERDOWN"]
        .iter()
        .any(|code| text.starts_with(code))
}

impl Node {
    /// Learns what the node says of itself, and again whenever that may have
    /// changed: its version, its command table, its limits. Runs for as long as the
    /// process.
    pub async fn keep_learning(self: Arc<Self>) {
        tokio::join!(
            self.learn_again_and_again(),
            self.keep_probing(),
            self.keep_watching()
        );
    }

    async fn learn_again_and_again(self: &Arc<Self>) {
        let mut changes = self.changed.subscribe();
        loop {
            let learnt = self.learn().await;
            self.met.send_replace(true);
            if learnt.is_ok() {
                self.stale.notified().await;
            }
            // Probes find out when a sick one is well again.
            let was_sick = self.is_sick();
            while self.is_sick() && changes.changed().await.is_ok() {}
            let pause = match learnt {
                // After a loss the node needs a moment; and one round of questions is
                // enough for many losses at once.
                _ if was_sick => A_MOMENT,
                Ok(()) => A_MOMENT,
                // It is there, and cannot answer: it loads its data, or is full.
                Err(_) => ASK_AGAIN,
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Waits until the node was tried for the first time: before that it is not known
    /// what to tell clients of it, nor whether they have to log in.
    pub async fn first_met(&self) {
        // An error would mean that the node is gone, and Weir with it.
        let _ = self.met.subscribe().wait_for(|met| *met).await;
    }

    /// Whether the node has told nothing so far, for want of a login of Weir's own. Says
    /// yes at most once a second.
    pub fn wants_an_informant(&self) -> bool {
        let second = self.started.elapsed().as_secs() + 1;
        self.learnt.load(Relaxed)
            && self.facts.load().version == (0, 0, 0)
            && self.informed_at.swap(second, Relaxed) != second
    }

    /// Asks the node as a client's user.
    pub async fn learn_as(self: &Arc<Self>, user: UserId) {
        // What fails here is no worse than not having asked.
        if let Ok(opened) = self.open_plain(user).await {
            let _ = self.learn_on(opened).await;
        }
    }

    async fn open_plain(self: &Arc<Self>, user: UserId) -> Result<Opened, OpenError> {
        let key = Partition {
            user,
            version: Version::Resp2,
            db: 0,
            no_touch: false,
        };
        self.open(&key, self.slot().await?).await
    }

    async fn learn(self: &Arc<Self>) -> Result<(), OpenError> {
        if self.default_user() != DefaultUser::Open && self.settings().backend.password.is_some() {
            // Whether clients need a login of their own is seen from a fresh
            // connection without one.
            match self.open_plain(UserId::NOBODY).await {
                Ok(opened) => close_politely(opened.socket, Some(opened.slot)),
                Err(OpenError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let opened = match self.open_plain(UserId::BACKEND).await {
            Ok(opened) => opened,
            Err(OpenError::Refused(text)) if is_for_a_while(&text) => {
                return Err(OpenError::Refused(text));
            }
            Err(OpenError::Refused(text)) => {
                // Without a login of Weir's own the node tells nothing; the built-in
                // table serves.
                if self.settings().backend.password.is_none() && text.starts_with("NOAUTH") {
                    self.default_user.store(DefaultUser::Closed as u8, Relaxed);
                }
                tracing::info!(node = %self.address, "the node tells nothing: {text}");
                self.learnt.store(true, Relaxed);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if self.settings().backend.password.is_none() {
            self.default_user.store(DefaultUser::Open as u8, Relaxed);
        }
        self.learn_on(opened).await
    }

    async fn learn_on(&self, mut opened: Opened) -> Result<(), OpenError> {
        let deadline = Instant::now() + self.settings().timeouts.connect;
        let answers = timeout_at(deadline, ask(&mut opened.socket, &QUESTIONS)).await;
        close_politely(opened.socket, Some(opened.slot));
        let why = match answers {
            Ok(Ok(answers)) => {
                self.take_in(&answers);
                return Ok(());
            }
            Ok(Err(why)) => why,
            Err(_) => "no answer".into(),
        };
        // It was reached, and this connection may have been lost alone.
        Err(self.unreachable(&why))
    }

    async fn slot(&self) -> Result<Slot, OpenError> {
        let deadline = Instant::now() + self.settings().backend.lease_wait;
        self.ledger
            .take(Kind::Control, deadline)
            .await
            .map_err(|refused| {
                self.unreachable(&format!("no connection free ({})", refused.limit.setting()))
            })
    }

    fn take_in(&self, answers: &[Value]) {
        let mut facts = ServerFacts::default();
        let [
            info,
            hello,
            config_bulk,
            config_databases,
            config_clients,
            command,
        ] = answers
        else {
            return;
        };
        facts.learn_hello(hello);
        facts.learn_info(info);
        for config in [config_bulk, config_databases, config_clients] {
            facts.learn_config(config);
        }
        tracing::info!(
            node = %self.address, route = %self.route,
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

/// What a node is asked that nothing is known of.
const QUESTIONS: [&[&str]; 6] = [
    &["iNFO", "server"],
    &["hELLO"],
    &["cONFIG", "GET", "proto-max-bulk-len"],
    &["cONFIG", "GET", "databases"],
    &["cONFIG", "GET", "maxclients"],
    &["cOMMAND"],
];

/// Asks the questions in one write; a managed server may refuse any of them.
pub(super) async fn ask(socket: &mut Stream, questions: &[&[&str]]) -> Result<Vec<Value>, String> {
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
