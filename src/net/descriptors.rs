//! File descriptors: how many the configuration needs, and getting them.
//!
//! A process that may not open enough descriptors accepts clients until it can
//! not even dial Redis. So the limit is raised and checked before anything is
//! served.

use std::fmt;
use std::io;

use rlimit::Resource;

use crate::config::{Backend, Config, Listener, TopologyKind};

/// Clients beyond `max_clients` that are kept open at once until they have been
/// told so. Whoever refuses clients keeps to this number.
pub const REFUSED_CLIENTS: u64 = 1024;

/// Of each worker: its epoll instance, its waker, and two to spare.
const PER_WORKER: u64 = 4;

/// Connections that the admin server has open at once.
pub const ADMIN_CONNECTIONS: u64 = 64;

/// Connections to the console's own port: operators and their tools.
pub const CONSOLE_CONNECTIONS: u64 = 16;

/// The admin server's connections, its listener, and one being refused.
const ADMIN: u64 = ADMIN_CONNECTIONS + CONSOLE_CONNECTIONS + 6;

/// Standard streams, the main thread's runtime and signals, the log, secrets
/// and certificates that are read, name lookups under way. Redis reserves as
/// many for itself.
const RESERVE: u64 = 32;

/// Descriptors that a process with `config` and `workers` workers can need at
/// once, every limit used to the full.
pub fn needed(config: &Config, workers: usize) -> u64 {
    let of_routes = config.routes.iter().map(|route| {
        // A listener is there twice, so that it can be handed over.
        let doors = route.doors().map(|door| 2 + handshakes(&door));
        let doors = doors.fold(0, u64::saturating_add);
        let (nodes, sentinels) = nodes(&route.backend);
        let budget = nodes.saturating_mul(route.backend.max_connections as u64);
        doors.saturating_add(budget).saturating_add(sentinels)
    });
    [
        config.process.max_clients as u64,
        REFUSED_CLIENTS,
        workers as u64 * PER_WORKER,
        ADMIN,
        RESERVE,
    ]
    .into_iter()
    .chain(of_routes)
    .fold(0, u64::saturating_add)
}

/// How many nodes are counted on, each with a budget of its own, and the connections to
/// sentinels. A name may stand for more nodes than one, and sentinels may name any number:
/// for those a primary with two replicas is counted.
fn nodes(backend: &Backend) -> (u64, u64) {
    match backend.topology {
        TopologyKind::Standalone => (1, 0),
        TopologyKind::Replicated => ((backend.nodes.len() as u64).max(3), 0),
        TopologyKind::Sentinel => (3, 2 * backend.sentinels.len() as u64),
    }
}

/// Those who are at their handshake are no clients yet.
fn handshakes(door: &Listener) -> u64 {
    match door.is_plain() {
        true => 0,
        false => door.handshakes_max as u64,
    }
}

/// The limit is too low and cannot be raised.
#[derive(Debug)]
pub struct DescriptorError {
    /// How many are needed.
    pub needed: u64,
    /// How many the process may have at most (the hard limit).
    pub hard: u64,
    /// What the kernel said when it was asked for more.
    pub error: io::Error,
}

impl fmt::Display for DescriptorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            needed,
            hard,
            error,
        } = self;
        write!(
            f,
            "{needed} file descriptors are needed and at most {hard} allowed ({error}); raise the \
             limit (ulimit -Hn {needed}, LimitNOFILE={needed} of systemd) or lower max_clients"
        )
    }
}

impl std::error::Error for DescriptorError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Sees to it that the process may open `needed` descriptors: raises its soft
/// limit where that is too low, and the hard limit too where it is and the
/// process is privileged. Returns the limit in force. Never lowers one.
///
/// # Errors
/// [`DescriptorError`] when it could not be raised; the limit is as before.
pub fn check_descriptors(needed: u64) -> Result<u64, DescriptorError> {
    let failed = |hard, error| DescriptorError {
        needed,
        hard,
        error,
    };
    let (soft, hard) = Resource::NOFILE.get().map_err(|error| failed(0, error))?;
    let Some((soft, new_hard)) = raised(needed, soft, hard) else {
        return Ok(soft);
    };
    Resource::NOFILE
        .set(soft, new_hard)
        .map_err(|error| failed(hard, error))?;
    Ok(soft)
}

/// The (soft, hard) limits to ask for; `None` when those in force will do.
fn raised(needed: u64, soft: u64, hard: u64) -> Option<(u64, u64)> {
    (soft < needed).then(|| (needed, hard.max(needed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_need_is_the_sum_of_all_limits() {
        let config = Config::for_backend("127.0.0.1:6379");
        let route = &config.routes[0];
        let clients = config.process.max_clients as u64;
        let of_route = (2 * route.listen.len() + route.backend.max_connections) as u64;
        assert_eq!(
            needed(&config, 2),
            clients + of_route + 1024 + 2 * 4 + 86 + 32
        );

        let mut two = config;
        two.routes.extend_from_within(..);
        assert_eq!(
            needed(&two, 2),
            clients + 2 * of_route + 1024 + 2 * 4 + 86 + 32
        );
    }

    #[test]
    fn limits_are_raised_only_as_far_as_needed_and_never_lowered() {
        assert_eq!(raised(1_000, 1_024, 4_096), None);
        assert_eq!(raised(1_024, 1_024, 4_096), None);
        assert_eq!(raised(2_000, 1_024, 4_096), Some((2_000, 4_096)));
        assert_eq!(raised(5_000, 1_024, 4_096), Some((5_000, 5_000)));
    }

    #[test]
    fn a_limit_in_force_that_will_do_is_left_alone() {
        let (soft, hard) = Resource::NOFILE.get().unwrap();
        assert_eq!(check_descriptors(8).unwrap(), soft);
        assert_eq!(Resource::NOFILE.get().unwrap(), (soft, hard));
    }

    /// More than the kernel gives anyone, privileged or not (`fs.nr_open`).
    #[test]
    fn what_cannot_be_had_is_said_with_the_numbers() {
        let before = Resource::NOFILE.get().unwrap();
        let needed = u64::from(u32::MAX);
        if before.0 >= needed {
            eprintln!("skipped: this process has no limit");
            return;
        }
        let error = check_descriptors(needed).unwrap_err();
        assert_eq!((error.needed, error.hard), (needed, before.1));
        assert!(
            error.to_string().contains("LimitNOFILE=4294967295"),
            "{error}"
        );
        assert_eq!(Resource::NOFILE.get().unwrap(), before);
    }
}
