//! Lists of what clients are recognised by.

use toml::de::DeValue;

use super::{Found, Kind, describe, show_list};
use crate::config::Network;

/// Networks and addresses; none if nobody gave any.
pub(in crate::config) struct Networks;

impl Kind for Networks {
    type Value = Vec<Network>;

    fn accepts(&self) -> String {
        "an address or a network such as \"10.1.0.0/16\", or a list of them".to_owned()
    }

    fn read(&self, found: &Found<'_>) -> Result<Vec<Network>, String> {
        read(found, &self.accepts(), |text| text.parse().ok())
    }

    fn absent(&self) -> Option<Vec<Network>> {
        Some(Vec::new())
    }

    fn show(&self, value: &Vec<Network>) -> String {
        show_list(value)
    }
}

/// Names, in which `*` stands for anything and `?` for one byte; none if nobody gave any.
pub(in crate::config) struct Patterns;

impl Kind for Patterns {
    type Value = Vec<String>;

    fn accepts(&self) -> String {
        "a name such as \"batch-*\", in which * is anything and ? one byte, or a list of them"
            .to_owned()
    }

    fn read(&self, found: &Found<'_>) -> Result<Vec<String>, String> {
        const LENGTH_MAX: usize = 256;
        read(found, &self.accepts(), |text| {
            let is_one = !text.is_empty() && text.len() <= LENGTH_MAX;
            is_one.then(|| text.to_owned())
        })
    }

    fn absent(&self) -> Option<Vec<String>> {
        Some(Vec::new())
    }

    fn show(&self, value: &Vec<String>) -> String {
        show_list(value)
    }
}

/// Names of commands, or of groups of them; none if nobody gave any. Whether there are such
/// commands only the command table knows.
pub(in crate::config) struct CommandNames;

impl Kind for CommandNames {
    type Value = Vec<String>;

    fn accepts(&self) -> String {
        "a command such as \"flushall\" or \"config|set\", a group such as \"@shared\", or a \
         list of them"
            .to_owned()
    }

    fn read(&self, found: &Found<'_>) -> Result<Vec<String>, String> {
        const LENGTH_MAX: usize = 128;
        let belongs = |c: char| c.is_ascii_graphic() && !"\"\\,".contains(c);
        read(found, &self.accepts(), |text| {
            let is_one = !text.is_empty() && text.len() <= LENGTH_MAX && text.chars().all(belongs);
            is_one.then(|| text.to_ascii_lowercase())
        })
    }

    fn absent(&self) -> Option<Vec<String>> {
        Some(Vec::new())
    }
}

/// Beginnings of keys; none if nobody gave any. As patterns of channels begin with them
/// too, they are free of what has a meaning there.
pub(in crate::config) struct KeyPrefixes;

impl Kind for KeyPrefixes {
    type Value = Vec<String>;

    fn accepts(&self) -> String {
        "the beginning of a key such as \"orders:\", without * ? [ ] \\, or a list of them"
            .to_owned()
    }

    fn read(&self, found: &Found<'_>) -> Result<Vec<String>, String> {
        const LENGTH_MAX: usize = 1024;
        read(found, &self.accepts(), |text| {
            let is_one = (1..=LENGTH_MAX).contains(&text.len())
                && !text.contains(['*', '?', '[', ']', '\\']);
            is_one.then(|| text.to_owned())
        })
    }

    fn absent(&self) -> Option<Vec<String>> {
        Some(Vec::new())
    }
}

/// One or several.
fn read<T>(
    found: &Found<'_>,
    accepts: &str,
    one: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, String> {
    let item = |value: &DeValue<'_>| {
        value
            .as_str()
            .and_then(&one)
            .ok_or_else(|| format!("expected {accepts}, found {}", describe(value)))
    };
    match found.value {
        DeValue::Array(list) if list.is_empty() => {
            Err(format!("expected {accepts}, found an empty list"))
        }
        DeValue::Array(list) => list.iter().map(|value| item(value.get_ref())).collect(),
        single => Ok(vec![item(single)?]),
    }
}
