//! The file of a Unix socket: made, given to its owner, and removed.

use std::ffi::CString;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::sync::Arc;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::Owner;

/// Owner and group may connect, which on Unix is to write; others may not.
const MODE: u32 = 0o660;

/// The longest answer of the user database, in bytes; a group with thousands of members
/// has a long one.
const ENTRY_LEN_MAX: usize = 1 << 20;

/// The file, removed with this unless another has taken its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: Arc<Path>,
    /// Device and inode: which file it is, whatever happens to the path.
    identity: (u64, u64),
    is_left: bool,
}

impl SocketFile {
    /// Binds the socket to the path. A file there that nobody listens behind is what a
    /// process left that could not clean up: it is replaced.
    pub(super) fn bind(socket: &Socket, path: &Path) -> io::Result<SocketFile> {
        let address = SockAddr::unix(path)?;
        match socket.bind(&address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && is_stale(path)? => {
                fs::remove_file(path)?;
                socket.bind(&address)?;
            }
            outcome => outcome?,
        }
        SocketFile::adopt(path)
    }

    /// The file that a socket is bound to already.
    pub(super) fn adopt(path: &Path) -> io::Result<SocketFile> {
        Ok(SocketFile {
            path: path.into(),
            identity: identity(path)?,
            is_left: false,
        })
    }

    pub(super) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    pub(super) fn leave(&mut self) {
        self.is_left = true;
    }

    pub(super) fn own(&mut self) {
        self.is_left = false;
    }

    pub(super) fn set_permissions(
        &self,
        mode: Option<u32>,
        owner: Option<&Owner>,
    ) -> io::Result<()> {
        if let Some(owner) = owner {
            let user = owner.user.as_deref().map(user_id).transpose()?;
            let group = owner.group.as_deref().map(group_id).transpose()?;
            chown(&self.path, user, group)?;
        }
        fs::set_permissions(&self.path, fs::Permissions::from_mode(mode.unwrap_or(MODE)))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.is_left && identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Whether the file is a socket that nobody listens behind.
fn is_stale(path: &Path) -> io::Result<bool> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(
            ErrorKind::AlreadyExists,
            "there is a file that is no socket",
        ));
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Where somebody listens whose queue is full this would wait until there is room.
    socket.set_nonblocking(true)?;
    let outcome = socket.connect(&SockAddr::unix(path)?);
    Ok(outcome.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused))
}

fn user_id(name: &str) -> io::Result<u32> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    // SAFETY: all bytes zero is a valid `passwd`: numbers, and pointers that are null.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let found = look_up(name, |name, buffer| {
        let mut found = std::ptr::null_mut();
        // SAFETY: the name ends in a zero byte, the buffer is as long as is said, and the
        // entry outlives the call; what points into the buffer is not used.
        let code = unsafe {
            libc::getpwnam_r(
                name.as_ptr(),
                &raw mut entry,
                buffer.as_mut_ptr(),
                buffer.len(),
                &raw mut found,
            )
        };
        (code, !found.is_null())
    })?;
    let unknown = || io::Error::new(ErrorKind::NotFound, format!("there is no user {name}"));
    found.then_some(entry.pw_uid).ok_or_else(unknown)
}

fn group_id(name: &str) -> io::Result<u32> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    // SAFETY: all bytes zero is a valid `group`: numbers, and pointers that are null.
    let mut entry: libc::group = unsafe { std::mem::zeroed() };
    let found = look_up(name, |name, buffer| {
        let mut found = std::ptr::null_mut();
        // SAFETY: as above.
        let code = unsafe {
            libc::getgrnam_r(
                name.as_ptr(),
                &raw mut entry,
                buffer.as_mut_ptr(),
                buffer.len(),
                &raw mut found,
            )
        };
        (code, !found.is_null())
    })?;
    let unknown = || io::Error::new(ErrorKind::NotFound, format!("there is no group {name}"));
    found.then_some(entry.gr_gid).ok_or_else(unknown)
}

/// Asks the user database, with more room until the answer fits.
fn look_up(
    name: &str,
    mut ask: impl FnMut(&CString, &mut [libc::c_char]) -> (libc::c_int, bool),
) -> io::Result<bool> {
    let name = CString::new(name)?;
    let mut buffer = vec![0; 1024];
    loop {
        match ask(&name, &mut buffer) {
            (0, found) => return Ok(found),
            (libc::ERANGE, _) if buffer.len() < ENTRY_LEN_MAX => buffer.resize(buffer.len() * 4, 0),
            (code, _) => return Err(io::Error::from_raw_os_error(code)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ListenAddress;
    use crate::net::{ListenOptions, listen};

    fn options(mode: Option<u32>, owner: Option<Owner>) -> ListenOptions {
        ListenOptions {
            unix_mode: mode,
            unix_owner: owner,
            ..ListenOptions::default()
        }
    }

    #[test]
    fn the_file_is_for_whom_it_is_said_and_goes_with_the_listener() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weir.sock");
        let address = ListenAddress::Unix(path.clone());
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        drop(listen(&address, &options(Some(0o600), None)).inspect(|_| assert_eq!(mode(), 0o600)));
        assert!(!path.exists());
        // To give a file to oneself is always allowed.
        let own = fs::metadata(directory.path()).unwrap();
        let owner = Owner {
            user: Some(own.uid().to_string()),
            group: Some(own.gid().to_string()),
        };
        let _listener = listen(&address, &options(None, Some(owner))).unwrap();
        assert_eq!(mode(), 0o660);
    }

    #[test]
    fn a_file_that_was_left_behind_is_replaced_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weir.sock");
        let address = ListenAddress::Unix(path.clone());
        let mut left = listen(&address, &ListenOptions::default()).unwrap();
        let in_use = listen(&address, &ListenOptions::default()).unwrap_err();
        assert_eq!(in_use.kind(), ErrorKind::AddrInUse);
        left.leave_file();
        drop(left);
        assert!(path.exists());
        drop(listen(&address, &ListenOptions::default()).unwrap());
        fs::write(&path, "precious").unwrap();
        let error = listen(&address, &ListenOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    /// A process that hangs takes nobody in.
    #[test]
    fn whoever_listens_with_a_full_queue_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weir.sock");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let address = SockAddr::unix(&path).unwrap();
        socket.bind(&address).unwrap();
        socket.listen(0).unwrap();
        let mut queued = Vec::new();
        loop {
            let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            if client.connect(&address).is_err() {
                break;
            }
            queued.push(client);
        }
        assert!(!is_stale(&path).unwrap());
        drop(socket);
        assert!(is_stale(&path).unwrap());
    }

    #[test]
    fn a_file_that_took_its_place_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weir.sock");
        let listener = listen(
            &ListenAddress::Unix(path.clone()),
            &ListenOptions::default(),
        );
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another's").unwrap();
        drop(listener);
        assert!(path.exists());
    }

    #[test]
    fn users_and_groups_have_names_or_numbers() {
        assert_eq!(user_id("root").unwrap(), 0);
        assert_eq!(group_id("root").unwrap(), 0);
        assert_eq!(user_id("12345").unwrap(), 12_345);
        assert_eq!(
            user_id("nobody-of-that-name").unwrap_err().kind(),
            ErrorKind::NotFound
        );
        assert_eq!(
            group_id("nobody-of-that-name").unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
}
