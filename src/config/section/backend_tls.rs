//! `[route.NAME.backend.tls]`: TLS to Redis.

use std::path::PathBuf;

use crate::config::definition::section;
use crate::config::kind::{Choice, OptionalFile, OptionalText};
use crate::config::section::listener::TlsVersion;

section! {
    /// TLS to Redis. Spoken if there is a section of this kind, even an empty one; Redis
    /// has to show a certificate that is good for its name.
    pub struct BackendTls {
        /// The authorities whose signature makes Redis's certificate good, in PEM. Without
        /// it those that the system trusts, which is right for managed servers.
        ca: Option<PathBuf> = OptionalFile,
            default none, example "/etc/weir/redis-ca.crt", changes Restart;

        /// The certificate that Weir shows to Redis, in PEM, where Redis asks for one
        /// (`tls-auth-clients`, which is on by default in Redis).
        certificate: Option<PathBuf> = OptionalFile,
            default none, example "/etc/weir/weir.crt", changes Restart;

        /// The private key of that certificate, in PEM. Nobody but Weir's user should be
        /// able to read it.
        key: Option<PathBuf> = OptionalFile,
            default none, example "/etc/weir/weir.key", changes Restart;

        /// The name that Redis's certificate has to be made out to, which is also the name
        /// that Weir asks for (SNI). Without it the host in the backend's address.
        server_name: Option<String> = OptionalText,
            default none, example "redis.internal", changes Restart;

        /// The oldest TLS that is spoken with Redis. What is older than "1.2" is broken
        /// and is not spoken at all.
        min_version: TlsVersion = Choice(&[
            ("1.2", TlsVersion::Tls12),
            ("1.3", TlsVersion::Tls13),
        ]),
            default "1.2", changes Restart;
    }
}
