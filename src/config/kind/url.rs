//! The address of something that is spoken to over plain HTTP.

use std::fmt;
use std::str::FromStr;

use super::address::is_host_and_port;
use super::or_off::OrOff;

/// The longest that is taken, in bytes.
const LEN_MAX: usize = 1024;

/// An address that begins with `http://`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpUrl {
    /// The host and its port, as they are to be dialled and as `Host` names them.
    pub host_port: String,
    /// The path, with its query: begins with `/`.
    pub path: String,
}

/// What is no such address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAUrl;

impl FromStr for HttpUrl {
    type Err = NotAUrl;

    fn from_str(text: &str) -> Result<HttpUrl, NotAUrl> {
        let rest = text.strip_prefix("http://").ok_or(NotAUrl)?;
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let has_port = host
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.contains(']'));
        let host_port = match has_port {
            true => host.to_owned(),
            false => format!("{host}:80"),
        };
        let is_path = path
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'"' | b'<' | b'>'));
        let is_one = text.len() <= LEN_MAX && is_host_and_port(&host_port) && is_path;
        let path = path.to_owned();
        is_one.then_some(HttpUrl { host_port, path }).ok_or(NotAUrl)
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.host_port, self.path)
    }
}

/// Such an address, or none.
pub(in crate::config) const HTTP_OR_OFF: OrOff<HttpUrl> =
    OrOff::new("an address such as \"http://127.0.0.1:4318/v1/traces\" (plain HTTP), or \"off\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_a_port_and_a_path() {
        for (text, host_port, path) in [
            (
                "http://127.0.0.1:4318/v1/traces",
                "127.0.0.1:4318",
                "/v1/traces",
            ),
            ("http://collector/v1/traces", "collector:80", "/v1/traces"),
            ("http://[::1]:4318/x?y=1", "[::1]:4318", "/x?y=1"),
            ("http://[::1]/x", "[::1]:80", "/x"),
            ("http://collector:4318", "collector:4318", "/"),
        ] {
            let url: HttpUrl = text.parse().expect(text);
            assert_eq!((&*url.host_port, &*url.path), (host_port, path));
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "https://collector:4318/v1/traces",
            "collector:4318",
            "http://",
            "http:///v1/traces",
            "http://user:geheim@collector:4318/",
            "http://collector:0/",
            "http://collector:4318/a b",
            "http://collector:4318/\r\nX: y",
        ] {
            assert!(text.parse::<HttpUrl>().is_err(), "{text}");
        }
    }
}
