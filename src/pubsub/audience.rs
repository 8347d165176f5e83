//! By how much Redis's count of receivers differs from the clients there are: one feed
//! receives once for all of its clients.

use std::collections::HashMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::{Name, Space, glob};

/// Comparisons that one `PUBLISH` may spend on patterns. Far more than thousands of usual
/// ones take; patterns meant to be slow get no more than this, and are then counted as
/// Redis counted them.
const STEPS_MAX: usize = 200_000;

/// For each name of a route the clients subscribed to it through feeds, less the feeds.
/// Only names with a difference are kept, so one subscriber of one channel costs nothing.
#[derive(Debug, Default)]
pub struct Audience {
    /// How many names there are below: publishers look here first.
    names: AtomicUsize,
    more: RwLock<[HashMap<Name, i64>; 3]>,
}

impl Audience {
    /// Another client (`1`), or feed (`-1`), is subscribed to a name; or one less.
    pub fn change(&self, space: Space, name: &Name, by: i64) {
        let mut more = self.more.write().expect("nobody panics while holding it");
        let of_space = &mut more[space.index()];
        let difference = of_space.get(&**name).copied().unwrap_or(0) + by;
        if difference == 0 {
            of_space.remove(&**name);
        } else {
            of_space.insert(name.clone(), difference);
        }
        let names = more.iter().map(HashMap::len).sum();
        self.names.store(names, Relaxed);
    }

    /// Whether Redis's counts are right as they are, whatever the channel.
    #[inline]
    pub fn is_exact(&self) -> bool {
        self.names.load(Relaxed) == 0
    }

    /// What has to be added to Redis's count of the subscribers of a name.
    pub fn of(&self, space: Space, name: &[u8]) -> i64 {
        let more = self.more.read().expect("nobody panics while holding it");
        more[space.index()].get(name).copied().unwrap_or(0)
    }

    /// What has to be added to the reply of a `PUBLISH`.
    pub fn of_publish(&self, channel: &[u8]) -> i64 {
        let more = self.more.read().expect("nobody panics while holding it");
        let [channels, patterns, _] = &*more;
        let exact = channels.get(channel).copied().unwrap_or(0);
        let mut steps = STEPS_MAX;
        let matching = patterns
            .iter()
            .filter(|(pattern, _)| glob::matches(pattern, channel, &mut steps))
            .map(|(_, difference)| difference);
        exact + matching.sum::<i64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_counts_once_and_its_clients_each() {
        let audience = Audience::default();
        let (x, all): (Name, Name) = (b"x".as_slice().into(), b"*".as_slice().into());
        assert!(audience.is_exact());
        audience.change(Space::Channel, &x, -1);
        assert_eq!(audience.of_publish(b"x"), -1);
        audience.change(Space::Channel, &x, 1);
        assert!(audience.is_exact(), "one client on one feed");
        audience.change(Space::Channel, &x, 1);
        audience.change(Space::Channel, &x, 1);
        assert_eq!(
            (audience.of_publish(b"x"), audience.of_publish(b"y")),
            (2, 0)
        );
        audience.change(Space::Pattern, &all, 5);
        assert_eq!(
            (audience.of_publish(b"x"), audience.of_publish(b"y")),
            (7, 5)
        );
        assert_eq!(audience.of(Space::Channel, b"x"), 2);
        assert_eq!(audience.of(Space::Shard, b"x"), 0);
    }
}
