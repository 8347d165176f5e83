//! `[admin]`: where operators look.

use std::net::SocketAddr;

use crate::config::definition::section;
use crate::config::kind::ListenOrOff;

section! {
    /// Where operators look: metrics for Prometheus on /metrics, and /healthz
    /// and /readyz for whatever watches over the process.
    pub struct Admin {
        /// Address of the admin server (HTTP), "off" for none. Local by default,
        /// since whoever reaches it sees names and addresses of clients.
        listen: Option<SocketAddr> = ListenOrOff,
            default "127.0.0.1:6390", changes Restart;
    }
}
