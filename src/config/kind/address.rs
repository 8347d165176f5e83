//! Where to listen and where to connect.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::de::DeValue;

use super::or_off::OrOff;
use super::{Found, Kind, describe, show_list};

/// How the address of a Unix socket begins, for listeners and backends alike.
pub const UNIX_PREFIX: &str = "unix:";

/// The longest path of a Unix socket, in bytes: what `sockaddr_un` of Linux takes.
const UNIX_PATH_LEN_MAX: usize = 107;

/// Where clients connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The file of a Unix socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// The address and port, where it is no Unix socket.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            ListenAddress::Tcp(address) => Some(*address),
            ListenAddress::Unix(_) => None,
        }
    }
}

impl Default for ListenAddress {
    fn default() -> Self {
        ListenAddress::Tcp((Ipv4Addr::LOCALHOST, 0).into())
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Unix(path) => write!(f, "{UNIX_PREFIX}{}", path.display()),
        }
    }
}

/// What is no address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnAddress;

impl FromStr for ListenAddress {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        match text.strip_prefix(UNIX_PREFIX) {
            Some(path) => unix_path(path).map(ListenAddress::Unix).ok_or(NotAnAddress),
            None => text
                .parse()
                .map(ListenAddress::Tcp)
                .map_err(|_| NotAnAddress),
        }
    }
}

/// The path of a Unix socket. It has to be absolute: what a relative one means depends
/// on where Weir was started.
fn unix_path(path: &str) -> Option<PathBuf> {
    let is_one = path.starts_with('/') && path.len() <= UNIX_PATH_LEN_MAX && !path.contains('\0');
    is_one.then(|| Path::new(path).to_owned())
}

/// One address to listen on.
pub(in crate::config) struct ListenAt;

impl Kind for ListenAt {
    type Value = ListenAddress;

    fn accepts(&self) -> String {
        "an IP address with a port such as \"127.0.0.1:6380\", or \"unix:\" and the path of a socket"
            .to_owned()
    }

    fn read(&self, found: &Found<'_>) -> Result<ListenAddress, String> {
        let text = found.value.as_str();
        text.and_then(|text| text.parse().ok())
            .ok_or_else(|| found.not(&self.accepts()))
    }

    fn absent(&self) -> Option<ListenAddress> {
        Some(ListenAddress::default())
    }

    fn show(&self, value: &ListenAddress) -> String {
        value.to_string()
    }
}

/// One address to listen on, or a list of them.
pub(in crate::config) struct Listen;

impl Kind for Listen {
    type Value = Vec<ListenAddress>;

    fn accepts(&self) -> String {
        "an IP address with a port such as \"127.0.0.1:6380\", \"unix:\" and the path of a socket, \
         or a list of them"
            .to_owned()
    }

    fn read(&self, found: &Found<'_>) -> Result<Vec<ListenAddress>, String> {
        let single = std::slice::from_ref(found.value);
        let address = |value: &DeValue<'_>| {
            value
                .as_str()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| format!("expected {}, found {}", self.accepts(), describe(value)))
        };
        match found.value {
            DeValue::Array(list) if list.is_empty() => {
                Err(format!("expected {}, found an empty list", self.accepts()))
            }
            DeValue::Array(list) => list.iter().map(|item| address(item.get_ref())).collect(),
            _ => single.iter().map(address).collect(),
        }
    }

    fn absent(&self) -> Option<Vec<ListenAddress>> {
        Some(Vec::new())
    }

    fn show(&self, value: &Vec<ListenAddress>) -> String {
        show_list(value)
    }
}

/// One address to listen on, or not at all.
pub(in crate::config) const LISTEN_OR_OFF: OrOff<SocketAddr> =
    OrOff::new("an IP address with a port such as \"127.0.0.1:6390\", or \"off\"");

/// Where a server is: a name or an address, with a port, or a Unix socket. Names are resolved when dialled.
pub(in crate::config) struct HostPort;

impl Kind for HostPort {
    type Value = String;

    fn accepts(&self) -> String {
        "a host with a port such as \"127.0.0.1:6379\" or \"redis.internal:6379\", or \"unix:\" and \
         the path of a socket"
            .to_owned()
    }

    fn read(&self, found: &Found<'_>) -> Result<String, String> {
        found
            .value
            .as_str()
            .filter(|text| is_host_and_port(text) || is_unix(text))
            .map(str::to_owned)
            .ok_or_else(|| found.not(&self.accepts()))
    }

    fn absent(&self) -> Option<String> {
        Some(String::new())
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }
}

/// Where several servers are.
pub(in crate::config) struct HostPorts;

impl Kind for HostPorts {
    type Value = Vec<String>;

    fn accepts(&self) -> String {
        "hosts with their ports such as [\"10.0.0.1:6379\", \"redis.internal:6379\"], at most 64"
            .to_owned()
    }

    fn read(&self, found: &Found<'_>) -> Result<Vec<String>, String> {
        const HOSTS_MAX: usize = 64;
        let address = |value: &DeValue<'_>| {
            value
                .as_str()
                .filter(|text| is_host_and_port(text))
                .map(str::to_owned)
                .ok_or_else(|| format!("expected {}, found {}", self.accepts(), describe(value)))
        };
        match found.value {
            DeValue::Array(list) if list.is_empty() => {
                Err(format!("expected {}, found an empty list", self.accepts()))
            }
            DeValue::Array(list) if list.len() > HOSTS_MAX => {
                let count = list.len();
                Err(format!("expected {}, found {count}", self.accepts()))
            }
            DeValue::Array(list) => list.iter().map(|item| address(item.get_ref())).collect(),
            other => address(other).map(|one| vec![one]),
        }
    }

    fn show(&self, value: &Vec<String>) -> String {
        show_list(value)
    }

    fn absent(&self) -> Option<Vec<String>> {
        Some(Vec::new())
    }
}

fn is_unix(text: &str) -> bool {
    text.strip_prefix(UNIX_PREFIX)
        .is_some_and(|path| unix_path(path).is_some())
}

pub(super) fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let port_is_one =
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0);
    let host_is_one = match host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => is_name(host),
    };
    port_is_one && host_is_one
}

/// A DNS name or an IPv4 address. Underscores are not for host names, but people use them.
fn is_name(host: &str) -> bool {
    const NAME_LEN_MAX: usize = 253;
    !host.is_empty()
        && host.len() <= NAME_LEN_MAX
        && host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_ports() {
        for text in [
            "127.0.0.1:6379",
            "redis:1",
            "a-b_c.example.com.:65535",
            "[::1]:6379",
        ] {
            assert!(is_host_and_port(text), "{text}");
        }
    }

    #[test]
    fn sockets_have_absolute_paths() {
        assert!(is_unix("unix:/run/redis.sock"));
        assert!("unix:/run/weir.sock".parse::<ListenAddress>().is_ok());
        let long = format!("unix:/{}", "a".repeat(UNIX_PATH_LEN_MAX));
        for text in ["unix:", "unix:redis.sock", "/run/redis.sock", &long] {
            assert!(!is_unix(text), "{text}");
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
        let shown = ListenAddress::Unix("/run/weir.sock".into()).to_string();
        assert_eq!(shown, "unix:/run/weir.sock");
    }

    #[test]
    fn what_is_no_host_with_a_port() {
        for text in [
            "",
            ":",
            "redis",
            ":6379",
            "redis:",
            "redis:0",
            "redis:65536",
            "redis:+1",
            "::1:6379",
            "[::1]",
            "[redis]:1",
            "a b:1",
            "redis://h:1",
            "u@h:1",
            "h:1/0",
            "h,i:1",
        ] {
            assert!(!is_host_and_port(text), "{text}");
        }
        assert!(!is_host_and_port(&format!("{}:1", "a".repeat(254))));
    }
}
