//! Which server it is, since commands and error texts differ by version.

/// The server behind Weir, by its own account.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct ServerVersion {
    /// Redis, or what has become of it.
    pub flavour: Flavour,
    /// The 7 in 7.0.15; Valkey's own number, not the Redis it stands for.
    pub major: u16,
    /// The 0 in 7.0.15.
    pub minor: u16,
    /// The 15 in 7.0.15.
    pub patch: u16,
}

/// Which of the servers that speak the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Flavour {
    /// Redis, and whatever calls itself so.
    Redis,
    /// Valkey.
    Valkey,
}

impl ServerVersion {
    /// Redis in version `major.minor`.
    pub const fn redis(major: u16, minor: u16) -> Self {
        Self {
            flavour: Flavour::Redis,
            major,
            minor,
            patch: 0,
        }
    }

    /// Valkey in version `major.minor`.
    pub const fn valkey(major: u16, minor: u16) -> Self {
        Self {
            flavour: Flavour::Valkey,
            major,
            minor,
            patch: 0,
        }
    }

    /// What `INFO server` says: `valkey_version` if it is there, since Valkey's
    /// `redis_version` names the Redis it is compatible with.
    pub fn from_info(text: &[u8]) -> Option<Self> {
        let field = |name: &str| {
            text.split(|byte| *byte == b'\n').find_map(|line| {
                std::str::from_utf8(line.strip_prefix(name.as_bytes())?)
                    .ok()
                    .map(str::trim_end)
            })
        };
        if let Some(version) = field("valkey_version:") {
            return Self::parse(Flavour::Valkey, version);
        }
        Self::parse(Flavour::Redis, field("redis_version:")?)
    }

    /// What the map that answers `HELLO` says under `server` and `version`.
    pub fn from_hello(server: &[u8], version: &[u8]) -> Option<Self> {
        let flavour = if server == b"valkey" {
            Flavour::Valkey
        } else {
            Flavour::Redis
        };
        Self::parse(flavour, std::str::from_utf8(version).ok()?)
    }

    /// Reads `7.0.15`; what is missing or no number behind the first is 0.
    fn parse(flavour: Flavour, version: &str) -> Option<Self> {
        let mut parts = version.split('.');
        let major = parts.next()?.parse().ok()?;
        let mut next = || parts.next().and_then(|part| part.parse().ok()).unwrap_or(0);
        Some(Self {
            flavour,
            major,
            minor: next(),
            patch: next(),
        })
    }

    /// Whether it behaves like Redis `major.minor` or later. Valkey 7.2 is Redis
    /// 7.2, and Valkey 8 began with most of what became Redis 7.4; nothing that
    /// came to Redis later is in it.
    pub fn like_redis(self, major: u16, minor: u16) -> bool {
        let behaves_as = match self.flavour {
            Flavour::Redis => (self.major, self.minor),
            Flavour::Valkey if self.major < 8 => (7, 2),
            Flavour::Valkey => (7, 4),
        };
        behaves_as >= (major, minor)
    }

    /// Whether it is Valkey `major.minor` or later.
    pub fn is_valkey(self, major: u16, minor: u16) -> bool {
        self.flavour == Flavour::Valkey && (self.major, self.minor) >= (major, minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_info_and_hello() {
        let redis = ServerVersion {
            patch: 15,
            ..ServerVersion::redis(7, 0)
        };
        let info = b"# Server\r\nredis_version:7.0.15\r\nredis_git_sha1:00000000\r\n";
        assert_eq!(ServerVersion::from_info(info), Some(redis));
        assert_eq!(ServerVersion::from_hello(b"redis", b"7.0.15"), Some(redis));
        let valkey = ServerVersion {
            patch: 2,
            ..ServerVersion::valkey(9, 1)
        };
        let info = b"redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\n";
        assert_eq!(ServerVersion::from_info(info), Some(valkey));
        assert_eq!(ServerVersion::from_hello(b"valkey", b"9.1.2"), Some(valkey));
        assert_eq!(ServerVersion::from_info(b""), None);
        assert_eq!(
            ServerVersion::from_hello(b"redis", b"8.0-rc1"),
            Some(ServerVersion::redis(8, 0))
        );
    }

    #[test]
    fn valkey_is_compared_by_the_redis_it_came_from() {
        assert!(ServerVersion::valkey(9, 1).like_redis(7, 4));
        assert!(!ServerVersion::valkey(9, 1).like_redis(8, 0));
        assert!(!ServerVersion::valkey(7, 2).like_redis(7, 4));
        assert!(ServerVersion::redis(7, 0).like_redis(6, 2));
        assert!(!ServerVersion::redis(9, 0).is_valkey(8, 0));
    }
}
