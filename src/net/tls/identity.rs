//! Who a client is by its certificate.

use std::fmt;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The most names that are taken from one certificate, and the longest, in bytes: a client
/// keeps them for as long as it is connected.
const NAMES_MAX: usize = 32;
const NAME_LEN_MAX: usize = 256;

/// What a certificate that was found good says of its owner. Only of one: nothing else
/// stands for who somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsIdentity {
    /// Its names, never none: the common name (CN) if there is one, then the alternative
    /// ones: of DNS, URIs (such as SPIFFE's) and addresses of mail.
    names: Box<[Box<str>]>,
}

impl TlsIdentity {
    /// Reads it from a certificate that has been verified. Nothing if it has no names.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<TlsIdentity> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let usable = |name: &str| {
            let fits = !name.is_empty() && name.len() <= NAME_LEN_MAX;
            (fits && !name.chars().any(char::is_control)).then(|| Box::from(name))
        };
        let common_name = parsed.subject().iter_common_name().next();
        let common_name = common_name.and_then(|name| usable(name.as_str().ok()?));
        let alternative = parsed.subject_alternative_name().ok().flatten();
        let alternative = alternative.map_or(&[][..], |found| &found.value.general_names);
        let names = alternative.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
                usable(name)
            }
            _ => None,
        });
        let all = common_name.into_iter().chain(names).take(NAMES_MAX);
        let names: Box<[Box<str>]> = all.collect();
        (!names.is_empty()).then_some(TlsIdentity { names })
    }

    /// All its names; the first is the one that stands for it.
    pub fn names(&self) -> &[Box<str>] {
        &self.names
    }
}

impl fmt::Display for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn certificate(common_name: Option<&str>, names: Vec<SanType>) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.subject_alt_names = names;
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_says_who_its_owner_is() {
        let names = vec![
            SanType::DnsName("app.internal".try_into().unwrap()),
            SanType::URI("spiffe://weir/app".try_into().unwrap()),
            SanType::Rfc822Name("app@weir.example".try_into().unwrap()),
            SanType::IpAddress("10.0.0.1".parse().unwrap()),
        ];
        let identity = TlsIdentity::of(&certificate(Some("app"), names)).unwrap();
        let all: Vec<&str> = identity.names().iter().map(|name| &**name).collect();
        assert_eq!(
            all,
            [
                "app",
                "app.internal",
                "spiffe://weir/app",
                "app@weir.example"
            ]
        );
        assert_eq!(identity.to_string(), "app");
    }

    #[test]
    fn one_without_names_is_nobody() {
        assert_eq!(TlsIdentity::of(&certificate(None, Vec::new())), None);
        assert_eq!(
            TlsIdentity::of(&certificate(Some("a\nb"), Vec::new())),
            None
        );
        let long = "x".repeat(NAME_LEN_MAX + 1);
        assert_eq!(TlsIdentity::of(&certificate(Some(&long), Vec::new())), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever somebody calls a certificate, whole or with a byte changed.
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, at: prop::sample::Index, byte: u8) {
            let _ = TlsIdentity::of(&CertificateDer::from(bytes));
            let names = vec![SanType::DnsName("app".try_into().unwrap())];
            let mut whole = certificate(Some("app"), names).to_vec();
            let at = at.index(whole.len());
            whole[at] = byte;
            let _ = TlsIdentity::of(&CertificateDer::from(whole));
        }
    }
}
