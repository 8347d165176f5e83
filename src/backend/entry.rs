//! What a connection remembers of a command whose reply is outstanding.

/// Names one session on one worker, or one link to another worker. A slot is
/// used again after its session has gone; the generation tells the two apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    /// Index in the worker's slab.
    pub slot: u32,
    /// Low half of the client id, which is never given twice in a process.
    pub generation: u32,
}

/// Facts about one outstanding command, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Marks(u16);

impl Marks {
    /// An ordinary command: its reply is forwarded as it comes.
    pub const NONE: Marks = Marks(0);
    /// The client is not to see the reply (`CLIENT REPLY OFF`, a command that
    /// Weir itself inserted), but it still counts as the client's command.
    pub const SILENT: Marks = Marks(1);
    /// May be sent again after its connection was lost.
    pub const SAFE: Marks = Marks(1 << 1);
    /// Has been sent again once; not a second time.
    pub const RETRIED: Marks = Marks(1 << 2);
    /// Between `MULTI` and `EXEC`, both included: never sent again.
    pub const IN_BLOCK: Marks = Marks(1 << 3);
    /// The session wants to look at the whole reply before the client sees it.
    pub const WHOLE: Marks = Marks(1 << 4);
    /// Has the long deadline.
    pub const SLOW: Marks = Marks(1 << 5);
    /// Its deadline has passed and its caller was answered: the reply that is
    /// still to come is swallowed.
    pub const ANSWERED: Marks = Marks(1 << 6);
    /// The ticket names a link to another worker, not a session.
    pub const LINK: Marks = Marks(1 << 7);
    /// Nothing was sent: when its turn comes the caller is told that the
    /// outcome is unknown. Keeps an error behind replies that are still due.
    pub const LOST: Marks = Marks(1 << 8);
    /// No deadline: a blocking command is timed by the server.
    pub const UNTIMED: Marks = Marks(1 << 9);
    /// Answered by push frames only (`SUBSCRIBE` and its relatives in RESP3).
    pub const SUBSCRIBE: Marks = Marks(1 << 10);
    /// The first command that its client sent on this connection's behalf has
    /// no owner any more; kept so that the reply queue stays in step.
    pub const EXEC: Marks = Marks(1 << 11);
    /// One of the slow class, which has a concurrency of its own.
    pub const HEAVY: Marks = Marks(1 << 14);
    /// Of a [`LOST`](Self::LOST) one: it was refused. Its row of the table is the code of
    /// the reason instead.
    pub const REFUSED: Marks = Marks(1 << 15);
    /// Behind a command of the same session that the node has refused because of what
    /// it is: its reply is kept until that is decided.
    pub const HEEDED: Marks = Marks(1 << 12);
    /// The ticket names a connection of a lobby, which wants the reply.
    pub const LOBBY: Marks = Marks(1 << 13);

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Marks) -> Marks {
        Marks(self.0 | other.0)
    }

    /// Without those of `other`.
    #[must_use]
    pub const fn without(self, other: Marks) -> Marks {
        Marks(self.0 & !other.0)
    }

    /// Whether any of `other` is set.
    #[inline]
    pub const fn any(self, other: Marks) -> bool {
        self.0 & other.0 != 0
    }
}

/// One command that was appended to a connection and has no reply yet.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Whose command it is.
    pub to: Ticket,
    /// When its last byte was read, in microseconds of the worker's clock.
    pub at: u64,
    /// Bytes of the request in the connection's ring. Zero for a request that
    /// is streamed and not kept.
    pub len: u32,
    /// Row of the command table.
    pub command: u16,
    /// How its reply is to be treated.
    pub marks: Marks,
}
