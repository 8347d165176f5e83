//! What each client gets in one turn: pieces of bytes that all share, put together so that
//! each client's socket is written once.

/// Where a piece is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// In what came from the feed, in the protocol that the client speaks.
    Feed,
    /// In what was written for this client alone.
    Own,
}

/// Bytes for one client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Where they are.
    pub source: Source,
    /// Where they begin.
    pub start: u32,
    /// Where they end.
    pub end: u32,
    next: u32,
}

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Ends {
    first: u32,
    last: u32,
}

const EMPTY: Ends = Ends {
    first: NONE,
    last: NONE,
};

/// The pieces of one turn, by client. Its memory is used again every turn.
#[derive(Debug, Default)]
pub struct Outgoing {
    pieces: Vec<Piece>,
    /// By the place of the client's session.
    ends: Vec<Ends>,
    /// Those who get anything, in the order in which their first piece came.
    clients: Vec<u32>,
}

impl Outgoing {
    /// The client gets these bytes, behind what it gets already.
    pub fn push(&mut self, client: u32, source: Source, start: u32, end: u32) {
        let place = client as usize;
        if self.ends.len() <= place {
            self.ends.resize(place + 1, EMPTY);
        }
        let ends = &mut self.ends[place];
        if ends.last == NONE {
            self.clients.push(client);
        } else {
            let last = &mut self.pieces[ends.last as usize];
            if last.source == source && last.end == start {
                last.end = end;
                return;
            }
        }
        let index = self.pieces.len() as u32;
        self.pieces.push(Piece {
            source,
            start,
            end,
            next: NONE,
        });
        match ends.last {
            NONE => ends.first = index,
            last => self.pieces[last as usize].next = index,
        }
        ends.last = index;
    }

    /// How many clients get anything.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// One of those who get anything.
    pub fn client(&self, index: usize) -> u32 {
        self.clients[index]
    }

    /// What a client gets.
    pub fn pieces(&self, client: u32) -> impl Iterator<Item = Piece> + '_ {
        let first = self.ends.get(client as usize).map_or(NONE, |it| it.first);
        let at = |index: u32| self.pieces.get(index as usize).copied();
        std::iter::successors(at(first), move |piece| at(piece.next))
    }

    /// Everything is sent.
    pub fn clear(&mut self) {
        for client in self.clients.drain(..) {
            self.ends[client as usize] = EMPTY;
        }
        self.pieces.clear();
        // A burst's memory is not kept by a quiet worker.
        self.pieces.shrink_to(64 * 1024);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_bytes_become_one_piece_and_order_is_kept() {
        let mut outgoing = Outgoing::default();
        outgoing.push(7, Source::Feed, 0, 10);
        outgoing.push(2, Source::Feed, 0, 10);
        outgoing.push(7, Source::Feed, 10, 30);
        outgoing.push(7, Source::Own, 30, 40);
        outgoing.push(2, Source::Feed, 20, 30);
        outgoing.push(7, Source::Feed, 40, 50);
        let of = |client| {
            let pieces = outgoing.pieces(client);
            pieces
                .map(|piece| (piece.source, piece.start, piece.end))
                .collect::<Vec<_>>()
        };
        assert_eq!(outgoing.clients(), 2);
        assert_eq!(
            of(7),
            [
                (Source::Feed, 0, 30),
                (Source::Own, 30, 40),
                (Source::Feed, 40, 50)
            ]
        );
        assert_eq!(of(2), [(Source::Feed, 0, 10), (Source::Feed, 20, 30)]);
        assert_eq!(of(3), []);
        outgoing.clear();
        assert_eq!((outgoing.clients(), outgoing.pieces(7).count()), (0, 0));
    }
}
