//! Switches, choices and free text.

use toml::de::DeValue;

use super::{Found, Kind};

/// On or off.
pub(in crate::config) struct Switch;

impl Kind for Switch {
    type Value = bool;

    fn accepts(&self) -> String {
        "true or false".to_owned()
    }

    fn read(&self, found: &Found<'_>) -> Result<bool, String> {
        found
            .value
            .as_bool()
            .ok_or_else(|| found.not(&self.accepts()))
    }
}

/// One of a few words.
pub(in crate::config) struct Choice<T: 'static>(pub(in crate::config) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq + std::fmt::Debug> Kind for Choice<T> {
    type Value = T;

    fn accepts(&self) -> String {
        let words: Vec<String> = self.0.iter().map(|(word, _)| format!("{word:?}")).collect();
        match words.split_last() {
            Some((last, others)) if !others.is_empty() => {
                format!("{} or {last}", others.join(", "))
            }
            _ => words.concat(),
        }
    }

    fn read(&self, found: &Found<'_>) -> Result<T, String> {
        let chosen = found.value.as_str();
        self.0
            .iter()
            .find(|(word, _)| Some(*word) == chosen)
            .map(|(_, value)| *value)
            .ok_or_else(|| found.not(&self.accepts()))
    }

    fn show(&self, value: &T) -> String {
        let word = self.0.iter().find(|(_, known)| known == value);
        word.map_or_else(|| format!("{value:?}"), |(word, _)| (*word).to_owned())
    }
}

/// A text that may be left out, but not empty.
pub(in crate::config) struct OptionalText;

impl Kind for OptionalText {
    type Value = Option<String>;

    fn accepts(&self) -> String {
        "a text that is not empty".to_owned()
    }

    fn read(&self, found: &Found<'_>) -> Result<Option<String>, String> {
        match found.value {
            DeValue::String(text) if !text.is_empty() => Ok(Some(text.to_string())),
            _ => Err(found.not(&self.accepts())),
        }
    }

    fn absent(&self) -> Option<Option<String>> {
        Some(None)
    }

    fn show(&self, value: &Option<String>) -> String {
        value.clone().unwrap_or_default()
    }
}

/// Log levels: one for all, and others for named modules.
pub(in crate::config) struct Filter;

impl Kind for Filter {
    type Value = String;

    fn accepts(&self) -> String {
        "a log filter such as \"info\" or \"info,weir::backend=debug\"".to_owned()
    }

    fn read(&self, found: &Found<'_>) -> Result<String, String> {
        found
            .value
            .as_str()
            .filter(|text| text.split(',').all(is_directive))
            .map(str::to_owned)
            .ok_or_else(|| found.not(&self.accepts()))
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }
}

/// A level, or a module with its level. A filter library would take any word
/// alone for the name of a module and then log nothing at all.
fn is_directive(directive: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_module = |name: &str| {
        !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
    };
    match directive.split_once('=') {
        Some((module, level)) => is_module(module) && LEVELS.contains(&level),
        None => LEVELS.contains(&directive),
    }
}

#[cfg(test)]
mod tests {
    use super::is_directive;
    use tracing_subscriber::filter::Targets;

    #[test]
    fn what_is_accepted_as_a_filter_is_one() {
        for text in ["info", "off", "weir::backend=debug", "hyper=off"] {
            assert!(is_directive(text), "{text}");
            assert!(text.parse::<Targets>().is_ok(), "{text}");
        }
    }

    #[test]
    fn a_misspelt_level_is_no_module() {
        for text in [
            "",
            "inf",
            "INFO ",
            "weir=",
            "=info",
            "weir=inf",
            "weir[x]=info",
            "a=b=info",
        ] {
            assert!(!is_directive(text), "{text}");
        }
    }
}
