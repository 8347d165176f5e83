//! What follows from an event in a lobby: for `session` to carry out.

use super::wish::Queue;
use crate::resp;

/// Names a waiter; later ones have higher numbers, so their order is that of arrival.
pub type WaiterId = u64;

/// Names a connection that carries waiters.
pub type CarrierId = u32;

/// Names a question that was put to the node.
pub type QuestionId = u64;

/// Commands that are sent together and answered one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The commands, one behind the other.
    pub bytes: Vec<u8>,
    /// The length of each.
    pub lengths: Vec<u32>,
}

impl Batch {
    /// Appends a command.
    pub fn push<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        let start = self.bytes.len();
        resp::encode_command(args, &mut self.bytes);
        self.lengths.push((self.bytes.len() - start) as u32);
    }
}

/// A question to be put to the node on a connection that never blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// These commands, and their replies.
    Try(Batch),
    /// `CLIENT UNBLOCK` of this carrier's connection. If the batch is not empty it is the
    /// beginning of a transaction, and the `EXEC` of it comes behind.
    ///
    /// What is in the transaction is there as a guard: it writes, so that under a pause
    /// which Weir does not know of Redis holds it, and the `CLIENT UNBLOCK` with it. Up to
    /// 8.0 it crashes when a connection is unblocked that a pause holds.
    Interrupt(CarrierId, Batch),
}

/// What was popped for a waiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Popped {
    /// From where.
    pub queue: Queue,
    /// The reply as the node wrote it.
    pub frame: Vec<u8>,
}

/// What a waiter is told: the end of its wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tell {
    /// This reply, in the waiter's protocol. What was popped must come back if
    /// the waiter has gone.
    Reply {
        /// The reply.
        bytes: Vec<u8>,
        /// What was popped, if something was.
        popped: Option<Popped>,
    },
    /// The time is over.
    Null,
    /// `CLIENT UNBLOCK … ERROR`.
    Unblocked,
    /// Its connection was lost while an element may have been on its way.
    Unknown,
    /// It has to wait on a connection of its own: the node does not let it share.
    Alone,
    /// No connection was to be had; the reply that says why.
    Failed(Vec<u8>),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Open a connection.
    Open {
        /// Its name.
        carrier: CarrierId,
        /// Others can do without: do not wait in line for room.
        optional: bool,
    },
    /// Close a connection, which carries nothing.
    Close(CarrierId),
    /// Send these commands on a carrier. Nothing is outstanding on it.
    Send(CarrierId, Batch),
    /// Put a question to the node.
    Ask(QuestionId, Question),
    /// A waiter's wait is over.
    Tell(WaiterId, Tell),
    /// A waiter now counts as blocked: what it waits for is watched.
    Registered(WaiterId),
    /// `CLIENT UNBLOCK` of a waiter is answered.
    UnblockAnswer {
        /// The token that was given.
        token: u64,
        /// It was blocked and is not any more.
        done: bool,
    },
    /// An element arrived and nobody was there to take it.
    Orphan,
    /// A carrier's command was ended and put anew.
    Reissued,
}
