//! Who makes room: the clients that workers offer to close when somebody else has no place.
//!
//! Every worker looks at each of its clients five times a second anyway. When places get
//! scarce it notes the best to go and puts them here, a bounded number, in place of those
//! that it offered before. So whoever looks for room looks at a few dozen and not at all
//! clients; when the offers are used up there is no room before the next look, which bounds
//! how fast clients can push each other out. An offer is a hint: the worker looks again
//! before it closes anybody.

use std::sync::Arc;

use super::identity::{Group, RuleTally};

/// Clients of one route that one worker offers at once.
pub const OFFERS_MAX: usize = 64;

/// A client that may be closed to make room.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Its route.
    pub route: u16,
    /// Its place among its worker's sessions, and which session that is.
    pub session: (u32, u32),
    /// Since when it has been idle, in microseconds.
    pub idle_since: u64,
    /// The account of its address.
    pub address: Arc<Group>,
    /// The rule whose share it takes from.
    pub share: Option<Arc<RuleTally>>,
}

/// The offers of all workers.
#[derive(Debug)]
pub struct Board {
    by_worker: Vec<Vec<Offer>>,
}

impl Board {
    /// Without offers.
    pub fn new(workers: usize) -> Board {
        Board {
            by_worker: vec![Vec::new(); workers],
        }
    }

    /// A worker's offers, in place of those that it made before.
    pub fn offer(&mut self, worker: usize, offers: Vec<Offer>) {
        self.by_worker[worker] = offers;
    }

    /// Takes the longest idle client of the greediest address, and says whose it is. It has to
    /// be one on `route`, if there is one, and nobody makes room for one whose own address,
    /// `newcomer`, holds as much. Nobody is taken whose place would be kept for others.
    pub fn take(&mut self, route: Option<u16>, newcomer: &Arc<Group>) -> Option<(usize, Offer)> {
        let may_go = |offer: &Offer| {
            route.is_none_or(|route| route == offer.route)
                && (Arc::ptr_eq(&offer.address, newcomer)
                    || offer.address.clients() > newcomer.clients())
                && offer.share.as_ref().is_none_or(|share| share.can_spare())
        };
        let all = self.by_worker.iter().enumerate();
        let (worker, at, _) = all
            .flat_map(|(worker, offers)| {
                offers
                    .iter()
                    .enumerate()
                    .map(move |(at, offer)| (worker, at, offer))
            })
            .filter(|(_, _, offer)| may_go(offer))
            .max_by_key(|(_, _, offer)| {
                (offer.address.clients(), std::cmp::Reverse(offer.idle_since))
            })?;
        Some((worker, self.by_worker[worker].swap_remove(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{Key, TokenBucket};

    fn address(clients: usize) -> Arc<Group> {
        let group = Group::new(
            RuleTally::new(0, 0, "address"),
            Key::All,
            TokenBucket::full(0.0, 0),
        );
        (0..clients).for_each(|_| group.enter(true));
        group
    }

    fn offer(address: &Arc<Group>, idle_since: u64) -> Offer {
        Offer {
            route: 0,
            session: (0, 0),
            idle_since,
            address: address.clone(),
            share: None,
        }
    }

    #[test]
    fn the_longest_idle_of_the_greediest_goes_first() {
        let (greedy, modest, newcomer) = (address(10), address(2), address(0));
        let mut board = Board::new(2);
        board.offer(0, vec![offer(&modest, 1), offer(&greedy, 7)]);
        board.offer(1, vec![offer(&greedy, 5), offer(&modest, 2)]);
        let mut next = || {
            let (worker, offer) = board.take(None, &newcomer)?;
            Some((worker, offer.idle_since))
        };
        assert_eq!(next(), Some((1, 5)));
        assert_eq!(next(), Some((0, 7)));
        assert_eq!(next(), Some((0, 1)));
        assert_eq!(next(), Some((1, 2)));
        assert_eq!(next(), None);
    }

    #[test]
    fn who_holds_most_pushes_nobody_out_but_its_own() {
        let (greedy, modest) = (address(10), address(2));
        let mut board = Board::new(1);
        board.offer(0, vec![offer(&modest, 1)]);
        assert!(board.take(None, &greedy).is_none());
        board.offer(0, vec![offer(&modest, 1), offer(&greedy, 9)]);
        assert_eq!(board.take(None, &greedy).expect("its own").1.idle_since, 9);
    }

    #[test]
    fn a_route_makes_room_for_itself_and_shares_are_left_alone() {
        let (greedy, newcomer) = (address(10), address(0));
        let share = RuleTally::new(1, 0, "app");
        share.set_guaranteed(1);
        share.change_sharers(|_| 1);
        let with_share = Offer {
            share: Some(share.clone()),
            ..offer(&greedy, 1)
        };
        let mut board = Board::new(1);
        board.offer(0, vec![with_share]);
        assert!(board.take(None, &newcomer).is_none());
        share.change_sharers(|_| 2);
        assert!(board.take(Some(1), &newcomer).is_none());
        assert!(board.take(Some(0), &newcomer).is_some());
    }
}
