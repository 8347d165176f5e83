//! Commands handed to another worker's connection, and its replies handed back:
//! one message each way per turn. To the worker that hands over, the link is a
//! connection like any other; to the one that owns the socket, it is a caller
//! like any other.

use super::failure::Failure;
use super::proxy::Message;
use super::worker::State;
use crate::backend::{Broken, Conn, Entry, Io, Link as Grant, Marks, OpenError, Partition, Ticket};

/// One worker's commands on this worker's connection.
#[derive(Debug)]
pub struct Link {
    /// The worker that they come from.
    pub from: usize,
    /// That worker's name for the link.
    pub conn: Ticket,
    /// Tells this link from an earlier one in the same place.
    pub generation: u32,
    /// Replies to be handed back at the end of the turn.
    pub replies: Vec<u8>,
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
    /// Which of the owner's lanes.
    pub key: Partition,
    /// The requests.
    pub bytes: Vec<u8>,
    /// Length, table row and marks of each.
    pub entries: Vec<(u32, u16, Marks)>,
}

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
        let mut entries: Vec<_> = Vec::new();
        let mut rest = unwritten;
        for entry in conn.in_flight.iter().rev() {
            if rest == 0 {
                break;
            }
            if entry.marks.any(Marks::LOST) {
                continue;
            }
            rest -= entry.len as usize;
            entries.push((
                entry.len,
                entry.command,
                entry.marks.without(Marks::SILENT.with(Marks::WHOLE)),
            ));
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
                key: lane.key.clone(),
                bytes,
                entries,
            }),
        );
    }

    /// Another worker's commands arrive.
    pub(super) fn take_batch(&mut self, batch: Batch) {
        let lane = self.find_lane(batch.route, batch.key);
        let conn = self.lanes[lane as usize].conn;
        if conn == super::client::NONE || matches!(self.conns[conn as usize].io, Io::Link(_)) {
            // The connection was retired while the batch was on its way. Nothing of
            // it has been written.
            let unwritten = batch.bytes.len();
            let message = Message::LinkLost {
                conn: batch.conn,
                unwritten,
            };
            self.proxy.send(batch.from, message);
            return;
        }
        let link = self.link_for(batch.from, batch.conn);
        let to = Ticket {
            slot: link,
            generation: self.links[link as usize].generation,
        };
        let at = self.clock.now();
        let mut start = 0;
        for (len, command, marks) in batch.entries {
            let end = start + len as usize;
            let marks = marks.with(Marks::LINK);
            self.conns[conn as usize].append(
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
        self.mark_dirty(conn);
    }

    fn link_for(&mut self, from: usize, conn: Ticket) -> u32 {
        let name = (from, conn.slot, conn.generation);
        if let Some(&link) = self.link_index.get(&name) {
            return link;
        }
        self.conn_generation = self.conn_generation.wrapping_add(1);
        let generation = self.conn_generation;
        let link = self.links.insert(Link {
            from,
            conn,
            generation,
            replies: Vec::new(),
        }) as u32;
        self.link_index.insert(name, link);
        link
    }

    /// Sends the replies that arrived in this turn to the workers they belong to.
    pub(super) fn hand_back_replies(&mut self) {
        for index in std::mem::take(&mut self.dirty_links) {
            let Some(link) = self.links.get_mut(index as usize) else {
                continue;
            };
            let bytes = std::mem::take(&mut link.replies);
            self.proxy.send(
                link.from,
                Message::Replies {
                    conn: link.conn,
                    bytes,
                },
            );
        }
    }

    /// Replies come back over a link.
    pub(super) fn take_replies(&mut self, conn: Ticket, bytes: &[u8]) {
        if self.conn(conn).is_some() {
            self.on_replies(conn.slot, bytes);
        }
    }

    /// The connection behind a link was lost, or is no longer to be had; of what
    /// was handed over, this many bytes at the end were never written.
    pub(super) fn take_link_loss(&mut self, ticket: Ticket, unwritten: usize) {
        if let Some(conn) = self.conn(ticket) {
            conn.ring.take_back(unwritten);
            self.conn_lost(ticket.slot, &Broken::Closed);
        }
    }

    /// Tells the workers whose commands were on a lost connection.
    pub(super) fn tell_links(&mut self, conn: &Conn) {
        let mut lost: Vec<(Ticket, usize)> = Vec::new();
        let mut start = 0;
        for entry in &conn.in_flight {
            if entry.marks.any(Marks::LINK) {
                let written = start < conn.ring.written();
                let unwritten = if written { 0 } else { entry.len as usize };
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
                self.proxy.send(
                    link.from,
                    Message::LinkLost {
                        conn: link.conn,
                        unwritten,
                    },
                );
            }
        }
    }

    /// The connection behind links could not be opened.
    pub(super) fn fail_link(&mut self, to: Ticket, failure: &Failure) {
        let Some(link) = self.links.get(to.slot as usize) else {
            return;
        };
        if link.generation == to.generation {
            let Failure::Open(error) = failure else {
                let message = Message::LinkLost {
                    conn: link.conn,
                    unwritten: usize::MAX,
                };
                return self.proxy.send(link.from, message);
            };
            let message = Message::LinkFailed {
                conn: link.conn,
                error: error.clone(),
            };
            self.proxy.send(link.from, message);
        }
    }

    /// As [`State::opening_failed`], told by the worker that tried.
    pub(super) fn take_link_failure(&mut self, conn: Ticket, error: OpenError) {
        self.opening_failed(conn, &Failure::Open(error));
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
