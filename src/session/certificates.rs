//! Reading certificates again: when a file has changed, or when an operator says so. New
//! handshakes use the new ones; nobody who is connected notices.

use super::proxy::Proxy;
use crate::metrics::{Event, EventKind};
use crate::net::tls::Renew;

/// What became of the certificates at one place in the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// The place, such as `route.main.listener.public`.
    pub place: String,
    /// Whether they are in force; if not, why, and those before still are.
    pub outcome: Result<(), String>,
}

/// Which certificates are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those of which a file has changed.
    Changed,
    /// All.
    All,
}

impl Proxy {
    /// Reads certificates again, with those that were of no use before. Blocks on the
    /// file system: not for a worker's thread.
    pub fn renew_certificates(&self, which: Which) -> Vec<Renewal> {
        let mut renewals = Vec::new();
        for route in &self.routes {
            for certificates in route.certificates() {
                if which == Which::All || certificates.has_changed() {
                    let renewal = renew(&*certificates);
                    self.tell(&route.name, &renewal);
                    renewals.push(renewal);
                }
            }
        }
        renewals
    }

    fn tell(&self, route: &str, Renewal { place, outcome }: &Renewal) {
        let kind = match outcome {
            Ok(()) => EventKind::CertificatesRead,
            Err(_) => EventKind::CertificatesBad,
        };
        let mut event = Event::new(kind, place).on(route);
        match outcome {
            Ok(()) => tracing::info!(
                route,
                place,
                "certificates read again: in force for new connections"
            ),
            Err(problem) => {
                tracing::error!(
                    route,
                    place,
                    "certificates can not be used, those before stay: {problem}"
                );
                event = event.with("problem", problem);
            }
        }
        self.journal.note(event);
    }
}

fn renew(certificates: &dyn Renew) -> Renewal {
    Renewal {
        place: certificates.place().to_owned(),
        outcome: certificates.reload(),
    }
}
