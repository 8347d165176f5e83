//! Certificates and keys, read from the files that the settings name: when the settings
//! are checked, at start, and again when a file has changed.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The longest file of certificates that Weir reads, in bytes: every authority that a
/// system trusts fits four times.
const FILE_LEN_MAX: u64 = 1 << 20;

/// What does the cryptography: *ring*. The other choice, aws-lc, takes minutes to compile
/// and on some systems more than a C compiler.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A certificate with its key, by the files that hold them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What the files of a [`Pair`] hold.
#[derive(Debug, Clone)]
pub struct LoadedPair {
    /// The certificates and the key, which belong together.
    pub certified: Arc<CertifiedKey>,
    /// When the first of the certificates to expire does so, in seconds of Unix time.
    pub expires: i64,
}

/// Which file of a pair is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// That of the certificate.
    Certificate,
    /// That of the key.
    Key,
}

/// Why a pair can not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairError {
    /// Which of its files is to blame.
    pub half: Half,
    /// What was expected and what was found.
    pub problem: String,
}

impl fmt::Display for PairError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl Pair {
    /// Reads both files and sees whether they belong together. Blocks on the file system.
    ///
    /// # Errors
    /// What is wrong with which of them. Never what is in the key.
    pub fn load(&self) -> Result<LoadedPair, PairError> {
        let blame = |half| move |problem| PairError { half, problem };
        let chain = certificates(&self.certificate).map_err(blame(Half::Certificate))?;
        let expires = chain.iter().map(expiry).collect::<Result<Vec<_>, _>>();
        let expires = expires.map_err(|()| {
            let file = self.certificate.display();
            blame(Half::Certificate)(format!("expected a certificate, found none in {file}"))
        })?;
        let key = private_key(&self.key).map_err(blame(Half::Key))?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| {
            let (key, certificate) = (self.key.display(), self.certificate.display());
            match error {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    blame(Half::Key)(format!(
                        "expected the key of the certificate in {certificate}, found another in {key}"
                    ))
                }
                rustls::Error::InvalidCertificate(why) => blame(Half::Certificate)(format!(
                    "expected a certificate, found one that can not be used in {certificate}: {why}"
                )),
                _ => blame(Half::Key)(format!(
                    "expected an RSA, ECDSA or Ed25519 key, found another in {key}"
                )),
            }
        })?;
        Ok(LoadedPair {
            certified: Arc::new(certified),
            expires: expires.into_iter().min().unwrap_or(i64::MAX),
        })
    }
}

/// Reads the authorities in a file. Blocks on the file system.
///
/// # Errors
/// What was expected and what was found.
pub fn authorities(file: &Path) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(file)? {
        store.add(certificate).map_err(|error| {
            let file = file.display();
            format!("expected certificates of authorities, found another in {file}: {error}")
        })?;
    }
    Ok(store)
}

/// The authorities that this system trusts. Blocks on the file system.
///
/// # Errors
/// When there are none.
pub fn system_authorities() -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    store.add_parsable_certificates(found.certs);
    if store.is_empty() {
        return Err(
            "this system trusts no authorities; name them in ca (on Debian they are in the \
                    package ca-certificates)"
                .to_owned(),
        );
    }
    Ok(store)
}

/// Whether a certificate can be made out to this name.
pub fn is_server_name(name: &str) -> bool {
    ServerName::try_from(name).is_ok()
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(file, "certificates")?;
    let shown = file.display();
    let parsed: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
    match parsed {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(format!(
            "expected certificates in PEM, found none in {shown}"
        )),
        Err(error) => Err(format!(
            "expected certificates in PEM, found something else in {shown}: {error}"
        )),
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = read(file, "a private key")?;
    // What the parser says of a key that it can not read is not shown: it may quote it.
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        let hint = match bytes.windows(9).any(|text| text == b"ENCRYPTED") {
            true => "one with a passphrase",
            false => "none",
        };
        format!(
            "expected a private key in PEM, found {hint} in {}",
            file.display()
        )
    })
}

fn read(file: &Path, what: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error: io::Error| {
            format!(
                "expected a file with {what}, found {}: {error}",
                file.display()
            )
        })?;
    if bytes.len() as u64 > FILE_LEN_MAX {
        let file = file.display();
        return Err(format!(
            "expected a file with {what}, found one of more than 1MiB: {file}"
        ));
    }
    Ok(bytes)
}

/// When a certificate expires, in seconds of Unix time.
fn expiry(certificate: &CertificateDer<'_>) -> Result<i64, ()> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| ())?;
    Ok(parsed.validity().not_after.timestamp())
}
