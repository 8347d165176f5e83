//! The kinds of values that settings have: what each accepts and how it reads it.

mod address;
mod file;
mod list;
mod number;
mod or_off;
mod password;
mod share;
mod text;
mod url;

pub(super) use address::{HostPort, HostPorts, LISTEN_OR_OFF, Listen, ListenAt};
pub use address::{ListenAddress, UNIX_PREFIX};
pub use file::Owner;
pub(super) use file::{Files, OptionalFile, OptionalMode, OptionalOwner};
pub(super) use list::{CommandNames, KeyPrefixes, Networks, Patterns};
pub(super) use number::{Count, DAY, GIB, HOUR, KIB, MIB, MILLISECOND, Size, Time};
pub(super) use password::{OptionalPassword, Password};
pub(super) use share::Share;
pub(super) use text::{Choice, Filter, OptionalText, Switch};
pub(super) use url::HTTP_OR_OFF;
pub use url::HttpUrl;

use std::path::Path;

use toml::de::DeValue;

/// What values may refer to outside the file.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// Looks up an environment variable.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// What relative paths are relative to: the directory of the file.
    pub directory: &'a Path,
}

impl Sources<'_> {
    /// No environment, and the working directory.
    pub fn none() -> Sources<'static> {
        Sources {
            environment: &|_| None,
            directory: Path::new(""),
        }
    }
}

/// How one setting's values are read.
pub(super) trait Kind {
    /// What it reads them into.
    type Value: std::fmt::Debug;

    /// What it accepts, to follow the word "expected".
    fn accepts(&self) -> String;

    /// Reads a value, or says what was expected and what was found.
    fn read(&self, found: &Found<'_>) -> Result<Self::Value, String>;

    /// The value of a setting that nobody gave and that has no default.
    fn absent(&self) -> Option<Self::Value> {
        None
    }

    /// The value as it would be written, without quotes. Never a password.
    fn show(&self, value: &Self::Value) -> String {
        format!("{value:?}")
    }

    /// What tells two values apart; not to be shown.
    fn identity(&self, value: &Self::Value) -> Vec<u8> {
        self.show(value).into_bytes()
    }

    /// Endings of the key under which it may be given.
    fn forms(&self) -> &'static [&'static str] {
        &[""]
    }
}

/// [`Kind::accepts`] of a kind that reads values of the type `V`.
pub(super) fn accepts<V: std::fmt::Debug>(kind: &dyn Kind<Value = V>) -> String {
    kind.accepts()
}

/// [`Kind::forms`] of a kind that reads values of the type `V`.
pub(super) fn forms<V: std::fmt::Debug>(kind: &dyn Kind<Value = V>) -> &'static [&'static str] {
    kind.forms()
}

/// A value as found in the file, for a kind to read.
pub(super) struct Found<'a> {
    pub(super) value: &'a DeValue<'a>,
    /// Which ending of the key it was given under: one of [`Kind::forms`].
    pub(super) form: &'a str,
    pub(super) sources: Sources<'a>,
}

impl<'a> Found<'a> {
    pub(super) fn new(value: &'a DeValue<'a>, form: &'a str, sources: Sources<'a>) -> Found<'a> {
        Found {
            value,
            form,
            sources,
        }
    }

    /// "expected …, found …".
    fn not(&self, expected: &str) -> String {
        format!("expected {expected}, found {}", describe(self.value))
    }
}

/// A list as it would be written; the only one of a list alone and without quotes.
pub(super) fn show_list<T: ToString>(items: &[T]) -> String {
    let texts: Vec<String> = items.iter().map(ToString::to_string).collect();
    match texts.as_slice() {
        [] => String::new(),
        [text] => text.clone(),
        texts => format!("{texts:?}"),
    }
}

/// A value as it is quoted in a mistake.
pub(super) fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quote(text),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(switch) => switch.to_string(),
        other => type_of(other).to_owned(),
    }
}

/// What a value is, for where the value itself is better not shown.
pub(super) fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

/// A text in quotes, cut where it gets long. An address with an `@` may hold a
/// password (`redis://user:password@host`), so what stands before it is hidden.
fn quote(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    let text = match text.rsplit_once('@') {
        Some((_, after)) => format!("…@{after}"),
        None => text.to_owned(),
    };
    if text.chars().count() <= SHOWN_MAX {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(SHOWN_MAX).collect();
    format!("{:?}", start + "…")
}
