//! Commands handed to another worker's connection, and its replies handed back:
//! one message each way per turn. To the worker that hands over, the link is a
//! connection like any other; to the one that owns the socket, it is a caller
//! like any other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::client::NONE;
use super::failure::Failure;
use super::proxy::Message;
use super::worker::State;
use crate::admission::Work;
use crate::backend::{Broken, Conn, Entry, Io, Link as Grant, Marks, Partition, Ticket};
use crate::router::NodeId;

/// Bytes of replies that may be on their way from one worker to another, for one connection,
/// before it is read no further. Enough to keep both busy, and little beside what clients hold.
const BACKLOG_MAX: usize = 2 * 1024 * 1024;

/// The way that replies come back.
#[derive(Debug)]
pub struct Way {
    /// The worker that has the connection.
    pub from: usize,
    /// Its name for the connection.
    pub bound: Ticket,
    /// What is on its way, in bytes.
    pub backlog: Arc<AtomicUsize>,
}

/// One worker's commands on this worker's connection. A link lives and dies with
/// one connection: what comes over it later goes back, and never onto another
/// connection, or a command that was given up for unsent could run after all.
#[derive(Debug)]
pub struct Link {
    /// The worker that they come from.
    pub from: usize,
    /// That worker's name for the link.
    pub conn: Ticket,
    /// The connection that the commands are put on; its slot is [`NONE`] if there
    /// was none when the first of them came.
    pub bound: Ticket,
    /// Tells this link from an earlier one in the same place.
    pub generation: u32,
    /// Bytes of requests that were put on the connection, in all.
    pub taken: u64,
    /// Replies to be handed back at the end of the turn.
    pub replies: Vec<u8>,
    /// Bytes of replies that are on their way back.
    pub backlog: Arc<AtomicUsize>,
}

/// A batch of commands on its way to the worker that owns the socket.
#[derive(Debug)]
pub struct Batch {
    /// Who hands over.
    pub from: usize,
    /// Its name for the link.
    pub conn: Ticket,
    /// Which route.
    pub route: u16,
    /// The node that they are for.
    pub node: NodeId,
    /// Which of the owner's lanes to it.
    pub key: Partition,
    /// The requests.
    pub bytes: Vec<u8>,
    /// Length, table row and marks of each.
    pub entries: Vec<(u32, u16, Marks)>,
}

/// Marks that say what becomes of a reply when it is back with its worker.
const DECIDED_HERE: Marks = Marks::SILENT
    .with(Marks::WHOLE)
    .with(Marks::ANSWERED)
    .with(Marks::RETRIED);

impl State {
    /// Whether a lane's connection is a link whose other end is retiring.
    pub(super) fn link_is_stale(&self, conn: u32) -> bool {
        match &self.conns[conn as usize].io {
            Io::Link(link) => !link.is_live(),
            _ => false,
        }
    }

    /// The wait for a connection ended with another worker's.
    pub(super) fn use_link(&mut self, ticket: Ticket, link: Grant) {
        if let Some(conn) = self.conn(ticket) {
            conn.io = Io::Link(link);
            self.mark_dirty(ticket.slot);
        }
    }

    /// Hands over what was appended to a link in this turn.
    pub(super) fn hand_over(&mut self, index: u32) {
        let conn = &mut self.conns[index as usize];
        let Io::Link(link) = &conn.io else { return };
        let worker = link.worker();
        let unwritten = conn.ring.unwritten();
        if unwritten == 0 {
            return;
        }
        let bytes = conn.ring.copy(conn.ring.written(), unwritten);
        conn.ring.advance(unwritten);
        conn.handed += unwritten as u64;
        let mut entries: Vec<_> = Vec::new();
        let mut rest = unwritten;
        for entry in conn.in_flight.iter().rev() {
            if rest == 0 {
                break;
            }
            if entry.marks.any(Marks::LOST) {
                // Nothing is sent for it, so no reply will come for it either.
                continue;
            }
            rest -= entry.len as usize;
            // Every reply has to come back: what becomes of it is decided here.
            let marks = entry.marks.without(DECIDED_HERE);
            entries.push((entry.len, entry.command, marks));
        }
        entries.reverse();
        let (lane, generation) = (&self.lanes[conn.lane as usize], conn.generation);
        let front = &self.fronts[lane.route as usize];
        front.metrics.handed_over.add(entries.len() as u64);
        self.proxy.send(
            worker,
            Message::Commands(Batch {
                from: self.index,
                conn: Ticket {
                    slot: index,
                    generation,
                },
                route: lane.route,
                node: lane.node.id,
                key: lane.key.clone(),
                bytes,
                entries,
            }),
        );
    }

    /// Another worker's commands arrive.
    pub(super) fn take_batch(&mut self, batch: Batch) {
        let link = self.link_for(&batch);
        let Link {
            bound, generation, ..
        } = self.links[link as usize];
        if self.conn(bound).is_none() {
            return self.refuse_batch(link);
        }
        self.links[link as usize].taken += batch.bytes.len() as u64;
        let gate = self.conns[bound.slot as usize].admission;
        self.gates[gate as usize]
            .gate
            .sent(Work::Quick, batch.entries.len() as u32);
        let to = Ticket {
            slot: link,
            generation,
        };
        let at = self.clock.now();
        let mut start = 0;
        for (len, command, marks) in batch.entries {
            let end = start + len as usize;
            let marks = marks.with(Marks::LINK);
            self.conns[bound.slot as usize].append(
                &batch.bytes[start..end],
                Entry {
                    to,
                    at,
                    len,
                    command,
                    marks,
                },
            );
            start = end;
        }
        self.mark_dirty(bound.slot);
    }

    /// The connection that the link was for has gone. Whatever of the earlier
    /// batches was lost with it has been told already.
    fn refuse_batch(&mut self, link: u32) {
        self.hand_back_replies();
        let link = &self.links[link as usize];
        let message = Message::LinkLost {
            conn: link.conn,
            taken: link.taken,
            unwritten: 0,
        };
        self.proxy.send(link.from, message);
    }

    /// The link that a batch comes over; a new one is bound to the connection that
    /// its partition has now.
    fn link_for(&mut self, batch: &Batch) -> u32 {
        let name = (batch.from, batch.conn.slot, batch.conn.generation);
        if let Some(&link) = self.link_index.get(&name) {
            return link;
        }
        self.conn_generation = self.conn_generation.wrapping_add(1);
        let generation = self.conn_generation;
        let link = self.links.insert(Link {
            from: batch.from,
            conn: batch.conn,
            bound: self.own_conn(batch),
            generation,
            taken: 0,
            replies: Vec::new(),
            backlog: Arc::default(),
        }) as u32;
        self.link_index.insert(name, link);
        link
    }

    /// This worker's own connection for a batch's partition, if it has one.
    fn own_conn(&self, batch: &Batch) -> Ticket {
        let none = Ticket {
            slot: NONE,
            generation: 0,
        };
        let lane = self
            .lane_index
            .get(&(batch.route, batch.node, batch.key.clone()));
        let Some(&lane) = lane else { return none };
        let slot = self.lanes[lane as usize].conn;
        match self.conns.get(slot as usize) {
            Some(conn) if !matches!(conn.io, Io::Link(_)) => Ticket {
                slot,
                generation: conn.generation,
            },
            _ => none,
        }
    }

    /// Sends the replies that arrived in this turn to the workers they belong to.
    pub(super) fn hand_back_replies(&mut self) {
        for index in std::mem::take(&mut self.dirty_links) {
            let Some(link) = self.links.get_mut(index as usize) else {
                continue;
            };
            let bytes = std::mem::take(&mut link.replies);
            let len = bytes.len();
            let behind = link.backlog.fetch_add(len, Relaxed) + len > BACKLOG_MAX;
            let (bound, backlog) = (link.bound, link.backlog.clone());
            self.proxy.send(
                link.from,
                Message::Replies {
                    conn: link.conn,
                    bytes,
                    way: Way {
                        from: self.index,
                        bound,
                        backlog: backlog.clone(),
                    },
                },
            );
            if behind && let Some(conn) = self.conn(bound) {
                conn.backlog = Some(backlog);
            }
        }
    }

    /// Replies come back over a link.
    pub(super) fn take_replies(&mut self, conn: Ticket, bytes: &[u8], way: &Way) {
        if self.conn(conn).is_some() {
            self.make_room();
            self.on_replies(conn.slot, bytes);
        }
        let before = way.backlog.fetch_sub(bytes.len(), Relaxed);
        if before > BACKLOG_MAX && before - bytes.len() <= BACKLOG_MAX {
            let conn = way.bound;
            self.proxy.send(way.from, Message::CaughtUp { conn });
        }
    }

    /// Whether a connection is not read for now: the worker that its replies go to has too
    /// many on their way already. It takes them as fast as it can, whatever its clients do.
    #[inline]
    pub(super) fn is_backlogged(&mut self, index: u32) -> bool {
        let conn = &mut self.conns[index as usize];
        let Some(backlog) = &conn.backlog else {
            return false;
        };
        let is_behind = backlog.load(Relaxed) > BACKLOG_MAX;
        if !is_behind {
            conn.backlog = None;
        }
        is_behind
    }

    /// The other worker has taken what was on its way.
    pub(super) fn link_caught_up(&mut self, conn: Ticket) {
        if let Some(waker) = self.conn(conn).and_then(|conn| conn.reader.take()) {
            waker.wake();
        }
    }

    /// The connection behind a link was lost, or is no longer to be had. Of the
    /// bytes handed over, the first `taken` had been put on it, and the last
    /// `unwritten` of those were never written.
    pub(super) fn take_link_loss(&mut self, ticket: Ticket, taken: u64, unwritten: u64) {
        if let Some(conn) = self.conn(ticket) {
            let never_written = conn.handed - taken + unwritten;
            conn.ring.take_back(never_written as usize);
            self.conn_lost(ticket.slot, &Broken::Closed);
        }
    }

    /// Tells the workers whose commands were on a lost connection.
    pub(super) fn tell_links(&mut self, conn: &Conn) {
        let mut lost: Vec<(Ticket, u64)> = Vec::new();
        let mut start = 0;
        for entry in &conn.in_flight {
            if entry.marks.any(Marks::LINK) {
                let written = start < conn.ring.written();
                let unwritten = if written { 0 } else { u64::from(entry.len) };
                match lost.iter_mut().find(|(to, _)| *to == entry.to) {
                    Some((_, bytes)) => *bytes += unwritten,
                    None => lost.push((entry.to, unwritten)),
                }
            }
            start += entry.len as usize;
        }
        // Replies that arrived before the loss go first.
        self.hand_back_replies();
        for (to, unwritten) in lost {
            let Some(link) = self.links.get(to.slot as usize) else {
                continue;
            };
            if link.generation == to.generation {
                let message = Message::LinkLost {
                    conn: link.conn,
                    taken: link.taken,
                    unwritten,
                };
                self.proxy.send(link.from, message);
            }
        }
    }

    /// The connection behind links could not be opened.
    pub(super) fn fail_link(&mut self, to: Ticket, failure: &Failure) {
        let Some(link) = self.links.get(to.slot as usize) else {
            return;
        };
        if link.generation == to.generation {
            let message = Message::LinkFailed {
                conn: link.conn,
                failure: failure.clone(),
            };
            self.proxy.send(link.from, message);
        }
    }

    /// Forgets a link whose worker has no more use for it.
    pub(super) fn forget_link(&mut self, from: usize, conn: Ticket) {
        if let Some(link) = self.link_index.remove(&(from, conn.slot, conn.generation)) {
            self.links.remove(link as usize);
        }
    }

    /// Tells the owner that the link is not used any more.
    pub(super) fn link_closed(&self, worker: usize, conn: Ticket) {
        self.proxy.send(
            worker,
            Message::LinkClosed {
                from: self.index,
                conn,
            },
        );
    }
}
