//! The subcommands of `WEIR`: one row each. `WEIR HELP` and docs/CONSOLE.md are made from
//! it, and arity is checked by it.

/// A subcommand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sub {
    /// `CHECK`
    Check,
    /// `CLIENTS`
    Clients,
    /// `CONFIG`
    Config,
    /// `DOCTOR`
    Doctor,
    /// `DRAIN`
    Drain,
    /// `EVENTS`
    Events,
    /// `HELP`
    Help,
    /// `HOTKEYS`
    Hotkeys,
    /// `KILL`
    Kill,
    /// `LIMITS`
    Limits,
    /// `NODES`
    Nodes,
    /// `PAUSE`
    Pause,
    /// `POOLS`
    Pools,
    /// `RECORD`
    Record,
    /// `RELOAD`
    Reload,
    /// `RESUME`
    Resume,
    /// `SHED`
    Shed,
    /// `SLOWLOG`
    Slowlog,
    /// `UPGRADE`
    Upgrade,
}

/// What is known of one subcommand.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Which.
    pub sub: Sub,
    /// Its name, in capitals.
    pub name: &'static str,
    /// Its arguments.
    pub usage: &'static str,
    /// How many arguments it takes behind its name, from and to.
    pub arguments: (usize, usize),
    /// What it does, in one line.
    pub about: &'static str,
    /// It changes something: each use leaves an audit line. (`CONFIG` and `LIMITS` do so
    /// with `SET` only, `SLOWLOG` with `RESET`.)
    pub changes: bool,
}

const MANY: usize = 64;

/// All of them, by name.
#[rustfmt::skip] // one subcommand, one line
pub const ROWS: &[Row] = &[
    row(Sub::Check, "CHECK", "", (0, 0), "What a reload would change now, and what would keep it from being done.", false),
    row(Sub::Clients, "CLIENTS", "[BY ADDRESS|USER|NAME] [ROUTE name] [LIMIT count]", (0, 6), "Clients added up by who they are, most first: connections, how many are new, idle time, memory, refused connections and commands.", false),
    row(Sub::Config, "CONFIG", "GET pattern | SET key value [key value ...]", (2, MANY), "Settings by their full names; SET holds until the next reload or restart. Passwords are hidden.", false),
    row(Sub::Doctor, "DOCTOR", "", (0, 0), "What is wrong, what shows it, and what to do, as `weir doctor` says it; nothing if all is well.", false),
    row(Sub::Drain, "DRAIN", "", (0, 0), "Take no more clients, let those that are busy finish, and end, as with SIGTERM.", true),
    row(Sub::Events, "EVENTS", "[count]", (0, 1), "What happened last, oldest first.", false),
    row(Sub::Help, "HELP", "", (0, 0), "This list.", false),
    row(Sub::Hotkeys, "HOTKEYS", "[count]", (0, 1), "The keys that most commands name, those with the most bytes in replies, and the largest replies, as told from a sample.", false),
    row(Sub::Kill, "KILL", "[ROUTE name] filter value [filter value ...]", (2, MANY), "Close the clients that match all filters, which are those of CLIENT KILL; never the caller. How many there were.", true),
    row(Sub::Limits, "LIMITS", "[SET key value]", (0, 3), "Every limit with what is in use of it; SET changes one as CONFIG SET does.", false),
    row(Sub::Nodes, "NODES", "", (0, 0), "Each node: whether it can be used and why not, version, connections, latency.", false),
    row(Sub::Pause, "PAUSE", "[milliseconds] [ROUTE name]", (0, 3), "Hold all commands of clients, for 10 seconds or as said; they wait in Weir and go on afterwards, as many as may (clients.pause_clients).", true),
    row(Sub::Pools, "POOLS", "", (0, 0), "Connections to each node by what they are for, against the budget, and who waits for one.", false),
    row(Sub::Record, "RECORD", "[MARKDOWN|JSON]", (0, 1), "The record of events and numbers, for a post-mortem.", false),
    row(Sub::Reload, "RELOAD", "", (0, 0), "Read the configuration file again: all that changed is put into force, or nothing and why.", true),
    row(Sub::Resume, "RESUME", "[ROUTE name]", (0, 2), "End a pause.", true),
    row(Sub::Shed, "SHED", "", (0, 0), "What was refused since the start, by route and reason.", false),
    row(Sub::Slowlog, "SLOWLOG", "[GET count | LEN | RESET]", (0, 2), "Commands that took longer than process.slow_log_threshold, newest first: how long, where, whose.", false),
    row(Sub::Upgrade, "UPGRADE", "", (0, 0), "Start the executable anew and let it take over, without a refused or cut connection, as with SIGUSR2.", true),
];

const fn row(
    sub: Sub,
    name: &'static str,
    usage: &'static str,
    arguments: (usize, usize),
    about: &'static str,
    changes: bool,
) -> Row {
    Row {
        sub,
        name,
        usage,
        arguments,
        about,
        changes,
    }
}

/// The row of a subcommand, in any case.
pub fn find(name: &[u8]) -> Option<&'static Row> {
    ROWS.iter()
        .find(|row| row.name.as_bytes().eq_ignore_ascii_case(name))
}

/// The lines of `WEIR HELP`, in the way of Redis's containers.
pub fn help() -> Vec<String> {
    let mut lines =
        vec!["WEIR <subcommand> [<arg> [value] [opt] ...]. Subcommands are:".to_owned()];
    for row in ROWS {
        lines.push(format!("{} {}", row.name, row.usage).trim_end().to_owned());
        lines.push(format!("    {}", row.about));
    }
    lines
}

/// The table of docs/CONSOLE.md.
pub fn markdown() -> String {
    let mut text = String::from("| command | |\n|---|---|\n");
    for row in ROWS {
        let usage = format!("WEIR {} {}", row.name, row.usage);
        let usage = usage.trim_end().replace('|', "\\|");
        text += &format!("| `{usage}` | {} |\n", row.about);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_order_and_found_in_any_case() {
        assert!(ROWS.is_sorted_by_key(|row| row.name));
        for row in ROWS {
            let lower = row.name.to_ascii_lowercase();
            assert_eq!(find(lower.as_bytes()).map(|found| found.sub), Some(row.sub));
            assert!(row.arguments.0 <= row.arguments.1 && row.about.ends_with('.'));
        }
        assert!(find(b"").is_none() && find(b"POOL").is_none());
    }

    #[test]
    fn the_page_has_the_table_as_it_is() {
        let page = include_str!("../../../docs/CONSOLE.md");
        assert!(
            page.contains(&markdown()),
            "docs/CONSOLE.md needs:\n{}",
            markdown()
        );
    }
}
