//! `[admin]`: where operators look.

use std::net::SocketAddr;

use crate::config::Secret;
use crate::config::definition::section;
use crate::config::kind::{LISTEN_OR_OFF, OptionalPassword};

section! {
    /// Where operators look: metrics for Prometheus on /metrics, and /healthz
    /// and /readyz for whatever watches over the process.
    pub struct Admin {
        /// Address of the admin server (HTTP), "off" for none. Local by default,
        /// since whoever reaches it sees names and addresses of clients.
        listen: Option<SocketAddr> = LISTEN_OR_OFF,
            default "127.0.0.1:6390", changes Restart;

        /// Address of the console for Redis clients, such as "127.0.0.1:6391": the commands
        /// WEIR HELP, WEIR CLIENTS and so on, with `redis-cli -p 6391`. Off by default, since
        /// whoever reaches it may close clients and change settings; operators may use WEIR on
        /// the service port too, where `operator_networks` or `operator_users` name them.
        resp_listen: Option<SocketAddr> = LISTEN_OR_OFF,
            default "off", changes Restart;

        /// The password that the console's port asks for. Without one it is open to all who
        /// reach it. Better not written here: `resp_password_env` names an environment
        /// variable that holds it, `resp_password_file` a file.
        resp_password: Option<Secret> = OptionalPassword,
            default none, example "...", changes Live;
    }
}
