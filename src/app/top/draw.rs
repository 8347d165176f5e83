//! The screen, drawn.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Clear, Paragraph, Row, Table};

use super::look::{Look, NodeLook, RouteLook};
use super::screen::{Column, Panel, Screen};
use super::words::{cell, count, micros, seconds};

const KEYS: &str = " q quit  p pause  </> sort  r reverse  / filter  Tab below  ? help";

const HELP: &[&str] = &[
    "q, Esc      quit (Esc first takes the filter away)",
    "p, space    pause: what is shown stays",
    "< >, arrows sort by another column",
    "c g n s     sort by clients, growth, new, shed",
    "r           reverse the order",
    "/           filter by name; Enter ends, Esc clears",
    "up, down    scroll, also by pages",
    "Tab         below: events, hot keys, findings",
];

/// Draws it into whatever room there is.
pub fn draw(screen: &Screen, frame: &mut Frame<'_>) {
    let area = frame.area();
    let empty = Look::default();
    let look = screen.look.as_ref().unwrap_or(&empty);
    let (routes, nodes) = (look.routes.len() as u16, look.nodes.len() as u16);
    let height = area.height;
    // What tells least goes first when there is little room.
    let nodes = if height >= 10 {
        (nodes + 1).min(height / 3)
    } else {
        0
    };
    let routes = if height >= 5 {
        routes.min(height / 3)
    } else {
        0
    };
    let below = if height >= 16 { height / 4 } else { 0 };
    let keys = u16::from(height >= 4);
    let [head, routes, nodes, table, below, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(routes),
        Constraint::Length(nodes),
        Constraint::Fill(1),
        Constraint::Length(below),
        Constraint::Length(keys),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(head_line(screen, look)), head);
    let lines: Vec<Line<'_>> = look.routes.iter().map(route_line).collect();
    frame.render_widget(Paragraph::new(lines), routes);
    draw_nodes(look, nodes, frame);
    draw_identities(screen, table, frame);
    draw_panel(screen, look, below, frame);
    frame.render_widget(Paragraph::new(keys_line(screen)), keys);
    if screen.shows_help {
        draw_help(area, frame);
    }
}

fn head_line<'a>(screen: &'a Screen, look: &'a Look) -> Line<'a> {
    let mut spans = vec![Span::styled(
        format!("weir {}", look.version),
        Style::new().add_modifier(Modifier::BOLD),
    )];
    if !look.at.is_empty() {
        let time = look.at.get(..19).unwrap_or(&look.at).replace('T', " ");
        spans.push(Span::raw(format!(
            "  {time}  up {}",
            seconds(look.up_seconds)
        )));
    }
    if screen.is_paused {
        spans.push(Span::styled("  PAUSED", bad(Color::Yellow)));
    }
    match (&screen.error, look.findings.as_slice()) {
        (Some(error), _) => spans.push(Span::styled(format!("  {error}"), bad(Color::Red))),
        (None, [(severity, what), others @ ..]) => {
            let more = match others.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            spans.push(Span::styled(
                format!("  {what}{more}"),
                of_severity(severity),
            ));
        }
        (None, []) if look.at.is_empty() => spans.push(Span::raw("  ...")),
        (None, []) => spans.push(Span::styled("  all is well", Style::new().fg(Color::Green))),
    }
    Line::from(spans)
}

fn route_line(route: &RouteLook) -> Line<'_> {
    let full = |what: &str, part: u64, whole: u64| {
        Span::styled(
            format!("  {what} {part}/{whole}"),
            of_share(part as f64 / whole.max(1) as f64),
        )
    };
    let trouble = |what: &str, rate: f64| {
        let style = if rate > 0.0 {
            bad(Color::Red)
        } else {
            Style::new()
        };
        Span::styled(format!("  {what} {}/s", count(rate)), style)
    };
    Line::from(vec![
        Span::styled(&*route.route, Style::new().add_modifier(Modifier::BOLD)),
        full("clients", route.clients, route.clients_max),
        full("connections", route.connections, route.budget),
        Span::raw(format!("  commands {}/s", count(route.commands))),
        trouble("refused", route.refused),
        trouble("shed", route.shed),
        trouble("errors", route.errors),
        Span::raw(format!(
            "  at Redis {}, waiting {}",
            route.in_flight, route.waiting
        )),
    ])
}

fn draw_nodes(look: &Look, area: Rect, frame: &mut Frame<'_>) {
    let head = ["NODE", "ROLE", "STATE", "50%", "99%", "BUDGET"];
    let rows = look.nodes.iter().map(|node| {
        let state = match node.up {
            true => Cell::from("up").style(Style::new().fg(Color::Green)),
            false => Cell::from(state_of(node)).style(bad(Color::Red)),
        };
        Row::new([
            Cell::from(&*node.node),
            Cell::from(&*node.role),
            state,
            right(micros(node.p50_us)),
            right(micros(node.p99_us)),
            right(format!("{}/{}", node.connections, node.budget)),
        ])
    });
    let widths = [
        Constraint::Fill(2),
        Constraint::Length(9),
        Constraint::Fill(3),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(9),
    ];
    let head = head
        .into_iter()
        .enumerate()
        .map(|(index, head)| match index {
            0..3 => Cell::from(head),
            _ => right(head.to_owned()),
        });
    let head = Row::new(head).style(heading());
    frame.render_widget(Table::new(rows, widths).header(head), area);
}

fn state_of(node: &NodeLook) -> String {
    match node.why.as_str() {
        "" => node.breaker.clone(),
        why => format!("{}: {why}", node.breaker),
    }
}

fn draw_identities(screen: &Screen, area: Rect, frame: &mut Frame<'_>) {
    let columns = Column::fitting(area.width);
    let shown = |text: String, column: Column| match column {
        Column::Identity | Column::Route => Cell::from(text),
        _ => right(text),
    };
    let head = columns.iter().map(|column| {
        let cell = shown(column.head().to_owned(), *column);
        match *column == screen.sort {
            true => cell.style(heading().fg(Color::Black).bg(Color::Cyan)),
            false => cell,
        }
    });
    let head = Row::new(head).style(heading());
    let rows = screen.rows();
    let rows = rows.into_iter().skip(screen.first).map(|row| {
        let full = row.clients_max > 0;
        let share = row.clients as f64 / row.clients_max.max(1) as f64;
        let style = if full { of_share(share) } else { Style::new() };
        let refused = row.rates[1..].iter().flatten().any(|rate| *rate > 0.0);
        let style = if refused { bad(Color::Red) } else { style };
        Row::new(
            columns
                .iter()
                .map(|column| shown(cell(row, *column), *column)),
        )
        .style(style)
    });
    let widths = columns.iter().map(|column| match column {
        Column::Identity => Constraint::Fill(1),
        column => Constraint::Length(column.width()),
    });
    frame.render_widget(Table::new(rows, widths).header(head), area);
}

fn draw_panel(screen: &Screen, look: &Look, area: Rect, frame: &mut Frame<'_>) {
    let mut lines = Vec::new();
    let title = match screen.panel {
        Panel::Events => {
            lines.extend(look.events.iter().map(|event| {
                let time = event.at.get(11..19).unwrap_or(&event.at);
                Line::from(vec![
                    Span::raw(format!("{time} ")),
                    Span::styled(&*event.what, of_severity(&event.severity)),
                ])
            }));
            "EVENTS"
        }
        Panel::HotKeys => {
            lines.extend(look.hot_keys.iter().map(|key| {
                Line::raw(format!(
                    "{:>7}/s {:>3.0}% {:>7}B/s {:<8} {}",
                    count(key.commands),
                    key.share * 100.0,
                    count(key.bytes),
                    key.command.to_uppercase(),
                    key.key
                ))
            }));
            "HOT KEYS"
        }
        Panel::Findings => {
            let findings = look.findings.iter();
            lines.extend(
                findings.map(|(severity, what)| Line::styled(&**what, of_severity(severity))),
            );
            "FINDINGS: weir doctor says what to do"
        }
    };
    let nothing = if lines.is_empty() { ": none" } else { "" };
    lines.insert(0, Line::styled(format!("{title}{nothing}"), heading()));
    frame.render_widget(Paragraph::new(lines), area);
}

fn keys_line(screen: &Screen) -> Line<'_> {
    if screen.is_typing {
        return Line::raw(format!(" filter: {}_", screen.filter));
    }
    let mut line = Line::styled(KEYS, Style::new().add_modifier(Modifier::REVERSED));
    if !screen.filter.is_empty() {
        line.push_span(Span::raw(format!("  filter: {}", screen.filter)));
    }
    line
}

fn draw_help(area: Rect, frame: &mut Frame<'_>) {
    let lines: Vec<Line<'_>> = HELP.iter().map(|line| Line::raw(*line)).collect();
    let height = (lines.len() as u16).min(area.height);
    let place = Rect {
        x: area.x,
        y: area.y + area.height - height,
        width: area.width,
        height,
    };
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines), place);
}

fn right<'a>(text: String) -> Cell<'a> {
    Cell::from(Line::raw(text).alignment(Alignment::Right))
}

fn heading() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn bad(colour: Color) -> Style {
    Style::new().fg(colour).add_modifier(Modifier::BOLD)
}

fn of_share(share: f64) -> Style {
    match share {
        share if share >= 0.95 => bad(Color::Red),
        share if share >= 0.8 => bad(Color::Yellow),
        _ => Style::new(),
    }
}

fn of_severity(severity: &str) -> Style {
    match severity {
        "critical" => bad(Color::Red),
        "warning" => Style::new().fg(Color::Yellow),
        _ => Style::new(),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::look::tests::answer;
    use super::*;

    fn screen() -> Screen {
        let first = Look::of(&answer(0), None).expect("an answer");
        let mut screen = Screen::default();
        screen.take(Ok(Look::of(&answer(1), Some(&first)).expect("an answer")));
        screen
    }

    fn drawn(screen: &Screen, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal.draw(|frame| draw(screen, frame)).expect("drawn");
        let buffer = terminal.backend().buffer();
        let rows = buffer.content.chunks(width as usize);
        rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n")
            .collect()
    }

    #[test]
    fn a_usual_terminal_shows_all_of_it() {
        let shown = drawn(&screen(), 120, 30);
        for text in [
            "weir 1.2.3  2026-01-02 03:04:05  up 2h  a replica is lost (route main)",
            "main  clients 123/10000  connections 6/64  commands 12345/s  refused 2.0/s",
            "10.0.0.9:6379",
            "180 us   2.4 ms      6/64",
            "tripped: connection refused",
            "WHO ",
            "03:00:00 node went down: 10.0.0.10:6379 (3 times)  route main",
            "q quit",
        ] {
            assert!(shown.contains(text), "{text}:\n{shown}");
        }
        let row = shown.lines().find(|line| line.starts_with("10.1.0.1"));
        let cells: Vec<&str> = row.expect("a row").split_whitespace().collect();
        let expected = [
            "main", "100", "200", "+1", "-10", "+55", "66m", "50", "0", "7.0",
        ];
        assert_eq!(cells[1..], expected, "{shown}");
    }

    #[test]
    fn it_can_be_drawn_in_any_room() {
        let mut screen = screen();
        for width in [1, 2, 10, 24, 40, 80, 300] {
            for height in 1..40 {
                for panel in [Panel::Events, Panel::HotKeys, Panel::Findings] {
                    screen.panel = panel;
                    screen.shows_help = !screen.shows_help;
                    drawn(&screen, width, height);
                    drawn(&Screen::default(), width, height);
                }
            }
        }
        screen.shows_help = false;
        let small = drawn(&screen, 40, 6);
        assert!(
            small.contains("10.1.0.1") && small.contains("CLIENTS"),
            "{small}"
        );
    }

    #[test]
    fn what_is_chosen_is_shown() {
        let mut screen = screen();
        screen.panel = Panel::HotKeys;
        let shown = drawn(&screen, 100, 24);
        assert!(
            shown.contains("5000/s  40%    1.5MB/s GET      cart:7"),
            "{shown}"
        );
        screen.is_typing = true;
        screen.filter = "0.2".into();
        let shown = drawn(&screen, 100, 24);
        assert!(
            shown.contains("filter: 0.2_") && !shown.contains("10.1.0.1 "),
            "{shown}"
        );
        screen.is_paused = true;
        screen.first = 5;
        assert!(drawn(&screen, 100, 24).contains("PAUSED"));
        screen.shows_help = true;
        assert!(drawn(&screen, 100, 24).contains("reverse the order"));
        screen.error = Some("connection refused".into());
        assert!(drawn(&screen, 100, 24).contains("connection refused"));
    }
}
