//! Keys that nobody knows, and what they were probably meant to be.

use super::reference;

/// What to say about the unknown `what` (a setting or section) called `key`, where `known` are.
pub(super) fn problem(what: &str, key: &str, known: &[String]) -> String {
    if let Some(nearest) = nearest(key, known) {
        return format!("unknown {what}; the nearest known one is {nearest:?}");
    }
    match reference::section_with(key) {
        Some(section) => format!("unknown {what} here; it belongs in [{section}]"),
        None => format!("unknown {what}; known are {}", known.join(", ")),
    }
}

/// The known name that `key` was probably meant to be: at most a third of it is wrong.
pub(super) fn nearest<'k>(key: &str, known: &'k [String]) -> Option<&'k str> {
    let wrong_max = (key.chars().count() / 3).max(1);
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(key, name), name.as_str()))
        .filter(|(wrong, _)| *wrong <= wrong_max)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(key: &str) -> String {
        let known = ["max_clients", "idle_timeout", "password_env"].map(str::to_owned);
        problem("setting", key, &known)
    }

    #[test]
    fn the_nearest_known_name_is_named() {
        for (key, meant) in [
            ("max_client", "max_clients"),
            ("maxclients", "max_clients"),
            ("idle-timeout", "idle_timeout"),
            ("ilde_timeout", "idle_timeout"),
            ("Password_Env", "password_env"),
        ] {
            assert!(
                told(key).ends_with(&format!("is {meant:?}")),
                "{}",
                told(key)
            );
        }
    }

    #[test]
    fn a_key_of_another_section_is_sent_there() {
        assert!(told("max_age").ends_with("it belongs in [route.NAME.backend]"));
        assert!(told("timeouts").ends_with("it belongs in [route.NAME]"));
    }

    #[test]
    fn what_resembles_nothing_gets_the_list() {
        assert!(told("zzz").ends_with("known are max_clients, idle_timeout, password_env"));
    }
}
