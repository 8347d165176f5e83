//! `[route.NAME]`: one front with the Redis behind it.

use std::net::SocketAddr;

use super::{Access, Auth, Backend, Clients, Health, Limit, Timeouts};
use crate::config::definition::section;
use crate::config::kind::Listen;

section! {
    /// One front: where clients connect, the Redis behind it and the limits
    /// between them. A process serves as many as it has sections of this kind;
    /// NAME stands in logs and metrics.
    pub struct Route {
        /// Where clients connect: one address, or a list of them. Use `0.0.0.0:6380`
        /// or `[::]:6380` to be reached from other machines. Port 0 lets the
        /// system choose one, which is then in the log.
        listen: Vec<SocketAddr> = Listen,
            default "127.0.0.1:6380", changes Restart;
    }
    with {
        /// The NAME in `[route.NAME]`: letters, digits, `-` and `_`.
        name: String;
        /// What clients may take.
        clients: Clients;
        /// What some of them may take, in the order of the file.
        limits: Vec<Limit>;
        /// What some of them may not do, in the order of the file.
        access: Vec<Access>;
        /// The Redis behind the route.
        backend: Backend;
        /// Who clients are.
        auth: Auth;
        /// How long things may take.
        timeouts: Timeouts;
        /// When Redis counts as sick.
        health: Health;
    }
}
