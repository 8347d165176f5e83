//! Sockets: listening, accepting, dialling, and what the kernel is told about them.
//!
//! Nothing here knows Redis. Listeners are plain sockets of the standard
//! library, not tokio's: one thread accepts for all workers, and a socket is
//! registered only with the runtime of the worker that it is given to.

mod accept;
mod descriptors;
mod dial;
mod hangup;
mod inherited;
mod listen;
mod pass;
mod peer;
pub mod proxy_protocol;
mod stream;
pub mod tls;
mod tune;

pub use accept::{AcceptFault, Accepted, accept, accept_fault, least_loaded};
pub use descriptors::{
    ADMIN_CONNECTIONS, CONSOLE_CONNECTIONS, DescriptorError, REFUSED_CLIENTS, check_descriptors,
    needed,
};
pub use dial::{DialError, DialOptions, dial};
pub use hangup::{Hangup, hangup, is_readable};
pub use inherited::{Inherited, Passed};
pub use listen::{ListenOptions, Listener, listen, listen_tcp};
pub use pass::{receive_with, send_with};
pub use peer::Peer;
pub use stream::{Stream, TlsFailure, TlsStream};
pub use tune::{TuneOptions, tune};
