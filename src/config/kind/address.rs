//! Where to listen and where to connect.

use std::net::{Ipv6Addr, SocketAddr};

use toml::de::DeValue;

use super::{Found, Kind, describe, show_list};

/// One address to listen on, or a list of them.
pub(in crate::config) struct Listen;

impl Kind for Listen {
    type Value = Vec<SocketAddr>;

    fn accepts(&self) -> String {
        "an IP address with a port such as \"127.0.0.1:6380\", or a list of them".to_owned()
    }

    fn read(&self, found: &Found<'_>) -> Result<Vec<SocketAddr>, String> {
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

    fn absent(&self) -> Option<Vec<SocketAddr>> {
        Some(Vec::new())
    }

    fn show(&self, value: &Vec<SocketAddr>) -> String {
        show_list(value)
    }
}

/// One address to listen on, or not at all.
pub(in crate::config) struct ListenOrOff;

impl Kind for ListenOrOff {
    type Value = Option<SocketAddr>;

    fn accepts(&self) -> String {
        "an IP address with a port such as \"127.0.0.1:6390\", or \"off\"".to_owned()
    }

    fn read(&self, found: &Found<'_>) -> Result<Option<SocketAddr>, String> {
        match found.value.as_str() {
            Some("" | "off") => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| found.not(&self.accepts())),
            None => Err(found.not(&self.accepts())),
        }
    }

    fn show(&self, value: &Option<SocketAddr>) -> String {
        value.map_or_else(|| "off".to_owned(), |address| address.to_string())
    }
}

/// Where a server is: a name or an address, with a port. Names are resolved when dialled.
pub(in crate::config) struct HostPort;

impl Kind for HostPort {
    type Value = String;

    fn accepts(&self) -> String {
        "a host with a port such as \"127.0.0.1:6379\" or \"redis.internal:6379\"".to_owned()
    }

    fn read(&self, found: &Found<'_>) -> Result<String, String> {
        found
            .value
            .as_str()
            .filter(|text| is_host_and_port(text))
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

fn is_host_and_port(text: &str) -> bool {
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
