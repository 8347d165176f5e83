//! TLS to clients.

use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection};
use tokio::net::TcpStream;

use super::{Certificates, ServerCertificates, versions};
use crate::config::certificate::{self, Pair};
use crate::config::{ClientCertificate, Listener};
use crate::net::TlsStream;

/// The certificates of a listener at this place in the settings; `None` if it has none.
pub fn for_clients(listener: &Listener, place: String) -> Option<ServerCertificates> {
    if !listener.is_tls() {
        return None;
    }
    let pairs = listener.tls_certificate.iter().zip(&listener.tls_key);
    let files = pairs
        .clone()
        .flat_map(|(certificate, key)| [certificate, key]);
    let files = files.chain(&listener.tls_client_ca).cloned().collect();
    let listener = listener.clone();
    let make = move || make(&listener).map(|(made, expires)| (made, Some(expires)));
    Some(Certificates::new(place, files, Box::new(make)))
}

fn make(listener: &Listener) -> Result<(ServerConfig, i64), String> {
    let mut keys = Vec::new();
    let mut expires = i64::MAX;
    for (certificate, key) in listener.tls_certificate.iter().zip(&listener.tls_key) {
        let pair = Pair {
            certificate: certificate.clone(),
            key: key.clone(),
        };
        let loaded = pair.load().map_err(|error| error.to_string())?;
        expires = expires.min(loaded.expires);
        keys.push(loaded.certified);
    }
    let provider = certificate::provider();
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions(listener.tls_min_version))
        .map_err(|error| error.to_string())?;
    let builder = match &listener.tls_client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let roots = Arc::new(certificate::authorities(file)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            let verifier = match listener.tls_client_certificate {
                ClientCertificate::Required => verifier,
                ClientCertificate::Optional => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| error.to_string())?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByName(keys)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if listener.tls_client_ca.is_some() {
        // A session that is resumed is not asked for its certificate again: who is known
        // by it shows it each time.
        config.send_tls13_tickets = 0;
    } else {
        config.ticketer =
            rustls::crypto::ring::Ticketer::new().map_err(|error| error.to_string())?;
        config.send_tls13_tickets = 1;
    }
    Ok((config, expires))
}

/// The certificates of a listener: the first that is made out to the name that a client
/// asks for, or the first of all.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let first = self.0.first()?;
        let name = hello
            .server_name()
            .and_then(|name| ServerName::try_from(name).ok());
        let named = name.filter(|_| self.0.len() > 1).and_then(|name| {
            self.0.iter().find(|key| {
                let certificate = key.end_entity_cert().and_then(ParsedCertificate::try_from);
                certificate.is_ok_and(|certificate| verify_server_name(&certificate, &name).is_ok())
            })
        });
        Some(named.unwrap_or(first).clone())
    }
}

/// A connection from a client that has still to shake hands.
///
/// # Errors
/// When the certificates have never been right.
pub fn wrap_for_client(
    certificates: &ServerCertificates,
    socket: TcpStream,
) -> Result<TlsStream, rustls::Error> {
    let config = certificates.current();
    let config = config.ok_or_else(|| rustls::Error::General("no certificate".to_owned()))?;
    let connection = ServerConnection::new(config)?;
    Ok(TlsStream::new(socket, connection.into()))
}
