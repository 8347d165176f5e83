//! `HELLO`: what the client asks for, and the map that answers it.
//!
//! Redis changed in 7.2 when things happen: before, each option takes effect as
//! it is read, so that an error behind it leaves the user and the name changed;
//! since, everything is read first. [`Hello::steps`] holds the steps in the
//! order of the server that is behind Weir, and the session just takes them.

use super::client_command::name_error;
use crate::backend::server::{Flavour, Mode, Role, ServerFacts};
use crate::command::{Args, ServerVersion, integer};
use crate::resp::{Value, Version};

/// What a `HELLO` asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The protocol to speak from the answer on; `None` keeps it.
    pub version: Option<Version>,
    /// To be taken in order; the first that fails answers for all.
    pub steps: Vec<HelloStep>,
    /// What is answered instead of the map once the steps are done: the error
    /// line without its `-`.
    pub error: Option<Vec<u8>>,
}

/// One thing to do for a `HELLO`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HelloStep {
    /// Become this user, as with `AUTH`.
    Authenticate {
        /// The user's name.
        user: Vec<u8>,
        /// The password.
        password: Vec<u8>,
    },
    /// Go on only if the client is authenticated by now, else answer
    /// [`not_authenticated`].
    RequireAuthenticated,
    /// Take this name; an empty one removes it.
    SetName(Vec<u8>),
}

impl Hello {
    /// Whether it comes with a name and a password.
    pub fn authenticates(&self) -> bool {
        self.steps
            .iter()
            .any(|step| matches!(step, HelloStep::Authenticate { .. }))
    }
}

/// Reads the arguments of a `HELLO`.
///
/// # Errors
///
/// The error line without its `-`, of requests that change nothing at all.
pub fn parse(args: &(impl Args + ?Sized), server: ServerVersion) -> Result<Hello, Vec<u8>> {
    let version = args.arg(1).map(version).transpose()?;
    let options = options(args);
    if !server.like_redis(7, 2) {
        let (mut steps, error) = match options {
            (steps, Some(error)) if steps.is_empty() => return Err(error),
            options => options,
        };
        forget_all_but_the_last_login(&mut steps);
        if error.is_none() {
            steps.push(HelloStep::RequireAuthenticated);
        }
        return Ok(Hello {
            version,
            steps,
            error,
        });
    }
    if let Some(error) = options.1 {
        return Err(error);
    }
    // Of several of a kind, the last one counts.
    let last =
        |wanted: fn(&HelloStep) -> bool| options.0.iter().rev().find(|it| wanted(it)).cloned();
    let user = last(|step| matches!(step, HelloStep::Authenticate { .. }));
    let name = last(|step| matches!(step, HelloStep::SetName(_)));
    let steps = [user, Some(HelloStep::RequireAuthenticated), name];
    Ok(Hello {
        version,
        steps: steps.into_iter().flatten().collect(),
        error: None,
    })
}

/// Checking a login may take a while, and the request is read anew when it is
/// done: there can be one only. A client that sends several is not known.
fn forget_all_but_the_last_login(steps: &mut Vec<HelloStep>) {
    let is_login = |step: &HelloStep| matches!(step, HelloStep::Authenticate { .. });
    if let Some(last) = steps.iter().rposition(is_login) {
        let mut index = 0;
        steps.retain(|step| {
            index += 1;
            !is_login(step) || index == last + 1
        });
    }
}

fn version(text: &[u8]) -> Result<Version, Vec<u8>> {
    match integer(text) {
        Some(2) => Ok(Version::Resp2),
        Some(3) => Ok(Version::Resp3),
        Some(_) => Err(b"NOPROTO unsupported protocol version".to_vec()),
        None => Err(b"ERR Protocol version is not an integer or out of range".to_vec()),
    }
}

/// The options in the order they stand, up to the first that is wrong.
fn options(args: &(impl Args + ?Sized)) -> (Vec<HelloStep>, Option<Vec<u8>>) {
    let mut steps = Vec::new();
    let mut index = 2;
    while let Some(option) = args.arg(index) {
        let value = |offset: usize| args.arg(index + offset);
        if option.eq_ignore_ascii_case(b"auth")
            && let (Some(user), Some(password)) = (value(1), value(2))
        {
            steps.push(HelloStep::Authenticate {
                user: user.into(),
                password: password.into(),
            });
            index += 3;
        } else if option.eq_ignore_ascii_case(b"setname")
            && let Some(name) = value(1)
        {
            if let Some(error) = name_error(name) {
                return (steps, Some(error));
            }
            steps.push(HelloStep::SetName(name.into()));
            index += 2;
        } else {
            let shown = option.split(|byte| *byte == 0).next().unwrap_or_default();
            let error = [b"ERR Syntax error in HELLO option '", shown, b"'"].concat();
            return (steps, Some(error));
        }
    }
    (steps, None)
}

/// The error line, without its `-`, for a `HELLO` of a client that has not
/// authenticated and does not do so with it.
pub fn not_authenticated(server: ServerVersion) -> String {
    let proto = if server.like_redis(7, 2) {
        "<proto> "
    } else {
        ""
    };
    format!(
        "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO \
         {proto}AUTH <user> <pass> option can be used to authenticate the client and select the \
         RESP protocol version at the same time"
    )
}

/// What the server behind Weir says about itself in its own answer to `HELLO`.
#[derive(Clone, PartialEq, Debug)]
pub struct ServerHello {
    /// The pairs of its map in their order, later servers' additions included;
    /// `proto` and `id` are replaced in every answer.
    pairs: Vec<(Value, Value)>,
}

impl ServerHello {
    /// From the server's own answer, in RESP3 if the modules are to be maps for
    /// RESP3 clients; `None` if it is no map with text keys.
    pub fn from_reply(reply: &Value) -> Option<Self> {
        let pairs = reply.pairs()?;
        let named = pairs.iter().all(|(key, _)| key.as_bytes().is_some());
        (named && !pairs.is_empty()).then(|| Self {
            pairs: pairs
                .into_iter()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        })
    }

    /// From what is known of the server.
    pub fn from_facts(facts: &ServerFacts) -> Self {
        let (server, (major, minor, patch)) = match &facts.flavour {
            Flavour::Redis => ("redis", facts.version),
            Flavour::Valkey(major, minor, patch) => ("valkey", (*major, *minor, *patch)),
            Flavour::Other(name) => (name.as_str(), facts.version),
        };
        let mode = match facts.mode {
            Mode::Standalone => "standalone",
            Mode::Cluster => "cluster",
            Mode::Sentinel => "sentinel",
        };
        let role = match facts.role {
            Role::Primary => "master",
            Role::Replica => "replica",
            Role::Sentinel => "sentinel",
        };
        let pairs = [
            ("server", Value::bulk(server)),
            ("version", Value::bulk(format!("{major}.{minor}.{patch}"))),
            ("proto", Value::integer(2)),
            ("id", Value::integer(0)),
            ("mode", Value::bulk(mode)),
            ("role", Value::bulk(role)),
            ("modules", Value::array(facts.modules.clone())),
        ];
        Self {
            pairs: pairs.map(|(key, value)| (Value::bulk(key), value)).into(),
        }
    }

    /// The map for a client of Weir: the server's own, but with the protocol that
    /// this client now speaks and its own id.
    pub fn answer(&self, id: u64, version: Version) -> Value {
        let proto = match version {
            Version::Resp2 => 2,
            Version::Resp3 => 3,
        };
        let own = |(key, value): &(Value, Value)| {
            let value = match key.as_bytes() {
                Some(b"proto") => Value::integer(proto),
                Some(b"id") => Value::integer(i64::try_from(id).unwrap_or(i64::MAX)),
                _ => value.clone(),
            };
            (key.clone(), value)
        };
        Value::map(self.pairs.iter().map(own).collect::<Vec<_>>())
    }
}

/// The map that answers a `HELLO`, from what is known of the server.
pub fn hello_reply(facts: &ServerFacts, id: u64, version: Version) -> Value {
    ServerHello::from_facts(facts).answer(id, version)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REDIS_7_0: ServerVersion = ServerVersion::redis(7, 0);
    const VALKEY_9: ServerVersion = ServerVersion::valkey(9, 1);

    fn read(request: &[&str], server: ServerVersion) -> Result<Hello, String> {
        parse(request, server).map_err(|error| String::from_utf8(error).expect("text"))
    }

    fn auth(user: &str, password: &str) -> HelloStep {
        HelloStep::Authenticate {
            user: user.into(),
            password: password.into(),
        }
    }

    fn name(name: &str) -> HelloStep {
        HelloStep::SetName(name.into())
    }

    #[test]
    fn errors_read_as_redis_words_them() {
        for server in [ServerVersion::redis(6, 2), REDIS_7_0, VALKEY_9] {
            for (request, error) in [
                (
                    &["HELLO", "abc"][..],
                    "ERR Protocol version is not an integer or out of range",
                ),
                (
                    &["HELLO", "03"],
                    "ERR Protocol version is not an integer or out of range",
                ),
                (
                    &["HELLO", "SETNAME", "x"],
                    "ERR Protocol version is not an integer or out of range",
                ),
                (
                    &["HELLO", "99999999999999999999"],
                    "ERR Protocol version is not an integer or out of range",
                ),
                (&["HELLO", "1"], "NOPROTO unsupported protocol version"),
                (
                    &["HELLO", "4", "FOO"],
                    "NOPROTO unsupported protocol version",
                ),
                (
                    &["HELLO", "3", "foo"],
                    "ERR Syntax error in HELLO option 'foo'",
                ),
                (
                    &["HELLO", "3", "AUTH"],
                    "ERR Syntax error in HELLO option 'AUTH'",
                ),
                (
                    &["HELLO", "3", "AUTH", "u"],
                    "ERR Syntax error in HELLO option 'AUTH'",
                ),
                (
                    &["HELLO", "3", "SETNAME"],
                    "ERR Syntax error in HELLO option 'SETNAME'",
                ),
                (
                    &["HELLO", "3", "SETNAME", "a b"],
                    "ERR Client names cannot contain spaces, newlines or special characters.",
                ),
                (
                    &["HELLO", "3", "SETNAME", "x y", "FOO"],
                    "ERR Client names cannot contain spaces, newlines or special characters.",
                ),
            ] {
                assert_eq!(read(request, server), Err(error.to_owned()), "{request:?}");
            }
        }
    }

    #[test]
    fn since_7_2_everything_is_read_before_anything_happens() {
        let request = [
            "HELLO", "3", "SETNAME", "a", "AUTH", "u", "p", "SETNAME", "b",
        ];
        let hello = read(&request, VALKEY_9).expect("valid");
        assert_eq!(hello.version, Some(Version::Resp3));
        assert_eq!(
            hello.steps,
            [auth("u", "p"), HelloStep::RequireAuthenticated, name("b")]
        );
        assert_eq!(hello.error, None);
        let request = ["HELLO", "3", "AUTH", "u", "p", "x"];
        let error = "ERR Syntax error in HELLO option 'x'".to_owned();
        assert_eq!(read(&request, VALKEY_9), Err(error));
    }

    #[test]
    fn before_7_2_each_option_happens_as_it_is_read() {
        let request = ["HELLO", "3", "SETNAME", "a", "AUTH", "u", "p", "x"];
        let hello = read(&request, REDIS_7_0).expect("the steps come first");
        assert_eq!(hello.steps, [name("a"), auth("u", "p")]);
        assert_eq!(
            hello.error.as_deref(),
            Some(&b"ERR Syntax error in HELLO option 'x'"[..])
        );
        let hello = read(&["HELLO", "2", "SETNAME", ""], REDIS_7_0).expect("valid");
        assert_eq!(hello.steps, [name(""), HelloStep::RequireAuthenticated]);
    }

    #[test]
    fn without_a_version_the_protocol_stays() {
        for server in [REDIS_7_0, VALKEY_9] {
            let hello = read(&["HELLO"], server).expect("valid");
            assert_eq!(hello.version, None);
            assert_eq!(hello.steps, [HelloStep::RequireAuthenticated]);
        }
    }

    #[test]
    fn the_answer_is_the_servers_with_what_is_this_clients() {
        let theirs = b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n\
            $5\r\nproto\r\n:3\r\n$2\r\nid\r\n:8\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n\
            $4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n";
        let (theirs, _) = crate::resp::decode(theirs).expect("valid").expect("whole");
        let server = ServerHello::from_reply(&theirs).expect("a map");
        assert_eq!(server.answer(8, Version::Resp3), theirs);
        let ours = server.answer(77, Version::Resp2);
        assert_eq!(ours.get("proto"), Some(&Value::integer(2)));
        assert_eq!(ours.get("id"), Some(&Value::integer(77)));
        let mut facts = ServerFacts::default();
        facts.learn_hello(&theirs);
        assert_eq!(hello_reply(&facts, 8, Version::Resp3), theirs);
        assert_eq!(ServerHello::from_reply(&Value::error("NOAUTH")), None);
    }
}
