//! `[route.NAME]`: one front with the Redis behind it.

use super::{
    Access, Auth, Backend, Clients, Failover, Health, Limit, Listener, Overload, Timeouts,
};
use crate::config::definition::section;
use crate::config::kind::{Listen, ListenAddress};

section! {
    /// One front: where clients connect, the Redis behind it and the limits
    /// between them. A process serves as many as it has sections of this kind;
    /// NAME stands in logs and metrics.
    pub struct Route {
        /// Where clients connect: one address, or a list of them. Use `0.0.0.0:6380`
        /// or `[::]:6380` to be reached from other machines, `unix:/run/weir/weir.sock`
        /// for a Unix socket. Port 0 lets the system choose one, which is then in
        /// the log. Where TLS or PROXY protocol is spoken, see
        /// `[route.NAME.listener.NAME]`.
        listen: Vec<ListenAddress> = Listen,
            default "127.0.0.1:6380", changes Restart;
    }
    with {
        /// The NAME in `[route.NAME]`: letters, digits, `-` and `_`.
        name: String;
        /// Where clients connect with settings of their own, in the order of the file.
        listeners: Vec<Listener>;
        /// What clients may take.
        clients: Clients;
        /// What some of them may take, in the order of the file.
        limits: Vec<Limit>;
        /// What some of them may not do, in the order of the file.
        access: Vec<Access>;
        /// The Redis behind the route.
        backend: Backend;
        /// Which node commands go to, and what happens when one fails.
        failover: Failover;
        /// Who clients are.
        auth: Auth;
        /// How long things may take.
        timeouts: Timeouts;
        /// When Redis counts as sick.
        health: Health;
        /// How much Redis is given to do.
        overload: Overload;
    }
}

impl Route {
    /// Every place where clients connect: those in `listen`, then those with a section.
    pub fn doors(&self) -> impl Iterator<Item = Listener> {
        let plain = self.listen.iter().cloned().map(Listener::at);
        plain.chain(self.listeners.iter().cloned())
    }
}
