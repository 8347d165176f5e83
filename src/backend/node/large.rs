//! The large replies of one node: which requests have them, and how many may be under way at
//! once. All workers share it; a worker that knows of none only loads a flag.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use super::Node;
use crate::admission::{LargeLimits, LargeReplies, UnderWay, length_bit, request_name};
use crate::metrics::{Event, EventKind};

/// The log says that the limit is no longer reached when nobody has waited for so long,
/// in seconds.
const OVER_AFTER: u64 = 10;

/// Which requests have large replies, and how many of those may be under way.
#[derive(Debug, Default)]
pub struct Large {
    /// The lengths of requests that may be known.
    lengths: AtomicU64,
    known: ArcSwap<LargeReplies>,
    lane: Mutex<Lane>,
}

#[derive(Debug, Default)]
struct Lane {
    limits: LargeLimits,
    under_way: UnderWay,
    waiting: VecDeque<(u64, oneshot::Sender<LargePermit>)>,
    /// When somebody last had to wait, in seconds, if that was told.
    told: Option<u64>,
}

impl Lane {
    /// Those who have gone do not wait.
    fn forget_gone(&mut self) {
        self.waiting.retain(|(_, grant)| !grant.is_closed());
    }
}

/// One large reply may be asked for. Given back on drop, which is to be when Redis holds
/// nothing of it any more.
#[derive(Debug)]
pub struct LargePermit {
    large: Arc<Large>,
    /// Empty if it was given back already.
    bytes: Option<u64>,
}

impl LargePermit {
    /// How large the reply is, in bytes, as far as known before.
    pub fn bytes(&self) -> u64 {
        self.bytes.unwrap_or_default()
    }
}

impl Drop for LargePermit {
    fn drop(&mut self) {
        if let Some(bytes) = self.bytes.take() {
            self.large.lane().under_way.end(bytes);
            self.large.serve();
        }
    }
}

/// What becomes of the wish to ask for a large reply.
#[derive(Debug)]
pub enum LargeWish {
    /// It may be asked for.
    Granted(LargePermit),
    /// When others are over.
    Waits(oneshot::Receiver<LargePermit>),
    /// Too many wait.
    QueueFull,
}

/// How large replies fare, for metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct LargeTold {
    /// What is under way.
    pub under_way: UnderWay,
    /// Requests that wait.
    pub waiting: usize,
    /// Requests that are known to have large replies.
    pub known: usize,
}

impl Large {
    /// Whether a request of this length may be known to have a large reply.
    #[inline]
    pub fn may_know(&self, length: usize) -> bool {
        self.lengths.load(Relaxed) & length_bit(length) != 0
    }

    /// How large the reply to a request will be, if that is large.
    pub fn expect(&self, request: u64) -> Option<u64> {
        self.known.load().expect(request)
    }

    /// Asks for leave to ask for a reply of `bytes`.
    pub fn ask(self: &Arc<Self>, bytes: u64, limits: LargeLimits) -> LargeWish {
        let mut lane = self.lane();
        lane.limits = limits;
        lane.forget_gone();
        // Whoever is larger than all that may be goes alone.
        let bytes = bytes.min(limits.bytes);
        if lane.waiting.is_empty() && lane.under_way.has_room(bytes, &limits) {
            lane.under_way.begin(bytes);
            return LargeWish::Granted(self.permit(bytes));
        }
        if lane.waiting.len() >= limits.queue {
            return LargeWish::QueueFull;
        }
        let (grant, granted) = oneshot::channel();
        lane.waiting.push_back((bytes, grant));
        LargeWish::Waits(granted)
    }

    /// Whether somebody waits for a large reply to be over.
    pub fn has_waiters(&self) -> bool {
        let lane = self.lane();
        lane.waiting.iter().any(|(_, grant)| !grant.is_closed())
    }

    /// How it fares.
    pub fn told(&self) -> LargeTold {
        let mut lane = self.lane();
        lane.forget_gone();
        LargeTold {
            under_way: lane.under_way,
            waiting: lane.waiting.len(),
            known: self.known.load().len(),
        }
    }

    fn permit(self: &Arc<Self>, bytes: u64) -> LargePermit {
        LargePermit {
            large: self.clone(),
            bytes: Some(bytes),
        }
    }

    /// Lets in those who wait, as far as there is room.
    fn serve(self: &Arc<Self>) {
        loop {
            let mut lane = self.lane();
            lane.forget_gone();
            let Some(&(bytes, _)) = lane.waiting.front() else {
                return;
            };
            if !lane.under_way.has_room(bytes, &lane.limits) {
                return;
            }
            let Some((_, grant)) = lane.waiting.pop_front() else {
                return;
            };
            lane.under_way.begin(bytes);
            drop(lane);
            if let Err(mut unused) = grant.send(self.permit(bytes)) {
                // Gone in this very moment.
                unused.bytes = None;
                self.lane().under_way.end(bytes);
            }
        }
    }

    fn lane(&self) -> MutexGuard<'_, Lane> {
        // What is in it is whole between any two statements that could panic.
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node {
    /// The reply to a request has at least `bytes`.
    pub fn learn_large(&self, request: &[u8], bytes: u64) {
        let length = length_bit(request.len());
        let request = request_name(request);
        let second = self.started.elapsed().as_secs();
        let large = &self.large;
        if !large.known.load().is_news(request, bytes, second) {
            return;
        }
        large.known.rcu(|known| {
            let mut known = LargeReplies::clone(known);
            known.learn((request, length), bytes, second);
            known
        });
        large.lengths.fetch_or(length, Relaxed);
    }

    /// Somebody had to wait for large replies to be over, or was refused.
    pub fn large_held_back(&self) {
        let second = self.started.elapsed().as_secs();
        let mut lane = self.large.lane();
        if lane.told.replace(second).is_some() {
            return;
        }
        let (UnderWay { bytes, count }, limit) = (lane.under_way, lane.limits.bytes);
        drop(lane);
        tracing::warn!(
            node = %self.address, replies = count, bytes, limit,
            "as many large replies are under way as Redis may hold: others wait for them \
             (backend.large_replies_max)"
        );
        let event = Event::new(EventKind::LimitReached, "backend.large_replies_max");
        self.journal.note(event.on(&self.route));
    }

    /// Forgets what was not seen for long. To be called a few times a second.
    pub fn tidy_large(&self) {
        if self.large.lengths.load(Relaxed) == 0 {
            return;
        }
        let second = self.started.elapsed().as_secs();
        if self.large.known.load().has_old(second) {
            self.large.known.rcu(|known| {
                let mut known = LargeReplies::clone(known);
                known.forget_old(second);
                known
            });
        }
        let mut lane = self.large.lane();
        lane.forget_gone();
        let is_over = lane.waiting.is_empty();
        if is_over && lane.told.is_some_and(|at| at + OVER_AFTER < second) {
            lane.told = None;
            drop(lane);
            tracing::info!(
                node = %self.address,
                "nobody waits for large replies any more (backend.large_replies_max)"
            );
            let event = Event::new(EventKind::LimitCleared, "backend.large_replies_max");
            self.journal.note(event.on(&self.route));
            return;
        }
        if is_over && lane.told.is_none() && self.large.known.load().is_empty() {
            drop(lane);
            self.large.lengths.store(0, Relaxed);
            // Somebody may have learnt one in between.
            let lengths = self.large.known.load().lengths();
            self.large.lengths.fetch_or(lengths, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: LargeLimits = LargeLimits {
        bytes: 100,
        count: 4,
        queue: 2,
    };

    fn granted(wish: LargeWish) -> LargePermit {
        match wish {
            LargeWish::Granted(permit) => permit,
            other => panic!("{other:?}"),
        }
    }

    fn waits(wish: LargeWish) -> oneshot::Receiver<LargePermit> {
        match wish {
            LargeWish::Waits(granted) => granted,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn they_are_let_in_in_order_as_far_as_there_is_room() {
        let large = Arc::new(Large::default());
        let first = granted(large.ask(60, LIMITS));
        let second = granted(large.ask(40, LIMITS));
        let mut third = waits(large.ask(50, LIMITS));
        let mut fourth = waits(large.ask(1, LIMITS));
        assert!(matches!(large.ask(1, LIMITS), LargeWish::QueueFull));
        drop(second);
        // The one behind it would fit, but comes later.
        assert!(third.try_recv().is_err() && fourth.try_recv().is_err());
        drop(first);
        let (third, fourth) = (third.try_recv().unwrap(), fourth.try_recv().unwrap());
        assert_eq!(large.told().under_way.bytes, 51);
        drop((third, fourth));
        assert_eq!(large.told().under_way, UnderWay::default());
    }

    #[test]
    fn one_that_is_larger_than_all_goes_alone() {
        let large = Arc::new(Large::default());
        let permit = granted(large.ask(1_000, LIMITS));
        let mut next = waits(large.ask(10, LIMITS));
        assert!(next.try_recv().is_err());
        drop(permit);
        assert!(next.try_recv().is_ok());
    }

    #[test]
    fn who_has_gone_takes_no_place() {
        let large = Arc::new(Large::default());
        let permit = granted(large.ask(100, LIMITS));
        let gone = waits(large.ask(100, LIMITS));
        let mut next = waits(large.ask(100, LIMITS));
        drop(gone);
        drop(permit);
        drop(next.try_recv().unwrap());
        assert_eq!(large.told().under_way, UnderWay::default());
        assert_eq!(large.told().waiting, 0);
    }
}
