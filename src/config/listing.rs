//! All settings of a configuration by their full names: what `WEIR CONFIG GET` shows,
//! and what differs between two configurations and what a reload may do about it.

use std::collections::{BTreeMap, HashSet};

use super::Config;
use super::definition::{Reload, Section};
use super::reader::join;

/// One setting and its value.
#[derive(Clone)]
pub struct Item {
    /// Its full name, such as `route.main.backend.max_connections`.
    pub key: String,
    /// Its value as it would be written, without quotes; of a password only that it is
    /// hidden.
    pub value: String,
    /// What a reload may do with it.
    pub reload: Reload,
    /// What tells two values apart: of a password its bytes, so never shown.
    identity: Vec<u8>,
}

/// A setting that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its full name, or that of a route which comes or goes.
    pub key: String,
    /// The value now; empty for what is new.
    pub from: String,
    /// The other value; empty for what is gone.
    pub to: String,
    /// What a reload may do about it.
    pub reload: Reload,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |value: &str| match value {
            "" => "nothing".to_owned(),
            value => value.to_owned(),
        };
        let (from, to) = (shown(&self.from), shown(&self.to));
        let reload = self.reload.text();
        write!(f, "{}: {from} -> {to} ({reload})", self.key)
    }
}

/// Sees each section of a configuration, with its path.
trait Visitor {
    fn section<S: Section>(&mut self, path: &str, section: &S);
}

impl Config {
    /// Shows `visitor` every section. A new kind of section is a line here; a test
    /// fails where one is missing.
    fn walk(&self, visitor: &mut impl Visitor) {
        visitor.section("process", &self.process);
        visitor.section("log", &self.log);
        visitor.section("admin", &self.admin);
        visitor.section("traces", &self.traces);
        for route in &self.routes {
            let path = join("route", &route.name);
            visitor.section(&path, route);
            for listener in &route.listeners {
                let listeners = join(&path, "listener");
                visitor.section(&join(&listeners, &listener.name), listener);
            }
            let backend = join(&path, "backend");
            visitor.section(&backend, &route.backend);
            if let Some(tls) = &route.backend.tls {
                visitor.section(&join(&backend, "tls"), tls);
            }
            visitor.section(&join(&path, "clients"), &route.clients);
            for limit in &route.limits {
                let limits = join(&path, "limits");
                visitor.section(&join(&limits, &limit.name), limit);
            }
            for rule in &route.access {
                let access = join(&path, "access");
                visitor.section(&join(&access, &rule.name), rule);
            }
            visitor.section(&join(&path, "timeouts"), &route.timeouts);
            visitor.section(&join(&path, "failover"), &route.failover);
            visitor.section(&join(&path, "health"), &route.health);
            visitor.section(&join(&path, "overload"), &route.overload);
            visitor.section(&join(&path, "auth"), &route.auth);
            for user in &route.auth.users {
                let users = join(&join(&path, "auth"), "users");
                visitor.section(&join(&users, &user.name), user);
            }
        }
    }

    /// Every setting with its value, in the order of the reference.
    pub fn items(&self) -> Vec<Item> {
        struct Items(Vec<Item>);
        impl Visitor for Items {
            fn section<S: Section>(&mut self, path: &str, section: &S) {
                self.0.extend(S::SETTINGS.iter().map(|setting| Item {
                    key: join(path, setting.facts.name),
                    value: (setting.show)(section),
                    reload: setting.facts.reload,
                    identity: (setting.identity)(section),
                }));
            }
        }
        let mut items = Items(Vec::new());
        self.walk(&mut items);
        items.0
    }

    /// How this configuration differs from that of a running Weir, told as settings by name
    /// with their [shown](Item::value) values. Passwords, which are not shown, count as equal
    /// where there is one in both.
    pub fn changes_since(&self, running: Vec<(String, String)>) -> Vec<Change> {
        let mut running: BTreeMap<String, String> = running.into_iter().collect();
        let routes = self.routes.iter().map(|route| join("route", &route.name));
        let routes: Vec<String> = routes.collect();
        let of_route = |key: &str| routes.iter().find(|route| is_within(key, route)).cloned();
        // Routes that run already: the others come by a restart only.
        let known: HashSet<String> = running.keys().filter_map(|key| of_route(key)).collect();
        let is_new = |key: &str| of_route(key).is_some_and(|route| !known.contains(&route));
        let mut changes = Vec::new();
        for item in self.items() {
            let from = running.remove(&item.key);
            if from.as_ref() != Some(&item.value) {
                changes.push(Change {
                    reload: match is_new(&item.key) {
                        true => Reload::Restart,
                        false => item.reload,
                    },
                    key: item.key,
                    from: from.unwrap_or_default(),
                    to: item.value,
                });
            }
        }
        // A limit or a user may go at any time, a route by a restart only.
        let gone = running.into_iter().map(|(key, from)| Change {
            reload: match of_route(&key) {
                Some(_) => Reload::Live,
                None => Reload::Restart,
            },
            key,
            from,
            to: String::new(),
        });
        changes.extend(gone);
        changes
    }

    /// What would be different with `other`, in the order of the reference.
    pub fn changes(&self, other: &Config) -> Vec<Change> {
        let mut changes = self.changed_routes(other);
        let mut before: BTreeMap<String, Item> = by_key(self.items());
        for item in other.items() {
            let earlier = before.remove(&item.key);
            let is_same = earlier
                .as_ref()
                .is_some_and(|earlier| earlier.identity == item.identity);
            if is_same || changes.iter().any(|route| is_within(&item.key, &route.key)) {
                continue;
            }
            changes.push(Change {
                from: earlier.map_or(String::new(), |earlier| earlier.value),
                to: item.value,
                reload: item.reload,
                key: item.key,
            });
        }
        for (key, gone) in before {
            if !changes.iter().any(|route| is_within(&key, &route.key)) {
                changes.push(Change {
                    from: gone.value,
                    to: String::new(),
                    reload: gone.reload,
                    key,
                });
            }
        }
        changes
    }

    /// Routes that come, go or change places: their listeners and counters are made
    /// when Weir starts.
    fn changed_routes(&self, other: &Config) -> Vec<Change> {
        let names = |config: &Config| -> Vec<String> {
            config
                .routes
                .iter()
                .map(|route| route.name.clone())
                .collect()
        };
        let (before, after) = (names(self), names(other));
        let there = |is_there: bool| String::from(if is_there { "a route" } else { "" });
        let all = before.iter().chain(&after);
        let mut changes: Vec<Change> = all
            .filter(|name| before.contains(name) != after.contains(name))
            .map(|name| Change {
                key: join("route", name),
                from: there(before.contains(name)),
                to: there(after.contains(name)),
                reload: Reload::Restart,
            })
            .collect();
        if changes.is_empty() && before != after {
            changes.push(Change {
                key: "route".to_owned(),
                from: before.join(", "),
                to: after.join(", "),
                reload: Reload::Restart,
            });
        }
        changes
    }
}

fn by_key(items: Vec<Item>) -> BTreeMap<String, Item> {
    let keyed = items.into_iter();
    keyed.map(|item| (item.key.clone(), item)).collect()
}

fn is_within(key: &str, section: &str) -> bool {
    key.strip_prefix(section)
        .is_some_and(|rest| rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reference;

    fn config(text: &str) -> Config {
        Config::parse("weir.toml", text).expect("a configuration")
    }

    const PLAIN: &str = "[route.main]\nbackend = \"127.0.0.1:6379\"\n";

    #[test]
    fn every_section_of_the_reference_is_listed() {
        let text = "[route.main.backend]\naddress = \"127.0.0.1:6379\"\n[route.main.backend.tls]\n\
             [route.main.listener.NAME]\naddress = \"unix:/run/weir.sock\"\n\
             [route.main.limits.NAME]\nnetworks = \"10.0.0.0/8\"\n\
             [route.main.access.NAME]\nrefuse = \"keys\"\n\
             [route.main.auth]\nmode = \"weir\"\n[route.main.auth.users.NAME]\npassword = \"x\"\n";
        let items = config(text).items();
        for chapter in reference::chapters() {
            let path = chapter.path.replacen("NAME", "main", 1);
            for setting in chapter.settings {
                let key = join(&path, setting.name);
                assert!(
                    items.iter().any(|item| item.key == key),
                    "{key} is not listed"
                );
            }
        }
    }

    #[test]
    fn values_are_shown_as_they_are_written_and_passwords_are_not() {
        let text = format!(
            "{PLAIN}listen = [\"127.0.0.1:1\", \"[::1]:2\"]\n[route.main.clients]\noutput_max = 1048576\n\
             [process]\ndrain_timeout = \"90s\"\n[admin]\nlisten = \"off\"\n\
             [route.main.auth]\nmode = \"weir\"\n[route.main.auth.users.a]\npassword = \"hunter2\"\n"
        );
        let items = by_key(config(&text).items());
        for (key, value) in [
            ("route.main.clients.output_max", "1MiB"),
            ("process.drain_timeout", "1m30s"),
            ("admin.listen", "off"),
            ("route.main.listen", "[\"127.0.0.1:1\", \"[::1]:2\"]"),
            ("route.main.auth.mode", "weir"),
            ("route.main.auth.users.a.password", "(hidden)"),
            ("route.main.backend.password", ""),
            ("route.main.backend.max_connections", "64"),
            ("log.filter", "info"),
        ] {
            assert_eq!(items[key].value, value, "{key}");
        }
    }

    #[test]
    fn changes_are_named_with_what_a_reload_may_do() {
        let with = |more: &str| config(&format!("{PLAIN}{more}"));
        let changes = with("").changes(&with("[process]\nworkers = 77\nmax_clients = 5000\n"));
        let texts: Vec<String> = changes.iter().map(ToString::to_string).collect();
        assert!(
            texts[0].starts_with("process.workers: ")
                && texts[0].ends_with("-> 77 (by a restart only)"),
            "{texts:?}"
        );
        assert_eq!(texts[1], "process.max_clients: 10000 -> 5000 (at once)");
        // What follows from it is a change as well.
        let route = "route.main.clients.max_clients: 10000 -> 5000 (at once)";
        assert!(texts.iter().any(|text| text == route), "{texts:?}");
        assert!(with("").changes(&with("")).is_empty());
    }

    #[test]
    fn a_password_that_changes_is_a_change() {
        let with = |password: &str| {
            config(&format!(
                "{PLAIN}[route.main.auth]\nmode = \"weir\"\n[route.main.auth.users.a]\npassword = \"{password}\"\n"
            ))
        };
        assert_eq!(with("one").changes(&with("two")).len(), 1);
        assert!(with("one").changes(&with("one")).is_empty());
    }

    #[test]
    fn a_route_that_comes_or_goes_is_one_change() {
        let two = config(&format!(
            "{PLAIN}[route.other]\nlisten = \"127.0.0.1:9\"\nbackend = \"127.0.0.1:6379\"\n"
        ));
        let one = config(PLAIN);
        for changes in [one.changes(&two), two.changes(&one)] {
            assert_eq!(changes.len(), 1, "{changes:?}");
            assert_eq!(changes[0].key, "route.other");
            assert_eq!(changes[0].reload, Reload::Restart);
        }
    }

    #[test]
    fn a_running_weir_is_compared_by_what_it_shows() {
        let shown = |config: &Config| -> Vec<(String, String)> {
            let items = config.items().into_iter();
            items.map(|item| (item.key, item.value)).collect()
        };
        let running = config(PLAIN);
        assert!(running.changes_since(shown(&running)).is_empty());
        let other = config(&format!(
            "[process]\nmax_clients = 5\n{PLAIN}[route.b]\nlisten = \"127.0.0.1:9\"\nbackend = \"h:1\"\n"
        ));
        let changes = other.changes_since(shown(&running));
        assert_eq!(
            changes[0].to_string(),
            "process.max_clients: 10000 -> 5 (at once)"
        );
        let of_new = changes.iter().filter(|it| it.key.starts_with("route.b."));
        assert!(
            of_new.clone().count() > 5 && of_new.clone().all(|it| it.reload == Reload::Restart)
        );
        let back = running.changes_since(shown(&other));
        let gone = back.iter().filter(|it| it.key.starts_with("route.b."));
        assert!(gone.clone().count() > 5 && gone.clone().all(|it| it.reload == Reload::Restart));
    }
}
