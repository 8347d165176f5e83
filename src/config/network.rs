//! A network: an address, or all that begin alike.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Addresses that share their first bits, such as `10.1.0.0/16` or `2001:db8::/32`. An
/// IPv4 address that came in through an IPv6 socket (`::ffff:10.1.2.3`) is the IPv4
/// address that it stands for, here and wherever addresses are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    first: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network of this prefix that `address` is in. A prefix longer than the
    /// address has bits is the address alone.
    pub fn around(address: IpAddr, prefix: u8) -> Network {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let prefix = prefix.min(32);
                let mask = u32::MAX.checked_shl(u32::from(32 - prefix)).unwrap_or(0);
                Network {
                    first: Ipv4Addr::from_bits(v4.to_bits() & mask).into(),
                    prefix,
                }
            }
            IpAddr::V6(v6) => {
                let prefix = prefix.min(128);
                let mask = u128::MAX.checked_shl(u32::from(128 - prefix)).unwrap_or(0);
                Network {
                    first: Ipv6Addr::from_bits(v6.to_bits() & mask).into(),
                    prefix,
                }
            }
        }
    }

    /// Its first address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4() && Network::around(address, self.prefix) == *self
    }
}

impl FromStr for Network {
    type Err = ();

    /// An address, or one with `/` and the number of its bits that count. The bits behind
    /// those have to be zero: `10.1.2.3/16` is more likely a slip than a network.
    fn from_str(text: &str) -> Result<Network, ()> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| ())?
            }
            Some(_) => return Err(()),
        };
        let network = Network::around(address, prefix);
        match prefix <= bits && network.first == address {
            true => Ok(network),
            false => Err(()),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = if self.first.is_ipv4() { 32 } else { 128 };
        match self.prefix == bits {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}/{}", self.first, self.prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().expect(text)
    }

    #[test]
    fn networks_hold_the_addresses_that_begin_alike() {
        let holds = |text: &str, address: &str| network(text).contains(address.parse().unwrap());
        assert!(holds("10.1.0.0/16", "10.1.255.3"));
        assert!(!holds("10.1.0.0/16", "10.2.0.0"));
        assert!(holds("0.0.0.0/0", "1.2.3.4"));
        assert!(!holds("0.0.0.0/0", "::1"));
        assert!(holds("::/0", "::1"));
        assert!(!holds("::/0", "1.2.3.4"));
        assert!(holds("127.0.0.1", "127.0.0.1"));
        assert!(!holds("127.0.0.1", "127.0.0.2"));
        assert!(holds("2001:db8::/64", "2001:db8::ffff:1:2:3"));
        assert!(!holds("2001:db8::/64", "2001:db8:0:1::1"));
    }

    #[test]
    fn an_address_that_came_in_as_the_other_kind_is_the_same() {
        assert!(network("10.1.0.0/16").contains("::ffff:10.1.2.3".parse().unwrap()));
        let around = Network::around("::ffff:10.1.2.3".parse().unwrap(), 64);
        assert_eq!(around.to_string(), "10.1.2.3");
    }

    #[test]
    fn what_is_no_network() {
        for text in [
            "",
            "10.1.0.0/",
            "10.1.0.0/33",
            "10.1.2.3/16",
            "::/129",
            "10.1/16",
            "host",
            "::1/+1",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn networks_are_shown_as_they_are_written() {
        for text in [
            "10.1.0.0/16",
            "10.1.2.3",
            "2001:db8::/64",
            "::1",
            "0.0.0.0/0",
        ] {
            assert_eq!(network(text).to_string(), text);
        }
    }
}
