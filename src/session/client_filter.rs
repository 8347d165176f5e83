//! Which clients `CLIENT LIST` shows and `CLIENT KILL` ends.

use super::client_command::c_text;
use super::client_line::ClientView;
use crate::command::{Args, ServerVersion, integer};

/// What a client must be to be listed or killed: all of the criteria.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClientFilter {
    criteria: Vec<Criterion>,
    skip_me: bool,
}

/// Which clients `CLIENT KILL` ends.
pub type KillFilter = ClientFilter;

/// Which clients `CLIENT LIST` shows.
pub type ListFilter = ClientFilter;

#[derive(Clone, PartialEq, Eq, Debug)]
struct Criterion {
    /// Valkey's `NOT-…`: the clients for which it does not hold.
    negated: bool,
    what: What,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum What {
    Ids(Vec<i64>),
    Kind(ClientKind),
    Addr(Vec<u8>),
    Laddr(Vec<u8>),
    Ip(Vec<u8>),
    User(Vec<u8>),
    Name(Vec<u8>),
    LibName(Vec<u8>),
    LibVer(Vec<u8>),
    /// All of these letters.
    Flags(Vec<u8>),
    Capa(Vec<u8>),
    Db(i64),
    /// At least as old, in seconds.
    MaxAge(i64),
    /// At least as long idle, in seconds.
    Idle(i64),
}

/// What kind of client the server takes it for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientKind {
    /// Neither of the others; a monitor too.
    Normal,
    /// It has subscriptions.
    Pubsub,
    /// The primary of this server. None of Weir's clients: the server's answer is.
    Primary,
    /// A replica of this server. None of Weir's clients: the server's answer is.
    Replica,
}

const SYNTAX_ERROR: &[u8] = b"ERR syntax error";

/// The letters that Valkey knows in `FLAGS`, found by trying.
const FLAG_LETTERS: &[u8] = b"bcdeirtuxABEIMNOPRSTU";

impl ClientFilter {
    /// Reads the arguments of `CLIENT LIST …`.
    ///
    /// # Errors
    ///
    /// The error line without its `-`.
    pub fn for_list(
        args: &(impl Args + ?Sized),
        server: ServerVersion,
        databases: u32,
    ) -> Result<Self, Vec<u8>> {
        if args.count() == 2 {
            return Ok(Self::default());
        }
        if server.is_valkey(8, 1) {
            return Self::read(args, server, databases, false);
        }
        let option = args.arg(2).unwrap_or_default();
        if option.eq_ignore_ascii_case(b"type") && args.count() == 4 {
            let kind = What::Kind(kind(args.arg(3).unwrap_or_default(), server)?);
            return Ok(Self::default().and(false, kind));
        }
        if option.eq_ignore_ascii_case(b"id") && args.count() > 3 {
            let ids = (3..args.count()).map(|index| {
                let id = args.arg(index).and_then(integer);
                id.ok_or_else(|| b"ERR Invalid client ID".to_vec())
            });
            return Ok(Self::default().and(false, What::Ids(ids.collect::<Result<_, _>>()?)));
        }
        Err(SYNTAX_ERROR.into())
    }

    /// Reads the arguments of `CLIENT KILL option value …`, which spares the
    /// caller if it does not say otherwise.
    ///
    /// # Errors
    ///
    /// The error line without its `-`.
    pub fn for_kill(
        args: &(impl Args + ?Sized),
        server: ServerVersion,
        databases: u32,
    ) -> Result<Self, Vec<u8>> {
        Self::read(args, server, databases, true)
    }

    fn read(
        args: &(impl Args + ?Sized),
        server: ServerVersion,
        databases: u32,
        skip_me: bool,
    ) -> Result<Self, Vec<u8>> {
        let mut filter = Self {
            skip_me,
            ..Self::default()
        };
        let mut index = 2;
        while let Some(option) = args.arg(index) {
            let option = option.to_ascii_lowercase();
            let value = args.arg(index + 1).ok_or(SYNTAX_ERROR)?;
            index += 2;
            match &option[..] {
                b"skipme" if value.eq_ignore_ascii_case(b"yes") => filter.skip_me = true,
                b"skipme" if value.eq_ignore_ascii_case(b"no") => filter.skip_me = false,
                b"id" | b"not-id" if server.is_valkey(8, 1) => {
                    let ids = several_ids(args, &mut index)?;
                    filter = filter.and(known(&option, server)?.0, What::Ids(ids));
                }
                _ => {
                    let (negated, name) = known(&option, server)?;
                    filter = filter.and(negated, what(negated, name, value, server, databases)?);
                }
            }
        }
        Ok(filter)
    }

    /// Of several of a kind the last one counts; ids add up.
    fn and(mut self, negated: bool, what: What) -> Self {
        let same_kind = |it: &Criterion| {
            it.negated == negated
                && std::mem::discriminant(&it.what) == std::mem::discriminant(&what)
        };
        let earlier = self.criteria.iter().position(same_kind);
        let earlier = earlier.map(|index| self.criteria.remove(index).what);
        let what = match (earlier, what) {
            (Some(What::Ids(mut ids)), What::Ids(more)) => {
                ids.extend(more);
                What::Ids(ids)
            }
            (_, what) => what,
        };
        self.criteria.push(Criterion { negated, what });
        self
    }

    /// The client with this address: `CLIENT KILL address`.
    pub fn for_address(address: &[u8]) -> Self {
        let what = What::Addr(address.to_vec());
        Self {
            criteria: vec![Criterion {
                negated: false,
                what,
            }],
            skip_me: false,
        }
    }

    /// Whether the filter lets this client pass, asked by the client `caller`.
    pub fn matches(&self, client: &ClientView, caller: u64) -> bool {
        !(self.skip_me && client.id == caller)
            && self
                .criteria
                .iter()
                .all(|it| it.what.holds(client) != it.negated)
    }

    /// The kind of client that is asked for. Primaries and replicas are clients of
    /// the server and not of Weir: the request is the server's to answer.
    pub fn kind(&self) -> Option<ClientKind> {
        self.criteria.iter().find_map(|it| match it.what {
            What::Kind(kind) if !it.negated => Some(kind),
            _ => None,
        })
    }

    /// The user that is asked for. If the server does not know it, the answer is
    /// [`no_such_user`].
    pub fn user(&self) -> Option<&[u8]> {
        self.criteria.iter().find_map(|it| match &it.what {
            What::User(user) => Some(&user[..]),
            _ => None,
        })
    }
}

/// The error line, without its `-`, for a filter by a user that does not exist.
pub fn no_such_user(user: &[u8]) -> Vec<u8> {
    [b"ERR No such user '", c_text(user), b"'"].concat()
}

/// Whether the option is negated, and its name without the `not-`.
fn known(option: &[u8], server: ServerVersion) -> Result<(bool, &[u8]), Vec<u8>> {
    let (negated, name) = match option.strip_prefix(b"not-") {
        Some(name) => (true, name),
        None => (false, option),
    };
    let is_known = match name {
        b"id" | b"type" | b"addr" | b"laddr" | b"user" => !negated || server.is_valkey(9, 0),
        b"maxage" => !negated && server.like_redis(7, 4),
        b"idle" => !negated && server.is_valkey(9, 0),
        b"flags" | b"name" | b"lib-name" | b"lib-ver" | b"db" | b"capa" | b"ip" => {
            server.is_valkey(9, 0)
        }
        _ => false,
    };
    if is_known {
        Ok((negated, name))
    } else {
        Err(SYNTAX_ERROR.into())
    }
}

fn what(
    negated: bool,
    name: &[u8],
    value: &[u8],
    server: ServerVersion,
    databases: u32,
) -> Result<What, Vec<u8>> {
    Ok(match name {
        b"id" => What::Ids(vec![one_id(value, server)?]),
        b"type" => What::Kind(kind(value, server)?),
        b"addr" => What::Addr(value.into()),
        b"laddr" => What::Laddr(value.into()),
        b"user" => What::User(value.into()),
        b"ip" => What::Ip(value.into()),
        b"name" => What::Name(value.into()),
        b"lib-name" => What::LibName(value.into()),
        b"lib-ver" => What::LibVer(value.into()),
        b"maxage" => What::MaxAge(above_zero("maxage", value)?),
        b"idle" => What::Idle(above_zero("idle", value)?),
        b"flags" => What::Flags(letters(negated, "flags", value, FLAG_LETTERS)?),
        b"capa" => What::Capa(letters(negated, "capa", value, b"r")?),
        b"db" => What::Db(database(negated, value, databases)?),
        _ => return Err(SYNTAX_ERROR.into()),
    })
}

const ID_ERROR: &[u8] = b"ERR client-id should be greater than 0";

fn one_id(value: &[u8], server: ServerVersion) -> Result<i64, Vec<u8>> {
    match integer(value) {
        // Redis 6.2 looks for any number, and finds no client below 1.
        id if !server.like_redis(7, 0) => {
            id.ok_or_else(|| b"ERR value is not an integer or out of range".to_vec())
        }
        Some(id @ 1..) => Ok(id),
        _ => Err(ID_ERROR.into()),
    }
}

/// The ids from the one before `index` on; `index` is left behind them.
fn several_ids(args: &(impl Args + ?Sized), index: &mut usize) -> Result<Vec<i64>, Vec<u8>> {
    let mut ids = Vec::new();
    *index -= 1;
    while let Some(id) = args.arg(*index).and_then(integer) {
        if id < 1 {
            return Err(ID_ERROR.into());
        }
        ids.push(id);
        *index += 1;
    }
    if ids.is_empty() {
        Err(SYNTAX_ERROR.into())
    } else {
        Ok(ids)
    }
}

fn kind(name: &[u8], server: ServerVersion) -> Result<ClientKind, Vec<u8>> {
    match &name.to_ascii_lowercase()[..] {
        b"normal" => Ok(ClientKind::Normal),
        b"pubsub" => Ok(ClientKind::Pubsub),
        b"master" => Ok(ClientKind::Primary),
        b"primary" if server.is_valkey(8, 0) => Ok(ClientKind::Primary),
        b"slave" | b"replica" => Ok(ClientKind::Replica),
        _ => Err([b"ERR Unknown client type '", c_text(name), b"'"].concat()),
    }
}

fn above_zero(name: &str, value: &[u8]) -> Result<i64, Vec<u8>> {
    match integer(value) {
        Some(number @ 1..) => Ok(number),
        Some(_) => Err(format!("ERR {name} should be greater than 0").into_bytes()),
        None => Err(format!("ERR {name} is not an integer or out of range").into_bytes()),
    }
}

fn letters(negated: bool, name: &str, value: &[u8], all: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
    if value.iter().all(|letter| all.contains(letter)) {
        return Ok(value.into());
    }
    let which = if negated {
        format!("NOT-{}", name.to_ascii_uppercase())
    } else {
        "provided".into()
    };
    let error = format!("ERR Unknown {name} found in the {which} filter: ");
    Err([error.as_bytes(), c_text(value)].concat())
}

fn database(negated: bool, value: &[u8], databases: u32) -> Result<i64, Vec<u8>> {
    let name = if negated { "NOT-DB" } else { "DB" };
    match integer(value) {
        Some(db) if (0..i64::from(databases)).contains(&db) => Ok(db),
        Some(_) => {
            let last = databases.saturating_sub(1);
            Err(format!("ERR {name} number should be between 0 and {last}").into_bytes())
        }
        None => Err(format!("ERR {name} is not an integer or out of range").into_bytes()),
    }
}

impl What {
    fn holds(&self, client: &ClientView) -> bool {
        // An empty value is never what a client has: it has none.
        let same = |wanted: &[u8], has: &str| !has.is_empty() && wanted == has.as_bytes();
        let at_least = |has: u64, least: i64| has >= least.unsigned_abs();
        match self {
            Self::Ids(ids) => ids.iter().any(|id| u64::try_from(*id) == Ok(client.id)),
            Self::Kind(kind) => *kind == client_kind(client),
            Self::Addr(addr) => addr == client.addr.as_bytes(),
            Self::Laddr(addr) => addr == client.laddr.as_bytes(),
            Self::Ip(ip) => ip == ip_of(&client.addr).as_bytes(),
            Self::User(user) => user == client.user.as_bytes(),
            Self::Name(name) => same(name, &client.name),
            Self::LibName(name) => same(name, &client.lib_name),
            Self::LibVer(version) => same(version, &client.lib_ver),
            Self::Flags(flags) => flags
                .iter()
                .all(|letter| client.flags.as_bytes().contains(letter)),
            Self::Capa(capa) => capa.is_empty() || client.redirect_capable,
            Self::Db(db) => i64::from(client.db) == *db,
            Self::MaxAge(age) => at_least(client.age, *age),
            Self::Idle(idle) => at_least(client.idle, *idle),
        }
    }
}

fn client_kind(client: &ClientView) -> ClientKind {
    if client.flags.contains('P') {
        ClientKind::Pubsub
    } else {
        ClientKind::Normal
    }
}

/// The address without its port and, for IPv6, without its brackets.
fn ip_of(addr: &str) -> &str {
    let ip = addr.rsplit_once(':').map_or(addr, |(ip, _)| ip);
    ip.strip_prefix('[')
        .and_then(|ip| ip.strip_suffix(']'))
        .unwrap_or(ip)
}

#[cfg(test)]
mod tests {
    use super::super::client_line::tests::recorded;
    use super::*;

    const REDIS_6_2: ServerVersion = ServerVersion::redis(6, 2);
    const REDIS_7_0: ServerVersion = ServerVersion::redis(7, 0);
    const VALKEY_9: ServerVersion = ServerVersion::valkey(9, 1);

    fn read(request: &str, server: ServerVersion) -> Result<ClientFilter, String> {
        let args: Vec<&str> = request
            .split(' ')
            .map(|arg| if arg == "\"\"" { "" } else { arg })
            .collect();
        let filter = if args[1].eq_ignore_ascii_case("list") {
            ClientFilter::for_list(&args, server, 16)
        } else {
            ClientFilter::for_kill(&args, server, 16)
        };
        filter.map_err(|error| String::from_utf8(error).expect("text"))
    }

    #[track_caller]
    fn says(request: &str, server: ServerVersion, error: &str) {
        assert_eq!(
            read(request, server),
            Err(format!("ERR {error}")),
            "{request}"
        );
    }

    #[test]
    fn errors_of_redis_read_as_recorded() {
        for (request, error) in [
            ("CLIENT LIST TYPE", "syntax error"),
            ("CLIENT LIST TYPE foo", "Unknown client type 'foo'"),
            ("CLIENT LIST FOO bar", "syntax error"),
            ("CLIENT LIST ID", "syntax error"),
            ("CLIENT LIST ID 1 abc", "Invalid client ID"),
            ("CLIENT LIST TYPE normal ID 999", "syntax error"),
            ("CLIENT KILL TYPE primary", "Unknown client type 'primary'"),
            ("CLIENT KILL USER default SKIPME foo", "syntax error"),
            ("CLIENT KILL ID 9999 FOO", "syntax error"),
            ("CLIENT KILL MAXAGE 5", "syntax error"),
            ("CLIENT KILL NAME foo", "syntax error"),
            ("CLIENT KILL NOT-ID 5", "syntax error"),
        ] {
            says(request, REDIS_7_0, error);
        }
        says(
            "CLIENT KILL ID abc",
            REDIS_7_0,
            "client-id should be greater than 0",
        );
        says(
            "CLIENT KILL ID 0",
            REDIS_7_0,
            "client-id should be greater than 0",
        );
        says(
            "CLIENT KILL ID abc",
            REDIS_6_2,
            "value is not an integer or out of range",
        );
        assert!(read("CLIENT KILL ID 0", REDIS_6_2).is_ok());
        assert!(read("CLIENT LIST ID 0 -1", REDIS_7_0).is_ok());
    }

    #[test]
    fn errors_of_valkey_read_as_recorded() {
        for (request, error) in [
            ("CLIENT LIST ID abc", "syntax error"),
            ("CLIENT LIST ID 1 abc", "syntax error"),
            ("CLIENT LIST ID 1 -1", "client-id should be greater than 0"),
            ("CLIENT LIST SKIPME foo", "syntax error"),
            ("CLIENT LIST MAXAGE 0", "maxage should be greater than 0"),
            (
                "CLIENT LIST MAXAGE abc",
                "maxage is not an integer or out of range",
            ),
            (
                "CLIENT LIST FLAGS NZ9",
                "Unknown flags found in the provided filter: NZ9",
            ),
            (
                "CLIENT LIST NOT-FLAGS Z",
                "Unknown flags found in the NOT-FLAGS filter: Z",
            ),
            ("CLIENT LIST IDLE 0", "idle should be greater than 0"),
            ("CLIENT LIST DB 99", "DB number should be between 0 and 15"),
            (
                "CLIENT LIST NOT-DB 99",
                "NOT-DB number should be between 0 and 15",
            ),
            ("CLIENT LIST DB abc", "DB is not an integer or out of range"),
            (
                "CLIENT LIST CAPA x",
                "Unknown capa found in the provided filter: x",
            ),
            (
                "CLIENT LIST NOT-CAPA x",
                "Unknown capa found in the NOT-CAPA filter: x",
            ),
            ("CLIENT LIST NOT-IDLE 1", "syntax error"),
            ("CLIENT KILL ID 5 6 ADDR", "syntax error"),
            (
                "CLIENT KILL MAXAGE abc",
                "maxage is not an integer or out of range",
            ),
        ] {
            says(request, VALKEY_9, error);
        }
    }

    #[test]
    fn a_filter_lets_pass_what_the_server_would() {
        let client = recorded();
        for (request, passes) in [
            ("CLIENT LIST", true),
            ("CLIENT LIST ID 7 8", true),
            ("CLIENT LIST ID 99999 ID 8", true),
            ("CLIENT LIST ID 8 NOT-ID 8", false),
            ("CLIENT LIST ID 9", false),
            ("CLIENT LIST SKIPME yes", false),
            ("CLIENT LIST TYPE normal", true),
            ("CLIENT LIST TYPE normal TYPE pubsub", false),
            ("CLIENT LIST NOT-TYPE normal", false),
            ("CLIENT LIST TYPE primary", false),
            ("CLIENT LIST USER default", true),
            ("CLIENT LIST ADDR 127.0.0.1:35088", true),
            ("CLIENT LIST LADDR 127.0.0.1:35088", false),
            ("CLIENT LIST IP 127.0.0.1", true),
            ("CLIENT LIST IP 127.0.0.1:35088", false),
            ("CLIENT LIST NAME ok", true),
            ("CLIENT LIST NAME OK", false),
            ("CLIENT LIST NOT-NAME ok", false),
            ("CLIENT LIST NOT-NAME \"\"", true),
            ("CLIENT LIST LIB-NAME \"\"", false),
            ("CLIENT LIST NOT-LIB-VER x", true),
            ("CLIENT LIST FLAGS \"\"", true),
            ("CLIENT LIST FLAGS NN", true),
            ("CLIENT LIST FLAGS NP", false),
            ("CLIENT LIST NOT-FLAGS NP", true),
            ("CLIENT LIST NOT-FLAGS \"\"", false),
            ("CLIENT LIST CAPA r", false),
            ("CLIENT LIST CAPA \"\"", true),
            ("CLIENT LIST NOT-CAPA \"\"", false),
            ("CLIENT LIST DB 0", true),
            ("CLIENT LIST MAXAGE 1", false),
            ("CLIENT LIST IDLE 1", false),
            ("CLIENT KILL ID 8", false),
            ("CLIENT KILL ID 8 SKIPME no", true),
            ("CLIENT KILL USER default TYPE normal SKIPME NO", true),
        ] {
            let filter = read(request, VALKEY_9).expect(request);
            assert_eq!(filter.matches(&client, 8), passes, "{request}");
        }
        let filter = read("CLIENT KILL ID 8", REDIS_7_0).expect("valid");
        assert!(filter.matches(&client, 9) && !filter.matches(&client, 8));
    }

    #[test]
    fn what_only_the_server_can_answer_is_visible() {
        let filter = read("CLIENT LIST TYPE slave", REDIS_7_0).expect("valid");
        assert_eq!(filter.kind(), Some(ClientKind::Replica));
        let filter = read("CLIENT KILL USER nobody SKIPME no", REDIS_7_0).expect("valid");
        assert_eq!(filter.user(), Some(&b"nobody"[..]));
        assert_eq!(no_such_user(b"nobody"), b"ERR No such user 'nobody'");
        assert_eq!(ip_of("[::1]:80"), "::1");
    }
}
