//! TLS to nodes.

use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection};
use tokio::net::TcpStream;

use super::{Certificates, ClientCertificates, versions};
use crate::config::BackendTls;
use crate::config::certificate::{self, Pair};
use crate::net::TlsStream;

/// What Weir speaks TLS to nodes with, by the settings at this place.
pub fn to_nodes(tls: &BackendTls, place: String) -> ClientCertificates {
    let files = [&tls.ca, &tls.certificate, &tls.key];
    let files = files.into_iter().flatten().cloned().collect();
    let tls = tls.clone();
    Certificates::new(place, files, Box::new(move || make(&tls)))
}

fn make(tls: &BackendTls) -> Result<(ClientConfig, Option<i64>), String> {
    let roots = match &tls.ca {
        Some(file) => certificate::authorities(file)?,
        None => certificate::system_authorities()?,
    };
    let builder = ClientConfig::builder_with_provider(certificate::provider())
        .with_protocol_versions(versions(tls.min_version))
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) else {
        return Ok((builder.with_no_client_auth(), None));
    };
    let pair = Pair {
        certificate: certificate.clone(),
        key: key.clone(),
    };
    let loaded = pair.load().map_err(|error| error.to_string())?;
    let shown = SingleCertAndKey::from(CertifiedKey::clone(&loaded.certified));
    let shown: Arc<dyn ResolvesClientCert> = Arc::new(shown);
    Ok((
        builder.with_client_cert_resolver(shown),
        Some(loaded.expires),
    ))
}

/// The name that the certificate of the node at `address` (`host:port`) has to be made
/// out to.
///
/// # Errors
/// When no certificate can be made out to such a host.
pub fn server_name(tls: &BackendTls, address: &str) -> Result<ServerName<'static>, String> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    // A name may end in the dot of the root, which no certificate has.
    let host = host.strip_suffix('.').unwrap_or(host);
    let name = tls.server_name.as_deref().unwrap_or(host);
    ServerName::try_from(name.to_owned())
        .map_err(|_| format!("no certificate can be made out to {name:?}; set server_name"))
}

/// A connection to a node that has still to shake hands.
///
/// # Errors
/// When the certificates have never been right; the socket is given back.
pub fn wrap_for_node(
    certificates: &ClientCertificates,
    socket: TcpStream,
    name: ServerName<'static>,
) -> Result<TlsStream, (rustls::Error, TcpStream)> {
    let config = certificates.current();
    let config = config.ok_or_else(|| rustls::Error::General("no certificates".to_owned()));
    match config.and_then(|config| ClientConnection::new(config, name)) {
        Ok(connection) => Ok(TlsStream::new(socket, connection.into())),
        Err(error) => Err((error, socket)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_the_name_unless_one_is_given() {
        let name = |tls: &BackendTls, address: &str| {
            server_name(tls, address).map(|name| name.to_str().into_owned())
        };
        let tls = BackendTls::default();
        assert_eq!(name(&tls, "redis.internal:6379").unwrap(), "redis.internal");
        assert_eq!(
            name(&tls, "redis.internal.:6379").unwrap(),
            "redis.internal"
        );
        assert_eq!(name(&tls, "127.0.0.1:6379").unwrap(), "127.0.0.1");
        assert_eq!(name(&tls, "[::1]:6379").unwrap(), "::1");
        let tls = BackendTls {
            server_name: Some("cache".to_owned()),
            ..tls
        };
        assert_eq!(name(&tls, "10.0.0.1:6379").unwrap(), "cache");
    }
}
