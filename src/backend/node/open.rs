//! Opening a connection: dial, shake hands, and what a refusal means; closing one so that
//! its slot comes back when the node has let go of it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::{DefaultUser, Node, OpenError, Opened};
use crate::backend::budget::{Kind, Partition, Phase, Slot};
use crate::backend::credential::{Credential, User, UserId};
use crate::backend::handshake::{
    Greeting, Handshake, HandshakeError, HandshakeSpec, Progress, SetUpAs,
};
use crate::net::{self, Stream};

impl Node {
    /// Connects and shakes hands. The slot comes back with the connection; if there
    /// is none, it returns to the ledger when the node has let go of it.
    ///
    /// # Errors
    /// [`OpenError`]; one that is about the node and not about this user holds off
    /// further attempts for a while.
    pub async fn open(self: &Arc<Self>, key: &Partition, slot: Slot) -> Result<Opened, OpenError> {
        let mut deadline = Instant::now() + self.settings().timeouts.connect;
        let Some(mut user) = self.credentials.get(key.user) else {
            // The last session of this user has gone, and with it the credential.
            return Err(OpenError::Refused("NOAUTH Authentication required.".into()));
        };
        // Who selects the database, if not the user itself; and why not.
        let mut selects: Option<(User, OpenError)> = None;
        let mut was_closed = false;
        loop {
            let set_up_as = selects.as_ref().map(|(user, _)| SetUpAs {
                credential: user.credential(),
            });
            // Asking how a node is comes first: nobody else knows when it is back.
            if slot.kind() != Kind::Probe {
                deadline += self.turn_to_dial().await;
            }
            let attempt = self.try_open(key, user.credential(), set_up_as, &slot, deadline);
            match attempt.await {
                Attempt::Opened(socket, id) => {
                    self.succeeded();
                    slot.set_phase(Phase::Open);
                    return Ok(Opened { socket, id, slot });
                }
                Attempt::Unreachable(error) => {
                    drop(slot);
                    return Err(error);
                }
                // Once may have been meant for this connection alone (`CLIENT KILL`).
                Attempt::Closed(_) if !was_closed => was_closed = true,
                Attempt::Closed(error) => {
                    drop(slot);
                    return Err(self.gave_up(error));
                }
                Attempt::Refused(error, mut socket) => {
                    let mut again = false;
                    if let Some(fresh) = self.fresh_password(key, &user, &error).await {
                        user = fresh;
                        again = true;
                    } else if selects.is_none() && may_be_selected_for(&user, &error) {
                        // A user who may not use SELECT can be in a database that he came
                        // to before he logged in.
                        selects = Some((self.credentials.backend(), error.clone()));
                        again = true;
                    }
                    // The slot is for one connection: this one has to be gone before
                    // another is tried with it.
                    if again && timeout_at(deadline, end(&mut socket)).await.is_ok() {
                        continue;
                    }
                    close_politely(socket, Some(slot));
                    let error = selects.map_or(error, |(_, first)| first);
                    return Err(self.gave_up(error));
                }
            }
        }
    }

    fn gave_up(self: &Arc<Self>, error: OpenError) -> OpenError {
        match &error {
            OpenError::Refused(_) => {}
            OpenError::Full => self.narrow(),
            OpenError::Unreachable(_) => self.failed(&error),
        }
        error
    }

    async fn try_open(
        &self,
        key: &Partition,
        credential: Option<&Credential>,
        set_up_as: Option<SetUpAs<'_>>,
        slot: &Slot,
        deadline: Instant,
    ) -> Attempt {
        let socket = match self.dial().await {
            Ok(socket) => socket,
            Err(error) => return Attempt::Unreachable(error),
        };
        let mut socket = match self.secure(socket, deadline).await {
            Ok(socket) => socket,
            Err((error, socket)) => return Attempt::Refused(error, socket),
        };
        let name = format!("weir:{}:{}", self.route, slot.kind().name());
        let mut handshake = Handshake::new(&HandshakeSpec {
            credential,
            set_up_as,
            version: key.version,
            db: key.db,
            no_touch: key.no_touch,
            name: &name,
            asks_id: slot.kind() == Kind::Blocking,
        });
        match timeout_at(deadline, shake_hands(&mut socket, &mut handshake)).await {
            Ok(Ok(Ok(greeting))) => {
                if key.user == UserId::NOBODY {
                    self.default_user.store(DefaultUser::Open as u8, Relaxed);
                }
                Attempt::Opened(socket, greeting.connection_id())
            }
            Ok(Ok(Err(error))) => Attempt::Refused(self.refusal(error, key), socket),
            // With TLS, to say goodbye is not to have closed.
            Ok(Err(why)) => match timeout_at(deadline, closed(&mut socket)).await {
                Ok(()) => Attempt::Closed(self.unreachable(&why)),
                Err(_) => Attempt::Refused(self.unreachable(&why), socket),
            },
            Err(_) => {
                self.hears_nothing(self.settings().health.silence_max);
                Attempt::Refused(self.unreachable("no answer to the handshake"), socket)
            }
        }
    }

    /// Weir's own password may have been changed in the file that it was read from:
    /// the user to try with instead of one that was refused.
    async fn fresh_password(
        &self,
        key: &Partition,
        refused: &User,
        error: &OpenError,
    ) -> Option<User> {
        let OpenError::Refused(text) = error else {
            return None;
        };
        let about_login = text.starts_with("WRONGPASS") || text.starts_with("NOAUTH");
        if key.user != UserId::BACKEND || !about_login {
            return None;
        }
        self.reread_password(refused).await
    }

    /// Reads Weir's own password again from where it came from. The user to try
    /// with, if the node has refused another one than that.
    async fn reread_password(&self, refused: &User) -> Option<User> {
        let refused = refused.credential()?;
        let known = self.credentials.backend();
        if known.credential() != Some(refused) {
            // Another worker was faster.
            return Some(known);
        }
        let password = refused.password().clone();
        let read = tokio::task::spawn_blocking(move || password.reread()).await;
        let fresh = match read.ok()? {
            Ok(fresh) => fresh,
            Err(error) => {
                tracing::warn!(
                    node = %self.address, route = %self.route,
                    "the node refuses the password, and it cannot be read again: {error}"
                );
                return None;
            }
        };
        let fresh = Credential::new(refused.username(), fresh);
        if fresh == *refused {
            return None;
        }
        tracing::info!(
            node = %self.address, route = %self.route,
            "the node refused the password; it was read again and has changed"
        );
        self.credentials.set_backend(Some(fresh));
        Some(self.credentials.backend())
    }

    /// Connects; TLS, where it is spoken, has still to be agreed on.
    pub(super) async fn dial(&self) -> Result<Stream, OpenError> {
        let options = net::DialOptions {
            timeout: self.settings().timeouts.connect,
            keepalive: self.settings().backend.tcp_keepalive,
            // By then every plain command on it has met its deadline. Not sooner: the
            // kernel counts a server as dead, too, that is alive and reads nothing
            // because of a long script.
            user_timeout: self.settings().timeouts.request + self.settings().timeouts.stall,
        };
        self.dials.fetch_add(1, Relaxed);
        net::dial(&self.address, &options).await.map_err(|error| {
            let error = OpenError::Unreachable(error.to_string());
            self.failed(&error);
            error
        })
    }

    pub(super) fn unreachable(&self, why: &str) -> OpenError {
        OpenError::Unreachable(format!("{}: {why}", self.address))
    }

    /// A failed handshake in the words that Redis uses for it.
    fn refusal(&self, error: HandshakeError, key: &Partition) -> OpenError {
        if key.user == UserId::NOBODY && error == HandshakeError::NoAuth {
            self.default_user.store(DefaultUser::Closed as u8, Relaxed);
        }
        let text = match error {
            HandshakeError::MaxClients => return OpenError::Full,
            HandshakeError::WrongPass => {
                "WRONGPASS invalid username-password pair or user is disabled.".into()
            }
            HandshakeError::NoAuth => "NOAUTH Authentication required.".into(),
            HandshakeError::NoSuchDb => "ERR DB index is out of range".into(),
            HandshakeError::Busy => {
                "BUSY Redis is busy running a script. You can only call SCRIPT KILL or \
                 SHUTDOWN NOSAVE."
                    .into()
            }
            HandshakeError::Loading => "LOADING Redis is loading the dataset in memory".into(),
            HandshakeError::NoProto => "NOPROTO unsupported protocol version".into(),
            HandshakeError::NoPerm(_, text) | HandshakeError::Other(_, text) => text,
            other => return self.unreachable(&other.to_string()),
        };
        OpenError::Refused(text)
    }
}

/// What became of one attempt to connect and shake hands.
enum Attempt {
    /// It is ready; with the id that the node knows it by.
    Opened(Stream, Option<i64>),
    /// The node said no, or nothing; the connection is still there.
    Refused(OpenError, Stream),
    /// It was closed in the handshake.
    Closed(OpenError),
    /// None came about; what follows from that has been seen to.
    Unreachable(OpenError),
}

/// Says goodbye and waits until the node has closed its end.
async fn end(socket: &mut Stream) {
    let _ = socket.shutdown().await;
    socket.until_gone().await;
}

/// Waits until the node has closed its end of a connection that it has ended.
async fn closed(socket: &mut Stream) {
    if socket.is_tls() {
        socket.until_gone().await;
    }
}

/// Says goodbye and waits, for as long as it takes, until the node has closed
/// its end: until then the node counts the connection, and so does the ledger. A
/// node that is gone for good is noticed by the socket's own keepalive.
pub fn close_politely(socket: Stream, slot: Option<Slot>) {
    close_holding(socket, slot, ());
}

/// The same; `held` is dropped when the node has closed its end.
pub fn close_holding<T: 'static>(mut socket: Stream, slot: Option<Slot>, held: T) {
    if let Some(slot) = &slot {
        slot.set_phase(Phase::Closing);
    }
    tokio::task::spawn_local(async move {
        end(&mut socket).await;
        drop(socket);
        drop(slot);
        drop(held);
    });
}

/// Whether a user was refused only because he may not use `SELECT`.
fn may_be_selected_for(user: &User, error: &OpenError) -> bool {
    user.credential().is_some()
        && matches!(error, OpenError::Refused(text)
            if text.starts_with("NOPERM") && text.contains("'select'"))
}

async fn shake_hands(
    socket: &mut Stream,
    handshake: &mut Handshake,
) -> Result<Result<Greeting, HandshakeError>, String> {
    socket
        .write_all(handshake.request())
        .await
        .map_err(|error| error.to_string())?;
    let mut buffer = [0; 2048];
    loop {
        let n = socket
            .read(&mut buffer)
            .await
            .map_err(|error| error.to_string())?;
        if n == 0 {
            return Err("closed during the handshake".to_owned());
        }
        match handshake.feed(&buffer[..n]) {
            Progress::More => {}
            Progress::Ready(greeting) => return Ok(Ok(greeting)),
            Progress::Failed(error) => return Ok(Err(error)),
        }
    }
}
