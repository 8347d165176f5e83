//! What is on the screen, and what the keys do to it. Pure.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::look::{IdentityLook, Look};

/// The longest filter, in characters.
const FILTER_MAX: usize = 64;

/// A column of the table of identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Who.
    Identity,
    /// On which route.
    Route,
    /// Connections now.
    Clients,
    /// The ceiling.
    Max,
    /// Growth in a minute.
    Grown1m,
    /// In ten.
    Grown10m,
    /// In an hour.
    Grown1h,
    /// How long half of them have been idle.
    Idle,
    /// New connections in a second.
    New,
    /// Refused connections in a second.
    Refused,
    /// Refused commands in a second.
    Shed,
}

impl Column {
    /// All of them, in order.
    pub const ALL: [Column; 11] = [
        Column::Identity,
        Column::Route,
        Column::Clients,
        Column::Max,
        Column::Grown1m,
        Column::Grown10m,
        Column::Grown1h,
        Column::Idle,
        Column::New,
        Column::Refused,
        Column::Shed,
    ];

    /// Its head.
    pub fn head(self) -> &'static str {
        match self {
            Column::Identity => "WHO",
            Column::Route => "ROUTE",
            Column::Clients => "CLIENTS",
            Column::Max => "MAX",
            Column::Grown1m => "+1m",
            Column::Grown10m => "+10m",
            Column::Grown1h => "+1h",
            Column::Idle => "IDLE",
            Column::New => "NEW/s",
            Column::Refused => "REFUSED/s",
            Column::Shed => "SHED/s",
        }
    }

    /// How wide it is; of the first what it has at least.
    pub fn width(self) -> u16 {
        match self {
            Column::Identity => 15,
            Column::Route => 10,
            Column::Refused => 9,
            Column::Idle | Column::Max => 6,
            _ => 7,
        }
    }

    /// The columns that fit into a width: what matters least goes first.
    pub fn fitting(width: u16) -> Vec<Column> {
        use Column::*;
        let mut columns = Column::ALL.to_vec();
        let wide = |columns: &[Column]| -> u16 { columns.iter().map(|it| it.width() + 1).sum() };
        for least in [
            Grown1m, Route, Max, Idle, Shed, Grown1h, Refused, New, Grown10m,
        ] {
            if wide(&columns) <= width.saturating_add(1) {
                break;
            }
            columns.retain(|column| *column != least);
        }
        columns
    }

    fn next(self, steps: isize) -> Column {
        let own = Column::ALL.iter().position(|it| *it == self).unwrap_or(0);
        let count = Column::ALL.len() as isize;
        Column::ALL[(own as isize + steps).rem_euclid(count) as usize]
    }

    fn number(self, row: &IdentityLook) -> f64 {
        let rate = |index: usize| row.rates[index].unwrap_or(-1.0);
        match self {
            Column::Identity | Column::Route => 0.0,
            Column::Clients => row.clients as f64,
            Column::Max => row.clients_max as f64,
            Column::Grown1m => row.grown[0] as f64,
            Column::Grown10m => row.grown[1] as f64,
            Column::Grown1h => row.grown[2] as f64,
            Column::Idle => row.idle.map_or(-1.0, |idle| idle as f64),
            Column::New => rate(0),
            Column::Refused => rate(1),
            Column::Shed => rate(2),
        }
    }
}

/// What is shown below the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Panel {
    /// What happened.
    Events,
    /// Keys that are asked for most.
    HotKeys,
    /// What is wrong.
    Findings,
}

impl Panel {
    fn next(self) -> Panel {
        match self {
            Panel::Events => Panel::HotKeys,
            Panel::HotKeys => Panel::Findings,
            Panel::Findings => Panel::Events,
        }
    }
}

/// Whether it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It does.
    Stay,
    /// The operator has seen enough.
    Quit,
}

/// All that is shown.
#[derive(Clone, Debug)]
pub struct Screen {
    /// What is known, once there was an answer.
    pub look: Option<Look>,
    /// Why there is no newer one.
    pub error: Option<String>,
    /// By what the table is sorted.
    pub sort: Column,
    /// The least first.
    pub is_reversed: bool,
    /// Only who has this in its name, in any case.
    pub filter: String,
    /// It is being typed.
    pub is_typing: bool,
    /// What is shown stays as it is.
    pub is_paused: bool,
    /// What is below the table.
    pub panel: Panel,
    /// The first row of the table that is shown.
    pub first: usize,
    /// The keys are explained.
    pub shows_help: bool,
}

impl Default for Screen {
    fn default() -> Screen {
        Screen {
            look: None,
            error: None,
            sort: Column::Clients,
            is_reversed: false,
            filter: String::new(),
            is_typing: false,
            is_paused: false,
            panel: Panel::Events,
            first: 0,
            shows_help: false,
        }
    }
}

impl Screen {
    /// There is news.
    pub fn take(&mut self, news: Result<Look, String>) {
        match news {
            _ if self.is_paused => {}
            Ok(look) => {
                self.look = Some(look);
                self.error = None;
            }
            Err(error) => self.error = Some(error),
        }
    }

    /// A key was pressed.
    pub fn key(&mut self, key: KeyEvent) -> Next {
        if key.kind == KeyEventKind::Release {
            return Next::Stay;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Next::Quit;
        }
        if self.is_typing {
            self.type_filter(key.code);
            return Next::Stay;
        }
        if self.shows_help {
            self.shows_help = false;
            return Next::Stay;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::F(10) => return Next::Quit,
            KeyCode::Esc if self.filter.is_empty() => return Next::Quit,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('>') | KeyCode::Right => self.sort = self.sort.next(1),
            KeyCode::Char('<') | KeyCode::Left => self.sort = self.sort.next(-1),
            KeyCode::Char('r' | 'I') => self.is_reversed = !self.is_reversed,
            KeyCode::Char('c') => self.sort = Column::Clients,
            KeyCode::Char('g') => self.sort = Column::Grown10m,
            KeyCode::Char('n') => self.sort = Column::New,
            KeyCode::Char('s') => self.sort = Column::Shed,
            KeyCode::Char('/' | '\\') | KeyCode::F(4) => self.is_typing = true,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.shows_help = true,
            KeyCode::Tab => self.panel = self.panel.next(),
            KeyCode::Down => self.scroll(1),
            KeyCode::Up => self.scroll(-1),
            KeyCode::PageDown => self.scroll(10),
            KeyCode::PageUp => self.scroll(-10),
            KeyCode::Home => self.first = 0,
            _ => {}
        }
        Next::Stay
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c) if self.filter.chars().count() < FILTER_MAX => self.filter.push(c),
            _ => {}
        }
        self.first = 0;
    }

    fn scroll(&mut self, rows: isize) {
        let last = self.rows().len().saturating_sub(1);
        self.first = self.first.saturating_add_signed(rows).min(last);
    }

    /// The rows of the table: who passes the filter, in order.
    pub fn rows(&self) -> Vec<&IdentityLook> {
        let all = self.look.iter().flat_map(|look| &look.identities);
        let wanted = self.filter.to_lowercase();
        let mut rows: Vec<&IdentityLook> = all
            .filter(|row| row.identity.to_lowercase().contains(&wanted))
            .collect();
        rows.sort_by(|one, other| {
            let by = match self.sort {
                Column::Identity => one.identity.cmp(&other.identity),
                Column::Route => one.route.cmp(&other.route),
                column => column.number(other).total_cmp(&column.number(one)),
            };
            let by = if self.is_reversed { by.reverse() } else { by };
            // The same order each time, or rows would jump.
            by.then_with(|| one.identity.cmp(&other.identity))
        });
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::super::look::tests::answer;
    use super::*;

    fn screen() -> Screen {
        let first = Look::of(&answer(0), None).expect("an answer");
        let mut screen = Screen::default();
        let look = Look::of(&answer(1), Some(&first)).expect("an answer");
        screen.take(Ok(look));
        screen
    }

    fn press(screen: &mut Screen, codes: &[KeyCode]) -> Next {
        let mut next = Next::Stay;
        for code in codes {
            next = screen.key(KeyEvent::from(*code));
        }
        next
    }

    fn names(screen: &Screen) -> Vec<&str> {
        screen.rows().iter().map(|it| &*it.identity).collect()
    }

    #[test]
    fn rows_are_sorted_by_any_column_in_both_directions() {
        let mut screen = screen();
        let by_clients = ["10.1.0.1", "10.1.0.2", "al [2Jice"];
        assert_eq!(names(&screen), by_clients);
        press(&mut screen, &[KeyCode::Char('r')]);
        assert_eq!(names(&screen), ["al [2Jice", "10.1.0.2", "10.1.0.1"]);
        press(
            &mut screen,
            &[KeyCode::Char('r'), KeyCode::Left, KeyCode::Left],
        );
        assert_eq!(screen.sort, Column::Identity);
        press(&mut screen, &[KeyCode::Left]);
        assert_eq!(screen.sort, Column::Shed, "round and round");
        press(&mut screen, &[KeyCode::Char('n')]);
        assert_eq!(names(&screen)[0], "10.1.0.1");
        for _ in Column::ALL {
            press(&mut screen, &[KeyCode::Right]);
            assert_eq!(screen.rows().len(), 3);
        }
    }

    #[test]
    fn a_filter_is_typed_and_taken_away() {
        let mut screen = screen();
        press(
            &mut screen,
            &[KeyCode::Char('/'), KeyCode::Char('q'), KeyCode::Backspace],
        );
        assert!(screen.is_typing, "a letter is no command then");
        press(
            &mut screen,
            &[KeyCode::Char('A'), KeyCode::Char('l'), KeyCode::Enter],
        );
        assert_eq!(names(&screen), ["al [2Jice"]);
        assert_eq!(press(&mut screen, &[KeyCode::Esc]), Next::Stay);
        assert_eq!(names(&screen).len(), 3);
        assert_eq!(press(&mut screen, &[KeyCode::Esc]), Next::Quit);
        press(&mut screen, &[KeyCode::Char('/')]);
        press(&mut screen, &[KeyCode::Char('x'); 1_000]);
        assert_eq!(screen.filter.len(), FILTER_MAX);
    }

    #[test]
    fn while_it_is_paused_nothing_changes() {
        let mut screen = screen();
        press(&mut screen, &[KeyCode::Char('p')]);
        screen.take(Ok(Look::default()));
        screen.take(Err("gone".into()));
        assert_eq!(screen.rows().len(), 3);
        assert_eq!(screen.error, None);
        press(&mut screen, &[KeyCode::Char(' ')]);
        screen.take(Err("gone".into()));
        assert_eq!(screen.error.as_deref(), Some("gone"));
        assert_eq!(screen.rows().len(), 3, "what was known stays");
    }

    #[test]
    fn it_scrolls_within_the_rows_and_quits_as_one_expects() {
        let mut screen = screen();
        press(&mut screen, &[KeyCode::PageDown, KeyCode::Down]);
        assert_eq!(screen.first, 2);
        press(&mut screen, &[KeyCode::PageUp]);
        assert_eq!(screen.first, 0);
        press(&mut screen, &[KeyCode::Char('?'), KeyCode::Char('q')]);
        assert!(!screen.shows_help, "any key leaves the help");
        assert_eq!(press(&mut screen, &[KeyCode::Char('q')]), Next::Quit);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        screen.is_typing = true;
        assert_eq!(screen.key(interrupt), Next::Quit);
    }

    #[test]
    fn what_matters_most_stays_where_there_is_little_room() {
        assert_eq!(Column::fitting(200), Column::ALL);
        let narrow = Column::fitting(40);
        assert!(narrow.starts_with(&[Column::Identity, Column::Clients]));
        assert_eq!(Column::fitting(0), [Column::Identity, Column::Clients]);
        for width in 24..200 {
            let columns = Column::fitting(width);
            let wide: u16 = columns.iter().map(|it| it.width() + 1).sum();
            assert!(wide <= width + 1, "{width}: {columns:?}");
        }
    }
}
