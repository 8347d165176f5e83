//! The reference, written from the definitions: `config/weir.toml` and
//! `docs/CONFIGURATION.md`. A test fails when the files differ from it.

use std::fmt::Write;

use super::definition::Section;
use super::section::{
    Access, Admin, Auth, Backend, BackendTls, Clients, Failover, Health, Limit, Listener, Log,
    Overload, Process, Route, Timeouts, Traces, User,
};

pub use super::definition::{Facts, Fallback, Reload};

/// A section of the reference.
#[derive(Debug, Clone)]
pub struct Chapter {
    /// Its header in a file, such as `route.NAME.backend`.
    pub path: &'static str,
    /// What it is for; one entry per line.
    pub about: &'static [&'static str],
    /// Its settings.
    pub settings: Vec<Facts>,
}

/// All sections, in the order of the reference.
pub fn chapters() -> Vec<Chapter> {
    vec![
        chapter::<Process>("process"),
        chapter::<Log>("log"),
        chapter::<Admin>("admin"),
        chapter::<Traces>("traces"),
        chapter::<Route>("route.NAME"),
        chapter::<Listener>("route.NAME.listener.NAME"),
        chapter::<Backend>("route.NAME.backend"),
        chapter::<BackendTls>("route.NAME.backend.tls"),
        chapter::<Failover>("route.NAME.failover"),
        chapter::<Clients>("route.NAME.clients"),
        chapter::<Limit>("route.NAME.limits.NAME"),
        chapter::<Access>("route.NAME.access.NAME"),
        chapter::<Timeouts>("route.NAME.timeouts"),
        chapter::<Health>("route.NAME.health"),
        chapter::<Overload>("route.NAME.overload"),
        chapter::<Auth>("route.NAME.auth"),
        chapter::<User>("route.NAME.auth.users.NAME"),
    ]
}

fn chapter<S: Section>(path: &'static str) -> Chapter {
    Chapter {
        path,
        about: S::ABOUT,
        settings: S::facts(),
    }
}

/// The section that has a setting of this name, or that is called so.
pub(super) fn section_with(name: &str) -> Option<&'static str> {
    let chapters = chapters();
    let is_called = |chapter: &&Chapter| chapter.path.rsplit('.').next() == Some(name);
    let has = |chapter: &&Chapter| chapter.settings.iter().any(|facts| facts.name == name);
    let section = chapters.iter().find(has).map(|chapter| chapter.path);
    section.or_else(|| {
        let named = chapters.iter().find(is_called)?;
        Some(
            named
                .path
                .rsplit_once('.')
                .map_or(named.path, |(parent, _)| parent),
        )
    })
}

/// What stands at the head of `config/weir.toml`.
const FILE_HEAD: &str = "\
# Weir's configuration: every setting with its default and why it is that.
#
# All of it is optional but the backend's address. A line that is commented out
# shows the default; remove the \"# \" to change it. An unknown key is an error.
# `weir check --config FILE` names every mistake in a file.
#
# Durations: \"250ms\", \"5s\", \"1m30s\", \"1h\", \"1d\". Sizes: \"512KB\", \"64MiB\", \"1GiB\",
# or a number of bytes. Shorter files to start from: examples/ beside this one.
#
# Written from the definitions in src/config/section; do not edit it by hand.
";

/// The text of `config/weir.toml`: every setting with its default and why. What
/// it takes to run is active, the rest is commented out.
pub fn file() -> String {
    let mut text = FILE_HEAD.to_owned();
    for chapter in chapters() {
        // What one names as one likes is there only as an example, and so is what changes
        // how Weir serves by only being there.
        let is_example = chapter.path.matches("NAME").count() > 1 || chapter.path.ends_with(".tls");
        let of_user = chapter.path.ends_with("users.NAME");
        let header = chapter
            .path
            .replace("users.NAME", "users.alice")
            .replace("limits.NAME", "limits.batch")
            .replace("access.NAME", "access.reports")
            .replace("listener.NAME", "listener.public")
            .replace("NAME", "main");
        text.push('\n');
        comment(&mut text, chapter.about);
        let _ = writeln!(text, "{}[{header}]", if is_example { "# " } else { "" });
        for facts in &chapter.settings {
            text.push('\n');
            comment(&mut text, facts.doc);
            let accepts = capitalised(&(facts.accepts)());
            let _ = writeln!(text, "# {accepts}. {}.", changes(facts));
            let active = matches!(facts.name, "listen" | "address") && !is_example;
            for line in lines(facts, of_user) {
                let _ = writeln!(text, "{}{line}", if active { "" } else { "# " });
            }
        }
    }
    text
}

/// A setting as lines of a file: its default, or how it might look.
fn lines(facts: &Facts, of_user: bool) -> Vec<String> {
    let forms = (facts.forms)();
    let example = facts.example.first().copied().unwrap_or("\"\"");
    match facts.fallback {
        Fallback::Value(value) => vec![format!("{} = {value}", facts.name)],
        Fallback::Nothing | Fallback::Required => forms
            .iter()
            .map(|form| {
                format!(
                    "{}{form} = {}",
                    facts.name,
                    example_of(form, of_user, example)
                )
            })
            .collect(),
    }
}

/// What to show for a form of a setting that has no default.
fn example_of<'a>(form: &str, of_user: bool, example: &'a str) -> &'a str {
    match (form, of_user) {
        ("_env", false) => "\"REDIS_PASSWORD\"",
        ("_env", true) => "\"ALICE_PASSWORD\"",
        ("_file", false) => "\"/run/secrets/redis\"",
        ("_file", true) => "\"/run/secrets/alice\"",
        _ => example,
    }
}

fn comment(text: &mut String, lines: &[&str]) {
    for line in lines {
        let _ = writeln!(text, "#{}", line.trim_end());
    }
}

fn capitalised(sentence: &str) -> String {
    let mut letters = sentence.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

/// What stands at the head of `docs/CONFIGURATION.md`.
const PAGE_HEAD: &str = "\
# Configuration

<!-- Written from the definitions in src/config/section; do not edit it by hand. -->

Weir reads one file in [TOML](https://toml.io): `weir --config weir.toml`. Everything in it
is optional but where Redis is. The shortest file that runs:

```toml
[route.main]
backend = \"127.0.0.1:6379\"
```

- `weir check --config weir.toml` names every mistake at once, each as
  `file:line: key: what was expected, what was found`, and exits with 1 if there is any.
- An unknown section or key is a mistake, and the nearest known one is named.
- Durations are numbers with units, biggest first: `250ms`, `5s`, `1m30s`, `1h`, `1d`. Sizes are one number
  with one unit: `512KB` (powers of 1000), `64MiB`, `1GiB` (powers of 1024), or a number of bytes.
- A password can be given as `password`, or better as `password_env`, the name of an
  environment variable, or `password_file`, a path; a relative one begins at the
  configuration file, and a newline at the end of the file is not part of the password.
- Where one setting bounds another, such as `max_connections` and its shares, a
  default gives way by itself; a written value above the bound is a mistake.
- A [reload](OPERATIONS.md#changing-settings) takes over what has changed: at once, or for
  connections that are opened from then on, as is said of each setting. It is refused as a whole where
  a setting changes by a restart only.
- `--workers`, `--admin` and the environment variable `WEIR_LOG` have precedence over the file.
- `config/weir.toml` holds all settings, and `config/examples` short files for common uses.
";

/// The text of `docs/CONFIGURATION.md`.
pub fn page() -> String {
    let mut text = PAGE_HEAD.to_owned();
    for chapter in chapters() {
        let _ = write!(text, "\n## `[{}]`\n\n", chapter.path);
        paragraph(&mut text, chapter.about);
        for facts in &chapter.settings {
            let _ = write!(text, "\n### `{}`\n\n", facts.name);
            paragraph(&mut text, facts.doc);
            let _ = write!(
                text,
                "\n*{}. {}. {}.*\n",
                capitalised(&(facts.accepts)()),
                default_of(facts),
                changes(facts)
            );
        }
    }
    text
}

fn paragraph(text: &mut String, lines: &[&str]) {
    for line in lines {
        let _ = writeln!(text, "{}", line.trim());
    }
}

/// When a change takes effect that a reload finds.
fn changes(facts: &Facts) -> String {
    format!("Changes {}", facts.reload.text())
}

fn default_of(facts: &Facts) -> String {
    match facts.fallback {
        Fallback::Value(value) => format!("Default: `{value}`"),
        Fallback::Nothing => "Default: none".to_owned(),
        Fallback::Required => "Has to be given".to_owned(),
    }
}
