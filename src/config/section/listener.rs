//! `[route.NAME.listener.NAME]`: one more place where clients connect.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::Network;
use crate::config::definition::section;
use crate::config::kind::{
    Choice, Count, Files, HOUR, ListenAddress, ListenAt, MILLISECOND, Networks, OptionalFile,
    OptionalMode, OptionalOwner, Owner, Time,
};

/// What a client has to show of itself on a listener with TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificate {
    /// A certificate that the authorities have signed.
    Required,
    /// The same, or none at all.
    Optional,
}

/// The oldest TLS that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2 and 1.3.
    Tls12,
    /// 1.3 alone.
    Tls13,
}

section! {
    /// A place where clients connect with settings of its own: TLS, a Unix socket with
    /// permissions, PROXY protocol behind a load balancer. A route has as many as it has
    /// sections of this kind, besides the addresses in `listen`, which need none; NAME
    /// stands in logs and metrics. Where there is one, `listen` has no default.
    pub struct Listener {
        /// Where clients connect: one address, `0.0.0.0:6391` or `[::]:6391` to be
        /// reached from other machines (the latter over IPv4 too), or the file of a Unix
        /// socket, which is made at start and removed at the end. A file that a
        /// Weir before left behind is replaced, one that somebody serves is not.
        address: ListenAddress = ListenAt,
            default required, example "0.0.0.0:6391", changes Restart;

        /// Who may open the Unix socket, as chmod takes it. Without it the owner and the
        /// group of the file may, and nobody else: a shared machine has other users.
        unix_mode: Option<u32> = OptionalMode,
            default none, example "0660", changes Restart;

        /// Whom the file of the Unix socket belongs to, as chown takes it. Without it the
        /// user that Weir runs as; to give it to another user Weir has to be root, to
        /// give it to a group it has to be in it.
        unix_owner: Option<Owner> = OptionalOwner,
            default none, example ":www-data", changes Restart;

        /// The certificate that Weir shows to clients, in PEM, with those between it and
        /// the authority behind it in the same file. TLS is spoken on this listener if
        /// there is one. A list for several names: a client that asks for one (SNI) is shown the
        /// first that is made out to it, any other client the first of all. Read again
        /// when a file changes: new connections get the new ones, others stay as they are.
        tls_certificate: Vec<PathBuf> = Files,
            default none, example "/etc/weir/tls.crt", changes Restart;

        /// The private key of the certificate, in PEM; of several, a list in the same
        /// order. Nobody but Weir's user should be able to read it.
        tls_key: Vec<PathBuf> = Files,
            default none, example "/etc/weir/tls.key", changes Restart;

        /// The authorities whose signature makes a client's certificate good, in PEM.
        /// Clients have to show one then, unless `tls_client_certificate` says otherwise.
        tls_client_ca: Option<PathBuf> = OptionalFile,
            default none, example "/etc/weir/clients-ca.crt", changes Restart;

        /// Whether a client may come without a certificate where `tls_client_ca` is given.
        /// "required", since whoever names authorities wants to know who comes; with
        /// "optional" one that is shown has to be good all the same.
        tls_client_certificate: ClientCertificate = Choice(&[
            ("required", ClientCertificate::Required),
            ("optional", ClientCertificate::Optional),
        ]),
            default "required", changes Restart;

        /// The oldest TLS that clients may speak. Redis's default is the same; what is
        /// older than "1.2" is broken and is not spoken at all.
        tls_min_version: TlsVersion = Choice(&[
            ("1.2", TlsVersion::Tls12),
            ("1.3", TlsVersion::Tls13),
        ]),
            default "1.2", changes Restart;

        /// Load balancers in front of this listener: from these addresses each connection
        /// begins with a header of the PROXY protocol (version 1 or 2) that names the real
        /// client, which is then the client's address in limits, CLIENT LIST and logs.
        /// Whoever else connects is closed, since it could name anybody. Those who connect
        /// over a Unix socket count as 127.0.0.1.
        proxy_protocol_from: Vec<Network> = Networks,
            default none, example "10.0.0.0/8", changes Restart;

        /// How long a new connection may take for its PROXY header and its TLS handshake
        /// together before it is closed. Both are a matter of round trips, and who
        /// needs longer is more likely holding a place than coming in.
        handshake_timeout: Duration = Time::from_to(MILLISECOND, HOUR),
            default "5s", changes Restart;

        /// Connections of this listener that may be at their header or handshake at once.
        /// The next wait in the kernel's queue (`backlog` in `clients`) until one is
        /// through: a storm of TLS clients is let in one after the other, and those that
        /// never finish hold a bounded part of memory and descriptors.
        handshakes_max: usize = Count::from_to(1, 100_000),
            default 256, changes Restart;
    }
    with {
        /// The NAME in `[route.NAME.listener.NAME]`; empty for an address in `listen`.
        name: String;
    }
}

impl Listener {
    /// One with every setting at its default.
    pub fn at(address: ListenAddress) -> Listener {
        Listener {
            address,
            ..Listener::default()
        }
    }

    /// Whether TLS is spoken on it.
    pub fn is_tls(&self) -> bool {
        !self.tls_certificate.is_empty()
    }

    /// Whether clients come in without a handshake or a header of any kind.
    pub fn is_plain(&self) -> bool {
        !self.is_tls() && self.proxy_protocol_from.is_empty()
    }

    /// What logs and metrics call it: its name, or its address where it has none.
    pub fn label(&self) -> String {
        match self.name.as_str() {
            "" => self.address.to_string(),
            name => name.to_owned(),
        }
    }
}
