//! A configuration file, from text to [`Config`].

use std::io::{self, Read};
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::agree::agree;
use super::definition::Section;
use super::flags::Flags;
use super::kind::Sources;
use super::mistake::{Mistake, Mistakes};
use super::reader::{Entry, Reader, join};
use super::source::{self, Override};
use super::{Access, BackendTls, Config, Limit, Listener, Route, TopologyKind, User};

/// The longest file that Weir reads, in bytes: a thousand routes fit many times.
const FILE_LEN_MAX: u64 = 4 << 20;
/// The longest name of a route: it stands in every log line and metric of it.
const ROUTE_NAME_LEN_MAX: usize = 64;

const ROOT_PARTS: &[&str] = &["process", "log", "admin", "traces", "route"];
const ROUTE_PARTS: &[&str] = &[
    "clients", "limits", "access", "backend", "failover", "auth", "timeouts", "overload", "health",
    "listener",
];

/// Reads and checks the file at `path`; what `flags` name has precedence over it.
///
/// # Errors
///
/// Every mistake in it, or that it can not be read.
pub(super) fn load(path: &Path, flags: &Flags, sources: Sources<'_>) -> Result<Config, Mistakes> {
    let name = path.display().to_string();
    let text = read(path).map_err(|problem| {
        Mistakes(vec![Mistake {
            source: name.clone(),
            line: None,
            key: String::new(),
            problem,
        }])
    })?;
    parse(&name, &text, flags, sources, &[])
}

pub(super) fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error: io::Error| format!("can not be read: {error}"))?;
    if bytes.len() as u64 > FILE_LEN_MAX {
        return Err("expected a configuration file, found one of more than 4MiB".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "expected text in UTF-8, found other bytes".to_owned())
}

/// Checks the text of a file that is called `name` in mistakes.
///
/// # Errors
///
/// Every mistake in it.
pub(super) fn parse(
    name: &str,
    text: &str,
    flags: &Flags,
    sources: Sources<'_>,
    overrides: &[Override],
) -> Result<Config, Mistakes> {
    let mut reader = Reader::new(name, text, sources);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        reader.not_toml(error.span().map(|span| span.start), error.message());
    }
    let mut config = root(&mut reader, document.get_ref());
    flags.apply(&mut config, &mut reader);
    source::apply(overrides, &mut config, &mut reader);
    if reader.is_whole() {
        agree(&mut config, &mut reader);
    }
    reader.finish(config)
}

fn root(reader: &mut Reader<'_>, document: &DeTable<'_>) -> Config {
    let mut config = Config::empty();
    let mut has_route = false;
    for entry in reader.entries(document) {
        match entry.key {
            "process" => section(reader, &mut config.process, "process", &entry),
            "log" => section(reader, &mut config.log, "log", &entry),
            "admin" => section(reader, &mut config.admin, "admin", &entry),
            "traces" => section(reader, &mut config.traces, "traces", &entry),
            "route" => {
                has_route = true;
                config.routes = routes(reader, &entry);
            }
            _ => {
                let known: Vec<_> = ROOT_PARTS.iter().map(|part| (*part).to_owned()).collect();
                reader.unknown("", &entry, &known);
            }
        }
    }
    if !has_route && reader.is_whole() {
        reader.mistake(
            None,
            "route",
            "expected a section [route.NAME] with a backend, found none",
        );
    }
    config
}

/// A section that has settings only.
fn section<S: Section>(reader: &mut Reader<'_>, section: &mut S, path: &str, entry: &Entry<'_>) {
    let entries = reader.section_entries(path, entry);
    reader.settings(section, path, entries, &[]);
}

fn routes(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Vec<Route> {
    let named = reader.section_entries("route", entry);
    if named.is_empty() && entry.value.is_table() {
        let problem = "expected a section [route.NAME] with a backend, found none";
        reader.mistake(Some(entry.line), "route", problem);
    }
    named.iter().map(|entry| route(reader, entry)).collect()
}

fn route(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Route {
    let path = join("route", entry.key);
    let mut route = Route {
        name: entry.key.to_owned(),
        ..Route::default()
    };
    if !is_route_name(entry.key) {
        let problem = not_a_name(entry.key);
        reader.mistake(Some(entry.line), &path, problem);
    }
    if !entry.value.is_table() {
        reader.section_entries(&path, entry);
        return route;
    }
    let entries = reader.section_entries(&path, entry);
    let mut backend_line = entry.line;
    for part in reader.settings(&mut route, &path, entries, ROUTE_PARTS) {
        let path = join(&path, part.key);
        match part.key {
            "clients" => section(reader, &mut route.clients, &path, &part),
            "failover" => section(reader, &mut route.failover, &path, &part),
            "timeouts" => section(reader, &mut route.timeouts, &path, &part),
            "health" => section(reader, &mut route.health, &path, &part),
            "overload" => section(reader, &mut route.overload, &path, &part),
            "limits" => {
                let name = |limit: &mut Limit, name| limit.name = name;
                route.limits = named_sections(reader, &path, &part, name);
            }
            "access" => {
                let name = |access: &mut Access, name| access.name = name;
                route.access = named_sections(reader, &path, &part, name);
            }
            "auth" => auth(reader, &mut route, &path, &part),
            "listener" => listeners(reader, &mut route, &path, &part),
            "backend" => {
                backend_line = part.line;
                backend(reader, &mut route, &path, &part);
            }
            _ => unreachable!("settings() returns only the parts it was asked for"),
        }
    }
    let backend = join(&path, "backend");
    // Other topologies are found by other settings than one address.
    if route.backend.topology == TopologyKind::Standalone {
        reader.require::<super::Backend>(&backend, Some(backend_line));
    }
    route
}

/// The section, or the address alone.
fn backend(reader: &mut Reader<'_>, route: &mut Route, path: &str, entry: &Entry<'_>) {
    let entries = match entry.value {
        DeValue::Table(_) => reader.section_entries(path, entry),
        address => vec![Entry {
            key: "address",
            line: entry.line,
            value: address,
        }],
    };
    for part in reader.settings(&mut route.backend, path, entries, &["tls"]) {
        let mut tls = BackendTls::default();
        section(reader, &mut tls, &join(path, "tls"), &part);
        route.backend.tls = Some(tls);
    }
}

fn listeners(reader: &mut Reader<'_>, route: &mut Route, path: &str, entry: &Entry<'_>) {
    for named in reader.section_entries(path, entry) {
        let path = join(path, named.key);
        let mut listener = Listener {
            name: named.key.to_owned(),
            ..Listener::default()
        };
        if !is_route_name(named.key) {
            reader.mistake(Some(named.line), &path, not_a_name(named.key));
        }
        section(reader, &mut listener, &path, &named);
        if named.value.is_table() {
            reader.require::<Listener>(&path, Some(named.line));
        }
        route.listeners.push(listener);
    }
}

/// Sections that are named as one likes, such as `[route.NAME.limits.NAME]`, in the order
/// of the file.
fn named_sections<S: Section>(
    reader: &mut Reader<'_>,
    path: &str,
    entry: &Entry<'_>,
    set_name: fn(&mut S, String),
) -> Vec<S> {
    let mut sections = Vec::new();
    for named in reader.section_entries(path, entry) {
        let path = join(path, named.key);
        let mut section = S::default();
        set_name(&mut section, named.key.to_owned());
        if !is_route_name(named.key) {
            let problem = not_a_name(named.key);
            reader.mistake(Some(named.line), &path, problem);
        }
        let entries = reader.section_entries(&path, &named);
        reader.settings(&mut section, &path, entries, &[]);
        sections.push(section);
    }
    sections
}

fn auth(reader: &mut Reader<'_>, route: &mut Route, path: &str, entry: &Entry<'_>) {
    let entries = reader.section_entries(path, entry);
    for users in reader.settings(&mut route.auth, path, entries, &["users"]) {
        let path = join(path, "users");
        for named in reader.section_entries(&path, &users) {
            let user = user(reader, &join(&path, named.key), &named);
            route.auth.users.push(user);
        }
    }
    route.auth.users.sort_by(|a, b| a.name.cmp(&b.name));
}

fn user(reader: &mut Reader<'_>, path: &str, entry: &Entry<'_>) -> User {
    let mut user = User {
        name: entry.key.to_owned(),
        ..User::default()
    };
    if entry.key.is_empty() || entry.key.contains(|c: char| c.is_whitespace() || c == '\0') {
        let problem = format!("expected a name without spaces, found {:?}", entry.key);
        reader.mistake(Some(entry.line), path, problem);
    }
    let entries = reader.section_entries(path, entry);
    if entry.value.is_table() {
        reader.settings(&mut user, path, entries, &[]);
        reader.require::<User>(path, Some(entry.line));
    }
    user
}

fn not_a_name(found: &str) -> String {
    format!(
        "expected a name of at most {ROUTE_NAME_LEN_MAX} letters, digits, \"-\" and \"_\", \
         found {found:?}"
    )
}

fn is_route_name(name: &str) -> bool {
    (1..=ROUTE_NAME_LEN_MAX).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}
