//! What one client has asked of its feed and is not answered yet. Clients do not wait for
//! confirmations: what they ask next builds on what they have asked before.

use std::collections::VecDeque;

use super::upstream::Ask;
use super::{Name, Space};

/// So many questions of one client are under way at most; the next one waits.
const QUESTIONS_MAX: usize = 64;

/// And so many names in them: each new one is looked for among these.
const NAMES_MAX: usize = 512;

#[derive(Debug)]
struct Change {
    number: u32,
    space: Space,
    begins: bool,
    /// Each with whether it changes anything.
    names: Vec<(Name, bool)>,
}

impl Change {
    fn mentions(&self, space: Space, name: &[u8]) -> bool {
        self.space == space && self.names.iter().any(|(known, _)| **known == *name)
    }
}

/// Questions about subscriptions, oldest first; they are answered in this order.
#[derive(Debug, Default)]
pub struct Pending {
    changes: VecDeque<Change>,
    names: usize,
}

impl Pending {
    /// A question is asked; those are told from each other by their numbers.
    pub fn asked(&mut self, number: u32, ask: &Ask) {
        let (space, begins, names) = match ask {
            Ask::Subscribe(space, names) => (*space, true, names),
            Ask::Unsubscribe(space, names) => (*space, false, names),
            Ask::Ping { .. } => return,
        };
        self.names += names.len();
        self.changes.push_back(Change {
            number,
            space,
            begins,
            names: names.clone(),
        });
    }

    /// It is answered.
    pub fn answered(&mut self, number: u32) {
        if self.changes.front().map(|change| change.number) == Some(number)
            && let Some(change) = self.changes.pop_front()
        {
            self.names -= change.names.len();
        }
        if self.changes.is_empty() {
            // Thousands of clients ask once.
            self.changes = VecDeque::new();
        }
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether the next question has to wait.
    pub fn is_full(&self) -> bool {
        self.changes.len() >= QUESTIONS_MAX || self.names >= NAMES_MAX
    }

    /// Whether the client will be subscribed when all is answered as it expects; `has`: it
    /// is so now.
    pub fn will_have(&self, space: Space, name: &[u8], has: bool) -> bool {
        let last = self
            .changes
            .iter()
            .rev()
            .find(|change| change.mentions(space, name));
        last.map_or(has, |change| change.begins)
    }

    /// Subscriptions that are to come.
    pub fn to_come(&self) -> usize {
        let begins = self.changes.iter().filter(|change| change.begins);
        begins
            .flat_map(|change| &change.names)
            .filter(|(_, new)| *new)
            .count()
    }

    /// Whether the feed was told that a subscription ends.
    pub fn ends(&self, space: Space, name: &[u8]) -> bool {
        let mut ends = self.changes.iter().filter(|change| !change.begins);
        ends.any(|change| change.mentions(space, name))
    }

    /// What begins by each question and ends by a later one. If the client goes, all else
    /// that begins is to be given back when it has.
    pub fn ended_later(&self) -> impl Iterator<Item = (u32, Vec<Name>)> + '_ {
        let begins = self.changes.iter().enumerate();
        begins
            .filter(|(_, change)| change.begins)
            .map(|(place, change)| {
                let ends = |name: &Name| {
                    let mut later = self.changes.iter().skip(place + 1);
                    later.any(|later| !later.begins && later.mentions(change.space, name))
                };
                let names = change.names.iter().map(|(name, _)| name);
                (
                    change.number,
                    names.filter(|name| ends(name)).cloned().collect(),
                )
            })
            .filter(|(_, names): &(u32, Vec<Name>)| !names.is_empty())
    }
}
