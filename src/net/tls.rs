//! TLS settings made of certificates that can change while connections live.
//!
//! A [`Certificates`] holds what new handshakes use; connections that have shaken hands
//! keep what they agreed on. When its files change it is made anew; if that fails, the
//! one before stays in force.

mod client;
mod identity;
mod server;

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};

use crate::config::TlsVersion;
pub use client::{server_name, to_nodes, wrap_for_node};
pub use identity::TlsIdentity;
pub use server::{for_clients, wrap_for_client};

/// What a listener speaks TLS with.
pub type ServerCertificates = Certificates<ServerConfig>;

/// What nodes are spoken TLS to with.
pub type ClientCertificates = Certificates<ClientConfig>;

/// Reads the files: the settings made of them, and when the first certificate that is
/// shown expires (seconds of Unix time; none if none is shown).
type Make<C> = Box<dyn Fn() -> Result<(C, Option<i64>), String> + Send + Sync>;

/// TLS settings that are read again when their files change.
pub struct Certificates<C> {
    place: String,
    files: Vec<PathBuf>,
    make: Make<C>,
    current: ArcSwapOption<C>,
    /// [`i64::MAX`] for none.
    expires: AtomicI64,
    /// What the files looked like when they were last read.
    looks: Mutex<Vec<Look>>,
}

/// Enough of a file to see that it is another: device, inode, length, time of change.
/// Nothing if it is not there.
type Look = Option<(u64, u64, u64, i64, i64)>;

impl<C> Certificates<C> {
    fn new(place: String, files: Vec<PathBuf>, make: Make<C>) -> Certificates<C> {
        let certificates = Certificates {
            place,
            files,
            make,
            current: ArcSwapOption::empty(),
            expires: AtomicI64::new(i64::MAX),
            looks: Mutex::default(),
        };
        if let Err(problem) = certificates.reload() {
            // They were checked a moment ago; whoever changed them is not done.
            tracing::error!(place = %certificates.place, "no TLS until its files are right: {problem}");
        }
        certificates
    }

    /// What new handshakes use; nothing while the files have never been right.
    pub fn current(&self) -> Option<Arc<C>> {
        self.current.load_full()
    }
}

impl<C> fmt::Debug for Certificates<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Certificates");
        shown.field("place", &self.place).finish_non_exhaustive()
    }
}

/// What can be read again, whichever side it is for.
pub trait Renew: fmt::Debug + Send + Sync {
    /// Where in the settings it is, such as `route.main.listener.public`.
    fn place(&self) -> &str;

    /// When the first certificate that is shown expires, in seconds of Unix time.
    fn expires(&self) -> Option<i64>;

    /// Whether a file is another than when it was last read. Blocks on the file system.
    fn has_changed(&self) -> bool;

    /// Reads the files. Blocks on the file system.
    ///
    /// # Errors
    /// What is wrong with them; what was read before stays in force.
    fn reload(&self) -> Result<(), String>;
}

impl<C: Send + Sync> Renew for Certificates<C> {
    fn place(&self) -> &str {
        &self.place
    }

    fn expires(&self) -> Option<i64> {
        Some(self.expires.load(Relaxed)).filter(|expires| *expires != i64::MAX)
    }

    fn has_changed(&self) -> bool {
        self.look() != *self.looks.lock().expect("nothing panics under this lock")
    }

    fn reload(&self) -> Result<(), String> {
        Certificates::reload(self)
    }
}

impl<C> Certificates<C> {
    fn look(&self) -> Vec<Look> {
        let look = |file: &PathBuf| {
            let found = fs::metadata(file).ok()?;
            Some((
                found.dev(),
                found.ino(),
                found.len(),
                found.mtime(),
                found.mtime_nsec(),
            ))
        };
        self.files.iter().map(look).collect()
    }

    fn reload(&self) -> Result<(), String> {
        // Before reading: what changes meanwhile is seen at the next look. What is wrong
        // is not tried again, and complained of, until it is changed again.
        *self.looks.lock().expect("nothing panics under this lock") = self.look();
        let (made, expires) = (self.make)()?;
        self.expires.store(expires.unwrap_or(i64::MAX), Relaxed);
        self.current.store(Some(Arc::new(made)));
        Ok(())
    }
}

fn versions(oldest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match oldest {
        TlsVersion::Tls12 => &BOTH,
        TlsVersion::Tls13 => &BOTH[..1],
    }
}
