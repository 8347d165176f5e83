//! Single questions to the node, on connections of their own.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::{Node, Opened, close_politely};
use crate::backend::budget::{Kind, Partition, Phase};
use crate::resp::{self};

/// Of an answer at most this much is read: more than any error takes.
const ANSWER_MAX: usize = 512;

impl Node {
    /// Whether the node answers on a connection of its own, whatever it says: a
    /// node that runs a long script says `-BUSY`, and that is an answer.
    pub async fn probe(&self) -> bool {
        let deadline = Instant::now() + self.settings().timeouts.connect;
        let asked = async {
            let slot = self.ledger.take(Kind::Probe, deadline).await.ok()?;
            let (mut socket, slot) = self.connect(slot).await.ok()?;
            slot.set_phase(Phase::Open);
            let mut answer = [0; 64];
            let answered = match socket.write_all(b"pING\r\n").await {
                Ok(()) => timeout_at(deadline, socket.read(&mut answer)).await,
                Err(error) => Ok(Err(error)),
            };
            close_politely(socket, Some(slot));
            let is_answer = matches!(answered, Ok(Ok(n)) if n > 0);
            if is_answer {
                self.heard(Duration::ZERO);
            }
            is_answer.then_some(())
        };
        asked.await.is_some()
    }

    /// Whether the node knows a user of this name; also if it will not say.
    pub async fn has_user(self: &Arc<Self>, key: &Partition, name: &[u8]) -> bool {
        match self.ask(key, &[b"aCL".as_slice(), b"GETUSER", name]).await {
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

    /// Whether the node lets the user of this partition run a command. `question` is
    /// that command in a form that does nothing.
    ///
    /// # Errors
    /// What the node says to a user who may not, as a reply; `None` if it does not answer.
    pub async fn permits(
        self: &Arc<Self>,
        key: &Partition,
        question: &[&[u8]],
    ) -> Option<Result<(), Vec<u8>>> {
        let answer = self.ask(key, question).await?;
        if !answer.starts_with(b"-NOPERM") {
            return Some(Ok(()));
        }
        let end = memchr::memchr(b'\r', &answer).unwrap_or(answer.len());
        Some(Err([&answer[..end], b"\r\n"].concat()))
    }

    /// One question on a connection of its own; the beginning of the answer.
    async fn ask(self: &Arc<Self>, key: &Partition, question: &[&[u8]]) -> Option<Vec<u8>> {
        let deadline = Instant::now() + self.settings().timeouts.connect;
        let slot = self.ledger.take(Kind::Control, deadline).await.ok()?;
        let Opened {
            mut socket, slot, ..
        } = self.open(key, slot).await.ok()?;
        let mut request = Vec::new();
        resp::encode_command(question, &mut request);
        let asked = async {
            socket.write_all(&request).await.ok()?;
            let mut answer = vec![0; ANSWER_MAX];
            let n = socket.read(&mut answer).await.ok().filter(|&n| n > 0)?;
            answer.truncate(n);
            Some(answer)
        };
        let answer = timeout_at(deadline, asked).await.ok().flatten();
        close_politely(socket, Some(slot));
        answer
    }
}
