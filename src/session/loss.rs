//! A connection to a node is gone: what becomes of each command on it
//! (COMMANDS.md 3.1). What was never written goes on over a new connection; a
//! read that was written is sent once more; of anything else the outcome is
//! unknown, and its caller is told so.

use hashbrown::{HashMap, HashSet};

use super::client::{Flags, NONE, Transaction};
use super::failure::{self, Failure};
use super::shed::place_only;
use super::worker::State;
use crate::backend::{Broken, Conn, Entry, Io, Marks, Mode, Ticket, close_holding};
use crate::config::OnLoss;
use crate::metrics::{CloseReason, ErrorCause};

/// What becomes of one command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// Nothing: it was answered already, or another worker sees to it.
    Settled,
    /// Goes to a new connection.
    Again {
        /// It may have run before.
        retried: bool,
    },
    /// Its caller is told that the outcome is unknown.
    Unknown,
    /// Part of its reply has reached the client: only closing is honest.
    Torn,
}

/// Decides the fate of each command of a lost connection, oldest first.
fn fates(conn: &Conn) -> Vec<Fate> {
    let mut start = 0;
    // Whether the block that is being looked at had begun to be written. Its rest
    // must not go out alone: outside MULTI it would run one by one.
    let mut block_written = false;
    let mut in_block = false;
    let mut fates = Vec::with_capacity(conn.in_flight.len());
    for (index, entry) in conn.in_flight.iter().enumerate() {
        let mut written = start < conn.ring.written();
        start += entry.len as usize;
        let marks = entry.marks;
        if marks.any(Marks::IN_BLOCK) {
            if !in_block {
                block_written = written;
            }
            written = block_written;
            in_block = !marks.any(Marks::EXEC);
        }
        let fate = if marks.any(Marks::ANSWERED.with(Marks::LINK)) {
            Fate::Settled
        } else if index == 0 && conn.head_started() && !marks.any(Marks::SILENT) {
            Fate::Torn
        } else if marks.any(Marks::LOST) {
            Fate::Unknown
        } else if !written {
            Fate::Again { retried: false }
        } else if marks.any(Marks::SAFE) && !marks.any(Marks::RETRIED.with(Marks::IN_BLOCK)) {
            Fate::Again { retried: true }
        } else {
            Fate::Unknown
        };
        fates.push(fate);
    }
    fates
}

impl State {
    /// A connection was lost, by whatever cause.
    pub(super) fn conn_lost(&mut self, index: u32, broken: &Broken) {
        if !self.conns.contains(index as usize) {
            return;
        }
        let node = self.node_of_conn(index);
        let mut conn = self.take_conn(index);
        node.lost();
        self.fronts[conn.route as usize].route.deployment.look();
        // Of a link's connection the worker says so that has it.
        if !conn.in_flight.is_empty() && !matches!(conn.io, Io::Link(_)) {
            tracing::warn!(
                node = %node.address, kind = conn.kind.name(), commands = conn.in_flight.len(),
                "connection to the node lost: {broken}"
            );
        }
        self.tell_links(&conn);
        let slot = conn.slot.take();
        match std::mem::replace(&mut conn.io, Io::Opening) {
            // The node's end is closed, or its kernel says there is none. With TLS it may
            // only have said goodbye.
            Io::Socket(socket)
                if matches!(broken, Broken::Closed | Broken::Io(_)) && !socket.is_tls() =>
            {
                drop(socket);
                drop(slot);
            }
            // Until then it holds what it has of a large reply, too.
            Io::Socket(socket) => close_holding(socket, slot, conn.large.take()),
            Io::Link(link) => self.link_closed(
                link.worker(),
                Ticket {
                    slot: index,
                    generation: conn.generation,
                },
            ),
            Io::Opening => {}
        }
        if let Some(place) = conn.lobby {
            return self.lobby_conn_lost(place, &conn);
        }
        match conn.mode {
            Mode::Shared => self.shared_lost(&conn),
            Mode::Feed(user) => self.feed_lost((conn.route, user), &node, broken),
            Mode::Exclusive(owner) | Mode::Raw(owner) => self.lease_lost(index, owner, &conn),
        }
    }

    /// The commands of a lost connection go on, each in the way that its fate says.
    pub(super) fn shared_lost(&mut self, conn: &Conn) {
        let mut start = 0;
        // Sessions some of whose commands go on: later errors have to wait for
        // the replies of those.
        let mut moved: HashMap<(u32, u32), u32> = HashMap::new();
        // Those of whom replies are kept: what goes on has to wait for its turn.
        let mut stashed: Vec<Ticket> = Vec::new();
        let fates = fates(conn);
        let writers = self.writers_among(conn, &fates);
        for (entry, fate) in conn.in_flight.iter().zip(fates) {
            let bytes = (start, entry.len as usize);
            start += entry.len as usize;
            match fate {
                Fate::Settled => {}
                Fate::Torn => self.close_session(entry.to, CloseReason::BackendLost),
                Fate::Again { retried } if self.is_stashed(entry.to) => {
                    let marks = match retried {
                        true => entry.marks.with(Marks::RETRIED),
                        false => entry.marks,
                    };
                    let request = conn.ring.copy(bytes.0, bytes.1);
                    self.keep_for_again(&Entry { marks, ..*entry }, request);
                    stashed.push(entry.to);
                }
                Fate::Again { retried } => {
                    let reads = !writers.contains(&(entry.to.slot, entry.to.generation));
                    self.send_again(conn, entry, bytes, (retried, reads), &mut moved);
                }
                Fate::Unknown => self.outcome_unknown(entry, &moved),
            }
        }
        for ticket in stashed {
            self.look_at_stash(ticket);
        }
    }

    fn send_again(
        &mut self,
        conn: &Conn,
        entry: &Entry,
        (start, len): (usize, usize),
        (retried, reads): (bool, bool),
        moved: &mut HashMap<(u32, u32), u32>,
    ) {
        if self.session(entry.to).is_none() {
            return;
        }
        let target = match moved.get(&(entry.to.slot, entry.to.generation)) {
            Some(&target) if self.conns.contains(target as usize) => Ok(target),
            _ if reads => self.reader_conn(entry.to, false),
            _ => self.successor(entry.to, conn),
        };
        let is_first = !moved.contains_key(&(entry.to.slot, entry.to.generation));
        match target {
            Ok(target) if is_first && self.settle_at_once(entry, target, conn, start) => {}
            Ok(target) => {
                let mut marks = entry.marks.without(Marks::HEEDED);
                if retried {
                    marks = marks.with(Marks::RETRIED);
                    self.fronts[conn.route as usize].metrics.retries.inc();
                }
                let request = conn.ring.copy(start, len);
                self.conns[target as usize].append(&request, Entry { marks, ..*entry });
                self.mark_dirty(target);
                self.sessions[entry.to.slot as usize].conn = target;
                moved.insert((entry.to.slot, entry.to.generation), target);
            }
            Err(failure) if self.settle_made_up(entry, &conn.ring.copy(start, len), &failure) => {}
            Err(_) if retried => self.outcome_unknown(entry, moved),
            Err(failure) => {
                let reply = failure.reply();
                self.fail_entry(entry, &reply, &failure);
            }
        }
    }

    /// The sessions whose commands that go on have to go to the primary: all of one
    /// session's commands go to one node.
    fn writers_among(&self, conn: &Conn, fates: &[Fate]) -> HashSet<(u32, u32)> {
        let again = |fate: &Fate| matches!(fate, Fate::Again { .. });
        let goes_on = conn.in_flight.iter().zip(fates);
        goes_on
            .filter(|(entry, fate)| again(fate) && !self.is_read_entry(entry))
            .map(|(entry, _)| (entry.to.slot, entry.to.generation))
            .collect()
    }

    /// The connection that takes the place of a lost one for this session.
    fn successor(&mut self, ticket: Ticket, conn: &Conn) -> Result<u32, Failure> {
        if conn.kind == crate::backend::Kind::Control {
            return self.control_conn(ticket);
        }
        self.lane_conn(ticket)
    }

    fn outcome_unknown(&mut self, entry: &Entry, moved: &HashMap<(u32, u32), u32>) {
        let Some(session) = self.session(entry.to) else {
            return;
        };
        let route = session.route;
        let refused = entry.marks.any(Marks::REFUSED);
        if !refused {
            self.trace_lost(entry, ErrorCause::BackendLost);
            self.fronts[route as usize]
                .metrics
                .error(ErrorCause::BackendLost);
        }
        let place = Entry {
            len: 0,
            marks: place_only(entry.marks),
            ..*entry
        };
        if self.keep_for_again(&place, Vec::new()) {
            return;
        }
        match moved.get(&(entry.to.slot, entry.to.generation)) {
            Some(&target) if self.conns.contains(target as usize) => {
                self.conns[target as usize].in_flight.push_back(place);
            }
            _ if refused => {
                self.settle_refused(entry);
            }
            _ if self.closes_on_loss(route) => {
                self.close(entry.to.slot, CloseReason::BackendLost);
            }
            _ => self.settle_entry(entry, failure::OUTCOME_UNKNOWN),
        }
    }

    fn closes_on_loss(&self, route: u16) -> bool {
        self.fronts[route as usize].config.backend.on_loss == OnLoss::Close
    }

    /// A session's own connection is gone, and with it what Redis kept there.
    fn lease_lost(&mut self, index: u32, owner: Ticket, conn: &Conn) {
        self.receiver_lost(index, owner);
        let Some(session) = self.session(owner) else {
            return;
        };
        if session.lease() != Some(index) {
            return;
        }
        let flags = session.flags;
        let route = session.route;
        let extra = session.extra();
        extra.lease = None;
        extra.own_place = None;
        let stateful = extra.tracking || extra.subscriptions.on_lease() || extra.monitoring;
        let transaction = std::mem::take(&mut extra.transaction);
        self.fronts[route as usize].metrics.leases_held.dec();
        if conn.half_closing && !conn.in_flight.is_empty() {
            // Redis has forgotten the client that waited.
            return self.close(owner.slot, CloseReason::ByClient);
        }
        // What was subscribed, tracked or tunnelled cannot be told that it is
        // gone; closing makes the library build it again.
        if stateful
            || flags.any(Flags::TUNNEL.with(Flags::UPLOADING))
            || (conn.head_started() && !conn.in_flight.is_empty())
            || self.closes_on_loss(route)
        {
            return self.close_after_output(owner, CloseReason::BackendLost);
        }
        let had_exec = (conn.in_flight.iter()).any(|entry| entry.marks.any(Marks::EXEC));
        self.sessions[owner.slot as usize].extra().transaction = match transaction {
            Transaction::OnLease { .. } if had_exec => Transaction::None,
            Transaction::OnLease { open, watching, .. } => Transaction::Broken { open, watching },
            // Nothing of it was on this connection: what was lost earlier stays lost until
            // its `EXEC`.
            other => other,
        };
        let mut errors = 0;
        for entry in &conn.in_flight {
            if !entry.marks.any(Marks::ANSWERED) {
                errors += 1;
                self.trace_lost(entry, ErrorCause::BackendLost);
                self.settle_entry(entry, failure::OUTCOME_UNKNOWN);
            }
        }
        self.fronts[route as usize].metrics.errors[ErrorCause::BackendLost].add(errors);
        self.refresh_special(owner);
        self.make_ready(owner);
    }

    /// Answers one outstanding command with bytes of Weir's own.
    pub(super) fn settle_entry(&mut self, entry: &Entry, reply: &[u8]) {
        if entry.marks.any(Marks::WHOLE) && self.session(entry.to).is_some() {
            return self.inspect(entry, reply);
        }
        if self.is_stashed(entry.to) {
            // What was answered before goes first, and what was not sent behind it.
            self.relay_stash(entry.to);
            self.settle_in_turn(entry, reply);
            return self.look_at_stash(entry.to);
        }
        self.settle_in_turn(entry, reply);
    }

    /// Whether replies of a session are kept.
    fn is_stashed(&mut self, ticket: Ticket) -> bool {
        self.session(ticket)
            .is_some_and(|session| session.flags.any(Flags::STASHED))
    }

    /// The same for what is the next that the client is to read.
    pub(super) fn settle_in_turn(&mut self, entry: &Entry, reply: &[u8]) {
        let Some(session) = self.session(entry.to) else {
            return;
        };
        session.in_flight -= 1;
        if session.in_flight == 0 {
            session.conn = NONE;
        }
        if !entry.marks.any(Marks::SILENT) {
            self.write(entry.to, reply);
        }
        self.make_ready(entry.to);
    }

    /// Answers one outstanding command that was not run.
    pub(super) fn fail_entry(&mut self, entry: &Entry, reply: &[u8], failure: &Failure) {
        if entry.marks.any(Marks::LINK) {
            return self.fail_link(entry.to, failure);
        }
        if entry.marks.any(Marks::ANSWERED) {
            return;
        }
        if entry.marks.any(Marks::REFUSED) {
            return self.settle_refused(entry);
        }
        if let Some(route) = self.session(entry.to).map(|session| session.route) {
            self.trace_failed(entry.to, failure, entry.command, entry.at);
            self.count_failure(route, failure);
            if failure.shed().is_some() {
                self.count_refused_of(entry.to, 1);
            }
        }
        let lost = entry.marks.any(Marks::LOST.with(Marks::RETRIED));
        self.settle_entry(
            entry,
            if lost {
                failure::OUTCOME_UNKNOWN
            } else {
                reply
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Kind;
    use crate::resp::Version;

    /// A connection with these commands on it, of which `written` bytes are out.
    fn lost(entries: &[(u32, Marks)], written: usize) -> Conn {
        let mut conn = Conn::opening(Kind::Shared, 0, 0, 1, Version::Resp2, 1);
        for &(len, marks) in entries {
            let to = Ticket {
                slot: 0,
                generation: 1,
            };
            conn.append(
                &vec![b'x'; len as usize],
                Entry {
                    to,
                    at: 1,
                    len,
                    command: 0,
                    marks,
                },
            );
        }
        conn.ring.advance(written);
        conn
    }

    #[test]
    fn what_was_not_written_goes_on_and_what_may_have_run_is_unknown() {
        let conn = lost(
            &[(10, Marks::NONE), (10, Marks::SAFE), (10, Marks::NONE)],
            20,
        );
        assert_eq!(
            fates(&conn),
            [
                Fate::Unknown,
                Fate::Again { retried: true },
                Fate::Again { retried: false }
            ]
        );
    }

    #[test]
    fn a_command_of_which_a_part_was_written_may_have_run() {
        assert_eq!(fates(&lost(&[(10, Marks::NONE)], 1)), [Fate::Unknown]);
        assert_eq!(
            fates(&lost(&[(10, Marks::NONE)], 0)),
            [Fate::Again { retried: false }]
        );
    }

    #[test]
    fn a_read_is_sent_again_once() {
        let conn = lost(&[(10, Marks::SAFE.with(Marks::RETRIED))], 10);
        assert_eq!(fates(&conn), [Fate::Unknown]);
    }

    #[test]
    fn the_rest_of_a_block_never_goes_out_without_its_beginning() {
        let block = [
            (10, Marks::IN_BLOCK),
            (10, Marks::IN_BLOCK),
            (10, Marks::IN_BLOCK.with(Marks::EXEC)),
            (10, Marks::NONE),
        ];
        assert_eq!(
            fates(&lost(&block, 5)),
            [
                Fate::Unknown,
                Fate::Unknown,
                Fate::Unknown,
                Fate::Again { retried: false }
            ]
        );
        assert_eq!(fates(&lost(&block, 0)), [Fate::Again { retried: false }; 4]);
    }

    #[test]
    fn what_was_answered_at_its_deadline_is_not_answered_again() {
        let conn = lost(
            &[
                (10, Marks::ANSWERED),
                (10, Marks::SAFE.with(Marks::ANSWERED)),
            ],
            10,
        );
        assert_eq!(fates(&conn), [Fate::Settled, Fate::Settled]);
    }
}
