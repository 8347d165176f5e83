//! `[route.NAME.auth]`: who clients are, and as whom their commands run.

use crate::config::Secret;
use crate::config::definition::section;
use crate::config::kind::{Choice, Password};

/// Who checks clients' credentials, and as whom their commands run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// Redis checks the client's own, and its commands run as that user.
    Redis,
    /// Weir checks names and passwords that only Weir knows; commands run as
    /// the user of the backend section.
    Weir,
    /// Nobody asks; commands run as the user of the backend section.
    Open,
}

section! {
    /// Who clients are, and as whom their commands run.
    pub struct Auth {
        /// "redis": Redis checks the client's own name and password, and its commands
        /// run as that user: nothing changes for clients, so this is the default.
        /// "weir": clients use names and passwords that only Weir knows (the `users`
        /// below), and commands run as the user of `backend`: no client has
        /// Redis's password. "open": clients need none, commands run as the
        /// user of `backend`: only where the network lets nobody else in.
        mode: AuthMode = Choice(&[
            ("redis", AuthMode::Redis),
            ("weir", AuthMode::Weir),
            ("open", AuthMode::Open),
        ]),
            default "redis", changes Restart;
    }
    with {
        /// Whom Weir knows, where `mode` is `Weir`; sorted by name.
        users: Vec<User>;
    }
}

section! {
    /// One whom Weir knows, where `mode` is "weir". The name is what a client
    /// gives with AUTH or HELLO; "default" is who gives a password alone.
    pub struct User {
        /// The password that this client gives. Better not written here:
        /// `password_env` names an environment variable that holds it,
        /// `password_file` a file.
        password: Secret = Password,
            default required, example "...", changes Live;
    }
    with {
        /// The NAME in `[route.NAME.auth.users.NAME]`.
        name: String;
    }
}
