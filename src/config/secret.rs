//! A password that does not show itself.

use std::fmt;
use std::hint::black_box;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The longest password that Weir reads from a file, in bytes.
///
/// Redis has no limit of its own; whoever points `password_file` at a disk image
/// should get an error and not a full memory.
const FILE_LEN_MAX: u64 = 64 * 1024;

/// A password: never in logs, `Debug` output or error texts, compared in constant time.
#[derive(Clone, Default)]
pub struct Secret {
    bytes: Arc<[u8]>,
    origin: Origin,
}

/// Where a secret came from, so that it can be read again when it was rotated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Origin {
    /// Written in the configuration, or given by a client.
    #[default]
    Inline,
    /// The value of this environment variable.
    Environment(String),
    /// The content of this file.
    File(PathBuf),
}

impl Secret {
    /// A secret with these bytes.
    pub fn new(bytes: impl AsRef<[u8]>) -> Secret {
        Secret {
            bytes: bytes.as_ref().into(),
            origin: Origin::Inline,
        }
    }

    /// The same secret, remembered to have come from an environment variable.
    pub(super) fn from_environment(variable: &str, value: &str) -> Secret {
        Secret {
            bytes: value.as_bytes().into(),
            origin: Origin::Environment(variable.to_owned()),
        }
    }

    /// Reads a secret from a file; one newline at its end is not part of it.
    ///
    /// # Errors
    ///
    /// What reading the file says; `InvalidData` if it is empty or longer than 64 KiB.
    pub fn from_file(path: &Path) -> io::Result<Secret> {
        use std::io::Read;
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path)?;
        file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_LEN_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "is longer than 64KiB",
            ));
        }
        let password = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let password = password.strip_suffix(b"\r").unwrap_or(password);
        if password.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "is empty"));
        }
        Ok(Secret {
            bytes: password.into(),
            origin: Origin::File(path.to_owned()),
        })
    }

    /// The bytes themselves. Only for what goes to Redis or is compared.
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// Where it came from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The secret as it is now at its origin: a file is read again, so that a
    /// rotated password is found without a restart. Blocks on the file system.
    ///
    /// # Errors
    ///
    /// As [`Secret::from_file`]; never for another origin, which can not change.
    pub fn reread(&self) -> io::Result<Secret> {
        match &self.origin {
            Origin::File(path) => Secret::from_file(path),
            Origin::Inline | Origin::Environment(_) => Ok(self.clone()),
        }
    }

    /// Whether `candidate` is this secret. Takes a time that depends on the
    /// candidate's length only, so that it tells nothing about the secret.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        let mut difference = u8::from(self.bytes.len() != candidate.len());
        for (i, byte) in candidate.iter().enumerate() {
            let ours = if self.bytes.is_empty() {
                0
            } else {
                self.bytes[i % self.bytes.len()]
            };
            difference |= black_box(ours ^ byte);
        }
        black_box(difference) == 0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.matches(&other.bytes)
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_itself() {
        let secret = Secret::new("hunter2");
        assert_eq!(
            format!("{secret} {secret:?} {secret:#?}"),
            "(hidden) Secret(hidden) Secret(hidden)"
        );
    }

    #[test]
    fn only_the_same_bytes_match() {
        let secret = Secret::new("abc");
        assert!(secret.matches(b"abc"));
        for other in [&b""[..], b"a", b"abd", b"abca", b"abcabc", b"ABC"] {
            assert!(!secret.matches(other), "{other:?}");
        }
        assert!(Secret::default().matches(b""));
        assert!(!Secret::default().matches(b"\0"));
    }

    #[test]
    fn a_file_is_read_without_its_newline_and_read_again_when_it_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "first \n").unwrap();
        let secret = Secret::from_file(&path).unwrap();
        assert_eq!(secret.expose(), b"first ");
        std::fs::write(&path, "second\r\n").unwrap();
        assert_eq!(secret.reread().unwrap().expose(), b"second");
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(
            secret.reread().unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }

    #[test]
    fn an_endless_file_is_refused() {
        let error = Secret::from_file(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(error.to_string(), "is longer than 64KiB");
    }
}
