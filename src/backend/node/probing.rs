//! Probing a node that is sick: one probe at a time, each paced by the last one's
//! failure. A node that hangs takes a connection and does not answer on it, so that its
//! probe is outstanding for as long as it hangs, and is answered the moment it goes on.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{Node, OpenError, close_politely};
use crate::admission::Trip;
use crate::backend::budget::{Kind, Phase};
use crate::net;

/// How often the breaker judges by what commands have met.
const JUDGED_EVERY: Duration = Duration::from_secs(1);

/// The kernel asks after a node so often while a probe is not answered, so that one whose
/// network has gone does not keep the only probe.
const PROBE_KEEPALIVE: Duration = Duration::from_secs(1);

impl Node {
    /// Looks after the breaker for as long as the process runs.
    pub(super) async fn keep_probing(self: &Arc<Self>) {
        let mut judging = interval(JUDGED_EVERY);
        judging.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changes = self.changed.subscribe();
        loop {
            tokio::select! {
                _ = judging.tick() => self.judge(),
                _ = changes.changed() => {}
            }
            while self.is_sick() {
                changes.borrow_and_update();
                tokio::select! {
                    () = self.probe_after_pause() => {}
                    // Healed by what came over another connection, or fallen sicker.
                    _ = changes.changed() => {}
                }
            }
        }
    }

    async fn probe_after_pause(self: &Arc<Self>) {
        let pause = match self.breaker().1 {
            // Nothing is overrun by a probe that waits in its queue, and there should
            // always be one.
            Some(Trip::Silent) => self.settings().backend.reconnect_min,
            _ => self.condition().backoff.next_pause(),
        };
        sleep(pause).await;
        self.condition().breaker.probing();
        match self.probe_patiently().await {
            Some(Ok(())) => self.reached(),
            Some(Err(error)) => {
                self.condition().breaker.probe_failed();
                self.failed(&error);
            }
            // Weir's own budget has no room: that says nothing of the node.
            None => self.condition().breaker.probe_failed(),
        }
    }

    /// Asks over a connection of its own and waits for as long as there is hope.
    async fn probe_patiently(&self) -> Option<Result<(), OpenError>> {
        let deadline = Instant::now() + self.settings().timeouts.connect;
        let slot = self.ledger.take(Kind::Probe, deadline).await.ok()?;
        self.turn_to_dial().await;
        self.probes.fetch_add(1, Relaxed);
        self.dials.fetch_add(1, Relaxed);
        let options = net::DialOptions {
            timeout: self.settings().timeouts.connect,
            keepalive: PROBE_KEEPALIVE,
            user_timeout: self.settings().timeouts.connect.max(PROBE_KEEPALIVE),
        };
        let mut probe = match net::dial(&self.address, &options).await {
            Ok(socket) => match self.wrap(socket) {
                Ok(socket) => Probe(Some((socket, slot))),
                Err((error, socket)) => {
                    close_politely(socket, Some(slot));
                    return Some(Err(error));
                }
            },
            Err(error) => return Some(Err(OpenError::Unreachable(error.to_string()))),
        };
        let (socket, slot) = probe.0.as_mut().expect("it is there until it is dropped");
        slot.set_phase(Phase::Open);
        if let Err(error) = self.agree(socket).await {
            return Some(Err(error));
        }
        let mut answer = [0; 64];
        let asked = async {
            socket.write_all(b"pING\r\n").await?;
            socket.read(&mut answer).await
        };
        Some(match asked.await {
            Ok(0) => Err(self.unreachable("closed")),
            Ok(n) if answer[..n].starts_with(b"-ERR max number of clients") => Err(OpenError::Full),
            // Whatever it says, it is there.
            Ok(_) => Ok(()),
            Err(error) => Err(self.unreachable(&error.to_string())),
        })
    }
}

/// A probe's connection: its slot comes back when the node has let go of it, also when
/// nobody waits for the answer any more.
struct Probe(Option<(net::Stream, crate::backend::Slot)>);

impl Drop for Probe {
    fn drop(&mut self) {
        if let Some((socket, slot)) = self.0.take() {
            close_politely(socket, Some(slot));
        }
    }
}
