//! Whether certificates are there, can be read, and belong to their keys.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::certificate::{self, Half, Pair};
use crate::config::reader::Reader;
use crate::config::{Listener, Route};

/// A certificate that expires within this time is warned of, in seconds: thirty days.
const SOON: i64 = 30 * 86_400;

/// The certificates of a listener with a section, at `path`.
pub(super) fn listener(listener: &Listener, path: &str, reader: &mut Reader<'_>) {
    let key = |name: &str| format!("{path}.{name}");
    let (certificates, keys) = (&listener.tls_certificate, &listener.tls_key);
    if certificates.len() != keys.len() {
        let problem = format!(
            "expected a key for each certificate, found {} for {}",
            keys.len(),
            certificates.len()
        );
        let place = match keys.is_empty() {
            true => key("tls_certificate"),
            false => key("tls_key"),
        };
        return reader.mistake_unless_wrong(&place, &[&key("tls_certificate")], problem);
    }
    if !listener.is_tls() {
        for name in ["tls_client_ca", "tls_client_certificate", "tls_min_version"] {
            if reader.is_written(&key(name)) {
                let problem = "expected a tls_certificate with it, found none";
                reader.mistake_unless_wrong(&key(name), &[&key("tls_certificate")], problem);
            }
        }
        return;
    }
    for (certificate, private) in certificates.iter().zip(keys) {
        let names = (key("tls_certificate"), key("tls_key"));
        pair(certificate, private, &names, reader);
    }
    match &listener.tls_client_ca {
        Some(file) => authorities(file, &key("tls_client_ca"), reader),
        None if reader.is_written(&key("tls_client_certificate")) => {
            let problem = "expected a tls_client_ca with it, found none";
            reader.mistake_unless_wrong(&key("tls_client_certificate"), &[], problem);
        }
        None => {}
    }
}

/// The certificates of a route's backend.
pub(super) fn backend(route: &Route, path: &str, reader: &mut Reader<'_>) {
    let Some(tls) = &route.backend.tls else {
        return;
    };
    let path = format!("{path}.backend.tls");
    let key = |name: &str| format!("{path}.{name}");
    if let Some(file) = &tls.ca {
        authorities(file, &key("ca"), reader);
    }
    match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(private)) => {
            pair(
                certificate,
                private,
                &(key("certificate"), key("key")),
                reader,
            );
        }
        (Some(_), None) => {
            let problem = "expected a key with it, found none";
            reader.mistake_unless_wrong(&key("certificate"), &[&key("key")], problem);
        }
        (None, Some(_)) => {
            let problem = "expected a certificate with it, found none";
            reader.mistake_unless_wrong(&key("key"), &[&key("certificate")], problem);
        }
        (None, None) => {}
    }
    if let Some(name) = &tls.server_name
        && !certificate::is_server_name(name)
    {
        let problem = format!("expected the name or address of a server, found {name:?}");
        reader.mistake_unless_wrong(&key("server_name"), &[], problem);
    }
    if route
        .backend
        .address
        .starts_with(crate::config::UNIX_PREFIX)
    {
        let problem = "expected no TLS over a Unix socket, found some";
        reader.mistake_unless_wrong(&path, &[], problem);
    }
}

fn pair(certificate: &Path, key: &Path, names: &(String, String), reader: &mut Reader<'_>) {
    let pair = Pair {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
    };
    match pair.load() {
        Ok(loaded) => warn_of_expiry(loaded.expires, certificate, &names.0, reader),
        Err(error) => {
            let name = match error.half {
                Half::Certificate => &names.0,
                Half::Key => &names.1,
            };
            reader.mistake_unless_wrong(name, &[], error.to_string());
        }
    }
}

fn warn_of_expiry(expires: i64, file: &Path, key: &str, reader: &mut Reader<'_>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let left = expires - now.map_or(0, |now| now.as_secs() as i64);
    let file = file.display();
    if left <= 0 {
        reader.warning(key, format!("{file} has expired: clients will refuse it"));
    } else if left < SOON {
        let days = left / 86_400;
        reader.warning(key, format!("{file} expires in {days} days"));
    }
}

fn authorities(file: &Path, key: &str, reader: &mut Reader<'_>) {
    if let Err(problem) = certificate::authorities(file) {
        reader.mistake_unless_wrong(key, &[], problem);
    }
}
