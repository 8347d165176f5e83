//! Where the settings came from, to be read again, and single settings put over them
//! while Weir runs.

use std::path::{Path, PathBuf};

use super::definition::{Reload, Section};
use super::flags::Flags;
use super::kind::Sources;
use super::mistake::{Mistake, Mistakes};
use super::reader::{Reader, join};
use super::{Config, Limit, file};

/// Where an override is, in mistakes.
const CONSOLE: &str = "console";

/// A file as it was read, with what the command line puts over it; or the command line
/// alone.
#[derive(Debug, Clone)]
pub struct Source {
    path: Option<PathBuf>,
    text: String,
    flags: Flags,
}

/// A setting given while Weir runs: its full name and its value, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// Such as `route.main.backend.max_connections`.
    pub key: String,
    /// Without quotes.
    pub value: String,
}

impl Source {
    /// The file at this path, read now, under these flags.
    ///
    /// # Errors
    /// That it can not be read.
    pub fn file(path: &Path, flags: Flags) -> Result<Source, Mistakes> {
        let name = path.display().to_string();
        let text = file::read(path).map_err(|problem| {
            Mistakes(vec![Mistake {
                source: name,
                line: None,
                key: String::new(),
                problem,
            }])
        })?;
        Ok(Source {
            path: Some(path.to_owned()),
            text,
            flags,
        })
    }

    /// The command line alone.
    pub fn flags(flags: Flags) -> Source {
        Source {
            path: None,
            text: String::new(),
            flags,
        }
    }

    /// The file, if there is one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The same source as it is now.
    ///
    /// # Errors
    /// As [`Source::file`].
    pub fn reread(&self) -> Result<Source, Mistakes> {
        match &self.path {
            Some(path) => Source::file(path, self.flags.clone()),
            None => Ok(self.clone()),
        }
    }

    /// Whether the text is still the same.
    #[must_use]
    pub fn is_same_as(&self, other: &Source) -> bool {
        self.text == other.text
    }

    /// The settings, with `overrides` put over them in their order. Passwords are read
    /// from where they are now.
    ///
    /// # Errors
    /// Every mistake, in the file or an override.
    pub fn config(&self, overrides: &[Override]) -> Result<Config, Mistakes> {
        let environment = |name: &str| std::env::var(name).ok();
        let directory = self.path.as_deref().and_then(Path::parent);
        let sources = Sources {
            environment: &environment,
            directory: directory.unwrap_or(Path::new("")),
        };
        match &self.path {
            Some(path) => {
                let name = path.display().to_string();
                file::parse(&name, &self.text, &self.flags, sources, overrides)
            }
            None => self.flags.config(sources, overrides),
        }
    }
}

/// Puts the overrides over the settings that were read, before they have to agree.
pub(super) fn apply(overrides: &[Override], config: &mut Config, reader: &mut Reader<'_>) {
    for given in overrides {
        if !config.set(given, reader) {
            reader.unknown_override(CONSOLE, &given.key);
        }
    }
}

impl Config {
    /// Sets one setting by its full name; whether there is one of this name.
    fn set(&mut self, given: &Override, reader: &mut Reader<'_>) -> bool {
        let Some((path, name)) = given.key.rsplit_once('.') else {
            return false;
        };
        match path {
            "process" => return reader.put(&mut self.process, path, name, given),
            "log" => return reader.put(&mut self.log, path, name, given),
            "admin" => return reader.put(&mut self.admin, path, name, given),
            "traces" => return reader.put(&mut self.traces, path, name, given),
            _ => {}
        }
        let of_route = |route: &str| path == route || path.starts_with(&format!("{route}."));
        let route = self
            .routes
            .iter_mut()
            .map(|route| (join("route", &route.name), route))
            .find(|(route, _)| of_route(route));
        let Some((prefix, route)) = route else {
            return false;
        };
        match path[prefix.len()..].trim_start_matches('.') {
            "" => reader.put(route, path, name, given),
            "backend" => reader.put(&mut route.backend, path, name, given),
            "clients" => reader.put(&mut route.clients, path, name, given),
            "timeouts" => reader.put(&mut route.timeouts, path, name, given),
            "failover" => reader.put(&mut route.failover, path, name, given),
            "health" => reader.put(&mut route.health, path, name, given),
            "overload" => reader.put(&mut route.overload, path, name, given),
            "auth" => reader.put(&mut route.auth, path, name, given),
            // Who may log in is a matter of the file.
            _ => {
                let mut limits = route.limits.iter_mut();
                let of_limit =
                    |limit: &&mut Limit| path == join(&join(&prefix, "limits"), &limit.name);
                match limits.find(of_limit) {
                    Some(limit) => reader.put(limit, path, name, given),
                    None => false,
                }
            }
        }
    }
}

impl Reader<'_> {
    fn put<S: Section>(
        &mut self,
        section: &mut S,
        path: &str,
        name: &str,
        given: &Override,
    ) -> bool {
        let setting = S::SETTINGS
            .iter()
            .find(|setting| setting.facts.name == name);
        if setting.is_none() {
            return false;
        }
        self.given_as_text(section, (path, name), (CONSOLE, &given.key), &given.value);
        true
    }
}

/// What a reload may do with a setting that is given as text: the worst of what changes.
pub fn worst(changes: &[super::listing::Change]) -> Option<Reload> {
    let rank = |reload: &Reload| match reload {
        Reload::Live => 0,
        Reload::NewConnections => 1,
        Reload::Restart => 2,
    };
    changes.iter().map(|change| change.reload).max_by_key(rank)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> (tempfile::TempDir, Source) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("weir.toml");
        std::fs::write(&path, text).expect("a file");
        let source = Source::file(&path, Flags::default()).expect("a source");
        (directory, source)
    }

    fn over(key: &str, value: &str) -> Override {
        Override {
            key: key.to_owned(),
            value: value.to_owned(),
        }
    }

    const TEXT: &str = "[route.main]\nbackend = \"127.0.0.1:6379\"\n\
                        [route.main.limits.some]\nnetworks = [\"10.0.0.0/8\", \"::1\"]\n\
                        users = \"batch*\"\n";

    #[test]
    fn overrides_are_put_over_the_file_and_what_depends_on_them_follows() {
        let (_directory, source) = source(TEXT);
        let config = source
            .config(&[
                over("process.max_clients", "20000"),
                over("route.main.backend.max_connections", "4"),
                over("route.main.timeouts.request", "2s"),
                over("route.main.backend.tunnels", "false"),
                over("log.filter", "info,weir::backend=debug"),
                over("route.main.clients.output_max", "1048576"),
                over("admin.listen", "off"),
            ])
            .expect("good overrides");
        let route = &config.routes[0];
        assert_eq!(route.clients.max_clients, 20_000);
        assert_eq!(
            (route.backend.max_connections, route.backend.max_shared),
            (4, 4)
        );
        assert_eq!(route.timeouts.request.as_secs(), 2);
        assert!(!route.backend.tunnels);
        assert_eq!(config.log.filter, "info,weir::backend=debug");
        assert_eq!(route.clients.output_max, 1 << 20);
        assert_eq!(config.admin.listen, None);
    }

    #[test]
    fn every_setting_takes_the_value_that_is_shown_of_it() {
        let (_directory, source) = source(TEXT);
        let config = source.config(&[]).expect("a good file");
        for item in config.items() {
            if item.value.is_empty() || item.key.contains(".users.") {
                continue;
            }
            let same = source.config(&[over(&item.key, &item.value)]);
            let same = same.unwrap_or_else(|mistakes| panic!("{mistakes}"));
            assert_eq!(config.changes(&same), [], "{}", item.key);
        }
    }

    #[test]
    fn a_wrong_override_says_what_was_expected() {
        let (_directory, source) = source(TEXT);
        for (key, value, problem) in [
            ("process.max_clients", "many", "expected a whole number"),
            ("process.max_client", "5", "no setting"),
            ("route.other.listen", "127.0.0.1:1", "no setting"),
            ("nothing", "5", "no setting"),
            ("route.main.auth.users.a.password", "x", "no setting"),
            ("route.main.backend.max_shared", "100", "expected at most"),
        ] {
            let mistakes = source.config(&[over(key, value)]).expect_err("a mistake");
            assert!(mistakes.to_string().contains(problem), "{key}: {mistakes}");
        }
    }

    #[test]
    fn a_file_that_was_changed_is_another_source() {
        let (directory, source) = source(TEXT);
        assert!(source.is_same_as(&source.reread().expect("still there")));
        std::fs::write(directory.path().join("weir.toml"), "[route.x]\n").expect("a file");
        let now = source.reread().expect("still there");
        assert!(!source.is_same_as(&now));
        assert!(now.config(&[]).is_err());
    }

    #[test]
    fn flags_alone_are_a_source() {
        let flags = Flags {
            backend: Some("127.0.0.1:6379".to_owned()),
            ..Flags::default()
        };
        let config = Source::flags(flags)
            .config(&[over("route.main.backend.max_connections", "7")])
            .expect("good flags");
        assert_eq!(config.routes[0].backend.max_connections, 7);
    }
}
