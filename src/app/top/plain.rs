//! The same as plain text, for scripts.

use std::fmt::Write;

use super::look::Look;
use super::screen::{Column, Screen};
use super::words::{cell, count, micros, seconds};

/// Everything once, in the order of the screen.
pub fn text(look: Look) -> String {
    let mut out = String::new();
    let put = |out: &mut String, line: String| {
        writeln!(out, "{}", line.trim_end()).expect("a String takes all");
    };
    let up = seconds(look.up_seconds);
    put(
        &mut out,
        format!("weir {}  {}  up {up}", look.version, look.at),
    );
    for (severity, what) in &look.findings {
        put(&mut out, format!("{}  {what}", severity.to_uppercase()));
    }
    for route in &look.routes {
        put(
            &mut out,
            format!(
                "route {}  clients {}/{}  connections {}/{}  commands {}/s  refused {}/s  \
                 shed {}/s  errors {}/s  at Redis {}  waiting {}",
                route.route,
                route.clients,
                route.clients_max,
                route.connections,
                route.budget,
                count(route.commands),
                count(route.refused),
                count(route.shed),
                count(route.errors),
                route.in_flight,
                route.waiting,
            ),
        );
    }
    for node in &look.nodes {
        let state = if node.up { "up" } else { &*node.breaker };
        let (half, most) = (micros(node.p50_us), micros(node.p99_us));
        put(
            &mut out,
            format!(
                "node {}  {}  {state}  50% {half}  99% {most}  connections {}/{}  {}",
                node.node,
                node.role,
                node.connections,
                node.budget,
                if node.up { "" } else { &*node.why },
            ),
        );
    }
    let mut screen = Screen::default();
    screen.take(Ok(look));
    let rows = screen.rows();
    let who = rows.iter().map(|row| row.identity.chars().count()).max();
    let who = who.unwrap_or(0).max(Column::Identity.width() as usize);
    let width = |column: Column| column.width() as usize;
    let line = |cells: &dyn Fn(Column) -> String| {
        let mut line = format!("{:<who$}", cells(Column::Identity));
        for column in &Column::ALL[1..] {
            let cell = cells(*column);
            line += &match column {
                Column::Route => format!(" {cell:<width$}", width = width(*column)),
                _ => format!(" {cell:>width$}", width = width(*column)),
            };
        }
        line
    };
    put(&mut out, line(&|column| column.head().to_owned()));
    for row in rows {
        put(&mut out, line(&|column| cell(row, column)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::look::tests::answer;
    use super::*;

    #[test]
    fn a_line_for_each_thing_and_columns_for_each_identity() {
        let first = Look::of(&answer(0), None).expect("an answer");
        let text = text(Look::of(&answer(1), Some(&first)).expect("an answer"));
        assert!(
            text.contains("WARNING  a replica is lost (route main)\n"),
            "{text}"
        );
        assert!(
            text.contains("node 10.0.0.10:6379  replica  tripped  50% -  99% -"),
            "{text}"
        );
        let mut rows = text.lines().skip_while(|line| !line.starts_with("WHO"));
        let head: Vec<&str> = rows.next().expect("a head").split_whitespace().collect();
        assert_eq!(head.len(), Column::ALL.len());
        let row: Vec<&str> = rows.next().expect("a row").split_whitespace().collect();
        assert_eq!(row[..3], ["10.1.0.1", "main", "100"]);
        assert_eq!(row.len(), head.len());
    }
}
