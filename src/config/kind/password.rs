//! Passwords: written out, or better the name of where they are.

use std::path::Path;

use toml::de::DeValue;

use super::{Found, Kind, type_of};
use crate::config::Secret;

const FORMS: &[&str] = &["", "_env", "_file"];

/// A password that has to be there.
pub(in crate::config) struct Password;

impl Kind for Password {
    type Value = Secret;

    fn accepts(&self) -> String {
        "a password, or the name of an environment variable (_env) or file (_file) that holds it"
            .to_owned()
    }

    fn read(&self, found: &Found<'_>) -> Result<Secret, String> {
        match found.form {
            "_env" => from_environment(found),
            "_file" => from_file(found),
            _ => inline(found),
        }
    }

    fn absent(&self) -> Option<Secret> {
        Some(Secret::default())
    }

    fn show(&self, value: &Secret) -> String {
        value.to_string()
    }

    fn identity(&self, value: &Secret) -> Vec<u8> {
        value.expose().to_vec()
    }

    fn forms(&self) -> &'static [&'static str] {
        FORMS
    }
}

/// A password that may be left out.
pub(in crate::config) struct OptionalPassword;

impl Kind for OptionalPassword {
    type Value = Option<Secret>;

    fn accepts(&self) -> String {
        Password.accepts()
    }

    fn read(&self, found: &Found<'_>) -> Result<Option<Secret>, String> {
        Password.read(found).map(Some)
    }

    fn absent(&self) -> Option<Option<Secret>> {
        Some(None)
    }

    fn show(&self, value: &Option<Secret>) -> String {
        value.as_ref().map_or(String::new(), ToString::to_string)
    }

    fn identity(&self, value: &Option<Secret>) -> Vec<u8> {
        value
            .as_ref()
            .map_or(Vec::new(), |secret| Password.identity(secret))
    }

    fn forms(&self) -> &'static [&'static str] {
        FORMS
    }
}

/// The value itself is never quoted, since it may be the password after all.
fn inline(found: &Found<'_>) -> Result<Secret, String> {
    match found.value {
        DeValue::String(text) if !text.is_empty() => Ok(Secret::new(text.as_bytes())),
        DeValue::String(_) => {
            Err("expected a password, found an empty one; leave the key out for none".to_owned())
        }
        other => Err(format!(
            "expected a password in quotes, found {}",
            type_of(other)
        )),
    }
}

fn from_environment(found: &Found<'_>) -> Result<Secret, String> {
    let expected = "expected the name of an environment variable that holds a password";
    let Some(variable) = found.value.as_str().filter(|name| is_variable(name)) else {
        return Err(format!("{expected}, found something else"));
    };
    match (found.sources.environment)(variable) {
        Some(password) if !password.is_empty() => Ok(Secret::from_environment(variable, &password)),
        Some(_) => Err(format!("{expected}, found {variable}, which is empty")),
        None => Err(format!("{expected}, found {variable}, which is not set")),
    }
}

fn from_file(found: &Found<'_>) -> Result<Secret, String> {
    let expected = "expected the path of a file that holds a password";
    let Some(path) = found.value.as_str().filter(|path| !path.is_empty()) else {
        return Err(found.not("the path of a file that holds a password"));
    };
    let path = found.sources.directory.join(Path::new(path));
    Secret::from_file(&path)
        .map_err(|error| format!("{expected}, found {}: {error}", path.display()))
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
