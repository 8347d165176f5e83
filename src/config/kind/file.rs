//! Files: their paths, their permissions and whom they belong to.

use std::path::PathBuf;

use toml::de::DeValue;

use super::{Found, Kind, describe, show_list};

/// The path of one file or of several; a relative one begins at the configuration file.
pub(in crate::config) struct Files;

impl Kind for Files {
    type Value = Vec<PathBuf>;

    fn accepts(&self) -> String {
        "the path of a file, or a list of them".to_owned()
    }

    fn read(&self, found: &Found<'_>) -> Result<Vec<PathBuf>, String> {
        let path = |value: &DeValue<'_>| {
            let text = value.as_str().filter(|path| is_path(path));
            text.map(|path| found.sources.directory.join(path))
                .ok_or_else(|| format!("expected {}, found {}", self.accepts(), describe(value)))
        };
        match found.value {
            DeValue::Array(list) => list.iter().map(|item| path(item.get_ref())).collect(),
            single => Ok(vec![path(single)?]),
        }
    }

    fn absent(&self) -> Option<Vec<PathBuf>> {
        Some(Vec::new())
    }

    fn show(&self, value: &Vec<PathBuf>) -> String {
        let paths: Vec<_> = value.iter().map(|path| path.display()).collect();
        show_list(&paths)
    }
}

/// The path of a file that need not be given.
pub(in crate::config) struct OptionalFile;

impl Kind for OptionalFile {
    type Value = Option<PathBuf>;

    fn accepts(&self) -> String {
        "the path of a file".to_owned()
    }

    fn read(&self, found: &Found<'_>) -> Result<Option<PathBuf>, String> {
        let text = found.value.as_str().filter(|path| is_path(path));
        text.map(|path| Some(found.sources.directory.join(path)))
            .ok_or_else(|| found.not(&self.accepts()))
    }

    fn absent(&self) -> Option<Option<PathBuf>> {
        Some(None)
    }

    fn show(&self, value: &Option<PathBuf>) -> String {
        value
            .as_ref()
            .map_or(String::new(), |path| path.display().to_string())
    }
}

fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.contains('\0')
}

/// Who may do what with a file, in octal as chmod takes it.
pub(in crate::config) struct OptionalMode;

impl Kind for OptionalMode {
    type Value = Option<u32>;

    fn accepts(&self) -> String {
        "permissions in octal such as \"0660\"".to_owned()
    }

    fn read(&self, found: &Found<'_>) -> Result<Option<u32>, String> {
        let text = found.value.as_str().filter(|text| {
            (3..=4).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'))
        });
        text.and_then(|text| u32::from_str_radix(text, 8).ok())
            .filter(|mode| *mode <= 0o777)
            .map(Some)
            .ok_or_else(|| found.not(&self.accepts()))
    }

    fn absent(&self) -> Option<Option<u32>> {
        Some(None)
    }

    fn show(&self, value: &Option<u32>) -> String {
        value.map_or(String::new(), |mode| format!("{mode:04o}"))
    }
}

/// Whom a file belongs to: a user, a group, or both; each by name or number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The user; `None` leaves the one that Weir runs as.
    pub user: Option<String>,
    /// The group; `None` leaves the one that Weir runs as.
    pub group: Option<String>,
}

/// Whom a file belongs to, as chown takes it.
pub(in crate::config) struct OptionalOwner;

impl Kind for OptionalOwner {
    type Value = Option<Owner>;

    fn accepts(&self) -> String {
        "a user, a group or both such as \"redis\", \":www-data\" or \"redis:www-data\"".to_owned()
    }

    fn read(&self, found: &Found<'_>) -> Result<Option<Owner>, String> {
        let text = found.value.as_str().unwrap_or_default();
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        let name = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        let owner = Owner {
            user: name(user),
            group: name(group),
        };
        let is_name = |name: &Option<String>| {
            name.as_ref().is_none_or(|name| {
                !name.contains(|c: char| c.is_whitespace() || c == ':' || c == '\0')
            })
        };
        let is_one = (owner.user.is_some() || owner.group.is_some())
            && is_name(&owner.user)
            && is_name(&owner.group);
        if !is_one {
            return Err(found.not(&self.accepts()));
        }
        Ok(Some(owner))
    }

    fn absent(&self) -> Option<Option<Owner>> {
        Some(None)
    }

    fn show(&self, value: &Option<Owner>) -> String {
        let Some(Owner { user, group }) = value else {
            return String::new();
        };
        let user = user.as_deref().unwrap_or_default();
        match group {
            Some(group) => format!("{user}:{group}"),
            None => user.to_owned(),
        }
    }
}
