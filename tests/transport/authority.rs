//! An authority of a test's own, and the certificates that it signs.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};
use tempfile::TempDir;

/// An authority with a directory for what it signs.
pub struct Authority {
    directory: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// How long a certificate is good.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    Now,
    Expired,
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "an authority of a test");
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.crt"), issuer.as_ref().pem()).unwrap();
        Authority { directory, issuer }
    }

    /// The file with its own certificate.
    pub fn file(&self) -> PathBuf {
        self.path().join("ca.crt")
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Signs a certificate made out to `names`, the first of which is also its common name,
    /// and writes it to `name.crt` and `name.key`.
    pub fn sign(&self, file: &str, names: &[&str]) -> Files {
        self.sign_for(file, names, Validity::Now)
    }

    pub fn sign_for(&self, file: &str, names: &[&str], validity: Validity) -> Files {
        let (certificate, key) = self.make(names, validity);
        let files = Files {
            certificate: self.path().join(format!("{file}.crt")),
            key: self.path().join(format!("{file}.key")),
        };
        std::fs::write(&files.certificate, certificate).unwrap();
        std::fs::write(&files.key, key).unwrap();
        files
    }

    /// A certificate and its key, in PEM.
    pub fn make(&self, names: &[&str], validity: Validity) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let mut params = CertificateParams::new(names.clone()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, names[0].as_str());
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        if validity == Validity::Expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}
