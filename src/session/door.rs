//! One listener as its clients meet it: what they have to show, how many may be showing
//! it at once, and what became of those who did.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::config::Listener;
use crate::metrics::{
    Event, EventKind, HandshakeResult, HeaderResult, Journal, Latch, Severity, Tally,
};
use crate::net::tls::{self, ServerCertificates};

/// One place among those who are at their header or handshake.
pub type Place = OwnedSemaphorePermit;

/// A listener of a route.
#[derive(Debug)]
pub struct Door {
    /// Its settings.
    pub config: Listener,
    /// What logs and metrics call it.
    pub label: String,
    /// What it shows to clients, if it speaks TLS.
    pub tls: Option<Arc<ServerCertificates>>,
    /// How TLS handshakes ended.
    pub handshakes: Tally<HandshakeResult>,
    /// What became of PROXY headers.
    pub headers: Tally<HeaderResult>,
    places: Arc<Semaphore>,
    route: String,
    journal: Arc<Journal>,
    is_full: Latch,
    complaints: Complaints,
}

impl Door {
    /// The door of a route by the settings of a listener.
    pub fn new(route: &str, config: Listener, journal: &Arc<Journal>) -> Door {
        let place = format!("route.{route}.listener.{}", config.name);
        Door {
            label: config.label(),
            tls: tls::for_clients(&config, place).map(Arc::new),
            handshakes: Tally::default(),
            headers: Tally::default(),
            places: Arc::new(Semaphore::new(config.handshakes_max)),
            route: route.to_owned(),
            journal: journal.clone(),
            is_full: Latch::default(),
            complaints: Complaints::default(),
            config,
        }
    }

    /// A place for the next client, when there is one; none is needed where clients come
    /// in as they are. Those who wait meanwhile wait in the kernel's queue.
    pub async fn place(&self) -> Option<Place> {
        if self.config.is_plain() {
            return None;
        }
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            if self.places.available_permits() * 2 > self.config.handshakes_max
                && self.is_full.clear()
            {
                tracing::info!(listener = %self.label, "fewer than half of handshakes_max again");
                self.note(EventKind::LimitCleared);
            }
            return Some(place);
        }
        if self.is_full.set() {
            tracing::warn!(
                listener = %self.label, handshakes_max = self.config.handshakes_max,
                "handshakes_max is reached: new connections wait until one is through"
            );
            self.note(EventKind::LimitReached);
        }
        self.places.clone().acquire_owned().await.ok()
    }

    fn note(&self, kind: EventKind) {
        let event = Event::new(kind, "handshakes_max").on(&self.route);
        let event = event.with("listener", &self.label);
        self.journal.note(event.as_severe_as(Severity::Warning));
    }

    /// How many are at their header or handshake now.
    pub fn handshakes_now(&self) -> usize {
        match self.config.is_plain() {
            true => 0,
            false => self.config.handshakes_max - self.places.available_permits(),
        }
    }

    /// Whether what is wrong with a newcomer should be logged: once a second. How many were
    /// not logged since the last one.
    pub(super) fn may_complain(&self) -> Option<u64> {
        self.complaints.next()
    }
}

/// One line a second at most: whoever knocks wrongly may do so a thousand times.
#[derive(Debug)]
struct Complaints {
    started: Instant,
    /// The second after the start in which the last was made, plus one.
    last: AtomicU64,
    left_out: AtomicU64,
}

impl Default for Complaints {
    fn default() -> Self {
        Complaints {
            started: Instant::now(),
            last: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
        }
    }
}

impl Complaints {
    fn next(&self) -> Option<u64> {
        let second = self.started.elapsed().as_secs() + 1;
        if self.last.swap(second, Relaxed) == second {
            self.left_out.fetch_add(1, Relaxed);
            return None;
        }
        Some(self.left_out.swap(0, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Network;

    fn door(handshakes_max: usize) -> Door {
        let trusted: Network = "127.0.0.1".parse().unwrap();
        let config = Listener {
            name: "public".to_owned(),
            proxy_protocol_from: vec![trusted],
            handshakes_max,
            ..Listener::default()
        };
        Door::new("main", config, &Arc::default())
    }

    #[tokio::test]
    async fn there_are_as_many_places_as_configured() {
        let door = door(2);
        let first = door.place().await;
        let _second = door.place().await;
        assert_eq!(door.handshakes_now(), 2);
        let mut third = std::pin::pin!(door.place());
        assert!(futures_pending(third.as_mut()).await);
        drop(first);
        assert!(third.await.is_some());
        let plain = Door::new("main", Listener::default(), &Arc::default());
        assert!(plain.place().await.is_none());
        assert_eq!(plain.handshakes_now(), 0);
    }

    async fn futures_pending<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
        std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending()))
            .await
    }

    #[tokio::test(start_paused = true)]
    async fn complaints_are_made_once_a_second() {
        let complaints = Complaints::default();
        assert_eq!(complaints.next(), Some(0));
        assert_eq!(complaints.next(), None);
        assert_eq!(complaints.next(), None);
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        assert_eq!(complaints.next(), Some(2));
    }
}
