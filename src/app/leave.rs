//! The end of the process, or its end as the one that serves: everybody leaves, in turn.

use std::io;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::accept::Gate;
use super::life::{End, Main};
use super::notify;
use super::upgrade::{self, Elder, Told};
use crate::metrics::{Event, EventKind};
use crate::session::{Drain, Message};

/// How often a drain looks whether everybody has left.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// How long the listeners may take to close; they have nothing to wait for.
const DOORS_CLOSE: Duration = Duration::from_secs(1);

/// How long the connections to Redis may take to close when nobody uses them any more.
const NODES_CLOSE: Duration = Duration::from_secs(5);

/// Why there is no upgrade during a drain.
const LEAVES: &str = "it lets its clients leave; try again later";

/// How a drain ended.
pub(super) enum Drained {
    /// There is nothing left to do.
    Done(Option<Elder>),
    /// The successor has died: this process serves again.
    Resumed,
}

impl Main {
    /// Lets nobody in any more and those who are in leave, one after the other.
    pub(super) async fn drain(&mut self, end: End) -> Drained {
        let mut after = match end {
            End::Stop(by) => {
                self.announce_stop(&by);
                None
            }
            End::Replaced(elder) => {
                self.hand_over(&elder).await;
                Some(elder)
            }
        };
        let proxy = self.proxy.clone();
        let time = proxy.settings().process.drain_timeout;
        let drain = Drain::new(proxy.started.elapsed(), proxy.limits.taken(), time);
        self.tell_workers(Some(drain));
        // Those at their handshake came before the successor served: they finish it here.
        let hands_over = after.is_some();
        let is_empty = || match hands_over {
            true => proxy.loads().iter().all(|load| *load == 0),
            false => proxy.limits.taken() == 0,
        };
        let gone = async {
            while !is_empty() {
                sleep(DRAIN_LOOK).await;
            }
        };
        let gone = timeout(time, gone);
        tokio::pin!(gone);
        // Told to stop itself, it does not come back for a successor that stops as well.
        let mut may_come_back = true;
        loop {
            tokio::select! {
                left = &mut gone => {
                    if left.is_err() {
                        tracing::warn!(clients = proxy.limits.taken(), "drain timeout: leaving with clients");
                    }
                    return Drained::Done(after);
                },
                _ = self.interrupted.recv() => {
                    if after.is_none() || !may_come_back {
                        tracing::warn!("interrupted again: leaving at once");
                        return Drained::Done(after);
                    }
                    may_come_back = false;
                },
                _ = self.terminated.recv() => may_come_back = false,
                // Not kept for when it may serve again.
                Some(order) = self.upgrades.recv() => self.refuse(order, LEAVES),
                _ = self.usr2.recv() => tracing::warn!(by = "SIGUSR2", "no upgrade, this process goes on: {LEAVES}"),
                told = told_by(&mut after) => match told {
                    Told::Ready => {}
                    // The files are the other's to remove.
                    Told::Leaves => self.stop_listening(true),
                    Told::Gone(why) => {
                        after = None;
                        if may_come_back && why != upgrade::TOLD_TO_STOP {
                            tracing::error!("the process that took over is gone, serving again: {why}");
                            let event = Event::new(EventKind::UpgradeFailed, "the process that took over");
                            proxy.journal.note(event.with("why", why));
                            return Drained::Resumed;
                        }
                        // Nobody will let in who connects.
                        self.stop_listening(why == upgrade::TOLD_TO_STOP);
                    }
                },
            }
        }
    }

    fn announce_stop(&mut self, by: &str) {
        tracing::info!(
            by,
            "stopping: no new clients; those that are busy may finish"
        );
        let event = Event::new(EventKind::Draining, by);
        let clients = self.proxy.limits.taken();
        self.proxy.journal.note(event.with("clients", clients));
        self.proxy.draining.set();
        self.stop_listening(false);
    }

    /// Nobody is let in by this process again: who connects is refused, instead of waiting
    /// in vain. `handed_over`: the files of Unix sockets are another process's.
    fn stop_listening(&mut self, handed_over: bool) {
        // Nobody listens at the sockets when the acceptors have left as well.
        self.sockets.doors.clear();
        self.gate.send_replace(Gate::Closed { handed_over });
        notify::tell(notify::State::Stopping);
    }

    /// Shuts the doors, and has the successor open them. Who comes between waits in the
    /// kernel's queue, which both have.
    async fn hand_over(&mut self, elder: &Elder) {
        let pid = elder.pid;
        let clients = self.proxy.limits.taken();
        tracing::info!(
            pid,
            clients,
            "upgrade: handing over; those that are busy may finish"
        );
        let event = Event::new(EventKind::Upgraded, format!("process {pid}"));
        self.proxy.journal.note(event.with("clients", clients));
        let (seen, mut saw) = mpsc::unbounded_channel();
        self.gate.send_replace(Gate::Shut(seen));
        let all_shut = async {
            for _ in &self.sockets.doors {
                let _ = saw.recv().await;
            }
        };
        // One that paces its clients may sleep; whoever it lets in is served as well.
        let _ = timeout(DOORS_CLOSE, all_shut).await;
        self.front_desk = None;
        self.proxy.draining.set();
        notify::tell(notify::State::MainIs(pid));
        elder.go();
    }

    fn tell_workers(&self, drain: Option<Drain>) {
        for worker in 0..self.proxy.workers() {
            self.proxy.send(worker, Message::Drain(drain));
        }
    }

    /// Serves again, since the successor does not.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        self.proxy.draining.clear();
        self.tell_workers(None);
        for route in &self.proxy.routes {
            route.deployment.own_places();
        }
        notify::tell(notify::State::MainIs(std::process::id()));
        self.begin_to_serve()
    }

    /// The last steps.
    pub(super) async fn close(&mut self, after: Option<&Elder>) {
        let handed_over = after.is_some();
        if let Some(elder) = after {
            let patience = match self.proxy.limits.taken() {
                0 => NODES_CLOSE,
                _ => Duration::ZERO,
            };
            elder.finish(&self.proxy, patience).await;
        }
        // The files of Unix sockets go with the listeners, before the process does.
        self.gate.send_replace(Gate::Closed { handed_over });
        let _ = timeout(DOORS_CLOSE, self.gate.closed()).await;
    }
}

async fn told_by(elder: &mut Option<Elder>) -> Told {
    match elder {
        Some(elder) => elder.told().await,
        None => std::future::pending().await,
    }
}
