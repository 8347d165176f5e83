//! As whom connections are logged in.
//!
//! Every credential that is in use has a number, its [`UserId`], by which
//! partitions tell connections apart without comparing secrets. A number is never
//! given to another credential, not even after the first one was forgotten: a
//! connection that is still open under an old number can never be taken for
//! somebody else's.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use crate::config::Secret;

/// Names a credential for as long as the process lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct UserId(u64);

impl UserId {
    /// No credential: what a fresh connection is, Redis's user `default` as long as
    /// that needs no password.
    pub const NOBODY: UserId = UserId(0);
    /// Weir's own, from the configuration of the backend.
    pub const BACKEND: UserId = UserId(1);

    /// The number, for logs.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// A user name and a password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credential {
    username: Option<Vec<u8>>,
    password: Secret,
}

impl Credential {
    /// What `AUTH password` (without a name) or `AUTH username password` says.
    ///
    /// Without a name it is Redis's user `default`, but the two are not the same: where
    /// that user has no password, Redis takes any with the name and none without it.
    pub fn new(username: Option<&[u8]>, password: Secret) -> Credential {
        let username = username.map(<[u8]>::to_vec);
        Credential { username, password }
    }

    /// The name, if one was given.
    pub fn username(&self) -> Option<&[u8]> {
        self.username.as_deref()
    }

    /// The password.
    pub fn password(&self) -> &Secret {
        &self.password
    }
}

/// A credential with its number. The table keeps it as long as somebody holds one
/// of these: a session that is logged in so, a connection that is.
#[derive(Clone)]
pub struct User {
    entry: Arc<Entry>,
}

impl User {
    /// Its number.
    pub fn id(&self) -> UserId {
        self.entry.id
    }

    /// What to log in with; `None` for [`UserId::NOBODY`], and for
    /// [`UserId::BACKEND`] where the configuration has no password.
    pub fn credential(&self) -> Option<&Credential> {
        self.entry.credential.as_deref()
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("User")
            .field(&self.entry.id)
            .field(&self.entry.credential)
            .finish()
    }
}

/// The table holds [`CREDENTIALS_MAX`] credentials that are all in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CredentialsFull;

/// How many credentials of clients may be in use at once. Each needs connections
/// of its own, so no budget serves even a tenth of them well; the bound is there
/// for the memory.
pub const CREDENTIALS_MAX: usize = 10_000;

/// The credentials of one route that are in use, shared by its workers. Its lock is
/// taken when a client logs in and when a connection is dialled, not for a command.
pub struct Credentials {
    table: Arc<RwLock<Table>>,
}

struct Table {
    nobody: User,
    backend: User,
    by_id: HashMap<UserId, Known>,
    /// By name, so that passwords are only ever compared in constant time. The same
    /// name can be here with several passwords: Redis's users can have several.
    by_name: HashMap<Option<Vec<u8>>, Vec<UserId>>,
    last_id: u64,
}

struct Known {
    credential: Arc<Credential>,
    entry: Weak<Entry>,
}

struct Entry {
    id: UserId,
    credential: Option<Arc<Credential>>,
    /// Where it has to be forgotten; dangling for the two that never are.
    table: Weak<RwLock<Table>>,
}

impl Credentials {
    /// A table that knows nobody yet but Weir itself.
    pub fn new(backend: Option<Credential>) -> Credentials {
        let table = Table {
            nobody: fixed(UserId::NOBODY, None),
            backend: fixed(UserId::BACKEND, backend),
            by_id: HashMap::new(),
            by_name: HashMap::new(),
            last_id: UserId::BACKEND.0,
        };
        Credentials {
            table: Arc::new(RwLock::new(table)),
        }
    }

    /// The user of connections without any credential.
    pub fn nobody(&self) -> User {
        self.read(|table| table.nobody.clone())
    }

    /// The user as whom Weir itself connects.
    pub fn backend(&self) -> User {
        self.read(|table| table.backend.clone())
    }

    /// Replaces Weir's own credential. Its number stays: it is the same user with a
    /// new password, and connections that are logged in stay so in Redis, too.
    pub fn set_backend(&self, credential: Option<Credential>) {
        self.write(|table| table.backend = fixed(UserId::BACKEND, credential));
    }

    /// The user with this credential: the one who is known, or a new one.
    ///
    /// # Errors
    ///
    /// [`CredentialsFull`].
    pub fn intern(&self, credential: Credential) -> Result<User, CredentialsFull> {
        if let Some(user) = self.read(|table| table.find(&credential)) {
            return Ok(user);
        }
        self.write(|table| {
            // Another worker may have been faster.
            if let Some(user) = table.find(&credential) {
                return Ok(user);
            }
            if table.by_id.len() >= CREDENTIALS_MAX {
                return Err(CredentialsFull);
            }
            Ok(table.insert(credential, Arc::downgrade(&self.table)))
        })
    }

    /// Who has this number, if anybody still holds it.
    pub fn get(&self, id: UserId) -> Option<User> {
        self.read(|table| match id {
            UserId::NOBODY => Some(table.nobody.clone()),
            UserId::BACKEND => Some(table.backend.clone()),
            _ => Some(User {
                entry: table.by_id.get(&id)?.entry.upgrade()?,
            }),
        })
    }

    /// How many credentials of clients are in use.
    pub fn len(&self) -> usize {
        self.read(|table| table.by_id.len())
    }

    /// Whether no client's credential is in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    // What is found in the table is returned out of the lock before it can be
    // dropped: the last holder of an entry takes the lock to have it forgotten.
    fn read<R>(&self, look: impl FnOnce(&Table) -> R) -> R {
        look(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<R>(&self, change: impl FnOnce(&mut Table) -> R) -> R {
        change(&mut self.table.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl Table {
    /// Upgrades nobody but the one it returns: if its last holder goes meanwhile,
    /// the entry is dropped by the caller, who does not hold the lock any more.
    fn find(&self, credential: &Credential) -> Option<User> {
        let ids = self.by_name.get(&credential.username)?;
        let known = ids
            .iter()
            .map(|id| &self.by_id[id])
            .find(|known| known.credential.password == credential.password)?;
        Some(User {
            entry: known.entry.upgrade()?,
        })
    }

    fn insert(&mut self, credential: Credential, table: Weak<RwLock<Table>>) -> User {
        self.last_id += 1;
        let id = UserId(self.last_id);
        self.by_name
            .entry(credential.username.clone())
            .or_default()
            .push(id);
        let credential = Arc::new(credential);
        let entry = Arc::new(Entry {
            id,
            credential: Some(credential.clone()),
            table,
        });
        self.by_id.insert(
            id,
            Known {
                credential,
                entry: Arc::downgrade(&entry),
            },
        );
        User { entry }
    }

    fn forget(&mut self, id: UserId) {
        let Some(known) = self.by_id.remove(&id) else {
            return;
        };
        let username = &known.credential.username;
        if let Some(ids) = self.by_name.get_mut(username) {
            ids.retain(|known| *known != id);
            if ids.is_empty() {
                self.by_name.remove(username);
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(table) = self.table.upgrade() {
            table
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .forget(self.id);
        }
    }
}

fn fixed(id: UserId, credential: Option<Credential>) -> User {
    let credential = credential.map(Arc::new);
    User {
        entry: Arc::new(Entry {
            id,
            credential,
            table: Weak::new(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(username: &str, password: &str) -> Credential {
        Credential::new(Some(username.as_bytes()), Secret::new(password))
    }

    #[test]
    fn the_same_credential_is_the_same_user() {
        let table = Credentials::new(None);
        let alice = table.intern(credential("alice", "a")).unwrap();
        assert_eq!(
            table.intern(credential("alice", "a")).unwrap().id(),
            alice.id()
        );
        assert_ne!(
            table.intern(credential("alice", "b")).unwrap().id(),
            alice.id()
        );
        assert_ne!(
            table.intern(credential("bob", "a")).unwrap().id(),
            alice.id()
        );
        assert_eq!(table.len(), 1, "only alice is still held");
        assert_eq!(
            table.get(alice.id()).unwrap().credential(),
            alice.credential()
        );
    }

    #[test]
    fn a_user_that_is_named_is_not_one_that_is_not() {
        let table = Credentials::new(None);
        let unnamed = table
            .intern(Credential::new(None, Secret::new("p")))
            .unwrap();
        let named = table.intern(credential("default", "p")).unwrap();
        assert_ne!(named.id(), unnamed.id());
        assert_eq!(unnamed.credential().unwrap().username(), None);
    }

    #[test]
    fn a_number_is_never_used_again() {
        let table = Credentials::new(None);
        let first = table.intern(credential("alice", "a")).unwrap().id();
        assert!(table.is_empty());
        assert!(table.get(first).is_none());
        let second = table.intern(credential("alice", "a")).unwrap();
        assert_ne!(second.id(), first);
        assert!(table.get(first).is_none());
    }

    #[test]
    fn the_two_fixed_users_are_always_there_and_weirs_own_password_can_change() {
        let table = Credentials::new(Some(credential("weir", "old")));
        let before = table.backend();
        table.set_backend(Some(credential("weir", "new")));
        assert_eq!(before.credential().unwrap().password().expose(), b"old");
        let after = table.get(UserId::BACKEND).unwrap();
        assert_eq!(after.credential().unwrap().password().expose(), b"new");
        assert!(table.get(UserId::NOBODY).unwrap().credential().is_none());
        // A client with the same password is somebody else: Weir's may be rotated.
        let client = table.intern(credential("weir", "new")).unwrap();
        assert_ne!(client.id(), UserId::BACKEND);
    }

    #[test]
    fn the_table_is_bounded_and_room_comes_back() {
        let table = Credentials::new(None);
        let mut users: Vec<_> = (0..CREDENTIALS_MAX)
            .map(|i| table.intern(credential(&format!("user{i}"), "p")).unwrap())
            .collect();
        assert_eq!(
            table.intern(credential("late", "p")).unwrap_err(),
            CredentialsFull
        );
        assert!(
            table.intern(credential("user7", "p")).is_ok(),
            "who is known still is"
        );
        users.pop();
        assert!(table.intern(credential("late", "p")).is_ok());
    }

    #[test]
    fn a_password_does_not_show_itself() {
        let table = Credentials::new(None);
        let user = table.intern(credential("alice", "hunter2")).unwrap();
        assert!(!format!("{user:?} {table:?}").contains("hunter2"));
    }

    #[test]
    fn many_threads_agree_on_who_is_who() {
        let table = Credentials::new(None);
        let held: Vec<_> = (0..8)
            .map(|i| table.intern(credential("x", &i.to_string())).unwrap())
            .collect();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (table, held) = (&table, &held);
                scope.spawn(move || {
                    for round in 0..2000 {
                        let i = (round + thread) % 8;
                        let user = table.intern(credential("x", &i.to_string())).unwrap();
                        assert_eq!(user.id(), held[i].id());
                        // Comes and goes on all threads at once.
                        let fleeting = table.intern(credential("y", &i.to_string())).unwrap();
                        assert_eq!(
                            fleeting.credential(),
                            Some(&credential("y", &i.to_string()))
                        );
                    }
                });
            }
        });
        assert_eq!(table.len(), 8);
    }
}
