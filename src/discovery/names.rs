//! The names by which nodes are found, and what they were found to stand for last. Pure but
//! for the clock: says which are to be looked up now, and takes in what was found.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// However often it is wanted, names are looked up no more often than this: while there is
/// no primary every command may want it.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The names of one deployment's nodes.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: BTreeMap<String, Meaning>,
    asked_at: Option<Instant>,
    /// They are to be looked up before it is time to.
    is_wanted: bool,
}

/// What is known of a name.
#[derive(Debug, Default)]
struct Meaning {
    addresses: Vec<String>,
    /// It was looked up, with or without success.
    is_tried: bool,
    /// It is being looked up: a resolver that is slow is not asked for it once more.
    is_asked: bool,
}

impl Names {
    /// Takes over which names there are. What those stand for that stay holds.
    pub(super) fn set(&mut self, names: &[String]) {
        let before = self.known.len();
        self.known.retain(|name, _| names.contains(name));
        let mut has_changed = self.known.len() != before;
        for name in names {
            if !self.known.contains_key(name) {
                self.known.insert(name.clone(), Meaning::default());
                has_changed = true;
            }
        }
        if has_changed {
            self.asked_at = None;
        }
    }

    /// Those that are to be looked up now: every `interval`, and when it is wanted.
    pub(super) fn due(&mut self, interval: Duration) -> Vec<String> {
        let pause = match self.is_wanted {
            true => AGAIN_AFTER.min(interval),
            false => interval,
        };
        if self.asked_at.is_some_and(|at| at.elapsed() < pause) {
            return Vec::new();
        }
        self.asked_at = Some(Instant::now());
        self.is_wanted = false;
        let mut due = Vec::new();
        for (name, meaning) in &mut self.known {
            if !std::mem::replace(&mut meaning.is_asked, true) {
                due.push(name.clone());
            }
        }
        due
    }

    /// They may stand for something else than a moment ago.
    pub(super) fn doubt(&mut self) {
        let is_name = |name: &String| name.parse::<std::net::SocketAddr>().is_err();
        self.is_wanted |= self.known.keys().any(is_name);
    }

    /// Takes in what a name was found to stand for; `None` if that could not be found out:
    /// then what it stood for last may be right still. Whether that is news.
    pub(super) fn take(&mut self, name: &str, addresses: Option<&[String]>) -> bool {
        let Some(meaning) = self.known.get_mut(name) else {
            // It is not used any more.
            return false;
        };
        (meaning.is_tried, meaning.is_asked) = (true, false);
        match addresses {
            Some(addresses) if *addresses != *meaning.addresses => {
                meaning.addresses = addresses.to_vec();
                true
            }
            _ => false,
        }
    }

    /// Whether there is one that was not looked up so far.
    pub(super) fn has_untried(&self) -> bool {
        self.known.values().any(|meaning| !meaning.is_tried)
    }

    /// Whether it is one of them.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.known.contains_key(name)
    }

    /// Whether a name stands for this address.
    pub(super) fn stand_for(&self, address: &String) -> bool {
        let mut meanings = self.known.values();
        meanings.any(|meaning| meaning.addresses.contains(address))
    }

    /// What a name stands for.
    pub(super) fn addresses(&self, name: &str) -> &[String] {
        let meaning = self.known.get(name);
        meaning.map_or(&[], |meaning| &meaning.addresses)
    }

    /// Every name with each address that it stands for.
    pub(super) fn pairs(&self) -> Vec<(String, String)> {
        let pairs = |(name, meaning): (&String, &Meaning)| {
            let addresses = meaning.addresses.iter();
            let pairs = addresses.map(|address| (name.clone(), address.clone()));
            pairs.collect::<Vec<_>>()
        };
        self.known.iter().flat_map(pairs).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn names(of: &[&str]) -> Names {
        let mut names = Names::default();
        names.set(&list(of));
        names
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_resolver_is_asked_for_a_name_once_at_a_time() {
        let mut names = names(&["a:1", "b:1"]);
        assert_eq!(names.due(INTERVAL), ["a:1", "b:1"]);
        names.take("a:1", Some(&list(&["10.0.0.1:1"])));
        for _ in 0..1000 {
            names.doubt();
            tokio::time::advance(Duration::from_secs(1)).await;
            for name in names.due(INTERVAL) {
                assert_eq!(name, "a:1");
                names.take(&name, None);
            }
        }
        assert!(names.has_untried());
        names.take("b:1", None);
        tokio::time::advance(INTERVAL).await;
        assert_eq!(names.due(INTERVAL), ["a:1", "b:1"]);
        // What could not be found out anew holds.
        assert_eq!(names.addresses("a:1"), ["10.0.0.1:1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_of_doubts_is_a_few_questions() {
        let mut names = names(&["a:1"]);
        let mut asked = 0;
        for _ in 0..1000 {
            names.doubt();
            for name in names.due(INTERVAL) {
                names.take(&name, None);
                asked += 1;
            }
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!((20..=21).contains(&asked), "{asked}");
        // Nothing is behind an address but itself.
        let mut addresses = self::names(&["10.0.0.1:1"]);
        assert_eq!(addresses.due(INTERVAL).len(), 1);
        addresses.take("10.0.0.1:1", Some(&list(&["10.0.0.1:1"])));
        tokio::time::advance(INTERVAL / 2).await;
        addresses.doubt();
        assert!(addresses.due(INTERVAL).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn another_list_is_looked_up_at_once_and_what_stays_is_known() {
        let mut names = names(&["a:1", "b:1", "a:1"]);
        names.due(INTERVAL);
        assert!(names.take("a:1", Some(&list(&["10.0.0.1:1"]))));
        assert!(!names.take("a:1", Some(&list(&["10.0.0.1:1"]))));
        names.set(&list(&["b:1", "a:1", "a:1"]));
        assert!(names.due(INTERVAL).is_empty(), "the same names");
        names.set(&list(&["a:1", "c:1"]));
        assert_eq!(names.due(INTERVAL), ["a:1", "c:1"]);
        assert!(names.stand_for(&"10.0.0.1:1".to_owned()) && !names.contains("b:1"));
        assert_eq!(names.pairs(), [("a:1".to_owned(), "10.0.0.1:1".to_owned())]);
    }
}
