//! Client slots: how many clients there are and how many there may be, in the
//! whole process and on each route. Touched when a client comes and goes, never
//! for a command.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Slots of one route, or of the process (which has no `whole`).
#[derive(Debug)]
pub struct ClientSlots {
    taken: AtomicUsize,
    max: AtomicUsize,
    whole: Option<Arc<ClientSlots>>,
}

/// Which limit left no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoSlot {
    /// `max_clients` of the process.
    Process,
    /// `max_clients` of the route.
    Route,
}

impl ClientSlots {
    /// Slots of the whole process.
    pub fn process(max: usize) -> Arc<ClientSlots> {
        Arc::new(ClientSlots {
            taken: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            whole: None,
        })
    }

    /// Slots of one route; each one taken is also taken from the process.
    pub fn route(max: usize, process: &Arc<ClientSlots>) -> Arc<ClientSlots> {
        Arc::new(ClientSlots {
            taken: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            whole: Some(process.clone()),
        })
    }

    /// Takes a slot, here and in the whole, or none at all.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn take(self: &Arc<Self>) -> Result<ClientPermit, NoSlot> {
        if !self.raise() {
            // A route without a limit of its own has that of the process.
            let is_own = self
                .whole
                .as_ref()
                .is_some_and(|whole| self.max() < whole.max());
            return Err(if is_own {
                NoSlot::Route
            } else {
                NoSlot::Process
            });
        }
        if self.whole.as_ref().is_some_and(|whole| !whole.raise()) {
            self.taken.fetch_sub(1, Relaxed);
            return Err(NoSlot::Process);
        }
        Ok(ClientPermit(self.clone()))
    }

    /// Slots taken now.
    pub fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }

    /// Slots there are.
    pub fn max(&self) -> usize {
        self.max.load(Relaxed)
    }

    /// So many from now on. Those that are taken beyond it stay until they are given back.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    fn raise(&self) -> bool {
        let max = self.max();
        self.taken
            .fetch_update(Relaxed, Relaxed, |taken| (taken < max).then_some(taken + 1))
            .is_ok()
    }
}

/// A client's slot; given back on drop.
#[derive(Debug)]
pub struct ClientPermit(Arc<ClientSlots>);

impl Drop for ClientPermit {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Relaxed);
        if let Some(whole) = &self.0.whole {
            whole.taken.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_held_to_its_own_limit_and_to_the_process_limit() {
        let process = ClientSlots::process(3);
        let (one, two) = (
            ClientSlots::route(2, &process),
            ClientSlots::route(2, &process),
        );
        let first = one.take().expect("room");
        let _second = one.take().expect("room");
        assert_eq!(one.take().err(), Some(NoSlot::Route));
        let _third = two.take().expect("room");
        assert_eq!(two.take().err(), Some(NoSlot::Process));
        assert_eq!((one.taken(), two.taken(), process.taken()), (2, 1, 3));
        drop(first);
        assert_eq!((one.taken(), process.taken()), (1, 2));
        assert!(two.take().is_ok());
    }

    #[test]
    fn a_route_that_takes_all_there_are_names_the_limit_of_the_process() {
        let process = ClientSlots::process(1);
        let only = ClientSlots::route(1, &process);
        let _first = only.take().expect("room");
        assert_eq!(only.take().err(), Some(NoSlot::Process));
    }
}
