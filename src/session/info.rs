//! `INFO` through Weir: the server's text, with Weir's numbers where it counts
//! clients, and a section of Weir's own.

use crate::command::Args;

/// The clients as Weir counts them. The server's own numbers are about Weir's
/// connections to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InfoFacts {
    /// All clients.
    pub connected_clients: u64,
    /// Those that wait in a blocking command or for a pause to end.
    pub blocked_clients: u64,
    /// Those with subscriptions.
    pub pubsub_clients: u64,
    /// Those that track keys.
    pub tracking_clients: u64,
    /// Those that watch keys.
    pub watching_clients: u64,
    /// Those whose blocking command has a timeout.
    pub clients_in_timeout_table: u64,
    /// How many Weir takes.
    pub maxclients: u64,
}

impl InfoFacts {
    fn value_of(&self, field: &[u8]) -> Option<u64> {
        Some(match field {
            b"connected_clients" => self.connected_clients,
            b"blocked_clients" => self.blocked_clients,
            b"pubsub_clients" => self.pubsub_clients,
            b"tracking_clients" => self.tracking_clients,
            b"watching_clients" => self.watching_clients,
            b"clients_in_timeout_table" => self.clients_in_timeout_table,
            b"maxclients" => self.maxclients,
            _ => return None,
        })
    }
}

/// The server's text with Weir's numbers in the fields that it has. `args` are
/// the request's; if they ask for it, `weir_section` (`# Weir`, then lines of
/// `field:value`, each with its CRLF) stands behind the server's sections.
pub fn rewrite_info(
    text: &[u8],
    args: &(impl Args + ?Sized),
    facts: &InfoFacts,
    weir_section: &str,
) -> Vec<u8> {
    let mut rewritten = Vec::with_capacity(text.len() + weir_section.len() + 128);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
        match facts.value_of(&line[..colon]) {
            Some(value) => {
                rewritten.extend_from_slice(&line[..=colon]);
                rewritten.extend_from_slice(value.to_string().as_bytes());
                rewritten.extend_from_slice(b"\r\n");
            }
            None => rewritten.extend_from_slice(line),
        }
    }
    if asks_for_weir(args) {
        if !rewritten.is_empty() {
            rewritten.extend_from_slice(b"\r\n");
        }
        rewritten.extend_from_slice(weir_section.as_bytes());
    }
    rewritten
}

/// Weir's section is one of the default ones, and can be asked for by its name.
fn asks_for_weir(args: &(impl Args + ?Sized)) -> bool {
    const ASKING: [&[u8]; 4] = [b"default", b"all", b"everything", b"weir"];
    args.count() == 1
        || (1..args.count()).any(|index| {
            let section = args.arg(index).unwrap_or_default();
            ASKING.iter().any(|name| section.eq_ignore_ascii_case(name))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: InfoFacts = InfoFacts {
        connected_clients: 9000,
        blocked_clients: 3,
        pubsub_clients: 4,
        tracking_clients: 5,
        watching_clients: 6,
        clients_in_timeout_table: 2,
        maxclients: 20_000,
    };

    const SECTION: &str = "# Weir\r\nweir_version:0.1.0\r\n";
    const CLIENTS: [&str; 2] = ["INFO", "clients"];

    /// `INFO clients` of Redis 7.0.15.
    const CLIENTS_7_0: &str = "# Clients\r\nconnected_clients:1\r\ncluster_connections:0\r\n\
        maxclients:10000\r\nclient_recent_max_input_buffer:0\r\n\
        client_recent_max_output_buffer:0\r\nblocked_clients:0\r\ntracking_clients:0\r\n\
        clients_in_timeout_table:0\r\n";

    #[test]
    fn only_the_fields_that_the_server_has_are_rewritten() {
        let text = rewrite_info(CLIENTS_7_0.as_bytes(), &CLIENTS, &FACTS, SECTION);
        assert_eq!(
            String::from_utf8(text).expect("text"),
            "# Clients\r\nconnected_clients:9000\r\ncluster_connections:0\r\nmaxclients:20000\r\n\
             client_recent_max_input_buffer:0\r\nclient_recent_max_output_buffer:0\r\n\
             blocked_clients:3\r\ntracking_clients:5\r\nclients_in_timeout_table:2\r\n"
        );
        let valkey =
            b"# Clients\r\npubsub_clients:0\r\nwatching_clients:0\r\npaused_reason:none\r\n";
        assert_eq!(
            rewrite_info(valkey, &CLIENTS, &FACTS, SECTION),
            b"# Clients\r\npubsub_clients:4\r\nwatching_clients:6\r\npaused_reason:none\r\n"
        );
    }

    #[test]
    fn the_section_stands_behind_the_servers() {
        let all = ["INFO"];
        let text = rewrite_info(b"# Keyspace\r\ndb0:keys=1\r\n", &all, &FACTS, SECTION);
        assert_eq!(
            text,
            b"# Keyspace\r\ndb0:keys=1\r\n\r\n# Weir\r\nweir_version:0.1.0\r\n"
        );
        let own = rewrite_info(b"", &["INFO", "weir"], &FACTS, SECTION);
        assert_eq!(own, SECTION.as_bytes());
        let cut = rewrite_info(b"maxclients:1", &CLIENTS, &FACTS, SECTION);
        assert_eq!(cut, b"maxclients:20000\r\n");
    }

    #[test]
    fn the_section_is_there_when_asked_for() {
        for (request, expected) in [
            ("INFO", true),
            ("info ALL", true),
            ("INFO everything", true),
            ("INFO default", true),
            ("INFO server Weir", true),
            ("INFO server", false),
            ("INFO server clients", false),
        ] {
            let args: Vec<&str> = request.split(' ').collect();
            assert_eq!(asks_for_weir(&args), expected, "{request}");
        }
    }
}
