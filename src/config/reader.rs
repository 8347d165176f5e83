//! Reads sections out of a parsed file, by their definitions.

use std::collections::{HashMap, HashSet};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::definition::{Facts, Fallback, Section};
use super::kind::{Found, Sources, type_of};
use super::mistake::{Mistake, Mistakes};
use super::unknown;

/// A key of a table with its line and value.
pub(super) struct Entry<'v> {
    pub(super) key: &'v str,
    pub(super) line: usize,
    pub(super) value: &'v DeValue<'v>,
}

/// Reads values and collects every mistake instead of stopping at the first.
pub(super) struct Reader<'a> {
    source: &'a str,
    sources: Sources<'a>,
    /// Offset at which each line begins.
    line_starts: Vec<usize>,
    /// Settings that somebody gave, with their line if they have one.
    written: HashMap<String, Option<usize>>,
    mistakes: Vec<Mistake>,
    warnings: Vec<Mistake>,
    /// Settings that were given under a name that is nearly theirs.
    misspelt: HashSet<String>,
    /// Nothing was lost to bad syntax.
    is_whole: bool,
}

impl<'a> Reader<'a> {
    /// A reader of `text`, called `source` in mistakes.
    pub(super) fn new(source: &'a str, text: &str, sources: Sources<'a>) -> Reader<'a> {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Reader {
            source,
            sources,
            line_starts: std::iter::once(0)
                .chain(breaks.map(|(at, _)| at + 1))
                .collect(),
            written: HashMap::new(),
            mistakes: Vec::new(),
            warnings: Vec::new(),
            misspelt: HashSet::new(),
            is_whole: true,
        }
    }

    /// The line, from 1, of the byte at this offset.
    pub(super) fn line_of(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    /// Notes a mistake in the file.
    pub(super) fn mistake(&mut self, line: Option<usize>, key: &str, problem: impl Into<String>) {
        if !self.is_whole && self.has_mistake_on(line) {
            return;
        }
        self.mistakes.push(Mistake {
            source: self.source.to_owned(),
            line,
            key: key.to_owned(),
            problem: problem.into(),
        });
    }

    /// Notes a mistake at a setting, unless it or one that the mistake depends on
    /// is wrong already: then it would only be a consequence.
    pub(super) fn mistake_unless_wrong(
        &mut self,
        key: &str,
        others: &[&str],
        problem: impl Into<String>,
    ) {
        if !self.is_wrong(key) && !others.iter().any(|other| self.is_wrong(other)) {
            self.mistake(self.nearest_line(key), key, problem);
        }
    }

    /// Notes what is no mistake and yet hardly meant.
    pub(super) fn warning(&mut self, key: &str, problem: impl Into<String>) {
        self.warnings.push(Mistake {
            source: self.source.to_owned(),
            line: self.nearest_line(key),
            key: key.to_owned(),
            problem: problem.into(),
        });
    }

    /// What was noted so, in the order of the file.
    pub(super) fn take_warnings(&mut self) -> Vec<Mistake> {
        self.warnings.sort_by_key(|warning| warning.line);
        std::mem::take(&mut self.warnings)
    }

    /// Whether there is a mistake at this setting, in whatever form it was given,
    /// or anywhere in this section.
    fn is_wrong(&self, name: &str) -> bool {
        self.mistakes.iter().any(|mistake| {
            let rest = mistake.key.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '_']))
        })
    }

    /// The line of this setting, or of the section that it would be in.
    fn nearest_line(&self, key: &str) -> Option<usize> {
        let mut name = key;
        loop {
            if let Some(line) = self.written.get(name) {
                return *line;
            }
            name = name.rsplit_once('.')?.0;
        }
    }

    /// Whether somebody gave this setting, so that its value is no default.
    pub(super) fn is_written(&self, key: &str) -> bool {
        self.written.contains_key(key)
    }

    fn has_mistake_on(&self, line: Option<usize>) -> bool {
        self.mistakes.iter().any(|mistake| mistake.line == line)
    }

    /// Notes what is not TOML, once a line. From then on, what follows from it is
    /// not noted: other mistakes on that line, and what seems to be missing.
    pub(super) fn not_toml(&mut self, offset: Option<usize>, message: &str) {
        let line = offset.map(|offset| self.line_of(offset));
        if !self.has_mistake_on(line) {
            self.mistake(line, "", format!("not TOML: {message}"));
        }
        self.is_whole = false;
    }

    /// Whether all that was given could be read, so that what is not there is missing.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// `value`, or all mistakes in the order of the file.
    pub(super) fn finish<T>(mut self, value: T) -> Result<T, Mistakes> {
        if self.mistakes.is_empty() {
            return Ok(value);
        }
        self.mistakes.sort_by_key(|mistake| mistake.line);
        Err(Mistakes(self.mistakes))
    }

    /// The entries of a table in the order of the file.
    pub(super) fn entries<'v>(&self, table: &'v DeTable<'v>) -> Vec<Entry<'v>> {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        entries
            .into_iter()
            .map(|(key, value): (_, &Spanned<DeValue<'v>>)| Entry {
                key: key.get_ref(),
                line: self.line_of(key.span().start),
                value: value.get_ref(),
            })
            .collect()
    }

    /// The entries of a section, or a mistake if it is not one.
    pub(super) fn section_entries<'v>(&mut self, path: &str, entry: &Entry<'v>) -> Vec<Entry<'v>> {
        match entry.value {
            DeValue::Table(table) => {
                self.written.insert(path.to_owned(), Some(entry.line));
                self.entries(table)
            }
            other => {
                let problem = format!("expected a section, found {}", type_of(other));
                self.mistake(Some(entry.line), path, problem);
                Vec::new()
            }
        }
    }

    /// Reads a section's settings from its entries. Returns the entries that are
    /// one of its `parts`: sections within it, for the caller to read.
    pub(super) fn settings<'v, S: Section>(
        &mut self,
        section: &mut S,
        path: &str,
        entries: Vec<Entry<'v>>,
        parts: &[&'static str],
    ) -> Vec<Entry<'v>> {
        let mut inner = Vec::new();
        for entry in entries {
            if parts.contains(&entry.key) {
                inner.push(entry);
            } else {
                self.setting(section, path, &entry, parts);
            }
        }
        inner
    }

    /// Reads one setting of a section.
    fn setting<S: Section>(
        &mut self,
        section: &mut S,
        path: &str,
        entry: &Entry<'_>,
        parts: &[&'static str],
    ) {
        let key = join(path, entry.key);
        let known = S::SETTINGS.iter().find_map(|setting| {
            let form = form_of(&setting.facts, entry.key)?;
            Some((setting, form))
        });
        let Some((setting, form)) = known else {
            let names = S::SETTINGS
                .iter()
                .flat_map(|setting| names_of(&setting.facts));
            let known: Vec<_> = names
                .chain(parts.iter().map(|part| (*part).to_owned()))
                .collect();
            return self.unknown(path, entry, &known);
        };
        // All forms of a key are one setting: a password is given once.
        let whole = join(path, setting.facts.name);
        if let Some(before) = self.written.insert(whole, Some(entry.line)) {
            let forms = names_of(&setting.facts).join(", ");
            let before = before.map_or(String::new(), |line| format!(" on line {line}"));
            let problem = format!("expected only one of {forms}, found another{before}");
            return self.mistake(Some(entry.line), &key, problem);
        }
        let found = Found::new(entry.value, form, self.sources);
        if let Err(problem) = (setting.set)(section, &found) {
            self.mistake(Some(entry.line), &key, problem);
        }
    }

    /// Notes a key that is none of the `known` ones.
    pub(super) fn unknown(&mut self, path: &str, entry: &Entry<'_>, known: &[String]) {
        if let Some(nearest) = unknown::nearest(entry.key, known) {
            self.misspelt.insert(join(path, nearest));
        }
        let what = if entry.value.is_table() {
            "section"
        } else {
            "setting"
        };
        let problem = unknown::problem(what, entry.key, known);
        self.mistake(Some(entry.line), &join(path, entry.key), problem);
    }

    /// Notes the settings of the section that have to be given and are not.
    pub(super) fn require<S: Section>(&mut self, path: &str, line: Option<usize>) {
        for facts in S::facts() {
            let key = join(path, facts.name);
            let names = names_of(&facts);
            let is_misspelt = names
                .iter()
                .any(|name| self.misspelt.contains(&join(path, name)));
            let is_missing = self.is_whole && !self.is_written(&key) && !is_misspelt;
            if facts.fallback == Fallback::Required && is_missing {
                let problem = format!("expected {}, found nothing", (facts.accepts)());
                self.mistake(line, &key, problem);
            }
        }
    }

    /// As [`Reader::given`], where the value is a text without quotes that may stand for
    /// a number, a switch or a list.
    pub(super) fn given_as_text<S: Section>(
        &mut self,
        section: &mut S,
        (path, name): (&str, &str),
        place: (&str, &str),
        value: &str,
    ) {
        let setting = S::SETTINGS
            .iter()
            .find(|setting| setting.facts.name == name)
            .expect("the caller has looked");
        let as_text = DeValue::String(value.into());
        let found = Found::new(&as_text, "", self.sources);
        let parsed = DeValue::parse(value).map(Spanned::into_inner);
        match ((setting.set)(section, &found), parsed) {
            (Err(_), Ok(parsed)) => self.given(section, (path, name), place, &parsed),
            _ => self.given(section, (path, name), place, &as_text),
        }
    }

    /// Notes a setting from elsewhere than the file that there is not.
    pub(super) fn unknown_override(&mut self, place: &str, key: &str) {
        self.is_whole = false;
        self.mistakes.push(Mistake {
            source: place.to_owned(),
            line: None,
            key: key.to_owned(),
            problem: "there is no setting of this name that can be given here".to_owned(),
        });
    }

    /// Sets one setting from elsewhere than the file: `place` (the command line, the
    /// environment), where it is called `called`.
    pub(super) fn given<S: Section>(
        &mut self,
        section: &mut S,
        (path, name): (&str, &str),
        (place, called): (&str, &str),
        value: &DeValue<'_>,
    ) {
        let setting = S::SETTINGS
            .iter()
            .find(|setting| setting.facts.name == name)
            .expect("only settings that are defined are given on the command line");
        self.written.insert(join(path, name), None);
        let found = Found::new(value, "", self.sources);
        if let Err(problem) = (setting.set)(section, &found) {
            self.is_whole = false;
            self.mistakes.push(Mistake {
                source: place.to_owned(),
                line: None,
                key: called.to_owned(),
                problem,
            });
        }
    }
}

/// Which form of the setting this key is, if it is one.
fn form_of(facts: &Facts, key: &str) -> Option<&'static str> {
    let ending = key.strip_prefix(facts.name)?;
    (facts.forms)().iter().copied().find(|form| *form == ending)
}

/// The keys under which the setting may be given.
fn names_of(facts: &Facts) -> Vec<String> {
    let forms = (facts.forms)().iter();
    forms.map(|form| format!("{}{form}", facts.name)).collect()
}

/// The full name of a key, as TOML would write it.
pub(super) fn join(path: &str, key: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let key = match !key.is_empty() && key.chars().all(is_bare) {
        true => key.to_owned(),
        false => format!("{key:?}"),
    };
    match path {
        "" => key,
        _ => format!("{path}.{key}"),
    }
}
