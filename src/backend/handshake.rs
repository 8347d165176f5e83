//! What Weir says first on a new connection, and what it makes of the answers.
//!
//! Everything is sent in one write; the connection is ready when every answer has
//! come. At least one command is always sent, because the first bytes that come can
//! be an error that nobody asked for (`-ERR max number of clients reached`): it
//! must not be taken for a client's reply.

mod error;

pub use error::{HandshakeError, Step};

use super::credential::Credential;
use crate::resp::{ReplyScanner, Value, Version, decode, encode_command};

/// How long one answer may be, in bytes. `HELLO` lists the loaded modules
/// with their paths, some hundred bytes each; the others are a line.
pub const ANSWER_LEN_MAX: usize = 256 * 1024;

/// How a new connection is to be.
#[derive(Debug, Clone)]
pub struct HandshakeSpec<'a> {
    /// As whom; `None` stays what a fresh connection is.
    pub credential: Option<&'a Credential>,
    /// Who the connection is while its name and its database are set: a user who may
    /// not use `SELECT` can still be in a database that he came to as another. `None`
    /// logs in first.
    pub set_up_as: Option<SetUpAs<'a>>,
    /// The protocol that replies are written in.
    pub version: Version,
    /// The database.
    pub db: u32,
    /// Whether reads leave LRU and LFU data alone (`CLIENT NO-TOUCH`, Redis 7.2).
    pub no_touch: bool,
    /// Whether its id is wanted even where `HELLO` does not tell it.
    pub asks_id: bool,
    /// How operators see it in `CLIENT LIST`: `weir:<route>:<kind>`. Whatever Redis
    /// does not take in a name is replaced by `_`.
    pub name: &'a str,
}

/// Who sets up a connection that is somebody else's in the end.
#[derive(Debug, Clone, Copy)]
pub struct SetUpAs<'a> {
    /// The login; `None` is what a fresh connection is.
    pub credential: Option<&'a Credential>,
}

/// A handshake: first [`Handshake::request`] is sent, then every byte that comes is
/// given to [`Handshake::feed`]. Does no IO itself.
#[derive(Debug)]
pub struct Handshake {
    request: Vec<u8>,
    /// What is still to be answered, in order.
    steps: std::vec::IntoIter<Step>,
    awaited: Option<Step>,
    /// The bytes of the answer that has begun, and where in it they end.
    answer: Vec<u8>,
    scanner: ReplyScanner,
    greeting: Greeting,
    is_first_answer: bool,
}

/// Where a handshake stands after some bytes.
#[derive(Debug, PartialEq)]
pub enum Progress {
    /// More bytes are needed.
    More,
    /// The connection can be used.
    Ready(Greeting),
    /// It can not; close it.
    Failed(HandshakeError),
}

/// What the server said of itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Greeting {
    /// The answer to `HELLO`, a map; `None` in RESP2, which asks for none.
    pub hello: Option<Value>,
    /// Whether the name was set. Managed servers refuse `CLIENT`, users may not be
    /// allowed to: the connection works all the same.
    pub is_named: bool,
    /// The answer to `CLIENT ID`.
    pub id: Option<i64>,
}

impl Greeting {
    /// The connection's id at the server, for `CLIENT UNBLOCK`, if `HELLO` told it.
    pub fn connection_id(&self) -> Option<i64> {
        self.id.or_else(|| self.hello.as_ref()?.get("id")?.as_i64())
    }
}

/// What is said, and what each part of it asks for. Weir's own commands are spelled
/// as [`super::own`] says.
#[derive(Default)]
struct Script {
    request: Vec<u8>,
    steps: Vec<Step>,
}

impl Script {
    fn say(&mut self, step: Step, args: &[&[u8]]) {
        encode_command(args, &mut self.request);
        self.steps.push(step);
    }

    fn log_in(&mut self, version: Version, credential: Option<&Credential>) {
        let login = credential.map(|login| (login.username(), login.password().expose()));
        match (version, login) {
            (Version::Resp3, Some((username, password))) => {
                let username = username.unwrap_or(b"default");
                let words = [b"hELLO".as_slice(), b"3", b"AUTH", username, password];
                self.say(Step::Hello, &words);
            }
            (Version::Resp3, None) => self.say(Step::Hello, &[b"hELLO", b"3"]),
            (Version::Resp2, Some((None, password))) => {
                self.say(Step::Auth, &[b"aUTH", password]);
            }
            (Version::Resp2, Some((Some(username), password))) => {
                self.say(Step::Auth, &[b"aUTH", username, password]);
            }
            (Version::Resp2, None) => {}
        }
    }

    fn set_up(&mut self, spec: &HandshakeSpec<'_>) {
        self.say(
            Step::SetName,
            &[b"cLIENT", b"SETNAME", &printable(spec.name)],
        );
        if spec.asks_id && spec.version == Version::Resp2 {
            self.say(Step::Id, &[b"cLIENT", b"ID"]);
        }
        if spec.db != 0 {
            self.say(Step::Select, &[b"sELECT", spec.db.to_string().as_bytes()]);
        }
        if spec.no_touch {
            self.say(Step::NoTouch, &[b"cLIENT", b"NO-TOUCH", b"ON"]);
        }
    }
}

impl Handshake {
    /// The handshake that makes a connection what `spec` says.
    pub fn new(spec: &HandshakeSpec<'_>) -> Handshake {
        let mut script = Script::default();
        match spec.set_up_as {
            None => {
                script.log_in(spec.version, spec.credential);
                script.set_up(spec);
            }
            Some(first) => {
                script.log_in(Version::Resp2, first.credential);
                script.set_up(spec);
                script.log_in(spec.version, spec.credential);
            }
        }
        let Script { request, steps } = script;
        let mut steps = steps.into_iter();
        Handshake {
            request,
            awaited: steps.next(),
            steps,
            answer: Vec::new(),
            scanner: ReplyScanner::default(),
            greeting: Greeting::default(),
            is_first_answer: true,
        }
    }

    /// What is to be sent, in one piece.
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// What the server was asked and has not answered yet, to say so when it closes
    /// or takes too long. `None` when the handshake is over.
    pub fn awaited(&self) -> Option<Step> {
        self.awaited
    }

    /// Takes bytes as they come, in any pieces. To be called until it does not say
    /// [`Progress::More`], and not again.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Progress {
        while let Some(step) = self.awaited {
            let Ok(fed) = self.scanner.feed(bytes) else {
                return Progress::Failed(HandshakeError::NotRedis(step));
            };
            if self.answer.len() + fed.consumed > ANSWER_LEN_MAX {
                return Progress::Failed(HandshakeError::TooLong(step));
            }
            self.answer.extend_from_slice(&bytes[..fed.consumed]);
            bytes = &bytes[fed.consumed..];
            if !fed.complete {
                return Progress::More;
            }
            if let Err(error) = self.answered(step) {
                return Progress::Failed(error);
            }
            self.answer.clear();
            self.is_first_answer = false;
            self.awaited = self.steps.next();
        }
        if !bytes.is_empty() {
            // Whatever it is, the next reply would be taken for somebody else's.
            return Progress::Failed(HandshakeError::Unasked);
        }
        Progress::Ready(std::mem::take(&mut self.greeting))
    }

    /// The answer to a step is complete.
    fn answered(&mut self, step: Step) -> Result<(), HandshakeError> {
        let Ok(Some((value, _))) = decode(&self.answer) else {
            return Err(HandshakeError::NotRedis(step));
        };
        if let Value::Error(text) = &value {
            let error = HandshakeError::of_reply(step, text, self.is_first_answer);
            // The name is a courtesy to operators. Errors that concern the connection
            // as a whole are errors here, too: this may be the only command.
            let is_about_the_name = matches!(
                error,
                HandshakeError::Other(..) | HandshakeError::NoPerm(..) | HandshakeError::Busy
            );
            let is_courtesy = matches!(step, Step::SetName | Step::Id);
            return if is_courtesy && is_about_the_name {
                Ok(())
            } else {
                Err(error)
            };
        }
        match step {
            Step::Hello if value.pairs().is_some() => self.greeting.hello = Some(value),
            Step::Hello => return Err(HandshakeError::NotRedis(step)),
            Step::SetName => self.greeting.is_named = true,
            Step::Id => self.greeting.id = value.as_i64(),
            Step::Auth | Step::Select | Step::NoTouch if value == Value::simple("OK") => {}
            Step::Auth | Step::Select | Step::NoTouch => {
                return Err(HandshakeError::NotRedis(step));
            }
        }
        Ok(())
    }
}

/// Redis takes `!` to `~` in a name and nothing else (networking.c, `validateClientAttr`).
fn printable(name: &str) -> Vec<u8> {
    name.bytes()
        .map(|byte| if byte.is_ascii_graphic() { byte } else { b'_' })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Secret;

    fn spec(version: Version) -> HandshakeSpec<'static> {
        HandshakeSpec {
            credential: None,
            set_up_as: None,
            version,
            db: 0,
            no_touch: false,
            asks_id: false,
            name: "weir:main:shared",
        }
    }

    fn credential(username: Option<&[u8]>) -> Credential {
        Credential::new(username, Secret::new("p w"))
    }

    fn said(spec: &HandshakeSpec<'_>) -> Vec<String> {
        let handshake = Handshake::new(spec);
        let mut rest = handshake.request();
        let mut commands = Vec::new();
        while let Some((command, len)) = decode(rest).unwrap() {
            let words = command
                .as_array()
                .unwrap()
                .iter()
                .map(|word| word.as_str().unwrap());
            commands.push(words.collect::<Vec<_>>().join("|"));
            rest = &rest[len..];
        }
        assert!(rest.is_empty());
        commands
    }

    fn answer(spec: &HandshakeSpec<'_>, answers: &[u8]) -> Progress {
        Handshake::new(spec).feed(answers)
    }

    const HELLO: &[u8] = b"%3\r\n+server\r\n+redis\r\n+version\r\n+7.0.15\r\n+id\r\n:42\r\n";

    #[test]
    fn what_is_said_first() {
        let (alice, unnamed) = (credential(Some(b"alice")), credential(None));
        let resp3 = spec(Version::Resp3);
        let resp2 = spec(Version::Resp2);
        let name = "cLIENT|SETNAME|weir:main:shared";
        assert_eq!(said(&resp2), [name]);
        assert_eq!(said(&resp3), ["hELLO|3", name]);
        let with = |credential, spec: &HandshakeSpec<'static>| {
            said(&HandshakeSpec {
                credential: Some(credential),
                ..spec.clone()
            })
        };
        assert_eq!(with(&alice, &resp2), ["aUTH|alice|p w", name]);
        assert_eq!(with(&unnamed, &resp2), ["aUTH|p w", name]);
        assert_eq!(with(&alice, &resp3), ["hELLO|3|AUTH|alice|p w", name]);
        assert_eq!(with(&unnamed, &resp3), ["hELLO|3|AUTH|default|p w", name]);
        let all = HandshakeSpec {
            db: 7,
            no_touch: true,
            name: "a b\n\u{e4}",
            ..resp3
        };
        assert_eq!(
            said(&all),
            [
                "hELLO|3",
                "cLIENT|SETNAME|a_b___",
                "sELECT|7",
                "cLIENT|NO-TOUCH|ON"
            ]
        );
        let from_another = HandshakeSpec {
            credential: Some(&alice),
            set_up_as: Some(SetUpAs {
                credential: Some(&unnamed),
            }),
            db: 7,
            ..spec(Version::Resp3)
        };
        assert_eq!(
            said(&from_another),
            ["aUTH|p w", name, "sELECT|7", "hELLO|3|AUTH|alice|p w"]
        );
    }

    #[test]
    fn it_is_ready_when_every_answer_has_come() {
        let all = HandshakeSpec {
            db: 7,
            no_touch: true,
            ..spec(Version::Resp3)
        };
        let mut handshake = Handshake::new(&all);
        assert_eq!(handshake.awaited(), Some(Step::Hello));
        assert_eq!(handshake.feed(HELLO), Progress::More);
        assert_eq!(handshake.feed(b"+OK\r\n+OK\r\n+O"), Progress::More);
        assert_eq!(handshake.awaited(), Some(Step::NoTouch));
        let Progress::Ready(greeting) = handshake.feed(b"K\r\n") else {
            panic!()
        };
        assert_eq!(handshake.awaited(), None);
        assert!(greeting.is_named);
        assert_eq!(greeting.connection_id(), Some(42));
    }

    #[test]
    fn a_refused_name_is_no_failure() {
        for refusal in [
            "-ERR unknown command 'CLIENT', with args beginning with: 'SETNAME'\r\n",
            "-NOPERM this user has no permissions to run the 'client|setname' command\r\n",
            "-BUSY Redis is busy running a script.\r\n",
        ] {
            let ready = Progress::Ready(Greeting {
                hello: None,
                is_named: false,
                id: None,
            });
            assert_eq!(
                answer(&spec(Version::Resp2), refusal.as_bytes()),
                ready,
                "{refusal}"
            );
        }
    }

    #[test]
    fn errors_by_what_they_mean() {
        use HandshakeError::*;
        let alice = credential(Some(b"alice"));
        let resp2 = spec(Version::Resp2);
        let resp3 = spec(Version::Resp3);
        let auth = HandshakeSpec {
            credential: Some(&alice),
            ..resp2.clone()
        };
        let select = HandshakeSpec {
            db: 99,
            ..resp2.clone()
        };
        let no_touch = HandshakeSpec {
            no_touch: true,
            ..resp2.clone()
        };
        let table = [
            (&resp2, "-ERR max number of clients reached\r\n", MaxClients),
            (
                &resp3,
                "-ERR max number of clients + cluster connections reached\r\n",
                MaxClients,
            ),
            (
                &resp2,
                "-DENIED Redis is running in protected mode because …\r\n",
                Denied,
            ),
            (
                &auth,
                "-WRONGPASS invalid username-password pair or user is disabled.\r\n",
                WrongPass,
            ),
            (&auth, "-ERR invalid password\r\n", WrongPass),
            (&resp2, "-NOAUTH Authentication required.\r\n", NoAuth),
            (
                &resp3,
                "-NOAUTH HELLO must be called with the client already …\r\n",
                NoAuth,
            ),
            (
                &resp2,
                "-LOADING Redis is loading the dataset in memory\r\n",
                Loading,
            ),
            (&resp3, "-NOPROTO unsupported protocol version\r\n", NoProto),
            (
                &resp3,
                "-ERR unknown command 'HELLO', with args beginning with: '3' \r\n",
                NoProto,
            ),
            (
                &select,
                "+OK\r\n-ERR DB index is out of range\r\n",
                NoSuchDb,
            ),
            (
                &select,
                "+OK\r\n-ERR SELECT is not allowed in cluster mode\r\n",
                NoSuchDb,
            ),
            (
                &select,
                "+OK\r\n-NOPERM this user has no …\r\n",
                NoPerm(Step::Select, "NOPERM this user has no …".into()),
            ),
            (
                &select,
                "+OK\r\n-BUSY Redis is busy running a script.\r\n",
                Busy,
            ),
            (&select, "+OK\r\n:1\r\n", NotRedis(Step::Select)),
            (
                &no_touch,
                "+OK\r\n-ERR unknown subcommand 'NO-TOUCH'.\r\n",
                Other(
                    Step::NoTouch,
                    "ERR unknown subcommand 'NO-TOUCH'.".to_owned(),
                ),
            ),
            (
                &resp2,
                "HTTP/1.1 400 Bad Request\r\n",
                NotRedis(Step::SetName),
            ),
            (&resp3, "+OK\r\n", NotRedis(Step::Hello)),
            (&resp2, "+OK\r\n+OK\r\n", Unasked),
        ];
        for (spec, answers, expected) in table {
            assert_eq!(
                answer(spec, answers.as_bytes()),
                Progress::Failed(expected),
                "{answers}"
            );
        }
    }

    #[test]
    fn a_server_that_talks_without_end_is_cut_off() {
        let mut handshake = Handshake::new(&spec(Version::Resp2));
        let chunk = [b'x'; 4096];
        assert_eq!(handshake.feed(b"+"), Progress::More);
        let fed = (0..1000)
            .take_while(|_| handshake.feed(&chunk) == Progress::More)
            .count();
        assert_eq!(fed, ANSWER_LEN_MAX / chunk.len() - 1);
    }

    #[test]
    fn a_long_error_is_shortened() {
        let long = format!("-ODD {}\r\n", "é".repeat(2000));
        let select = HandshakeSpec {
            db: 1,
            ..spec(Version::Resp2)
        };
        let Progress::Failed(HandshakeError::Other(Step::Select, text)) =
            answer(&select, format!("+OK\r\n{long}").as_bytes())
        else {
            panic!()
        };
        assert!(text.len() <= 515 && text.starts_with("ODD é"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// However the bytes are split, the outcome is the same.
        #[test]
        fn pieces_do_not_matter(cuts in proptest::collection::vec(0..100usize, 0..8), ends_well: bool) {
            let select = HandshakeSpec { db: 7, ..spec(Version::Resp3) };
            let last: &[u8] = if ends_well { b"+OK\r\n" } else { b"-ERR DB index is out of range\r\n" };
            let answers = [HELLO, b"-ERR no such subcommand\r\n", last].concat();
            let whole = answer(&select, &answers);
            let mut cuts: Vec<_> = cuts.into_iter().filter(|&cut| cut < answers.len()).collect();
            cuts.extend([0, answers.len()]);
            cuts.sort_unstable();
            let mut handshake = Handshake::new(&select);
            let mut progress = Progress::More;
            for piece in cuts.windows(2) {
                prop_assert_eq!(&progress, &Progress::More);
                progress = handshake.feed(&answers[piece[0]..piece[1]]);
            }
            prop_assert_eq!(progress, whole);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, resp3: bool) {
            let version = if resp3 { Version::Resp3 } else { Version::Resp2 };
            let _ = answer(&HandshakeSpec { db: 1, ..spec(version) }, &bytes);
            let _ = answer(&HandshakeSpec { db: 1, ..spec(version) }, &[b"*", &bytes[..]].concat());
        }
    }
}
