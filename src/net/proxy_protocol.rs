//! The header that a load balancer puts in front of a connection to name the real client.
//!
//! Both versions of the PROXY protocol, as HAProxy's document defines them:
//! <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>. The decoder is pure: it
//! is given the bytes that have arrived and says whether they are a header, the
//! beginning of one, or neither. A header is bounded; what is longer is not read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How version 2 begins.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// How version 1 begins.
const WORD: &[u8; 6] = b"PROXY ";

/// The longest header of version 1 with its line end (section 2.1 of the document).
const V1_LEN_MAX: usize = 107;

/// The longest header of version 2 that is taken. Addresses take at most 216 bytes of it;
/// the rest is for extensions, of which a certificate's names are the longest. The
/// format would allow 64 KiB.
const V2_LEN_MAX: usize = 16 + 4096;

/// Of version 2: signature, version and command, family, and length.
const V2_HEAD: usize = 16;

/// The longest header of either version, in bytes.
pub const HEADER_LEN_MAX: usize = V2_LEN_MAX;

/// What the bytes so far are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The beginning of a header.
    More,
    /// A whole header.
    Whole {
        /// How many bytes it has; the client's own begin behind it.
        len: usize,
        /// The real client. `None` where the header names none: the load balancer speaks
        /// for itself (`LOCAL`, a health check) or does not know (`UNKNOWN`).
        client: Option<SocketAddr>,
    },
    /// No header.
    Malformed,
}

/// Decodes the header at the beginning of `bytes`.
pub fn decode(bytes: &[u8]) -> Header {
    let begins = |with: &[u8]| {
        let len = bytes.len().min(with.len());
        bytes[..len] == with[..len]
    };
    if begins(SIGNATURE) {
        version_2(bytes)
    } else if begins(WORD) {
        version_1(bytes)
    } else {
        Header::Malformed
    }
}

fn version_1(bytes: &[u8]) -> Header {
    let seen = &bytes[..bytes.len().min(V1_LEN_MAX)];
    let Some(end) = memchr::memchr(b'\n', seen) else {
        return match bytes.len() < V1_LEN_MAX {
            true => Header::More,
            false => Header::Malformed,
        };
    };
    let line = seen[..end].strip_suffix(b"\r");
    let client = line
        .and_then(|line| std::str::from_utf8(line).ok())
        .and_then(line_1);
    match client {
        Some(client) => Header::Whole {
            len: end + 1,
            client,
        },
        None => Header::Malformed,
    }
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443`, or `PROXY UNKNOWN` and whatever follows.
fn line_1(line: &str) -> Option<Option<SocketAddr>> {
    let mut words = line.split(' ');
    words.next();
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let rest: Vec<&str> = words.collect();
    let [source, destination, source_port, destination_port] = rest[..] else {
        return None;
    };
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let port = |text: &str| {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| is_number)
    };
    address(destination)?;
    port(destination_port)?;
    Some(Some(SocketAddr::new(address(source)?, port(source_port)?)))
}

fn version_2(bytes: &[u8]) -> Header {
    let Some(head) = bytes.get(..V2_HEAD) else {
        // A wrong version is known before the rest has come.
        return match bytes.get(SIGNATURE.len()) {
            Some(byte) if byte >> 4 != 2 => Header::Malformed,
            _ => Header::More,
        };
    };
    let (version, command, family) = (head[12] >> 4, head[12] & 0x0F, head[13]);
    let len = V2_HEAD + usize::from(u16::from_be_bytes([head[14], head[15]]));
    if version != 2 || command > 1 || len > V2_LEN_MAX {
        return Header::Malformed;
    }
    let Some(body) = bytes.get(V2_HEAD..len) else {
        return Header::More;
    };
    let client = match (command, family) {
        (0, _) => None,
        // TCP over IPv4: two addresses, then two ports; the first of each is the client's.
        (_, 0x11) => match *body {
            [a, b, c, d, _, _, _, _, high, low, _, _, ..] => {
                let port = u16::from_be_bytes([high, low]);
                Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), port))
            }
            _ => return Header::Malformed,
        },
        // The same over IPv6.
        (_, 0x21) => match (body.first_chunk::<16>(), body.get(32..36)) {
            (Some(address), Some(ports)) => {
                let port = u16::from_be_bytes([ports[0], ports[1]]);
                Some(SocketAddr::new(Ipv6Addr::from(*address).into(), port))
            }
            _ => return Header::Malformed,
        },
        // Unspecified, Unix sockets, datagrams: no address of a client of ours, and the
        // document has the connection's own taken then.
        _ => None,
    };
    Header::Whole { len, client }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(len: usize, client: Option<&str>) -> Header {
        let client = client.map(|client| client.parse().unwrap());
        Header::Whole { len, client }
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let len = (body.len() as u16).to_be_bytes();
        [SIGNATURE.as_slice(), &[0x20 | command, family], &len, body].concat()
    }

    const V4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 1, 0xDC, 0x04, 0x01, 0xBB];

    fn body_v6() -> Vec<u8> {
        let address: Ipv6Addr = "2001:db8::1".parse().unwrap();
        [&address.octets()[..], &[0; 16], &[0x1F, 0x90, 0, 80]].concat()
    }

    #[test]
    fn version_1_names_the_client() {
        for (line, client) in [
            (
                "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n",
                Some("192.0.2.1:56324"),
            ),
            (
                "PROXY TCP6 2001:db8::1 ::1 1 2\r\n",
                Some("[2001:db8::1]:1"),
            ),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff:f:f ffff: 65535 65535\r\n", None),
        ] {
            let bytes = [line.as_bytes(), b"PING\r\n"].concat();
            assert_eq!(decode(&bytes), whole(line.len(), client), "{line}");
        }
    }

    #[test]
    fn version_2_names_the_client() {
        let header = v2(1, 0x11, V4);
        assert_eq!(decode(&header), whole(28, Some("192.0.2.1:56324")));
        let header = v2(1, 0x21, &body_v6());
        assert_eq!(decode(&header), whole(52, Some("[2001:db8::1]:8080")));
        // Extensions behind the addresses are passed over.
        let header = v2(1, 0x11, &[V4, b"\x04\0\x03abc"].concat());
        assert_eq!(decode(&header), whole(34, Some("192.0.2.1:56324")));
        // LOCAL, unspecified, and a Unix socket: the connection's own address holds.
        for header in [
            v2(0, 0, &[]),
            v2(0, 0x11, V4),
            v2(1, 0, b"xyz"),
            v2(1, 0x31, &[0; 216]),
        ] {
            assert_eq!(decode(&header), whole(header.len(), None));
        }
    }

    #[test]
    fn what_is_no_header() {
        for bytes in [
            "PING\r\n",
            "*1\r\n$4\r\nPING\r\n",
            "PROXY\r\n",
            "proxy TCP4 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 2 3\r\n",
            "PROXY TCP4 192.0.2.1  198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 70000\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +1 2\r\n",
            "PROXY TCP4 192.0.2.300 198.51.100.1 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n",
            "PROXY \r\n",
        ] {
            assert_eq!(decode(bytes.as_bytes()), Header::Malformed, "{bytes:?}");
        }
        let long = format!("PROXY UNKNOWN {}", "x".repeat(V1_LEN_MAX));
        assert_eq!(decode(long.as_bytes()), Header::Malformed);
        let mut wrong_version = v2(1, 0x11, V4);
        wrong_version[12] = 0x11;
        assert_eq!(decode(&wrong_version), Header::Malformed);
        assert_eq!(decode(&v2(2, 0x11, V4)), Header::Malformed);
        assert_eq!(decode(&v2(1, 0x11, &V4[..11])), Header::Malformed);
        assert_eq!(decode(&v2(1, 0x21, &body_v6()[..35])), Header::Malformed);
        assert_eq!(decode(&v2(1, 0, &vec![0; V2_LEN_MAX])), Header::Malformed);
    }

    #[test]
    fn byte_by_byte_it_is_a_beginning_until_it_is_whole() {
        let headers = [
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".to_vec(),
            b"PROXY UNKNOWN\r\n".to_vec(),
            v2(1, 0x11, V4),
            v2(1, 0x21, &body_v6()),
            v2(0, 0, &[]),
        ];
        for header in headers {
            for len in 0..header.len() {
                assert_eq!(decode(&header[..len]), Header::More, "{len} of {header:?}");
            }
            assert!(matches!(decode(&header), Header::Whole { len, .. } if len == header.len()));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// An answer for any bytes, never a panic; never more than there is; and what was
        /// decided stays decided when more arrives.
        #[test]
        fn any_bytes_have_an_answer(start in 0..4usize, head: [u8; 4], rest: Vec<u8>) {
            let starts: [&[u8]; 4] = [b"", b"PROXY TCP4 ", b"PROXY TCP6 ::1 ", SIGNATURE];
            let bytes = [starts[start], &head, &rest].concat();
            let mut decided = None;
            for len in 0..=bytes.len() {
                let answer = decode(&bytes[..len]);
                if let Header::Whole { len: taken, .. } = answer {
                    prop_assert!(taken <= len && taken <= HEADER_LEN_MAX);
                }
                if let Some(before) = decided {
                    prop_assert_eq!(answer, before);
                } else if answer != Header::More {
                    decided = Some(answer);
                }
            }
        }
    }
}
