//! Which clients of one worker are subscribed to what, over one feed.

use std::collections::HashMap;

use hashbrown::HashSet;

use super::{Name, Space};

/// One worker's clients of one feed, by what they are subscribed to. A client is the place
/// of its session.
#[derive(Debug, Default)]
pub struct Local {
    names: [HashMap<Name, HashSet<u32>>; 3],
    /// Which feed it was that last said anything: what was meant for an earlier one, whose
    /// connection was lost, is void.
    pub feed: Option<u32>,
}

impl Local {
    /// Which feed a client means that asks now. None of them is meant, but whichever
    /// there is, where nobody is subscribed to anything.
    pub fn meant(&self) -> Option<u32> {
        self.feed.filter(|_| !self.is_empty())
    }

    /// Whether nobody is subscribed to anything.
    pub fn is_empty(&self) -> bool {
        self.names.iter().all(HashMap::is_empty)
    }

    /// The copy of a name that everybody shares.
    pub fn shared(&self, space: Space, name: &[u8]) -> Name {
        match self.names[space.index()].get_key_value(name) {
            Some((name, _)) => name.clone(),
            None => name.into(),
        }
    }

    /// The client is subscribed from now on. Whether it was not before.
    pub fn add(&mut self, space: Space, name: &Name, client: u32) -> bool {
        let of_space = &mut self.names[space.index()];
        if let Some(clients) = of_space.get_mut(&**name) {
            return clients.insert(client);
        }
        of_space.insert(name.clone(), HashSet::from_iter([client]));
        true
    }

    /// The client is not subscribed any more. Whether it was before.
    pub fn remove(&mut self, space: Space, name: &[u8], client: u32) -> bool {
        let of_space = &mut self.names[space.index()];
        let Some(clients) = of_space.get_mut(name) else {
            return false;
        };
        let was = clients.remove(&client);
        if clients.is_empty() {
            of_space.remove(name);
        }
        was
    }

    /// Whom a message to this name goes to.
    pub fn clients(&self, space: Space, name: &[u8]) -> impl Iterator<Item = u32> + '_ {
        let clients = self.names[space.index()].get(name);
        clients.into_iter().flatten().copied()
    }
}
